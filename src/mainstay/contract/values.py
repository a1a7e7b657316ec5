"""JSON values compared, measured and shown. A value may be decoded to plain types or to the structs of a contract."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec

from mainstay.documents import shorten

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable


def json_key(value: Any) -> Hashable:
    """Equal for values that JSON Schema calls equal: 1 and 1.0 are, 1 and true are not."""
    match value:
        case bool():
            return ("boolean", value)
        case list() | tuple():
            return ("array", tuple(map(json_key, value)))
        case dict():
            return ("object", frozenset((name, json_key(item)) for name, item in value.items()))
        case msgspec.Struct():
            return ("object", tuple(map(json_key, msgspec.structs.astuple(value))))
        case _:
            scalar: Hashable = value
            return scalar


def count_fields(value: dict[str, Any] | msgspec.Struct) -> int:
    """How many fields an object has. In a struct, and so in what is compared with one, null is as good as absent."""
    if isinstance(value, msgspec.Struct):
        return sum(item is not None for item in msgspec.structs.astuple(value))
    return len(value)


def nested_deeper(value: Any, levels: int) -> bool:
    """Whether objects and arrays are nested in `value` more than `levels` deep; `{}` is one level."""
    layer = [value]
    for _ in range(levels + 1):
        below: list[Any] = []
        for each in layer:
            below.extend(_members(each))
        containers = [each for each in layer if isinstance(each, dict | list | tuple)]
        if not containers:
            return False
        layer = below
    return True


def _members(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list | tuple) else ()


def is_json(value: Any) -> bool:
    """Whether a value, not nested too deeply, can be written as JSON."""
    match value:
        case None | bool():
            return True
        case str():
            return is_text(value)
        case int():
            return True
        case float():
            return math.isfinite(value)
        case list() | tuple():
            return all(map(is_json, value))
        case dict():
            return all(isinstance(name, str) and is_text(name) for name in value) and all(map(is_json, value.values()))
        case _:
            return False


def is_text(value: Any) -> bool:
    """Whether a value is a string of Unicode characters; Python's may hold halves of surrogate pairs."""
    if not isinstance(value, str):
        return False
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def show(value: Any) -> str:
    """A value as a violation shows it: at most 80 characters, one line, nothing of what an object or array holds."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return f'"{shorten(value, 78)}"'
        case dict():
            return f"an object with {len(value)} field{'' if len(value) == 1 else 's'}"
        case list() | tuple():
            return f"an array of {len(value)} item{'' if len(value) == 1 else 's'}"
        case int():
            return shorten(str(value)) if value.bit_length() <= 4_096 else f"an integer of {value.bit_length()} bits"
        case float():
            return str(value)
        case _:
            return shorten(type(value).__name__)


def kind_of(value: Any) -> str:
    """What sort of JSON value it is, and nothing of the value itself."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case str():
            return "a string"
        case int() | float():
            return "a number"
        case dict():
            return "an object"
        case list() | tuple():
            return "an array"
        case _:
            return shorten(type(value).__name__)
