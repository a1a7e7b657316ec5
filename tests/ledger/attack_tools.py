"""What an attacker needs to change a ledger and to make the rest of it fit again, with and without the key."""

from __future__ import annotations

import shutil
import struct
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger.samples import ORIGIN
from mainstay.ledger.entry import Entry, commitment, format_id
from mainstay.ledger.log import Log
from mainstay.ledger.state import CHECKPOINT_FILE, STATE_FILE, State, decode_state, encode_state
from mainstay.ledger.tiles import BODIES, ENTRIES, WIDTH, TileName, pack_body, pack_leaf, parse_name, split_leaves
from mainstay.ledger.wal import GROUP_MAGIC, HEADER_BYTES, SegmentReader, frame_entry, segments
from mainstay.ledger.writer import LogWriter
from mainstay.signing import SigningKey

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from random import Random

FALSE_KEY = SigningKey(ORIGIN, Ed25519PrivateKey.from_private_bytes(sha256(b"a key of the attacker's own").digest()))

_GROUP = struct.Struct(">4sQII")


class Target:
    """A copy of a ledger to be attacked. Files are replaced, never written into: their originals may be shared."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.size = Log(root).size

    def get(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def put(self, name: str, content: bytes) -> None:
        """Put a new file in the place of another."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(path.name + ".attack")
        fresh.write_bytes(content)
        fresh.replace(path)

    def remove(self, name: str) -> None:
        (self.root / name).unlink()

    def state(self) -> State:
        return decode_state(self.get(STATE_FILE))

    def put_state(self, state: State) -> None:
        self.put(STATE_FILE, encode_state(state))

    def names(self, folder: str) -> list[TileName]:
        """The files of the log under a folder, with those of earlier checkpoints."""
        paths = (path.relative_to(self.root).as_posix() for path in sorted((self.root / folder).rglob("*")))
        return [name for name in map(parse_name, paths) if name is not None and (self.root / name.path).is_file()]

    def needed(self, folder: str, size: int | None = None) -> list[TileName]:
        """The files under a folder that a log of `size` needs: full ones before the edge, and the one at the edge.

        By default it is the log of the checkpoint.
        """
        size, found = self.size if size is None else size, []
        for name in self.names(folder):
            level = int(folder.rpartition("/")[2]) if folder not in {ENTRIES, BODIES} else 0
            edge, width = size >> 8 * (level + 1), (size >> 8 * level) % WIDTH
            if folder == BODIES:
                is_needed = name.number < edge + bool(width)
            else:
                is_needed = name.number < edge if name.width == WIDTH else (name.number, name.width) == (edge, width)
            if is_needed:
                found.append(name)
        return found

    def earlier_partials(self) -> list[TileName]:
        """Partial tiles of earlier checkpoints whose full tile is not there yet."""
        found = []
        for folder in (ENTRIES, *(f"tile/{level}" for level in range(3))):
            present = {name for name in self.needed(folder) if name.width < WIDTH}
            edges = {name.number: name.width for name in present}
            found += [name for name in self.names(folder) if name.width < edges.get(name.number, 0)]
        return found

    def levels(self) -> list[str]:
        """The folders of hash tiles above the first level."""
        return [folder for folder in (f"tile/{level}" for level in range(1, 4)) if self.needed(folder)]

    def count_in(self, name: TileName, size: int | None = None) -> int:
        """How many entries of a log of `size` a bundle or a file of bodies holds."""
        return min(WIDTH, (self.size if size is None else size) - name.number * WIDTH)

    def leaves(self, name: TileName) -> list[bytes]:
        return split_leaves(self.get(name.path), self.count_in(name))

    def put_leaves(self, name: TileName, leaves: Sequence[bytes]) -> None:
        self.put(name.path, b"".join(map(pack_leaf, leaves)))

    def entries(self) -> list[Entry]:
        """All that the checkpoint covers."""
        return list(Log(self.root).entries(0, self.size))

    def segments(self) -> list[Path]:
        return segments(self.root / "wal")


def copy_log(source: Path, target: Target) -> None:
    """Put the log and the state of another ledger in the place of the target's; its checkpoint stays."""
    for folder in ("tile", "bodies"):
        shutil.rmtree(target.root / folder)
        if (source / folder).exists():
            shutil.copytree(source / folder, target.root / folder)
    target.put(STATE_FILE, (source / STATE_FILE).read_bytes())


def rewrite(target: Target, entries: list[Entry], *, key: SigningKey | None = None) -> None:
    """Make the whole log anew of other entries, with every hash and the sealer's state; signed where there is a key."""
    made = target.root.with_name(target.root.name + "-made")
    made.mkdir()
    writer = LogWriter(made, key or FALSE_KEY, ORIGIN)
    segments_known = dict(target.state().segments)
    if 0 < target.size < len(entries):
        writer.append(entries[: target.size], segments_known)  # so that the tiles of the checkpoint's size are there
        writer.append(entries[target.size :], segments_known)
    else:
        writer.append(entries, segments_known)
    copy_log(made, target)
    if key is not None:
        target.put(CHECKPOINT_FILE, (made / CHECKPOINT_FILE).read_bytes())
    shutil.rmtree(made)


def change_leaf(leaf: bytes) -> bytes:
    """The leaf of a decision or of anything else with one fact changed."""
    decoded = msgspec.json.decode(leaf)
    decoded["at"] = "2020-02-02T02:02:02.000000Z"
    return msgspec.json.encode(decoded)


def with_body(entry: Entry, body: bytes) -> Entry:
    """The entry with another body, which its leaf commits to."""
    decoded = msgspec.json.decode(entry.leaf)
    decoded["body"] = commitment(entry.salt, body)
    return Entry(msgspec.json.encode(decoded), entry.salt, body)


def make_up(like: Entry, rng: Random) -> Entry:
    """An entry that nobody recorded, with an id of its own and all that an entry has."""
    segment = f"{rng.randrange(1 << 40):010x}"
    decoded = msgspec.json.decode(like.leaf)
    decoded["id"] = format_id(segment, 0, 1_767_225_600_000 + rng.randrange(1 << 30))
    return Entry(msgspec.json.encode(decoded), like.salt, like.body)


def packed_bodies(entries: Sequence[Entry]) -> bytes:
    return b"".join(pack_body(entry.salt, entry.body) for entry in entries)


class RawGroup(NamedTuple):
    """A group of a segment: where it begins, and its entries; those of the mark of the end are none."""

    begin: int
    entries: list[Entry]


def groups_of(path: Path) -> tuple[list[RawGroup], bool]:
    """The groups of a segment that hold entries, and whether the mark of the end follows."""
    begin, found = HEADER_BYTES, []
    reader = SegmentReader(path)
    for group in reader.groups():
        found.append(RawGroup(begin, group.entries))
        begin = group.end
    return found, reader.end.value == "closed"


def join_groups(path: Path, groups: Sequence[Sequence[Entry]], *, closed: bool) -> bytes:
    """A segment made anew of groups, with their offsets and checksums."""
    content = path.read_bytes()[:HEADER_BYTES]
    for entries in (*groups, *([()] if closed else [])):
        payload = b"".join(frame_entry(*entry) for entry in entries)
        prefix = _GROUP.pack(GROUP_MAGIC, len(content), len(entries), len(payload))
        content += prefix + struct.pack(">I", crc32(payload, crc32(prefix))) + payload
    return content
