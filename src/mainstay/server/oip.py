"""The Open Inference Protocol v2 (REST) as a face of the decision path: bytes to calls, decisions to bytes.

A request of n rows becomes n native calls, byte for byte what a caller of the native interface would send for the same
records; so both faces decide, answer and record the same. Functions here are pure; routes, keys and limits on bodies
are the application's.
"""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol

import msgspec
from msgspec import Raw, Struct

from mainstay import __version__
from mainstay.decision.types import MAX_KEY_CHARACTERS, REASONS
from mainstay.documents import nearest, shorten
from mainstay.runtime.oip import (
    BINARY_EXTENSION,
    BYTES,
    FLOATS,
    HEADER_LENGTH,
    INTEGERS,
    BrokenMessage,
    InferenceRequest,
    InferenceResponse,
    ModelMetadata,
    ServerMetadata,
    TensorMetadata,
    decode_document,
    join_body,
    read_tensors,
    split_body,
    write_binary_tensor,
    write_tensor,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mainstay.capability.load import Declared
    from mainstay.contract.types import Property
    from mainstay.decision.types import ReasonCode
    from mainstay.runtime.oip import RequestedOutput, Tensor, Values

MAX_ROWS: Final = 10_000  # of one request
MAX_DEADLINE_MS: Final = 600_000  # as a capability may declare
MAX_ROWS_NAMED: Final = 10  # in an error
NOT_CARRIED: Final = 409  # a decision was made, and no tensor can carry its answer
PLATFORM: Final = "mainstay_capability"
JSON: Final = [("content-type", "application/json")]
RETRY: Final = ("retry-after", "1")

_NUMERIC: Final = FLOATS | INTEGERS
_LARGEST: Final = sys.float_info.max
_INT64: Final = (-(2**63), 2**63 - 1)
_UINT64: Final = (0, 2**64 - 1)

_encode = msgspec.json.Encoder().encode

Kind = Literal["number", "integer", "boolean", "text", "json"]


class Headers(Protocol):
    """The headers of a request; their names in lower case."""

    def get(self, name: str, /) -> str | None: ...


class NotInferred(Exception):
    """The request is not one that can be decided; nothing was decided."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class Response(NamedTuple):
    """What is sent back."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class Port(NamedTuple):
    """A property of the contract as a tensor of n rows."""

    name: str
    kind: Kind
    datatype: str
    required: bool


@dataclass(frozen=True, slots=True)
class OIPSignature:
    """What a capability takes and gives, as tensors."""

    name: str
    version: str
    inputs: dict[str, Port]  # in the order of the contract
    outputs: dict[str, Port]  # of the contract: what an answer holds unless outputs are named
    on_request: dict[str, Port]  # what an answer holds when it is named
    numeric: bool  # the inputs may come as one tensor of rows and columns


@dataclass(frozen=True, slots=True)
class InferRequest:
    """A request that was read: the native calls it stands for, and what the answer should look like."""

    calls: list[bytes]  # JSON, one `{"input": ..., "key"?: ..., "deadline_ms"?: ...}` per row
    request_id: str | None
    outputs: list[tuple[Port, bool]]  # in the order asked for, and whether as binary data


class _Reason(Struct):
    code: str
    detail: str


class _Decision(Struct):
    """What is read of a native answer."""

    decision_id: str
    capability: str
    version: str
    release: int
    outcome: str
    output: dict[str, Any] | None
    confidence: float | None
    reasons: list[_Reason]


_decode_decision = msgspec.json.Decoder(_Decision).decode


# What there is


def compile_signature(declared: Declared, version: str) -> OIPSignature:
    """The tensors of a capability, compiled once per release."""
    inputs = {each.name: _port(each) for each in declared.input.properties}
    outputs = {each.name: _port(each) for each in declared.output.properties}
    extra = [
        Port("decision_id", "text", BYTES, required=True),
        Port("outcome", "text", BYTES, required=True),
        Port("version", "text", BYTES, required=True),
        Port("confidence", "number", "FP64", required=False),
    ]
    return OIPSignature(
        name=declared.capability.name,
        version=version,
        inputs=inputs,
        outputs=outputs,
        on_request={port.name: port for port in extra if port.name not in outputs},
        numeric=all(port.kind in {"number", "integer"} for port in inputs.values()),
    )


def _port(declared: Property) -> Port:
    match declared.logical_type:
        case "number":
            return Port(declared.name, "number", "FP64", declared.required)
        case "integer":
            options = declared.logical_type_options
            datatype = "UINT64" if options is not None and options.format == "u64" else "INT64"
            return Port(declared.name, "integer", datatype, declared.required)
        case "boolean":
            return Port(declared.name, "boolean", "BOOL", declared.required)
        case "string" | "date" | "timestamp" | "time":
            return Port(declared.name, "text", BYTES, declared.required)
        case "object" | "array" | None:
            return Port(declared.name, "json", BYTES, declared.required)


def server_metadata() -> bytes:
    """The answer to `GET /v2`."""
    return _encode(ServerMetadata(name="mainstay", version=__version__, extensions=(BINARY_EXTENSION,)))


def server_live() -> bytes:
    """The answer to `GET /v2/health/live`."""
    return b'{"live":true}'


def server_ready() -> bytes:
    """The answer to `GET /v2/health/ready`: `live` is the specification's word for it, `ready` that of its clients."""
    return b'{"live":true,"ready":true}'


def model_ready(signature: OIPSignature) -> bytes:
    """The answer to `GET /v2/models/{name}/ready`."""
    return _encode({"name": signature.name, "ready": True})


def model_metadata(signature: OIPSignature) -> bytes:
    """The answer to `GET /v2/models/{name}`."""
    optional = [port.name for port in signature.inputs.values() if not port.required]
    return _encode(
        ModelMetadata(
            name=signature.name,
            platform=PLATFORM,
            versions=(signature.version,),
            inputs=_metadata(signature.inputs),
            outputs=_metadata(signature.outputs),
            properties={
                "optional_inputs": json.dumps(optional),
                "outputs_on_request": json.dumps(list(signature.on_request)),
            },
        )
    )


def _metadata(ports: Mapping[str, Port]) -> tuple[TensorMetadata, ...]:
    return tuple(TensorMetadata(name=port.name, datatype=port.datatype, shape=(-1,)) for port in ports.values())


def write_error(status: int, detail: str, headers: Sequence[tuple[str, str]] = ()) -> Response:
    """An error as the protocol has them, with these headers. 429 and 503 say when to come again in any case."""
    if not headers and status in {429, 503}:
        headers = [RETRY]
    return Response(status, [*JSON, *headers], _encode({"error": detail}))


# From a request to calls


def read_request(signature: OIPSignature, headers: Headers, body: bytes) -> InferRequest:
    """The calls that a request stands for. Raises NotInferred, with a status and a text for the caller."""
    encoding = headers.get("content-encoding")
    if encoding not in {None, "", "identity"}:
        raise NotInferred(415, f"expected a body without content-encoding, found {shorten(str(encoding), 40)}")
    try:
        document, binary = split_body(body, headers.get(HEADER_LENGTH))
        request = decode_document(document, InferenceRequest)
        rows = _rows(signature, request.inputs)
        most = MAX_ROWS * max(1, len(signature.inputs))
        columns = _columns(signature, read_tensors(request.inputs, binary, max_elements=most))
        parameters = request.parameters or {}
        return InferRequest(
            calls=_calls(columns, _keys(parameters, rows), _deadline(parameters)),
            request_id=request.id,
            outputs=_wanted(signature, request.outputs, binary=parameters.get("binary_data_output") is True),
        )
    except BrokenMessage as error:
        raise NotInferred(400, str(error)) from None


def _rows(signature: OIPSignature, tensors: Sequence[Tensor]) -> int:
    """How many rows a request has, before any element is read. Raises BrokenMessage."""
    if not tensors:
        raise BrokenMessage(f"expected input tensors of {', '.join(signature.inputs)}; found none")
    if len(tensors) > len(signature.inputs):
        raise BrokenMessage(f"expected at most {len(signature.inputs)} input tensors, found {len(tensors)}")
    counts = {tensor.name: tensor.shape[0] for tensor in tensors if tensor.shape}
    for name, count in counts.items():
        if not 1 <= count <= MAX_ROWS:
            found = shorten(str(count), 40)
            raise BrokenMessage(f"tensor {shorten(name, 60)}: expected 1 to {MAX_ROWS} rows, found {found}")
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{shorten(name, 40)} has {count}" for name, count in counts.items())
        raise BrokenMessage(f"expected as many rows in every tensor, found: {shorten(found, 300)}")
    return next(iter(counts.values()), 0)


def _columns(signature: OIPSignature, tensors: Mapping[str, Values]) -> dict[str, list[Any]]:
    """The values of each property that was given. Raises BrokenMessage."""
    if len(tensors) == 1:
        (tensor,) = tensors.values()
        matrix = len(tensor.shape) == 2 and (tensor.name not in signature.inputs or tensor.shape[1] > 1)
        if matrix:
            return _split(signature, tensor)
    columns = {}
    for tensor in tensors.values():
        port = signature.inputs.get(tensor.name)
        if port is None:
            raise BrokenMessage(
                f"expected input tensors of the contract, found {_unknown(tensor.name, signature.inputs)}"
            )
        if len(tensor.shape) == 2 and tensor.shape[1] != 1:
            shape = [tensor.shape[0]]
            raise BrokenMessage(f"tensor {tensor.name}: expected the shape {shape}, found {list(tensor.shape)}")
        columns[tensor.name] = _column(port, tensor.datatype, tensor.elements)
    return columns


def _split(signature: OIPSignature, tensor: Values) -> dict[str, list[Any]]:
    """One tensor of rows and columns: the properties in the order of the contract."""
    if not signature.numeric:
        others = ", ".join(port.name for port in signature.inputs.values() if port.kind not in {"number", "integer"})
        raise BrokenMessage(
            f"expected a tensor for each property, since {others} are not numbers; found the tensor"
            f" {shorten(tensor.name, 60)} of shape {list(tensor.shape)}"
        )
    if tensor.shape[1] != len(signature.inputs):
        raise BrokenMessage(
            f"tensor {shorten(tensor.name, 60)}: expected {len(signature.inputs)} columns"
            f" ({', '.join(signature.inputs)}), found {tensor.shape[1]}"
        )
    ports = signature.inputs.values()
    return {port.name: _column(port, tensor.datatype, tensor.column(at)) for at, port in enumerate(ports)}


def _column(port: Port, datatype: str, elements: list[Any]) -> list[Any]:
    """The values of a property as a native call would have them, None where one is missing. Raises BrokenMessage."""
    accepted = {"number": _NUMERIC, "integer": _NUMERIC, "boolean": {"BOOL"}}.get(port.kind, {BYTES})
    if datatype not in accepted:
        also = " (or another numeric datatype)" if accepted is _NUMERIC else ""
        raise BrokenMessage(f"tensor {port.name}: expected datatype {port.datatype}{also}, found {datatype}")
    if datatype in FLOATS:
        return [_number(port, place, element) for place, element in enumerate(elements)]
    if port.kind == "json":
        return [_document(port, place, element) for place, element in enumerate(elements)]
    return elements


def _number(port: Port, place: int, element: float) -> float | None:
    """NaN is how a float tensor says that a value is missing; whole floats are integers where those are wanted."""
    if math.isfinite(element):
        return int(element) if port.kind == "integer" and element.is_integer() else element
    if math.isnan(element):
        return None
    raise BrokenMessage(f"tensor {port.name}: expected finite numbers, found infinity in row {place}")


def _document(port: Port, place: int, element: str | None) -> Raw | None:
    if element is None:
        return None
    try:
        return Raw(msgspec.json.format(element, indent=-1).encode())  # one line, whatever the caller wrote
    except (msgspec.DecodeError, RecursionError) as error:
        raise BrokenMessage(f"tensor {port.name}: expected JSON texts, found in row {place}: {error}") from None


def _keys(parameters: Mapping[str, Any], rows: int) -> list[str | None]:
    """The business key of each row: a list, or the JSON text of one, since the protocol's parameters are scalars."""
    keys = parameters.get("keys")
    if isinstance(keys, str):
        try:
            keys = msgspec.json.decode(keys)
        except (msgspec.DecodeError, RecursionError):
            raise BrokenMessage(
                "parameter keys: expected a list of texts or the JSON of one, found other text"
            ) from None
    if keys is None:
        return [None] * rows
    if not isinstance(keys, list) or not all(key is None or isinstance(key, str) for key in keys):
        raise BrokenMessage("parameter keys: expected a list of texts or null, found something else")
    if len(keys) != rows:
        raise BrokenMessage(f"parameter keys: expected one for each of {rows} rows, found {len(keys)}")
    if any(key is not None and len(key) > MAX_KEY_CHARACTERS for key in keys):
        raise BrokenMessage(f"parameter keys: expected at most {MAX_KEY_CHARACTERS} characters each, found more")
    return keys


def _deadline(parameters: Mapping[str, Any]) -> float | None:
    deadline = parameters.get("deadline_ms")
    if deadline is None:
        return None
    if isinstance(deadline, bool) or not isinstance(deadline, int | float) or not 1 <= deadline <= MAX_DEADLINE_MS:
        raise BrokenMessage(f"parameter deadline_ms: expected a number of 1 to {MAX_DEADLINE_MS}, found something else")
    return deadline


def _calls(columns: Mapping[str, list[Any]], keys: Sequence[str | None], deadline: float | None) -> list[bytes]:
    names = tuple(columns)
    calls = []
    for values, key in zip(zip(*columns.values(), strict=True), keys, strict=True):
        call: dict[str, Any] = {"input": dict(zip(names, values, strict=True))}
        if key is not None:
            call["key"] = key
        if deadline is not None:
            call["deadline_ms"] = deadline
        calls.append(_encode(call))
    return calls


def _wanted(
    signature: OIPSignature, outputs: Sequence[RequestedOutput] | None, *, binary: bool
) -> list[tuple[Port, bool]]:
    """The outputs asked for; all of the contract's where none is. Raises BrokenMessage."""
    if not outputs:
        return [(port, binary) for port in signature.outputs.values()]
    known = signature.outputs | signature.on_request
    wanted: dict[str, tuple[Port, bool]] = {}
    for output in outputs:
        port = known.get(output.name)
        if port is None:
            raise BrokenMessage(f"expected outputs of the contract, found {_unknown(output.name, known)}")
        if output.name in wanted:
            raise BrokenMessage(f"expected each output once, found {output.name} twice")
        parameters = output.parameters or {}
        if "classification" in parameters:
            raise BrokenMessage(f"output {output.name}: classification is not an extension of this server")
        own = parameters.get("binary_data")
        wanted[output.name] = (port, binary if own is None else own is True)
    return list(wanted.values())


def _unknown(name: str, known: Mapping[str, Port]) -> str:
    near = nearest(name, known)
    return shorten(name, 60) + (f" (did you mean {near}?)" if near else f"; there are {', '.join(known)}")


# From decisions to an answer


class _NotCarried(Exception):
    """No tensor can carry this row."""


def write_response(signature: OIPSignature, request: InferRequest, answers: Sequence[bytes]) -> Response:
    """The answer to a request from its decisions: native JSON, one per row in order.

    An error where a row was refused, or where its answer is none that a tensor can carry: a person decides it, or an
    output is null. All rows stay decided and recorded.
    """
    decisions = [_decode_decision(answer) for answer in answers]
    refused = {row: decision for row, decision in enumerate(decisions) if decision.outcome == "refused"}
    if refused:
        status = min(REASONS[_code(decision)][0] for decision in refused.values())
        faults = {row: _reasons(decision) for row, decision in refused.items()}
        return write_error(status, _tell("refused", decisions, faults))
    columns: list[list[Any]] = []
    faults = {}
    for port, _ in request.outputs:
        column: list[Any] = []
        for row, decision in enumerate(decisions):
            try:
                column.append(_value(signature, port, decision))
            except _NotCarried as why:
                faults.setdefault(row, str(why))
        columns.append(column)
    if faults:
        return write_error(NOT_CARRIED, _tell("decided, and no tensor can carry the answer", decisions, faults))
    return _answer(request, decisions, columns)


def _answer(request: InferRequest, decisions: Sequence[_Decision], columns: Sequence[list[Any]]) -> Response:
    tensors: list[Tensor] = []
    behind: list[bytes] = []
    for (port, binary), column in zip(request.outputs, columns, strict=True):
        if binary:
            tensor, content = write_binary_tensor(port.name, port.datatype, (len(column),), column)
            behind.append(content)
        else:
            tensor = write_tensor(port.name, port.datatype, (len(column),), column)
        tensors.append(tensor)
    versions = list(dict.fromkeys(decision.version for decision in decisions))
    response = InferenceResponse(
        model_name=decisions[0].capability,
        model_version=versions[0] if len(versions) == 1 else None,  # a canary decided some of the rows
        id=request.request_id,
        parameters={
            "decision_ids": ",".join(decision.decision_id for decision in decisions),
            "outcomes": ",".join(decision.outcome for decision in decisions),
            "release": decisions[0].release,
        },
        outputs=tuple(tensors),
    )
    headers, body = join_body(response, behind)
    return Response(200, headers, body)


def _value(signature: OIPSignature, port: Port, decision: _Decision) -> Any:
    """The element of an output for one row. Raises _NotCarried."""
    if port.name in signature.on_request:
        value = getattr(decision, port.name)
    elif decision.outcome == "review":
        raise _NotCarried(f"a person decides it: {_reasons(decision)}")
    else:
        value = (decision.output or {}).get(port.name)
    if value is None:
        raise _NotCarried(f"{port.name} is null")
    match port.kind:
        case "number":
            if abs(value) > _LARGEST:
                raise _NotCarried(f"{port.name} is not within FP64")
            return float(value)
        case "integer":
            low, high = _UINT64 if port.datatype == "UINT64" else _INT64
            if not low <= value <= high:
                raise _NotCarried(f"{port.name} is not within {port.datatype}")
            return value
        case "json":
            return _encode(value).decode()
        case "boolean" | "text":
            return value


def _code(decision: _Decision) -> ReasonCode:
    for code in REASONS:
        if decision.reasons and decision.reasons[0].code == code:
            return code
    return "no_fallback"


def _reasons(decision: _Decision) -> str:
    return "; ".join(f"{reason.code}: {reason.detail}" for reason in decision.reasons) or "no reason"


def _tell(what: str, decisions: Sequence[_Decision], faults: Mapping[int, str]) -> str:
    """What became of a request whose answer is an error: the first rows at fault, their decisions, and the others."""

    def lines() -> Iterator[str]:
        rows = f"{len(decisions)} row{'' if len(decisions) == 1 else 's'}"
        yield f"{len(faults)} of {rows} {what}"
        for row in sorted(faults)[:MAX_ROWS_NAMED]:
            yield f"row {row}, decision {decisions[row].decision_id}: {shorten(faults[row], 400)}"
        if len(faults) > MAX_ROWS_NAMED:
            yield f"and {len(faults) - MAX_ROWS_NAMED} more"
        others = Counter(decision.outcome for row, decision in enumerate(decisions) if row not in faults)
        if others:
            told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(others.items()))
            yield f"the others are decided and recorded: {told}"

    return "\n".join(lines())
