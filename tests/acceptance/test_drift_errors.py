"""The error rates that drift verdicts are declared to have, by simulation at fixed seeds.

A count of false alarms refutes a stated rate when chance alone would give so many once in a thousand times.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest

from mainstay.monitoring.binning import Column, Values
from mainstay.monitoring.drift import Sample, compare, judge
from mainstay.monitoring.earlier import baseline
from mainstay.monitoring.false_alarms import level_of_pass
from mainstay.monitoring.histograms import Tally
from mainstay.monitoring.reference_counts import count_reference
from monitoring.drift_counts import (
    CATEGORY,
    NUMBER,
    autocorrelated,
    category_shares,
    compared,
    counted,
    day,
    independent,
    most_by_chance,
    number_shares,
    share_below,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

pytestmark = pytest.mark.acceptance

FLAG = Column("f", Values(("false", "true")))
DAY = timedelta(days=1)


@pytest.mark.parametrize("rows", [1_000, 10_000, 100_000, 1_000_000])
@pytest.mark.parametrize(("column", "shares"), [(NUMBER, number_shares()), (CATEGORY, category_shares())])
def test_false_alarms_are_at_most_what_is_stated_whatever_the_window(
    rows: int, column: Column, shares: NDArray[np.float64]
) -> None:
    random = np.random.default_rng(rows)
    times = 300
    found = compared(lambda _: (independent(random, shares, 20_000), independent(random, shares, rows)), times, column)
    for level in (0.01, 0.1):
        assert share_below([each.p_value for each in found], level) * times <= most_by_chance(times, level)


@pytest.mark.parametrize("rows", [1_000, 10_000])
def test_false_alarms_stay_rare_where_neighbouring_rows_hang_together(rows: int) -> None:
    random = np.random.default_rng(rows)
    times = 100 if rows > 1_000 else 200

    def draw(_: int) -> tuple[Sample, Sample]:
        return counted(autocorrelated(random, 10 * rows)), counted(autocorrelated(random, rows))

    found = compared(draw, times)
    assert share_below([each.p_value for each in found], 0.01) * times <= most_by_chance(times, 0.01)
    effects = [each.design_effect for each in found if each.design_effect is not None]
    assert np.median(effects) > 2  # of independent rows it is 1
    assert all(each.noise_from != "rows" for each in found)


def test_false_alarms_stay_rare_where_hours_hang_together() -> None:
    random = np.random.default_rng(4)
    times = 200

    def restless(hours: int) -> Sample:
        level = 0.3 * autocorrelated(random, hours, 0.7)
        rows = np.repeat(level, 100) + random.standard_normal(100 * hours)
        return counted(rows)

    found = compared(lambda _: (restless(240), restless(24)), times)
    assert share_below([each.p_value for each in found], 0.01) * times <= most_by_chance(times, 0.01)


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("correlation", [0.2, 0.5])
def test_false_alarms_stay_rare_where_rows_hang_together_too_little_to_be_sure(
    correlation: float, shuffled: bool
) -> None:
    random = np.random.default_rng(3)
    times = 400

    def draw(_: int) -> tuple[Sample, Sample]:
        before = random.standard_normal(10_000) if shuffled else autocorrelated(random, 10_000, correlation)
        return counted(before), counted(autocorrelated(random, 1_000, correlation))

    found = compared(draw, times)
    assert share_below([each.p_value for each in found], 0.01) * times <= most_by_chance(times, 0.01)


@pytest.mark.parametrize("rows", [1_000, 10_000])
def test_false_alarms_stay_rare_where_hours_differ_too_little_to_be_sure(rows: int) -> None:
    random = np.random.default_rng(rows)
    times = 400

    def restless(hours: int) -> Sample:
        levels = 2 / np.sqrt(rows) * autocorrelated(random, hours, 0.7)
        counts = [random.multinomial(rows // 24, number_shares(float(level))) for level in levels]
        return Sample(np.array(counts).reshape(24, hours // 24, -1).sum(1))

    found = compared(lambda _: (restless(240), restless(24)), times)
    assert share_below([each.p_value for each in found], 0.01) * times <= most_by_chance(times, 0.01)


@pytest.mark.parametrize("restless", [0.0, 0.05])
def test_days_with_a_rhythm_are_compared_by_it(restless: float) -> None:
    random = np.random.default_rng(5)
    times, rows = 60, 24_000
    quiet, moved = [], []
    for _ in range(times):
        past = [day(random, rows, restless=restless) for _ in range(14)]
        quiet.append(compare(NUMBER, baseline(past), day(random, rows, restless=restless), past=past))
        reference = Sample(np.concatenate([day(random, rows, restless=restless).counts for _ in range(5)]))
        quiet.append(compare(NUMBER, reference, day(random, rows, restless=restless), past=past))
        moved.append(compare(NUMBER, reference, day(random, rows, shift=0.6, restless=restless), past=past))
    assert share_below([each.p_value for each in quiet], 0.01) * 2 * times <= most_by_chance(2 * times, 0.01)
    assert share_below([each.p_value for each in moved], 0.01) > 0.95
    assert {each.noise_from for each in quiet} <= {"windows", "steps", "rows"}


@pytest.mark.parametrize(
    ("rows", "shift", "least"),
    [(1_000, 0.1, 0.4), (1_000, 0.2, 0.9), (10_000, 0.05, 0.75), (100_000, 0.02, 0.7), (1_000_000, 0.02, 0.99)],
)
def test_small_moves_of_everything_are_found(rows: int, shift: float, least: float) -> None:
    random = np.random.default_rng(rows)
    n = max(100_000, rows)
    found = compared(
        lambda _: (independent(random, number_shares(), n), independent(random, number_shares(shift), rows)), 100
    )
    assert share_below([each.p_value for each in found], 0.01) >= least


@pytest.mark.parametrize(
    ("rows", "mixed", "least"), [(1_000, 0.05, 0.7), (1_000, 0.1, 0.95), (10_000, 0.02, 0.75), (100_000, 0.02, 0.99)]
)
def test_small_changes_of_a_mix_are_found(rows: int, mixed: float, least: float) -> None:
    random = np.random.default_rng(rows)
    draw = lambda _: (  # noqa: E731 - what is drawn, where it is used
        independent(random, category_shares(), 100_000),
        independent(random, category_shares(mixed), rows),
    )
    assert share_below([each.p_value for each in compared(draw, 100, CATEGORY)], 0.01) >= least


def test_what_was_rare_and_no_longer_is_is_found() -> None:
    random = np.random.default_rng(6)
    rare, frequent = np.array([0.9999, 0.0001, 0, 0]), np.array([0.95, 0.05, 0, 0])
    before = [independent(random, rare, 10_000) for _ in range(100)]
    again = [compare(FLAG, each, independent(random, rare, 1_000)).p_value for each in before]
    more = [compare(FLAG, each, independent(random, frequent, 1_000)).p_value for each in before]
    assert share_below(again, 0.01) * 100 <= most_by_chance(100, 0.01)
    assert share_below(more, 0.01) > 0.95


def test_bins_made_from_the_reference_itself_raise_no_false_alarms() -> None:
    random = np.random.default_rng(7)
    zipf = 1 / np.arange(1, 401) ** 1.1
    names = np.array([f"v{i}" for i in range(400)])

    def rows(n: int) -> pl.DataFrame:
        heavy = random.standard_cauchy(n)
        return pl.DataFrame(
            {
                "heavy": heavy,
                "zeros": np.where(random.random(n) < 0.6, 0.0, random.exponential(size=n)),
                "count": random.poisson(200, n),
                "rounded": np.round(heavy),
                "gaps": pl.Series(np.where(random.random(n) < 0.01, np.nan, heavy)),
                "many": names[random.choice(400, n, p=zipf / zipf.sum())],
                "flat": names[random.integers(0, 300, n)],
                "rare": names[np.minimum(399, random.geometric(0.5, n))],
            }
        )

    times, alarms, seen = 15, 0, 0
    for _ in range(times):
        reference = count_reference(rows(5_000))
        tally = Tally(reference.columns, (24,))
        tally.add(rows(20_000), [np.arange(20_000) * 24 // 20_000])
        steps = tally.result()
        for column in reference.columns:
            window = Sample.of([step[column.name] for step in steps])
            found = compare(column, reference.sample(column.name), window)
            assert found.p_value is not None
            alarms, seen = alarms + (found.p_value < 0.01), seen + 1
    assert alarms <= most_by_chance(seen, 0.01)


@pytest.mark.parametrize("restless", [False, True])
def test_a_month_has_no_more_false_alarms_than_declared(restless: bool) -> None:
    """Daily passes over eight columns, and in the second case four more whose rows hang together."""
    random = np.random.default_rng(1)
    declared, months, days = 6.0, 3, 30
    references = [independent(random, number_shares(), 24_000) for _ in range(5)]
    mixes = [independent(random, category_shares(), 24_000) for _ in range(3)]
    moody = [counted(autocorrelated(random, 24_000)) for _ in range(4)] if restless else []
    alarms = 0
    for _ in range(months * days):
        found = [compare(NUMBER, each, independent(random, number_shares(), 2_400)) for each in references]
        found += [compare(CATEGORY, each, independent(random, category_shares(), 2_400)) for each in mixes]
        found += [compare(NUMBER, each, counted(autocorrelated(random, 2_400))) for each in moody]
        verdicts = judge(found, level=level_of_pass(declared, DAY), smallest=0.0001)
        alarms += any(each.significant for each in verdicts)
    assert alarms <= most_by_chance(months * days, declared / days)


def test_among_what_is_found_the_share_of_false_ones_is_bounded() -> None:
    random = np.random.default_rng(2)
    level, passes = 0.2, 25
    false_share = []
    references = [independent(random, number_shares(), 24_000) for _ in range(12)]
    for _ in range(passes):
        drifted = [0.5 if i < 4 else 0.0 for i in range(12)]
        found = [
            compare(NUMBER, reference, independent(random, number_shares(shift), 2_400))
            for reference, shift in zip(references, drifted, strict=True)
        ]
        significant = [each.significant for each in judge(found, level=level, smallest=0.05)]
        false_share.append(sum(significant[4:]) / max(1, sum(significant)))
        assert all(significant[:4])
    assert np.mean(false_share) <= level
