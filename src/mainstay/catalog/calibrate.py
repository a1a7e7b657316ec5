"""Fitting the calibration of a model's confidence on rows whose truth is known.

`stated: (n,) float, 0..1` is the confidence in the answer given, `right: (n,) bool` whether that answer was right.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import numpy as np

from mainstay.catalog.types import Calibration
from mainstay.errors import Misuse

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike, NDArray

    Floats: TypeAlias = NDArray[np.float64]
    Bools: TypeAlias = NDArray[np.bool_]
    Method: TypeAlias = Literal["isotonic", "sigmoid", "identity"]
    Points: TypeAlias = tuple[Floats, Floats]

FEWEST_ROWS: Final = 50  # below, nothing but the identity is considered
FEWEST_OF_A_KIND: Final = 10  # right answers and wrong ones, each
BINS: Final = 15  # of the calibration error
LEAST_CONFIDENCE: Final = 1e-6  # nearer to 0 or 1, a stated confidence is taken for this in the sigmoid
TOLERANCE: Final = 1e-4  # of the line through the sigmoid's points
SEED: Final = 0  # of the folds

_LEVEL_Z: Final = NormalDist().inv_cdf(0.975)  # of the 95 % interval, which bounds the estimate from below
_ERFS: Final = np.vectorize(math.erf, otypes=[np.float64])


def fit_calibration(stated: ArrayLike, right: ArrayLike, *, folds: int = 5) -> Calibration:
    """Isotonic or sigmoid, whichever has the lower Brier score on rows it was not fitted on; neither if none helps.

    With fewer than FEWEST_ROWS rows, or FEWEST_OF_A_KIND right or wrong answers, it is the identity. Rows without a
    confidence (NaN) are left out. Raises Misuse when none is left, when lengths differ, or when a confidence is not
    from 0 to 1.
    """
    said, truth = _parse(stated, right)
    before = calibration_error(said, truth)
    chosen: Method = "identity"
    after = before
    if len(said) >= FEWEST_ROWS and min(truth.sum(), (~truth).sum()) >= FEWEST_OF_A_KIND:
        fold = np.random.default_rng(SEED).permutation(len(said)) % folds
        least = _brier(said, truth)
        for method in ("isotonic", "sigmoid"):
            held_back = np.empty(len(said))
            for k in range(folds):
                held_back[fold == k] = np.interp(said[fold == k], *_FITS[method](said[fold != k], truth[fold != k]))
            if _brier(held_back, truth) < least:
                chosen, least, after = method, _brier(held_back, truth), calibration_error(held_back, truth)
    points = _FITS[chosen](said, truth)
    return Calibration(
        method=chosen,
        stated=tuple(points[0].tolist()),
        calibrated=tuple(points[1].tolist()),
        rows=len(said),
        error_before=before,
        error_after=after,
    )


def right_answers(
    classes: Sequence[str | int | bool], chosen: Sequence[object], labels: Sequence[object]
) -> NDArray[np.bool_]:
    """Whether each class chosen is the label that came true: (n,) bool.

    True and 1 are one class, False and 0 another; text is only ever equal to text. A label that no class equals makes
    the answer wrong, for the model could not give it. Raises Misuse when a label is missing, or is text where the
    classes are numbers or the other way round: then another field than the class was declared.
    """
    if len(chosen) != len(labels):
        raise Misuse(f"expected one label per answer, found {len(chosen)} answers and {len(labels)} labels")
    texts = {isinstance(each, str) for each in classes}
    for row, label in enumerate(labels):
        if label is None or isinstance(label, str) not in texts:
            known = ", ".join(map(repr, classes))
            raise Misuse(
                f"expected labels like the model's classes ({known}), found {label!r} in row {row}",
                hint="Declare the outcome's property that holds the true class as reference.label.",
            )
    return np.array([bool(answer == label) for answer, label in zip(chosen, labels, strict=True)], np.bool_)


def calibration_error(stated: Floats, right: Bools) -> float:
    """The expected calibration error over bins of equal mass, less what chance alone adds to it.

    The same number as `expected_calibration_error` of monitoring, which also says how sure it is.
    """
    order = np.argsort(stated, kind="stable")
    said, truth = stated[order], right[order].astype(np.float64)
    starts = np.unique(np.append(0, np.searchsorted(said, said[np.arange(1, BINS) * len(said) // BINS])))
    counts = np.diff(np.append(starts, len(said))).astype(np.float64)
    happened = np.add.reduceat(truth, starts)
    distances = (happened - np.add.reduceat(said, starts)) / counts
    smooth = (happened + 1) / (counts + 2)
    deviations = np.sqrt(smooth * (1 - smooth) / counts)
    # E|X| of X normal (Leone, Nelson, Nottingham 1961, "The folded normal distribution").
    ratio = distances / deviations
    folded = deviations * math.sqrt(2 / math.pi) * np.exp(-(ratio**2) / 2) + distances * _ERFS(ratio / math.sqrt(2))
    weights = counts / len(said)
    plug_in, chance = float(weights @ np.abs(distances)), float(weights @ (folded - np.abs(distances)))
    spread = math.sqrt(2 / math.pi) * float(weights @ deviations)
    lowest = max(0.0, plug_in - spread - _LEVEL_Z * float(np.linalg.norm(weights * deviations)))
    return max(lowest, plug_in - chance)


def isotonic_points(stated: Floats, right: Bools) -> Points:
    """The non-decreasing function nearest to `right` in squares, as the ends of its steps.

    Pools adjacent violators (Ayer, Brunk, Ewing, Reid, Silverman 1955, "An empirical distribution function for
    sampling with incomplete information"). Between two steps it runs in a straight line.
    """
    values, place, counts = np.unique(stated, return_inverse=True, return_counts=True)
    hits = np.bincount(place, weights=right, minlength=len(values))
    blocks: list[tuple[float, int, int]] = []  # right answers, rows, the last of the values
    for last, (found, rows) in enumerate(zip(hits.tolist(), counts.tolist(), strict=True)):
        # Compared as fractions, so that equal means pool whatever their rounding.
        while blocks and blocks[-1][0] * rows >= found * blocks[-1][1]:
            pooled, pooled_rows, _ = blocks.pop()
            found, rows = found + pooled, rows + pooled_rows  # noqa: PLW2901 - the block that grows
        blocks.append((found, rows, last))
    xs: list[int] = []
    ys: list[float] = []
    first = 0
    for found, rows, last in blocks:
        ends = [first] if first == last else [first, last]
        xs += ends
        ys += [found / rows] * len(ends)
        first = last + 1
    return values[xs], np.array(ys)


def sigmoid_points(stated: Floats, right: Bools) -> Points:
    """A logistic function of the logit of the confidence, as points of a line that is within TOLERANCE of it.

    Platt (1999), "Probabilistic outputs for support vector machines", with his targets short of 0 and 1.
    """
    slope, start = _fit_sigmoid(_logit(stated), right)
    end = float(_logit(np.ones(1))[0])
    grid = np.linspace(-end, end, 33)

    def curve(logits: Floats) -> Floats:
        return _logistic(slope * logits + start)

    while True:
        inner = (grid[:-1, None] + np.diff(grid)[:, None] * np.array([0.25, 0.5, 0.75])).ravel()
        line = np.interp(_logistic(inner), _logistic(grid), curve(grid))
        off = (np.abs(line - curve(inner)) > TOLERANCE / 2).reshape(-1, 3).any(1)
        if not off.any():
            break
        grid = np.sort(np.concatenate([grid, (grid[:-1] + np.diff(grid) / 2)[off]]))
    return _logistic(grid), np.maximum.accumulate(curve(grid))


def _fit_sigmoid(logits: Floats, right: Bools) -> tuple[float, float]:
    """Slope and start by Newton's method with a line search (Lin, Lin, Weng 2007, "A note on Platt's probabilistic
    outputs for support vector machines"). A slope below 0 is taken for 0: more confidence never means less.
    """
    hits, misses = int(right.sum()), int((~right).sum())
    targets = np.where(right, (hits + 1) / (hits + 2), 1 / (misses + 2))
    inputs = np.stack([logits, np.ones(len(logits))], 1)
    base = float(targets.mean())
    best = np.array([0.0, math.log(base / (1 - base))])

    def loss(weights: Floats) -> float:
        linear = inputs @ weights
        return float((np.logaddexp(0, linear) - targets * linear).sum())

    for _ in range(100):
        fitted = _logistic(inputs @ best)
        gradient = inputs.T @ (fitted - targets)
        curvature = (inputs * (fitted * (1 - fitted))[:, None]).T @ inputs + 1e-9 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        size = 1.0
        while size > 1e-10 and loss(best - size * step) > loss(best):
            size /= 2
        best = best - size * step
        if float(np.abs(size * step).max()) < 1e-10:
            break
    if best[0] < 0:
        return 0.0, math.log(base / (1 - base))
    return float(best[0]), float(best[1])


def _identity_points(_stated: Floats, _right: Bools) -> Points:
    return np.array([0.0, 1.0]), np.array([0.0, 1.0])


_FITS: Final[dict[Method, Callable[[Floats, Bools], Points]]] = {
    "isotonic": isotonic_points,
    "sigmoid": sigmoid_points,
    "identity": _identity_points,
}


def _parse(stated: ArrayLike, right: ArrayLike) -> tuple[Floats, Bools]:
    said, truth = np.asarray(stated, np.float64), np.asarray(right, np.bool_)
    if said.ndim != 1 or said.shape != truth.shape:
        raise Misuse(f"expected one outcome per confidence, found shapes {said.shape} and {truth.shape}")
    known = ~np.isnan(said)
    said, truth = said[known], truth[known]
    if not len(said):
        raise Misuse("expected rows with a stated confidence and a known outcome, found none")
    if said.min() < 0 or said.max() > 1:
        raise Misuse(f"expected confidences from 0 to 1, found {said.min():g} to {said.max():g}")
    return said, truth


def _brier(stated: Floats, right: Bools) -> float:
    """Brier (1950), "Verification of forecasts expressed in terms of probability"."""
    return float(((stated - right) ** 2).mean())


def _logit(stated: Floats) -> Floats:
    clipped = np.clip(stated, LEAST_CONFIDENCE, 1 - LEAST_CONFIDENCE)
    logits: Floats = np.log(clipped) - np.log1p(-clipped)
    return logits


def _logistic(values: Floats) -> Floats:
    found: Floats = np.exp(-np.logaddexp(0, -values))
    return found
