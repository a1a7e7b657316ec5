"""How good decisions probably were before their labels are there.

Confidence-based estimation: a metric is what it would be, on average, if each score were a true probability. Scores
are made so by a reference with labels, and reweighted to the window: within a cell of the input space (`partition.py`)
and of the score, the reference's frequency is taken; over cells, the window's own shares. That is a reference weighted
by the ratio of the two densities, both as histograms over cells (Sugiyama, Krauledat, Müller 2007, "Covariate shift
adaptation by importance weighted cross validation"), with each cell drawn to the smooth calibration by a beta prior.

Scores are looked at in fine bins (`score_bins.py`), so that a window is a table of counts by leaf, bin and prediction,
from which all metrics follow that need no more than the order of scores.

What may err: labels are chance themselves (Poisson-binomial); the reference is finite (posterior variance of a cell);
and neighbouring decisions share what neither input nor score shows (the variance between chunks of the reference that
the first two do not explain, with cross-fitting by contiguous folds).

It is blind to concept shift: when the same inputs mean something else now, nothing here can know. Every one says so.
"""

from __future__ import annotations

import math
from functools import cached_property
from statistics import NormalDist
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import numpy as np
from msgspec import Struct, structs

from mainstay.errors import Misuse
from mainstay.monitoring.expected_metrics import BY_ANSWER, BY_SCORE, ESTIMABLE, Cases, Estimable
from mainstay.monitoring.intervals import LEVEL, z_value
from mainstay.monitoring.partition import Partition, Read, grow
from mainstay.monitoring.score_bins import ScoreBins

if TYPE_CHECKING:
    from collections.abc import Sequence

    import polars as pl
    from numpy.typing import NDArray

    from mainstay.monitoring.intervals import Bools, Floats

    Groups: TypeAlias = NDArray[np.uint16]

ASSUMPTION: Final = "no concept shift: that inputs with such scores turn out as often yes as they did in the reference"
FEWEST_ROWS: Final = 1_000  # of a reference
_KNOTS: Final = 30  # of the smooth calibration
_PRIOR_ROWS: Final = 10.0  # that the smooth calibration is worth in a cell
_FOLDS: Final = 5
_FEWEST_CHUNKS: Final = 10
_SMALLEST_CHUNK: Final = 25  # rows
_NO_CHANCE: Final = 1e-9  # standard deviation: a metric that cannot be otherwise, but for rounding
_BLOCK: Final = 2**16  # rows that are estimated at once, about
_MOST_WINDOWS: Final = 32  # likewise: each has a table of some 30 kB
_SUPPORTED: Final = 20  # rows of the reference in a cell, for the window's rows there to be known


class ChunkVariation(Struct, frozen=True, kw_only=True):
    """How much more the metric of a chunk varies about its estimate than is accounted for."""

    factor: float  # on the variance, at least 1
    rows: int  # of the largest chunks it was learned from
    chunks: int  # of all sizes

    def beyond(self, known: float, rows: int) -> float:
        """The variance to add to what is `known` of a window of `rows` rows.

        What neighbours share averages out as rows are added, what a season shares does not; so beyond the largest
        chunks it was learned from, it is taken not to shrink any more.
        """
        return (self.factor - 1) * known * max(1.0, rows / self.rows)


_NO_VARIATION: Final = ChunkVariation(factor=1.0, rows=1, chunks=0)


class Estimator(Struct, frozen=True, kw_only=True, dict=True):
    """What estimation keeps of a reference with labels: a few kilobytes, whatever the reference's size."""

    rows: int
    partition: Partition
    score_bins: ScoreBins
    rates: tuple[float, ...]  # (bins,) of the smooth calibration
    shifts: tuple[float, ...]  # (leaves x coarse bins,) what a cell adds to it
    deviations: tuple[float, ...]  # (leaves x coarse bins,) standard error of a cell's rate
    counts: tuple[int, ...]  # (leaves x coarse bins,) rows of the reference
    variation: dict[str, ChunkVariation]

    @cached_property
    def table(self) -> _Table:
        return _Table(self)


class _Table:
    """An estimator laid out for look-ups: of each leaf its bins, of each bin those said to be no, and yes."""

    def __init__(self, estimator: Estimator) -> None:
        leaves, bins = estimator.partition.leaves, estimator.score_bins.bins
        coarse = estimator.score_bins.coarse_of
        self.groups = 2 * bins
        self.cases = Cases(np.tile([False, True], bins), np.repeat(np.arange(bins, dtype=np.float64), 2))
        self.bins = Cases(np.zeros(bins, dtype=np.bool_), np.arange(bins, dtype=np.float64))
        self.starts = np.array(estimator.score_bins.coarse)  # of the coarse bins
        self.cells = np.repeat((np.arange(leaves)[:, None] * len(self.starts) + coarse).ravel(), 2)
        shifts, counts = np.array(estimator.shifts)[self.cells], np.array(estimator.counts)
        self.chances = np.clip(np.tile(np.repeat(estimator.rates, 2), leaves) + shifts, 0.0, 1.0)
        self.noise = self.chances * (1 - self.chances)
        self.errors = np.array(estimator.deviations) ** 2  # (cells,)
        self.unsupported = (counts[self.cells] < _SUPPORTED).astype(np.float64)

    def by_leaf(self, values: Floats) -> Floats:
        return values.reshape(-1, self.groups)


class PerformanceEstimate(Struct, frozen=True, kw_only=True):
    """A metric as it probably is. This is no measurement; it holds only under its assumption."""

    metric: Estimable
    value: float
    low: float
    high: float
    level: float
    n: int
    label_deviation: float  # the shares of the uncertainty, as standard deviations: of the labels' own chance,
    calibration_deviation: float  # of the reference's finite size,
    chunk_deviation: float  # and of what chunks of the reference had beyond both
    unsupported: float  # share of the rows whose cell the reference hardly has: there it is a guess
    assumption: str = ASSUMPTION
    is_estimate: bool = True


def fit_estimator(
    labels: Bools, scores: Floats, said: Bools, inputs: pl.DataFrame, *, chunk_rows: int = 5_000
) -> Estimator:
    """Learns from a reference in time order: what happened, the scores, what was predicted, and the inputs.

    `chunk_rows` is how many rows windows will have, about: from chunks of that size, or a tenth of the reference, is
    learned how much chunks differ. Raises Misuse for fewer than 1,000 rows, or scores that are no probabilities.
    """
    n = len(labels)
    if n < FEWEST_ROWS:
        raise Misuse(f"expected at least {FEWEST_ROWS} labelled rows as a reference, found {n}")
    if not len(scores) == len(said) == len(inputs) == n:
        raise Misuse("expected as many scores, predictions and inputs as labels")
    check_probabilities(scores)
    return _with_variation(_calibrate(labels, scores, inputs), labels, scores, said, inputs, chunk_rows)


def estimate(
    estimator: Estimator,
    scores: Floats,
    said: Bools,
    inputs: pl.DataFrame,
    metrics: Sequence[Estimable] = ("accuracy", "roc_auc"),
    *,
    level: float = LEVEL,
) -> list[PerformanceEstimate]:
    """What each metric of a window without labels probably is. A metric without a denominator is left out."""
    return estimate_windows(estimator, scores, said, inputs, [len(scores)], metrics, level=level)[0]


def estimate_windows(
    estimator: Estimator,
    scores: Floats,
    said: Bools,
    inputs: pl.DataFrame,
    sizes: Sequence[int],
    metrics: Sequence[Estimable] = ("accuracy", "roc_auc"),
    *,
    level: float = LEVEL,
) -> list[list[PerformanceEstimate]]:
    """The same of several windows at once: the first `sizes[0]` rows, the next `sizes[1]` rows, and so on.

    Raises Misuse for sizes that do not add up to the rows, and for scores that are no probabilities.
    """
    if not sum(sizes) == len(scores) == len(said) == len(inputs) or min(sizes, default=0) < 0:
        raise Misuse(f"expected sizes that add up to {len(scores)} rows, found {sum(sizes)}")
    rows = _Rows(estimator, scores, said, estimator.partition.read(inputs))
    ends = np.cumsum(sizes)
    found: list[list[PerformanceEstimate]] = []
    while len(found) < len(sizes):
        first = len(found)
        start = int(ends[first]) - sizes[first]
        # As many windows as fit, and at least one.
        fitting = int(np.searchsorted(ends[: first + _MOST_WINDOWS], start + _BLOCK, side="right"))
        last = max(first + 1, fitting)
        windows = [
            slice(int(end) - size, int(end)) for end, size in zip(ends[first:last], sizes[first:last], strict=True)
        ]
        found += _Block(rows, windows).estimates(metrics, level)
    return found


def check_probabilities(scores: Floats) -> None:
    if len(scores) and not (scores.min() >= 0 and scores.max() <= 1):
        raise Misuse("expected every score to be a probability")


class _Rows(NamedTuple):
    """The rows of all windows."""

    estimator: Estimator
    scores: Floats
    said: Bools
    inputs: Read

    def places(self, rows: slice) -> Groups:
        """Where each of these is counted in the estimator's table. Raises Misuse for scores that are none."""
        scores = self.scores[rows]
        check_probabilities(scores)
        found = self.estimator.score_bins.bin_of(scores)
        found += found
        found += self.said[rows]
        found += self.inputs.leaf_of(rows) * np.uint16(self.estimator.table.groups)
        return found


class _Block:
    """Windows that are estimated together, one after another."""

    def __init__(self, rows: _Rows, windows: Sequence[slice]) -> None:
        self._rows, self._windows = rows, windows
        self._sizes = [window.stop - window.start for window in windows]
        self._places = rows.places(slice(windows[0].start, windows[-1].stop))
        table = self._table = rows.estimator.table
        self._counts = np.empty((len(windows), len(table.chances)))
        for place, window in enumerate(windows):
            self._counts[place] = np.bincount(self._places_of(window), minlength=len(table.chances))
        self._by_leaf = self._counts.reshape(len(windows), -1, table.groups)
        self._of_groups = self._by_leaf.sum(axis=1)
        self._yes = np.einsum("wlg,lg->wg", self._by_leaf, table.by_leaf(table.chances))
        self._noise = np.einsum("wlg,lg->wg", self._by_leaf, table.by_leaf(table.noise))

    def _places_of(self, window: slice) -> Groups:
        first = self._windows[0].start
        return self._places[window.start - first : window.stop - first]

    def estimates(self, metrics: Sequence[Estimable], level: float) -> list[list[PerformanceEstimate]]:
        sizes = self._sizes
        unsupported = (self._counts @ self._table.unsupported / np.maximum(sizes, 1)).tolist()
        found: list[list[PerformanceEstimate]] = [[] for _ in sizes]
        z = z_value(level)
        for metric in metrics:
            moments = self._moments(metric)
            variation = self._rows.estimator.variation.get(metric, _NO_VARIATION)
            top = math.inf if metric == "log_loss" else 1.0
            for place, (value, of_labels, of_calibration) in enumerate(zip(*moments, strict=True)):
                if math.isnan(value):
                    continue
                of_chunks = variation.beyond(of_labels + of_calibration, sizes[place])
                width = z * math.sqrt(of_labels + of_calibration + of_chunks)
                found[place].append(
                    PerformanceEstimate(
                        metric=metric,
                        value=value,
                        low=max(0.0, value - width),
                        high=min(top, value + width),
                        level=level,
                        n=sizes[place],
                        label_deviation=math.sqrt(of_labels),
                        calibration_deviation=math.sqrt(of_calibration),
                        chunk_deviation=math.sqrt(of_chunks),
                        unsupported=unsupported[place],
                    )
                )
        return found

    def _moments(self, metric: Estimable) -> _Moments:
        if metric in BY_ANSWER:
            return self._by_answers(metric)
        return self._by_rows(metric) if metric in BY_SCORE else self._by_bins(metric)

    def _by_answers(self, metric: Estimable) -> _Moments:
        """Of a metric that asks for nothing but what was predicted: two groups."""
        counts, yes, noise, spread = self._of_answers
        value, derivative = _ANSWERS.expect_groups(metric, counts, yes)
        of_calibration = np.einsum("wa,wab,wb->w", derivative, spread, derivative)
        return _Moments(value.tolist(), (noise * derivative**2).sum(axis=-1).tolist(), of_calibration.tolist())

    @cached_property
    def _of_answers(self) -> tuple[Floats, Floats, Floats, Floats]:
        """(windows, 2) each: decisions, those that are yes, and their noise; (windows, 2, 2) the covariance of what the
        errors of the cells do to the number of those that are yes.
        """
        counts, yes, noise = (
            np.stack([each[:, said::2].sum(axis=-1) for said in (0, 1)], axis=-1)
            for each in (self._of_groups, self._yes, self._noise)
        )
        by_said = self._by_leaf.reshape(*self._by_leaf.shape[:2], -1, 2)
        cells = np.add.reduceat(by_said, self._table.starts, axis=-2).reshape(len(counts), -1, 2)
        return counts, yes, noise, (cells * self._table.errors[:, None]).swapaxes(1, 2) @ cells

    def _by_bins(self, metric: Estimable) -> _Moments:
        """Of a metric that asks for nothing but the score's rank: the groups are bins."""
        counts, yes, noise, by_leaf = (
            each[..., ::2] + each[..., 1::2] for each in (self._of_groups, self._yes, self._noise, self._by_leaf)
        )
        value, derivative = self._table.bins.expect_groups(metric, counts, yes)
        by_leaf *= derivative[:, None]
        pulls = np.add.reduceat(by_leaf, self._table.starts, axis=-1)
        of_calibration = pulls.reshape(len(value), -1) ** 2 @ self._table.errors
        return _Moments(value.tolist(), (noise * derivative**2).sum(axis=-1).tolist(), of_calibration.tolist())

    def _by_rows(self, metric: Estimable) -> _Moments:
        moments, table = _Moments([], [], []), self._table
        for window in self._windows:
            places = self._places_of(window)
            cases = Cases(self._rows.said[window], self._rows.scores[window])
            expected = cases.expect(metric, table.chances[places])
            value, derivative = expected or (math.nan, np.zeros(len(places)))
            pulls = np.bincount(table.cells[places], weights=derivative, minlength=len(table.errors))
            moments.values.append(value)
            moments.of_labels.append(float(table.noise[places] @ derivative**2))
            moments.of_calibration.append(float(pulls**2 @ table.errors))
        return moments


_ANSWERS: Final = Cases(np.array([False, True]), np.zeros(2))


class _Moments(NamedTuple):
    """Of each window; NaN where a metric has no denominator."""

    values: list[float]
    of_labels: list[float]  # variance
    of_calibration: list[float]


def _calibrate(labels: Bools, scores: Floats, inputs: pl.DataFrame) -> Estimator:
    truth = labels.astype(np.float64)
    score_bins = ScoreBins.cut(scores)
    bins = score_bins.bin_of(scores)
    rates = _smooth(truth, scores, score_bins, bins)
    residuals = truth - rates[bins]
    partition = grow(inputs, residuals)
    coarse = len(score_bins.coarse)
    cells = partition.leaf_of(inputs) * np.int64(coarse) + score_bins.coarse_of[bins]
    counts = np.bincount(cells, minlength=partition.leaves * coarse)
    shifts = np.bincount(cells, weights=residuals, minlength=len(counts)) / (counts + _PRIOR_ROWS)
    # The rate that a cell has: its own rows', or, of an empty one, that of its bin of the score.
    of_bins = np.bincount(bins, minlength=len(rates))
    usual = np.add.reduceat(rates * of_bins, score_bins.coarse) / np.add.reduceat(of_bins, score_bins.coarse)
    smooth = np.bincount(cells, weights=rates[bins], minlength=len(counts)) / np.maximum(counts, 1)
    smooth = np.where(counts > 0, smooth, np.tile(usual, partition.leaves))
    rate = np.clip(smooth + shifts, 1 / (2 + _PRIOR_ROWS), 1 - 1 / (2 + _PRIOR_ROWS))
    deviations = np.sqrt(rate * (1 - rate) / (counts + _PRIOR_ROWS + 1))
    return Estimator(
        rows=len(labels),
        partition=partition,
        score_bins=score_bins,
        rates=tuple(rates.tolist()),
        shifts=tuple(shifts.tolist()),
        deviations=tuple(deviations.tolist()),
        counts=tuple(counts.tolist()),
        variation={},
    )


def _smooth(truth: Floats, scores: Floats, score_bins: ScoreBins, bins: NDArray[np.uint16]) -> Floats:
    """A rate for each bin: straight lines between those at the mean scores of some 30 stretches of equal mass."""
    counts = np.bincount(bins, minlength=score_bins.bins)
    sums = np.bincount(bins, weights=scores, minlength=len(counts))
    yes = np.bincount(bins, weights=truth, minlength=len(counts))
    # A stretch is the bins in which the running share of the rows is within one thirtieth.
    stretches = ((np.cumsum(counts) - counts / 2) * _KNOTS / len(scores)).astype(np.int64)
    rows = np.bincount(stretches, weights=counts)
    there = rows > 0
    knots = np.bincount(stretches, weights=sums)[there] / rows[there]
    rates = np.bincount(stretches, weights=yes)[there] / rows[there]
    return np.interp(np.where(counts > 0, sums / np.maximum(counts, 1), score_bins.middles), knots, rates)


def _with_variation(
    estimator: Estimator, labels: Bools, scores: Floats, said: Bools, inputs: pl.DataFrame, chunk_rows: int
) -> Estimator:
    """Each fold of the reference is estimated from the others, and its chunks are held against their labels."""
    n = len(labels)
    largest = max(4 * _SMALLEST_CHUNK, min(chunk_rows, n // _FEWEST_CHUNKS))
    found: dict[Estimable, list[_Error]] = {metric: [] for metric in ESTIMABLE}
    for fold in range(_FOLDS):
        first, last = n * fold // _FOLDS, n * (fold + 1) // _FOLDS
        others = np.r_[0:first, last:n]
        fitted = _calibrate(labels[others], scores[others], inputs[others])
        for rows in (largest, largest // 2, largest // 4):
            chunks = (last - first) // rows
            whole = slice(first, first + chunks * rows)
            sizes = [rows] * chunks
            said_to_be = estimate_windows(fitted, scores[whole], said[whole], inputs[whole], sizes, ESTIMABLE)
            for place, estimates in enumerate(said_to_be):
                chunk = slice(first + place * rows, first + (place + 1) * rows)
                cases, truth = Cases(said[chunk], scores[chunk]), labels[chunk].astype(np.float64)
                for one in estimates:
                    real = cases.expect(one.metric, truth)
                    if real is not None and one.label_deviation > _NO_CHANCE:
                        known = one.label_deviation**2 + one.calibration_deviation**2
                        found[one.metric].append(_Error(rows, (real.value - one.value) ** 2 / known))
    variation = {metric: _fit_variation(errors, largest) for metric, errors in found.items() if errors}
    return structs.replace(estimator, variation=variation)


class _Error(NamedTuple):
    """Of one chunk's estimate: its square over the variance it should have had, which is 1 on average."""

    rows: int
    ratio: float


def _fit_variation(errors: Sequence[_Error], largest: int) -> ChunkVariation:
    """The mean of the factor given that it is at least 1: the posterior under a flat prior, of the ratios' mean taken
    as normal. Chunks of several sizes are the same rows, so only those of the smallest size count as so many.
    """
    smallest = min(error.rows for error in errors)
    independent = sum(error.rows == smallest for error in errors)
    middle = float(np.mean([error.ratio for error in errors]))
    deviation = middle * math.sqrt(2 / independent)  # of the mean of squares of normals
    above = (middle - 1) / deviation
    normal = NormalDist()
    # Far below 1 the quotient of density and distribution is the distance itself, and would not compute.
    beyond = above + normal.pdf(above) / normal.cdf(above) if above > -6 else 1 / 6
    return ChunkVariation(factor=1 + deviation * beyond, rows=largest, chunks=len(errors))
