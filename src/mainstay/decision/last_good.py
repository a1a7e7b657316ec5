"""The last good answer by business key: one memory-mapped file per capability that all workers share.

A hash table of fixed size, so that it is bounded and needs no lock: a key has four slots it may stand in, and the
oldest of them gives way. A slot is checked by its CRC-32, so one that two workers write at the same time, or that a
crash left half written, counts as absent. Nothing is synced: what is lost is only a fallback's memory.

A slot: CRC-32 of the rest (4 bytes), length of the output (4), Unix milliseconds (8), digest of the key (16), output.
"""

from __future__ import annotations

import mmap
import os
from hashlib import blake2b
from struct import Struct
from typing import TYPE_CHECKING
from zlib import crc32

if TYPE_CHECKING:
    from pathlib import Path

SLOT_BYTES = 512
SETS = 1 << 14
WAYS = 4  # 65,536 slots, 32 MiB of which only those in use take space
DIGEST_BYTES = 16

_HEAD = Struct("<IIQ16s")
MAX_OUTPUT_BYTES = SLOT_BYTES - _HEAD.size


class LastGood:
    """The table of one capability under one output contract: another contract's answers are never given."""

    def __init__(self, path: Path, contract: str) -> None:
        """Open the table, or make it. Raises OSError when the disk will not have it."""
        size = SETS * WAYS * SLOT_BYTES
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(descriptor).st_size != size:
                os.ftruncate(descriptor, size)
            self._table = mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)
        self._contract = contract.encode()

    def put(self, key: bytes, output: bytes, now_ms: int) -> None:
        """Remember the answer given for a key. An output of more than MAX_OUTPUT_BYTES is not kept."""
        if len(output) > MAX_OUTPUT_BYTES:
            return
        digest = self._digest(key)
        oldest, oldest_ms = 0, -1
        for place in self._places(digest):
            _, length, at_ms, found = _HEAD.unpack_from(self._table, place)
            if found == digest or not length:
                oldest = place
                break
            if oldest_ms < 0 or at_ms < oldest_ms:
                oldest, oldest_ms = place, at_ms
        content = _HEAD.pack(0, len(output), now_ms, digest)[4:] + output
        self._table[oldest : oldest + 4 + len(content)] = crc32(content).to_bytes(4, "little") + content

    def get(self, key: bytes, now_ms: int, max_age_ms: float) -> bytes | None:
        """The last answer for a key, if one is known that is not older than `max_age_ms`."""
        digest = self._digest(key)
        for place in self._places(digest):
            slot = self._table[place : place + SLOT_BYTES]
            crc, length, at_ms, found = _HEAD.unpack_from(slot)
            if found != digest or not 0 < length <= MAX_OUTPUT_BYTES:
                continue
            end = _HEAD.size + length
            if crc32(slot[4:end]) == crc:
                return slot[_HEAD.size : end] if now_ms - at_ms <= max_age_ms else None
        return None

    def forget(self, key: bytes) -> bool:
        """Overwrite what is remembered of a key; whether there was anything."""
        digest = self._digest(key)
        places = [place for place in self._places(digest) if _HEAD.unpack_from(self._table, place)[3] == digest]
        for place in places:
            self._table[place : place + SLOT_BYTES] = bytes(SLOT_BYTES)
        self._table.flush()
        return bool(places)

    def forget_before(self, before_ms: int) -> int:
        """Overwrite every answer given before an instant, Unix milliseconds; how many there were."""
        forgotten = 0
        for place in range(0, SETS * WAYS * SLOT_BYTES, SLOT_BYTES):
            _, length, at_ms, _ = _HEAD.unpack_from(self._table, place)
            if length and at_ms < before_ms:
                self._table[place : place + SLOT_BYTES] = bytes(SLOT_BYTES)
                forgotten += 1
        self._table.flush()
        return forgotten

    def close(self) -> None:
        self._table.close()

    def _digest(self, key: bytes) -> bytes:
        return blake2b(self._contract + b"\x00" + key, digest_size=DIGEST_BYTES).digest()

    @staticmethod
    def _places(digest: bytes) -> range:
        first = int.from_bytes(digest[:4], "little") % SETS * WAYS * SLOT_BYTES
        return range(first, first + WAYS * SLOT_BYTES, SLOT_BYTES)
