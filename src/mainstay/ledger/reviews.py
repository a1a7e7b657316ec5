"""The queue of decisions that wait for a person, read from the ledger, and the one way to take one off it.

There is no second store. A decision waits when it was recorded with the outcome `review` and no change
`review.resolved` names it. Whoever resolves holds a lock, looks again, and records; so one of several wins, and one
who is killed anywhere has recorded it or has not.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from mainstay.errors import Misuse
from mainstay.ledger.change import Change, record_change
from mainstay.ledger.find import find_entry
from mainstay.ledger.index import Index
from mainstay.ledger.log import Log
from mainstay.ledger.review_entries import RESOLVED, Resolution, WaitingReview, read_resolution, read_waiting
from mainstay.ledger.state import WAL_FOLDER, load_state
from mainstay.ledger.wal import SegmentReader, segments
from mainstay.locks import locked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mainstay.ledger.entry import Entry
    from mainstay.ledger.review_entries import ReviewVerdict
    from mainstay.workspace import Workspace

LOCK_FILE = "reviews.lock"


class Waiting(NamedTuple):
    """The head of the queue."""

    reviews: list[WaitingReview]  # the oldest first
    total: int  # how many wait, those left out among them


class Review(NamedTuple):
    """A decision that waits, or waited, for a person."""

    leaf: dict[str, Any]
    body: dict[str, Any] | None  # None once it was erased
    resolutions: tuple[Resolution, ...]  # oldest first; the last one counts

    @property
    def id(self) -> str:
        return str(self.leaf["id"])

    @property
    def capability(self) -> str:
        return str(self.leaf["capability"])

    @property
    def details(self) -> dict[str, Any]:
        """The reasons and violations, and the output that was proposed."""
        return (self.body or {}).get("details") or {}


class ReviewQueue:
    """The queue of a workspace. Methods raise Damaged when the ledger is not whole."""

    def __init__(self, workspace: Workspace) -> None:
        self._ledger = workspace.ledger
        self._lock = workspace.data / LOCK_FILE

    def waiting(self, capability: str | None = None, *, limit: int = 100) -> Waiting:
        """The decisions that wait for a person, of one capability or of all: at most `limit` of them."""
        tail = _Tail(self._ledger)  # first: what is sealed meanwhile is then in the log
        with Index(self._ledger) as index:
            index.catch_up(Log(self._ledger))
            done = [each for each in map(index.find_waiting, tail.resolutions) if each and _is_of(each, capability)]
            fresh = [
                each
                for each in tail.waiting.values()
                if _is_of(each, capability)
                and each.id not in tail.resolutions
                and not index.resolutions_of(each.id)
                and index.find_waiting(each.id) is None
            ]
            oldest = index.waiting(capability, limit=limit + len(done))
            total = index.count_waiting(capability) - len(done) + len(fresh)
        listed = {each.id: each for each in (*fresh, *oldest) if each.id not in tail.resolutions}
        return Waiting(sorted(listed.values(), key=lambda each: (each.at, each.id))[:limit], total)

    def find(self, decision_id: str) -> Review:
        """One decision and what people decided about it. Raises Misuse when no such decision was left to a person."""
        found = find_entry(self._ledger, decision_id)
        if found is None:
            raise Misuse(
                f"no entry {decision_id[:80]!r} in this ledger",
                hint="Expected the id of a decision with the outcome `review`; see `mainstay review list`.",
            )
        if read_waiting(found.entry) is None:
            raise Misuse(
                f"{decision_id[:80]} is no decision that was left to a person",
                hint="`mainstay explain` says what it is.",
            )
        leaf = msgspec.json.decode(found.entry.leaf)
        body = msgspec.json.decode(found.entry.body) if found.entry.body else None
        return Review(leaf, body, self.resolutions(leaf["id"]))

    def resolutions(self, decision_id: str) -> tuple[Resolution, ...]:
        """What people decided about a decision, oldest first."""
        found = _Tail(self._ledger).resolutions.get(decision_id, {})  # first, as above
        log = Log(self._ledger)
        with Index(self._ledger) as index:
            index.catch_up(log)
            for sequence in index.resolutions_of(decision_id):
                read = read_resolution(log.entry(sequence))
                if read is not None:
                    found[read[1].id] = read[1]
        revised = {each.revises for each in found.values()}  # a clock may have been set back since
        return tuple(sorted(found.values(), key=lambda each: (each.id not in revised, each.at, each.id)))

    def record(
        self,
        review: Review,
        verdict: ReviewVerdict,
        output: msgspec.Raw | None,
        *,
        reason: str,
        principal: str,
        again: bool = False,
    ) -> Resolution:
        """Put what a person decided into the ledger, durably. `output` is JSON as it may be recorded.

        Raises Misuse when the decision is resolved already, unless `again`, which revises the last resolution; and
        OSError when the disk will not take it.
        """
        with locked(self._lock):
            before = self.resolutions(review.id)
            if before and not again:
                last = before[-1]
                raise Misuse(
                    f"{review.id} was resolved already: {last.verdict} by {last.principal} at {last.at}",
                    hint="To replace that, resolve it again with --again.",
                )
            details = {
                "capability": review.leaf["capability"],
                "verdict": verdict,
                "output": output,
                "revises": before[-1].id if before else None,
            }
            change = Change(action=RESOLVED, subject=review.id, principal=principal, reason=reason, details=details)
            entry_id = record_change(self._ledger, change)
            return next(each for each in self.resolutions(review.id) if each.id == entry_id)


class _Tail:
    """What the segments hold of reviews that the log may not hold yet."""

    def __init__(self, ledger_dir: Path) -> None:
        self.waiting: dict[str, WaitingReview] = {}  # by id; some may be resolved
        self.resolutions: dict[str, dict[str, Resolution]] = {}  # by the id of the decision and their own
        for entry in _unsealed(ledger_dir):
            if b'"review' not in entry.leaf:  # thousands of others may wait to be sealed
                continue
            resolved = read_resolution(entry)
            waiting = read_waiting(entry)
            if resolved is not None:
                self.resolutions.setdefault(resolved[0], {})[resolved[1].id] = resolved[1]
            elif waiting is not None:
                self.waiting[waiting.id] = waiting


def _unsealed(ledger_dir: Path) -> Iterator[Entry]:
    """Every entry that is durable and not in the log as readers see it, and perhaps some that are."""
    state = load_state(ledger_dir)
    # A sealer that was killed may have saved a state that the checkpoint does not cover yet.
    published = state is not None and Log(ledger_dir).size >= state.size
    sealed = state.segments if state is not None and published else {}
    for path in segments(ledger_dir / WAL_FOLDER):
        progress = sealed.get(path.stem)
        reader = SegmentReader(path, 0 if progress is None else progress.offset)
        with contextlib.suppress(FileNotFoundError):  # sealed and deleted since it was listed
            for group in reader.groups():
                yield from group.entries


def _is_of(review: WaitingReview, capability: str | None) -> bool:
    return capability is None or review.capability == capability
