"""One model behind the Open Inference Protocol v2 (REST): rows in, predictions out, over HTTP.

Inference is free of effects, so a request may be sent again wherever the server has not begun to answer: when it cannot
be reached, hangs up before the first byte, or says 429, 502 or 503. One that is merely slow is not asked twice.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections import deque
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote

import httpx
import msgspec

from mainstay.documents import shorten
from mainstay.errors import NOT_READ
from mainstay.runtime.oip import (
    BINARY_EXTENSION,
    BYTES,
    BrokenMessage,
    InferenceRequest,
    InferenceResponse,
    RequestedOutput,
    ServerMetadata,
    TensorMetadata,
    decode_document,
    join_body,
    read_tensors,
    split_body,
    write_binary_tensor,
    write_tensor,
)
from mainstay.runtime.types import Prediction, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mainstay.capability.types import OutputField, Remote
    from mainstay.runtime.oip import Tensor
    from mainstay.runtime.types import Feature, Result, Row

MAX_ANSWER_BYTES: Final = 16 << 20
MAX_ELEMENTS: Final = 1 << 22  # of a tensor in an answer
FIRST_DELAY_SECONDS: Final = 0.05  # before the first retry, at most; it doubles
MAX_DELAY_SECONDS: Final = 1.0
PART_REQUESTS: Final = 64  # for the parts of a batch that the model failed on, to find the rows that it fails on
IDLE_SECONDS: Final = 30.0  # how long an idle connection is kept

_AGAIN: Final = frozenset({429, 502, 503})  # the server has not decided
_ABOUT_US: Final = frozenset({401, 403, 404, 405, 408, 410, 421, 426, 431})  # rather than about the rows
_DATATYPES: Final = {"number": "FP64", "integer": "INT64", "boolean": "BOOL", "string": BYTES}


class RowsRefused(Exception):
    """The server found fault with a request, or its model failed on it; other rows may do better."""


class RowsFailed(Unavailable):
    """The server failed on a request with an error of its own; other rows may do better."""


class BrokenAnswer(Exception):
    """The server answered with something that the protocol, or the declaration, does not allow."""


class MissingValue(Exception):
    """A value of this row is missing, and the server cannot be told."""


class _Answer(NamedTuple):
    status: int
    headers: httpx.Headers
    body: bytes


class _Unanswered(Exception):
    """The exchange broke before the first byte of an answer."""


class RemoteModel:
    """Rows in, predictions out, over HTTP. Belongs to the event loop that it is first used on."""

    def __init__(
        self,
        remote: Remote,
        *,
        fields: Sequence[str],
        features: Sequence[Feature],
        output: Mapping[str, OutputField],
        confidence: str | None,
        secret: str | None,
    ) -> None:
        """`fields` are the names of the values in a row, `features` what the model takes of them, in its order.

        Raises ValueError when an output field, the confidence or a feature cannot be had this way.
        """
        self._retries = remote.retries
        self._secret = secret
        self._binary: bool | None = None  # None: not asked yet
        self._write = _build_writer(remote, fields, features)
        self._read = _build_reader(output, confidence)
        self.inputs = self._write.metadata  # the tensors that are sent
        self._wanted = tuple(RequestedOutput(name=name) for name in dict.fromkeys(_tensor_names(output)))
        self.root = remote.url.rstrip("/") + "/v2"
        self.address = f"{self.root}/models/{quote(remote.model, safe='')}"
        if remote.version is not None:
            self.address += f"/versions/{quote(remote.version, safe='')}"
        headers = {"accept": "application/json", "accept-encoding": "identity", "user-agent": "mainstay"}
        if secret is not None:
            headers["authorization"] = f"Bearer {secret}"
        try:
            httpx.URL(self.address)
        except httpx.InvalidURL as error:
            raise ValueError(f"model.remote.url: expected an address, found {remote.url}: {error}") from None
        self._client = httpx.AsyncClient(
            headers=headers,
            timeout=None,  # noqa: S113 - every exchange runs under `asyncio.timeout_at`
            limits=httpx.Limits(
                max_connections=remote.connections,
                max_keepalive_connections=remote.connections,
                keepalive_expiry=IDLE_SECONDS,
            ),
            follow_redirects=False,
            trust_env=False,
        )

    async def predict(self, rows: Sequence[Row], until: float) -> list[Result]:
        """A result per row, by `until` on the loop's clock. Rows that the model fails on fail alone, within bounds."""
        results = await self._unsaid(rows, until)
        sound = [place for place in range(len(rows)) if place not in results]
        parts = deque([sound] if sound else [])
        spare = PART_REQUESTS
        while parts:
            part = parts.popleft()
            try:
                found: Sequence[Result] = await self._infer([rows[place] for place in part], until)
            except (RowsRefused, RowsFailed) as error:
                if len(part) > 1 and spare >= 2:
                    spare -= 2
                    parts += [part[: len(part) // 2], part[len(part) // 2 :]]
                    continue
                found = [error] * len(part)
            except (BrokenAnswer, Unavailable) as error:
                found = [error] * len(part)
            results.update(zip(part, found, strict=True))
        return [results[place] for place in range(len(rows))]

    async def get(self, address: str, until: float) -> _Answer:
        """What the server says at an address. Raises Unavailable and BrokenAnswer."""
        return await self._exchange("GET", address, {}, b"", until)

    async def close(self) -> None:
        await self._client.aclose()

    async def _unsaid(self, rows: Sequence[Row], until: float) -> dict[int, Result]:
        """The rows that cannot be sent for a missing value, and why."""
        results: dict[int, Result] = {}
        for place, row in enumerate(rows):
            for name, at in self._write.firm:
                if row[at] is None:
                    results[place] = MissingValue(f"{name} is missing, which the protocol can say of a number only")
        holed = [place for place, row in enumerate(rows) if any(row[at] is None for at in self._write.numbers)]
        if holed:
            try:
                binary = await self._takes_binary(until)
            except (Unavailable, BrokenAnswer) as error:
                return dict.fromkeys(holed, error) | results
            if not binary:
                said = (
                    f"a number is missing: expected a server with the extension {BINARY_EXTENSION}, found one without"
                )
                return dict.fromkeys(holed, MissingValue(said)) | results
        return results

    async def _takes_binary(self, until: float) -> bool:
        """Whether the server states the binary tensor data extension; asked once. Raises as `get` does."""
        if self._binary is None:
            answer = await self.get(self.root, until)
            if answer.status in _AGAIN:
                raise self._trouble(answer)
            try:
                stated = decode_document(answer.body, ServerMetadata).extensions
            except BrokenMessage:
                stated = ()
            self._binary = answer.status == 200 and BINARY_EXTENSION in stated
        return self._binary

    async def _infer(self, rows: Sequence[Row], until: float) -> list[Result]:
        """Raises RowsRefused, RowsFailed, BrokenAnswer and Unavailable."""
        tensors, binary = self._write.tensors(rows)
        headers, content = join_body(InferenceRequest(inputs=tensors, outputs=self._wanted), binary)
        answer = await self._exchange("POST", f"{self.address}/infer", dict(headers), content, until)
        if answer.status != 200:
            raise self._trouble(answer)
        return self._understand(answer, len(rows))

    def _understand(self, answer: _Answer, rows: int) -> list[Result]:
        """What an answer of 200 to a request of so many rows says. Raises BrokenAnswer."""
        try:
            document, rest = split_body(answer.body, answer.headers.get("inference-header-content-length"))
            response = decode_document(document, InferenceResponse)
            values = read_tensors(response.outputs, rest, max_elements=MAX_ELEMENTS)
            return self._read(values, rows)
        except BrokenMessage as error:
            raise BrokenAnswer(self._redacted(str(error))) from None

    def _trouble(self, answer: _Answer) -> Exception:
        """What an answer other than 200 means."""
        said = f"the server of the remote model answered {answer.status}{self._said(answer)}"
        if answer.status in _ABOUT_US or answer.status in _AGAIN:
            return Unavailable(said)
        if answer.status == 500:
            return RowsFailed(said)
        if 400 <= answer.status < 500:
            return RowsRefused(said)
        return Unavailable(said) if answer.status >= 500 else BrokenAnswer(f"expected an answer of 200; {said}")

    def _said(self, answer: _Answer) -> str:
        """The protocol's error text of an answer, if it has one."""
        try:
            document = msgspec.json.decode(answer.body)
        except NOT_READ:
            return ""
        text = document.get("error") if isinstance(document, dict) else None
        return f": {self._redacted(text)}" if isinstance(text, str) and text else ""

    def _redacted(self, text: str) -> str:
        """A text of the server, which may have sent our token back, on one line."""
        return shorten(text if self._secret is None else text.replace(self._secret, "***"), 300)

    async def _exchange(
        self, method: str, address: str, headers: Mapping[str, str], content: bytes, until: float
    ) -> _Answer:
        """An answer, whatever its status. Retries what is safe, with full jitter; never beyond `until`.

        Raises Unavailable, and BrokenAnswer for an answer that is too large or encoded.
        """
        loop = asyncio.get_running_loop()
        longest = FIRST_DELAY_SECONDS
        for left in range(self._retries, -1, -1):
            wait = 0.0
            try:
                async with asyncio.timeout_at(until):
                    answer = await self._send(method, address, headers, content)
            except TimeoutError:
                raise Unavailable("the server of the remote model had not answered when the time was up") from None
            except _Unanswered as error:
                trouble: Exception = Unavailable(f"the server of the remote model cannot be reached: {error}")
            else:
                if answer.status not in _AGAIN:
                    return answer
                trouble = self._trouble(answer)
                wait = _retry_after(answer.headers)
            wait += random.uniform(0, longest)  # noqa: S311 - spreads retries, keeps no secret
            longest = min(2 * longest, MAX_DELAY_SECONDS)
            if not left or loop.time() + wait >= until:
                raise trouble
            await asyncio.sleep(wait)
        raise AssertionError("the last turn returns or raises")

    async def _send(self, method: str, address: str, headers: Mapping[str, str], content: bytes) -> _Answer:
        request = self._client.build_request(method, address, headers=headers, content=content)
        try:
            response = await self._client.send(request, stream=True)
        except httpx.TransportError as error:
            raise _Unanswered(type(error).__name__) from None  # its text may name addresses inside the network
        try:
            return _Answer(response.status_code, response.headers, await _bounded(response))
        except httpx.TransportError as error:
            raise Unavailable(f"the remote model's answer broke off: {type(error).__name__}") from None
        finally:
            await response.aclose()


async def _bounded(response: httpx.Response) -> bytes:
    encoding = response.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise BrokenAnswer(f"expected an answer without content-encoding, found {shorten(encoding, 40)}")
    chunks, size = [], 0
    async for chunk in response.aiter_raw():
        size += len(chunk)
        if size > MAX_ANSWER_BYTES:
            raise BrokenAnswer(f"expected an answer of at most {MAX_ANSWER_BYTES} bytes, found more")
        chunks.append(chunk)
    return b"".join(chunks)


def _retry_after(headers: httpx.Headers) -> float:
    """The seconds that `Retry-After` asks for; 0 where it says nothing that can be read."""
    text = headers.get("retry-after", "")
    if re.fullmatch(r"[0-9]{1,9}", text):
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


# What is sent


class _Writer(NamedTuple):
    """How rows become the tensors of a request."""

    firm: list[tuple[str, int]]  # features whose datatype cannot say that a value is missing, and where they stand
    numbers: list[int]  # where those stand that can, as NaN
    tensors: Callable[[Sequence[Row]], tuple[tuple[Tensor, ...], list[bytes]]]
    metadata: tuple[TensorMetadata, ...]


def _build_writer(remote: Remote, fields: Sequence[str], features: Sequence[Feature]) -> _Writer:
    places = {name: place for place, name in enumerate(fields)}
    absent = [feature.name for feature in features if feature.name not in places]
    if absent or not features:
        raise ValueError(f"expected features that the input has, found {', '.join(absent) or 'none'}")
    wanted = [places[feature.name] for feature in features]
    if remote.input_tensor is not None:
        return _matrix_writer(remote.input_tensor, wanted, features)
    kinds = [_DATATYPES[feature.kind] for feature in features]
    firm = [(feature.name, at) for feature, at in zip(features, wanted, strict=True) if feature.kind != "number"]
    numbers = [at for feature, at in zip(features, wanted, strict=True) if feature.kind == "number"]

    def tensors(rows: Sequence[Row]) -> tuple[tuple[Tensor, ...], list[bytes]]:
        made: list[Tensor] = []
        binary: list[bytes] = []
        for feature, datatype, at in zip(features, kinds, wanted, strict=True):
            _add_tensor(made, binary, feature.name, datatype, (len(rows),), [row[at] for row in rows])
        return tuple(made), binary

    metadata = [
        TensorMetadata(name=feature.name, datatype=datatype, shape=(-1,))
        for feature, datatype in zip(features, kinds, strict=True)
    ]
    return _Writer(firm, numbers, tensors, tuple(metadata))


def _matrix_writer(name: str, wanted: Sequence[int], features: Sequence[Feature]) -> _Writer:
    """One FP64 tensor of rows and columns; true is 1."""
    texts = [feature.name for feature in features if feature.kind == "string"]
    if texts:
        raise ValueError(
            f"model.remote.input_tensor: expected numbers to fill its one FP64 tensor, found text: {', '.join(texts)}"
        )

    def tensors(rows: Sequence[Row]) -> tuple[tuple[Tensor, ...], list[bytes]]:
        made: list[Tensor] = []
        binary: list[bytes] = []
        cells = [None if row[at] is None else float(row[at]) for row in rows for at in wanted]
        _add_tensor(made, binary, name, "FP64", (len(rows), len(wanted)), cells)
        return tuple(made), binary

    metadata = TensorMetadata(name=name, datatype="FP64", shape=(-1, len(wanted)))
    return _Writer([], list(wanted), tensors, (metadata,))


def _add_tensor(
    made: list[Tensor], binary: list[bytes], name: str, datatype: str, shape: tuple[int, ...], elements: list[Any]
) -> None:
    """JSON has no NaN, and the protocol no null: a tensor with a missing number goes as binary data."""
    if None not in elements:
        made.append(write_tensor(name, datatype, shape, elements))
        return
    tensor, content = write_binary_tensor(name, datatype, shape, elements)
    made.append(tensor)
    binary.append(content)


# What comes back


def _tensor_names(output: Mapping[str, OutputField]) -> list[str]:
    return [field.tensor or name for name, field in output.items()]


def _build_reader(
    output: Mapping[str, OutputField], confidence: str | None
) -> Callable[[Mapping[str, Any], int], list[Result]]:
    """A function from the tensors of an answer, and how many rows it is of, to predictions.

    Raises ValueError when a field takes something else than a tensor; the function raises BrokenMessage.
    """
    if not output:
        raise ValueError("output: expected the fields that come from tensors, found none")
    for name, field in output.items():
        if field.take != "tensor":
            raise ValueError(
                f"output.{name}.take: expected tensor, which is what a remote model gives; found {field.take}"
            )
    if confidence is not None and confidence not in output:
        raise ValueError(f"model.confidence: expected a property of the output, found {confidence}")
    columns = [(field.tensor or name, field.column) for name, field in output.items()]
    stated = None if confidence is None else list(output).index(confidence)

    def read(tensors: Mapping[str, Any], rows: int) -> list[Result]:
        taken = [_column(tensors, name, column, rows) for name, column in columns]
        values = zip(*taken, strict=True)
        if stated is None:
            return [Prediction(each, None) for each in values]
        return [_stating(each, each[stated]) for each in values]

    return read


def _column(tensors: Mapping[str, Any], name: str, column: int, rows: int) -> list[Any]:
    tensor = tensors.get(name)
    if tensor is None:
        found = shorten(", ".join(tensors), 100) or "none"
        raise BrokenMessage(f"expected an output tensor {name}, found {found}")
    width = tensor.shape[1] if len(tensor.shape) == 2 else 1
    if tensor.shape[0] != rows or column >= width:
        raise BrokenMessage(
            f"output tensor {name}: expected {rows} rows and more than {column} columns,"
            f" found the shape {list(tensor.shape)}"
        )
    values: list[Any] = tensor.column(column)
    return values


def _stating(values: tuple[Any, ...], confidence: object) -> Result:
    if isinstance(confidence, int | float) and not isinstance(confidence, bool):
        return Prediction(values, float(confidence))
    return BrokenAnswer(f"expected a number as confidence, found {type(confidence).__name__}")
