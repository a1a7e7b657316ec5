"""Ledgers as workers, commands and sealers leave them: decisions, outcomes, changes, reviews; sealed and not yet.

What a worker writes here goes through the recorder of decisions and the write-ahead segment that the service uses.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from ledger.samples import KEY, ORIGIN, fork, reap
from mainstay.decision.record import DecisionRecorder, OutcomeReport, Served, Stamp, Took, Verdict, record_outcome
from mainstay.decision.types import Reason
from mainstay.ledger.change import Change, record_change
from mainstay.ledger.journal import Place
from mainstay.ledger.log import Log
from mainstay.ledger.review_entries import RESOLVED
from mainstay.ledger.sealer import Sealer
from mainstay.ledger.wal import Segment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from random import Random

    from mainstay.decision.record import Recorded

CAPABILITY = "late-arrival"
SERVED = Served(CAPABILITY, "sha256:" + "5a" * 32, 7, "production", "sha256:" + "c4" * 32)
STRANGE = Reason("out_of_distribution", "unlike the reference in: distance, departure")
WRONG = Reason("contract_violation", "1 broken rule: distance (maximum)")


class Worker:
    """Records decisions and outcomes in one segment, group by group, as the journal of a worker does."""

    def __init__(self, ledger: Path, rng: Random) -> None:
        self._segment = Segment(ledger / "wal")
        self._rng = rng
        self._recorder = DecisionRecorder(SERVED, ORIGIN)
        self._count = 0
        self.reviews: list[str] = []  # ids of decisions that wait for a person

    def decide(self, count: int) -> list[str]:
        """One group of decisions; their ids."""
        recorded = [self._record(stamp) for stamp in self._stamps(count)]
        self._append([each.framed for each in recorded])
        return [msgspec.json.decode(each.answer)["decision_id"] for each in recorded]

    def report(self, decisions: list[str]) -> None:
        """One group of outcomes."""
        capability = msgspec.json.encode(CAPABILITY)
        observed = b'"2026-01-02T00:00:00Z"'
        reports = [OutcomeReport(msgspec.json.encode(each), b"null", b'{"late":true}', observed) for each in decisions]
        stamps = self._stamps(len(reports))
        made = [record_outcome(stamp, b"desk", capability, each) for stamp, each in zip(stamps, reports, strict=True)]
        self._append([framed for framed, _, _ in made])

    def close(self) -> None:
        """Stop in good order."""
        self._segment.close()

    def die(self) -> None:
        """Be killed between two groups."""
        self._segment.abandon()

    def die_writing(self) -> None:
        """Be killed in the middle of a group."""
        path, whole = self._segment.path, self._segment.bytes
        self.decide(self._rng.randrange(1, 9))
        self._segment.abandon()
        os.truncate(path, self._rng.randrange(whole + 1, path.stat().st_size))

    def _stamps(self, count: int) -> list[Stamp]:
        return [Stamp(Place(self._segment, self._count + place), 1) for place in range(count)]

    def _append(self, framed: list[bytes]) -> None:
        self._segment.append(framed, len(framed))
        self._count += len(framed)

    def _record(self, stamp: Stamp) -> Recorded:
        number = self._rng.randrange(10_000)
        given = b'{"carrier":"UA","distance":%d,"note":"%b"}' % (number, b"x" * self._rng.randrange(200))
        recorded = self._recorder.record(stamp, b"desk", b'"UA-%d"' % number, given, self._verdict(), Took(0.001))
        answer = msgspec.json.decode(recorded.answer)
        if answer["outcome"] == "review":
            self.reviews.append(answer["decision_id"])
        return recorded

    def _verdict(self) -> Verdict:
        drawn = self._rng.random()
        output = b'{"late":false,"probability":0.%04d}' % self._rng.randrange(10_000)
        if drawn < 0.7:
            return Verdict("answered", output, b"0.91", novelty=b"0.4")
        if drawn < 0.8:
            return Verdict("fallback", output, reasons=(STRANGE,), answered_by="constant")
        if drawn < 0.9:
            return Verdict("review", confidence=b"0.6", reasons=(STRANGE,), proposed=output)
        return Verdict("refused", reasons=(WRONG,))


def change(ledger: Path, action: str, subject: str, details: object = None) -> None:
    """One change, as a command records it."""
    record_change(
        ledger, Change(action=action, subject=subject, principal="os:ops", reason="for a test", details=details)
    )


def seal(ledger: Path) -> None:
    """One pass of the sealer."""
    with Sealer(ledger, KEY, ORIGIN) as sealer:
        sealer.seal_once()


def write_some(ledger: Path, rng: Random, count: int, *, end: str = "") -> None:
    """About `count` entries of every kind, by one worker and a few commands; `end` says how the worker ends."""
    worker = Worker(ledger, rng)
    change(ledger, "release.published", f"{CAPABILITY}/{rng.randrange(1, 50)}", {"version": SERVED.version})
    left = count
    while left > 0:
        number = min(left, rng.randrange(1, 60))
        decisions = worker.decide(number)
        left -= number
        if rng.random() < 0.3:
            worker.report(decisions[: number // 3 + 1])
    for review in worker.reviews[:2]:
        details = {"capability": CAPABILITY, "verdict": "accepted", "output": None, "revises": None}
        change(ledger, RESOLVED, review, details)
    ends: dict[str, Callable[[], None]] = {"close": worker.close, "die": worker.die, "torn": worker.die_writing}
    ends[end or rng.choice(list(ends))]()


@dataclass(frozen=True)
class RealLedger:
    """A ledger, and what an attacker or an auditor may have kept of it from before."""

    path: Path
    earlier: Path  # the whole directory at an earlier moment
    kept: bytes  # the checkpoint of a moment between the two
    other: Path  # a fork, signed with the same key: it began as `earlier` and went on differently

    @property
    def size(self) -> int:
        return Log(self.path).size


def make_ledger(directory: Path, rng: Random, entries: int, *, unsigned: bool = False) -> RealLedger:
    """A ledger of about `entries` sealed in several passes, and some segments that are not sealed, or not to their end.

    With `unsigned`, the last pass of the sealer was killed before it signed.
    """
    path, earlier, other = directory / "ledger", directory / "earlier", directory / "other"
    write_some(path, rng, max(1, entries // 3))
    seal(path)
    shutil.copytree(path, earlier)
    shutil.copytree(path, other)
    write_some(other, rng, max(1, entries))
    seal(other)
    write_some(path, rng, max(1, entries // 3))
    seal(path)
    kept = (path / "checkpoint").read_bytes()
    begun = Worker(path, rng)
    begun.decide(5)
    write_some(path, rng, max(1, entries // 3))
    seal(path)
    begun.decide(4)  # a segment that is sealed up to here
    begun.decide(3)
    begun.die()
    if unsigned:
        write_some(path, rng, max(1, entries // 5))
        assert not reap(fork(lambda: _seal_and_die(path)))
    for end in ("close", "die", "torn"):
        write_some(path, rng, 12, end=end)
    return RealLedger(path, earlier, kept, other)


def _seal_and_die(ledger: Path) -> None:
    """One pass of the sealer, killed when the log is durable and about to be signed."""

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if event == "os.rename" and str(arguments[1]).endswith("checkpoint"):
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    seal(ledger)


def copy_ledger(source: Path, target: Path) -> Path:
    """A copy that shares its files with `source`: whoever changes one must put a new one in its place."""
    return shutil.copytree(source, target, copy_function=os.link, ignore=shutil.ignore_patterns("index.db*"))
