"""Attacks on files as such: changed bytes, cut, grown, removed, swapped, and things that are no files of a ledger."""

from __future__ import annotations

import os
from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING

from ledger.attack_places import Place, Planted, at
from mainstay.ledger.merkle import HASH_BYTES
from mainstay.ledger.state import CHECKPOINT_FILE, STATE_FILE
from mainstay.ledger.tiles import BODIES, ENTRIES, WIDTH, TileName, split_bodies, split_leaves

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from ledger.attack_tools import Target
    from ledger.real_ledgers import RealLedger

HEADS = (CHECKPOINT_FILE, STATE_FILE)
HUGE_BYTES = 1 << 40


def flipped(content: bytes, offset: int, rng: Random) -> bytes:
    """The content with one bit of a byte changed."""
    changed = bytearray(content)
    changed[offset] ^= 1 << rng.randrange(8)
    return bytes(changed)


def overwritten(content: bytes, offset: int, rng: Random) -> bytes:
    """The content with some bytes from `offset` on made others; the first surely differs."""
    length = min(len(content) - offset, rng.randrange(1, 65))
    noise = bytes([content[offset] ^ rng.randrange(1, 256)]) + rng.randbytes(length - 1)
    return content[:offset] + noise + content[offset + length :]


def ends_of(target: Target, name: TileName, size: int | None = None) -> list[int]:
    """Where the leaf or body of each entry ends in a file of a log of `size`, by default that of the checkpoint."""
    content, count = target.get(name.path), target.count_in(name, size)
    if name.folder == ENTRIES:
        return list(accumulate(2 + len(leaf) for leaf in split_leaves(content, count)))
    return list(accumulate(4 + len(body) for body in split_bodies(content, count)[0]))


def entry_at(target: Target, name: TileName, offset: int, size: int | None = None) -> int:
    """The sequence of the entry whose leaf or body, its length included, holds a byte of a file."""
    return name.number * WIDTH + bisect_right(ends_of(target, name, size), offset)


def used_bytes(target: Target, name: TileName) -> int:
    """How many bytes of a file the checkpoint covers: of the last file of bodies it may be fewer than there are."""
    return ends_of(target, name)[-1] if name.folder == BODIES else len(target.get(name.path))


def _change_entry_file(folder: str, change: Callable[[bytes, int, Random], bytes]) -> Callable[..., Planted]:
    def attack(_: RealLedger, target: Target, rng: Random) -> Planted:
        name = rng.choice(target.needed(folder))
        offset = rng.randrange(used_bytes(target, name))
        sequence = entry_at(target, name, offset)
        target.put(name.path, change(target.get(name.path), offset, rng))
        return at(name.path, sequence)

    return attack


def flip_hash(_: RealLedger, target: Target, rng: Random) -> Planted:
    name = rng.choice(target.needed("tile/0"))
    offset = rng.randrange(name.width * HASH_BYTES)
    target.put(name.path, flipped(target.get(name.path), offset, rng))
    return at(name.path, name.number * WIDTH + offset // HASH_BYTES, offset)


def flip_upper_hash(_: RealLedger, target: Target, rng: Random) -> Planted | None:
    if not target.levels():
        return None
    name = rng.choice(target.needed(rng.choice(target.levels())))
    offset = rng.randrange(name.width * HASH_BYTES)
    target.put(name.path, flipped(target.get(name.path), offset, rng))
    return at(name.path, None, offset)


def flip_unsigned(_: RealLedger, target: Target, rng: Random) -> Planted | None:
    """What a sealer had put into the log when it was killed before it signed."""
    size = target.state().size
    if size == target.size:
        return None
    folder = rng.choice([ENTRIES, BODIES, "tile/0"])
    name = rng.choice([each for each in target.needed(folder, size) if (each.number + 1) * WIDTH > target.size])
    ends = [HASH_BYTES * (place + 1) for place in range(name.width)]
    if folder != "tile/0":
        ends = ends_of(target, name, size)
    signed = max(0, target.size - name.number * WIDTH)
    offset = rng.randrange(ends[signed - 1] if signed else 0, ends[-1])
    target.put(name.path, flipped(target.get(name.path), offset, rng))
    return at(name.path, name.number * WIDTH + bisect_right(ends, offset))


def flip_earlier_partial(_: RealLedger, target: Target, rng: Random) -> Planted | None:
    names = target.earlier_partials()
    if not names:
        return None
    name = rng.choice(names)
    content = target.get(name.path)
    target.put(name.path, flipped(content, rng.randrange(len(content)), rng))
    return at(name.path)


def _change_head(change: Callable[[bytes, int, Random], bytes]) -> Callable[..., Planted]:
    def attack(_: RealLedger, target: Target, rng: Random) -> Planted:
        name = rng.choice(HEADS)
        content = target.get(name)
        target.put(name, change(content, rng.randrange(len(content)), rng))
        return at(name)

    return attack


def _any_needed(target: Target, rng: Random) -> TileName:
    folder = rng.choice([ENTRIES, BODIES, "tile/0", *target.levels()])
    return rng.choice(target.needed(folder))


def cut_file(_: RealLedger, target: Target, rng: Random) -> Planted:
    name = _any_needed(target, rng)
    length = rng.randrange(used_bytes(target, name))
    sequence = entry_at(target, name, length) if name.folder in {ENTRIES, BODIES} else None
    target.put(name.path, target.get(name.path)[:length])
    return at(name.path, sequence)


def cut_head(_: RealLedger, target: Target, rng: Random) -> Planted:
    name = rng.choice(HEADS)
    content = target.get(name)
    target.put(name, content[: rng.randrange(len(content))])
    return at(name)


def grow_file(_: RealLedger, target: Target, rng: Random) -> Planted:
    names = [ENTRIES, "tile/0", *target.levels(), *HEADS]
    chosen = rng.choice(names)
    path = chosen if chosen in HEADS else rng.choice(target.needed(chosen)).path
    target.put(path, target.get(path) + rng.randbytes(rng.randrange(1, 400)))
    return at(path)


def grow_full_bodies(_: RealLedger, target: Target, rng: Random) -> Planted | None:
    full = [name for name in target.needed(BODIES) if target.count_in(name) == WIDTH]
    if not full:
        return None
    name = rng.choice(full)
    content = target.get(name.path)
    target.put(name.path, content + rng.randbytes(rng.randrange(1, 400)))
    return at(name.path, None, len(content))


def remove_file(_: RealLedger, target: Target, rng: Random) -> Planted:
    name = _any_needed(target, rng)
    target.remove(name.path)
    return at(name.path, name.number * WIDTH if name.folder in {ENTRIES, BODIES} else None)


def remove_head(_: RealLedger, target: Target, rng: Random) -> Planted:
    name = rng.choice(HEADS)
    target.remove(name)
    return at(name)


def _two_full(target: Target, rng: Random) -> tuple[TileName, TileName] | None:
    by_folder = [
        [name for name in target.needed(folder) if _is_full(target, name)]
        for folder in (ENTRIES, BODIES, "tile/0", *target.levels())
    ]
    several = [names for names in by_folder if len(names) > 1]
    if not several:
        return None
    first, second = sorted(rng.sample(rng.choice(several), 2))
    return first, second


def _is_full(target: Target, name: TileName) -> bool:
    return name.width == WIDTH and (name.folder != BODIES or target.count_in(name) == WIDTH)


def _first_of(name: TileName) -> Planted:
    return at(name.path, name.number * WIDTH if name.folder in {ENTRIES, BODIES, "tile/0"} else None)


def swap_files(_: RealLedger, target: Target, rng: Random) -> Planted | None:
    names = _two_full(target, rng)
    if names is None:
        return None
    first, second = (target.get(name.path) for name in names)
    target.put(names[0].path, second)
    target.put(names[1].path, first)
    return _first_of(names[0])


def double_file(_: RealLedger, target: Target, rng: Random) -> Planted | None:
    names = _two_full(target, rng)
    if names is None:
        return None
    source, overwritten_name = rng.sample(names, 2)
    target.put(overwritten_name.path, target.get(source.path))
    return _first_of(overwritten_name)


def plant_file(_: RealLedger, target: Target, rng: Random) -> Planted:
    names = (
        "note.txt",
        "tile/readme",
        "tile/0/1",
        "tile/9/000",
        "bodies/0000",
        "wal/readme",
        "wal/x.wal",
        ".hidden.tmp",
    )
    path = rng.choice(names)
    target.put(path, rng.randbytes(rng.randrange(100)))
    return at("tile/9") if path == "tile/9/000" else at(path)


def plant_deep_folders(_: RealLedger, target: Target, rng: Random) -> Planted:
    top = rng.choice(["tile/entries", "tile/0", "bodies", "wal"])
    here = os.open(target.root / top, os.O_RDONLY | os.O_DIRECTORY)
    for _depth in range(600):  # deeper than any path may be long
        os.mkdir("deeper" * 4, dir_fd=here)
        below = os.open("deeper" * 4, os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    return at(f"{top}/{'deeper' * 4}")


def link_file(_: RealLedger, target: Target, rng: Random) -> Planted:
    """A symbolic link to the very content that belongs there."""
    name = _any_needed(target, rng)
    outside = target.root.with_name("outside")
    outside.write_bytes(target.get(name.path))
    target.remove(name.path)
    (target.root / name.path).symlink_to(outside)
    return at(name.path, name.number * WIDTH if name.folder in {ENTRIES, BODIES} else None)


def special_file(_: RealLedger, target: Target, rng: Random) -> Planted:
    """A pipe that would be waited for, or a folder, where a file belongs."""
    name = _any_needed(target, rng)
    path = rng.choice([name.path, *HEADS])
    target.remove(path)
    (os.mkfifo if rng.random() < 0.5 else os.mkdir)(target.root / path)
    return at(path, name.number * WIDTH if path == name.path and name.folder in {ENTRIES, BODIES} else None)


def huge_file(_: RealLedger, target: Target, rng: Random) -> Planted:
    """A file of a terabyte that takes no room."""
    name = rng.choice([*target.needed(ENTRIES), *target.needed("tile/0")])
    path = rng.choice([name.path, *HEADS])
    target.put(path, target.get(path))
    os.truncate(target.root / path, HUGE_BYTES)
    return at(path, name.number * WIDTH if path == name.path and name.folder == ENTRIES else None)


def remove_tree(_: RealLedger, target: Target, rng: Random) -> Planted:
    folder = rng.choice(["tile", BODIES])
    names = [name for name in target.names(folder) if name in target.needed(name.folder)]
    for path in (target.root / folder).rglob("*"):
        if path.is_file():
            path.unlink()
    firsts = {name.number * WIDTH for name in names}
    return Planted(tuple(Place(name.path, (None, *firsts)) for name in names))


FILE_ATTACKS: dict[str, Callable[[RealLedger, Target, Random], Planted | None]] = {
    "flip a bit of an entry": _change_entry_file(ENTRIES, flipped),
    "flip a bit of a body": _change_entry_file(BODIES, flipped),
    "flip a bit of a hash": flip_hash,
    "flip a bit of an upper hash": flip_upper_hash,
    "flip a bit of an earlier partial tile": flip_earlier_partial,
    "flip a bit of what is not signed yet": flip_unsigned,
    "flip a bit of checkpoint or state": _change_head(flipped),
    "overwrite bytes of entries": _change_entry_file(ENTRIES, overwritten),
    "overwrite bytes of bodies": _change_entry_file(BODIES, overwritten),
    "overwrite bytes of checkpoint or state": _change_head(overwritten),
    "cut a file": cut_file,
    "cut checkpoint or state": cut_head,
    "grow a file": grow_file,
    "grow a full file of bodies": grow_full_bodies,
    "remove a file": remove_file,
    "remove checkpoint or state": remove_head,
    "remove all tiles or bodies": remove_tree,
    "swap two files": swap_files,
    "copy a file over another": double_file,
    "plant a file": plant_file,
    "plant folders without end": plant_deep_folders,
    "put a link in a file's place": link_file,
    "put a pipe or folder in a file's place": special_file,
    "make a file huge": huge_file,
}
