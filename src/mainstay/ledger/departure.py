"""Entries that leave the ledger: when an archive of them is recorded as one that they leave with, their files go.

First the file that says where they are, then their leaves and bodies, in order. Killed anywhere, the next one goes on.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from mainstay.errors import Failed
from mainstay.files import sync_directory
from mainstay.ledger.archives import Gone, archived_until, load_archives, save_archives
from mainstay.ledger.eraser import LOCK_FILE, segments_with
from mainstay.ledger.erasure_entries import read_departed
from mainstay.ledger.log import Log
from mainstay.ledger.tiles import BODIES, ENTRIES, WIDTH, TileName
from mainstay.ledger.wal import ask_to_leave
from mainstay.locks import locked

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from mainstay.ledger.index import Index
    from mainstay.ledger.index_erasures import ArchiveRow
    from mainstay.workspace import Workspace

TURN_BUNDLES = 2_048  # deleted in one turn, within a fraction of a second


class Remover:
    """Deletes the files of what has left, for the holder of the sealer's lock."""

    def __init__(self, workspace: Workspace, index: Index) -> None:
        self._root = workspace.ledger
        self._lock = workspace.data / LOCK_FILE
        self._index = index
        self._next: int | None = None  # the bundle to be deleted next; None where that is not known

    def turn(self) -> bool:
        """Delete some of what has left; whether there is more. All is sealed and indexed."""
        if self._next is not None:
            return self._delete()
        leaving = [each for each in self._index.erasures.archives() if each.remove]
        if not leaving:
            return False
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(locked(self._lock, timeout_seconds=0))
            except Failed:  # somebody is asking for something to be erased
                return False
            until = archived_until(self._root)
            behind = next((each for each in leaving if each.first == until), None)
            if behind is not None:
                return self._begin(behind)
            if until and self._is_there(until // WIDTH - 1):  # whoever deleted was killed
                self._next = load_archives(self._root)[-1].first // WIDTH
                return True
        return False

    def _begin(self, row: ArchiveRow) -> bool:
        """Say where the entries are, once no segment holds them any more."""
        if segments_with(self._root, self._index, [(row.first, row.size)]):
            ask_to_leave(self._root)
            return False
        departed = read_departed(Log(self._root).entry(row.sequence), row.sequence)
        assert departed is not None, "the index takes as archives what can be read as one"
        gone = Gone(sequence=row.sequence, at=departed.at, first=row.first, size=row.size, place=row.place)
        save_archives(self._root, (*load_archives(self._root), gone))
        self._next = row.first // WIDTH
        return True

    def _delete(self) -> bool:
        assert self._next is not None
        end = archived_until(self._root) // WIDTH
        behind = min(end, self._next + TURN_BUNDLES)
        touched: set[Path] = set()
        for number in range(self._next, behind):
            paths = [self._root / TileName(folder, number).path for folder in (BODIES, ENTRIES)]
            if number == end - 1:
                _sync(touched)  # that the last is gone says that all are
            for path in paths:
                path.unlink(missing_ok=True)
                touched.add(path.parent)
        _sync(touched)
        self._next = None if behind == end else behind
        return self._next is not None

    def _is_there(self, number: int) -> bool:
        return any((self._root / TileName(folder, number).path).exists() for folder in (BODIES, ENTRIES))


def _sync(directories: Iterable[Path]) -> None:
    """Make it durable that names are gone; a folder of a thousand tiles that is empty now goes too."""
    for directory in directories:
        if not directory.name.startswith("x") or any(directory.iterdir()):
            sync_directory(directory)
            continue
        directory.rmdir()
        sync_directory(directory.parent)
