"""Checks: questions asked of the evidence before a version comes to a stage. The list of them is closed.

A verdict is *pass*, *fail* or *unknown*, and unknown is never a pass: a gate opens where every check that its stage
needs passes. `docs/reference/checks.md` has the same list; a test holds the two together.
"""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - msgspec reads the types of a struct
from typing import Final, Literal, NamedTuple, TypeAlias

from msgspec import Struct

Stage: TypeAlias = Literal["shadow", "canary", "production", "retired"]
Verdict: TypeAlias = Literal["pass", "fail", "unknown"]
CheckId: TypeAlias = Literal[
    "version-whole",
    "model-signed",
    "samples-run",
    "conversion-agrees",
    "policies-compile",
    "expressions-compile",
    "contract-compatible",
    "reference-fitted",
    "promise-on-reference",
    "training-known",
    "runbook-there",
    "owner-reachable",
    "fallback-answers",
    "rollback-possible",
    "stages-passed",
    "nothing-else-on-trial",
    "shadow-compared",
    "shadow-agrees",
    "canary-guards",
    "labels-enough",
    "no-critical-finding",
    "service-levels-kept",
    "promise-kept",
    "approval-given",
    "out-of-force",
]

STAGES: Final[tuple[Stage, ...]] = ("shadow", "canary", "production", "retired")

_ALL: Final[tuple[Stage, ...]] = STAGES
_DECIDING: Final[tuple[Stage, ...]] = ("shadow", "canary", "production")
_TRUSTED: Final[tuple[Stage, ...]] = ("canary", "production")
_LAST: Final[tuple[Stage, ...]] = ("production",)


class Question(NamedTuple):
    """What a check asks, before which stages, and where its stage needs it to pass."""

    text: str
    stages: tuple[Stage, ...]
    needed: str


ALWAYS: Final = "always"
NEVER: Final = "never: it is told"

CHECKS: Final[dict[CheckId, Question]] = {
    # The version by itself.
    "version-whole": Question("Is every file of the version what was registered?", _ALL, ALWAYS),
    "model-signed": Question("Did somebody who is known sign the model's file?", _DECIDING, NEVER),
    "samples-run": Question(
        "Does the model answer every sample record, within the contract?", _DECIDING, "where the model is here"
    ),
    "conversion-agrees": Question("Does the converted model say what the original said?", _DECIDING, ALWAYS),
    "policies-compile": Question("Are the policies of the version sound?", _DECIDING, ALWAYS),
    "expressions-compile": Question("Can the numbers of the business be worked out?", _DECIDING, ALWAYS),
    "contract-compatible": Question(
        "Do callers of the version in force keep what they were promised?", _DECIDING, ALWAYS
    ),
    "reference-fitted": Question("Is it known what ordinary input looks like?", _DECIDING, "where rows are declared"),
    "promise-on-reference": Question(
        "Is the pilot's promise kept on rows that the model was not fitted to?",
        _TRUSTED,
        "where the reference has 100 rows of each class",
    ),
    "training-known": Question(
        "Is it known which rows the model was fitted to?", _DECIDING, "where the declaration names a snapshot"
    ),
    "runbook-there": Question("Does it stand somewhere what to do at 2 am?", _TRUSTED, NEVER),
    "owner-reachable": Question("Is there somebody who answers for it?", _TRUSTED, NEVER),
    "fallback-answers": Question(
        "Does something answer when the model does not?", _TRUSTED, "where a rung names a version"
    ),
    # What is in force, and the rollout.
    "rollback-possible": Question("Is there something whole to go back to?", _TRUSTED, ALWAYS),
    "stages-passed": Question("Did it pass the stages that the version in force requires?", _TRUSTED, ALWAYS),
    "nothing-else-on-trial": Question("Is no other version on trial?", _DECIDING, ALWAYS),
    "shadow-compared": Question(
        "Was it compared with the version in force for long enough?", _TRUSTED, "where it is a shadow, or has to be one"
    ),
    "shadow-agrees": Question(
        "Does it say something else no more often than it may?", _TRUSTED, "where `max_disagreement` is declared"
    ),
    "canary-guards": Question(
        "Is it shown to be no worse than the version in force?", _LAST, "where it is a canary, or has to be one"
    ),
    "labels-enough": Question("Are enough outcomes known of what it decided?", _LAST, "where `min_labels` is declared"),
    # What monitoring knows.
    "no-critical-finding": Question(
        "Is nothing critical known of it, of the data or of the service?", _TRUSTED, "where a monitor pass was made"
    ),
    "service-levels-kept": Question(
        "Is the error budget of every service level left?", _TRUSTED, "where levels are declared and were looked at"
    ),
    "promise-kept": Question("Is the pilot's promise kept in production?", _LAST, "of the version in force"),
    "approval-given": Question(
        "Has somebody else approved it?", _DECIDING, "where `rollout.four_eyes` names the stage"
    ),
    # Before it goes.
    "out-of-force": Question("Does it decide for nobody any more?", ("retired",), ALWAYS),
}


class Found(NamedTuple):
    """What a check found."""

    verdict: Verdict
    observed: str
    required: str
    needed: bool = True  # whether the stage needs it to pass
    evidence: tuple[str, ...] = ()  # ids: of entries, findings, rollouts, proposals; digests; versions of tables
    since: datetime | None = None  # when the evidence came about; None: it was looked at just now


class Check(Struct, frozen=True, kw_only=True):
    """One question, answered."""

    id: CheckId
    question: str
    verdict: Verdict
    observed: str
    required: str
    needed: bool
    evidence: tuple[str, ...] = ()
    age_seconds: float = 0.0  # of the evidence

    @property
    def holds(self) -> bool:
        """Whether it lets the version in."""
        return self.verdict == "pass" or not self.needed


class Report(Struct, frozen=True, kw_only=True):
    """The checks of a version before a stage."""

    capability: str
    version: str
    stage: Stage
    at: datetime
    checks: tuple[Check, ...]

    @property
    def passes(self) -> bool:
        """Whether the gate is open: every check that is needed passes."""
        return all(each.holds for each in self.checks)

    @property
    def closed_by(self) -> tuple[Check, ...]:
        """The checks that keep it shut."""
        return tuple(each for each in self.checks if not each.holds)
