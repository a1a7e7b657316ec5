"""Counts of columns whose distribution is known, drawn without making their rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from scipy.signal import lfilter
from scipy.special import ndtr, ndtri
from scipy.stats import binom

from mainstay.monitoring.binning import Column, Numbers, Values
from mainstay.monitoring.drift import Comparison, Sample, compare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]

STEPS = 24
EDGES = np.array([-4.0, *ndtri(np.arange(1, 32) / 32), 4.0])
NUMBER = Column("x", Numbers(tuple(EDGES.tolist())))
CATEGORY = Column("c", Values(tuple("abcdefgh")))


def number_shares(shift: float = 0.0) -> Floats:
    """Of a normal number that has moved by so many standard deviations."""
    return np.append(np.diff(ndtr(np.array([-np.inf, *EDGES, np.inf]) - shift)), 0.0)


def category_shares(mixed: float = 0.0) -> Floats:
    """Of eight values, `mixed` (the total variation distance) of which has gone from four of them to one."""
    shares = np.array([*[0.125] * 8, 0.0, 0.0])
    shares[0] += mixed
    shares[1:5] -= mixed / 4
    return shares


def independent(random: np.random.Generator, shares: Floats, rows: int, units: int = STEPS) -> Sample:
    return Sample(random.multinomial(rows // units, shares, units))


def counted(values: Floats, units: int = STEPS) -> Sample:
    """Rows in the order of time, cut into units."""
    rows, bins = len(values) // units * units, len(EDGES) + 2
    cells = np.arange(rows) * units // rows * bins + np.searchsorted(EDGES, values[:rows], "right")
    return Sample(np.bincount(cells, minlength=units * bins).reshape(units, bins))


def autocorrelated(random: np.random.Generator, rows: int, correlation: float = 0.9) -> Floats:
    """A stationary autoregression of first order, of variance 1."""
    noise = random.standard_normal(rows + 200) * np.sqrt(1 - correlation**2)
    return np.asarray(lfilter([1.0], [1.0, -correlation], noise)[200:])


def day(random: np.random.Generator, rows: int, *, shift: float = 0.0, restless: float = 0.0) -> Sample:
    """24 hours of a number that rises and falls with the day, the whole day by chance a little higher or lower."""
    hours = np.sin(2 * np.pi * (np.arange(24) + 0.5) / 24) + shift + restless * random.standard_normal()
    per_hour = [random.multinomial(rows // 24, number_shares(float(hour))) for hour in hours]
    return Sample(np.array(per_hour))


def most_by_chance(trials: int, rate: float) -> int:
    """How many of so many trials may fail at this rate before the rate is refuted, at a chance of one in a thousand."""
    return int(binom.ppf(0.999, trials, rate))


def share_below(p_values: Iterable[float | None], level: float) -> float:
    return float(np.mean([p is not None and p < level for p in p_values]))


def compared(draw: Callable[[int], tuple[Sample, Sample]], times: int, column: Column = NUMBER) -> list[Comparison]:
    return [compare(column, *draw(i)) for i in range(times)]
