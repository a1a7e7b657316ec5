"""How good predicted numbers were. `truth` and `said` are `(n,) float`, in the unit of what is predicted."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from mainstay.monitoring.intervals import LEVEL, Estimate, mean, z_value

if TYPE_CHECKING:
    from mainstay.monitoring.intervals import Floats


def mae(truth: Floats, said: Floats, *, level: float = LEVEL) -> Estimate | None:
    """Mean absolute error, with Student's interval. None for no rows."""
    return mean(np.abs(said - truth), level=level, lowest=0.0) if len(truth) else None


def bias(truth: Floats, said: Floats, *, level: float = LEVEL) -> Estimate | None:
    """Mean of what was said less what was: above zero, it is said too high. None for no rows."""
    return mean(said - truth, level=level) if len(truth) else None


def rmse(truth: Floats, said: Floats, *, level: float = LEVEL) -> Estimate | None:
    """Root of the mean squared error: the root of the interval of the mean square. None for no rows.

    The interval of the mean square is symmetric in its logarithm: squares have a long tail, and no value below zero.
    """
    if not len(truth):
        return None
    squares = (said - truth) ** 2
    middle = float(squares.mean())
    if len(squares) == 1:
        return Estimate(math.sqrt(middle), 0.0, math.inf)
    if middle == 0:
        return Estimate(0.0, 0.0, 0.0)
    width = z_value(level) * float(squares.std(ddof=1)) / math.sqrt(len(squares)) / middle
    root = math.sqrt(middle)
    return Estimate(root, root * math.exp(-width / 2), root * math.exp(width / 2))


def r2(truth: Floats, said: Floats, *, level: float = LEVEL) -> Estimate | None:
    """The share of the variance of the truth that is explained. None for fewer than 3 rows, or where it has none.

    Standard error by the delta method: a row's influence on 1 - R^2 = E / V, with E the mean square of the error and V
    the variance of the truth, is (e^2 - (1 - R^2)(y - mean)^2) / V. The interval is symmetric in log(1 - R^2).
    """
    if len(truth) < 3:
        return None
    spread = (truth - truth.mean()) ** 2
    variance = float(spread.mean())
    if variance == 0:
        return None
    squares = (said - truth) ** 2
    rest = float(squares.mean()) / variance
    if rest == 0:
        return Estimate(1.0, 1.0, 1.0)
    influence = (squares - rest * spread) / variance
    width = z_value(level) * float(influence.std(ddof=1)) / math.sqrt(len(truth)) / rest
    return Estimate(1 - rest, 1 - rest * math.exp(width), 1 - rest * math.exp(-width))
