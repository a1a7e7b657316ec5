r"""The write-ahead log: what a process has promised to remember, before anyone is told.

Each process appends to a segment of its own. A segment is a 16-byte header and then groups; a group is what one
`fdatasync` made durable, and is whole or void. The next group is written only after the last one is on disk, so a
valid group proves every group before it was acknowledged. That is how a **torn tail** (the last group of a process
that died; nobody was told of it) is told from **damage** (a broken group with a valid one after it).

    header   "MSWAL\x01" · segment name, 10 ASCII hex digits
    group    "MSG1" · u64 own offset · u32 entries · u32 bytes that follow · u32 CRC-32 of all the rest
    entry    u32 leaf bytes · u32 body bytes · leaf · salt (16) · body

A group of no entries closes a segment: whoever wrote it stopped in good order, and nothing follows. The writer holds
an exclusive `flock` for as long as it lives, which the kernel releases however it ends; a segment gets its name only
when it is locked, so that one without a lock is surely one without a writer. All integers are big-endian.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import struct
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, BinaryIO, NamedTuple
from zlib import crc32

from mainstay.files import sync_directory, write_all
from mainstay.ledger.entry import MAX_LEAF_BYTES, SALT_BYTES, SEGMENT_HEX, Entry

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

MAGIC = b"MSWAL\x01"
HEADER_BYTES = len(MAGIC) + SEGMENT_HEX
GROUP_MAGIC = b"MSG1"
SUFFIX = ".wal"
UNBORN_SUFFIX = ".new"  # a segment that is not locked yet, or never was: nothing was ever promised in it
MAX_GROUP_BYTES = 256 << 20  # a longer length field is damage, not a group

_PREFIX = struct.Struct(">4sQII")
_CRC = struct.Struct(">I")
_SIZES = struct.Struct(">II")
GROUP_HEADER_BYTES = _PREFIX.size + _CRC.size


def frame_entry(leaf: bytes, salt: bytes, body: bytes) -> bytes:
    """An entry as it stands in a group. Raises ValueError when the leaf is longer than the log can hold."""
    if len(leaf) > MAX_LEAF_BYTES:
        raise ValueError(f"a leaf has at most {MAX_LEAF_BYTES} bytes, found {len(leaf)}")
    return b"%b%b%b%b" % (_SIZES.pack(len(leaf), len(body)), leaf, salt, body)


class Segment:
    """A segment open for appending, by the one process that made it. Not safe for use by several threads."""

    def __init__(self, directory: Path) -> None:
        """Make a new segment, durably. Raises OSError when the disk will not take it."""
        if not directory.is_dir():
            directory.mkdir(parents=True, exist_ok=True)
            sync_directory(directory.parent)
        self.name = secrets.token_hex(SEGMENT_HEX // 2)
        self.path = directory / (self.name + SUFFIX)
        unborn = self.path.with_suffix(UNBORN_SUFFIX)
        self._descriptor = os.open(unborn, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        self.bytes = HEADER_BYTES
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            write_all(self._descriptor, MAGIC + self.name.encode())
            os.fsync(self._descriptor)
            unborn.rename(self.path)
            sync_directory(directory)
        except OSError:
            os.close(self._descriptor)
            unborn.unlink(missing_ok=True)
            self.path.unlink(missing_ok=True)
            raise

    def append(self, framed: Iterable[bytes], count: int) -> None:
        """Write one group of `count` framed entries and wait until it is on disk.

        After an OSError the segment must not be appended to again: what a failed `fdatasync` left behind is unknown,
        and a second call may succeed without having written it. Raises ValueError, with nothing written, when the
        group is longer than a reader would accept.
        """
        payload = b"".join(framed)
        if len(payload) > MAX_GROUP_BYTES:
            raise ValueError(f"a group has at most {MAX_GROUP_BYTES} bytes, found {len(payload)}")
        prefix = _PREFIX.pack(GROUP_MAGIC, self.bytes, count, len(payload))
        check = _CRC.pack(crc32(payload, crc32(prefix)))
        group = b"%b%b%b" % (prefix, check, payload)
        write_all(self._descriptor, group)
        os.fdatasync(self._descriptor)
        self.bytes += len(group)

    def close(self) -> None:
        """Mark the end in good order and let go of the file."""
        try:
            self.append((), 0)
        finally:
            os.close(self._descriptor)

    def abandon(self) -> None:
        """Let go of the file as it is; readers take what is whole."""
        os.close(self._descriptor)


class End(Enum):
    """How a segment ends, as far as it could be read."""

    CLOSED = "closed"  # the writer stopped in good order
    OPEN = "open"  # the file ends with a whole group; the writer lives, or was killed
    TORN = "torn"  # the last group is not whole; none of its entries was acknowledged
    DAMAGED = "damaged"  # a group is broken and a later one proves that it had been whole, or the header is not ours


class Group(NamedTuple):
    """A whole group: the offset just behind it, and its entries in order."""

    end: int
    entries: list[Entry]


@dataclass(slots=True)
class SegmentReader:
    """Reads whole groups of one segment from `offset` on; after the last one, `end` and `offset` say how it ends."""

    path: Path
    offset: int = 0
    end: End = End.OPEN

    def groups(self) -> Iterator[Group]:
        """Every whole group from `offset` on. One group is in memory at a time.

        Raises OSError when the file cannot be read.
        """
        with self.path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if self.offset < HEADER_BYTES:
                header = file.read(HEADER_BYTES)
                if header != MAGIC + self.path.stem.encode():
                    self.end = End.TORN if len(header) < HEADER_BYTES else End.DAMAGED
                    return
                self.offset = HEADER_BYTES
            while self.offset < size:
                file.seek(self.offset)
                payload = _read_group(file, self.offset, size)
                if payload is None:
                    later = _later_group(file, self.offset + 1, size)
                    self.end = End.TORN if later is None else End.DAMAGED
                    return
                count, content = payload
                end = self.offset + GROUP_HEADER_BYTES + len(content)
                if count == 0:
                    self.offset = end
                    self.end = End.CLOSED if end == size else End.DAMAGED  # nobody writes behind the mark
                    return
                entries = _split(content, count)
                if entries is None:
                    self.end = End.DAMAGED
                    return
                self.offset = end
                yield Group(end, entries)
            self.end = End.OPEN


def is_live(path: Path) -> bool:
    """Whether the process that writes this segment is still there."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)


def segments(directory: Path) -> list[Path]:
    """The segments in a directory, oldest first."""
    if not directory.is_dir():
        return []
    found = []
    for path in directory.glob("*" + SUFFIX):
        with contextlib.suppress(FileNotFoundError):  # sealed and deleted since it was listed
            found.append((path.stat().st_mtime_ns, path))
    return [path for _, path in sorted(found)]


def _read_group(file: BinaryIO, offset: int, size: int) -> tuple[int, bytes] | None:
    """The count and content of the group at the current position, or None when it is not whole."""
    header = file.read(GROUP_HEADER_BYTES)
    if len(header) < GROUP_HEADER_BYTES:
        return None
    prefix, check = header[: _PREFIX.size], _CRC.unpack(header[_PREFIX.size :])[0]
    magic, own, count, length = _PREFIX.unpack(prefix)
    if magic != GROUP_MAGIC or own != offset or length > MAX_GROUP_BYTES:
        return None
    if offset + GROUP_HEADER_BYTES + length > size:
        return None
    content = file.read(length)
    if len(content) < length or crc32(content, crc32(prefix)) != check:
        return None
    return count, content


def _split(content: bytes, count: int) -> list[Entry] | None:
    """The entries of a group whose CRC has been checked, or None when they do not fill it exactly."""
    entries = []
    at = 0
    unpack, size = _SIZES.unpack_from, _SIZES.size
    try:
        for _ in range(count):
            leaf_bytes, body_bytes = unpack(content, at)
            at += size
            salt_at = at + leaf_bytes
            body_at = salt_at + SALT_BYTES
            end = body_at + body_bytes
            entries.append(Entry(content[at:salt_at], content[salt_at:body_at], content[body_at:end]))
            at = end
    except struct.error:
        return None
    return entries if at == len(content) else None


def _later_group(file: BinaryIO, start: int, size: int) -> int | None:
    """The offset of any whole group within [start, size). Only a broken segment is searched.

    `size` is what the file had when reading began: a writer may have added whole groups since then, and they prove
    nothing about a group that was still being written.
    """
    step = 1 << 20
    for window_at in range(start, size, step):
        file.seek(window_at)
        window = file.read(min(step + len(GROUP_MAGIC) - 1, size - window_at))
        found = window.find(GROUP_MAGIC)
        while found >= 0:
            file.seek(window_at + found)
            if _read_group(file, window_at + found, size) is not None:
                return window_at + found
            found = window.find(GROUP_MAGIC, found + 1)
    return None
