"""The Open Inference Protocol v2 over REST: its documents, its tensors, and the binary tensor data extension.

https://github.com/kserve/open-inference-protocol, specification/protocol/inference_rest.md; the extension as Triton
Inference Server documents it. Tensors have one dimension or two: rows, or rows and columns.
"""

from __future__ import annotations

import math
import re
import struct
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple, TypeAlias, TypeVar

import msgspec
import numpy as np
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from mainstay.arrays import MAX_ITEMS, SMALL_BYTES, TooMany, split_array
from mainstay.documents import shorten
from mainstay.errors import NOT_READ

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

HEADER_LENGTH: Final = "inference-header-content-length"  # bytes of JSON before the binary data
BINARY_EXTENSION: Final = "binary_tensor_data"
BINARY_SIZE: Final = "binary_data_size"  # the parameter of a tensor whose data stands behind the JSON
BYTES: Final = "BYTES"

DATATYPES: Final[dict[str, str | None]] = {
    "BOOL": "?",
    "UINT8": "u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
    BYTES: None,
}
"""Every datatype of the protocol, as numpy writes it; BYTES elements have no common size."""

FLOATS: Final = frozenset({"FP16", "FP32", "FP64"})
INTEGERS: Final = frozenset(name for name in DATATYPES if "INT" in name)

Parameters: TypeAlias = dict[str, Any]
Element: TypeAlias = bool | int | float | str | None

D = TypeVar("D", bound=Struct)

_encode = msgspec.json.Encoder().encode
_NESTED = re.compile(rb"\s*\[\s*\[")
_LENGTH = struct.Struct("<I")


class BrokenMessage(ValueError):
    """A document or a tensor is not what the protocol says; the text says what was expected and what was found.

    It may hold names, shapes and datatypes, never an element of a tensor.
    """


class Tensor(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A tensor of a request or an answer. Its elements are `data`, or stand behind the JSON."""

    name: str
    shape: tuple[int, ...]
    datatype: str
    parameters: Parameters | None = None
    data: Raw | UnsetType = UNSET


class RequestedOutput(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An output tensor that is asked for."""

    name: str
    parameters: Parameters | None = None


class InferenceRequest(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`$inference_request`."""

    inputs: tuple[Tensor, ...]
    id: str | None = None
    parameters: Parameters | None = None
    outputs: tuple[RequestedOutput, ...] | None = None  # None: all of the model's


class InferenceResponse(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`$inference_response`."""

    model_name: str
    outputs: tuple[Tensor, ...]
    model_version: str | None = None
    id: str | None = None
    parameters: Parameters | None = None


class TensorMetadata(Struct, frozen=True, kw_only=True):
    """`$metadata_tensor`; a dimension of any size is -1."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class ModelMetadata(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`$metadata_model_response`."""

    name: str
    platform: str
    versions: tuple[str, ...] | None = None
    inputs: tuple[TensorMetadata, ...] | None = None
    outputs: tuple[TensorMetadata, ...] | None = None
    properties: dict[str, str] | None = None


class ServerMetadata(Struct, frozen=True, kw_only=True):
    """`$metadata_server_response`."""

    name: str
    version: str
    extensions: tuple[str, ...]


class Values(NamedTuple):
    """A tensor that was read: its elements in row-major order. A missing float is NaN, any other missing one None."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    elements: list[Any]

    def column(self, place: int) -> list[Any]:
        """The elements of one column; a tensor with one dimension has only the column 0."""
        return self.elements if len(self.shape) == 1 else self.elements[place :: self.shape[1]]


# Reading


def decode_document(content: bytes | memoryview, kind: type[D]) -> D:
    """The JSON document of this kind. Raises BrokenMessage."""
    try:
        return msgspec.json.decode(content, type=kind)
    except NOT_READ as error:
        raise BrokenMessage(f"expected {_NAMES.get(kind, kind.__name__)}: {error}") from None


def split_body(body: bytes, header_length: str | None) -> tuple[memoryview, memoryview]:
    """The JSON of a body and the binary data behind it.

    `header_length` is the header `Inference-Header-Content-Length`, if there is one. Raises BrokenMessage when it is no
    length within the body.
    """
    view = memoryview(body)
    if header_length is None:
        return view, view[len(view) :]
    if not re.fullmatch(r"[0-9]{1,18}", header_length) or int(header_length) > len(body):
        found = shorten(header_length, 40)
        raise BrokenMessage(
            f"expected an Inference-Header-Content-Length of 0 to the {len(body)} bytes of the body, found {found}"
        )
    return view[: int(header_length)], view[int(header_length) :]


def read_tensors(tensors: Iterable[Tensor], binary: memoryview, *, max_elements: int) -> dict[str, Values]:
    """Tensors by name, in order, from a document and all of the binary data behind it. Raises BrokenMessage.

    `max_elements` bounds each tensor.
    """
    found: dict[str, Values] = {}
    for tensor in tensors:
        if tensor.name in found:
            raise BrokenMessage(f"expected each tensor once, found {_shown(tensor.name)} twice")
        count = _count(tensor, max_elements)
        size = (tensor.parameters or {}).get(BINARY_SIZE)
        if size is None:
            elements = _from_json(tensor, count)
        else:
            if type(size) is not int or not 0 <= size <= len(binary):
                raise BrokenMessage(
                    f"tensor {_shown(tensor.name)}: expected a {BINARY_SIZE} of 0 to the {len(binary)} bytes left,"
                    f" found {shorten(str(size), 40)}"
                )
            if tensor.data is not UNSET:
                raise BrokenMessage(f"tensor {_shown(tensor.name)}: expected data or {BINARY_SIZE}, found both")
            elements = _from_binary(tensor, count, binary[:size])
            binary = binary[size:]
        found[tensor.name] = Values(tensor.name, tensor.datatype, tensor.shape, elements)
    if len(binary):
        raise BrokenMessage(f"expected no binary data but that of tensors, found {len(binary)} more bytes")
    return found


def _count(tensor: Tensor, max_elements: int) -> int:
    """How many elements a tensor has, by its shape."""
    where = f"tensor {_shown(tensor.name)}"
    if tensor.datatype not in DATATYPES:
        raise BrokenMessage(
            f"{where}: expected a datatype of {', '.join(DATATYPES)}, found {shorten(tensor.datatype, 40)}"
        )
    if not 1 <= len(tensor.shape) <= 2:
        raise BrokenMessage(f"{where}: expected a shape of 1 or 2 dimensions, found {len(tensor.shape)}")
    if min(tensor.shape) < 0 or max(tensor.shape) > max_elements or math.prod(tensor.shape) > max_elements:
        shape = shorten(str(list(tensor.shape)), 60)
        raise BrokenMessage(f"{where}: expected a shape of 0 to {max_elements} elements, found {shape}")
    return math.prod(tensor.shape)


def _from_json(tensor: Tensor, count: int) -> list[Any]:
    where = f"tensor {_shown(tensor.name)}"
    if tensor.data is UNSET:
        raise BrokenMessage(f"{where}: expected data, or {BINARY_SIZE} among its parameters; found neither")
    if memoryview(tensor.data).nbytes > SMALL_BYTES:
        _check_count(where, tensor.datatype, tensor.data, count)
    nested = len(tensor.shape) == 2 and _NESTED.match(tensor.data) is not None
    decode = (_DECODE_NESTED if nested else _DECODE_FLAT)[tensor.datatype]
    try:
        elements: list[Any] = decode(tensor.data)
    except NOT_READ as error:
        raise BrokenMessage(f"{where}, {tensor.datatype}: data: {error}") from None
    if nested:
        rows, columns = tensor.shape
        if len(elements) != rows or any(len(row) != columns for row in elements):
            raise BrokenMessage(f"{where}: expected data nested as its shape {list(tensor.shape)}, found other lengths")
        elements = [element for row in elements for element in row]
    if len(elements) != count:
        raise BrokenMessage(f"{where}: expected {count} elements by its shape, found {len(elements)}")
    if tensor.datatype in FLOATS:
        with np.errstate(over="ignore"):  # beyond the datatype is infinite, as anywhere
            elements = np.array(elements, np.float64).astype(DATATYPES[tensor.datatype]).tolist()
    if tensor.datatype == "UINT64" and any(element is not None and element >= 2**64 for element in elements):
        raise BrokenMessage(f"{where}, UINT64: data: expected at most {2**64 - 1}, found more")
    return elements


def _check_count(where: str, datatype: str, data: Raw, count: int) -> None:
    """Raises BrokenMessage where a large array surely has another number of elements, before any of them is made."""
    if datatype != BYTES:
        fits = bytes(data).count(b",") == max(0, count - 1)  # of numbers, nested or not: between any two
    else:
        try:
            fits = count > MAX_ITEMS or len(split_array(data, count)) <= count
        except (TooMany, *NOT_READ):
            fits = False
    if not fits:
        raise BrokenMessage(f"{where}: expected {count} elements by its shape, found others")


def _from_binary(tensor: Tensor, count: int, content: memoryview) -> list[Any]:
    where = f"tensor {_shown(tensor.name)}"
    form = DATATYPES[tensor.datatype]
    if form is None:
        return _texts(where, count, content)
    wanted = count * np.dtype(form).itemsize
    if len(content) != wanted:
        raise BrokenMessage(f"{where}: expected {wanted} bytes by its shape and datatype, found {len(content)}")
    if tensor.datatype == "BOOL" and len(content) and max(content) > 1:
        raise BrokenMessage(f"{where}, BOOL: expected bytes of 0 or 1, found another")
    elements: list[Any] = np.frombuffer(content, form).tolist()
    return elements


def _texts(where: str, count: int, content: memoryview) -> list[str]:
    """The elements of a BYTES tensor: each its length in 4 bytes, then its bytes, which must be UTF-8."""
    texts: list[str] = []
    at = 0
    while at < len(content) and len(texts) < count:
        end = at + _LENGTH.size
        end += _LENGTH.unpack_from(content, at)[0] if end <= len(content) else 0
        if end > len(content):
            break
        try:
            texts.append(str(content[at + _LENGTH.size : end], "utf-8"))
        except UnicodeDecodeError:
            raise BrokenMessage(f"{where}, BYTES: expected UTF-8, found other bytes in element {len(texts)}") from None
        at = end
    if at < len(content) or len(texts) < count:
        raise BrokenMessage(
            f"{where}, BYTES: expected {count} elements, found {len(texts)} and {len(content) - at} bytes"
        )
    return texts


# Writing


def write_tensor(name: str, datatype: str, shape: Sequence[int], elements: Sequence[Element]) -> Tensor:
    """A tensor with its elements as JSON. They must be of the datatype, and floats finite."""
    return Tensor(name=name, shape=tuple(shape), datatype=datatype, data=Raw(_encode(elements)))


def write_binary_tensor(
    name: str, datatype: str, shape: Sequence[int], elements: Sequence[Element]
) -> tuple[Tensor, bytes]:
    """A tensor whose elements stand behind the JSON, and those bytes. A missing float, None, is NaN."""
    form = DATATYPES[datatype]
    if form is None:
        encoded = [str(element).encode() for element in elements]
        content = b"".join(_LENGTH.pack(len(each)) + each for each in encoded)
    else:
        content = np.array(elements, form).tobytes()
    return Tensor(name=name, shape=tuple(shape), datatype=datatype, parameters={BINARY_SIZE: len(content)}), content


def join_body(document: Struct, binary: Sequence[bytes]) -> tuple[list[tuple[str, str]], bytes]:
    """The headers and the body of a message: a document, and the binary data of its tensors in their order."""
    head = _encode(document)
    if not binary:
        return [("content-type", "application/json")], head
    headers = [("content-type", "application/octet-stream"), (HEADER_LENGTH, str(len(head)))]
    return headers, b"".join((head, *binary))


def _shown(name: str) -> str:
    return shorten(name, 60)


def _element_type(datatype: str) -> Any:
    if datatype in FLOATS:
        return float | None
    if datatype not in INTEGERS:
        return {"BOOL": bool, BYTES: str}[datatype] | None
    bits = int(datatype.removeprefix("U").removeprefix("INT"))
    low, high = (0, 2**bits - 1) if datatype[0] == "U" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    # msgspec compares with 64 bits, signed; UINT64 is compared where it is read.
    bounds = Meta(ge=low) if datatype == "UINT64" else Meta(ge=low, le=high)
    return Annotated[int, bounds] | None


_DECODE_FLAT: Final = {name: msgspec.json.Decoder(list[_element_type(name)]).decode for name in DATATYPES}  # type: ignore[misc]  # types made from the table
_DECODE_NESTED: Final = {name: msgspec.json.Decoder(list[list[_element_type(name)]]).decode for name in DATATYPES}  # type: ignore[misc]  # types made from the table
_NAMES: Final[dict[type[Struct], str]] = {
    InferenceRequest: "an inference request",
    InferenceResponse: "an inference response",
    ModelMetadata: "the metadata of a model",
    ServerMetadata: "the metadata of a server",
}
