"""JSON arrays and lines from strangers, taken apart into their items, and never into more of them than are wanted.

A decoder makes an object for each item before anybody can count them: 64 MiB of `[1,1,1,…]` become two gigabytes.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec
from msgspec import UNSET, Raw, UnsetType

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_ITEMS: Final = 10_000  # that an array may be asked for
SMALL_BYTES: Final = 1 << 20  # an array of this size is decoded at once, whatever it holds

Array: TypeAlias = "bytes | memoryview | Raw"

_decode_items = msgspec.json.Decoder(list[Raw]).decode


class TooMany(Exception):
    """There are more items than are wanted."""


def split_array(array: Array, most: int) -> list[Raw]:
    """The items of a JSON array, each as its own JSON.

    Raises TooMany when there are more than `most`, which is at most MAX_ITEMS, and what msgspec raises when it is no
    array.
    """
    small = memoryview(array).nbytes <= SMALL_BYTES
    items = _decode_items(array) if small else _first_items(array)
    if len(items) > most:
        raise TooMany
    return items


def split_lines(body: bytes, most: int) -> list[bytes]:
    """The lines of a body, without what ends them; a last one that is empty is none. Raises TooMany."""
    if body.count(b"\n") > most:
        raise TooMany
    lines = body.split(b"\n")  # and not at a carriage return, which JSON may have between its tokens
    if not lines[-1]:
        lines.pop()
    if len(lines) > most:
        raise TooMany
    return lines


def one_line(document: bytes) -> bytes:
    """JSON as one line: breaks between its tokens become blanks, and within text it has none."""
    broken = b"\n" in document or b"\r" in document
    return document.replace(b"\r", b" ").replace(b"\n", b" ") if broken else document


def _first_items(array: Array) -> list[Raw]:
    """The items of an array, the first MAX_ITEMS + 1 of them. The rest is read as JSON, and nothing made of it."""
    found = msgspec.structs.astuple(_page_decoder()(array))
    count = len(found) if found[-1] is not UNSET else found.index(UNSET)
    return list(found[:count])


@cache
def _page_decoder() -> Callable[[Array], Any]:
    """Decodes an array as a record of so many fields: msgspec passes over what a record has no field for."""
    fields = [(f"f{place}", Raw | UnsetType, UNSET) for place in range(MAX_ITEMS + 1)]
    page = msgspec.defstruct("Page", fields, array_like=True, gc=False)
    return msgspec.json.Decoder(page).decode
