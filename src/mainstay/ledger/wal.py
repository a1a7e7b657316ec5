r"""The write-ahead log: what a process has promised to remember, before anyone is told.

Each process appends to a segment of its own. A segment is a 16-byte header and then groups; a group is what one
`fdatasync` made durable, and is whole or void. The next group is written only after the last one is on disk, so a
valid group proves every group before it was acknowledged. That is how a **torn tail** (the last group of a process
that died; nobody was told of it) is told from **damage** (a broken group with a valid one after it). A process that is
killed leaves a strict beginning of its last group, never other bytes: a last group that is all there and does not hold
is **broken**, by a change or by a power failure while nobody had been told of it.

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
import re
import secrets
import stat
import struct
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, BinaryIO, NamedTuple
from zlib import crc32

from mainstay.files import sync_directory, write_all
from mainstay.ledger.entry import MAX_LEAF_BYTES, SALT_BYTES, SEGMENT_HEX, Entry
from mainstay.ledger.reading import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

MAGIC = b"MSWAL\x01"
HEADER_BYTES = len(MAGIC) + SEGMENT_HEX
GROUP_MAGIC = b"MSG1"
SUFFIX = ".wal"
UNBORN_SUFFIX = ".new"  # a segment that is not locked yet, or never was: nothing was ever promised in it
MAX_GROUP_BYTES = 256 << 20  # a longer length field is damage, not a group
ROTATE_FILE = "rotate"  # beside the folder of segments: writers leave segments that are older than it
SEARCHED_TIMES = 4  # how often the rest of a broken segment may be read in search of a whole group

_PREFIX = struct.Struct(">4sQII")
_CRC = struct.Struct(">I")
_SIZES = struct.Struct(">II")
GROUP_HEADER_BYTES = _PREFIX.size + _CRC.size
_NAME = re.compile(rf"[0-9a-f]{{{SEGMENT_HEX}}}", re.ASCII)


def frame_entry(leaf: bytes, salt: bytes, body: bytes) -> bytes:
    """An entry as it stands in a group. Raises ValueError when the leaf is longer than the log can hold."""
    if len(leaf) > MAX_LEAF_BYTES:
        raise ValueError(f"a leaf has at most {MAX_LEAF_BYTES} bytes, found {len(leaf)}")
    return b"%b%b%b%b" % (_SIZES.pack(len(leaf), len(body)), leaf, salt, body)


def frame_entries(leaves: Sequence[bytes], sealed: Sequence[bytes]) -> bytes:
    """Many entries as they stand in a group; `sealed` is salt and body. Raises ValueError as `frame_entry` does."""
    lengths = list(map(len, leaves))
    longest = max(lengths, default=0)
    if longest > MAX_LEAF_BYTES:
        raise ValueError(f"a leaf has at most {MAX_LEAF_BYTES} bytes, found {longest}")
    framed = [b""] * (3 * len(leaves))
    framed[0::3] = map(_SIZES.pack, lengths, [len(each) - SALT_BYTES for each in sealed])
    framed[1::3] = leaves
    framed[2::3] = sealed
    return b"".join(framed)


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
            self._born_ns = os.fstat(self._descriptor).st_mtime_ns
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
        header = prefix + check
        written = os.writev(self._descriptor, (header, payload))  # one call, and no copy of what may be megabytes
        if written < GROUP_HEADER_BYTES + len(payload):
            write_all(self._descriptor, (header + payload)[written:])
        os.fdatasync(self._descriptor)
        self.bytes += GROUP_HEADER_BYTES + len(payload)

    def is_to_be_left(self) -> bool:
        """Whether somebody has asked since it was made that writers begin new ones, and this one holds anything."""
        if self.bytes == HEADER_BYTES:
            return False
        try:
            return (self.path.parent.parent / ROTATE_FILE).stat().st_mtime_ns > self._born_ns
        except FileNotFoundError:
            return False

    def leave_cache(self) -> None:
        """Have the system keep nothing of what is on disk in memory.

        For a writer of much that is not read soon: its pages would displace those of others, and taking ever new ones
        costs several times what using the same ones again does.
        """
        os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """Mark the end in good order and let go of the file."""
        try:
            self.append((), 0)
        finally:
            os.close(self._descriptor)

    def abandon(self) -> None:
        """Let go of the file as it is; readers take what is whole."""
        os.close(self._descriptor)


def ask_to_leave(ledger_dir: Path) -> None:
    """Ask every writer to close its segment and begin a new one, so that the sealer may delete it."""
    with (ledger_dir / ROTATE_FILE).open("ab"):
        pass
    os.utime(ledger_dir / ROTATE_FILE)


class End(Enum):
    """How a segment ends, as far as it could be read."""

    CLOSED = "closed"  # the writer stopped in good order
    OPEN = "open"  # the file ends with a whole group; the writer lives, or was killed
    TORN = "torn"  # it ends with the strict beginning of a group; none of its entries was acknowledged
    BROKEN = "broken"  # the last group is no beginning of one and does not hold; no later one proves that it ever did
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

        Raises OSError when the file cannot be read or is no regular file.
        """
        with open(self.path, "rb", opener=open_regular) as file:
            size = os.fstat(file.fileno()).st_size
            if self.offset < HEADER_BYTES:
                # A segment gets its name only when its header is on disk, so that one too short was cut.
                if file.read(HEADER_BYTES) != MAGIC + self.path.stem.encode():
                    self.end = End.DAMAGED
                    return
                self.offset = HEADER_BYTES
            while self.offset < size:
                payload = _read_group(file, self.offset, size)
                if payload is None:
                    self.end = _judge_tail(file, self.offset, size)
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


def locate_bodies(file: BinaryIO) -> Iterator[tuple[int, int, int]]:
    """Where the salt and body of each entry of a segment stand: its counter, the offset, and the offset behind.

    Lengths alone are gone by, whether or not checksums hold. Ends where no group of that shape begins.
    """
    size = os.fstat(file.fileno()).st_size
    offset, counter = HEADER_BYTES, 0
    while (header := _read_header(file, offset)) is not None and header.entries:
        at = offset + GROUP_HEADER_BYTES
        end = at + header.length
        for _ in range(header.entries):
            file.seek(at)
            sizes = file.read(_SIZES.size)
            if len(sizes) < _SIZES.size:
                return
            leaf_bytes, body_bytes = _SIZES.unpack(sizes)
            begin = at + _SIZES.size + leaf_bytes
            at = begin + SALT_BYTES + body_bytes
            if at > min(end, size):
                return
            yield counter, begin, at
            counter += 1
        offset = end


def is_live(path: Path) -> bool:
    """Whether the process that writes this segment is still there. Raises OSError as reading it does."""
    descriptor = open_regular(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)


def is_segment_name(name: str) -> bool:
    """Whether a file in the folder of segments is named as a segment is; all others belong to somebody else."""
    return name.endswith(SUFFIX) and _NAME.fullmatch(name.removesuffix(SUFFIX)) is not None


def segments(directory: Path) -> list[Path]:
    """The segments in a directory, oldest first. What is no regular file or has no segment's name is left out."""
    if not directory.is_dir():
        return []
    found = []
    for path in directory.glob("*" + SUFFIX):
        if not is_segment_name(path.name):
            continue
        with contextlib.suppress(FileNotFoundError):  # sealed and deleted since it was listed
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                found.append((status.st_mtime_ns, path))
    return [path for _, path in sorted(found)]


class _Header(NamedTuple):
    """What stands before the content of a group."""

    entries: int
    length: int  # of the content, bytes
    prefix: bytes
    check: int


def _read_header(file: BinaryIO, offset: int) -> _Header | None:
    """The header at `offset`, or None when there is none that a group at this place could have."""
    file.seek(offset)
    header = file.read(GROUP_HEADER_BYTES)
    if len(header) < GROUP_HEADER_BYTES:
        return None
    prefix, check = header[: _PREFIX.size], _CRC.unpack(header[_PREFIX.size :])[0]
    magic, own, count, length = _PREFIX.unpack(prefix)
    if magic != GROUP_MAGIC or own != offset or length > MAX_GROUP_BYTES:
        return None
    return _Header(count, length, prefix, check)


def _read_group(file: BinaryIO, offset: int, size: int) -> tuple[int, bytes] | None:
    """The count and content of the group at `offset`, or None when it is not whole."""
    header = _read_header(file, offset)
    if header is None or offset + GROUP_HEADER_BYTES + header.length > size:
        return None
    content = file.read(header.length)
    if len(content) < header.length or crc32(content, crc32(header.prefix)) != header.check:
        return None
    return header.entries, content


def _judge_tail(file: BinaryIO, offset: int, size: int) -> End:
    """What a group that is not whole at `offset` of a file of `size` bytes says of how the file ends."""
    if _has_later_group(file, offset + 1, size):
        return End.DAMAGED
    return End.TORN if _is_beginning(file, offset, size) else End.BROKEN


def _is_beginning(file: BinaryIO, offset: int, size: int) -> bool:
    """Whether the bytes from `offset` to the end are the strict beginning of a group that could have been written."""
    file.seek(offset)
    begun = file.read(min(_PREFIX.size, size - offset))
    if not begun.startswith((GROUP_MAGIC + offset.to_bytes(8, "big"))[: len(begun)]):
        return False
    if size - offset < GROUP_HEADER_BYTES:
        return True
    header = _read_header(file, offset)
    there = size - offset - GROUP_HEADER_BYTES
    if header is None or header.length <= there:
        return False
    at, least = 0, _SIZES.size + SALT_BYTES
    for done in range(header.entries):
        if at + (header.entries - done) * least > header.length:
            return False
        if at + _SIZES.size > there:
            return True
        file.seek(offset + GROUP_HEADER_BYTES + at)
        leaf_bytes, body_bytes = _SIZES.unpack(file.read(_SIZES.size))
        if leaf_bytes > MAX_LEAF_BYTES:
            return False
        at += least + leaf_bytes + body_bytes
    return there < at == header.length


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


def _has_later_group(file: BinaryIO, start: int, size: int) -> bool:
    """Whether there is a whole group within [start, size). Only a broken segment is searched.

    `size` is what the file had when reading began: a writer may have added whole groups since then, and they prove
    nothing about a group that was still being written. No group that was being written is longer than MAX_GROUP_BYTES,
    so that nothing farther away need be searched.
    """
    step = 1 << 20
    size = min(size, start + 2 * MAX_GROUP_BYTES)
    budget = SEARCHED_TIMES * (size - start)  # headers made to be found might else have all read again and again
    for window_at in range(start, size, step):
        file.seek(window_at)
        window = file.read(min(step + len(GROUP_MAGIC) - 1, size - window_at))
        found = window.find(GROUP_MAGIC)
        while found >= 0:
            header = _read_header(file, window_at + found)
            if header is not None and window_at + found + GROUP_HEADER_BYTES + header.length <= size:
                budget -= header.length
                if budget < 0 or _read_group(file, window_at + found, size) is not None:
                    return True
            found = window.find(GROUP_MAGIC, found + 1)
    return False
