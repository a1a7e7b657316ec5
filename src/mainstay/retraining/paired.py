"""Two versions on the same cases: by how much one is better, with an interval.

Every metric is written as a sum of what each case contributes to it (its influence), for each version; the difference
of a case's two contributions is what the interval rests on. So what is hard for both versions cancels, and the interval
is much narrower than those of the two metrics. Cases of one day are not independent: contributions are added up by
block first (Liang & Zeger 1986, "Longitudinal data analysis using generalized linear models", with the small-sample
factor of MacKinnon & White 1985), and the interval has Student's t with one degree of freedom less than there are
blocks.

A difference is always such that more is better for the challenger, whether the metric is a gain or a loss.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import numpy as np
from scipy.special import stdtrit

from mainstay.errors import Misuse
from mainstay.monitoring.intervals import Estimate

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]
    Influence: TypeAlias = tuple[float, Floats]

MetricName: TypeAlias = Literal["accuracy", "roc_auc", "brier", "log_loss", "precision", "recall", "mae", "rmse"]
LOSSES: Final = frozenset({"brier", "log_loss", "mae", "rmse"})
FEWEST_BLOCKS: Final = 10  # with fewer, cases are taken for blocks, each by itself
LEAST_PROBABILITY: Final = 1e-6  # that is believed in a logarithm


@dataclass(frozen=True, slots=True, eq=False)
class Cases:
    """What one version said of n cases, and the truth. What a metric does not need may be None."""

    truth: NDArray[Any]  # (n,) bool or class; float for numbers
    prediction: NDArray[Any] | None  # (n,) as the truth
    score: Floats | None  # (n,) the probability that the truth is true


@dataclass(frozen=True, slots=True)
class Difference:
    """A metric of both versions, and by how much the challenger is better."""

    metric: str
    champion: float
    challenger: float
    better: Estimate
    cases: int
    blocks: int  # that were taken for independent


def compare(
    metric: MetricName, champion: Cases, challenger: Cases, blocks: NDArray[Any], *, level: float
) -> Difference | None:
    """By how much the challenger is better; None where the metric has no value for one of them, or no interval.

    `blocks: (n,)` says which cases belong together, such as their day. `level` is that of the two-sided interval.
    Raises Misuse when the metric needs something that the cases have not.
    """
    influence = _INFLUENCES[metric]
    first, second = influence(champion), influence(challenger)
    if first is None or second is None:
        return None
    sign = -1.0 if metric in LOSSES else 1.0
    apart = sign * (second[1] - first[1])
    sums, count = _by_block(apart, blocks)
    if count < 2:
        return None
    value = sign * (second[0] - first[0])
    variance = count / (count - 1) * float(np.square(sums - sums.mean()).sum())
    width = float(stdtrit(count - 1, (1 + level) / 2)) * math.sqrt(variance)
    return Difference(metric, first[0], second[0], Estimate(value, value - width, value + width), len(apart), count)


def _by_block(values: Floats, blocks: NDArray[Any]) -> tuple[Floats, int]:
    """The sums of blocks, or the values themselves where blocks are few."""
    _, codes = np.unique(blocks, return_inverse=True)
    count = int(codes.max(initial=-1)) + 1
    if count < FEWEST_BLOCKS:
        return values, len(values)
    return np.bincount(codes, weights=values, minlength=count).astype(np.float64), count


def _mean(values: Floats) -> Influence | None:
    if not len(values):
        return None
    mean = float(values.mean())
    return mean, (values - mean) / len(values)


def _ratio(above: Floats, below: Floats) -> Influence | None:
    """Of sums; the influence by the delta method."""
    total = float(below.sum())
    if not total:
        return None
    ratio = float(above.sum()) / total
    return ratio, (above - ratio * below) / total


def _accuracy(cases: Cases) -> Influence | None:
    return _mean((_predicted(cases) == cases.truth).astype(np.float64))


def _brier(cases: Cases) -> Influence | None:
    return _mean(np.square(_scored(cases) - cases.truth))


def _log_loss(cases: Cases) -> Influence | None:
    said = np.clip(_scored(cases), LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
    return _mean(-np.log(np.where(cases.truth.astype(bool), said, 1 - said)))


def _precision(cases: Cases) -> Influence | None:
    said, true = _predicted(cases).astype(bool), cases.truth.astype(bool)
    return _ratio((said & true).astype(np.float64), said.astype(np.float64))


def _recall(cases: Cases) -> Influence | None:
    said, true = _predicted(cases).astype(bool), cases.truth.astype(bool)
    return _ratio((said & true).astype(np.float64), true.astype(np.float64))


def _mae(cases: Cases) -> Influence | None:
    return _mean(np.abs(_predicted(cases) - cases.truth))


def _rmse(cases: Cases) -> Influence | None:
    found = _mean(np.square(_predicted(cases) - cases.truth))
    if found is None or not found[0]:
        return found
    root = math.sqrt(found[0])
    return root, found[1] / (2 * root)


def _roc_auc(cases: Cases) -> Influence | None:
    """DeLong, DeLong, Clarke-Pearson (1988): each case's part is how it stands among those of the other class."""
    said, true = _scored(cases), cases.truth.astype(bool)
    positives, negatives = said[true], said[~true]
    m, n = len(positives), len(negatives)
    if not m or not n:
        return None
    above = _share_below(positives, negatives)
    below = 1 - _share_below(negatives, positives)
    area = float(above.mean())
    influence = np.empty(len(said))
    influence[true] = (above - area) / m
    influence[~true] = (below - area) / n
    return area, influence


def _share_below(values: Floats, others: Floats) -> Floats:
    """The share of `others` below each value, ties counting half."""
    ordered = np.sort(others)
    both = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
    return np.asarray(both / (2 * len(others)), dtype=np.float64)


def _predicted(cases: Cases) -> NDArray[Any]:
    if cases.prediction is None:
        raise Misuse("this metric is of predictions: expected labels.prediction to be declared, found none")
    return cases.prediction


def _scored(cases: Cases) -> Floats:
    if cases.score is None:
        raise Misuse("this metric is of probabilities: expected labels.score to be declared, found none")
    return cases.score


_INFLUENCES: Final[dict[MetricName, Callable[[Cases], Influence | None]]] = {
    "accuracy": _accuracy,
    "roc_auc": _roc_auc,
    "brier": _brier,
    "log_loss": _log_loss,
    "precision": _precision,
    "recall": _recall,
    "mae": _mae,
    "rmse": _rmse,
}
