"""How far apart two samples are, apart from whether chance explains it: distance, shift, and the bins behind them.

The total variation distance is the share of rows that would have to change bins for the samples to agree. Taken from
counts as they are it is too large, since noise never cancels within an absolute value. Here each bin's difference is
split, in thought, into two independent copies by adding and taking away the same noise (Leiner et al. 2023, "Data
fission"): the sign is taken from one copy and the size from the other. The mean over that noise is a formula; its
expectation is zero where nothing changed and never above the truth. Where bins are in order the same is done for eight,
four and two groups of them, and the largest counts, since moves to one side are seen best in coarse groups.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import numpy as np
from msgspec import Struct
from scipy.special import ndtr

from mainstay.monitoring.drift_tests import gathering
from mainstay.monitoring.intervals import LEVEL, Estimate, t_value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from mainstay.monitoring.histograms import Moments

    Floats: TypeAlias = NDArray[np.float64]
    Whole: TypeAlias = NDArray[np.int64]

COARSE: Final = (8, 4, 2)  # groups of bins in order
MOST_CONTRIBUTIONS: Final = 5


class Spread(NamedTuple):
    """The noise of a difference of shares that the samples' units show: its covariance is `parts.T @ parts`."""

    parts: Floats  # (units, k); without rows where nothing is known but that rows vary
    freedom: float


class Contribution(Struct, frozen=True, kw_only=True, gc=False):
    """A bin that has more or fewer rows than it had."""

    bin: str
    reference_share: float
    window_share: float
    of_distance: float  # 0..1, of the sum over all bins of what they differ by


def distance(reference: Whole, window: Whole, noise: Spread, *, ordered: bool) -> Estimate:
    """The total variation distance of two samples, 0..1, less what chance adds, with a 95 % interval.

    `reference, window: (k,)` counts. The interval is conservative: what chance adds to the plug-in value lies between
    nothing and what it adds where nothing changed, and the value itself varies no more than the sum of its noise. Its
    lower bound is the best of all groupings, its upper bound that of the bins themselves.
    """
    n, m = int(reference.sum()), int(window.sum())
    unit = 1 / n + 1 / m
    expected = (reference + window) / (n + m)
    apart = window / m - reference / n
    groupings = _groupings(expected, ordered=ordered)
    reach = t_value(1 - (1 - LEVEL) / len(groupings), noise.freedom)
    looked = [_gathered(each, apart, expected, noise.parts) for each in groupings]
    # What is computed of each bin or group alone is computed of all groupings at once.
    here, share, parts = (np.concatenate(each, axis=-1) for each in zip(*looked, strict=True))
    deviations = np.sqrt(np.maximum((parts**2).sum(0), share * (1 - share) * unit))
    sizes, signs, split = np.abs(here), np.sign(here), _split(here, deviations)
    value, low, high, end = 0.0, 0.0, 1.0, len(here)
    for _, _, own in reversed(looked):  # the bins themselves come last, and give the upper bound
        group = slice(end - own.shape[1], end)
        end = group.start
        plug_in = float(sizes[group].sum()) / 2
        chance = math.sqrt(2 / math.pi) * float(deviations[group].sum()) / 2
        summed = float(np.sum((own @ signs[group]) ** 2))
        spread = reach * math.sqrt(max(summed, unit)) / 2
        value = max(value, float(split[group].sum()) / 2)
        low, high = max(low, plug_in - chance - spread), plug_in + spread
    value = min(1.0, value)
    return Estimate(value, min(value, low), min(1.0, max(value, high)))


def _gathered(gathering: Floats | None, *shares: Floats) -> tuple[Floats, ...]:
    return shares if gathering is None else tuple(each @ gathering for each in shares)


def mean_shift(reference: Moments, window: Moments, wider: float, freedom: float) -> Estimate | None:
    """By how many of the reference's standard deviations the mean has moved, with a 95 % interval.

    `wider`: the factor by which dependence widens the variance. None where there is no deviation to measure it by.
    """
    if reference.n < 2 or window.n < 2:
        return None
    deviation = math.sqrt(reference.m2 / (reference.n - 1))
    if not 0 < deviation < math.inf:
        return None
    moved = (window.mean - reference.mean) / deviation
    relative = window.m2 / (window.n - 1) / deviation**2
    reach = t_value(LEVEL, freedom) * math.sqrt(wider * (relative / window.n + 1 / reference.n))
    return Estimate(moved, moved - reach, moved + reach) if math.isfinite(moved) and math.isfinite(reach) else None


def contributions(reference: Whole, window: Whole, labels: Sequence[str]) -> tuple[Contribution, ...]:
    """The bins that differ most, at most five; neighbouring ones of a number are not put together."""
    before, now = reference / max(1, reference.sum()), window / max(1, window.sum())
    gaps = np.abs(now - before)
    total = float(gaps.sum())
    if total <= 0:
        return ()
    most = np.argsort(-gaps, kind="stable")[:MOST_CONTRIBUTIONS]
    return tuple(
        Contribution(
            bin=labels[i],
            reference_share=float(before[i]),
            window_share=float(now[i]),
            of_distance=float(gaps[i]) / total,
        )
        for i in most.tolist()
        if gaps[i] > 0
    )


def _split(apart: Floats, deviations: Floats) -> Floats:
    """(k,) the mean of sign(d + Z) (d - Z) over noise Z as large as that of d: zero on average where d is all noise."""
    safe = np.where(deviations > 0, deviations, 1.0)
    ratio = apart / safe
    split = apart * (2 * ndtr(ratio) - 1) - safe * math.sqrt(2 / math.pi) * np.exp(-(ratio**2) / 2)
    return np.asarray(np.where(deviations > 0, split, np.abs(apart)))


def _groupings(expected: Floats, *, ordered: bool) -> list[Floats | None]:
    """Ways to gather the bins: each by itself (None), and where they are in order, eight, four and two of equal mass.

    The last bin, of the missing, is always by itself.
    """
    found: list[Floats | None] = [None]
    here = expected[:-1]
    if ordered and here.sum() > 0:
        middle = (np.cumsum(here) - here / 2) / here.sum()
        for many in COARSE:
            groups = np.minimum((middle * many).astype(np.intp), many - 1)  # they rise; where bins are wide, some lack
            place = np.zeros(len(expected), np.intp)
            np.cumsum(groups[1:] != groups[:-1], out=place[1:-1])
            place[-1] = place[-2] + 1
            found.append(gathering(place))
    return found
