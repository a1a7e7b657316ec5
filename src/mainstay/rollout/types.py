"""A rollout: one version of one capability on its way into production, and what was proposed and what happened.

A rollout's row says what should be. What is, the release in force says. Each move of a rollout (a stage or a step) has
a number, and the release that carries it out bears the mark `<rollout>/<move>`: so whoever was killed between the two
can tell what is left to do.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Struct

Stage: TypeAlias = Literal["shadow", "canary", "production", "retired", "rolled_back", "stopped_by_hand"]
Begun: TypeAlias = Literal["shadow", "canary", "production"]  # a stage that a version can be brought into
Action: TypeAlias = Literal[
    "rollout.started",
    "rollout.advanced",
    "rollout.promoted",
    "rollout.rolled_back",
    "rollout.ended",
    "rollout.proposed",
    "rollout.approved",
    "rollout.withdrawn",
]

STAGES: Final[tuple[Begun, ...]] = ("shadow", "canary", "production")
RUNNING: Final = frozenset({"shadow", "canary"})
PRINCIPAL: Final = "mainstay:rollout"  # who moves a rollout that nobody moved by hand
MAX_VERDICTS: Final = 50  # that a row remembers; every change of one is in the ledger


class Verdict(Struct, frozen=True, kw_only=True):
    """What the evidence said at one time."""

    at: str  # RFC 3339, UTC
    verdict: Literal["promote", "roll_back", "keep_collecting"]
    code: str  # why, in a word: see `judging_types.Reason`
    reason: str  # for people: what was decisive, or what is still missing
    decisions: int  # that the version on trial made in this step
    labels: int

    def same_as(self, known: tuple[Verdict, ...]) -> bool:
        """Whether the newest of these says the same, for the same reason."""
        return bool(known) and (known[-1].verdict, known[-1].code) == (self.verdict, self.code)


class Rollout(Struct, frozen=True, kw_only=True):
    """Where a version stands."""

    id: str
    capability: str
    version: str  # the digest of the version on trial
    champion: str | None  # what it stands beside, or came after; None: it was the first
    stage: Stage
    step: int = 0  # of the canary, from 0
    percent: float = 0.0  # of the keys that it decides for
    begun_at: str  # RFC 3339, UTC
    since: str  # of this stage and step
    by: str  # who began it
    reason: str  # of the last move
    base: int  # the number of the release in force when the last move was decided; 0: there was none
    release: int | None = None  # the number of the release that carries out the last move; None: not done yet
    watch_until: str | None = None  # in production: until when labels may still send it back; None: it is not watched
    moves: int  # the number of the last move
    verdicts: tuple[Verdict, ...] = ()  # the newest, oldest first

    @property
    def mark(self) -> str:
        """What the release that carries out the last move bears."""
        return f"{self.id}/{self.moves}"

    @property
    def running(self) -> bool:
        """Whether it is on trial, beside the version in force."""
        return self.stage in RUNNING

    @property
    def watched(self) -> bool:
        """Whether labels that arrive may still send it back from production."""
        return self.stage == "production" and self.watch_until is not None


class Event(Struct, frozen=True, kw_only=True):
    """Something that happened to a rollout; it goes into the ledger as a change."""

    rollout: str
    number: int
    at: str
    action: Action
    by: str
    reason: str
    details: dict[str, Any]
    entry: str | None = None  # of the ledger; None: it is not there yet


class Proposal(Struct, frozen=True, kw_only=True):
    """A move that another person has to approve before it is made."""

    id: str
    capability: str
    version: str
    stage: Begun
    rollout: str  # the rollout that would be moved, or begun
    percent: float | None  # of a canary that is to begin elsewhere than at its first step
    digest: str  # of all that is approved; see `digest_of`
    proposed_by: str
    proposed_at: str
    expires_at: str
    reason: str
    verdict: Literal["approved", "withdrawn"] | None = None
    settled_by: str | None = None
    settled_at: str | None = None


def digest_of(
    capability: str, version: str, stage: str, rollout: str, moves: int, percent: float | None, champion: str | None
) -> str:
    """What an approval is bound to: this version, this stage, beside this champion, from this move of the rollout."""
    bound = ["mainstay-approval/1", capability, version, stage, rollout, moves, percent, champion]
    return "sha256:" + hashlib.sha256(msgspec.json.encode(bound)).hexdigest()


def instant(moment: datetime | None = None) -> str:
    """A moment as rows have it, now where none is given; as texts they sort as they follow each other."""
    found = datetime.now(UTC) if moment is None else moment.astimezone(UTC)
    return found.isoformat(timespec="microseconds").replace("+00:00", "Z")
