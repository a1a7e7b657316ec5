"""What of a ledger is anchored: holding it to the checkpoints of it that are kept elsewhere.

Each must be signed for this log, and the log must extend it: the head of as many first entries, recomputed from the
tiles, must be the one that was signed. Then those entries are anchored: changing one of them would show. A checkpoint
that the log does not extend proves that the log was rewritten, or that its key signed two histories.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple, Protocol

from mainstay.errors import Damaged, Failed, Misuse
from mainstay.ledger.log import Log
from mainstay.ledger.merkle import tree_root
from mainstay.ledger.note import verify_checkpoint
from mainstay.ledger.trust_policy import shown

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from mainstay.ledger.findings import Findings
    from mainstay.ledger.note import Checkpoint, NoteVerifier
    from mainstay.ledger.trust_policy import TrustPolicy, Verdict


class KeptNote(NamedTuple):
    """A checkpoint as it was read back, nothing of it verified."""

    place: str
    note: bytes
    at: datetime | None  # when it was stored, as far as its keeper says


class Source(Protocol):
    """Whoever keeps checkpoints."""

    name: str
    outside: bool  # who has the ledger does not have this: what is kept here is anchored, whoever has cosigned it

    def notes(self) -> AsyncIterator[KeptNote]:
        """Every checkpoint it keeps. Raises Failed when it cannot be read to the end, Misuse when there is none."""


class NoteSource:
    """One checkpoint that is at hand."""

    outside = True

    def __init__(self, name: str, note: bytes) -> None:
        self.name = name
        self._note = note

    async def notes(self) -> AsyncIterator[KeptNote]:
        yield KeptNote(self.name, self._note, None)


@dataclass(frozen=True, slots=True)
class Against:
    """What a ledger is held to."""

    sources: tuple[Source, ...] = ()
    policy: TrustPolicy | None = None  # which witnesses are believed
    must_be_read: bool = True  # a source that cannot be read is a finding
    must_be_cosigned: bool = False  # that no checkpoint of them satisfies the policy is a finding


@dataclass(frozen=True, slots=True)
class Anchored:
    """Entries that somebody outside the ledger vouches for: 0 to size - 1."""

    by: str  # a place, or names of witnesses
    size: int
    at: str | None  # RFC 3339; signed where witnesses say it, else what the keeper says
    checkpoints: int  # how many were held to the log


@dataclass(frozen=True, slots=True)
class Unread:
    """A source that could not be asked, or not to the end: nothing is known from it, good or bad."""

    source: str
    why: str


@dataclass(slots=True)
class Coverage:
    """How far the log is anchored."""

    anchored: list[Anchored] = field(default_factory=list)
    unread: list[Unread] = field(default_factory=list)

    @property
    def size(self) -> int:
        """The entries 0 to size - 1 are anchored by at least one."""
        return max((each.size for each in self.anchored), default=0)

    def lines(self, size: int) -> list[str]:
        """The coverage of a log of `size` entries for people, a fact a line."""
        lines = []
        for each in sorted(self.anchored, key=lambda each: each.size):
            at = f" at {each.at}" if each.at else ""
            noun = "checkpoint" if each.checkpoints == 1 else "checkpoints"
            held = f" ({each.checkpoints:,} {noun})"
            lines.append(f"entries 0 to {each.size - 1:,} are anchored by {each.by}{at}{held}")
        lines += [f"{each.source} could not be asked: {each.why}" for each in self.unread]
        rest = max(0, size - self.size)
        if not self.anchored:
            lines.append("no entry is anchored" if size else "there is nothing to anchor yet")
        elif rest:
            lines.append(f"the newest {f'{rest:,} entries are' if rest > 1 else 'entry is'} not anchored yet")
        else:
            lines.append("every entry is anchored")
        return lines


class _Fork(NamedTuple):
    """A checkpoint that the log does not extend."""

    size: int
    place: str
    kept: bytes  # its head
    found: bytes  # the head of as many entries here


@dataclass(slots=True)
class _Held:
    """The checkpoints of one source, held to the log."""

    count: int = 0
    size: int = 0  # of the largest that the log extends
    at: datetime | None = None
    fork: _Fork | None = None  # the smallest that it does not
    beyond: tuple[int, str] | None = None  # the largest with more entries than the log has


def check_anchors(ledger: Ledger, against: Against, findings: Findings) -> Coverage:
    """Hold a ledger to everything in `against`, one checkpoint at a time in memory.

    Raises Enough when there are too many findings.
    """
    check = _AnchorCheck(ledger, against, findings)
    asyncio.run(check.run())
    return check.coverage


class Ledger(NamedTuple):
    """The log that is held to its checkpoints."""

    directory: Path
    size: int  # entries that were verified; it may have grown since
    verifier: NoteVerifier
    origin: str


class _AnchorCheck:
    """One run."""

    def __init__(self, ledger: Ledger, against: Against, findings: Findings) -> None:
        self._ledger = ledger
        self._against = against
        self._findings = findings
        self._log = Log(ledger.directory)
        self._size = ledger.size
        self._node = self._log.node(ledger.size)
        self._is_damaged = bool(findings.all)  # then a head that differs may be damage to the tiles, and no fork
        self._cosigned: Verdict | None = None  # of the largest checkpoint that satisfies the policy
        self._cosigned_count = 0
        self.coverage = Coverage()

    async def run(self) -> None:
        for source in self._against.sources:
            held = _Held()
            try:
                async for kept in source.notes():
                    self._hold(kept, held)
            except (Failed, Misuse, OSError) as error:
                if self._against.must_be_read:
                    self._findings.add(source.name, f"expected checkpoints, found: {error}")
                else:
                    self.coverage.unread.append(Unread(source.name, str(error)))
            self._conclude(source, held)
        if self._cosigned is not None:
            self.coverage.anchored.append(_witnessed(self._cosigned, self._cosigned_count))
        policy = self._against.policy
        if self._against.must_be_cosigned and policy is not None and self._cosigned is None:
            self._findings.add("policy", f"expected a checkpoint with the quorum {shown(policy.quorum)}, found none")

    def _hold(self, kept: KeptNote, held: _Held) -> None:
        """Hold one checkpoint to the log."""
        try:
            checkpoint = self._verified(kept.note)
            policy = self._against.policy
            verdict = None if policy is None else policy.evaluate(kept.note, [self._ledger.verifier])
            held.count += 1
            if checkpoint.size > self._size and not self._has_grown_to(checkpoint.size):
                if held.beyond is None or checkpoint.size > held.beyond[0]:
                    held.beyond = checkpoint.size, kept.place
                return
            head = tree_root(checkpoint.size, self._node)
        except (Damaged, OSError) as error:
            self._findings.add(kept.place, str(error))
            return
        if head != checkpoint.root:
            if held.fork is None or checkpoint.size < held.fork.size:
                held.fork = _Fork(checkpoint.size, kept.place, checkpoint.root, head)
            return
        if checkpoint.size >= held.size:
            held.size, held.at = checkpoint.size, kept.at
        if checkpoint.size and verdict is not None and verdict.satisfied and verdict.cosigned:
            self._cosigned_count += 1
            if self._cosigned is None or _rank(verdict) >= _rank(self._cosigned):
                self._cosigned = verdict

    def _verified(self, note: bytes) -> Checkpoint:
        return verify_checkpoint(note, self._ledger.verifier, self._ledger.origin)

    def _has_grown_to(self, size: int) -> bool:
        """Whether the log has as many entries by now: it may be sealed, and anchored, while it is verified."""
        note = self._log.note()
        if note is not None:
            now = self._verified(note).size
            if now > self._size:
                self._size = now
                self._node = self._log.node(now)
        return self._size >= size

    def _conclude(self, source: Source, held: _Held) -> None:
        if held.size and source.outside:
            self.coverage.anchored.append(Anchored(source.name, held.size, _when(held.at), held.count))
        if held.fork is not None:
            self._report_fork(held.fork, held.size)
        if held.beyond is not None:
            size, place = held.beyond
            what = f"expected at least {size} entries in the log, found {self._size}: THE END IS CUT OFF"
            self._findings.add(place, what)

    def _report_fork(self, fork: _Fork, agreed: int) -> None:
        """Name the smallest checkpoint that the log does not extend; with its first `agreed` entries it agrees."""
        known = 0 < agreed < fork.size
        between = f"; the first {agreed} entries agree, so the first other one is {agreed} to {fork.size - 1}"
        verdict = "" if self._is_damaged else "THE LOG FORKS: "
        self._findings.add(
            fork.place,
            f"{verdict}expected it to extend {fork.size} entries with the head {fork.kept.hex()},"
            f" found {fork.found.hex()}{between if known else ''}",
            sequence=agreed if known else None,
        )


def _rank(verdict: Verdict) -> tuple[int, int]:
    return verdict.checkpoint.size, verdict.time


def _witnessed(verdict: Verdict, checkpoints: int) -> Anchored:
    """What the witnesses that a policy believes vouch for."""
    names = ", ".join(shown(each.witness) for each in verdict.cosigned)
    noun = "witness" if len(verdict.cosigned) == 1 else "witnesses"
    at = datetime.fromtimestamp(verdict.time, UTC) if verdict.time else None
    return Anchored(f"{noun} {names}", verdict.checkpoint.size, _when(at), checkpoints)


def _when(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
