"""Files of bodies written anew without some of them, and put in place together.

A file is replaced in one step: whoever reads meanwhile has the old one or the new. The old one is unlinked, not
overwritten: its blocks are the file system's from then on, and what a journal or a snapshot keeps of them is its own.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from mainstay.errors import Damaged
from mainstay.files import sync_directory, write_all
from mainstay.ledger.entry import SALT_BYTES
from mainstay.ledger.erasure_entries import AnyLeaf, Run, read_any
from mainstay.ledger.reading import open_regular
from mainstay.ledger.review_entries import RESOLVED_MARK, capability_of_resolution
from mainstay.ledger.tiles import BODIES, ENTRIES, WIDTH, TileName, split_leaves
from mainstay.ledger.treecheck import read_file
from mainstay.ledger.wal import locate_bodies

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

BATCH_FILES = 64  # put in place together: waiting for the disk once for many costs little more than once for each

MAX_CHANGE_BYTES = 16 << 20  # of the body of a change
_CHUNK_BYTES = 1 << 20
_LENGTH_BYTES = 4


def locate(root: Path, bundle: int, count: int) -> list[Run]:
    """Where the first `count` bodies of a bundle stand in their file, each with its salt; of an erased one, nothing.

    Raises Damaged when the file does not hold that many.
    """
    name = TileName(BODIES, bundle).path
    found: list[Run] = []
    try:
        descriptor = open_regular(root / name)
    except OSError as error:
        raise Damaged(f"{name}: expected a file of bodies, found none: {error.strerror}") from None
    try:
        total = os.fstat(descriptor).st_size
        held = os.pread(descriptor, _CHUNK_BYTES, 0)
        at = 0
        for _ in range(count):
            begin = at + _LENGTH_BYTES
            length = held[at:begin] if begin <= len(held) else os.pread(descriptor, _LENGTH_BYTES, at)
            at = begin + int.from_bytes(length, "big")
            if at > total or len(length) < _LENGTH_BYTES:
                raise Damaged(f"{name}: expected {count} bodies, found the end of the file at byte {total}")
            found.append((begin, at))
    finally:
        os.close(descriptor)
    return found


def read_body(root: Path, sequence: int) -> tuple[bytes, bytes] | None:
    """The salt and body of an entry; None when it was erased, cannot be read, or is longer than that of any change."""
    try:
        descriptor = open_regular(root / TileName(BODIES, sequence // WIDTH).path)
    except OSError:
        return None
    try:
        at = 0
        for _ in range(sequence % WIDTH):
            at += 4 + int.from_bytes(os.pread(descriptor, 4, at), "big")
        length = int.from_bytes(os.pread(descriptor, 4, at), "big")
        if not SALT_BYTES <= length <= MAX_CHANGE_BYTES:
            return None
        content = os.pread(descriptor, length, at + 4)
    finally:
        os.close(descriptor)
    return (content[:SALT_BYTES], content[SALT_BYTES:]) if len(content) == length else None


class Bundle(NamedTuple):
    """The entries of a bundle, and where their bodies stand."""

    number: int
    leaves: list[bytes]
    places: list[Run]
    full: int  # bit n: the body of its entry n is there
    likely: bytes  # only leaves that hold this are read

    @property
    def first(self) -> int:
        return self.number * WIDTH

    @property
    def last(self) -> int:
        """Behind the last entry."""
        return self.first + len(self.leaves)

    def leaf(self, sequence: int) -> AnyLeaf | None:
        leaf = self.leaves[sequence % WIDTH]
        return read_any(leaf) if self.likely in leaf else None

    def of_capability(self, root: Path, sequence: int, capability: str) -> AnyLeaf | None:
        """The leaf of an entry whose body may go and is of a capability, be it a resolution; None where it is not.

        The capability of a decision or an outcome stands in its leaf, that of a resolution in its body alone.
        """
        leaf = self.leaves[sequence % WIDTH]
        if RESOLVED_MARK in leaf:
            body = read_body(root, sequence)
            of = None if body is None else capability_of_resolution(body[1])
            return read_any(leaf) if of == capability else None
        found = self.leaf(sequence)
        return found if found is not None and found.erasable and found.capability == capability else None

    def oldest(self, root: Path, capability: str, *, without: int) -> str | None:
        """When the oldest body of a capability was recorded, of those not in `without`; None when there is none."""
        left = self.full & ~without
        found = (
            self.of_capability(root, self.first + place, capability)
            for place in range(len(self.leaves))
            if left >> place & 1
        )
        return min((leaf.at for leaf in found if leaf is not None), default=None)


def read_bundle(root: Path, number: int, size: int, capability: str | None) -> Bundle | None:
    """A bundle of the log of `size` entries; None when it holds nothing of the capability, where one is given.

    Raises Damaged when its files are not whole.
    """
    name = TileName(ENTRIES, number, min(WIDTH, size - number * WIDTH))
    likely = b"" if capability is None else b'"capability":' + msgspec.json.encode(capability)
    try:
        content = read_file(root, name)
        if likely not in content and RESOLVED_MARK not in content:
            return None
        leaves = split_leaves(content, name.width)
    except OSError as error:
        raise Damaged(f"{name.path}: expected a bundle of entries, found none: {error.strerror}") from None
    places = locate(root, number, name.width)
    full = sum(1 << place for place, (begin, end) in enumerate(places) if end > begin)
    return Bundle(number, leaves, places, full, likely)


class BodiesBatch:
    """Files of bodies under `root` that are to lose some of them."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._written: list[tuple[int, Path, Path]] = []  # open, where it stands now, and where it is to stand

    def __len__(self) -> int:
        return len(self._written)

    def empty(self, bundle: int, places: Sequence[Run], chosen: int) -> None:
        """Write the file of a bundle anew without the bodies in `chosen`: bit n for the entry n of the bundle.

        `places` is where all bodies of the bundle stand in it.
        """
        path = self._root / TileName(BODIES, bundle).path
        fresh = self._root / f".bodies.{bundle}.{os.getpid()}.tmp"  # not beside it: only bodies may stand there
        source = open_regular(path)
        try:
            mode = os.fstat(source).st_mode & 0o777
            target = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
            self._written.append((target, fresh, path))
            copied = 0
            for place, (begin, end) in enumerate(places):
                if chosen >> place & 1:
                    _copy(source, target, copied, begin - _LENGTH_BYTES)
                    write_all(target, bytes(_LENGTH_BYTES))
                    copied = end
            _copy(source, target, copied, places[-1][1])
            os.posix_fadvise(target, 0, 0, os.POSIX_FADV_DONTNEED)  # the kernel begins to write now, and does not wait
        finally:
            os.close(source)

    def put_in_place(self) -> None:
        """Replace every file, durably."""
        for descriptor, _, _ in self._written:
            os.fsync(descriptor)
        for _, fresh, path in self._written:
            fresh.replace(path)
        for directory in {path.parent for _, _, path in self._written}:
            sync_directory(directory)
        self.abandon()

    def abandon(self) -> None:
        """Let go of what was written and not put in place."""
        while self._written:
            descriptor, fresh, _ = self._written.pop()
            os.close(descriptor)
            fresh.unlink(missing_ok=True)


def _copy(source: int, target: int, begin: int, end: int) -> None:
    while begin < end:
        content = os.pread(source, min(_CHUNK_BYTES, end - begin), begin)
        if not content:
            raise Damaged(
                "a file of bodies became shorter while it was read: expected the sealer to be the only writer"
            )
        write_all(target, content)
        begin += len(content)


def overwrite_in_segment(path: Path, counters: Sequence[Run]) -> tuple[int, int]:
    """Overwrite bodies in a damaged segment set aside, in place: how many, and how many bytes behind cannot be read.

    `counters` are the entries concerned, ascending. The segment is broken already: nobody reads it as one any more.
    """
    erased = behind = 0
    wanted = list(counters)
    with path.open("r+b") as file:
        for counter, begin, end in locate_bodies(file):
            behind = end
            while wanted and wanted[0][1] <= counter:
                wanted.pop(0)
            if wanted and wanted[0][0] <= counter:
                os.pwrite(file.fileno(), bytes(end - begin), begin)
                erased += 1
        os.fsync(file.fileno())
        return erased, os.fstat(file.fileno()).st_size - behind
