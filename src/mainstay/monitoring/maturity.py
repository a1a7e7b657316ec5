"""When labels come: what share of a cohort's labels should be there by now, and whether fewer came than should.

The curve is the distribution of the delay from a decision to its first label, of decisions of which the youngest have
not been waited for: right censored at their age. Its estimate is that of Kaplan & Meier (1958), "Nonparametric
estimation from incomplete observations", with the variance of Greenwood (1926); it need not rise to 1, because some
decisions never get a label.
"""

from __future__ import annotations

import math
from datetime import datetime  # noqa: TC003 - msgspec reads the types of a struct
from typing import TYPE_CHECKING, Final

import numpy as np
from msgspec import Struct
from scipy.special import bdtr, betaln

from mainstay.errors import Misuse
from mainstay.monitoring.intervals import LEVEL, Estimate, z_value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mainstay.monitoring.intervals import Floats
    from mainstay.monitoring.partition import Ints

FEWEST_LABELS: Final = 30  # to learn a curve from
MATURE: Final = 0.95  # of the labels that will ever come
_MOST_STEPS: Final = 512  # of a curve that is kept
_FEWEST_COHORTS: Final = 4  # to tell how much cohorts differ
_SECONDS_A_DAY: Final = 86_400.0


class MaturityCurve(Struct, frozen=True, kw_only=True):
    """The share of decisions with a label, by age; it is flat between the steps, and beyond the last one."""

    seconds: tuple[float, ...]  # age at each step, rising
    shares: tuple[float, ...]  # that have a label at that age
    deviations: tuple[float, ...]  # standard error of the share
    decisions: int  # that it was learned from
    labels: int
    horizon_seconds: float  # the greatest age that was seen: nothing is known of what comes later

    def share_at(self, seconds: float) -> float:
        return float(self.shares_at(np.array([seconds]))[0])

    def shares_at(self, seconds: Floats) -> Floats:
        places = np.searchsorted(np.array(self.seconds), seconds, side="right")
        return np.concatenate([[0.0], self.shares])[places]

    def interval_at(self, seconds: float, *, level: float = LEVEL) -> Estimate:
        """The share at an age with its pointwise interval, symmetric in log(-log(1 - share))."""
        place = int(np.searchsorted(np.array(self.seconds), seconds, side="right")) - 1
        if place < 0:
            return Estimate(0.0, 0.0, 0.0)
        share, deviation = self.shares[place], self.deviations[place]
        if not 0 < share < 1 or deviation == 0:
            return Estimate(share, share, share)
        rest = 1 - share
        width = z_value(level) * deviation / (rest * abs(math.log(rest)))
        return Estimate(share, 1 - rest ** math.exp(-width), 1 - rest ** math.exp(width))

    def age_of(self, share: float) -> float | None:
        """The age in seconds by which `share` of the labels that will ever come have come. None without any label."""
        if not self.shares or self.shares[-1] <= 0:
            return None
        place = int(np.searchsorted(np.array(self.shares), share * self.shares[-1] - 1e-12))
        return self.seconds[place] if place < len(self.seconds) else None


def learn_curve(delays_seconds: Floats, ages_seconds: Floats) -> MaturityCurve:
    """The curve of `(n,)` delays from a decision to its first label, NaN where there is none yet, and of ages.

    Raises Misuse for fewer than 30 labels, or a delay below 0.
    """
    labelled = ~np.isnan(delays_seconds)
    labels = int(labelled.sum())
    if labels < FEWEST_LABELS:
        raise Misuse(f"expected at least {FEWEST_LABELS} labels to learn from when they come, found {labels}")
    watched = np.where(labelled, delays_seconds, ages_seconds)
    if (watched < 0).any():
        raise Misuse("expected delays and ages of at least 0 seconds")
    times, came = np.unique(delays_seconds[labelled], return_counts=True)
    # Whoever was waited for up to a time, or longer, was at risk of being labelled then.
    at_risk = len(watched) - np.searchsorted(np.sort(watched), times, side="left")
    rest = np.asarray(np.cumprod(1 - came / at_risk), dtype=np.float64)
    left = at_risk - came
    greenwood = np.cumsum(np.divide(came, at_risk * left, out=np.zeros(len(came)), where=left > 0))
    kept = _steps(1 - rest)
    return MaturityCurve(
        seconds=tuple(times[kept].tolist()),
        shares=tuple((1 - rest[kept]).tolist()),
        deviations=tuple((rest[kept] * np.sqrt(greenwood[kept])).tolist()),
        decisions=len(watched),
        labels=labels,
        horizon_seconds=float(max(np.max(ages_seconds), times[-1])),
    )


def _steps(shares: Floats) -> Ints:
    """Places at which a curve of at most 512 steps rises; the last one always."""
    if len(shares) <= _MOST_STEPS:
        return np.arange(len(shares))
    wanted = np.linspace(shares[0], shares[-1], _MOST_STEPS)
    return np.unique(np.append(np.searchsorted(shares, wanted[:-1]), len(shares) - 1))


class Cohort(Struct, frozen=True, kw_only=True):
    """Decisions of one time, as seen now."""

    start: datetime
    decisions: int
    labels: int
    expected_share: float  # that should have a label at the ages its decisions have


class CohortVerdict(Struct, frozen=True, kw_only=True):
    """Whether a cohort may be judged by its labels."""

    cohort: Cohort
    mature: bool  # its share is nearly all that will ever come
    missing: bool  # fewer labels came than should have
    p: float  # of so few labels or fewer, if they came as the curve says
    expected: float  # labels
    why: str


def judge_cohorts(
    cohorts: Sequence[Cohort],
    curve: MaturityCurve,
    *,
    expected_days: float | None = None,
    ages_seconds: Sequence[float] | None = None,
    mature: float = MATURE,
    false_discoveries: float = 0.01,
) -> list[CohortVerdict]:
    """Which cohorts are mature, and in which labels are missing.

    A cohort is mature when the curve has it that `mature` of the labels that ever come are there; with
    `expected_days` declared, when its youngest decision (`ages_seconds`) is that old. One in which labels are missing
    is not mature, whatever its age: what is there is not what should be.

    Labels are missing where a one-sided binomial test says that so few are no chance, at a false discovery rate over
    all cohorts (Benjamini & Hochberg 1995). Cohorts differ more than single decisions would have it: the correlation
    within a cohort is learned from the *other* cohorts and the test is beta-binomial (Williams 1982).
    """
    final = curve.shares[-1] if curve.shares else 0.0
    values = [_p_value(cohorts, place) for place in range(len(cohorts))]
    too_few = _rejected(values, false_discoveries)
    found = []
    for place, (cohort, p, missing) in enumerate(zip(cohorts, values, too_few, strict=True)):
        old = cohort.expected_share >= mature * final
        if expected_days is not None and ages_seconds is not None:
            old = ages_seconds[place] >= expected_days * _SECONDS_A_DAY
        expected = cohort.expected_share * cohort.decisions
        found.append(
            CohortVerdict(
                cohort=cohort,
                mature=old and not missing and cohort.decisions > 0,
                missing=missing,
                p=p,
                expected=expected,
                why=_why(cohort, expected, old=old, missing=missing),
            )
        )
    return found


def _why(cohort: Cohort, expected: float, *, old: bool, missing: bool) -> str:
    seen = f"{cohort.labels} of {cohort.decisions} decisions have a label, {expected:.0f} should"
    if missing:
        return f"labels are missing: {seen}"
    return f"mature: {seen}" if old else f"too young: {seen}"


def _p_value(cohorts: Sequence[Cohort], place: int) -> float:
    cohort = cohorts[place]
    share = min(max(cohort.expected_share, 0.0), 1.0)
    if not cohort.decisions or share == 0:
        return 1.0
    correlation = _correlation([other for i, other in enumerate(cohorts) if i != place])
    if correlation <= 0 or share == 1:
        return float(bdtr(cohort.labels, cohort.decisions, share))
    strength = 1 / correlation - 1
    return _beta_binomial(cohort.labels, cohort.decisions, share * strength, (1 - share) * strength)


def _beta_binomial(most: int, trials: int, a: float, b: float) -> float:
    """The chance of at most so many successes, whose share varies as Beta(a, b)."""
    k = np.arange(most + 1)
    logs = betaln(k + a, trials - k + b) - betaln(a, b) - betaln(trials - k + 1, k + 1) - math.log(trials + 1)
    return min(1.0, float(np.exp(logs).sum()))


def _rejected(p_values: Sequence[float], level: float) -> list[bool]:
    """Benjamini & Hochberg's step up: unlike `false_alarms.discoveries`, for cohorts that do not hinder each other."""
    values = np.array(p_values)
    order = np.argsort(values, kind="stable")
    below = np.flatnonzero(values[order] <= level * np.arange(1, len(values) + 1) / max(1, len(values)))
    found = np.zeros(len(values), np.bool_)
    found[order[: below[-1] + 1 if len(below) else 0]] = True
    return [bool(each) for each in found]


def _correlation(cohorts: Sequence[Cohort]) -> float:
    """Within cohorts, by Pearson's statistic. Its median is taken, so that one cohort in which labels are missing does
    not excuse the next; the median of a chi-square variable with 1 degree of freedom is .455.
    """
    usable = [one for one in cohorts if one.decisions > 1 and 0 < one.expected_share < 1]
    if len(usable) < _FEWEST_COHORTS:
        return 0.0
    n = np.array([one.decisions for one in usable], dtype=np.float64)
    p = np.array([one.expected_share for one in usable])
    squares = (np.array([one.labels for one in usable]) - n * p) ** 2 / (n * p * (1 - p))
    inflation = float(np.median((squares / 0.4549 - 1) / (n - 1)))
    return min(max(inflation, 0.0), 0.5)
