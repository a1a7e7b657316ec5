"""Quality before labels are there: what it probably is, whether that is surely too little, and how such words held.

An estimate is no measurement. It is told as one that holds under its assumption, it is not told where labels say it
themselves, and not of a metric whose earlier estimates turned out not to hold.
"""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - msgspec reads the types of a struct
from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec import Struct

from mainstay.monitoring.estimation import PerformanceEstimate  # noqa: TC001 - msgspec reads the types of a struct
from mainstay.monitoring.estimation_counts import added_scores, estimable, estimate_counted
from mainstay.monitoring.estimation_record import Track, score_estimates
from mainstay.monitoring.findings import Finding, Interval, severity_of
from mainstay.monitoring.intervals import LEVEL, Estimate

if TYPE_CHECKING:
    from collections.abc import Sequence

    import polars as pl

    from mainstay.capability.keeping import Metric
    from mainstay.monitoring.drifting import Window
    from mainstay.monitoring.estimation import Estimator
    from mainstay.monitoring.findings import Cause

MOST_KEPT: Final = 100  # windows that were estimated and then measured, of each metric
STRANGE: Final = 0.1  # share of answers unlike the reference, from which on it is told


class Kept(Struct, frozen=True, kw_only=True):
    """An estimate, and what the labels said later."""

    start: datetime
    estimate: PerformanceEstimate
    truth: Estimate


class Below(NamedTuple):
    """A metric that is probably out of its bound: the whole interval is."""

    metric: Metric
    bound: float
    estimate: PerformanceEstimate


def estimate_cohort(rows: pl.DataFrame, estimator: Estimator | None, metric: str) -> PerformanceEstimate | None:
    """A metric of the decisions of one time, of their rows of the kind SCORES; None where nothing can be said."""
    if estimator is None:
        return None
    return estimate_counted(estimator, added_scores(rows, estimator), estimable([metric])).get(metric)


def track_of(kept: Sequence[Kept], reference: float | None = None) -> Track | None:
    """What the estimates of a metric were worth; `reference` is what it was when all was well."""
    return score_estimates([each.estimate for each in kept], [each.truth for each in kept], reference=reference)


def find_below(
    rows: pl.DataFrame, estimator: Estimator, metrics: Sequence[Metric], *, rate: float, fewest: int
) -> tuple[list[Below], frozenset[str]]:
    """The metrics that are probably out of their bound in a window, and all that could be looked at.

    `rate` is how often each may be told of a metric that is just at its bound; `fewest`, answers to say anything.
    """
    bounded: dict[str, Metric] = {
        each.name: each for each in metrics if each.at_least is not None or each.at_most is not None
    }
    counted = added_scores(rows, estimator)
    if counted.rows < fewest:
        return [], frozenset()
    estimates = estimate_counted(estimator, counted, estimable(bounded), level=max(LEVEL, 1 - 2 * rate))
    found = []
    for name, one in estimates.items():
        metric = bounded[name]
        if metric.at_least is not None and one.high < metric.at_least:
            found.append(Below(metric, metric.at_least, one))
        elif metric.at_most is not None and one.low > metric.at_most:
            found.append(Below(metric, metric.at_most, one))
    return found, frozenset(estimates)


def below_finding(capability: str, version: str, below: Below, window: Window, cause: Cause) -> Finding:
    """What is told of an estimate that is out of its bound."""
    one = below.estimate
    text = (
        f"{one.metric} is probably {one.value:.3f}, and {below.bound:g} is declared: an estimate before labels are"
        f" there, which assumes {one.assumption}"
    )
    if one.unsupported >= STRANGE:
        text += f"; {one.unsupported:.0%} of the answers are unlike the reference, there it is a guess"
    return Finding(
        code="estimate_below",
        severity=severity_of("estimate_below"),
        capability=capability,
        version=version,
        column=one.metric,
        against="declared",
        text=text,
        observed=Interval(value=one.value, low=one.low, high=one.high),
        required=below.bound,
        window_from=window.begin,
        window_to=window.end,
        rows=one.n,
        numbers={
            "level": one.level,
            "label_deviation": one.label_deviation,
            "calibration_deviation": one.calibration_deviation,
            "chunk_deviation": one.chunk_deviation,
            "unsupported": one.unsupported,
        },
        cause=cause,
    )
