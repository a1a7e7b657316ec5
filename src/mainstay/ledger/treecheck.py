"""Recomputing the Merkle tree from the entries, tile by tile, and finding which file is wrong where they disagree.

The signed head vouches for the hashes at the right edge, each of those for the full tile below it, and so on down to
the entries. Walking down that way, one tile of each level in memory, every file is held against a hash that is already
trusted, so that of an entry and its stored hash the wrong one can be named. Where the trust is broken by a bad tile,
what is below it is taken as it is and the bad tile is found by recomputing it from there.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from mainstay.ledger.entry import LEAF_HEAD, EntryId, parse_id, plain_segment, read_leaf
from mainstay.ledger.merkle import HASH_BYTES, subtree_root, tree_root
from mainstay.ledger.tiles import BODIES, ENTRIES, WIDTH, WIDTH_BITS, TileName, hashes_of, node_in_tiles, widths

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mainstay.ledger.findings import Findings

MAX_SUSPECTS = 20


class SeenIds:
    """Which ids occurred, as intervals of counters per segment: memory grows with segments, not with entries."""

    def __init__(self) -> None:
        self._segments: dict[
            bytes, list[list[int]]
        ] = {}  # by the bytes in an id: disjoint [first, behind last], sorted
        self.suspects: dict[EntryId, str] = {}  # ids that may have occurred before, and where they did again

    def add(self, segment: bytes, counter: int) -> bool:
        """Take note of a counter of a segment; whether it was there before."""
        intervals = self._segments.get(segment)
        if intervals is None:
            self._segments[segment] = [[counter, counter + 1]]
            return False
        if intervals[-1][1] == counter:
            intervals[-1][1] += 1
            return False
        return _insert(intervals, counter)

    def suspect(self, entry_id: EntryId, place: str) -> None:
        """Two segments may draw the same 40 bits by chance, so whether the whole id repeats is asked later."""
        if len(self.suspects) < MAX_SUSPECTS:
            self.suspects[entry_id] = place


def _insert(intervals: list[list[int]], counter: int) -> bool:
    at = bisect_right(intervals, [counter, 1 << 64])
    if at and intervals[at - 1][1] > counter:
        return True
    joins_left = at > 0 and intervals[at - 1][1] == counter
    joins_right = at < len(intervals) and intervals[at][0] == counter + 1
    if joins_left and joins_right:
        intervals[at - 1][1] = intervals.pop(at)[1]
    elif joins_left:
        intervals[at - 1][1] += 1
    elif joins_right:
        intervals[at][0] = counter
    else:
        intervals.insert(at, [counter, counter + 1])
    return False


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
    ) -> None:
        self._directory = directory
        self._size = size
        self._root = root
        self._findings = findings
        self._progress = progress
        self.kinds: Counter[bytes] = Counter()
        self.seen = SeenIds()
        self.edges: dict[str, bytes] = {}  # content of the partial file, by folder

    def run(self) -> None:
        """Check everything the head covers. Raises Enough when there are too many findings."""
        stored = [
            self._read_hashes(TileName(hashes_of(level), self._size >> WIDTH_BITS * (level + 1), width))
            if width
            else b""
            for level, width in enumerate(widths(self._size))
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
        return tree_root(self._size, node_in_tiles(lambda level, _: edges[level]))

    def _check_edge(self, level: int, stored: bytes | None, *, trusted: bool) -> bytes:
        """Check what is below the partial tile of a level; its hashes recomputed."""
        index = self._size >> WIDTH_BITS * (level + 1)
        width = (self._size >> WIDTH_BITS * level) % WIDTH
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
            len(hashes) == width * HASH_BYTES for hashes, width in zip(recomputed, widths(self._size), strict=True)
        )
        head = self._head(recomputed) if whole else None
        for level, (found, expected) in enumerate(zip(stored, recomputed, strict=True)):
            if found is None or found == expected:
                continue
            index = self._size >> WIDTH_BITS * (level + 1)
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
                f"expected the head {head.hex()} that the {self._size} entries make, found {self._root.hex()}",
            )

    def _check_full(self, level: int, index: int, vouched: bytes | None) -> bytes:
        """Check a full tile and all below it; the root of it as it should be, as far as that is known."""
        name = TileName(hashes_of(level), index)
        stored = self._read_hashes(name)
        found = None if stored is None else subtree_root(stored)
        right = found is not None and found == vouched
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

    def _compare(
        self, bundle: _Bundle, tile: TileName, stored: bytes, *, stored_right: bool, leaves_right: bool
    ) -> None:
        """Name the first place where entries and their stored hashes disagree, and which of the two is wrong."""
        first = tile.number * WIDTH
        if bundle.hashes == stored:
            if not stored_right and not leaves_right:
                self._findings.add(
                    tile.path,
                    "expected hashes that make the one in the tile above, found others; the entries were changed alike",
                    sequence=first,
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
        except OSError as error:
            self._findings.add(
                name.path,
                f"expected a file, found none: {error.strerror}",
                sequence=name.number * WIDTH if name.folder in {ENTRIES, BODIES} else None,
            )
            return None

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
        self._check_ids(bundle, leaves, first)
        self._check_bodies(bundle, leaves, first)
        if self._progress is not None and (bundle.name.number % 16 == 0 or first + WIDTH >= self._size):
            self._progress(min(first + WIDTH, self._size), self._size)

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
            if add(segment, int(counter, 16)):
                again = EntryId(plain_segment(segment), int(counter, 16), int(milliseconds.replace(b"-", b""), 16))
                self.seen.suspect(again, f"{bundle.name.path}, entry {first + place}")

    def _check_unusual(self, path: str, leaf: bytes, sequence: int) -> None:
        """A leaf that does not begin as those Mainstay writes."""
        decoded = read_leaf(leaf)
        entry_id = None if decoded is None else parse_id(decoded.id)
        if decoded is None or entry_id is None:
            self._findings.add(path, f"expected a leaf with a kind and an id, found {leaf[:60]!r}", sequence=sequence)
            return
        self.kinds[decoded.kind.encode()] += 1
        segment = entry_id.segment
        if self.seen.add(f"7{segment[:3]}-8{segment[3:6]}-{segment[6:]}".encode(), entry_id.counter):
            self.seen.suspect(entry_id, f"{path}, entry {sequence}")

    def _check_bodies(self, bundle: _Bundle, leaves: list[bytes | None], first: int) -> None:
        """Hold each body against what its leaf commits to, up to the first that is wrong.

        A changed length moves all that follow, so that nothing could be said of those.
        """
        name = TileName(BODIES, bundle.name.number)
        content = self._read(name)
        if content is None:
            return
        view = memoryview(content)
        sha = sha256
        at, total = 0, len(content)
        for place, leaf in enumerate(leaves):
            begin = at + 4
            at = begin + int.from_bytes(view[at:begin], "big")
            if at > total:
                self._findings.add(
                    name.path, f"expected a body, found the end of the file at byte {total}", sequence=first + place
                )
                return
            found = sha(view[begin:at]).hexdigest()
            if leaf is None or leaf.endswith(b',"body":"%b"}' % found.encode()):
                continue
            decoded = read_leaf(leaf)
            if decoded is None or decoded.body != found:
                expected = "what is in a leaf" if decoded is None else decoded.body
                self._findings.add(
                    name.path,
                    f"expected a body with the commitment {expected}, found {found}",
                    sequence=first + place,
                    offset=begin - 4,
                )
                return
        if at < total and len(leaves) == WIDTH:
            self._findings.add(name.path, f"expected {at} bytes, found {total}", offset=at)


def read_file(directory: Path, name: TileName) -> bytes:
    """A file of the log; of a partial one that was superseded while we read, the beginning of its full one.

    Raises OSError when it cannot be read.
    """
    path = directory / name.path
    if name.folder == BODIES or name.width == WIDTH:
        return path.read_bytes()
    try:
        return path.read_bytes()
    except FileNotFoundError:
        content = (directory / name._replace(width=WIDTH).path).read_bytes()
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
