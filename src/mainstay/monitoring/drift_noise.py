"""How far the shares of a sample may be off by chance, when neighbouring rows may depend on each other.

A sample comes as units that were counted apart: the hours of a window, the blocks of a reference. Between units, shares
vary more than the rows of a multinomial would when rows hang together; that variation is what the noise is taken from
(the linearised variance of a ratio, Cochran 1977, "Sampling techniques", 6.3; Rao & Scott 1981, "The analysis of
categorical data from complex sample surveys"). It is known with few degrees of freedom, which the tests take into
account. Where the units themselves follow each other closely, their own autocorrelation of first order is estimated,
corrected for its bias in short series (Kendall 1954, "Note on bias in the estimation of autocorrelation"), and the
noise is widened by it.

Whether units vary more than independent rows at all is known much better than by how much, since all bins and all units
of both samples speak of it: `doubt` is how little rows may be taken for independent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]
    Whole: TypeAlias = NDArray[np.int64]

FEWEST_UNITS: Final = 6  # to learn anything from how they vary
FEWEST_IN_ORDER: Final = 8  # to learn how they follow each other
MOST_CORRELATION: Final = 0.9
FEWEST_TO_TRUST: Final = 40  # degrees of freedom of the units of both samples, to take rows for independent
LEAST_DOUBT: Final = 0.05
TRUSTED: Final = 0.75  # standard deviations of unrest, from which on doubt rises
NOT_TRUSTED: Final = 2.0  # where it is whole


@dataclass(frozen=True, slots=True)
class Noise:
    """Noise of the shares of k bins: their covariance is `parts.T @ parts`, times what `widening` says."""

    parts: Floats  # (units, k), in the order of the units
    freedom: float  # degrees of freedom that it is known with, where units do not depend on each other

    def along(self, direction: Floats) -> tuple[float, float]:
        """The variance of `shares @ direction`, and its degrees of freedom. `direction: (k,)`."""
        projected = self.parts @ direction
        wider, fewer = widening(projected[:, None])
        return wider * float(projected @ projected), max(1.0, fewer * self.freedom)

    def widened(self) -> Noise:
        """The noise, widened by how the units follow each other over all bins together."""
        wider, fewer = widening(self.parts)
        return Noise(self.parts * math.sqrt(wider), max(1.5, fewer * self.freedom))

    def scaled(self, factor: float) -> Noise:
        """The noise of a sample whose variance is `factor` times as large."""
        return Noise(self.parts * math.sqrt(factor), self.freedom)


def noise_of(counts: Whole, usual: Floats | None = None) -> Noise | None:
    """What units say about the noise of their sum. `counts: (units, k)`; None when too few of them have rows.

    `usual: (units, k)` are the shares that each unit has as a rule, such as those of the same hours of other days: only
    what departs from the rule is noise then. They must not be of the same rows.
    """
    rows = counts.sum(1)
    kept = rows > 0
    if np.count_nonzero(kept) < FEWEST_UNITS:
        return None
    sizes = rows[kept].astype(np.float64)
    shares = counts[kept] / sizes[:, None]
    if usual is not None:
        shares = shares - usual[kept]
    weights = sizes / sizes.sum()
    units = len(sizes)
    parts = (shares - weights @ shares) * (weights * math.sqrt(units / (units - 1)))[:, None]
    # Where a unit's own level is what varies, large units count by their squares (Satterthwaite 1946).
    squares = weights**2
    return Noise(parts, max(1.0, float(squares.sum() ** 2 / (squares**2).sum()) - 1))


def noise_between(counts: Whole) -> Noise | None:
    """The noise of one more unit like these, as large as they are: how whole windows vary. `counts: (units, k)`."""
    rows = counts.sum(1)
    kept = counts[rows > 0]
    units = len(kept)
    if units < FEWEST_UNITS:
        return None
    shares = kept / kept.sum(1, keepdims=True)
    return Noise((shares - shares.mean(0)) / math.sqrt(units - 1), units - 1.0)


def widening(parts: Floats) -> tuple[float, float]:
    """By how much the sum of a series varies more than that of independent units, and the share of its freedom left.

    `parts: (units, k)`, their mean zero. With correlation r of neighbours the sum varies by (1 + r) / (1 - r), and
    squares agree over (1 + r^2) / (1 - r^2) units at a time.
    """
    units = len(parts)
    total = float((parts * parts).sum())
    if units < FEWEST_IN_ORDER or total <= 0:
        return 1.0, 1.0
    seen = float((parts[1:] * parts[:-1]).sum()) / total
    r = min(MOST_CORRELATION, max(0.0, (units * seen + 1) / (units - 3)))
    return (1 + r) / (1 - r), (1 - r * r) / (1 + r * r)


def doubt(unrests: Sequence[float]) -> float:
    """How little rows may be taken for independent, from a twentieth to 1, by the largest of what `unrest` found.

    It rises in a straight line from three quarters of a standard deviation to two. Where it begins and ends is a
    choice: the later, the more is found where rows are independent, and the more false alarms there are where they
    depend on each other too little for units to show it.
    """
    return min(1.0, max(LEAST_DOUBT, (max(unrests) - TRUSTED) / (NOT_TRUSTED - TRUSTED)))


def unrest(reference: Floats, window: Floats, scores: Floats | None = None) -> float:
    """By how many standard deviations units vary more than those of independent rows: of both samples, or of one.

    One alone may show what the other cannot: a reference's blocks what is slower than a window, and a window's steps
    all there is to see where the reference was shuffled. `reference, window: (units, k)` counts; `scores: (k,)` looks
    at the units' mean scores rather than at all k shares. Infinite where units are too few to tell.
    """
    samples = [units[units.any(1)] for units in (reference, window)]
    if sum(len(units) - 1 for units in samples) < FEWEST_TO_TRUST:
        return math.inf
    found = [_homogeneity(units, scores) for units in samples]
    both = (sum(each[0] for each in found), sum(each[1] for each in found))
    return max(_deviations(*both), *(_deviations(*each) for each in found))


def _homogeneity(counts: Floats, scores: Floats | None) -> tuple[float, int]:
    """Pearson's X^2 (1911) that units have the same shares, or the same mean score, and its degrees of freedom."""
    total = counts.sum(0)
    sizes, rows, units = counts.sum(1), int(total.sum()), len(counts)
    if units < FEWEST_UNITS:
        return 0.0, 0
    if scores is None:
        here = total > 0
        each = (counts[:, here] ** 2 / total[here]).sum(1) / sizes
        return max(0.0, rows * (float(each.sum()) - 1)), (units - 1) * (int(np.count_nonzero(here)) - 1)
    mean = float(total @ scores) / rows
    variance = float(total @ (scores - mean) ** 2) / rows
    if variance <= 0:
        return 0.0, 0
    return float(sizes @ (counts @ scores / sizes - mean) ** 2) / variance, units - 1


def _deviations(chi_square: float, freedom: int) -> float:
    """The normal deviate of chi-square by Wilson & Hilferty (1931), "The distribution of chi-square"."""
    if not freedom:
        return 0.0
    part = 2 / (9 * freedom)
    return (math.cbrt(chi_square / freedom) - 1 + part) / math.sqrt(part)
