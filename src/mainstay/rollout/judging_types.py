"""What a judge of a canary is told, and what it says."""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import Struct

from mainstay.rollout.sequential_differences import Sums

Guard: TypeAlias = Literal["errors", "fallback", "review", "latency", "output", "quality", "cost"]
Ruling: TypeAlias = Literal["promote", "roll_back", "keep_collecting"]
Reason: TypeAlias = Literal[
    "harm",  # roll_back: a guard is surely broken
    "waited_too_long",  # roll_back: no harm is known, but what is required was not shown in time
    "minimum_reached",  # promote, to the next step: enough seen, and no guard in doubt
    "not_worse",  # promote, into production: every guard is shown to be kept
    "too_few_decisions",
    "too_few_labels",
    "in_doubt",  # enough seen, but a guard looks broken, without being surely so
    "not_yet_shown",  # before production: nothing looks broken, and that it is not is not sure yet
    "watching",  # in production already: labels still arrive
]
State: TypeAlias = Literal[
    "harmful",  # it is what the version is rolled back for
    "in_doubt",  # it looks broken
    "open",
    "kept",  # surely not worse than tolerated
    "no_evidence",
]


class Arm(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What has arrived of the decisions of one version."""

    decisions: int = 0
    errors: int = 0  # that the model could not answer
    fallback: int = 0  # answered by the fallback ladder
    review: int = 0  # that wait for a person
    untimed: int = 0  # whose time is not their own: several in one call, or rows of batches
    slow: int = 0  # of the others, slower than what 99 % of those in force were faster than, before the canary began
    outputs: dict[str, tuple[int, ...]] = {}  # by output field: answered decisions per bin
    quality: Sums = Sums()  # of labels: of wrong answers, or of losses on the metric's own scale
    cost: Sums = Sums()


class Evidence(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What has arrived of decisions taken in one step of the canary, of both versions up to the same moment.

    Production's decisions of the same time only: a label counts when its decision was taken in this step, whenever it
    arrives.
    """

    step: int = 0
    canary: Arm = Arm()
    production: Arm = Arm()
    segments: dict[str, tuple[Arm, Arm]] = {}  # canary and production
    decisions_per_key: float = 1.0  # sum(m^2)/sum(m) over keys that have m decisions; 1 where keys do not repeat


class Standing(Struct, frozen=True, kw_only=True):
    """How one guard stands, of all decisions or of one segment.

    `errors`, `fallback`, `review` and `latency` are shares, `output` is a distance, `quality` and `cost` are means.
    """

    guard: Guard
    state: State
    required: bool  # whether it has to be shown before the version goes into production
    segment: str | None = None
    field: str | None = None  # of the output
    canary: float | None  # observed; None: nothing, or an output
    production: float | None
    canary_n: int  # decisions, or labels
    production_n: int
    difference: float | None  # of the same time, step by step; None: not enough to say
    low: float | None  # the difference is between, at all times together with 95 %
    high: float | None
    tolerance: float
    harm: float  # e-value that the canary is worse; 100 has a chance of at most 1 % ever, were it as good
    kept: float  # e-value that it is not worse by the tolerance
    more: int | None = None  # decisions, or labels, of the canary until this guard settles; None: not to be said


class Judgement(Struct, frozen=True, kw_only=True):
    """What is to become of a canary."""

    ruling: Ruling
    reason: Reason
    why: str  # for people
    guards: tuple[Standing, ...]  # of all decisions
    segments: tuple[Standing, ...] = ()  # only those harmful, in doubt, or called worse
    harm: float  # e-value over all guards together; 1/false_rollbacks rolls back
    needed: float  # 1/false_rollbacks
    decisions: int  # of the canary in this step
    labels: int  # of the canary's decisions, of all steps
    more: int | None = None  # decisions of the canary until every guard is settled; None: not to be said
