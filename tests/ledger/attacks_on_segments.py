"""Attacks on write-ahead segments: what is durable and not sealed yet, or sealed in part."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from ledger.attack_places import Place, Planted, at
from ledger.attack_tools import groups_of, join_groups, make_up
from ledger.attacks_on_files import flipped
from mainstay.ledger.entry import Entry, read_id
from mainstay.ledger.state import CHECKPOINT_FILE, Progress
from mainstay.ledger.wal import GROUP_HEADER_BYTES, HEADER_BYTES, MAGIC, End, SegmentReader

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from random import Random

    from ledger.attack_tools import RawGroup, Target
    from ledger.real_ledgers import RealLedger


class Chosen(NamedTuple):
    """A segment with its groups that hold entries."""

    path: Path
    name: str  # relative to the ledger
    groups: list[RawGroup]
    end: End
    whole: int  # bytes up to the end of its last whole group, the mark of the end included
    progress: Progress


def _choose(target: Target, rng: Random, *, least_groups: int = 1) -> Chosen | None:
    found = [_read(target, path) for path in target.segments()]
    found = [each for each in found if len(each.groups) >= least_groups]
    return rng.choice(found) if found else None


def _read(target: Target, path: Path) -> Chosen:
    reader = SegmentReader(path)
    for _ in reader.groups():
        pass
    groups, _ = groups_of(path)
    progress = target.state().segments.get(path.stem, Progress(0, 0))
    return Chosen(path, f"wal/{path.name}", groups, reader.end, reader.offset, progress)


def _put(target: Target, chosen: Chosen, groups: list[list[Entry]]) -> None:
    target.put(chosen.name, join_groups(chosen.path, groups, closed=chosen.end is End.CLOSED))


def flip(_: RealLedger, target: Target, rng: Random) -> Planted | None:
    """A bit anywhere in what is whole; the last group too."""
    chosen = _choose(target, rng, least_groups=0)
    if chosen is None:
        return None
    offset = rng.randrange(chosen.whole)
    target.put(chosen.name, flipped(target.get(chosen.name), offset, rng))
    begins = [0, *(group.begin for group in chosen.groups)]
    if chosen.end is End.CLOSED:
        begins.append(chosen.whole - GROUP_HEADER_BYTES)
    return at(chosen.name, None, max(begin for begin in begins if begin <= offset))


def cut_sealed(_: RealLedger, target: Target, rng: Random) -> Planted | None:
    """Cut below what the state says is sealed, or in the header."""
    chosen = _choose(target, rng)
    if chosen is None:
        return None
    length = rng.randrange(max(HEADER_BYTES, chosen.progress.offset))
    target.put(chosen.name, target.get(chosen.name)[:length])
    return at(chosen.name)


def grow(_: RealLedger, target: Target, rng: Random) -> Planted | None:
    """Bytes behind the end that no killed writer leaves there."""
    chosen = _choose(target, rng, least_groups=0)
    if chosen is None or chosen.end is End.TORN:
        return None
    grown = rng.choice([bytes(rng.randrange(1, 9_000)), b"\xff" + rng.randbytes(rng.randrange(90))])
    target.put(chosen.name, target.get(chosen.name) + grown)
    return at(chosen.name)


def remove_begun(_: RealLedger, target: Target, rng: Random) -> Planted | None:
    """A segment that is sealed in part."""
    begun = [path for path in target.segments() if _read(target, path).progress.offset and not _finished(target, path)]
    if not begun:
        return None
    path = rng.choice(begun)
    target.remove(f"wal/{path.name}")
    return at(f"wal/{path.name}")


def _finished(target: Target, path: Path) -> bool:
    return _read(target, path).progress.finished


def _edit(edit: Callable[[list[list[Entry]], int, Random], int | None]) -> Callable[..., Planted | None]:
    """Groups made anew with offsets and checksums; the place is where the first group that is wrong begins."""

    def attack(_: RealLedger, target: Target, rng: Random) -> Planted | None:
        chosen = _choose(target, rng, least_groups=2)
        if chosen is None:
            return None
        groups = [group.entries for group in chosen.groups]
        wrong = edit(groups, rng.randrange(len(groups) - 1), rng)
        if wrong is None:
            return None
        _put(target, chosen, groups)
        begins = [HEADER_BYTES]
        for entries in groups:
            framed = sum(8 + len(entry.leaf) + len(entry.salt) + len(entry.body) for entry in entries)
            begins.append(begins[-1] + GROUP_HEADER_BYTES + framed)
        return at(chosen.name, None, begins[wrong])

    return attack


def _remove_group(groups: list[list[Entry]], place: int, _: Random) -> int:
    del groups[place]
    return place


def _double_group(groups: list[list[Entry]], place: int, _: Random) -> int:
    groups.insert(place, groups[place])
    return place + 1


def _move_group(groups: list[list[Entry]], place: int, _: Random) -> int:
    groups[place], groups[place + 1] = groups[place + 1], groups[place]
    return place


def _remove_entry(groups: list[list[Entry]], place: int, rng: Random) -> int:
    entries = list(groups[place])
    at_entry = rng.randrange(len(entries))
    del entries[at_entry]
    groups[place] = entries
    if not entries:  # a group of none is the mark of the end
        del groups[place]
        return place
    return place if at_entry < len(entries) else place + 1


def _insert_entry(groups: list[list[Entry]], place: int, rng: Random) -> int:
    groups[place] = [make_up(groups[place][0], rng), *groups[place]]
    return place


def change_body(_: RealLedger, target: Target, rng: Random) -> Planted | None:
    """A body that is not sealed yet changed, with the checksum of its group."""
    chosen = _choose(target, rng)
    if chosen is None:
        return None
    open_groups = [place for place, group in enumerate(chosen.groups) if group.begin >= chosen.progress.offset]
    if not open_groups:
        return None
    place = rng.choice(open_groups)
    groups = [list(group.entries) for group in chosen.groups]
    which = rng.randrange(len(groups[place]))
    entry = groups[place][which]
    groups[place][which] = Entry(entry.leaf, entry.salt, entry.body[:-1] + b" }")
    _put(target, chosen, groups)
    return at(chosen.name, None, chosen.groups[place].begin)


def put_back(_: RealLedger, target: Target, rng: Random) -> Planted | None:
    """A segment that was sealed and deleted, made anew of what the log holds."""
    known = {path.stem for path in target.segments()} | set(target.state().segments)
    by_segment: dict[str, list[Entry]] = {}
    for entry in target.entries():
        found = read_id(entry.leaf)
        if found is not None and found.segment not in known:
            by_segment.setdefault(found.segment, []).append(entry)
    if not by_segment:
        return None
    name = rng.choice(sorted(by_segment))
    path = target.root / "wal" / f"{name}.wal"
    path.write_bytes(MAGIC + name.encode())
    target.put(f"wal/{name}.wal", join_groups(path, [by_segment[name]], closed=True))
    return at(f"wal/{name}.wal")


def rename(_: RealLedger, target: Target, rng: Random) -> Planted | None:
    chosen = _choose(target, rng, least_groups=0)
    if chosen is None:
        return None
    name = f"wal/{rng.randrange(1 << 40):010x}.wal"
    chosen.path.rename(target.root / name)
    places = [Place(name)]
    if chosen.progress.offset:
        places.append(Place(chosen.name))
    if chosen.progress.finished:  # what it held is not signed, or the checkpoint is an earlier one
        places.append(Place(CHECKPOINT_FILE))
    return Planted(tuple(places))


def change_progress(_: RealLedger, target: Target, rng: Random) -> Planted | None:
    """How far a segment is sealed changed in the state, with its digest, so that something is sealed twice or never."""
    chosen = _choose(target, rng, least_groups=2)
    if chosen is None or chosen.progress.finished:
        return None
    progress, count = chosen.progress, sum(len(group.entries) for group in chosen.groups)
    later = [group.begin for group in chosen.groups if group.begin > progress.offset]
    changed = [Progress(progress.offset, progress.entries + 1), Progress(progress.offset + 5, progress.entries)]
    if later:
        changed.append(Progress(later[0], progress.entries))  # as if a group had been sealed
    if count > progress.entries:
        changed.append(Progress(progress.offset, progress.entries, finished=True))
    if progress.offset:
        changed.append(Progress(0, 0))
    state = target.state()
    target.put_state(msgspec.structs.replace(state, segments={**state.segments, chosen.path.stem: rng.choice(changed)}))
    return at(chosen.name)


def put_aside(_: RealLedger, target: Target, rng: Random) -> Planted | None:
    """A damaged segment, as the sealer leaves one that it found so."""
    chosen = _choose(target, rng)
    if chosen is None:
        return None
    content = target.get(chosen.name)
    target.put(f"wal/damaged/{chosen.path.name}", content[:-3])
    return at(f"wal/damaged/{chosen.path.name}", None, None)


SEGMENT_ATTACKS: dict[str, Callable[[RealLedger, Target, Random], Planted | None]] = {
    "flip a bit of a segment": flip,
    "cut a segment below what is sealed": cut_sealed,
    "grow a segment": grow,
    "remove a segment sealed in part": remove_begun,
    "remove a group, with checksums": _edit(_remove_group),
    "double a group, with checksums": _edit(_double_group),
    "move a group, with checksums": _edit(_move_group),
    "remove an unsealed entry, with checksums": _edit(_remove_entry),
    "insert an unsealed entry, with checksums": _edit(_insert_entry),
    "change an unsealed body, with checksums": change_body,
    "put a sealed segment back": put_back,
    "rename a segment": rename,
    "change how far a segment is sealed": change_progress,
    "put a damaged segment aside": put_aside,
}
