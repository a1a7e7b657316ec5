"""What passes between a worker and an isolated process: msgpack, each frame after its length.

The worker sends `Start`, then batches: a number and rows. The process answers `ChildInfo` or `Refused`, and then every
batch with its number and a `Gave` or `Fault` per row. What the process sends is not believed before it has been
checked here.
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import msgspec

from mainstay.capability.types import OutputField  # noqa: TC001 - msgspec reads the annotations
from mainstay.runtime.types import Feature, ModelInput, ModelOutput, Prediction

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mainstay.runtime.types import Result

HEADER: Final = struct.Struct(">I")  # the length of the payload in bytes
MAX_FRAME_BYTES: Final = 16 << 20
MAX_VALUES: Final = 10_000  # in the lists and objects of one output field; what reads them holds the event loop
MAX_DEPTH: Final = 32

Label: TypeAlias = str | int | bool


class IsolatedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model that runs in a process of its own, and how rows become its input and its output becomes values."""

    folder: str  # absolute path of the version's folder, which holds its code and its model file
    kind: Literal["sklearn", "xgboost", "lightgbm", "python", "onnx"]
    file: str | None = None  # the model file inside the folder; None for kind python
    call: str | None = None  # kind python: `predict.py:predict`
    fields: tuple[str, ...]  # names of the values of a row, in order
    features: tuple[Feature, ...]  # the fields the model takes, in its order; for kind python all of them
    output: dict[str, OutputField] = {}  # in the order of the output fields; empty for kind python
    output_fields: tuple[str, ...]
    trusted_types: tuple[str, ...] = ()  # types a skops file may hold beyond its own safe list
    confidence: str | None = None  # kind python: the output field that states it
    memory_bytes: int = 4_096 << 20  # of address space
    start_seconds: float = 60.0  # how long loading may take
    background: bool = False  # it runs on what others leave of the processor
    inputs: tuple[ModelInput, ...] = ()  # kind onnx: of the graph, as are the next two
    outputs: tuple[ModelOutput, ...] = ()
    classes: tuple[Label, ...] = ()


class Start(msgspec.Struct, frozen=True, array_like=True):
    """The first frame to the process."""

    model: IsolatedModel
    parent: int  # the process that the child must not outlive


class ChildInfo(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    """What the process says of itself once it has loaded its model."""

    classes: tuple[Label, ...] = ()  # in the order of the probabilities; empty where there are none
    notes: tuple[str, ...] = ()  # what a library found odd about the model, such as another version's pickle
    confined: tuple[str, ...] = ()  # which of `confinement.CONFINEMENTS` the kernel holds it to


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    """The model cannot be run, for a reason a person can act on."""

    message: str
    hint: str = ""
    raised: bool = False  # its own code or library failed, rather than what was declared being wrong


class Gave(msgspec.Struct, frozen=True, array_like=True, tag=0, gc=False):
    """What the model gave for one row: a value per output field, and the confidence it states."""

    values: list[Any]
    confidence: Any = None


class Fault(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """The model failed on this row."""

    message: str


class RowFailed(Exception):
    """The model raised on this row, or gave for it what no output can be."""


class BrokenProtocol(Exception):
    """The other side sent something that is no frame, or not the one that was due."""


_OPENING: msgspec.msgpack.Decoder[ChildInfo | Refused] = msgspec.msgpack.Decoder(ChildInfo | Refused)
_REPLY = msgspec.msgpack.Decoder(tuple[int, list[Gave | Fault]])


def frame(payload: bytes) -> bytes:
    return HEADER.pack(len(payload)) + payload


class Inbox:
    """Gathers the chunks of a stream into one frame at a time; a side never has two frames to read."""

    def __init__(self, max_bytes: int = MAX_FRAME_BYTES) -> None:
        self._max_bytes = max_bytes
        self._held = bytearray()

    def feed(self, chunk: bytes) -> bytes | None:
        """The payload when this chunk completes it. Raises BrokenProtocol when it is too large, or more follows."""
        self._held += chunk
        if len(self._held) < HEADER.size:
            return None
        length: int = HEADER.unpack_from(self._held)[0]
        if length > self._max_bytes:
            raise BrokenProtocol(f"expected at most {self._max_bytes} bytes at once, found {length}")
        if len(self._held) < HEADER.size + length:
            return None
        if len(self._held) > HEADER.size + length:
            raise BrokenProtocol("expected one frame, found more after it")
        payload = bytes(memoryview(self._held)[HEADER.size :])
        self._held = bytearray()
        return payload


def read_opening(payload: bytes) -> ChildInfo | Refused:
    """The first frame from the process. Raises BrokenProtocol."""
    try:
        return _OPENING.decode(payload)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise BrokenProtocol(f"expected to hear that it is ready, found something else: {error}") from None


def read_reply(payload: bytes, batch: int, rows: int, fields: Sequence[str]) -> list[Result]:
    """A result per row. Raises BrokenProtocol when the frame does not hold `rows` answers to the batch of that number.

    A process that was forked and lives on as its own twin would answer twice: the number tells the batches apart.
    """
    try:
        number, answers = _REPLY.decode(payload)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise BrokenProtocol(f"expected a list of answers: {error}") from None
    if number != batch:
        raise BrokenProtocol(f"expected the answers to batch {batch}, found those to {number}")
    if len(answers) != rows:
        raise BrokenProtocol(f"expected {rows} answers, found {len(answers)}")
    return [_result(answer, fields) for answer in answers]


def _result(answer: Gave | Fault, fields: Sequence[str]) -> Result:
    if isinstance(answer, Fault):
        return RowFailed(answer.message[:1_000])
    if len(answer.values) != len(fields):
        return RowFailed(f"expected {len(fields)} output values, found {len(answer.values)}")
    for name, value in zip(fields, answer.values, strict=True):
        wrong = find_no_json(value)
        if wrong:
            return RowFailed(f"output.{name}: expected a JSON value, found {wrong}")
    confidence = answer.confidence
    if confidence is None:
        return Prediction(tuple(answer.values), None)
    if type(confidence) not in {float, int} or not 0 <= confidence <= 1:
        return RowFailed("expected as confidence a number from 0 to 1, found something else")
    return Prediction(tuple(answer.values), float(confidence))


def find_no_json(value: Any) -> str:
    """What makes a value no JSON, or too large to look at; nothing when it is fine."""
    kind = type(value)
    if kind is float:
        return "" if math.isfinite(value) else "a number that is not finite"
    if kind in _PLAIN:
        return ""
    layer, seen = [value], 0
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for each in layer:
            wrong = _no_member(each)
            if wrong:
                return wrong
            if isinstance(each, list | dict):
                seen += len(each)
                if seen > MAX_VALUES:
                    return f"more than {MAX_VALUES} values"
                below.extend(_members(each))
        if not below:
            return ""
        layer = below
    return f"lists and objects more than {MAX_DEPTH} deep"


_PLAIN: Final = frozenset({int, str, bool, type(None)})


def _no_member(value: Any) -> str:
    match value:
        case float():
            return "" if math.isfinite(value) else "a number that is not finite"
        case dict():
            return "" if all(isinstance(name, str) for name in value) else "an object with a name that is no text"
        case None | bool() | int() | str() | list():
            return ""
        case _:
            return f"a value of type {type(value).__name__}"


def _members(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value
