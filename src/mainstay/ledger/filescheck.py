"""The files of a ledger: nothing may stand there that nobody knows, and what nobody needs is only counted.

Bytes that the sealer left behind when it was killed (files beyond its state, temporary files, the end of the last file
of bodies) are honest. Nobody reads them, and the next pass writes over them; so a change in them changes nothing.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mainstay.errors import Damaged
from mainstay.ledger.archive_files import ERASURES_FILE, MANIFEST_FILE
from mainstay.ledger.archives import ARCHIVES_FILE
from mainstay.ledger.merkle import HASH_BYTES
from mainstay.ledger.reading import list_directory, read_regular
from mainstay.ledger.state import (
    CHECKPOINT_FILE,
    DAMAGED_FOLDER,
    LOCK_FILE,
    STATE_FILE,
    WAL_FOLDER,
    WITNESSED_FILE,
)
from mainstay.ledger.tiles import (
    BODIES,
    ENTRIES,
    MAX_BUNDLE_BYTES,
    WIDTH,
    WIDTH_BITS,
    TileName,
    parse_name,
    split_leaves,
)
from mainstay.ledger.wal import HEADER_BYTES, ROTATE_FILE, UNBORN_SUFFIX, End, SegmentReader, is_segment_name

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from mainstay.ledger.archivecheck import Around
    from mainstay.ledger.findings import Findings

_FOLDERS = frozenset({"tile", BODIES, WAL_FOLDER})
_FILES = frozenset({CHECKPOINT_FILE, STATE_FILE, LOCK_FILE, WITNESSED_FILE, ARCHIVES_FILE, ROTATE_FILE})
_EMPTY = frozenset({LOCK_FILE, ROTATE_FILE})
_DERIVED = frozenset({"index.db", "index.db-wal", "index.db-shm", "index.db-journal", "index.key"})
_TEMPORARY = re.compile(
    r"\.(checkpoint|sealer\.json|witnessed|index\.key|archives?\.json|erasures\.jsonl|bodies\.[0-9]+)\.[0-9]+\.tmp",
    re.ASCII,
)
_UNBORN = re.compile(r"[0-9a-f]{10}" + re.escape(UNBORN_SUFFIX), re.ASCII)
_TILE_FOLDER = re.compile(
    r"(tile|bodies|tile/[0-7]|tile/entries)|(tile/[0-7]|tile/entries|bodies)(/x[0-9]{3}){1,6}"
    r"|(tile/[0-7]|tile/entries)(/x[0-9]{3}){0,6}/[0-9]{3}\.p",
    re.ASCII,
)


class FilesCheck:
    """Looks at every name in the directory of a ledger."""

    def __init__(
        self,
        root: Path,
        size: int,
        swept: int,
        edges: Mapping[str, bytes],
        around: Around,
        findings: Findings,
    ) -> None:
        """`size` is that of the log, with what is not signed yet; `edges` the contents of its partial tiles, by folder.

        `swept` is a size of the log of which no partial tile may be left beside its full one.
        """
        self._absent = around.first
        self._files = _FILES if around.archive is None else _FILES | {MANIFEST_FILE, ERASURES_FILE}
        self._root = root
        self._size = size
        self._swept = swept
        self._edges = edges
        self._findings = findings
        self.unreferenced = 0  # files that nobody needs

    def run(self) -> None:
        """Check everything. Raises Enough when there are too many findings."""
        for each in self._names(""):
            self._check_top(each)
        for folder in ("tile", BODIES):
            for path in self._files_below(folder):
                self._check_tile(path)
        for each in self._names(WAL_FOLDER):
            self._check_wal(each)

    def _names(self, folder: str) -> list[os.DirEntry[str]]:
        try:
            return list_directory(self._root / folder)
        except (Damaged, OSError) as error:
            self._findings.add(folder, error.message if isinstance(error, Damaged) else str(error))
            return []

    def _check_top(self, each: os.DirEntry[str]) -> None:
        name = each.name
        if name in _FOLDERS:
            if not each.is_dir(follow_symlinks=False):
                self._findings.add(name, "expected a directory, found something else")
        elif not each.is_file(follow_symlinks=False) or not (
            name in self._files or name in _DERIVED or _TEMPORARY.fullmatch(name)
        ):
            self._findings.add(name, "expected only files of the ledger, found another")
        elif name in _EMPTY and each.stat(follow_symlinks=False).st_size:
            self._findings.add(name, "expected an empty file, found bytes in it")
        else:
            self.unreferenced += name not in self._files and name not in _DERIVED

    def _files_below(self, folder: str) -> Iterator[str]:
        """Every file below a folder of tiles, each folder in order; what is neither is found."""
        pending = [folder]
        while pending:
            parent = pending.pop()
            for each in self._names(parent):
                path = f"{parent}/{each.name}"
                if each.is_dir(follow_symlinks=False):
                    if _TILE_FOLDER.fullmatch(path):
                        pending.append(path)
                    else:
                        self._findings.add(path, "expected only tiles and bodies, found another folder")
                elif each.is_file(follow_symlinks=False):
                    yield path
                else:
                    self._findings.add(path, "expected a regular file, found something else")

    def _check_tile(self, path: str) -> None:
        name = parse_name(path)
        if name is None or (name.folder == BODIES and name.width != WIDTH):
            self._findings.add(path, "expected only tiles and bodies, found another file")
            return
        level = int(name.folder.rpartition("/")[2]) if name.folder not in {ENTRIES, BODIES} else 0
        shift = WIDTH_BITS * (level + 1)
        edge, width = self._size >> shift, (self._size >> (shift - WIDTH_BITS)) % WIDTH
        if name.folder in {BODIES, ENTRIES} and (name.number + 1) * WIDTH <= self._absent:
            self.unreferenced += 1  # it left with an archive, and whoever deletes it was killed doing so
        elif name.folder == BODIES:
            self.unreferenced += name.number >= edge + bool(width)
        elif name.width == WIDTH or name.number > edge:
            self.unreferenced += name.number >= edge
        elif name.number == edge:
            if name.width < width:
                self._check_narrow(name, self._edges.get(name.folder, b""))
            self.unreferenced += name.width > width
        elif name.number >= self._swept >> shift:  # its full tile is there, and the sealer has not come to deleting it
            self._check_narrow(name, self._content(name._replace(width=WIDTH)) or b"")
            self.unreferenced += 1
        else:
            self._findings.add(path, "expected a full tile only, found a partial one beside it")

    def _check_narrow(self, name: TileName, wider: bytes) -> None:
        """A partial tile of an earlier checkpoint must be the beginning of the present one."""
        length = name.width * HASH_BYTES
        if name.folder == ENTRIES:
            try:
                length = sum(2 + len(leaf) for leaf in split_leaves(wider, name.width))
            except Damaged:
                return  # a finding already
        elif len(wider) < length:
            return  # a finding already
        content = self._content(name)
        if content is not None and content != wider[:length]:
            self._findings.add(name.path, "expected the beginning of the wider tile beside it, found other bytes")

    def _content(self, name: TileName) -> bytes | None:
        """What is in a tile; None when it was superseded and deleted since it was listed, or is a finding."""
        try:
            return read_regular(self._root / name.path, MAX_BUNDLE_BYTES)
        except FileNotFoundError:
            return None
        except (Damaged, OSError) as error:
            self._findings.add(name.path, str(error))
            return None

    def _check_wal(self, each: os.DirEntry[str]) -> None:
        path = f"{WAL_FOLDER}/{each.name}"
        if path == DAMAGED_FOLDER and each.is_dir(follow_symlinks=False):
            for aside in self._names(path):
                self._check_aside(f"{path}/{aside.name}")
        elif not each.is_file(follow_symlinks=False):
            self._findings.add(path, "expected a regular file, found something else")
        elif _UNBORN.fullmatch(each.name) and _size(each) <= HEADER_BYTES:
            self.unreferenced += 1
        elif not is_segment_name(each.name):
            self._findings.add(path, "expected only write-ahead segments, found another file")

    def _check_aside(self, path: str) -> None:
        """What the sealer kept aside is a finding for as long as it is there, because entries of it may be missing."""
        reader = SegmentReader(self._root / path)
        what = "entries from it are missing in the log"
        with_offset = None
        try:
            for _ in reader.groups():
                pass
            with_offset = reader.offset
            if reader.end is End.BROKEN:
                what = "it was changed, or the power failed before anybody was told of its last entries"
        except OSError as error:
            what = str(error)
        self._findings.add(path, f"a damaged segment, kept aside: {what}", offset=with_offset)


def _size(entry: os.DirEntry[str]) -> int:
    """Of a file, in bytes; 0 when it is gone, as an unborn segment is that got its name."""
    try:
        return entry.stat(follow_symlinks=False).st_size
    except FileNotFoundError:
        return 0
