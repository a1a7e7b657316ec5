from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from mainstay.rollout.sequential import (
    bernstein,
    bernstein_reach,
    discoveries,
    growth,
    hoeffding,
    hoeffding_reach,
    mixed,
    normal,
    normal_reach,
    weight_needed,
)
from rollout.simulated import run_shares, surely_below

arms = st.integers(1, 12)
rates = st.floats(0, 1).map(lambda p: p if p > 1e-200 else 0.0)  # below, SciPy's probabilities overflow


def _every_outcome(n1: int, p1: float, n0: int, p0: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hits of both arms, and their chances: every block that there can be."""
    x1, x0 = (each.ravel() for each in np.meshgrid(np.arange(n1 + 1), np.arange(n0 + 1)))
    return x1, x0, binom.pmf(x1, n1, p1) * binom.pmf(x0, n0, p0)


@given(n1=arms, n0=arms, p0=rates, centre=rates, tolerance=st.floats(0, 0.9), below=st.floats(0, 1))
@settings(max_examples=60)
def test_no_bet_is_expected_to_gain_while_the_hypothesis_holds(
    n1: int, n0: int, p0: float, centre: float, tolerance: float, below: float
) -> None:
    p1 = below * min(1.0, p0 + tolerance)
    x1, x0, chance = _every_outcome(n1, p1, n0, p0)
    values = np.exp(growth(np.full(x1.shape, n1), x1, np.full(x1.shape, n0), x0, centre=centre, tolerance=tolerance))
    assert (chance @ values).max() <= 1 + 1e-9


@given(n1=arms, n0=arms, p0=rates, centre=rates, p1=rates)
@settings(max_examples=60)
def test_sums_are_expected_to_gain_nothing_at_the_edge_of_the_hypothesis(
    n1: int, n0: int, p0: float, centre: float, p1: float
) -> None:
    x1, x0, chance = _every_outcome(n1, p1, n0, p0)
    n = n1 + n0
    weight = n1 * n0 / n
    up, down = (1 - centre) ** 2, centre**2
    variance = (n0 / n) ** 2 * (x1 * up + (n1 - x1) * down) + (n1 / n) ** 2 * (x0 * up + (n0 - x0) * down)
    excess = weight * (x1 / n1 - x0 / n0 - (p1 - p0))
    for towards in (excess, -excess):
        assert chance @ np.exp(bernstein(towards, variance)) <= 1 + 1e-9
        assert chance @ np.exp(hoeffding(towards, np.full(x1.shape, weight))) <= 1 + 1e-9


@given(n1=arms, n0=arms, centre=rates)
def test_more_hits_of_the_canary_are_more_evidence_against_it_and_more_of_the_other_less(
    n1: int, n0: int, centre: float
) -> None:
    by_canary = [growth(n1, x1, n0, 0, centre=centre) for x1 in range(n1 + 1)]
    by_other = [growth(n1, n1, n0, x0, centre=centre) for x0 in range(n0 + 1)]
    assert all((b >= a).all() for a, b in pairwise(by_canary))
    assert all((b <= a).all() for a, b in pairwise(by_other))


@pytest.mark.parametrize("level", [0.5, 0.05, 0.0001])
def test_the_reach_is_where_the_evidence_becomes_enough(level: float) -> None:
    wanted = -math.log(level)
    for variance in (0.0, 1e-6, 0.3, 40.0, 1e6):
        assert wanted <= bernstein(bernstein_reach(variance, level), variance) <= wanted + 0.01
    for weight in (0.5, 40.0, 1e6):
        assert wanted <= hoeffding(hoeffding_reach(weight, -wanted), weight) <= wanted + 0.01
        assert wanted <= normal(normal_reach(weight, level, 10.0), weight, 10.0) <= wanted + 0.01


def test_the_average_is_that_of_the_values_and_not_of_their_logarithms() -> None:
    assert mixed(np.log([1.0, 3.0])) == pytest.approx(math.log(2))
    assert mixed([[900.0, -900.0], [-900.0, -900.0]]) == pytest.approx([900 - math.log(2), -900])


def test_discoveries_are_the_largest_that_are_large_enough_together() -> None:
    # Of four at 5 %: the first alone needs 80, two need 40 each, three 26.7 each, four 20 each.
    assert list(discoveries(np.log([50.0, 45.0, 1.0, 0.1]), 0.05)) == [True, True, False, False]
    assert list(discoveries(np.log([1.0, 79.0, 1.0, 0.1]), 0.05)) == [False] * 4
    assert list(discoveries(np.log([21.0, 20.0, 22.0, 20.5]), 0.05)) == [True] * 4


def test_false_discoveries_stay_below_their_share() -> None:
    rng = np.random.default_rng(5)
    shares = []
    for _ in range(2_000):
        # A likelihood ratio of N(2.5, 1) against N(0, 1): twenty true hypotheses and five false ones.
        seen = rng.normal(np.repeat([0.0, 2.5], [20, 5]))
        called = discoveries(2.5 * seen - 2.5**2 / 2, 0.05)
        shares.append(called[:20].sum() / max(1, called.sum()))
    assert np.mean(shares) + 3 * np.std(shares) / math.sqrt(2_000) <= 0.05


def test_the_forecast_of_the_weight_needed_is_about_right() -> None:
    weight = weight_needed(0.01, 0.09, math.log(100))
    assert bernstein(0.01 * weight, 0.09 * weight) == pytest.approx(math.log(100), rel=0.3)
    assert math.isinf(weight_needed(-0.01, 0.09, 4.6))


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_a_version_as_good_is_called_worse_in_at_most_the_stated_share_however_often_looked_at(share: float) -> None:
    paths = run_shares(lambda _: 0.02, lambda _: 0.0, share=share, tolerance=0.01, runs=2_000)
    assert surely_below(int((paths.worse >= math.log(100)).sum()), 2_000) <= 0.01


def test_a_base_rate_that_drifts_and_jumps_moves_both_arms_and_the_verdict_not() -> None:
    def base(number: int) -> float:
        return 0.01 + 0.15 * (number % 40 >= 30) + 0.001 * number  # errors by night, and more from week to week

    paths = run_shares(base, lambda _: 0.0, share=0.25, tolerance=0.01, runs=2_000)
    assert surely_below(int((paths.worse >= math.log(100)).sum()), 2_000) <= 0.01


def test_a_version_worse_by_the_tolerance_is_shown_to_be_kept_in_at_most_the_stated_share() -> None:
    paths = run_shares(lambda n: 0.01 + 0.0005 * n, lambda _: 0.02, share=0.25, tolerance=0.02, runs=2_000, seed=3)
    assert surely_below(int((paths.kept >= math.log(100)).sum()), 2_000) <= 0.01


def test_a_doubling_of_errors_is_found_with_the_decisions_that_are_stated() -> None:
    paths = run_shares(lambda _: 0.01, lambda _: 0.01, share=0.5, tolerance=0.01, runs=500, batches=250)
    assert np.isfinite(paths.until_worse).mean() >= 0.99
    assert 7_000 <= paths.until_worse[np.isfinite(paths.until_worse)].mean() <= 10_000


def test_a_harm_that_begins_after_a_long_good_time_is_found() -> None:
    paths = run_shares(lambda _: 0.01, lambda n: 0.04 * (n >= 100), share=0.25, tolerance=0.01, runs=300, batches=200)
    assert np.isfinite(paths.until_worse).mean() >= 0.99
    assert np.median(paths.until_worse) <= 20_000 + 4_000
