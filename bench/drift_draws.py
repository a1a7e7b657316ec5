"""Columns whose distribution is known, with and without a change: counts alone, or the rows that other tools need.

    numbers          independent, normal
    texts            independent, eight values
    autocorrelated   an autoregression of first order, correlation 0.9
    hours            each hour has a level of its own (sd 0.3), and levels an autoregression with correlation 0.7
    days             a rhythm of day and night (amplitude 1), days that differ (sd 0.05), against the 14 days before
    weak, middling   autoregressions of first order, correlations 0.2 and 0.5, which units show little of
    slow             levels of hours that follow each other (correlation 0.7), so near each other that the variance of
                     a window's mean is less than doubled

A change moves a number's mean by so many standard deviations of its rows, or a text's mix by so much of its total
variation distance, from four values to one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import numpy as np
from drift_table import VALUES
from scipy.signal import lfilter
from scipy.special import ndtr, ndtri

from mainstay.monitoring.binning import Column, Numbers, Values
from mainstay.monitoring.drift import Comparison, Sample, compare
from mainstay.monitoring.earlier import baseline

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]
    Drawn: TypeAlias = NDArray[np.float64] | NDArray[np.int8]
    Draw: TypeAlias = Callable[[np.random.Generator], Comparison]

KINDS: Final = ("numbers", "texts", "autocorrelated", "hours", "days", "weak", "middling")
HARDEST: Final = "slow"  # drawn when it is asked for: it comes so near to 1 % that it wants thousands of draws
CORRELATIONS: Final = {"autocorrelated": 0.9, "middling": 0.5, "weak": 0.2}  # of neighbouring rows
SHIFTS: Final = (0.0, 0.02, 0.05, 0.1, 0.2)
MIXES: Final = (0.0, 0.02, 0.05, 0.1)
STEPS: Final = 24
REFERENCE_ROWS: Final = 100_000
PAST_DAYS: Final = 14
TIMES_LONGER: Final = 10  # than a window its reference, where rows are drawn

EDGES: Final = np.array([-4.0, *ndtri(np.arange(1, 32) / 32), 4.0])
NUMBER: Final = Column("x", Numbers(tuple(EDGES.tolist())))
TEXT: Final = Column("c", Values(tuple(VALUES.tolist())))


def effects(kind: str) -> tuple[float, ...]:
    return MIXES if kind == "texts" else SHIFTS


def counts(kind: str, effect: float, rows: int) -> Draw:
    """A window beside its reference. What is independent is drawn as counts: the same as drawing and counting rows."""
    if kind == "numbers":
        return _independent(NUMBER, number_shares(0.0), number_shares(effect), rows)
    if kind == "texts":
        return _independent(TEXT, text_shares(0.0), text_shares(effect), rows)
    if kind == "days":
        return _days(effect, rows)

    def draw(random: np.random.Generator) -> Comparison:
        reference, window = _stream(kind, random, rows)
        return judge(kind, reference, window + effect)

    return draw


def number_shares(shift: float) -> Floats:
    return np.append(np.diff(ndtr(np.array([-np.inf, *EDGES, np.inf]) - shift)), 0.0)


def text_shares(mixed: float) -> Floats:
    shares = np.array([*[1 / len(VALUES)] * len(VALUES), 0.0, 0.0])
    shares[0] += mixed
    shares[1:5] -= mixed / 4
    return shares


class Rows(NamedTuple):
    """Columns with their rows, each column drawn anew; texts as places in VALUES.

    A column's windows differ by the change alone.
    """

    reference: Drawn  # (times, reference rows)
    windows: Drawn  # (effects, times, rows)


def rows(kind: str, size: int, times: int) -> Rows:
    """The reference has ten times the window's rows; of days, fourteen times."""
    random = np.random.default_rng([size, KINDS.index(kind)])
    long = TIMES_LONGER * size
    if kind == "texts":
        places = random.integers(0, len(VALUES), (times, size), dtype=np.int8)
        moves = np.where((places >= 1) & (places <= 4), random.random((times, size)), 1.0)
        mixes = np.stack([np.where(moves < mixed / 4 * len(VALUES), np.int8(0), places) for mixed in MIXES])
        return Rows(random.integers(0, len(VALUES), (times, long), dtype=np.int8), mixes)
    if kind == "numbers":
        reference, window = random.standard_normal((times, long)), random.standard_normal((times, size))
    else:
        pairs = [_stream(kind, random, size) for _ in range(times)]
        reference, window = (np.stack(each) for each in zip(*pairs, strict=True))
    return Rows(reference, np.stack([window + shift for shift in SHIFTS]))


def judge(kind: str, reference: Drawn, window: Drawn) -> Comparison:
    """Mainstay's comparison of rows in their order."""
    if kind == "days":
        past = [_counted(kind, np.asarray(day, np.float64)) for day in np.split(reference, PAST_DAYS)]
        return compare(NUMBER, baseline(past), _counted(kind, window), past=past)
    column = TEXT if kind == "texts" else NUMBER
    return compare(column, _counted(kind, reference), _counted(kind, window))


def _independent(column: Column, before: Floats, now: Floats, size: int) -> Draw:
    def draw(random: np.random.Generator) -> Comparison:
        long = max(REFERENCE_ROWS, size)
        reference, window = (
            Sample(random.multinomial(many // STEPS, shares, STEPS)) for many, shares in ((long, before), (size, now))
        )
        return compare(column, reference, window)

    return draw


def _days(shift: float, size: int) -> Draw:
    def day(random: np.random.Generator, moved: float = 0.0) -> Sample:
        shares = [number_shares(float(each)) for each in _levels_of_a_day(random) + moved]
        return Sample(np.array([random.multinomial(size // STEPS, each) for each in shares]))

    def draw(random: np.random.Generator) -> Comparison:
        past = [day(random) for _ in range(PAST_DAYS)]
        return compare(NUMBER, baseline(past), day(random, shift), past=past)

    return draw


def _stream(kind: str, random: np.random.Generator, size: int) -> tuple[Floats, Floats]:
    """A reference, and a window without a change."""
    if kind in CORRELATIONS:
        return tuple(_autoregression(random, many, CORRELATIONS[kind]) for many in (TIMES_LONGER * size, size))  # type: ignore[return-value]  # of two
    if kind in {"hours", HARDEST}:
        apart = 0.3 if kind == "hours" else 2 / np.sqrt(size)
        levels = [apart * _autoregression(random, many * STEPS, 0.7) for many in (TIMES_LONGER, 1)]
    else:
        days = [_levels_of_a_day(random) for _ in range(PAST_DAYS + 1)]
        levels = [np.concatenate(days[:-1]), days[-1]]
    reference, window = (np.repeat(each, size // STEPS) for each in levels)
    return reference + random.standard_normal(len(reference)), window + random.standard_normal(len(window))


def _levels_of_a_day(random: np.random.Generator) -> Floats:
    rhythm: Floats = np.sin(2 * np.pi * (np.arange(STEPS) + 0.5) / STEPS)
    return rhythm + 0.05 * random.standard_normal()


def _autoregression(random: np.random.Generator, size: int, correlation: float) -> Floats:
    noise = random.standard_normal(size + 200) * np.sqrt(1 - correlation**2)
    return np.asarray(lfilter([1.0], [1.0, -correlation], noise)[200:])


def _counted(kind: str, values: Drawn) -> Sample:
    """Cut into steps, in the order of time."""
    many = len(values) // STEPS * STEPS
    bins = (TEXT if kind == "texts" else NUMBER).bins.size
    found = np.asarray(values[:many] if kind == "texts" else np.searchsorted(EDGES, values[:many], "right"), np.int64)
    places = np.arange(many) * STEPS // many * bins + found
    return Sample(np.bincount(places, minlength=STEPS * bins).reshape(STEPS, bins))
