"""Which calls with an `Idempotency-Key` are in items already: for a day, and the newest of them only.

The file has a line for each item, written before it lands and named by the item's place in the row of all of them. A
line counts when the cursor that stands behind an item has come so far; of two for the same place the later one.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from mainstay.errors import NOT_READ
from mainstay.files import sync_directory, write_all, write_atomic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

HELD_SECONDS: Final = 86_400.0
MOST_KEYS: Final = 200_000  # of a source; beyond, the oldest are forgotten
KEY_BYTES: Final = 16

_REWRITE_BYTES: Final = 1 << 20  # a file of this size is written anew when half of it is forgotten


class _Line(Struct):
    adoption: int
    at: float  # Unix seconds
    keys: str  # hex, one behind the other


_decode = msgspec.json.Decoder(_Line).decode


class CallKeys:
    """The keys of one source. One process at a time holds them."""

    def __init__(
        self,
        path: Path,
        *,
        held_seconds: float = HELD_SECONDS,
        most: int = MOST_KEYS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        self._held_seconds = held_seconds
        self._most = most
        self._clock = clock
        self._known: dict[bytes, tuple[int, float]] = {}  # the item's place and the time of each, oldest first
        self._appended: dict[bytes, tuple[int, float]] = {}  # of an item that may not have landed
        self._bytes = 0  # of the file, as far as it is whole
        self._stale = False  # whether it has lines of items that never landed

    def __contains__(self, key: bytes) -> bool:
        return key in self._known

    def __len__(self) -> int:
        return len(self._known)

    def load(self, adoption: int) -> None:
        """Read what the items up to the place `adoption` hold; a torn end of the file is left out."""
        lines: dict[int, _Line] = {}
        self._known, self._appended, self._bytes, self._stale = {}, {}, 0, False
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return
        for raw in content.splitlines(keepends=True):
            try:
                line = _decode(raw)
                keys = bytes.fromhex(line.keys)
            except (*NOT_READ, ValueError):
                break
            if not raw.endswith(b"\n") or len(keys) % KEY_BYTES:
                break
            self._bytes += len(raw)
            if line.adoption <= adoption:
                lines[line.adoption] = line
            else:
                self._stale = True
        for place, line in sorted(lines.items()):
            keys = bytes.fromhex(line.keys)
            self._known |= {keys[at : at + KEY_BYTES]: (place, line.at) for at in range(0, len(keys), KEY_BYTES)}
        self._forget()

    def append(self, adoption: int, keys: Iterable[bytes]) -> None:
        """Write down the keys of an item that is to land at this place. They are known once it has: see `settle`."""
        now = self._clock()
        self._appended = dict.fromkeys(keys, (adoption, now))
        self._forget()
        line = _line(adoption, now, self._appended)
        if self._stale or self._bytes > max(_REWRITE_BYTES, 4 * KEY_BYTES * len(self._known)):
            content = self._content() + line
            write_atomic(self._path, content, mode=0o600)
            self._bytes, self._stale = len(content), False
            return
        made = not self._path.exists()
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, self._bytes)  # what was torn
            os.lseek(descriptor, self._bytes, os.SEEK_SET)
            write_all(descriptor, line)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if made:
            sync_directory(self._path.parent)
        self._bytes += len(line)

    def settle(self) -> None:
        """The item that was appended for last has landed."""
        self._known |= self._appended
        self._appended = {}
        self._forget()

    def _forget(self) -> None:
        oldest = self._clock() - self._held_seconds
        too_many = len(self._known) - self._most
        for key, (_, at) in list(self._known.items()):
            if at >= oldest and too_many <= 0:
                break
            del self._known[key]
            too_many -= 1

    def _content(self) -> bytes:
        by_item: dict[tuple[int, float], list[bytes]] = {}
        for key, item in self._known.items():
            by_item.setdefault(item, []).append(key)
        return b"".join(_line(adoption, at, keys) for (adoption, at), keys in by_item.items())


def _line(adoption: int, at: float, keys: Iterable[bytes]) -> bytes:
    return msgspec.json.encode(_Line(adoption, at, b"".join(keys).hex())) + b"\n"
