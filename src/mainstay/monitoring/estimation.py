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
    from collections.abc import Iterator, Sequence

    import polars as pl
    from numpy.typing import NDArray

    from mainstay.monitoring.intervals import Bools, Floats
    from mainstay.monitoring.partition import Ints

    Groups: TypeAlias = NDArray[np.uint16]

ASSUMPTION: Final = "no concept shift: that inputs with such scores turn out as often yes as they did in the reference"
FEWEST_ROWS: Final = 1_000  # of a reference
_KNOTS: Final = 30  # of the smooth calibration
_PRIOR_ROWS: Final = 10.0  # that the smooth calibration is worth in a cell
_FOLDS: Final = 5
_FEWEST_CHUNKS: Final = 10
_SMALLEST_CHUNK: Final = 25  # rows
_NO_CHANCE: Final = 1e-9  # standard deviation: a metric that cannot be otherwise, but for rounding
_BLOCK: Final = 2**16  # rows whose numbers stay in the processor's cache
_MOST_WINDOWS: Final = 100  # that are estimated at once: each has a table of some 30 kB
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
        return float(self.beyond_all(np.array([known]), np.array([rows]))[0])

    def beyond_all(self, known: Floats, rows: Ints) -> Floats:
        """The same of several windows, `(windows,)`."""
        return (self.factor - 1) * known * np.maximum(1.0, rows / self.rows)


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
    """An estimator laid out for look-ups: of each leaf its bins, of each bin those said to be no, and yes.

    Windows are counted by halves: what was said to be no, of each leaf its bins, and then what was said to be yes.
    """

    def __init__(self, estimator: Estimator) -> None:
        leaves, bins = estimator.partition.leaves, estimator.score_bins.bins
        coarse = estimator.score_bins.coarse_of
        self.shape = leaves, bins  # of a half
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
        half = leaves * bins
        self.half_chances, self.half_noise, self.half_cells = (
            np.ascontiguousarray(each[::2]) for each in (self.chances, self.noise, self.cells)
        )
        self.sums = np.stack([np.ones(half), self.half_chances, self.half_noise, self.unsupported[::2]], axis=-1)
        # For the answers to all questions, and what was said as one more: where a row with the lowest score is counted.
        of_leaf = estimator.partition.leaf_of_answers.astype(np.uint16) * np.uint16(bins)
        self.places = (of_leaf[:, None] + np.array([0, half], dtype=np.uint16)).ravel()


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
    ends = np.cumsum(sizes).tolist()
    windows = [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
    # Made once: to be given new memory for each block costs more than much of the work.
    counts = np.empty((min(len(windows), _MOST_WINDOWS), 2, *estimator.table.shape))
    found: list[list[PerformanceEstimate]] = []
    for first in range(0, len(windows), _MOST_WINDOWS):
        found += _Block(rows, windows[first : first + _MOST_WINDOWS], counts).estimates(metrics, level)
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
        """Where each of these is counted, by halves. Raises Misuse for scores that are none."""
        scores = self.scores[rows]
        check_probabilities(scores)
        found = self.inputs.look_up(rows, self.estimator.table.places, self.said)
        found += self.estimator.score_bins.bin_of(scores)
        return found


def _runs(windows: Sequence[slice]) -> list[list[slice]]:
    """Windows whose rows are looked at together, as many as the processor's cache holds, and at least one."""
    runs: list[list[slice]] = []
    for window in windows:
        if runs and window.stop - runs[-1][0].start <= _BLOCK:
            runs[-1].append(window)
        else:
            runs.append([window])
    return runs


class _Block:
    """Windows that are estimated together: how many rows of each are in which place of the estimator's table."""

    def __init__(self, rows: _Rows, windows: Sequence[slice], counts: Floats) -> None:
        """`counts: (at least as many windows, 2, leaves, bins)` is memory to count in."""
        self._rows, self._windows = rows, windows
        self._sizes = np.array([window.stop - window.start for window in windows])
        table = self._table = rows.estimator.table
        halves = counts[: len(windows)]
        self._count(halves.reshape(len(windows), -1))
        self._sums = (halves.reshape(2 * len(windows), -1) @ table.sums).reshape(len(windows), 2, -1)
        cells = np.add.reduceat(halves, table.starts, axis=-1).reshape(len(windows), 2, -1)
        # (windows, 2, 2): covariance of what the errors of the cells do to how many of either answer are yes.
        self._spread = (cells * table.errors) @ cells.swapaxes(1, 2)
        self._by_leaf, self._scratch = halves[:, 0], halves[:, 1]
        self._by_leaf += self._scratch

    def _count(self, counts: Floats) -> None:
        of_windows = iter(counts)
        for run in _runs(self._windows):
            first = run[0].start
            places = self._rows.places(slice(first, run[-1].stop))
            for window in run:
                part = places[window.start - first : window.stop - first]
                next(of_windows)[:] = np.bincount(part, minlength=counts.shape[1])

    def estimates(self, metrics: Sequence[Estimable], level: float) -> list[list[PerformanceEstimate]]:
        sizes = self._sizes.tolist()
        unsupported = (self._sums[:, :, 3].sum(axis=-1) / np.maximum(self._sizes, 1)).tolist()
        found: list[list[PerformanceEstimate]] = [[] for _ in sizes]
        for metric in metrics:
            for place, of_window in enumerate(zip(*self._bounded(metric, level), strict=True)):
                value, low, high, of_labels, of_calibration, of_chunks = of_window
                if math.isnan(value):
                    continue
                found[place].append(
                    PerformanceEstimate(
                        metric=metric,
                        value=value,
                        low=low,
                        high=high,
                        level=level,
                        n=sizes[place],
                        label_deviation=of_labels,
                        calibration_deviation=of_calibration,
                        chunk_deviation=of_chunks,
                        unsupported=unsupported[place],
                    )
                )
        return found

    def _bounded(self, metric: Estimable, level: float) -> Iterator[list[float]]:
        """Of each window the value, its bounds, and the three deviations."""
        value, of_labels, of_calibration = self._moments(metric)
        variation = self._rows.estimator.variation.get(metric, _NO_VARIATION)
        of_chunks = variation.beyond_all(of_labels + of_calibration, self._sizes)
        width = z_value(level) * np.sqrt(of_labels + of_calibration + of_chunks)
        low, high = np.maximum(0.0, value - width), np.minimum(math.inf if metric == "log_loss" else 1.0, value + width)
        deviations = (np.sqrt(variance) for variance in (of_labels, of_calibration, of_chunks))
        return (each.tolist() for each in (value, low, high, *deviations))

    def _moments(self, metric: Estimable) -> _Moments:
        if metric in BY_ANSWER:
            return self._by_answers(metric)
        return self._by_rows(metric) if metric in BY_SCORE else self._by_bins(metric)

    def _by_answers(self, metric: Estimable) -> _Moments:
        """Of a metric that asks for nothing but what was predicted: two groups."""
        counts, yes, noise = (self._sums[:, :, place] for place in range(3))
        value, derivative = _ANSWERS.expect_groups(metric, counts, yes)
        of_calibration = np.einsum("wa,wab,wb->w", derivative, self._spread, derivative)
        return _Moments(value, (noise * derivative**2).sum(axis=-1), of_calibration)

    def _by_bins(self, metric: Estimable) -> _Moments:
        """Of a metric that asks for nothing but the score's rank: the groups are bins."""
        table, by_leaf = self._table, self._by_leaf
        yes, noise = (
            np.einsum("wlb,lb->wb", by_leaf, each.reshape(table.shape))
            for each in (table.half_chances, table.half_noise)
        )
        value, derivative = table.bins.expect_groups(metric, by_leaf.sum(axis=1), yes)
        pulls = np.add.reduceat(np.multiply(by_leaf, derivative[:, None], out=self._scratch), table.starts, axis=-1)
        of_calibration = pulls.reshape(len(value), -1) ** 2 @ table.errors
        return _Moments(value, (noise * derivative**2).sum(axis=-1), of_calibration)

    def _by_rows(self, metric: Estimable) -> _Moments:
        table, moments = self._table, np.empty((3, len(self._windows)))
        for place, window in enumerate(self._windows):
            at = self._rows.places(window) % len(table.half_chances)
            cases = Cases(self._rows.said[window], self._rows.scores[window])
            expected = cases.expect(metric, table.half_chances[at])
            value, derivative = expected or (math.nan, np.zeros(len(at)))
            pulls = np.bincount(table.half_cells[at], weights=derivative, minlength=len(table.errors))
            of_labels, of_calibration = table.half_noise[at] @ derivative**2, pulls**2 @ table.errors
            moments[:, place] = value, of_labels, of_calibration
        return _Moments(*moments)


_ANSWERS: Final = Cases(np.array([False, True]), np.zeros(2))


class _Moments(NamedTuple):
    """(windows,) each; NaN where a metric has no denominator."""

    values: Floats
    of_labels: Floats  # variance
    of_calibration: Floats


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
