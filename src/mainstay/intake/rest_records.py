"""Records in raw JSON: taken apart in bounded memory, and compared by the field that says where to go on.

A decoder makes an object for every item of an array before anybody can look at one, and a number that is read and
written again is not the number that came. So the text is cut where the records end, and each is kept as it is.
"""

from __future__ import annotations

import re
from datetime import datetime
from functools import cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import msgspec
import numpy as np
from msgspec import UNSET, Raw, UnsetType

from mainstay.errors import NOT_READ

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Value: TypeAlias = str | int | float

BLOCK_BYTES: Final = 1 << 20  # looked at at a time; the arrays made of it take about 20 times that

_QUOTE, _COMMA, _OPEN, _CLOSE = 0x22, 0x2C, 0x7B, 0x7D  # as a brace or, less 0x20, a bracket
_FOLD: Final = 0x20
_BLANKS: Final = b" \t\r\n"
_ESCAPED: Final = re.compile(rb"\\.", re.DOTALL)
_DIGEST_BYTES: Final = 8
_DIGITS: Final = re.compile(r"[0-9]{1,18}\Z")

_decode_value = msgspec.json.Decoder(Value).decode


def split_records(array: memoryview, *, block_bytes: int = BLOCK_BYTES) -> Iterator[bytes]:
    """The items of a JSON array, each as its own bytes without the blanks around it. `array` is known to be JSON."""
    begin = 0
    for end in _item_ends(array, block_bytes):
        item = bytes(array[begin:end]).strip(_BLANKS)
        if begin == 0:
            item = item[1:].lstrip(_BLANKS)  # the bracket that opens the array
        if item:
            yield item
        begin = end + 1


def _item_ends(array: memoryview, block_bytes: int) -> Iterator[int]:
    """Where the items of an array end: the commas at its own depth, and its last bracket."""
    inside, depth, at = 0, 0, 0
    while at < array.nbytes:
        block = bytes(array[at : at + block_bytes])
        if b"\\" in block:  # in JSON a backslash stands before what it is about, and only within text
            if (len(block) - len(block.rstrip(b"\\"))) % 2 and at + len(block) < array.nbytes:
                block += bytes(array[at + len(block) : at + len(block) + 1])
            block = _ESCAPED.sub(b"__", block)
        text = np.frombuffer(block, np.uint8)
        within = (np.cumsum(text == _QUOTE, dtype=np.uint8) + inside) & 1
        outside = within == 0
        folded = text | _FOLD
        steps = ((folded == _OPEN) & outside).astype(np.int8) - ((folded == _CLOSE) & outside)
        depths = np.cumsum(steps, dtype=np.int32) + depth
        ends = ((text == _COMMA) & outside & (depths == 1)) | ((steps == -1) & (depths == 0))
        yield from (np.flatnonzero(ends) + at).tolist()
        inside, depth = int(within[-1]), int(depths[-1])
        at += len(block)


def digest(content: bytes | memoryview) -> str:
    """What tells one record or page from another: 16 hex digits."""
    return blake2b(content, digest_size=_DIGEST_BYTES).hexdigest()


class NoValue(Exception):
    """A record has no value where the cursor reads one; `absent`: it does not have the field, or it is null."""

    def __init__(self, *, absent: bool) -> None:
        super().__init__()
        self.absent = absent


@cache
def value_reader(field: str) -> Callable[[bytes], Value]:
    """Reads one field of a record: text or a number. The function raises NoValue for anything else."""
    part: Any = msgspec.defstruct("Cursor", [("value", Raw | UnsetType, UNSET)], rename={"value": field})
    decode = msgspec.json.Decoder(part).decode

    def read(record: bytes) -> Value:
        try:
            found = decode(record).value
            if found is UNSET or bytes(found) == b"null":
                raise NoValue(absent=True)
            value: Value = _decode_value(found)
        except NOT_READ:
            raise NoValue(absent=False) from None
        return value

    return read


class Rank(NamedTuple):
    """A cursor's value, and how it is compared."""

    value: Value
    number: Value | None  # of numbers, and of text of digits alone
    instant: datetime | None  # of text that is one (RFC 3339)


def rank(value: Value) -> Rank:
    """How a value is compared with others."""
    if not isinstance(value, str):
        return Rank(value, value, None)
    if _DIGITS.match(value):
        return Rank(value, int(value), None)
    try:
        instant = msgspec.convert(value, datetime)
    except msgspec.ValidationError:
        return Rank(value, None, None)
    return Rank(value, None, instant if instant.tzinfo is not None else None)


def order(left: Rank, right: Rank) -> int | None:
    """-1, 0 or 1: whether `left` is before, at or behind `right`; None when one is a number and the other is text.

    Two texts of digits compare as numbers, two instants as instants, other texts by their characters.
    """
    if isinstance(left.value, str) != isinstance(right.value, str):
        return None
    first: Any = left.value
    second: Any = right.value
    if left.number is not None and right.number is not None:
        first, second = left.number, right.number
    elif left.instant is not None and right.instant is not None:
        first, second = left.instant, right.instant
    return int(first > second) - int(first < second)
