"""The log open for appending: tiles, bodies, state and checkpoint, written in the order that makes them one step."""

from __future__ import annotations

import struct
from hashlib import sha256
from typing import TYPE_CHECKING

from mainstay.errors import Damaged
from mainstay.ledger.entry import leaf_hash
from mainstay.ledger.recovery import now, publish, recover, remove_leftovers
from mainstay.ledger.state import STATE_FORMAT, State, save_state
from mainstay.ledger.tiles import (
    BODIES,
    ENTRIES,
    WIDTH,
    Edge,
    FileBatch,
    TileName,
    pack_leaf,
    read_tile,
    remove_partials,
    split_bodies,
    split_leaves,
)

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.ledger.entry import Entry
    from mainstay.ledger.state import Progress
    from mainstay.signing import SigningKey


class LogWriter:
    """Appends to the log in `root`. There must be one only, which the sealer's lock sees to.

    After an exception it must not be used again: what is in memory may be ahead of what is on disk.
    """

    def __init__(self, root: Path, key: SigningKey, origin: str) -> None:
        """Recover the log. Raises Damaged when it is not as it was written."""
        self._root = root
        self._key = key
        self._origin = origin
        self.state = recover(root, key, origin)
        remove_leftovers(root, self.state)
        self._edge = Edge.load(root, self.state.size)
        self._partial = {name for name, _ in self._edge.partial_tiles()}  # as they stand on disk
        self._leaves = bytearray()  # the last bundle, while it is not full
        self._body_bytes = 0  # of the bodies that belong to it
        self._files = FileBatch()
        self._load_last_bundle()

    def _load_last_bundle(self) -> None:
        index, width = divmod(self.state.size, WIDTH)
        if not width:
            return
        name = TileName(ENTRIES, index, width)
        try:
            leaves = split_leaves(read_tile(self._root, name), width)
            bodies = read_tile(self._root, TileName(BODIES, index))
            _, self._body_bytes = split_bodies(bodies, width)
        except Damaged as error:
            raise Damaged(f"{name.path} or its bodies: {error}") from None
        hashes = b"".join(map(leaf_hash, leaves))
        if hashes != dict(self._edge.partial_tiles())[TileName("tile/0", index, width)]:
            raise Damaged(
                f"{name.path}: expected the leaves of the hashes in tile/0, found others",
                hint="Run `mainstay ledger verify` to see which file was changed, and restore it from a backup.",
            )
        self._leaves += b"".join(map(pack_leaf, leaves))

    def append(self, entries: list[Entry], segments: dict[str, Progress]) -> None:
        """Add entries and say how far the segments they came from are sealed, in one step that happens or does not."""
        try:
            full = self._write_full(entries)
            if entries:
                self._write_partial()
            self._files.sync()
        finally:
            self._files.abandon()
        size = self._edge.size
        swept = self.state.size  # each append sweeps behind itself, so all before this one has been swept
        self.state = State(STATE_FORMAT, size, self._edge.root().hex(), swept, now(), segments)
        save_state(self._root, self.state)
        if entries:
            publish(self._root, self.state, self._key, self._origin)
        for name in full:
            remove_partials(self._root, name.folder, name.number)

    def _write_full(self, entries: list[Entry]) -> list[TileName]:
        """Write entries bundle by bundle, and every tile that became full; their names."""
        full = []
        at = 0
        while at < len(entries):
            index, width = divmod(self._edge.size, WIDTH)
            part = entries[at : at + WIDTH - width]
            at += len(part)
            hashes = self._add(part, index)
            if width + len(part) == WIDTH:
                name = TileName(ENTRIES, index)
                self._write(name, bytes(self._leaves))
                full.append(name)
                self._leaves.clear()
                self._body_bytes = 0
            for name, content in self._edge.append(hashes):
                self._write(name, content)
                full.append(name)
        return full

    def _add(self, entries: list[Entry], index: int) -> bytes:
        """Put entries behind the last bundle and its bodies; the hashes of their leaves."""
        sha, pack_leaf_bytes, pack_body_bytes = sha256, struct.Struct(">H").pack, struct.Struct(">I").pack
        leaves: list[bytes] = []
        bodies: list[bytes] = []
        hashes: list[bytes] = []
        for leaf, salt, body in entries:
            hashes.append(sha(b"\x00" + leaf).digest())
            leaves += (pack_leaf_bytes(len(leaf)), leaf)
            bodies += (pack_body_bytes(len(salt) + len(body)), salt, body)
        self._leaves += b"".join(leaves)
        content = b"".join(bodies)
        self._write(TileName(BODIES, index), content, offset=self._body_bytes)
        self._body_bytes += len(content)
        return b"".join(hashes)

    def _write_partial(self) -> None:
        index, width = divmod(self._edge.size, WIDTH)
        if width:
            self._write(TileName(ENTRIES, index, width), bytes(self._leaves))
        partial = self._edge.partial_tiles()
        for name, content in partial:
            if name not in self._partial:  # an upper tile is often as it was
                self._write(name, content)
        self._partial = {name for name, _ in partial}

    def _write(self, name: TileName, content: bytes, *, offset: int = 0) -> None:
        self._files.write(self._root / name.path, content, offset=offset)
