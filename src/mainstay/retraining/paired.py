"""Two versions on the same cases: by how much one is better, with an interval.

The interval rests on the difference of what each case contributes to the metric of either version (`influences.py`).
So what is hard for both versions cancels, and the interval is much narrower than those of the two metrics. Cases of one
day are not independent: contributions are added up by block first (Liang & Zeger 1986, "Longitudinal data analysis
using generalized linear models"). A block that has much of what the metric rests on moves the metric towards itself,
and would seem to vary too little: each counts as if the metric were without it (the jackknife of MacKinnon & White
1985, "Some heteroskedasticity-consistent covariance matrix estimators with improved finite sample properties").
Student's t has one degree of freedom less than there would be blocks of one size that say as much (Kish 1965, "Survey
sampling").

Of what was counted (shares, F1, what is right in lists) the few cases that versions answer differently may happen to
lie on one side. One more is added on either side, as Bonett & Price (2012), "Adjusted Wald confidence interval for a
difference of binomial proportions based on paired data", do: to the variance, by the most that one case changes.

Two kinds of metric bend at their best value, where noise makes both versions look worse, and not alike. Their intervals
make room for it, and are wider than they say: that of the calibration error by the bias that chance may have, that of
the bias by bounds of the sum and of the difference of the two together (|a| - |b| is the smaller of |a + b| and
|a - b|, with the sign of their product).

A difference is always such that more is better for the challenger, whether the metric is a gain or a loss.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from mainstay.monitoring.intervals import Estimate, t_value
from mainstay.monitoring.metrics import BEST_AT_ZERO, SMALLER_IS_BETTER
from mainstay.monitoring.performance import ENOUGH_TO_FAIL
from mainstay.retraining.cases import block
from mainstay.retraining.influences import influence

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from mainstay.capability.keeping import MetricName
    from mainstay.retraining.cases import Blocks, Cases, Floats
    from mainstay.retraining.influences import Influence

LOSSES: Final = SMALLER_IS_BETTER | BEST_AT_ZERO
MOST_OF_ONE: Final = 0.9  # that a block may have of what a metric rests on
TOP: Final = 10  # of a list that count, where nothing else is said
_OF_YES: Final = frozenset({"recall", "f1", "average_precision"})
_OF_BOTH: Final = frozenset({"roc_auc", "balanced_accuracy", "calibration_error"})


@dataclass(frozen=True, slots=True)
class Difference:
    """A metric of both versions, and by how much the challenger is better: of the bias, by how much nearer to 0."""

    metric: str
    champion: float
    challenger: float
    better: Estimate
    cases: int
    blocks: int  # that were taken for independent


def compare(
    metric: MetricName, champion: Cases, challenger: Cases, blocks: NDArray[Any], *, level: float, top: int = TOP
) -> Difference | None:
    """By how much the challenger is better; None where the metric has no value for one of them, or no interval: what it
    rests on lies in fewer than two blocks, or nearly all in one.

    `blocks: (n,)` says which cases belong together, such as their day. `level` is that of the two-sided interval. `top`
    is how many of a list count, for metrics of lists. Raises Misuse when the metric needs something that the cases have
    not.
    """
    grouped = block(blocks)
    if grouped.count < 2:
        return None
    first, second = (influence(metric, each, grouped, top) for each in (champion, challenger))
    if first is None or second is None:
        return None
    spread = _spread(grouped, (*first.rests_on, *second.rests_on))
    if spread.freedom < 1 or spread.shares.max() > MOST_OF_ONE:
        return None
    apart = _nearer_zero if metric in BEST_AT_ZERO else _less if metric in LOSSES else _more
    better = apart(first, second, spread, level)
    return Difference(metric, first.value, second.value, better, len(first.parts), grouped.count)


def lacking(metric: MetricName, champion: Cases, challenger: Cases) -> str:
    """What keeps cases from deciding, in words; nothing where they can.

    With fewer than ENOUGH_TO_FAIL cases of a class the linear parts say too little of what such cases contribute.
    """
    told = []
    if champion.truth.dtype == np.bool_:
        yes = int(champion.truth.sum())
        counts = {"that were yes": yes} if metric in _OF_YES | _OF_BOTH else {}
        if metric in _OF_BOTH:
            counts["that were no"] = len(champion.truth) - yes
        if metric == "precision":
            counts["that the champion says yes to"] = int(champion.predicted().astype(bool).sum())
            counts["that the challenger says yes to"] = int(challenger.predicted().astype(bool).sum())
        told = [f"{n} {what}" for what, n in counts.items() if n < ENOUGH_TO_FAIL]
    return f"expected at least {ENOUGH_TO_FAIL} rows of each kind, found {' and '.join(told)}" if told else ""


class _Spread(NamedTuple):
    """How what the metrics rest on is spread over blocks."""

    blocks: Blocks
    shares: Floats  # (blocks,) the largest that each has in any of it
    freedom: float  # of Student's t


def _spread(blocks: Blocks, rests_on: Sequence[Floats]) -> _Spread:
    shares = np.array([blocks.sums(each) for each in rests_on])
    return _Spread(blocks, shares.max(axis=0), 1 / float(np.square(shares).sum(axis=1).max()) - 1)


def _more(first: Influence, second: Influence, spread: _Spread, level: float) -> Estimate:
    """By how much the second is more."""
    value = second.value - first.value
    count = spread.blocks.count
    without = spread.blocks.sums(second.parts - first.parts) / (1 - spread.shares)
    variance = (count - 1) / count * float(np.square(without).sum()) + 2 * max(first.step, second.step) ** 2
    width = t_value(level, spread.freedom) * math.sqrt(variance)
    low, high = second.below + first.above + width, second.above + first.below + width
    return Estimate(value, value - low, value + high)


def _less(first: Influence, second: Influence, spread: _Spread, level: float) -> Estimate:
    """By how much the second is less."""
    return _more(second, first, spread, level)


def _nearer_zero(first: Influence, second: Influence, spread: _Spread, level: float) -> Estimate:
    """By how much the second is nearer to 0. The least and most of a function of two bounded numbers, which rises or
    falls with each throughout, lie at corners.
    """
    each = 1 - (1 - level) / 2  # of two intervals that hold together
    apart = _less(first, second, spread, each)
    opposite = second._replace(value=-second.value, parts=-second.parts)
    together = _less(first, opposite, spread, each)
    corners = [_of_both(d, s) for d, s in product((apart.low, apart.high), (together.low, together.high))]
    value = abs(first.value) - abs(second.value)
    return Estimate(value, min(corners), max(corners))


def _of_both(apart: float, together: float) -> float:
    """|a| - |b|, of a - b and a + b."""
    return (abs(together + apart) - abs(together - apart)) / 2
