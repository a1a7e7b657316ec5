"""How the log stands in files: C2SP tlog-tiles (c2sp.org/tlog-tiles), and the bodies beside it.

    tile/<level>/<index>[.p/<width>]     up to 256 hashes; at level 0 of entries, above it of the full tiles below
    tile/entries/<index>[.p/<width>]     the leaves of a level 0 tile: each u16 bytes · leaf
    bodies/<index>                       their bodies: each u32 bytes that follow · salt (16) · body; none where erased

An index is written in groups of three digits, all but the last after an `x`: 1234067 is `x001/x234/067`. A tile of
fewer than 256 hashes is partial and says its width; it never changes, and is deleted only when its full tile is there.
A file of bodies has no partial form: it is appended to, and readers take as many as the log has entries.
"""

from __future__ import annotations

import os
import re
import struct
from typing import TYPE_CHECKING, NamedTuple

from mainstay.errors import Damaged
from mainstay.files import sync_directory, write_all
from mainstay.ledger.entry import MAX_LEAF_BYTES, SALT_BYTES
from mainstay.ledger.merkle import HASH_BYTES, Node, subtree_root, tree_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

WIDTH = 256  # entries in a bundle, hashes in a full tile
WIDTH_BITS = 8
ENTRIES = "tile/entries"
BODIES = "bodies"
MAX_LEVEL = 7  # 2**64 entries
MAX_BUNDLE_BYTES = WIDTH * (2 + MAX_LEAF_BYTES)  # of entries

_LEAF_BYTES = struct.Struct(">H")
_BODY_BYTES = struct.Struct(">I")
_INDEX = re.compile(r"(?:x[0-9]{3}/)*[0-9]{3}", re.ASCII)
_WIDTH = re.compile(r"[1-9][0-9]{0,2}", re.ASCII)


def hashes_of(level: int) -> str:
    """The folder of the hash tiles of a level."""
    return f"tile/{level}"


FOLDERS = (*(hashes_of(level) for level in range(MAX_LEVEL + 1)), ENTRIES, BODIES)


class TileName(NamedTuple):
    """One file of the log. `width` is 256 for a full one, and for any file of bodies."""

    folder: str
    number: int
    width: int = WIDTH

    @property
    def path(self) -> str:
        """Relative to the ledger's directory."""
        path = f"{self.folder}/{format_index(self.number)}"
        return path if self.width == WIDTH else f"{path}.p/{self.width}"


def format_index(index: int) -> str:
    """The path of an index.

    >>> format_index(1234067)
    'x001/x234/067'
    """
    path = f"{index % 1000:03d}"
    while index := index // 1000:
        path = f"x{index % 1000:03d}/{path}"
    return path


def parse_name(path: str) -> TileName | None:
    """The name of a file of the log, given relative to its directory; None when it is not exactly one."""
    folder = next((folder for folder in FOLDERS if path.startswith(folder + "/")), None)
    if folder is None:
        return None
    text, partial, width = path[len(folder) + 1 :].partition(".p/")
    if not _INDEX.fullmatch(text) or (partial and not _WIDTH.fullmatch(width)) or len(text) > 32:
        return None
    name = TileName(folder, int(text.replace("x", "").replace("/", "")), int(width) if partial else WIDTH)
    return name if name.path == path else None


def widths(size: int) -> list[int]:
    """The width of the partial tile at each level, 0 where there is none, for a log of `size` entries."""
    found = []
    while size:
        found.append(size % WIDTH)
        size //= WIDTH
    return found


def read_tile(root: Path, name: TileName) -> bytes:
    """The content of a tile or bundle; a partial one may have been replaced by its full one, which begins with it.

    Raises Damaged when neither is there.
    """
    try:
        return (root / name.path).read_bytes()
    except FileNotFoundError:
        if name.width == WIDTH:
            raise Damaged(f"{name.path}: expected a file, found none") from None
    return read_tile(root, name._replace(width=WIDTH))


def read_hashes(root: Path, level: int, index: int, size: int) -> bytes:
    """The hashes of a tile as it is in a log of `size` entries. Raises Damaged when it is missing or too short."""
    width = min(WIDTH, (size >> (WIDTH_BITS * level)) - index * WIDTH)
    name = TileName(hashes_of(level), index, width)
    content = read_tile(root, name)
    if len(content) not in {width * HASH_BYTES, WIDTH * HASH_BYTES}:
        raise Damaged(f"{name.path}: expected {width * HASH_BYTES} bytes, found {len(content)}")
    return content[: width * HASH_BYTES]


def node_in_tiles(tile: Callable[[int, int], bytes]) -> Node:
    """A Node over tiles: `tile(level, index)` gives the hashes of one."""

    def node(level: int, index: int) -> bytes:
        tile_level, within = divmod(level, WIDTH_BITS)
        first = index << within
        hashes = tile(tile_level, first // WIDTH)
        at = first % WIDTH * HASH_BYTES
        return subtree_root(hashes[at : at + (HASH_BYTES << within)])

    return node


def pack_leaf(leaf: bytes) -> bytes:
    """A leaf as it stands in a bundle."""
    return _LEAF_BYTES.pack(len(leaf)) + leaf


def pack_body(salt: bytes, body: bytes) -> bytes:
    """A body as it stands in its file."""
    return b"%b%b%b" % (_BODY_BYTES.pack(len(salt) + len(body)), salt, body)


def split_leaves(content: bytes, count: int) -> list[bytes]:
    """The first `count` leaves of a bundle. Raises Damaged when it holds fewer."""
    leaves: list[bytes] = []
    at = 0
    unpack, total = _LEAF_BYTES.unpack_from, len(content)
    for _ in range(count):
        if at + 2 > total:
            raise Damaged(f"expected {count} leaves, found the end behind {len(leaves)}, at byte {total}")
        begin = at + 2
        at = begin + unpack(content, at)[0]
        leaves.append(content[begin:at])
    if at > total:
        raise Damaged(f"expected {count} leaves, found the end within the last, at byte {total}")
    return leaves


def split_bodies(content: bytes, count: int) -> tuple[list[memoryview], int]:
    """The first `count` bodies of a file, each salt and body in one piece, and the number of bytes they take.

    An erased one is empty.
    Raises Damaged when it holds fewer.
    """
    view = memoryview(content)
    bodies: list[memoryview] = []
    at = 0
    unpack, total = _BODY_BYTES.unpack_from, len(content)
    for _ in range(count):
        if at + 4 > total:
            raise Damaged(f"expected {count} bodies, found the end behind {len(bodies)}, at byte {total}")
        begin = at + 4
        at = begin + unpack(content, at)[0]
        if at - begin < SALT_BYTES and at != begin:
            raise Damaged(f"expected a body with its salt, found {at - begin} bytes at byte {begin}")
        bodies.append(view[begin:at])
    if at > total:
        raise Damaged(f"expected {count} bodies, found the end within the last, at byte {total}")
    return bodies, at


def remove_partials(root: Path, folder: str, index: int, *, except_up_to: int = 0) -> bool:
    """Delete the partial forms of a tile that are wider than `except_up_to`; whether there were any partial forms."""
    directory = root / f"{folder}/{format_index(index)}.p"
    if not directory.exists():
        return False
    for path in directory.iterdir():
        if not _WIDTH.fullmatch(path.name) or int(path.name) > except_up_to:
            path.unlink()
    if not except_up_to:
        directory.rmdir()
    return True


class FileBatch:
    """Files being written that nobody refers to yet, and that are all made durable together.

    Waiting for the disk once for many files costs little more than half of waiting for each.
    """

    MAX_OPEN = 96

    def __init__(self) -> None:
        self._open: list[int] = []
        self._directories: set[Path] = set()

    def write(self, path: Path, content: bytes, *, offset: int = 0) -> None:
        """Write `content` at `offset` of a file, which ends behind it; the directories above it are made."""
        if path.parent not in self._directories:
            make_directories(path.parent)
            self._directories.add(path.parent)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self._open.append(descriptor)
        os.ftruncate(descriptor, offset)  # a killed sealer may have left more behind
        os.lseek(descriptor, offset, os.SEEK_SET)
        write_all(descriptor, content)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)  # the kernel begins to write now, and does not wait
        if len(self._open) == self.MAX_OPEN:
            self._sync_files()

    def sync(self) -> None:
        """Wait until all that was written is on disk, contents and names."""
        self._sync_files()
        for directory in self._directories:
            sync_directory(directory)
        self._directories.clear()

    def abandon(self) -> None:
        """Close what is open; nothing is known about what is on disk."""
        while self._open:
            os.close(self._open.pop())

    def _sync_files(self) -> None:
        for descriptor in self._open:
            os.fdatasync(descriptor)
        self.abandon()


def make_directories(path: Path) -> None:
    """Make a directory and those above it, durably."""
    missing = []
    while not path.is_dir():
        missing.append(path)
        path = path.parent
    for directory in reversed(missing):
        directory.mkdir(exist_ok=True)
        sync_directory(directory.parent)


class Edge:
    """The right edge of the tiled tree: the hashes of the last tile, not yet full, at each level."""

    def __init__(self) -> None:
        self.size = 0
        self._levels: list[bytearray] = []

    @classmethod
    def load(cls, root: Path, size: int) -> Edge:
        """The edge of the log of `size` entries in files. Raises Damaged when a tile of it is not there."""
        edge = cls()
        edge.size = size
        for level, width in enumerate(widths(size)):
            hashes = read_hashes(root, level, size >> (WIDTH_BITS * (level + 1)), size) if width else b""
            edge._levels.append(bytearray(hashes))
        return edge

    def append(self, leaf_hashes: bytes) -> Iterator[tuple[TileName, bytes]]:
        """Add leaves up to the end of the tile they begin in; yields each tile that is full now."""
        self.size += len(leaf_hashes) // HASH_BYTES
        added = leaf_hashes
        for level in range(MAX_LEVEL + 1):
            if level == len(self._levels):
                self._levels.append(bytearray())
            hashes = self._levels[level]
            hashes += added
            if len(hashes) < WIDTH * HASH_BYTES:
                return
            index = (self.size >> (WIDTH_BITS * (level + 1))) - 1
            full = bytes(hashes)
            hashes.clear()
            yield TileName(hashes_of(level), index), full
            added = subtree_root(full)

    def partial_tiles(self) -> list[tuple[TileName, bytes]]:
        """The partial tiles of the log as it is now."""
        return [
            (
                TileName(hashes_of(level), self.size >> (WIDTH_BITS * (level + 1)), len(hashes) // HASH_BYTES),
                bytes(hashes),
            )
            for level, hashes in enumerate(self._levels)
            if hashes
        ]

    def root(self) -> bytes:
        """The head of the tree."""
        return tree_root(self.size, node_in_tiles(lambda level, _: bytes(self._levels[level])))
