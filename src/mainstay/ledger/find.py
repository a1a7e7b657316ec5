"""One entry, wherever it stands now: in the log, or still in the write-ahead segment that its id names."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from mainstay.errors import Damaged
from mainstay.ledger.entry import Entry, commitment, format_id, parse_id, read_id, read_leaf
from mainstay.ledger.index import Index
from mainstay.ledger.log import Log
from mainstay.ledger.state import WAL_FOLDER, segment_path
from mainstay.ledger.wal import Segment, SegmentReader, frame_entry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mainstay.ledger.entry import EntryId


class Found(NamedTuple):
    """An entry and its number in the log; None while it is not sealed."""

    entry: Entry
    sequence: int | None


def find_entry(ledger_dir: Path, entry_id: str) -> Found | None:
    """The entry with this id, or None when there is none (or `entry_id` is not an id of ours).

    The index is brought up to date on the way. Raises Damaged when the log is not whole or the entry was changed, and
    Archived when it has left with an archive.
    """
    wanted = parse_id(entry_id)
    if wanted is None:
        return None
    found = _in_log(ledger_dir, entry_id) or _in_segment(ledger_dir, wanted)
    return found or _in_log(ledger_dir, entry_id)  # sealed and its segment deleted since we looked first


def _in_log(ledger_dir: Path, entry_id: str) -> Found | None:
    log = Log(ledger_dir)
    with Index(ledger_dir) as index:
        sequence = index.find(entry_id)
        if sequence is None and index.catch_up(log):
            sequence = index.find(entry_id)
    if sequence is None:
        return None
    entry = entry_at(log, sequence)
    if parse_id(entry_id) != read_id(entry.leaf):
        raise Damaged(
            f"entry {sequence}: expected {entry_id}, as the index says, found another",
            hint="Delete index.db; it is made again.",
        )
    return Found(entry, sequence)


def entry_at(log: Log, sequence: int) -> Entry:
    """An entry of the log, held against the hash of its leaf and the commitment to its body.

    Raises Damaged when it is not what was written, and as `Log.entry` does.
    """
    entry = log.entry(sequence)
    leaf = read_leaf(entry.leaf)
    body_holds = not entry.salt or (leaf is not None and leaf.body == commitment(entry.salt, entry.body))
    if entry.leaf_hash != log.leaf_hash_at(sequence) or not body_holds:
        what = "body is not what its leaf commits to" if not body_holds else "leaf is not what its hash says"
        raise Damaged(
            f"entry {sequence} was changed: its {what}",
            hint="`mainstay ledger verify` names every place; restore the file from a backup.",
        )
    return entry


def _in_segment(ledger_dir: Path, wanted: EntryId) -> Found | None:
    reader = SegmentReader(segment_path(ledger_dir, wanted.segment))
    try:
        for group in reader.groups():
            for entry in group.entries:
                if read_id(entry.leaf) == wanted:
                    return Found(entry, None)
    except FileNotFoundError:
        return None
    return None


def append_change(ledger_dir: Path, make: Callable[[str], Entry]) -> str:
    """Record one entry durably from a process that writes nothing else, such as a command; its id.

    `make` is given the id and returns the entry with that id in its leaf. Raises OSError when the disk will not take
    it: then nothing was recorded that anyone may rely on.
    """
    segment = Segment(ledger_dir / WAL_FOLDER)
    try:
        entry_id = format_id(segment.name, 0, time.time_ns() // 1_000_000)
        segment.append([frame_entry(*make(entry_id))], 1)
    except BaseException:  # whatever it was, the segment takes nothing more
        segment.abandon()
        raise
    segment.close()
    return entry_id
