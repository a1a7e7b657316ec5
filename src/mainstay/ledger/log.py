"""The log as readers see it: what the checkpoint covers. Nothing is verified here; that is `verify.py`."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mainstay.errors import Damaged, Failed, Misuse
from mainstay.ledger.archives import Archived, archive_of
from mainstay.ledger.entry import SALT_BYTES, Entry, commitment, read_leaf
from mainstay.ledger.merkle import HASH_BYTES, Node, consistency_proof, inclusion_proof
from mainstay.ledger.note import Checkpoint, parse_checkpoint, split_note
from mainstay.ledger.state import CHECKPOINT_FILE
from mainstay.ledger.tiles import (
    BODIES,
    ENTRIES,
    MAX_LEVEL,
    WIDTH,
    TileName,
    node_in_tiles,
    read_hashes,
    read_tile,
    split_bodies,
    split_leaves,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from mainstay.ledger.archives import Gone

T = TypeVar("T")

_KEPT_TILES = 2 * (MAX_LEVEL + 1)  # what one proof reads: the entry's and the last of each level


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
        """Raises Misuse when the log has no such entry, Archived when it left, Damaged when its files are not whole."""
        self._require(sequence)
        return next(self.entries(sequence, sequence + 1))

    def entries(self, first: int, last: int) -> Iterator[Entry]:
        """The entries [first, last), one bundle in memory at a time. Salt and body of an erased one are empty.

        Raises Misuse when the log has not that many, Archived when they have left with an archive, and Damaged when its
        files are not whole.
        """
        size = self._limit(last)
        for index, begin, end in _bundles(first, last):
            leaves = self._leaves(index, end, size)
            bodies, _ = self._read_split(TileName(BODIES, index), split_bodies, end)
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

    def leaf_hashes(self, first: int, last: int) -> bytes:
        """The hashes of the leaves [first, last), one behind the other, from their tiles. Raises as `entry` does."""
        size = self._limit(last)
        tiles = [
            read_hashes(self._root, 0, index, size)[begin * HASH_BYTES : end * HASH_BYTES]
            for index, begin, end in _bundles(first, last)
        ]
        return b"".join(tiles)

    def inclusion_proof(self, sequence: int, size: int) -> list[bytes]:
        """That entry `sequence` is in the log of `size` entries (RFC 6962). Raises as `entry` does."""
        node = self.node(self._limit(size))
        if not 0 <= sequence < size:
            raise Misuse(f"expected an entry below {size}, found {sequence}")
        return inclusion_proof(sequence, size, node)

    def consistency_proof(self, old_size: int, size: int) -> list[bytes]:
        """That the log of `size` entries extends that of `old_size` (RFC 6962). Raises as `entry` does."""
        node = self.node(self._limit(size))
        if not 0 <= old_size <= size:
            raise Misuse(f"expected a size up to {size}, found {old_size}")
        return consistency_proof(old_size, size, node)

    def node(self, size: int) -> Node:
        """The inner nodes of the log of `size` entries, from its tiles, of which the last few are kept."""

        @lru_cache(_KEPT_TILES)
        def tile(level: int, index: int) -> bytes:
            return read_hashes(self._root, level, index, size)

        return node_in_tiles(tile)

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
        return self._read_split(TileName(ENTRIES, index, min(WIDTH, size - index * WIDTH)), split_leaves, end)

    def _read_split(self, name: TileName, split: Callable[[bytes, int], T], count: int) -> T:
        try:
            return split(read_tile(self._root, name), count)
        except Damaged as error:
            gone = archive_of(self._root, name.number * WIDTH)
            if gone is not None:
                raise Archived(gone) from None
            raise Damaged(f"{name.path}: {error}") from None


def _bundles(first: int, last: int) -> Iterator[tuple[int, int, int]]:
    """The bundles that hold the entries [first, last), each with the part of it that does."""
    while first < last:
        index, begin = divmod(first, WIDTH)
        end = min(WIDTH, last - index * WIDTH)
        yield index, begin, end
        first = index * WIDTH + end


def archived_entries(log: Log, gone: Gone, directories: Sequence[Path], first: int, last: int) -> Iterator[Entry]:
    """The entries [first, last) of an archive, each held against the hash that stayed in the log.

    They are read from where they were archived or from one of `directories`. Raises Failed when they stand in none of
    them, Damaged when what stands there is not what left.
    """
    tried = [Path(gone.place), *directories]
    for directory in tried:
        elsewhere = Log(directory)
        if (directory / ENTRIES).is_dir() and elsewhere.size == gone.size:
            break
    else:
        raise Failed(
            f"entries {gone.first:,} to {gone.size - 1:,} left with an archive and are needed to make the index anew;"
            f" expected that archive at {', '.join(map(str, tried))}, found none",
            hint="Say where it stands now: mainstay ledger reindex --archive DIR",
        )
    hashes = log.leaf_hashes(first, last)
    for sequence, entry in enumerate(elsewhere.entries(first, last), first):
        leaf = read_leaf(entry.leaf)
        body_wrong = entry.salt and leaf is not None and leaf.body != commitment(entry.salt, entry.body)
        at = (sequence - first) * HASH_BYTES
        if entry.leaf_hash != hashes[at : at + HASH_BYTES] or body_wrong:
            raise Damaged(f"{directory}: expected entry {sequence} as it left this log, found another")
        yield entry
