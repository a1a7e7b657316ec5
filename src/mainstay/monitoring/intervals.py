"""Numbers with the interval that the data allow: shares, means, and what is computed from several of them.

Intervals hold for one look at rows that do not depend on each other, unless the function says otherwise.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING, TypeAlias

from msgspec import Struct
from scipy.special import stdtrit

from mainstay.errors import Misuse

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]
    Bools: TypeAlias = NDArray[np.bool_]

LEVEL = 0.95  # of every interval, two-sided


class Estimate(Struct, frozen=True, gc=False):
    """A number and its interval: `low <= value <= high`."""

    value: float
    low: float
    high: float


def z_value(level: float) -> float:
    """The quantile of the normal distribution that a two-sided interval of this level reaches to."""
    if not 0 < level < 1:
        raise Misuse(f"expected a level between 0 and 1, found {level}")
    return NormalDist().inv_cdf(0.5 + level / 2)


def t_value(level: float, freedom: float) -> float:
    """The same quantile of Student's distribution with `freedom` degrees of freedom, at least 1."""
    return float(stdtrit(freedom, 0.5 + level / 2))


def logistic(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))


def wilson(successes: int, n: int, *, level: float = LEVEL) -> Estimate | None:
    """A share with the score interval of Wilson (1927). None when n is 0."""
    if not 0 <= successes <= n:
        raise Misuse(f"expected successes from 0 to {n}, found {successes}")
    return wilson_of(successes / n, n, level) if n else None


def wilson_of(share: float, n: float, level: float) -> Estimate:
    """The same of a share among `n` cases, which need not be whole: an effective number will do."""
    z = z_value(level)
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    width = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # Rounding may put a bound a hair beyond the share itself when that is 0 or 1.
    return Estimate(share, max(0.0, min(share, centre - width)), min(1.0, max(share, centre + width)))


def mean(values: Floats, *, level: float = LEVEL, lowest: float = -math.inf, highest: float = math.inf) -> Estimate:
    """A mean with Student's interval; `lowest` and `highest` are what a value can be at all. At least one value.

    Where the values are all alike, which says nothing of how they vary, and they have bounds, the interval reaches as
    far as the exact one of a share would: 1 - (alpha / 2)^(1 / n) of the way to each bound.
    """
    n, middle = len(values), float(values.mean())
    if n == 1:
        return Estimate(middle, lowest, highest)
    deviation = float(values.std(ddof=1))
    if deviation == 0:
        reach = 1 - ((1 - level) / 2) ** (1 / n)
        low = middle if math.isinf(lowest) else middle - reach * (middle - lowest)
        high = middle if math.isinf(highest) else middle + reach * (highest - middle)
        return Estimate(middle, low, high)
    width = t_value(level, n - 1) * deviation / math.sqrt(n)
    return Estimate(middle, max(lowest, middle - width), min(highest, middle + width))


def in_unit(value: float, deviation: float, *, level: float = LEVEL) -> Estimate:
    """A number within 0..1 with a standard error; the interval is symmetric in its logit. 0..1 at the ends."""
    if not 0 < value < 1:
        return Estimate(min(max(value, 0.0), 1.0), 0.0, 1.0)
    centre, width = math.log(value / (1 - value)), z_value(level) * deviation / (value * (1 - value))
    return Estimate(value, min(value, logistic(centre - width)), max(value, logistic(centre + width)))


def mean_of_shares(shares: Sequence[Estimate]) -> Estimate:
    """The mean of independent shares: "MOVER", Zou & Donner (2008), "Construction of confidence limits about effect
    measures", 3. At least one share.
    """
    k = len(shares)
    value = sum(share.value for share in shares) / k
    below = math.sqrt(sum((share.value - share.low) ** 2 for share in shares)) / k
    above = math.sqrt(sum((share.high - share.value) ** 2 for share in shares)) / k
    return Estimate(value, max(0.0, value - below), min(1.0, value + above))
