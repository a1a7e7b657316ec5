"""Numbers in another unit than before."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainstay.intake.unit_change import FACTORS, chance, find_unit_change


def drawn(seed: int, count: int = 1_000, middle: float = 6.0) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.random.default_rng(seed).lognormal(middle, 0.5, count)


@pytest.mark.parametrize("factor", [*FACTORS, *(1 / each for each in FACTORS)])
def test_every_known_factor_is_found_both_ways(factor: float) -> None:
    before = drawn(1, 3_000)
    found = find_unit_change(before, drawn(2) * factor, [float(np.median(before))] * 5)
    assert found is not None
    assert found.factor == pytest.approx(factor)
    assert found.holds


@settings(max_examples=50)
@given(st.integers(0, 10_000))
def test_the_same_distribution_again_is_no_other_unit(seed: int) -> None:
    assert find_unit_change(drawn(seed, 2_000), drawn(seed + 1)) is None


def test_another_distribution_is_no_other_unit() -> None:
    random = np.random.default_rng(3)
    assert find_unit_change(drawn(1), random.normal(700, 20, 1_000)) is None
    assert find_unit_change(drawn(1), drawn(2) * 1.3) is None
    assert find_unit_change(drawn(1), -drawn(2) * 1.609344) is None


def test_a_feed_that_swings_by_more_than_the_factor_is_left_alone() -> None:
    swinging = [100.0, 250.0, 90.0, 400.0, 160.0]
    assert find_unit_change(drawn(1), drawn(2) * 1.609344, swinging) is None
    steady = [400.0, 410.0, 395.0, 402.0]
    assert find_unit_change(drawn(1), drawn(2) * 1.609344, steady) is not None


def test_a_small_factor_holds_only_where_the_ups_and_downs_are_known_and_a_plain_one_at_once() -> None:
    first = find_unit_change(drawn(1), drawn(2) * 1.609344, [400.0])
    assert first is not None
    assert not first.holds
    plain = find_unit_change(drawn(1), drawn(2) * 100, [400.0])
    assert plain is not None
    assert plain.holds


def test_few_values_or_few_different_ones_say_nothing() -> None:
    assert find_unit_change(drawn(1, 40), drawn(2, 1_000) * 100) is None
    codes = np.random.default_rng(4).integers(1, 10, 1_000).astype(float)
    assert find_unit_change(codes, codes * 100) is None


def test_the_chance_is_that_of_the_asymptotic_bound() -> None:
    one, other = np.array([1.0, 2.0, 3.0, 4.0]), np.array([3.5, 5.0, 6.0, 7.0])
    assert chance(one, other) == pytest.approx(2 * np.exp(-2 * 2 * 0.75**2))
    assert chance(one, one) == 1.0


def test_a_chance_holds_for_samples_of_one_distribution() -> None:
    chances = [chance(np.sort(drawn(seed, 300)), np.sort(drawn(seed + 5_000, 200))) for seed in range(400)]
    for level in (0.5, 0.1, 0.02):
        assert np.mean([each <= level for each in chances]) <= level + 0.02
