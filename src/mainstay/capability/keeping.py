"""What a capability folder declares about being kept in production: what is watched, rollouts, retraining."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeAlias

from msgspec import Meta, Struct

from mainstay.capability.words import (  # noqa: TC001 - msgspec reads the types of a struct
    EntryPoint,
    FieldName,
    FolderPath,
    Name,
    SnapshotName,
    TableName,
    Text,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

Share: TypeAlias = Annotated[float, Meta(ge=0, le=1)]
Chance: TypeAlias = Annotated[float, Meta(gt=0, le=0.5)]  # of being wrong
Days: TypeAlias = Annotated[float, Meta(gt=0, le=3_660)]
Hours: TypeAlias = Annotated[float, Meta(gt=0, le=87_840)]
Many: TypeAlias = Annotated[int, Meta(ge=1, le=1_000_000_000)]
Percent: TypeAlias = Annotated[float, Meta(gt=0, lt=100)]
LabelKind: TypeAlias = Literal["binary", "classes", "number", "ranking"]
MetricName: TypeAlias = Literal[
    "accuracy",
    "roc_auc",
    "average_precision",
    "precision",
    "recall",
    "f1",
    "brier",
    "log_loss",
    "calibration_error",
    "macro_f1",
    "balanced_accuracy",
    "mae",
    "rmse",
    "bias",
    "r2",
    "ndcg",
    "hit_rate",
    "reciprocal_rank",
]
StageName: TypeAlias = Literal["shadow", "canary", "production"]

METRICS: Final[Mapping[LabelKind, tuple[MetricName, ...]]] = {
    "binary": (
        *("roc_auc", "average_precision", "brier", "log_loss", "calibration_error"),
        *("accuracy", "balanced_accuracy", "precision", "recall", "f1"),
    ),
    "classes": ("accuracy", "balanced_accuracy", "macro_f1"),
    "number": ("mae", "rmse", "bias", "r2"),
    "ranking": ("ndcg", "hit_rate", "reciprocal_rank"),
}  # that each kind of label has
OF_A_CLASS_SAID: Final = ("accuracy", "balanced_accuracy", "precision", "recall", "f1")  # binary: need `prediction`
RANGES: Final[Mapping[str, tuple[float, float]]] = {
    **dict.fromkeys(("log_loss", "mae", "rmse"), (0.0, math.inf)),
    "bias": (-math.inf, math.inf),
    "r2": (-math.inf, 1.0),
}  # that a metric can have; every other is from 0 to 1


class Labels(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the truth is and which part of the output it is held against.

    `binary`: the truth is a boolean, or one of two classes, and `score` the probability of `positive`; `classes`: the
    truth is a class, and `prediction` the class said; `number`: the truth and `prediction` are numbers; `ranking`: the
    truth is the list of what was relevant, and `prediction` the list that was offered, the best first.
    """

    kind: LabelKind
    truth: FieldName  # of the outcome
    prediction: FieldName | None = None  # of the output
    score: FieldName | None = None  # of the output: the probability of `positive`
    positive: str | int | bool = True
    expected_days: Days | None = None  # by when nearly all labels should be there; None: learned


class Metric(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A number that is watched once labels are there, and how bad it may be."""

    name: MetricName
    at_least: float | None = None
    at_most: float | None = None
    top: Annotated[int, Meta(ge=1, le=1_000)] = 10  # of ranking metrics: how many of the list count


class BusinessMetric(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A number that the business cares for: the mean of an expression over decisions and their labels.

    The expression has numbers, `+ - * /`, comparisons, `and or not`, `if(condition, then, otherwise)` and the names
    `input.x`, `output.x`, `outcome.x`; a decision for which it has no value is left out, and counted.
    """

    name: Name
    expression: Annotated[str, Meta(min_length=1, max_length=1_000)]
    unit: Text | None = None
    at_least: float | None = None
    at_most: float | None = None


class ServiceLevels(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What callers may rely on, over a rolling period."""

    period_days: Days = 28.0
    availability: Annotated[float, Meta(gt=0, lt=1)] | None = None  # the share of calls answered, by model or fallback
    model_answers: Annotated[float, Meta(gt=0, lt=1)] | None = None  # the share that the model itself answered
    latency_ms: Annotated[float, Meta(gt=0, le=600_000)] | None = None  # within which `latency_share` are answered
    latency_share: Annotated[float, Meta(gt=0, lt=1)] = 0.99
    review_share: Share | None = None  # of decisions that wait for a person, at most
    cost_per_decision: Annotated[float, Meta(ge=0)] | None = None  # at most, in the currency of `cost`


class Cost(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a decision costs."""

    currency: Annotated[str, Meta(pattern=r"^[A-Z]{3}\Z", description="three capital letters (ISO 4217)")] = "EUR"
    per_decision: Annotated[float, Meta(ge=0)] = 0.0
    per_second: Annotated[float, Meta(ge=0)] = 0.0  # that the decision took
    per_review: Annotated[float, Meta(ge=0)] = 0.0


class Monitoring(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is watched, and how sure an alarm has to be."""

    # Of the input, a date or timestamp: when that happened which is decided about, for replays and batches; None: when
    # it was decided. Windows, cohorts and the delay of labels are counted by it.
    time: FieldName | None = None
    window_hours: Hours = 24.0  # what a verdict is about
    step_hours: Annotated[float, Meta(gt=0, le=24)] = 1.0  # what is counted together and added up to windows
    min_rows: Annotated[int, Meta(ge=50, le=1_000_000)] = 500  # of a window, to say anything
    # Of the input: the decisions with each value of each are looked at by themselves, too.
    segments: Annotated[tuple[FieldName, ...], Meta(max_length=16)] = ()
    ignore: tuple[FieldName, ...] = ()  # of the input and the output: their drift says nothing
    smallest_drift: Annotated[float, Meta(gt=0, le=1)] = 0.05  # total variation distance; below it a drift is no matter
    false_alarms_per_month: Annotated[float, Meta(gt=0, le=30)] = 0.5  # of all the drift monitors of the capability
    labels: Labels | None = None
    metrics: tuple[Metric, ...] = ()
    business: Annotated[tuple[BusinessMetric, ...], Meta(max_length=32)] = ()


class ShadowStage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A version that decides beside the one in force, after the answer and without effect."""

    share: Annotated[float, Meta(gt=0, le=1)] = 1.0  # of decisions that it is given
    queue: Annotated[int, Meta(ge=1, le=1_000_000)] = 1_024  # decisions waiting for it per worker; more are dropped
    min_decisions: Many = 1_000  # compared, before it may become a canary
    min_hours: Annotated[float, Meta(ge=0, le=87_840)] = 0.0
    max_disagreement: Share | None = None  # of outcomes and outputs that differ


class Guards(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much worse than the version in force a canary may be; None: not guarded.

    Shares are differences: 0.01 is one decision in a hundred.
    """

    errors: Annotated[float, Meta(ge=0, le=1)] | None = 0.01  # decisions that the model could not answer
    fallback: Annotated[float, Meta(ge=0, le=1)] | None = 0.02
    review: Annotated[float, Meta(ge=0, le=1)] | None = 0.05
    latency: Annotated[float, Meta(ge=0, le=1)] | None = 0.02  # decisions slower than 99 % of those in force
    output: Annotated[float, Meta(gt=0, le=1)] | None = 0.10  # distance of the outputs' distributions
    quality: Annotated[float, Meta(ge=0, le=1)] | None = 0.01  # accuracy, or the loss of the metric on its own scale
    cost: Annotated[float, Meta(ge=0)] | None = None  # per decision, in the currency of `cost`


class CanaryStage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A version that decides for a growing share of the keys."""

    steps: Annotated[tuple[Percent, ...], Meta(min_length=1, max_length=16)] = (5.0, 25.0, 50.0)  # of the keys
    min_decisions: Many = 500  # by the canary, in each step
    min_labels: Annotated[int, Meta(ge=0, le=1_000_000_000)] = 0  # of its decisions, before it may go on
    max_hours: Hours = 336.0  # in each step; then it is given up
    false_rollbacks: Chance = 0.01  # the chance that a version as good as the one in force is rolled back, ever
    guards: Guards = Guards()
    automatic: bool = True  # goes on to the next step and into production by itself


class Rollout(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a version comes into production."""

    shadow: ShadowStage = ShadowStage()
    canary: CanaryStage = CanaryStage()
    required: tuple[Literal["shadow", "canary"], ...] = ()  # stages that no version may leave out
    four_eyes: tuple[StageName, ...] = ()  # stages that another person has to approve


class Trigger(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What asks for retraining."""

    performance: bool = True  # a metric that is surely worse than declared
    drift_with_harm: bool = True  # a drift, and an estimated or measured loss with it
    every_days: Days | None = None


class Retraining(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a challenger is made: in a process of its own, from a frozen snapshot, by the folder's code."""

    train: EntryPoint  # called with `rows` (a Parquet file), `folder` (a copy of the folder, to be changed) and `seed`
    table: TableName | None = None  # of the lake, with the input's fields and the truth; None: labelled decisions
    time: FieldName | None = None  # the column of `table` by which the newest rows are held out
    history_days: Days = 365.0
    holdout_days: Days = 30.0
    min_rows: Many = 1_000
    triggers: Trigger = Trigger()
    cooldown_days: Days = 7.0
    # By which the two are compared; None: roc_auc for binary labels with a score, else accuracy, mae for numbers and
    # ndcg for rankings. Of how many of a list, the metric of this name in `monitoring.metrics` says.
    metric: MetricName | None = None
    confidence: Annotated[float, Meta(ge=0.5, lt=1)] = 0.95  # of the interval by which the challenger must be better
    margin: Annotated[float, Meta(ge=0, le=1)] = 0.0  # and by how much, on the metric's own scale
    segment_margin: Annotated[float, Meta(ge=0, le=1)] = 0.02  # what it may lose on a declared segment
    seed: Annotated[int, Meta(ge=0, le=2**32 - 1)] = 0
    memory_mb: Annotated[int, Meta(ge=64, le=1_048_576)] = 8_192
    time_limit_minutes: Annotated[float, Meta(gt=0, le=10_080)] = 240.0
    snapshot: SnapshotName | None = None  # what snapshots are called, before their date; None: the capability
    files: tuple[FolderPath, ...] = ()  # that training may write, besides the model, the samples and the reference
