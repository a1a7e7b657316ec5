"""Whether a change was recorded already, by somebody who may have been killed right behind it.

An entry's id is made when it is written, so that who records a change as one step of several cannot know after a kill
whether that step was done. A mark of its own in the change's details says so: it is looked for among the entries since
the work began, those that are sealed and those that are not yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mainstay.ledger.entry import read_leaf
from mainstay.ledger.log import Log
from mainstay.ledger.state import WAL_FOLDER
from mainstay.ledger.wal import SegmentReader, segments

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mainstay.ledger.entry import Entry


def find_change(ledger_dir: Path, action: str, mark: str, *, since: int) -> str | None:
    """The id of the change with this action whose body holds `mark`, or None.

    `since` is the size of the log before the change can have been recorded. Raises Damaged when the log is not whole.
    """
    action_mark, body_mark = f'"action":"{action}"'.encode(), mark.encode()
    for entry in _entries(ledger_dir, since):
        if body_mark in entry.body and action_mark in entry.leaf:
            leaf = read_leaf(entry.leaf)
            if leaf is not None and leaf.kind == "change":
                return leaf.id
    return None


def _entries(ledger_dir: Path, since: int) -> Iterator[Entry]:
    """Those of the segments first: what is sealed meanwhile stands in the log when that is read."""
    for path in segments(ledger_dir / WAL_FOLDER):
        try:
            for group in SegmentReader(path).groups():
                yield from group.entries
        except FileNotFoundError:
            continue
    log = Log(ledger_dir)
    yield from log.entries(since, log.size)
