"""Attacks on records and heads: entries changed, removed, doubled, moved, made up; heads and whole logs exchanged.

*Plainly* only the bundle is changed; *with its hashes* the tile of level 0 too; *with all hashes* the whole log is made
anew, with the sealer's state, by one who has not the key. The stolen key signs what is made.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import msgspec

from ledger.attack_places import KEPT, Place, Planted, at
from ledger.attack_tools import change_leaf, copy_log, make_up, packed_bodies, rewrite, with_body
from ledger.samples import KEY
from mainstay.ledger.archives import ARCHIVES_FILE, Gone, save_archives
from mainstay.ledger.entry import Entry, leaf_hash, read_id
from mainstay.ledger.note import parse_checkpoint, split_note
from mainstay.ledger.state import CHECKPOINT_FILE, STATE_FILE
from mainstay.ledger.tiles import BODIES, ENTRIES, WIDTH, TileName, split_bodies

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from ledger.attack_tools import Target
    from ledger.real_ledgers import RealLedger

    Edit = Callable[[list[bytes], int, Random], int | None]


def _change(leaves: list[bytes], place: int, _: Random) -> int:
    leaves[place] = change_leaf(leaves[place])
    return place


def _remove(leaves: list[bytes], place: int, _: Random) -> int:
    del leaves[place]
    return place


def _double(leaves: list[bytes], place: int, _: Random) -> int | None:
    if place == len(leaves) - 1:
        return None
    leaves.insert(place, leaves[place])
    return place + 1


def _insert(leaves: list[bytes], place: int, rng: Random) -> int:
    leaves.insert(place, make_up(Entry(leaves[place], b"", b""), rng).leaf)
    return place


def _move(leaves: list[bytes], place: int, rng: Random) -> int | None:
    others = [each for each in range(len(leaves)) if each != place]
    if not others:
        return None
    other = rng.choice(others)
    leaves[place], leaves[other] = leaves[other], leaves[place]
    return min(place, other)


def _plainly(edit: Edit) -> Callable[..., Planted | None]:
    def attack(_: RealLedger, target: Target, rng: Random) -> Planted | None:
        name = rng.choice(target.needed(ENTRIES))
        leaves = target.leaves(name)
        place = edit(leaves, rng.randrange(len(leaves)), rng)
        if place is None:
            return None
        target.put_leaves(name, leaves)
        return at(name.path, name.number * WIDTH + place)

    return attack


def _with_its_hashes(edit: Edit) -> Callable[..., Planted | None]:
    """In a full bundle, whose hashes can be made to fit; the number of entries stays, so that none is too many."""

    def attack(_: RealLedger, target: Target, rng: Random) -> Planted | None:
        full = [name for name in target.needed(ENTRIES) if name.width == WIDTH]
        if not full:
            return None
        name = rng.choice(full)
        leaves = target.leaves(name)
        if edit(leaves, rng.randrange(len(leaves) - 1), rng) is None:
            return None
        leaves = [*leaves, leaves[-1]][:WIDTH]
        target.put_leaves(name, leaves)
        tile = TileName("tile/0", name.number)
        target.put(tile.path, b"".join(map(leaf_hash, leaves)))
        return at(tile.path)

    return attack


def _with_all_hashes(edit: Edit) -> Callable[..., Planted | None]:
    """Nothing but the signature is against it; where the order of ids is broken, the entry can be named."""

    def attack(_: RealLedger, target: Target, rng: Random) -> Planted | None:
        entries = target.entries()
        by_leaf = {entry.leaf: entry for entry in entries}
        leaves = [entry.leaf for entry in entries]
        before, chosen = list(leaves), rng.randrange(len(leaves))
        if edit(leaves, chosen, rng) is None:
            return None
        like = entries[chosen]
        rewrite(target, [by_leaf.get(leaf, Entry(leaf, like.salt, like.body)) for leaf in leaves])
        first = next((at for at, (one, two) in enumerate(zip(before, leaves, strict=False)) if one != two), len(before))
        right = [Place(CHECKPOINT_FILE)]
        if len(leaves) < len(before):  # the edge of the tree that the checkpoint is over is not there
            right += [Place(name.path) for name in _edges(target)]
        right += _entries_between(target, first, min(len(leaves), len(before)), near=_moved(before, leaves))
        return Planted(tuple(right))

    return attack


def _moved(before: list[bytes], after: list[bytes]) -> int:
    """How many places from the first changed one on may be the one where the order of ids shows it."""
    changed = [at for at, (one, two) in enumerate(zip(before, after, strict=False)) if one != two]
    return 0 if not changed or len(before) != len(after) else changed[-1] - changed[0]


def _entries_between(target: Target, first: int, size: int, *, near: int) -> list[Place]:
    """Entries that the order of ids may name: the first changed one, or up to `near` behind it."""
    found = []
    for index in range(first // WIDTH, -(-size // WIDTH)):
        last = min(size, (index + 1) * WIDTH)
        places = range(max(first, index * WIDTH), min(last, first + near + 1))
        if places:
            found += [Place(TileName(ENTRIES, index, width).path, places) for width in {WIDTH, last - index * WIDTH}]
    return found


def change_body(_: RealLedger, target: Target, rng: Random) -> Planted:
    """A body changed with its commitment and all hashes."""
    entries = target.entries()
    place = rng.randrange(len(entries))
    entries[place] = with_body(entries[place], entries[place].body + b" ")
    rewrite(target, entries)
    return at(CHECKPOINT_FILE)


def swap_bodies(_: RealLedger, target: Target, rng: Random) -> Planted | None:
    """Two bodies in each other's place; the leaves stay."""
    entries = target.entries()
    pairs = [rng.sample(range(len(entries)), 2) for _ in range(20)] if len(entries) > 1 else []
    pair = next((sorted(each) for each in pairs if entries[each[0]].body != entries[each[1]].body), None)
    if pair is None:
        return None
    first, second = pair
    one, two = entries[first], entries[second]
    entries[first], entries[second] = Entry(one.leaf, two.salt, two.body), Entry(two.leaf, one.salt, one.body)
    for index in {first // WIDTH, second // WIDTH}:
        name = TileName(BODIES, index)
        content = target.get(name.path)
        rest = content[split_bodies(content, target.count_in(name))[1] :]
        target.put(name.path, packed_bodies(entries[index * WIDTH : (index + 1) * WIDTH]) + rest)
    return at(TileName(BODIES, first // WIDTH).path, first)


def empty_body(_: RealLedger, target: Target, rng: Random) -> Planted:
    """A body emptied as an erasure leaves it, and no entry of the log says so."""
    entries = target.entries()
    place = rng.randrange(len(entries))
    entries[place] = Entry(entries[place].leaf, b"", b"")
    name = TileName(BODIES, place // WIDTH)
    content = target.get(name.path)
    rest = content[split_bodies(content, target.count_in(name))[1] :]
    target.put(name.path, packed_bodies(entries[name.number * WIDTH : (name.number + 1) * WIDTH]) + rest)
    return at(name.path, place)


def pretend_archived(_: RealLedger, target: Target, rng: Random) -> Planted | None:
    """The first entries gone, and a file that says they were archived, as no entry of the log does."""
    full = target.size // WIDTH
    if not full:
        return None
    bundles = rng.randrange(1, full + 1)
    named = rng.randrange(target.size)
    gone = Gone(sequence=named, at="2026-01-01T00:00:00.000000Z", first=0, size=bundles * WIDTH, place="/elsewhere")
    save_archives(target.root, [gone])
    for number in range(bundles):
        target.remove(TileName(ENTRIES, number).path)
        target.remove(TileName(BODIES, number).path)
    return at(ARCHIVES_FILE)


# Heads and whole logs.


def older_checkpoint(ledger: RealLedger, target: Target, rng: Random) -> Planted:
    target.put(CHECKPOINT_FILE, rng.choice([ledger.kept, (ledger.earlier / CHECKPOINT_FILE).read_bytes()]))
    return at(CHECKPOINT_FILE)


def older_state(ledger: RealLedger, target: Target, _: Random) -> Planted:
    target.put(STATE_FILE, (ledger.earlier / STATE_FILE).read_bytes())
    return at(STATE_FILE)


def other_state(_: RealLedger, target: Target, rng: Random) -> Planted | None:
    """The state made anew with its digest, and something wrong in it."""
    state = target.state()
    if rng.random() < 0.5 and state.size == target.size:
        target.put_state(msgspec.structs.replace(state, root=rng.randbytes(32).hex()))
    else:
        target.put_state(msgspec.structs.replace(state, size=target.size - 1, swept=min(state.swept, target.size - 1)))
    return at(STATE_FILE)


def strange_state(_: RealLedger, target: Target, rng: Random) -> Planted:
    """A state that no sealer writes, made with its digest."""
    state = target.state()
    changes: tuple[dict[str, object], ...] = (
        {"size": -1},
        {"root": "../" * 5},
        {"swept": state.size + 1},
        {"segments": {"../../x": {}}},
    )
    made = msgspec.to_builtins(state) | rng.choice(changes)
    target.put_state(made)
    return at(STATE_FILE)


def rolled_back(ledger: RealLedger, target: Target, _: Random) -> Planted:
    """All of it as it was earlier: whole in itself."""
    shutil.rmtree(target.root)
    shutil.copytree(ledger.earlier, target.root)
    return Planted((Place(KEPT),), ledger.kept)


def emptied(ledger: RealLedger, target: Target, _: Random) -> Planted:
    shutil.rmtree(target.root)
    target.root.mkdir()
    return Planted((Place(KEPT),), ledger.kept)


def forked(ledger: RealLedger, target: Target, _: Random) -> Planted:
    """A log that began alike and went on differently, signed with the stolen key."""
    shutil.rmtree(target.root)
    shutil.copytree(ledger.other, target.root)
    return Planted((Place(KEPT),), ledger.kept)


def _size_of(note: bytes) -> int:
    return parse_checkpoint(split_note(note)[0]).size


def rewritten(ledger: RealLedger, target: Target, rng: Random) -> Planted:
    """One entry changed long ago, every hash made anew, and signed with the stolen key."""
    entries = target.entries()
    place = rng.randrange(_size_of(ledger.kept))
    if rng.random() < 0.5:
        entries[place] = with_body(entries[place], b'{"principal":"nobody"}')
    else:
        entries[place] = Entry(change_leaf(entries[place].leaf), entries[place].salt, entries[place].body)
    rewrite(target, entries, key=KEY)
    return Planted((Place(KEPT),), ledger.kept)


def other_log(ledger: RealLedger, target: Target, _: Random) -> Planted:
    """The tiles, bodies and state of a fork under the true checkpoint.

    Where a full tile of the fork holds what the checkpoint's partial one held, it is read in its place, and nothing but
    the signature is against it.
    """
    copy_log(ledger.other, target)
    absent = [each for each in _edges(target) if not (target.root / each._replace(width=WIDTH).path).exists()]
    return Planted(tuple(Place(name.path) for name in absent) or (Place(CHECKPOINT_FILE),))


def _edges(target: Target) -> list[TileName]:
    sizes = enumerate(target.size >> 8 * level for level in range(4))
    return [TileName(f"tile/{level}", size // WIDTH, size % WIDTH) for level, size in sizes if size % WIDTH]


def removed_by_the_owner(_: RealLedger, target: Target, rng: Random) -> Planted | None:
    """An entry removed, every hash made anew and signed with the stolen key; no checkpoint was kept.

    The next entry of its segment shows it, where there is one in the log.
    """
    entries = target.entries()
    place = rng.randrange(len(entries))
    gone = read_id(entries[place].leaf)
    assert gone is not None
    following = next(
        (
            sequence
            for sequence, entry in enumerate(entries[place + 1 :], place)
            if (found := read_id(entry.leaf)) is not None and found.segment == gone.segment
        ),
        None,
    )
    if following is None:
        return None
    del entries[place]
    rewrite(target, entries, key=KEY)
    width = min(WIDTH, len(entries) - following // WIDTH * WIDTH)
    return at(TileName(ENTRIES, following // WIDTH, width).path, following)


EDITS: dict[str, Edit] = {
    "change an entry": _change,
    "remove an entry": _remove,
    "double an entry": _double,
    "insert an entry": _insert,
    "move an entry": _move,
}
RECORD_ATTACKS: dict[str, Callable[[RealLedger, Target, Random], Planted | None]] = {
    **{f"{name}, plainly": _plainly(edit) for name, edit in EDITS.items()},
    **{f"{name}, with its hashes": _with_its_hashes(edit) for name, edit in EDITS.items()},
    **{f"{name}, with all hashes": _with_all_hashes(edit) for name, edit in EDITS.items()},
    "change a body, with all hashes": change_body,
    "swap two bodies": swap_bodies,
    "empty a body, as if erased": empty_body,
    "remove entries, as if archived": pretend_archived,
    "put an older checkpoint": older_checkpoint,
    "put an older state": older_state,
    "put another state": other_state,
    "put a state that none writes": strange_state,
    "put another log under the checkpoint": other_log,
    "roll everything back": rolled_back,
    "empty the ledger": emptied,
    "fork the log (stolen key)": forked,
    "rewrite the log (stolen key)": rewritten,
    "remove an entry (stolen key, nothing kept)": removed_by_the_owner,
}
