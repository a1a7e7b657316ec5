"""Which files of a folder or bucket were taken: the cursor of a files source.

A file is known by its name: 8 bytes of a digest of it, and 4 of what it was (its size and time, or its ETag), in the
order in which files were taken. So a file is new whatever its time says, and one that was taken is found when it has
changed. Names are kept after their files have left, until there are more than MAX_KNOWN; then those that left first
are forgotten. A folder that keeps more files than that declares `in_order`: only the greatest name is kept, and what
comes with a smaller one is never looked for.
"""

from __future__ import annotations

import base64
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

import msgspec
from msgspec import Struct

from mainstay.errors import Damaged

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_KNOWN: Final = 20_000  # 320 KB of a cursor; fifty years of daily files

Verdict: TypeAlias = Literal["new", "taken", "refused", "changed"]
"""`refused`: it was no file to take, and has not changed since. `changed`: it was taken, and is another now."""

_NAME_BYTES: Final = 8
_STATE_BYTES: Final = 4
_ENTRY_BYTES: Final = _NAME_BYTES + _STATE_BYTES
_REFUSED: Final = 0x01  # the lowest bit of an entry


class Found(NamedTuple):
    """A file that is there now."""

    name: str  # as the operating system has it: bytes that are no UTF-8 are escaped
    state: str  # another one when the content is another
    touched: str  # another one when anything about it is, as who may read it
    size: int
    modified: float  # seconds since the epoch


class Taken(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The cursor of the items of a files source."""

    last: str | None = None  # where names are in order: the last that was taken
    known: str = ""  # entries of 12 bytes in base64, where they are not


class Known:
    """What was taken, and what was refused and told."""

    def __init__(self, entries: dict[bytes, bytes], last: str | None = None) -> None:
        """`entries` are states by names, both as digests, in the order of taking."""
        self.last = last
        self._entries = entries

    def verdict(self, found: Found) -> Verdict:
        """What is known of a file."""
        state = self._entries.get(_name(found.name))
        if state is None:
            return "new"
        if state[-1] & _REFUSED:
            return "refused" if state == _state(found, refused=True) else "new"
        return "taken" if state == _state(found, refused=False) else "changed"

    def add(self, found: Found, *, refused: bool = False) -> None:
        """Remember a file that was taken or refused."""
        name = _name(found.name)
        self._entries.pop(name, None)
        self._entries[name] = _state(found, refused=refused)

    def forget_absent(self, present: Iterable[str]) -> bool:
        """Come down to MAX_KNOWN by forgetting files that are not there any more; whether that was possible."""
        over = len(self._entries) - MAX_KNOWN
        if over > 0:
            there = {_name(name) for name in present}
            for name in [each for each in self._entries if each not in there][:over]:
                del self._entries[name]
        return len(self._entries) <= MAX_KNOWN

    def end_at(self, found: Found) -> None:
        """Remember a file that was taken in order, and no other."""
        self.last = found.name
        self._entries.clear()

    def cursor(self) -> Any:
        """As an item holds it."""
        joined = b"".join(name + state for name, state in self._entries.items())
        return msgspec.to_builtins(Taken(last=self.last, known=base64.b64encode(joined).decode()))


def decode_known(cursor: Any) -> Known:
    """What a cursor says; nothing at the beginning. Raises Damaged when it is none of a files source."""
    try:
        taken = Taken() if cursor is None else msgspec.convert(cursor, Taken)
        joined = base64.b64decode(taken.known, validate=True)
    except (msgspec.ValidationError, ValueError):
        joined, taken = b"?", Taken()
    if len(joined) % _ENTRY_BYTES:
        raise Damaged("the cursor of a files source: expected the files it has taken, found something else")
    entries = (joined[i : i + _ENTRY_BYTES] for i in range(0, len(joined), _ENTRY_BYTES))
    return Known({each[:_NAME_BYTES]: each[_NAME_BYTES:] for each in entries}, taken.last)


def _name(name: str) -> bytes:
    return blake2b(name.encode("utf-8", "surrogateescape"), digest_size=_NAME_BYTES).digest()


def _state(found: Found, *, refused: bool) -> bytes:
    state = f"{found.state} {found.touched}" if refused else found.state
    digest = blake2b(state.encode(), digest_size=_STATE_BYTES).digest()
    return digest[:-1] + bytes([(digest[-1] & ~_REFUSED) | (_REFUSED if refused else 0)])
