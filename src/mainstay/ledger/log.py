"""The log as readers see it: what the checkpoint covers. Nothing is verified here; that is `verify.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mainstay.errors import Damaged, Misuse
from mainstay.ledger.entry import SALT_BYTES, Entry
from mainstay.ledger.merkle import HASH_BYTES, Node, consistency_proof, inclusion_proof
from mainstay.ledger.note import Checkpoint, parse_checkpoint, split_note
from mainstay.ledger.state import CHECKPOINT_FILE
from mainstay.ledger.tiles import (
    BODIES,
    ENTRIES,
    WIDTH,
    TileName,
    node_in_tiles,
    read_hashes,
    read_tile,
    split_bodies,
    split_leaves,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Log:
    """The sealed log in `ledger_dir`. It holds no files open, and may be read while it is being sealed."""

    def __init__(self, ledger_dir: Path) -> None:
        self._root = ledger_dir

    def note(self) -> bytes | None:
        """The signed checkpoint as it stands, or None when nothing was ever sealed."""
        try:
            return (self._root / CHECKPOINT_FILE).read_bytes()
        except FileNotFoundError:
            return None

    def checkpoint(self) -> Checkpoint | None:
        """The checkpoint, its signature not verified, or None when nothing was ever sealed.

        Raises Damaged when it is not one.
        """
        note = self.note()
        return None if note is None else parse_checkpoint(split_note(note)[0])

    @property
    def size(self) -> int:
        """The number of entries now; read from the checkpoint at each call."""
        checkpoint = self.checkpoint()
        return 0 if checkpoint is None else checkpoint.size

    def entry(self, sequence: int) -> Entry:
        """Raises Misuse when the log has no such entry, Damaged when its files are not whole."""
        self._require(sequence)
        return next(self.entries(sequence, sequence + 1))

    def entries(self, first: int, last: int) -> Iterator[Entry]:
        """The entries [first, last), one bundle in memory at a time.

        Raises Misuse when the log has not that many, Damaged when its files are not whole.
        """
        size = self._limit(last)
        for index, begin, end in _bundles(first, last):
            leaves = self._leaves(index, end, size)
            name = TileName(BODIES, index)
            try:
                bodies, _ = split_bodies(read_tile(self._root, name), end)
            except Damaged as error:
                raise Damaged(f"{name.path}: {error}") from None
            for leaf, body in zip(leaves[begin:], bodies[begin:], strict=True):
                yield Entry(leaf, bytes(body[:SALT_BYTES]), bytes(body[SALT_BYTES:]))

    def leaves(self, first: int, last: int) -> Iterator[bytes]:
        """The leaves [first, last); their bodies are not read. Raises as `entries` does."""
        size = self._limit(last)
        for index, begin, end in _bundles(first, last):
            yield from self._leaves(index, end, size)[begin:]

    def leaf_hash_at(self, sequence: int) -> bytes:
        """The hash of a leaf, from its tile. Raises as `entry` does."""
        size = self._require(sequence)
        at = sequence % WIDTH * HASH_BYTES
        return read_hashes(self._root, 0, sequence // WIDTH, size)[at : at + HASH_BYTES]

    def inclusion_proof(self, sequence: int, size: int) -> list[bytes]:
        """That entry `sequence` is in the log of `size` entries (RFC 6962). Raises as `entry` does."""
        self._limit(size)
        if not 0 <= sequence < size:
            raise Misuse(f"expected an entry below {size}, found {sequence}")
        return inclusion_proof(sequence, size, self.node(size))

    def consistency_proof(self, old_size: int, size: int) -> list[bytes]:
        """That the log of `size` entries extends that of `old_size` (RFC 6962). Raises as `entry` does."""
        self._limit(size)
        if not 0 <= old_size <= size:
            raise Misuse(f"expected a size up to {size}, found {old_size}")
        return consistency_proof(old_size, size, self.node(size))

    def node(self, size: int) -> Node:
        """The inner nodes of the log of `size` entries, from its tiles."""
        return node_in_tiles(lambda level, index: read_hashes(self._root, level, index, size))

    def _require(self, sequence: int) -> int:
        size = self.size
        if not 0 <= sequence < size:
            raise Misuse(f"the log has no entry {sequence}: expected a number below {size}")
        return size

    def _limit(self, last: int) -> int:
        size = self.size
        if last > size:
            raise Misuse(f"the log has {size} entries, expected at least {last}")
        return size

    def _leaves(self, index: int, end: int, size: int) -> list[bytes]:
        """The first `end` leaves of a bundle of the log of `size` entries."""
        name = TileName(ENTRIES, index, min(WIDTH, size - index * WIDTH))
        try:
            return split_leaves(read_tile(self._root, name), end)
        except Damaged as error:
            raise Damaged(f"{name.path}: {error}") from None


def _bundles(first: int, last: int) -> Iterator[tuple[int, int, int]]:
    """The bundles that hold the entries [first, last), each with the part of it that does."""
    while first < last:
        index, begin = divmod(first, WIDTH)
        end = min(WIDTH, last - index * WIDTH)
        yield index, begin, end
        first = index * WIDTH + end
