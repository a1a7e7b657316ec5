"""Carrying out what the ledger says is to be erased. There is no second store: a request waits until it has a receipt.

1. The bodies concerned leave their files, a few dozen files at a time, each replaced in one step.
2. Copies go: segments that hold them are left by their writers, sealed to their end and deleted; what the index took
   from them went when the request was indexed, and its file is written anew, once for all requests that wait; in
   damaged segments set aside they are overwritten.
3. The receipt is recorded.

Whoever carries it out holds the sealer's lock, and a lock under which requests are made, and seals and indexes before
it looks: so a request is seen whole, and a receipt is never written twice. Killed anywhere, the next one begins again
at 1, which finds what is gone already, and counts it.
"""

from __future__ import annotations

import contextlib
import logging
import time
from bisect import bisect_right
from typing import TYPE_CHECKING

from mainstay.errors import Failed
from mainstay.ledger.archives import archived_until
from mainstay.ledger.bodies import BATCH_FILES, BodiesBatch, overwrite_in_segment, read_bundle
from mainstay.ledger.change import Change, record_change
from mainstay.ledger.erasure_entries import COMPLETED, REQUESTED, Aside, Copies, Done, read_request
from mainstay.ledger.index_erasures import by_bundle, overlap
from mainstay.ledger.log import Log
from mainstay.ledger.state import DAMAGED_FOLDER, WAL_FOLDER
from mainstay.ledger.tiles import WIDTH
from mainstay.ledger.wal import ask_to_leave, segments
from mainstay.locks import locked

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from mainstay.ledger.bodies import Bundle
    from mainstay.ledger.erasure_entries import Request, Rule, Run, Wish
    from mainstay.ledger.index import Index
    from mainstay.ledger.sealer import Sealer
    from mainstay.workspace import Workspace

logger = logging.getLogger("mainstay.ledger")

LOCK_FILE = "erasures.lock"
EVERY_CAPABILITY = "*"  # the subject of a request about all of them
TURN_SECONDS = 0.2  # sealing waits no longer than this for bodies to go
LOOKED_AT_BUNDLES = 256  # at most, before the clock is looked at


class Eraser:
    """Carries out requests for the holder of the sealer's lock, a little at a time."""

    def __init__(self, workspace: Workspace, sealer: Sealer, index: Index, principal: str) -> None:
        """`principal` is who carries it out, as receipts say."""
        self._root = workspace.ledger
        self._lock = workspace.data / LOCK_FILE
        self._sealer = sealer
        self._index = index
        self._principal = principal
        self._log = Log(workspace.ledger)
        self._under_way: dict[int, Iterator[int]] = {}  # by request
        self._emptied: dict[int, int] = {}  # bodies gone until now, by request
        self.held_by: list[str] = []  # the segments that keep the last request looked at from its receipt

    def seal(self) -> None:
        """Bring the log and the index up to date. Raises as sealing and indexing do."""
        self._sealer.seal_once()
        self._index.catch_up(self._log)

    def turn(self, seconds: float = TURN_SECONDS) -> bool:
        """Carry out what there is, for about so long; whether there is more that can be done at once.

        Does nothing while a request is being made. Raises OSError when the disk fails, Damaged when the log is not
        whole: what was done is done, and the next turn goes on.
        """
        if not self._index.erasures.pending():
            if self._index.has_traces():  # it was made anew, from archives that still held what was erased here
                self._index.leave_nothing_behind()
            return False
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(locked(self._lock, timeout_seconds=0))
            except Failed:
                return False
            self.seal()
            return self._carry_out(time.monotonic() + seconds)

    def _carry_out(self, deadline: float) -> bool:
        for sequence in self._index.erasures.pending():
            request = read_request(self._log.entry(sequence), sequence)
            assert request is not None, "the index takes as requests what can be read as one"
            if not self._has_emptied(request, deadline):
                return True
            self.held_by = segments_with(self._root, self._index, request.wish.runs)
            if self.held_by:
                ask_to_leave(self._root)
            elif self._index.leave_nothing_behind():
                self._write_receipt(request)
        return False

    # 1. The bodies.

    def _has_emptied(self, request: Request, deadline: float) -> bool:
        """Empty bodies until a moment; whether all are."""
        if request.sequence not in self._under_way:
            self._under_way[request.sequence] = self._empty(request)
        under_way = self._under_way[request.sequence]
        try:
            for emptied in under_way:
                self._emptied[request.sequence] = emptied
                if time.monotonic() >= deadline:
                    return False
        except BaseException:  # whatever it was, it begins again where the files say
            del self._under_way[request.sequence]
            raise
        return True

    def _empty(self, request: Request) -> Iterator[int]:
        """Empty the bodies concerned; yields how many are gone by now, each time with nothing under way."""
        emptied, looked_at = 0, 0
        batch = BodiesBatch(self._root)
        kept: list[tuple[int, str | None]] = []
        begin = archived_until(self._root) // WIDTH
        try:
            for bundle in bundles_of(request.wish):
                if bundle >= begin:
                    emptied += self._empty_bundle(request, bundle, batch, kept)
                looked_at += 1
                if len(batch) >= BATCH_FILES or looked_at % LOOKED_AT_BUNDLES == 0:
                    self._put_in_place(request, batch, kept)
                    yield emptied
            self._put_in_place(request, batch, kept)
            yield emptied
        finally:
            batch.abandon()

    def _put_in_place(self, request: Request, batch: BodiesBatch, kept: list[tuple[int, str | None]]) -> None:
        self._sealer.reopen()  # it may be in the middle of the last file
        batch.put_in_place()
        if request.wish.rule is not None:
            with self._index.transaction():
                for bundle, oldest in kept:
                    self._index.erasures.set_kept(request.wish.rule.capability, bundle, oldest)
        kept.clear()

    def _empty_bundle(
        self, request: Request, bundle: int, batch: BodiesBatch, kept: list[tuple[int, str | None]]
    ) -> int:
        """Empty the bodies of a bundle that are concerned; how many are gone then."""
        wish = request.wish
        found = read_bundle(self._root, bundle, self._log.size, None if wish.rule is None else wish.rule.capability)
        if found is None:
            return 0
        chosen = chosen_in(self._index, request, found)
        if chosen & found.full:
            batch.empty(bundle, found.places, chosen)
        if wish.rule is not None:
            kept.append((bundle, found.oldest(self._root, wish.rule.capability, without=chosen)))
        return chosen.bit_count()

    # 2. The copies.

    def _overwrite_aside(self, request: Request) -> Iterator[Aside]:
        for path in segments(self._root / DAMAGED_FOLDER):
            counters = [
                counters
                for first, last in request.wish.runs
                for counters in self._index.erasures.counters_from(path.stem, first, last)
            ]
            bodies, unread = overwrite_in_segment(path, sorted(counters))
            if bodies or unread:
                yield Aside(file=f"{DAMAGED_FOLDER}/{path.name}", bodies=bodies, unread_bytes=unread)

    # 3. The receipt.

    def _write_receipt(self, request: Request) -> None:
        copies = tuple(
            Copies(place=each.place, first=each.first, size=each.size)
            for each in self._index.erasures.archives()
            if overlap(request.wish.runs, [(each.first, each.size)])
        )
        aside = tuple(self._overwrite_aside(request))
        done = Done(bodies=self._emptied.pop(request.sequence), archives=copies, aside=aside)
        del self._under_way[request.sequence]
        change = Change(
            action=COMPLETED,
            subject=request.id,
            principal=self._principal,
            reason=request.reason,
            details=done,
        )
        record_change(self._root, change)
        self.seal()
        logger.info("bodies erased: request=%s bodies=%d", request.id, done.bodies)


def record_request(ledger_dir: Path, wish: Wish, *, principal: str, reason: str) -> str:
    """Put a request into the ledger, durably; its id. Whoever calls holds the lock under which requests are made."""
    change = Change(
        action=REQUESTED, subject=wish.capability or EVERY_CAPABILITY, principal=principal, reason=reason, details=wish
    )
    return record_change(ledger_dir, change)


def chosen_in(index: Index, request: Request, found: Bundle) -> int:
    """The entries of a bundle that a request is about: bit n for its entry n."""
    rule = request.wish.rule
    return _listed(request.wish, found) if rule is None else _ruled(index, request, rule, found)


def _listed(wish: Wish, found: Bundle) -> int:
    return sum(
        1 << sequence % WIDTH
        for first, last in _within(wish.entries, found.number)
        for sequence in range(first, last)
        if (leaf := found.leaf(sequence)) is not None and leaf.erasable
    )


def _ruled(index: Index, request: Request, rule: Rule, found: Bundle) -> int:
    """Those the rule is about: no decision that waited for a person then, and none that some request lists."""
    chosen = 0
    for sequence in range(max(rule.first, found.first), min(rule.last, found.last)):
        leaf = found.leaf(sequence)
        if leaf is None or not leaf.erasable or not rule.covers(leaf.capability, leaf.at, sequence):
            continue
        if not leaf.is_review or not index.erasures.waited(leaf.id, request.sequence):
            chosen |= 1 << sequence % WIDTH
    for first, last in index.erasures.listed_in(found.number):
        chosen &= ~(((1 << (last - first)) - 1) << first % WIDTH)
    return chosen


def segments_with(ledger_dir: Path, index: Index, runs: Sequence[Run]) -> list[str]:
    """The segments that are still there and hold some of these entries: their writers have not left them."""
    paths = segments(ledger_dir / WAL_FOLDER)
    return [path.name for path in paths if overlap(index.erasures.sealed_from(path.stem), runs)]


def bundles_of(wish: Wish) -> Iterator[int]:
    """The bundles with entries concerned, ascending."""
    last = -1
    for run in wish.runs:
        for bundle, _ in by_bundle(*run):
            if bundle > last:
                yield bundle
                last = bundle


def _within(runs: Sequence[Run], bundle: int) -> Iterator[Run]:
    begin, end = bundle * WIDTH, (bundle + 1) * WIDTH
    for first, last in runs[bisect_right(runs, begin, key=lambda run: run[1]) :]:
        if first >= end:
            return
        yield max(first, begin), min(last, end)
