"""Metrics of one version as sums of what each case contributes to them (its influence), by which two are compared.

Of a mean that is the case's distance from it; of ratios, roots and areas, the linear part of what the case changes (the
delta method). The influences of a metric add up to 0.

`step` is the most that another answer to one case would change the metric. Of what was counted it has to be known:
where the few cases on which versions differ happen to agree with each other, or a class has one case, their variance
says nothing of what other cases would have done.

`rests_on` are the shares that cases have in what the metric is divided by: of recall, the true cases have equal ones
and the others none. There are several where it is made of several (the area rests on the true and on the false cases).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import polars as pl

from mainstay.monitoring.metrics_ranking import BY_LIST, find_hits
from mainstay.monitoring.performance import bin_starts, expected_calibration_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from mainstay.capability.keeping import MetricName
    from mainstay.retraining.cases import Blocks, Cases, Floats

LEAST_PROBABILITY: Final = 1e-6  # that is believed in a logarithm
_FEWEST_SPREAD: Final = 3  # rows by which a variance is explained


class Influence(NamedTuple):
    """A metric of n cases. The truth of `value` lies within `value - below` to `value + above`, but for chance."""

    value: float
    parts: Floats  # (n,) what each case contributes
    rests_on: tuple[Floats, ...]  # each (n,), of sum 1
    step: float = 0.0
    below: float = 0.0
    above: float = 0.0


def influence(metric: MetricName, cases: Cases, blocks: Blocks, top: int) -> Influence | None:
    """A metric of cases; None where it has no value. `top` is how many of a list count.

    Raises Misuse when the metric needs something that the cases have not.
    """
    if metric in BY_LIST:
        return _by_list(metric, cases, top)
    if metric == "calibration_error":
        return _calibration_error(cases, blocks)
    return _OF_CASES[metric](cases)


def _mean(values: Floats, step: float = 0.0) -> Influence | None:
    """Of values that another answer changes by `step` at most, 0 where nothing bounds it."""
    n = len(values)
    if not n:
        return None
    mean = float(values.mean())
    return Influence(mean, (values - mean) / n, _evenly(n), step / n)


def _evenly(n: int) -> tuple[Floats]:
    return (np.full(n, 1 / n),)


# Of a yes or no


def _ratio(above: Floats, below: Floats, steps: Callable[[float], float]) -> Influence | None:
    """Of sums. `steps` gives from the ratio the most that one case changes it, times the sum below."""
    total = float(below.sum())
    if not total:
        return None
    ratio = float(above.sum()) / total
    return Influence(ratio, (above - ratio * below) / total, (below / total,), steps(ratio) / total)


def _yes(cases: Cases) -> tuple[Floats, Floats]:
    """Whether each was true, and was said to be: 0 or 1."""
    return cases.truth.astype(bool).astype(np.float64), cases.predicted().astype(bool).astype(np.float64)


def _precision(cases: Cases) -> Influence | None:
    true, said = _yes(cases)
    return _ratio(true * said, said, lambda ratio: max(ratio, 1 - ratio))


def _recall(cases: Cases) -> Influence | None:
    true, said = _yes(cases)
    return _ratio(true * said, true, lambda _: 1.0)


def _f1(cases: Cases) -> Influence | None:
    """2 h / (t + s), of h hits, t that were true and s that were said: a hit more adds 2 above and 1 below."""
    true, said = _yes(cases)
    return _ratio(2 * true * said, true + said, lambda ratio: 2 - ratio)


# Of classes, of which a yes or no has two


def _accuracy(cases: Cases) -> Influence | None:
    return _mean(_hits(cases), step=1.0)


def _balanced_accuracy(cases: Cases) -> Influence | None:
    """The mean of the shares found of each class that occurred. Of a yes or no both have to."""
    hits = _hits(cases)
    classes, codes = np.unique(cases.truth, return_inverse=True)
    k = len(classes)
    if not k or (k < 2 and cases.truth.dtype == np.bool_):
        return None
    sizes = np.bincount(codes).astype(np.float64)
    shares = np.bincount(codes, weights=hits) / sizes
    weights = 1 / (sizes[codes] * k)
    step = float(np.linalg.norm(1 / (k * (sizes + 1))))
    rests_on = _by_class(cases.truth) if cases.truth.dtype == np.bool_ else (weights,)
    return Influence(float(shares.mean()), (hits - shares[codes]) * weights, rests_on, step)


def _macro_f1(cases: Cases) -> Influence | None:
    """The mean of F1 over the classes that occurred or were said.

    Takahashi, Yamamoto, Kuchiba, Koyama (2022), "Confidence interval for micro-averaged F1 and macro-averaged F1
    scores"; the influence is that of `monitoring.metrics_classes.macro_f1`, by row instead of by cell.
    """
    hits, n = _hits(cases), len(cases.truth)
    if not n:
        return None
    names = np.concatenate([cases.truth, cases.predicted()]).astype(np.str_)
    classes, codes = np.unique(names, return_inverse=True)
    true, said, k = codes[:n], codes[n:], len(classes)
    sizes = np.bincount(codes).astype(np.float64)
    each = 2 * np.bincount(true, weights=hits, minlength=k) / sizes
    pull = each / sizes  # what a row takes from F1 by being of the class, or said to be
    parts = (2 * hits / sizes[true] - pull[true] - pull[said]) / k
    weights = (1 / sizes[true] + 1 / sizes[said]) / k
    return Influence(float(each.mean()), parts, (weights,), float(np.linalg.norm((2 - each) / (k * (sizes + 2)))))


def _hits(cases: Cases) -> Floats:
    return np.asarray(cases.predicted() == cases.truth, dtype=np.float64)


# Of probabilities


def _brier(cases: Cases) -> Influence | None:
    return _mean(np.square(cases.scored() - cases.truth))


def _log_loss(cases: Cases) -> Influence | None:
    said = np.clip(cases.scored(), LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
    return _mean(-np.log(np.where(cases.truth.astype(bool), said, 1 - said)))


def _roc_auc(cases: Cases) -> Influence | None:
    """DeLong, DeLong, Clarke-Pearson (1988): each case's part is how it stands among those of the other class."""
    said, true = cases.scored(), cases.truth.astype(bool)
    positives, negatives = said[true], said[~true]
    m, n = len(positives), len(negatives)
    if not m or not n:
        return None
    above = _share_below(positives, negatives)
    below = 1 - _share_below(negatives, positives)
    area = float(above.mean())
    parts = np.empty(len(said))
    parts[true] = (above - area) / m
    parts[~true] = (below - area) / n
    return Influence(area, parts, _by_class(true))


def _by_class(true: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    return true / true.sum(), ~true / (~true).sum()


def _share_below(values: Floats, others: Floats) -> Floats:
    """The share of `others` below each value, ties counting half."""
    ordered = np.sort(others)
    both = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
    return np.asarray(both / (2 * len(others)), dtype=np.float64)


def _average_precision(cases: Cases) -> Influence | None:
    """The mean, over the true cases, of the precision among the cases scored at least as high.

    A case has its own precision, if it is true, and a part in that of every true case scored as high or lower: the
    derivative by its weight.
    """
    said, true = cases.scored(), cases.truth.astype(np.float64)
    m = float(true.sum())
    if not m:
        return None
    levels, codes = np.unique(-said, return_inverse=True)  # the highest score first
    inside = np.bincount(codes, weights=true, minlength=len(levels))
    among = np.cumsum(np.bincount(codes, minlength=len(levels)))
    precision = np.cumsum(inside) / among
    area = float(inside @ precision) / m
    raised = np.cumsum((inside / among)[::-1])[::-1]
    lowered = np.cumsum((inside * precision / among)[::-1])[::-1]
    parts = (true * (precision[codes] - area) + true * raised[codes] - lowered[codes]) / m
    return Influence(area, parts, (true / m,))


def _calibration_error(cases: Cases, blocks: Blocks) -> Influence | None:
    """As `monitoring.performance.expected_calibration_error`, of cases that hang together by block.

    The plug-in value is too high by between 0 and sqrt(2 / pi) times the deviations of the bins together, however the
    scores are wrong; how far it is lies between versions, and so it is no part of what cancels.
    """
    said, true = cases.scored(), cases.truth.astype(bool)
    found = expected_calibration_error(true, said)
    if found is None:
        return None
    n, residuals = len(said), true - said
    order = np.argsort(said, kind="stable")
    starts = bin_starts(said[order])
    bins = np.empty(n, np.intp)
    bins[order] = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, n)))
    gaps = np.bincount(bins, weights=residuals) / n
    plug_in = float(np.abs(gaps).sum())
    chance = math.sqrt(2 / math.pi) * float(_deviations(true, residuals, bins, blocks).sum())
    parts = (np.sign(gaps)[bins] * residuals - plug_in) / n
    value = min(found.value, plug_in)
    return Influence(value, parts, _evenly(n), below=max(0.0, value - (plug_in - chance)), above=plug_in - value)


def _deviations(true: NDArray[np.bool_], residuals: Floats, bins: NDArray[np.intp], blocks: Blocks) -> Floats:
    """Of the part of each bin in the error: by block, and no less than of cases by themselves."""
    n, k = len(residuals), int(bins.max()) + 1
    pairs, place = np.unique(blocks.of * k + bins, return_inverse=True)
    sums = np.bincount(place, weights=residuals) / n
    squares = np.bincount(pairs % k, weights=sums**2, minlength=k)
    total = np.bincount(bins, weights=residuals, minlength=k) / n
    counts = np.bincount(bins, minlength=k)
    # One imagined case of each kind, so that a bin in which nothing happened is not taken for certain.
    smooth = (np.bincount(bins, weights=true, minlength=k) + 1) / (counts + 2)
    apart = blocks.count / (blocks.count - 1) * (squares - total**2 / blocks.count)
    return np.sqrt(np.maximum(apart, smooth * (1 - smooth) * counts / n**2))


# Of numbers


def _mae(cases: Cases) -> Influence | None:
    return _mean(np.abs(cases.predicted() - cases.truth))


def _bias(cases: Cases) -> Influence | None:
    return _mean(cases.predicted() - cases.truth)


def _rmse(cases: Cases) -> Influence | None:
    found = _mean(np.square(cases.predicted() - cases.truth))
    if found is None or not found.value:
        return found
    root = math.sqrt(found.value)
    return Influence(root, found.parts / (2 * root), found.rests_on)


def _r2(cases: Cases) -> Influence | None:
    """1 less the mean square of the error over the variance of the truth, where there is one in 3 rows or more."""
    n = len(cases.truth)
    if n < _FEWEST_SPREAD:
        return None
    spread = np.square(cases.truth - cases.truth.mean())
    variance = float(spread.mean())
    if not variance:
        return None
    squares = np.square(cases.predicted() - cases.truth)
    rest = float(squares.mean()) / variance
    return Influence(1 - rest, -(squares - rest * spread) / (variance * n), _evenly(n))


# Of lists


def _by_list(metric: MetricName, cases: Cases, top: int) -> Influence | None:
    """The mean over lists; one for which nothing was relevant says nothing of the order, and is left out."""
    said = cases.predicted()
    counted = np.fromiter((len(each) > 0 for each in cases.truth), np.bool_, len(cases.truth))
    hits = find_hits(_lists(cases.truth[counted]), _lists(said[counted]), top)
    found = _mean(BY_LIST[metric](hits), step=1.0)
    if found is None:
        return None
    parts = np.zeros(len(counted))
    parts[counted] = found.parts
    return found._replace(parts=parts, rests_on=(counted / counted.sum(),))


def _lists(values: NDArray[Any]) -> pl.Series:
    return pl.Series([list(each) for each in values], dtype=pl.List(pl.String))


_OF_CASES: Final[dict[MetricName, Callable[[Cases], Influence | None]]] = {
    "accuracy": _accuracy,
    "balanced_accuracy": _balanced_accuracy,
    "precision": _precision,
    "recall": _recall,
    "f1": _f1,
    "macro_f1": _macro_f1,
    "roc_auc": _roc_auc,
    "average_precision": _average_precision,
    "brier": _brier,
    "log_loss": _log_loss,
    "mae": _mae,
    "rmse": _rmse,
    "bias": _bias,
    "r2": _r2,
}
