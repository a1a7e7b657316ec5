"""How good probabilities were, once the truth is known, with what the number of labels allows to say.

`labels: (n,) bool` is what happened, `scores: (n,) float, 0..1` the probability given to it. Every estimate carries an
interval. Intervals hold for one look at labels that do not depend on each other: whoever looks again and again at a
growing window needs a sequential test.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from msgspec import Struct

from mainstay.errors import Misuse
from mainstay.monitoring.intervals import LEVEL, Estimate, logistic, wilson, wilson_of, z_value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from mainstay.capability.types import Promise

    Floats: TypeAlias = NDArray[np.float64]
    Bools: TypeAlias = NDArray[np.bool_]

BINS = 15
ENOUGH_TO_PASS = 100  # labels of each class
ENOUGH_TO_FAIL = 10  # labels of each class; with fewer, the normal approximations behind the intervals do not hold


class ReliabilityBin(Struct, frozen=True, kw_only=True):
    """Decisions with neighbouring scores: what was said, and what happened."""

    n: int
    lowest_score: float
    highest_score: float
    mean_score: float
    rate: Estimate  # share of true labels, Wilson interval


class Threshold(Struct, frozen=True, kw_only=True):
    """Decisions taken by comparing the score with a threshold. None where the share has no denominator."""

    at: float
    accuracy: Estimate | None
    precision: Estimate | None
    recall: Estimate | None


class Verdict(Struct, frozen=True, kw_only=True):
    """A promise held against what happened. `observed`, `low` and `high` are None when nothing could be computed."""

    name: Literal["roc_auc", "calibration_error"]
    verdict: Literal["pass", "fail", "unknown"]
    why: str
    observed: float | None
    low: float | None
    high: float | None
    required: float  # at least, for `roc_auc`; at most, for `calibration_error`
    n: int  # decisions with a label


def judge(promise: Promise, labels: Sequence[bool | None], scores: Sequence[float]) -> list[Verdict]:
    """One verdict for each number promised; none when nothing is promised. A label of None is not known yet.

    *unknown*  fewer than 10 labels of either class; or fewer than 100 and no failure
    *fail*     the interval lies wholly on the wrong side of the promise
    *pass*     the estimate keeps the promise, with at least 100 labels of each class
    *unknown*  otherwise: the estimate breaks the promise, but chance alone may be why

    A promise kept exactly at its bound fails in at most 2.5 % of the looks. Labels that are missing because of what
    they would say (a flight that never lands) are beyond any of this: watch the share of decisions without one.
    Raises Misuse when a score is not a number from 0 to 1 or the lengths differ.
    """
    if len(labels) != len(scores):
        raise Misuse(f"expected one score per label, found {len(labels)} labels and {len(scores)} scores")
    known = np.array([label is not None for label in labels], dtype=np.bool_)
    happened = [label for label in labels if label is not None]
    truth, said = parse_labels_and_scores(happened, _parse_scores(scores)[known])
    verdicts = []
    if promise.roc_auc is not None:
        verdicts.append(_verdict("roc_auc", roc_auc(truth, said), promise.roc_auc, truth))
    if promise.calibration_error is not None:
        error = expected_calibration_error(truth, said)
        verdicts.append(_verdict("calibration_error", error, promise.calibration_error, truth))
    return verdicts


def roc_auc(labels: ArrayLike, scores: ArrayLike, *, level: float = LEVEL) -> Estimate | None:
    """Probability that a true case scores above a false one, ties counting half. None without both classes.

    Variance: DeLong, DeLong, Clarke-Pearson (1988), "Comparing the areas under two or more correlated receiver
    operating characteristic curves", by the midranks of Sun & Xu (2014), "Fast implementation of DeLong's algorithm".
    The interval is symmetric in logit(AUC), which keeps it within 0..1 and near its level for high areas (Pepe 2003,
    "The statistical evaluation of medical tests", 5.2.5). Where DeLong's variance is zero it says nothing; then the
    interval rests on the min(m, n) pairs that use no case twice: the exact binomial bound when all of them agree, that
    of Hoeffding (1963) when all of them tie. A variance needs two cases of each class; with one, the interval is 0..1.

    >>> roc_auc([False, False, True, True], [0.1, 0.4, 0.35, 0.8]).value
    0.75
    """
    truth, said = parse_labels_and_scores(labels, scores)
    positives, negatives = said[truth], said[~truth]
    m, n = len(positives), len(negatives)
    if m == 0 or n == 0:
        return None
    pooled = _midranks(np.concatenate([positives, negatives]))
    above = (pooled[:m] - _midranks(positives)) / n  # share of false cases below each true one
    below = 1 - (pooled[m:] - _midranks(negatives)) / m  # share of true cases above each false one
    area = float(above.mean())
    if m == 1 or n == 1:
        return Estimate(area, 0.0, 1.0)
    variance = float(above.var(ddof=1) / m + below.var(ddof=1) / n)
    if variance == 0 or area in {0.0, 1.0}:
        return _without_variance(area, min(m, n), level)
    centre, width = math.log(area / (1 - area)), z_value(level) * math.sqrt(variance) / (area * (1 - area))
    return Estimate(area, logistic(centre - width), logistic(centre + width))


def expected_calibration_error(
    labels: ArrayLike, scores: ArrayLike, bins: int = BINS, *, level: float = LEVEL
) -> Estimate | None:
    """Mean distance of score and frequency over bins of equal mass, less the part chance alone adds. None for no rows.

    The plug-in value S = sum(w |d|), with w the share of a bin's rows and d its mean label less its mean score, is too
    high, since noise never cancels within |d|. As in Kumar, Liang, Ma (2019), "Verified uncertainty calibration",
    section 5, each d is taken as normal with its own variance and the bias under that model is subtracted; here by
    the mean of a folded normal, exactly, instead of by resampling.

    The interval, [S - b - z v, S + z v] with v^2 = sum(w^2 var) and b = sqrt(2/pi) sum(w sd), is conservative for any
    pattern of miscalibration: E[S] exceeds the truth by between 0 and b (b when calibrated), and S, a Lipschitz
    function of normals, varies no more than v. It is about the error of the binned scores, a lower bound of that of
    the scores themselves.
    """
    truth, said = parse_labels_and_scores(labels, scores)
    if not len(truth):
        return None
    held = _bin(truth, said, bins)
    weights, distances = held.counts / len(truth), held.rates - held.mean_scores
    # One imagined case of each kind, so that a bin in which nothing happened is not taken for certain.
    smooth = (held.counts * held.rates + 1) / (held.counts + 2)
    deviations = np.sqrt(smooth * (1 - smooth) / held.counts)
    plug_in = float(weights @ np.abs(distances))
    chance = float(weights @ (_folded_mean(distances, deviations) - np.abs(distances)))
    spread = z_value(level) * float(np.linalg.norm(weights * deviations))
    most_by_chance = math.sqrt(2 / math.pi) * float(weights @ deviations)
    low, high = max(0.0, plug_in - most_by_chance - spread), min(1.0, plug_in + spread)
    return Estimate(max(low, plug_in - chance), low, high)


def brier_score(labels: ArrayLike, scores: ArrayLike, *, level: float = LEVEL) -> Estimate | None:
    """Mean squared distance of score and label (Brier 1950), with the normal interval of a mean. None for no rows."""
    truth, said = parse_labels_and_scores(labels, scores)
    if not len(truth):
        return None
    squares = (said - truth) ** 2
    mean = float(squares.mean())
    if len(squares) == 1:
        return Estimate(mean, 0.0, 1.0)
    width = z_value(level) * float(squares.std(ddof=1)) / math.sqrt(len(squares))
    return Estimate(mean, max(0.0, mean - width), min(1.0, mean + width))


def reliability(
    labels: ArrayLike, scores: ArrayLike, bins: int = BINS, *, level: float = LEVEL
) -> list[ReliabilityBin]:
    """The table behind a reliability diagram: bins of equal mass, lowest scores first. Equal scores share a bin."""
    truth, said = parse_labels_and_scores(labels, scores)
    if not len(truth):
        return []
    held = _bin(truth, said, bins)
    return [
        ReliabilityBin(
            n=int(count),
            lowest_score=float(lowest),
            highest_score=float(highest),
            mean_score=float(mean),
            rate=wilson_of(round(rate * count) / int(count), int(count), level),
        )
        for count, lowest, highest, mean, rate in zip(
            held.counts, held.lowest, held.highest, held.mean_scores, held.rates, strict=True
        )
    ]


def at_threshold(labels: ArrayLike, scores: ArrayLike, threshold: float = 0.5, *, level: float = LEVEL) -> Threshold:
    """Accuracy, precision and recall of "true when the score is at least the threshold", with Wilson intervals."""
    truth, said = parse_labels_and_scores(labels, scores)
    chosen = said >= threshold
    hits = int((chosen & truth).sum())
    return Threshold(
        at=threshold,
        accuracy=wilson(int((chosen == truth).sum()), len(truth), level=level),
        precision=wilson(hits, int(chosen.sum()), level=level),
        recall=wilson(hits, int(truth.sum()), level=level),
    )


def _without_variance(area: float, pairs: int, level: float) -> Estimate:
    chance = (1 - level) / 2  # per side
    if area in {0.0, 1.0}:
        reach = chance ** (1 / pairs)
        return Estimate(area, reach, 1.0) if area == 1 else Estimate(area, 0.0, 1 - reach)
    width = math.sqrt(-math.log(chance) / (2 * pairs))
    return Estimate(area, max(0.0, area - width), min(1.0, area + width))


def _verdict(
    name: Literal["roc_auc", "calibration_error"], estimate: Estimate | None, required: float, truth: Bools
) -> Verdict:
    positives = int(truth.sum())
    fewest = min(positives, len(truth) - positives)
    verdict: Literal["pass", "fail", "unknown"] = "unknown"
    counted = f"found {positives} true and {len(truth) - positives} false"
    if estimate is None or fewest < ENOUGH_TO_FAIL:
        why = f"expected at least {ENOUGH_TO_FAIL} labels of each class to say anything, {counted}"
    elif estimate.high < required if name == "roc_auc" else estimate.low > required:
        verdict, why = "fail", "the whole interval breaks the promise"
    elif fewest < ENOUGH_TO_PASS:
        why = f"expected at least {ENOUGH_TO_PASS} labels of each class to pass, {counted}"
    elif estimate.value >= required if name == "roc_auc" else estimate.value <= required:
        verdict, why = "pass", "the estimate keeps the promise"
    else:
        why = "the estimate breaks the promise, but its interval still contains it"
    return Verdict(
        name=name,
        verdict=verdict,
        why=why,
        observed=estimate.value if estimate else None,
        low=estimate.low if estimate else None,
        high=estimate.high if estimate else None,
        required=required,
        n=len(truth),
    )


@dataclass(frozen=True, slots=True)
class _Bins:
    """Per bin, lowest scores first; every bin has rows. All (bins,) float."""

    counts: Floats
    mean_scores: Floats
    rates: Floats
    lowest: Floats
    highest: Floats


def bin_starts(ordered: Floats, bins: int = BINS) -> NDArray[np.intp]:
    """Where bins of equal mass begin in `ordered: (n,)` scores, the lowest first; equal scores share a bin."""
    if bins < 1:
        raise Misuse(f"expected at least 1 bin, found {bins}")
    # A cut inside a run of equal scores moves to its beginning, so that the bins do not depend on the order of rows.
    cuts = np.searchsorted(ordered, ordered[np.arange(1, bins) * len(ordered) // bins])
    return np.unique(np.concatenate([[0], cuts]))


def _bin(truth: Bools, said: Floats, bins: int) -> _Bins:
    order = np.argsort(said, kind="stable")
    said, truth = said[order], truth[order]
    starts = bin_starts(said, bins)
    ends = np.append(starts[1:], len(said))
    counts = (ends - starts).astype(np.float64)
    return _Bins(
        counts=counts,
        mean_scores=np.add.reduceat(said, starts) / counts,
        rates=np.add.reduceat(truth.astype(np.float64), starts) / counts,
        lowest=said[starts],
        highest=said[ends - 1],
    )


def _folded_mean(means: Floats, deviations: Floats) -> Floats:
    """E|X| of normal X (Leone, Nelson, Nottingham 1961, "The folded normal distribution"); deviations are above 0."""
    ratio = means / deviations
    tail = np.array([math.erf(value / math.sqrt(2)) for value in ratio])
    return np.asarray(deviations * math.sqrt(2 / math.pi) * np.exp(-(ratio**2) / 2) + means * tail, dtype=np.float64)


def _midranks(values: Floats) -> Floats:
    """Ranks from 1; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[inverse], dtype=np.float64)


def parse_labels_and_scores(labels: ArrayLike, scores: ArrayLike) -> tuple[Bools, Floats]:
    """Both as arrays. Raises Misuse for lengths that differ, a label that is no yes or no, a score outside 0..1."""
    truth: NDArray[Any] = np.asarray(labels)
    said = _parse_scores(scores)
    if truth.shape != said.shape:
        raise Misuse(f"expected one score per label, found shapes {truth.shape} and {said.shape}")
    if len(truth) and not (truth.dtype == np.bool_ or np.isin(truth, (0, 1)).all()):
        raise Misuse("expected every label to be true or false, found another value; leave out rows without a label")
    return truth.astype(np.bool_), said


def _parse_scores(scores: ArrayLike) -> Floats:
    try:
        said = np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise Misuse(f"expected every score to be a number from 0 to 1: {error}") from None
    if said.ndim != 1:
        raise Misuse(f"expected scores in one dimension, found shape {said.shape}")
    wrong = ~((said >= 0) & (said <= 1))  # also true of NaN
    if wrong.any():
        where = int(np.argmax(wrong))
        raise Misuse(f"expected every score to be a number from 0 to 1, found {said[where]} at position {where}")
    return said
