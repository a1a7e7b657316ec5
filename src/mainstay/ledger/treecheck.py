"""Recomputing the Merkle tree from the entries, tile by tile, and finding which file is wrong where they disagree.

The signed head vouches for the hashes at the right edge, each of those for the full tile below it, and so on down to
the entries. Walking down that way, one tile of each level in memory, every file is held against a hash that is already
trusted, so that of an entry and its stored hash the wrong one can be named. Where the trust is broken by a bad tile,
what is below it is taken as it is and the bad tile is found by recomputing it from there.
"""

from __future__ import annotations

import os
from collections import Counter
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from mainstay.errors import Damaged
from mainstay.ledger.entry import LEAF_HEAD, EntryId, parse_id, plain_segment, read_leaf, segment_in_id
from mainstay.ledger.erasure_entries import ERASURE_MARK
from mainstay.ledger.merkle import HASH_BYTES, subtree_root, tree_root
from mainstay.ledger.reading import open_regular, read_regular
from mainstay.ledger.seen import Seen, SeenIds
from mainstay.ledger.tiles import (
    BODIES,
    ENTRIES,
    MAX_BUNDLE_BYTES,
    WIDTH,
    WIDTH_BITS,
    TileName,
    hashes_of,
    node_in_tiles,
    widths,
)
from mainstay.ledger.wal import MAX_GROUP_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mainstay.ledger.erasedcheck import ErasedCheck
    from mainstay.ledger.findings import Findings

_CHUNK_BYTES = 4 << 20  # of bodies read at once


class _Bundle(NamedTuple):
    """A bundle of entries as far as it can be read."""

    name: TileName
    leaves: list[bytes]
    hashes: bytes  # of the leaves
    rest: int  # bytes behind the last leaf; below zero when it says to be longer than it is
    missing: bool = False  # there is no file, which is a finding already


class TreeCheck:
    """Checks a log of `size` entries with the head `root` in the files under `directory`."""

    def __init__(
        self,
        directory: Path,
        size: int,
        root: bytes,
        findings: Findings,
        progress: Callable[[int, int], None] | None = None,
        *,
        after: TreeCheck | None = None,
        erased: ErasedCheck | None = None,
    ) -> None:
        """What `after` has checked under an earlier head is not checked again.

        `erased` says of empty bodies whether they may be, and of which entries only the hashes are here.
        """
        self._directory = directory
        self.size = size
        self._root = root
        self._findings = findings
        self._progress = progress
        self._start = 0 if after is None else after.size
        self._absent = 0 if erased is None else erased.first
        self._erased = erased
        self._gapless = self._absent == 0  # every entry so far could be read: only then are missing ones missing
        self.kinds: Counter[bytes] = Counter()
        self.seen: SeenIds = SeenIds() if after is None else after.seen
        self.edges: dict[str, bytes] = {}  # content of the partial file, by folder
        self.any_erasure = False  # whether any entry asks for bodies to be erased, or says that they were
        self.trailing = 0  # files with bytes behind the last entry, of which nobody reads them

    def run(self) -> None:
        """Check everything the head covers. Raises Enough when there are too many findings."""
        stored = [
            self._read_hashes(TileName(hashes_of(level), self.size >> WIDTH_BITS * (level + 1), width))
            if width
            else b""
            for level, width in enumerate(widths(self.size))
        ]
        for level, hashes in enumerate(stored):
            if hashes:
                self.edges[hashes_of(level)] = hashes
        whole = [hashes for hashes in stored if hashes is not None]
        trusted = len(whole) == len(stored) and self._head(whole) == self._root
        recomputed = [b""] * len(stored)
        for level in reversed(range(len(stored))):  # from the left of the tree to the right
            recomputed[level] = self._check_edge(level, stored[level], trusted=trusted)
        if not trusted:
            self._explain(stored, recomputed)

    def _head(self, edges: list[bytes]) -> bytes:
        return tree_root(self.size, node_in_tiles(lambda level, _: edges[level]))

    def _check_edge(self, level: int, stored: bytes | None, *, trusted: bool) -> bytes:
        """Check what is below the partial tile of a level; its hashes recomputed."""
        index = self.size >> WIDTH_BITS * (level + 1)
        width = (self.size >> WIDTH_BITS * level) % WIDTH
        if level == 0:
            if not width:
                return b""
            bundle = self._read_bundle(TileName(ENTRIES, index, width))
            if stored is not None and trusted:
                self._compare(
                    bundle, TileName(hashes_of(0), index, width), stored, stored_right=True, leaves_right=False
                )
            self._check_entries(bundle, stored if trusted else None)
            return bundle.hashes
        hashes = []
        for child in range(width):
            vouched = stored[child * HASH_BYTES : (child + 1) * HASH_BYTES] if stored is not None and trusted else None
            hashes.append(self._check_full(level - 1, index * WIDTH + child, vouched))
        return b"".join(hashes)

    def _explain(self, stored: list[bytes | None], recomputed: list[bytes]) -> None:
        """The edge as stored does not make the signed head: say what is wrong."""
        whole = all(
            len(hashes) == width * HASH_BYTES for hashes, width in zip(recomputed, widths(self.size), strict=True)
        )
        head = self._head(recomputed) if whole else None
        for level, (found, expected) in enumerate(zip(stored, recomputed, strict=True)):
            if found is None or found == expected:
                continue
            index = self.size >> WIDTH_BITS * (level + 1)
            name = TileName(hashes_of(level), index, len(found) // HASH_BYTES)
            at = _first_difference(found, expected)
            source = "entries" if level == 0 else "tiles below"
            certain = "" if head == self._root else "; neither makes the signed head"
            self._findings.add(
                name.path,
                f"expected {_hash_at(expected, at)}, as the {source} make it, found {_hash_at(found, at)}{certain}",
                sequence=index * WIDTH + at // HASH_BYTES if level == 0 else None,
                offset=at,
            )
        if head is not None and head != self._root:
            self._findings.add(
                "checkpoint",
                f"expected the head {head.hex()} that the {self.size} entries and all their hashes make, found"
                f" {self._root.hex()}: they were changed alike",
            )

    def _check_full(self, level: int, index: int, vouched: bytes | None) -> bytes:
        """Check a full tile and all below it; the root of it as it should be, as far as that is known."""
        name = TileName(hashes_of(level), index)
        stored = self._read_hashes(name)
        found = None if stored is None else subtree_root(stored)
        right = found is not None and found == vouched
        if (index + 1) << WIDTH_BITS * (level + 1) <= self._start:
            return vouched or found or bytes(HASH_BYTES)
        if (index + 1) * WIDTH <= self._absent and level == 0:
            return self._check_absent(name, stored, vouched, stored_right=right)
        if level == 0:
            return self._check_leaves(name, stored, vouched, stored_right=right)
        hashes = [
            self._check_full(
                level - 1,
                index * WIDTH + child,
                stored[child * HASH_BYTES : (child + 1) * HASH_BYTES] if stored is not None and right else None,
            )
            for child in range(WIDTH)
        ]
        if right and found is not None:
            return found
        below = b"".join(hashes)
        root = subtree_root(below)
        if stored is not None and stored != below:
            at = _first_difference(stored, below)
            certain = "" if vouched in {None, root} else "; neither makes the hash of this tile one level up"
            self._findings.add(
                name.path,
                f"expected {_hash_at(below, at)}, the head of the tile below, found {_hash_at(stored, at)}{certain}",
                offset=at,
            )
        elif stored is not None and vouched is not None:
            self._findings.add(
                name.path, f"expected hashes with the head {vouched.hex()}, as one level up, found {root.hex()}"
            )
        return root

    def _check_leaves(
        self, name: TileName, stored: bytes | None, vouched: bytes | None, *, stored_right: bool
    ) -> bytes:
        bundle = self._read_bundle(TileName(ENTRIES, name.number))
        if stored == bundle.hashes and (stored_right or vouched is None):
            self._check_entries(bundle, stored)
            return subtree_root(stored)
        leaves_root = subtree_root(bundle.hashes) if len(bundle.leaves) == WIDTH else None
        leaves_right = vouched is not None and leaves_root == vouched
        if stored is not None:
            self._compare(bundle, name, stored, stored_right=stored_right, leaves_right=leaves_right)
        elif not leaves_right and vouched is not None and not bundle.missing:
            self._findings.add(
                bundle.name.path,
                f"expected leaves with the head {vouched.hex()}, found {(leaves_root or b'').hex()}",
                sequence=name.number * WIDTH,
            )
        self._check_entries(bundle, bundle.hashes if leaves_right else stored if stored_right else None)
        return vouched or leaves_root or (subtree_root(stored) if stored is not None else bytes(HASH_BYTES))

    def _check_absent(
        self, name: TileName, stored: bytes | None, vouched: bytes | None, *, stored_right: bool
    ) -> bytes:
        """The hashes of entries that are not here, against the hash of them all."""
        root = None if stored is None else subtree_root(stored)
        if root is not None and vouched is not None and not stored_right:
            self._findings.add(
                name.path, f"expected hashes with the head {vouched.hex()}, as one level up, found {root.hex()}"
            )
        return vouched or root or bytes(HASH_BYTES)

    def _compare(
        self, bundle: _Bundle, tile: TileName, stored: bytes, *, stored_right: bool, leaves_right: bool
    ) -> None:
        """Name the first place where entries and their stored hashes disagree, and which of the two is wrong."""
        first = tile.number * WIDTH
        if bundle.hashes == stored:
            if not stored_right and not leaves_right:
                self._findings.add(
                    tile.path,
                    "expected hashes that make the one in the tile above, found others; of the entries"
                    f" {first} to {first + WIDTH - 1} some were changed alike",
                )
            return
        if bundle.missing:
            return
        at = _first_difference(bundle.hashes, stored)
        place = at // HASH_BYTES
        in_leaves, in_tile = _hash_at(bundle.hashes, at), _hash_at(stored, at)
        if leaves_right:
            self._findings.add(
                tile.path,
                f"expected {in_leaves}, found {in_tile}; the entry is right",
                sequence=first + place,
                offset=at,
            )
            return
        offset = sum(2 + len(leaf) for leaf in bundle.leaves[:place])
        verdict = "" if stored_right else "; it is not known which of the two is right"
        self._findings.add(
            bundle.name.path,
            f"expected a leaf with the hash {in_tile}, as in {tile.path}, found {in_leaves}{verdict}",
            sequence=first + place,
            offset=offset,
        )

    def _read_hashes(self, name: TileName) -> bytes | None:
        content = self._read(name)
        expected = name.width * HASH_BYTES
        if content is None:
            return None
        if len(content) != expected:
            self._findings.add(name.path, f"expected {expected} bytes, found {len(content)}")
            return None
        return content

    def _read(self, name: TileName) -> bytes | None:
        try:
            return read_file(self._directory, name)
        except (Damaged, OSError) as error:
            self._add_unreadable(name, error)
            return None

    def _add_unreadable(self, name: TileName, error: Damaged | OSError) -> None:
        found = error.strerror if isinstance(error, OSError) else error.message
        sequence = name.number * WIDTH if name.folder in {ENTRIES, BODIES} else None
        self._findings.add(name.path, f"expected a file of the log: {found}", sequence=sequence)

    def _read_bundle(self, name: TileName) -> _Bundle:
        """Read as many leaves as there are; that some are missing or changed shows in the hashes."""
        content = self._read(name)
        if content is None:
            return _Bundle(name, [], b"", 0, missing=True)
        leaves: list[bytes] = []
        at, total = 0, len(content)
        while len(leaves) < name.width and at + 2 <= total:
            begin = at + 2
            at = begin + (content[at] << 8 | content[at + 1])
            leaves.append(content[begin:at])
        if name.width < WIDTH:
            self.edges[ENTRIES] = content
        sha = sha256
        return _Bundle(name, leaves, b"".join([sha(b"\x00" + leaf).digest() for leaf in leaves]), total - at)

    def _check_entries(self, bundle: _Bundle, right: bytes | None) -> None:
        """Check ids and bodies of the leaves whose hashes are `right`, or of all where that is not known."""
        first = bundle.name.number * WIDTH
        if bundle.rest and bundle.hashes == (right or bundle.hashes):
            found = (
                f"{bundle.rest} bytes behind it" if bundle.rest > 0 else f"{-bundle.rest} bytes too few for its length"
            )
            self._findings.add(bundle.name.path, f"expected the last leaf to end the file, found {found}")
        leaves: list[bytes | None] = list(bundle.leaves)
        if right is not None and right != bundle.hashes:
            for place in range(len(leaves)):
                span = slice(place * HASH_BYTES, (place + 1) * HASH_BYTES)
                if bundle.hashes[span] != right[span]:
                    leaves[place] = None
        self._gapless = self._gapless and len(leaves) == bundle.name.width and None not in leaves
        leaves[: max(0, self._start - first)] = [None] * max(0, self._start - first)
        self._check_ids(bundle, leaves, first)
        self._check_bodies(bundle, leaves, first)
        if self._progress is not None and (bundle.name.number % 16 == 0 or first + WIDTH >= self.size):
            self._progress(min(first + WIDTH, self.size), self.size)

    def _check_ids(self, bundle: _Bundle, leaves: list[bytes | None], first: int) -> None:
        match, add, kinds = LEAF_HEAD.match, self.seen.add, self.kinds
        for place, leaf in enumerate(leaves):
            if leaf is None:
                continue
            head = match(leaf)
            if head is None:
                self._check_unusual(bundle.name.path, leaf, first + place)
                continue
            kind, milliseconds, segment, counter = head.groups()
            kinds[kind] += 1
            if kind == b"change" and ERASURE_MARK in leaf:
                self.any_erasure = True
            if seen := add(segment, int(counter, 16)):
                found = EntryId(plain_segment(segment), int(counter, 16), int(milliseconds.replace(b"-", b""), 16))
                self._add_strange(bundle.name.path, found, first + place, seen)

    def _check_unusual(self, path: str, leaf: bytes, sequence: int) -> None:
        """A leaf that does not begin as those Mainstay writes."""
        decoded = read_leaf(leaf)
        entry_id = None if decoded is None else parse_id(decoded.id)
        if decoded is None or entry_id is None:
            self._findings.add(path, f"expected a leaf with a kind and an id, found {leaf[:60]!r}", sequence=sequence)
            return
        self.kinds[decoded.kind.encode()] += 1
        if seen := self.seen.add(segment_in_id(entry_id.segment), entry_id.counter):
            self._add_strange(path, entry_id, sequence, seen)

    def _add_strange(self, path: str, entry_id: EntryId, sequence: int, seen: Seen) -> None:
        """An id that does not follow the one before it in its segment."""
        if seen is Seen.AGAIN:
            self.seen.suspect(entry_id, f"{path}, entry {sequence}")
        elif self._gapless:
            self._findings.add(
                path,
                f"expected entry {self.seen.last(segment_in_id(entry_id.segment))} of segment {entry_id.segment} next,"
                f" found its entry {entry_id.counter}: some were removed or moved",
                sequence=sequence,
            )

    def _check_bodies(self, bundle: _Bundle, leaves: list[bytes | None], first: int) -> None:
        """Hold each body against what its leaf commits to, up to the first that is wrong.

        A changed length moves all that follow, so that nothing could be said of those.
        """
        name = TileName(BODIES, bundle.name.number)
        try:
            descriptor = open_regular(self._directory / name.path)
        except OSError as error:
            self._add_unreadable(name, error)
            return
        try:
            self._compare_bodies(name, descriptor, leaves, first)
        finally:
            os.close(descriptor)

    def _compare_bodies(self, name: TileName, descriptor: int, leaves: list[bytes | None], first: int) -> None:
        total = os.fstat(descriptor).st_size
        begin = end = empty = 0
        for leaf, (sequence, (begin, end, found)) in zip(
            leaves, enumerate(_body_digests(descriptor, total, len(leaves)), first), strict=False
        ):
            if not found:
                what = f"the end of the file at byte {total}" if end > total else f"{end - begin:,} bytes"
                self._findings.add(name.path, f"expected a body, found {what}", sequence=sequence)
                return
            if begin == end:
                empty |= 1 << sequence % WIDTH
                self._check_empty(name, sequence, leaf)
                continue
            if leaf is None or leaf.endswith(b',"body":"%b"}' % found.encode()):
                continue
            decoded = read_leaf(leaf)
            if decoded is None or decoded.body != found:
                expected = "what is in a leaf" if decoded is None else decoded.body
                self._findings.add(
                    name.path,
                    f"expected a body with the commitment {expected}, found {found}",
                    sequence=sequence,
                    offset=begin - 4,
                )
                return
        if end < total and len(leaves) == WIDTH:
            self._findings.add(name.path, f"expected {end} bytes, found {total}", offset=end)
        self.trailing += end < total and len(leaves) < WIDTH
        if self._erased is not None:
            self._erased.check_bundle(name.number, empty, len(leaves))

    def _check_empty(self, name: TileName, sequence: int, leaf: bytes | None) -> None:
        if leaf is None:
            return
        if self._erased is None:
            self._findings.add(name.path, "expected a body, found that it was erased", sequence=sequence)
        else:
            self._erased.check_empty(sequence, leaf, name.path)


def _body_digests(descriptor: int, total: int, count: int) -> Iterator[tuple[int, int, str]]:
    """Where each body of a file of `total` bytes begins and ends, and the SHA-256 of salt and body.

    Ends with an empty digest at the first that is not all there, or longer than any.
    """
    base, end = 0, 0
    view = memoryview(os.pread(descriptor, min(total, _CHUNK_BYTES), 0))
    for _ in range(count):
        begin = end + 4
        if begin > base + len(view):
            base, view = end, memoryview(os.pread(descriptor, _CHUNK_BYTES, end))
        length = int.from_bytes(view[end - base : begin - base], "big")
        end = begin + length
        if end > total or length > MAX_GROUP_BYTES:
            yield begin, end, ""
            return
        if end > base + len(view):
            base, view = begin, memoryview(os.pread(descriptor, _CHUNK_BYTES, begin))
        hasher = sha256(view[begin - base : end - base])
        for at in range(base + len(view), end, _CHUNK_BYTES):  # of one that is longer than a chunk
            hasher.update(os.pread(descriptor, min(_CHUNK_BYTES, end - at), at))
        yield begin, end, hasher.hexdigest()


def read_file(directory: Path, name: TileName) -> bytes:
    """A tile or bundle; of a partial one that was superseded while we read, the beginning of its full one.

    Raises OSError when it cannot be read, and Damaged when it is longer than any.
    """
    path = directory / name.path
    limit = MAX_BUNDLE_BYTES if name.folder == ENTRIES else WIDTH * HASH_BYTES
    if name.width == WIDTH:
        return read_regular(path, limit)
    try:
        return read_regular(path, limit)
    except FileNotFoundError:
        content = read_regular(directory / name._replace(width=WIDTH).path, limit)
    if name.folder != ENTRIES:
        return content[: name.width * HASH_BYTES]
    at = 0
    for _ in range(name.width):
        at += 2 + int.from_bytes(content[at : at + 2], "big")
    return content[:at]


def _first_difference(one: bytes, other: bytes) -> int:
    """The first byte at which two contents differ; the length of the shorter when it is the other's beginning."""
    length = min(len(one), len(other))
    if one[:length] == other[:length]:
        return length
    low, high = 0, length  # equal up to low, not up to high
    while high - low > 1:
        middle = (low + high) // 2
        if one[:middle] == other[:middle]:
            low = middle
        else:
            high = middle
    return low


def _hash_at(hashes: bytes, at: int) -> str:
    begin = at // HASH_BYTES * HASH_BYTES
    return hashes[begin : begin + HASH_BYTES].hex() or "nothing"
