"""What labels say of a version, cohort by cohort: when they are mature, how good it is, what the business has of it.

A cohort is the decisions of one whole window. It is judged once, when its labels are mature, by the monitors of
`performance_monitor`: one against what is declared, one against the first cohorts of the version.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import numpy as np
import polars as pl
from msgspec import Struct
from msgspec.structs import replace

from mainstay.errors import Misuse
from mainstay.monitoring.causes import Fall
from mainstay.monitoring.estimated_quality import MOST_KEPT, Kept, estimate_cohort
from mainstay.monitoring.findings import Finding, Interval, Part, severity_of
from mainstay.monitoring.intervals import Estimate, wilson
from mainstay.monitoring.label_counts import DELAY_HOURS, business_value, delays, measured, positives
from mainstay.monitoring.maturity import Cohort, CohortVerdict, MaturityCurve, judge_cohorts, learn_curve
from mainstay.monitoring.metrics import BEST_AT_ZERO, SMALLER_IS_BETTER
from mainstay.monitoring.performance_monitor import (
    FEWEST_LABELS,
    MetricWindow,
    MonitorState,
    PerformanceMonitor,
    PerformanceReference,
    learn_reference,
    rate_for,
)
from mainstay.monitoring.windows import BUSINESS, DELAYS, ENDED, LABELS, SCORES, TRUTHS, Counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mainstay.capability.keeping import BusinessMetric, Labels, Metric, Monitoring
    from mainstay.monitoring.estimation import Estimator, PerformanceEstimate
    from mainstay.monitoring.findings import Cause
    from mainstay.monitoring.performance_monitor import PerformanceVerdict

REFERENCE_COHORTS: Final = 5  # of a version, that later ones are held against
MOST_DAYS: Final = 180.0  # how far back cohorts that wait for labels are looked at
SEGMENT_LABELS: Final = 100  # of a segment, to say whether quality fell there
BUSINESS_LEVEL: Final = 0.999  # of the interval that has to be out of bounds as a whole
DECLARED: Final = "declared"
BEFORE: Final = "first cohorts"
_MOST_ROWS: Final = 200_000  # that a curve is learned from


class LabelMemory(Struct, frozen=True, kw_only=True):
    """What one pass leaves to the next of a version and a metric."""

    judged_until: datetime | None = None  # the end of the newest cohort that was judged
    declared: MonitorState = MonitorState()
    before: MonitorState = MonitorState()
    first: tuple[MetricWindow, ...] = ()
    reference: PerformanceReference | None = None
    standing: tuple[str, ...] = ()  # against what the newest cohort was found to be worse
    estimates: tuple[Kept, ...] = ()  # made without labels of cohorts that were judged, and what the labels said


class CohortCounts(NamedTuple):
    """The counts of a version's decisions of one window."""

    begin: datetime
    end: datetime
    answered: int
    labelled: int
    labels: pl.DataFrame  # rows of the kind LABELS
    late: dict[int, int]  # labels by the bin of their delay
    scores: pl.DataFrame  # rows of the kind SCORES
    ended: pl.DataFrame  # rows of the kinds ENDED and TRUTHS


class Fallen(NamedTuple):
    """A metric that is worse, and what shows it."""

    metric: Metric
    against: str
    verdict: PerformanceVerdict
    fall: Fall


class Judged(NamedTuple):
    """What labels of a version say now."""

    memory: dict[str, LabelMemory]  # by metric
    fallen: tuple[Fallen, ...]  # news, and what still stands
    looked_at: frozenset[tuple[str, str]]  # metric and against: cohorts that were judged now
    cohorts: tuple[CohortVerdict, ...]
    curve: MaturityCurve | None
    labels_changed: str  # how what turns out to be true changed; empty where it did not


def cohorts_of(counted: Counted, version: str, begin: datetime, end: datetime, window: timedelta) -> list[CohortCounts]:
    """The cohorts of a version between two instants, whole windows apart; those without answers are left out."""
    within = pl.col("step").is_between(begin, end, closed="left")
    own = counted.frame.filter(pl.col("version") == version, pl.col("stage") != "shadow", within)
    number = ((pl.col("step") - begin).dt.total_microseconds() // round(window / timedelta(microseconds=1))).alias(
        "number"
    )
    found = []
    for (place,), rows in own.with_columns(number).sort("number").group_by("number", maintain_order=True):
        labels = rows.filter(pl.col("kind") == LABELS)
        whole = labels.filter(pl.col("segment").is_null())
        answered = sum(counts.count(outcome="answered") for _, counts in Counted(rows).service())
        if answered:
            at = begin + window * int(place)
            late = delays(rows.filter(pl.col("kind") == DELAYS))
            scores = rows.filter(pl.col("kind") == SCORES)
            ended = rows.filter(pl.col("kind").is_in([ENDED, TRUTHS]))
            found.append(CohortCounts(at, at + window, answered, int(whole["rows"].sum()), labels, late, scores, ended))
    return found


def learn(cohorts: Sequence[CohortCounts], now: datetime) -> MaturityCurve | None:
    """When labels come, of all cohorts together; None where too few came to say."""
    total = sum(each.answered for each in cohorts)
    thin = max(1.0, total / _MOST_ROWS)
    delay: list[np.ndarray[Any, np.dtype[np.float64]]] = []
    age: list[np.ndarray[Any, np.dtype[np.float64]]] = []
    for each in cohorts:
        waited = max(0.0, (now - each.begin - (each.end - each.begin) / 2).total_seconds())
        for place, n in each.late.items():
            upper = DELAY_HOURS[min(place + 1, len(DELAY_HOURS) - 1)] * 3_600
            kept = round(n / thin)
            delay.append(np.full(kept, min(upper, max(waited, 1.0))))
            age.append(np.full(kept, max(waited, upper)))
        rest = round(max(0, each.answered - each.labelled) / thin)
        delay.append(np.full(rest, np.nan))
        age.append(np.full(rest, waited))
    try:
        return learn_curve(np.concatenate(delay), np.concatenate(age)) if delay else None
    except Misuse:  # too few labels
        return None


def mature_of(
    cohorts: Sequence[CohortCounts], curve: MaturityCurve | None, labels: Labels, now: datetime
) -> list[CohortVerdict]:
    """Which cohorts may be judged by their labels, and in which labels are missing; none without a curve."""
    if curve is None:
        return []
    middle = [(now - each.begin - (each.end - each.begin) / 2).total_seconds() for each in cohorts]
    seen = [
        Cohort(
            start=each.begin,
            decisions=each.answered,
            labels=each.labelled,
            expected_share=curve.share_at(max(0.0, age)),
        )
        for each, age in zip(cohorts, middle, strict=True)
    ]
    youngest = [(now - each.end).total_seconds() for each in cohorts]
    return judge_cohorts(seen, curve, expected_days=labels.expected_days, ages_seconds=youngest)


def judge_version(
    cohorts: Sequence[CohortCounts],
    monitoring: Monitoring,
    memory: dict[str, LabelMemory],
    now: datetime,
    estimator: Estimator | None = None,
) -> Judged:
    """Judge every cohort of a version that became mature since the last time, in their order.

    With an `estimator`, what it would have said without the labels is kept beside what they say.
    """
    labels = monitoring.labels
    assert labels is not None, "without labels there is nothing to judge"
    curve = learn(cohorts, now)
    verdicts = mature_of(cohorts, curve, labels, now)
    kept = dict(memory)
    fallen: list[Fallen] = []
    looked: set[tuple[str, str]] = set()
    for metric in monitoring.metrics:
        state = memory.get(metric.name, LabelMemory())
        for cohort, verdict in zip(cohorts, verdicts, strict=False):  # no verdicts while no curve is known
            is_new = state.judged_until is None or cohort.begin >= state.judged_until
            if not is_new or not verdict.mature or cohort.labelled < FEWEST_LABELS:
                continue
            expected = estimate_cohort(cohort.scores, estimator, metric.name)
            state, found = _judge(state, metric, labels, monitoring, cohort, cohorts, expected)
            looked |= {(metric.name, DECLARED), (metric.name, BEFORE)}
            fallen = [each for each in fallen if each.metric.name != metric.name] + found
        kept[metric.name] = state
    return Judged(
        kept, tuple(fallen), frozenset(looked), tuple(verdicts), curve, _label_rates(cohorts, verdicts, labels)
    )


def _judge(
    state: LabelMemory,
    metric: Metric,
    labels: Labels,
    monitoring: Monitoring,
    cohort: CohortCounts,
    cohorts: Sequence[CohortCounts],
    expected: PerformanceEstimate | None,
) -> tuple[LabelMemory, list[Fallen]]:
    whole = cohort.labels.filter(pl.col("segment").is_null())
    one = measured(metric, labels, whole)
    window = MetricWindow(
        start=cohort.begin,
        end=cohort.end,
        estimate=one.estimate,
        labels=one.n,
        expected=None if expected is None else Estimate(expected.value, expected.low, expected.high),
    )
    if expected is not None and one.estimate is not None:
        kept = Kept(start=cohort.begin, estimate=expected, truth=one.estimate)
        state = replace(state, estimates=(*state.estimates, kept)[-MOST_KEPT:])
    rate = rate_for(monitoring.false_alarms_per_month, monitoring.window_hours, metrics=2 * len(monitoring.metrics))
    found: list[Fallen] = []
    standing: list[str] = []
    if _bound(metric) is not None:
        monitor = PerformanceMonitor(metric, rate=rate, state=state.declared)
        verdict = monitor.look(window)
        state = replace(state, declared=monitor.state)
        if verdict.state == "degraded" or (DECLARED in state.standing and verdict.state == "unknown"):
            standing.append(DECLARED)
            found.append(Fallen(metric, DECLARED, verdict, _fall(metric, labels, cohort, cohorts, verdict)))
    if state.reference is None:
        first = (*state.first, window)
        ready = len(first) >= REFERENCE_COHORTS
        reference = _learned(metric.name, first) if ready else None
        state = replace(state, first=() if reference else first, reference=reference)
    else:
        plain = replace(metric, at_least=None, at_most=None)
        monitor = PerformanceMonitor(plain, state.reference, rate=rate, state=state.before)
        verdict = monitor.look(window)
        state = replace(state, before=monitor.state)
        if verdict.state == "degraded" or (BEFORE in state.standing and verdict.state == "unknown"):
            standing.append(BEFORE)
            found.append(Fallen(metric, BEFORE, verdict, _fall(metric, labels, cohort, cohorts, verdict)))
    return replace(state, judged_until=cohort.end, standing=tuple(standing)), found


def _bound(metric: Metric) -> float | None:
    """What is declared, on the side that is bad."""
    is_small = metric.name in SMALLER_IS_BETTER or metric.name in BEST_AT_ZERO
    return metric.at_most if is_small else metric.at_least


def _learned(metric: str, first: Sequence[MetricWindow]) -> PerformanceReference | None:
    try:
        return learn_reference(metric, first)
    except Misuse:  # too few of them have enough labels
        return None


def _fall(
    metric: Metric, labels: Labels, cohort: CohortCounts, cohorts: Sequence[CohortCounts], verdict: PerformanceVerdict
) -> Fall:
    """By how much a metric fell, and in which segments: where at least half of the loss of the whole is seen."""
    value = verdict.bound if verdict.estimate is None else verdict.estimate.value
    sign = 1.0 if metric.name in SMALLER_IS_BETTER or metric.name in BEST_AT_ZERO else -1.0
    begin = cohort.begin if verdict.retrain is None else verdict.retrain.since
    earlier = [each.labels for each in cohorts if each.begin < begin]
    now = pl.concat([each.labels for each in cohorts if begin <= each.begin <= cohort.begin])
    before = pl.concat(earlier) if earlier else now.clear()
    was = measured(metric, labels, before.filter(pl.col("segment").is_null())).estimate
    whole = measured(metric, labels, now.filter(pl.col("segment").is_null())).estimate
    loss = sign * (value - verdict.bound)
    if was is None or whole is None:
        return Fall(metric=metric.name, loss=loss)
    lost = sign * (whole.value - was.value)
    parts: list[tuple[str, int, bool]] = []
    segments = now.filter(pl.col("segment").is_not_null()).group_by("segment", "value").agg(pl.col("rows").sum())
    for field, name, rows in segments.sort("rows", "value", descending=[True, False]).iter_rows():
        own = (pl.col("segment") == field) & (pl.col("value") == name)
        one, other = (measured(metric, labels, frame.filter(own)) for frame in (before, now))
        if one.estimate is None or other.estimate is None or min(one.n, other.n) < SEGMENT_LABELS:
            continue
        parts.append((f"{field}={name}", rows, sign * (other.estimate.value - one.estimate.value) >= lost / 2))
    total = max(1, sum(rows for _, rows, _ in parts))
    fell = tuple(Part(name=name, share=rows / total) for name, rows, worse in parts if worse)
    return Fall(metric=metric.name, loss=loss, segments=fell, looked_at=len(parts))


def _label_rates(cohorts: Sequence[CohortCounts], verdicts: Sequence[CohortVerdict], labels: Labels) -> str:
    """How the shares of truths differ between the newest mature cohort and all before; empty where they surely do not.

    Wilson intervals at the level 0.999 that lie apart.
    """
    mature = [each for each, verdict in zip(cohorts, verdicts, strict=False) if verdict.mature]
    if len(mature) <= REFERENCE_COHORTS:
        return ""
    whole = pl.col("segment").is_null()
    now = positives(labels, mature[-1].labels.filter(whole))
    before = positives(labels, pl.concat([each.labels for each in mature[:-1]]).filter(whole))
    for name in sorted(now, key=lambda each: -now[each]):
        one, other = (wilson(found.get(name, 0), sum(found.values()), level=0.999) for found in (now, before))
        if one is not None and other is not None and (one.low > other.high or one.high < other.low):
            return f"{name} came true in {one.value:.1%}, before in {other.value:.1%}"
    return ""


# Findings.


def fallen_finding(capability: str, version: str, fallen: Fallen, cause: Cause) -> Finding:
    """What is told of a metric that is worse."""
    verdict, metric = fallen.verdict, fallen.metric
    code = "quality_below" if fallen.against == DECLARED else "quality_fell"
    retrain = verdict.retrain
    since = verdict.start if retrain is None else retrain.since
    now = verdict.estimate if retrain is None else retrain.performance
    found = None if now is None else Interval(value=now.value, low=now.low, high=now.high)
    against = "declared" if fallen.against == DECLARED else "by its first cohorts"
    value = "unknown" if now is None else f"{now.value:.3f}"
    return Finding(
        code=code,
        severity=severity_of(code),
        capability=capability,
        version=version,
        column=metric.name,
        against=against,
        text=f"{metric.name} is {value} since {since:%Y-%m-%d %H:%M}, and {verdict.bound:.3f} {against}",
        observed=found,
        required=verdict.bound,
        window_from=since,
        window_to=verdict.end,
        rows=verdict.labels if retrain is None else retrain.labels,
        numbers={"evidence": verdict.evidence, "evidence_needed": verdict.needed, "loss": fallen.fall.loss},
        cause=cause,
    )


def late_findings(capability: str, version: str, judged: Judged, window: timedelta, cause: Cause) -> list[Finding]:
    """Labels that should have come and have not: of the newest cohort in which they are missing.

    It is over when those of a later cohort are there: what never came once is no news for ever.
    """
    complete = max((place for place, each in enumerate(judged.cohorts) if each.mature), default=-1)
    late = [each for each in judged.cohorts[complete + 1 :] if each.missing]
    if not late:
        return []
    newest = late[-1]
    cohort = newest.cohort
    share = wilson(cohort.labels, max(1, cohort.decisions))
    assert share is not None, "there is at least one decision"
    text = f"{cohort.labels:,} labels of {cohort.start:%Y-%m-%d %H:%M} are there, and {newest.expected:,.0f} should be"
    if others := len(late) - 1:
        text += f"; {others} more window{' lacks' if others == 1 else 's lack'} labels"
    return [
        Finding(
            code="labels_late",
            severity="warning" if cohort.labels < newest.expected / 2 else severity_of("labels_late"),
            capability=capability,
            version=version,
            against="the maturity curve",
            text=text,
            observed=Interval(value=share.value, low=share.low, high=share.high),
            required=cohort.expected_share,
            p_value=newest.p,
            window_from=late[0].cohort.start,
            window_to=cohort.start + window,
            rows=cohort.decisions,
            cause=cause,
        )
    ]


def rate_findings(capability: str, version: str, judged: Judged, window: timedelta, cause: Cause) -> list[Finding]:
    """That what turns out to be true is distributed otherwise in the newest mature cohort."""
    mature = [each.cohort for each in judged.cohorts if each.mature]
    if not judged.labels_changed or not mature:
        return []
    return [
        Finding(
            code="label_rate",
            severity=severity_of("label_rate"),
            capability=capability,
            version=version,
            against="before",
            text=judged.labels_changed,
            window_from=mature[-1].start,
            window_to=mature[-1].start + window,
            rows=mature[-1].labels,
            cause=cause,
        )
    ]


def business_findings(
    capability: str, metrics: Sequence[BusinessMetric], counted: Counted, begin: datetime, end: datetime, cause: Cause
) -> list[Finding]:
    """Business metrics of a window whose whole interval is out of what is declared."""
    rows = counted.frame.filter(pl.col("kind") == BUSINESS, pl.col("step").is_between(begin, end, closed="left"))
    found = []
    for metric in metrics:
        estimate, n, _ = business_value(rows.filter(pl.col("name") == metric.name), level=BUSINESS_LEVEL)
        required = None if estimate is None else _missed(metric, estimate)
        if estimate is None or required is None or n < FEWEST_LABELS:
            continue
        unit = f" {metric.unit}" if metric.unit else ""
        found.append(
            Finding(
                code="business_missed",
                severity=severity_of("business_missed"),
                capability=capability,
                column=metric.name,
                against="declared",
                text=f"{metric.name} is {estimate.value:.4g}{unit} a decision, and {required:g}{unit} is the bound",
                observed=Interval(value=estimate.value, low=estimate.low, high=estimate.high),
                required=required,
                window_from=begin,
                window_to=end,
                rows=n,
                cause=cause,
            )
        )
    return found


def _missed(metric: BusinessMetric, estimate: Estimate) -> float | None:
    if metric.at_least is not None and estimate.high < metric.at_least:
        return metric.at_least
    if metric.at_most is not None and estimate.low > metric.at_most:
        return metric.at_most
    return None


def encode(memory: dict[str, LabelMemory]) -> dict[str, Any]:
    """As plain values, for the database."""
    return {name: msgspec.to_builtins(each) for name, each in memory.items()}


def decode(found: dict[str, Any]) -> dict[str, LabelMemory]:
    """What `encode` made."""
    return {name: msgspec.convert(each, LabelMemory) for name, each in found.items()}
