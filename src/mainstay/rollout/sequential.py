"""Tests that hold however often they are looked at: the pieces that all of them are made of.

An *e-process* for a hypothesis is evidence against it that starts at 1 and is expected never to exceed 1, at any
stopping time, while the hypothesis holds. So the chance that it ever reaches 1/a is at most a (Ville 1939), whenever
and however often somebody looks, and whatever they do because of what they saw. Averages of e-processes are
e-processes, whatever their dependence (Vovk & Wang 2021, "E-values: calibration, combination and applications").
Grünwald, de Heide, Koolen (2024), "Safe testing"; Ramdas, Grünwald, Vovk, Shafer (2023), "Game-theoretic statistics
and safe anytime-valid inference".

**Two arms.** Of a block of decisions let n1 be the canary's and n0 those of the version in force, n = n1 + n0. For a
null hypothesis "mean1 - mean0 <= d" of values within 0..1, a centre m and a bet v >= 0, all fixed before the block,

    product over the canary of (1 + v n0/n (x - m - d))  times  product over the other of (1 - v n1/n (x - m))

has an expectation of at most 1: its logarithm's is at most the sum of the expected second terms, which is
v n1 n0/n (mean1 - mean0 - d), whatever the centre: a product of bets, as in Waudby-Smith & Ramdas (2024), "Estimating
means of bounded random variables by betting", in the shape that Turner, Ly, Grünwald (2024), "Generic E-variables for
exact sequential k-sample tests that allow for optional stopping", give to the test of two proportions. What enters
are the *averages within the block*, so a base rate that drifts moves both arms alike and the test not at all; a centre
that is off costs a little power and never validity. How large to bet depends on an effect that nobody knows: the
average over a grid of bets is taken, which costs at most the logarithm of their number.

All functions take arrays as well, of any one shape; bets are the last axis.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
from scipy.special import log_ndtr

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    Floats: TypeAlias = NDArray[np.float64]
    Bools: TypeAlias = NDArray[np.bool_]

BETS: Final[Floats] = 0.95 * 2.0 ** -np.arange(10.0)  # shares of the largest bet that cannot lose everything
SLOPES: Final[Floats] = 0.9 * 2.0 ** -np.arange(12.0)  # of the closed forms; each is below 1
_SLOPE_COSTS: Final[Floats] = -np.log1p(-SLOPES) - SLOPES
_EDGE: Final = 1e-3  # how close to 0 and 1 a centre may come


def mixed(log_values: ArrayLike) -> Floats:
    """The logarithm of the average of e-values over the last axis."""
    values = np.asarray(log_values, dtype=np.float64)
    highest = values.max(axis=-1, keepdims=True)
    return np.asarray(highest[..., 0] + np.log(np.exp(values - highest).mean(axis=-1)))


def growth(
    n1: ArrayLike, x1: ArrayLike, n0: ArrayLike, x0: ArrayLike, *, centre: ArrayLike, tolerance: float = 0.0
) -> Floats:
    """By how much a block moves each bet's log e-value against "rate1 - rate0 <= tolerance": (..., bets).

    n1, n0: decisions of the canary and of the version in force, both above 0; x1, x0: how many of them were hits, or,
    for values within 0..1, their sum (a product of bets is log-concave in each value, so that the sum is on the safe
    side). `centre` must be known before the block, and so must n1 and n0 be chosen without regard to the hits.
    """
    n1, x1, n0, x0 = (np.asarray(each, dtype=np.float64)[..., None] for each in (n1, x1, n0, x0))
    low = np.clip(np.asarray(centre, dtype=np.float64)[..., None], _EDGE, 1 - _EDGE - tolerance)
    high = low + tolerance
    share1, share0 = n1 / (n1 + n0), n0 / (n1 + n0)
    bets = BETS / np.maximum(share0 * high, share1 * (1 - low))
    gain, loss = bets * share0, bets * share1
    return np.asarray(
        x1 * np.log1p(gain * (1 - high))
        + (n1 - x1) * np.log1p(-gain * high)
        + x0 * np.log1p(-loss * (1 - low))
        + (n0 - x0) * np.log1p(loss * low)
    )


def bernstein(excess: ArrayLike, variance: ArrayLike) -> Floats:
    """The logarithm of an e-process from sums alone, for values within 0..1 of any distribution.

    With h = n1 n0/n per block, `excess` is the sum of h (average1 - average0 - d), towards what is to be shown, and
    `variance` that of (n0/n)^2 (x - m)^2 over the canary and of (n1/n)^2 (x - m)^2 over the other arm, m known before
    the block. For each slope s below 1, exp(s excess - (-log(1 - s) - s) variance) is an e-process against "the sum of
    h (mean1 - mean0) goes not beyond that of h d": Fan, Grama, Liu (2015), "Exponential inequalities for martingales
    with applications", as used by Howard, Ramdas, McAuliffe, Sekhon (2021), "Time-uniform, nonparametric, nonasymptotic
    confidence sequences". The average over slopes is.
    """
    excess, variance = np.asarray(excess)[..., None], np.asarray(variance)[..., None]
    return mixed(SLOPES * excess - _SLOPE_COSTS * variance)


def hoeffding(excess: ArrayLike, weight: ArrayLike) -> Floats:
    """As `bernstein`, knowing of the values only that they are within 0..1; `weight` is the sum of h."""
    excess, weight = np.asarray(excess)[..., None], np.asarray(weight)[..., None]
    return mixed(SLOPES * 4 * excess - (SLOPES * 4) ** 2 * weight / 8)


def normal(excess: ArrayLike, variance: ArrayLike, unit: ArrayLike) -> Floats:
    """As `bernstein`, for values without bounds and an estimated `variance`: valid in the limit of many decisions.

    The one-sided mixture of Robbins (1970), "Statistical methods related to the law of the iterated logarithm", made an
    asymptotic confidence sequence by Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas (2024), "Time-uniform central limit
    theory and asymptotic confidence sequences". `unit` is the variance at which it is sharpest.
    """
    excess, total = np.asarray(excess), np.asarray(variance) + np.asarray(unit)
    return np.asarray(
        0.5 * np.log(np.asarray(unit) / total)
        + excess**2 / (2 * total)
        + math.log(2)
        + log_ndtr(excess / np.sqrt(total))
    )


def bernstein_reach(variance: float, level: float) -> float:
    """The excess at which `bernstein` reaches 1/level: half the width of an interval, times the sum of h."""
    most = (math.log(len(SLOPES) / level) + _SLOPE_COSTS * variance) / SLOPES
    return _crossing(
        lambda excess: bernstein(excess, np.full_like(excess, variance)), float(most.min()), math.log(level)
    )


def hoeffding_reach(weight: float, log_level: float) -> float:
    """As `bernstein_reach`, for `hoeffding` and the logarithm of a level."""
    slopes = 4 * SLOPES
    most = (math.log(len(SLOPES)) - log_level + slopes**2 * weight / 8) / slopes
    return _crossing(lambda excess: hoeffding(excess, np.full_like(excess, weight)), float(most.min()), log_level)


def normal_reach(variance: float, level: float, unit: float) -> float:
    """As `bernstein_reach`, for `normal`."""
    total = variance + unit
    most = math.sqrt(2 * total * (-math.log(level) + 0.5 * math.log(total / unit)))
    return _crossing(lambda excess: normal(excess, variance, unit), most, math.log(level))


def _crossing(evidence: Callable[[Floats], Floats], most: float, log_level: float) -> float:
    """Where evidence that grows with the excess becomes -log_level; it has become so at `most`. Never too low."""
    low, high = 0.0, most
    for _ in range(3):
        grid = np.linspace(low, high, 65)
        first = min(int(np.searchsorted(evidence(grid), -log_level)), 64)
        low, high = float(grid[max(0, first - 1)]), float(grid[first])
    return high


def discoveries(log_values: ArrayLike, rate: float) -> Bools:
    """Which of many hypotheses to call false, so that the expected share of wrong calls is at most `rate`: booleans.

    The procedure of Wang & Ramdas (2022), "False discovery rate control with e-values" (e-BH): the k largest, for the
    largest k whose k-th e-value is at least (number of hypotheses)/(k rate). Valid whatever their dependence.
    """
    values = np.asarray(log_values, dtype=np.float64)
    order = np.argsort(-values, kind="stable")
    needed = np.log(len(values) / (np.arange(1, len(values) + 1) * rate))
    enough = np.flatnonzero(values[order] >= needed)
    called = np.zeros(len(values), dtype=np.bool_)
    if len(enough):
        called[order[: enough[-1] + 1]] = True
    return called


def weight_needed(gap: float, variance: float, log_value: float) -> float:
    """The weight h at which `bernstein` is about `log_value`, for an excess of `gap` and a `variance` per weight."""
    gains = SLOPES * gap - _SLOPE_COSTS * variance
    usable = gains[gains > 0]
    return float(((log_value + math.log(len(SLOPES)) / 2) / usable).min()) if len(usable) else math.inf
