from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.errors import Misuse
from mainstay.rollout.sequential_pairs import Pairs, estimate, fold, higher_than, interval, lower_than
from rollout.simulated import surely_below

portions = st.lists(st.tuples(st.integers(0, 500), st.integers(0, 20), st.integers(0, 20)), max_size=8)


@given(told=portions, seed=st.randoms())
def test_order_and_portions_do_not_matter(told: list[tuple[int, int, int]], seed: object) -> None:
    at_once = fold(
        Pairs(),
        sum(alike + worse + better for alike, worse, better in told),
        sum(worse for _, worse, _ in told),
        sum(better for _, _, better in told),
    )
    state = Pairs()
    seed.shuffle(told)  # type: ignore[attr-defined]  # hypothesis makes a random.Random
    for alike, worse, better in told:
        state = fold(state, alike + worse + better, worse, better)
    assert state == at_once
    assert msgspec.json.decode(msgspec.json.encode(state), type=Pairs) == state


@given(p=st.floats(0, 0.5), q=st.floats(0, 0.5), d=st.floats(-0.9, 0.9))
def test_no_case_is_expected_to_be_evidence_while_the_hypothesis_holds(p: float, q: float, d: float) -> None:
    expected = sum(
        chance * math.exp(higher_than(Pairs(1.0, worse, better), d))
        for chance, worse, better in ((p, 1.0, 0.0), (q, 0.0, 1.0), (1 - p - q, 0.0, 0.0))
    )
    if p - q <= d:
        assert expected <= 1 + 1e-9


@given(
    worse=st.integers(0, 100), better=st.integers(0, 100), alike=st.integers(1, 1_000), tolerance=st.floats(0.001, 0.9)
)
def test_swapping_the_versions_turns_the_difference_round(
    worse: int, better: int, alike: int, tolerance: float
) -> None:
    one = fold(Pairs(), alike + worse + better, worse, better)
    other = fold(Pairs(), alike + worse + better, better, worse)
    assert estimate(one) == pytest.approx(-(estimate(other) or 0.0))
    assert higher_than(one, tolerance) == pytest.approx(lower_than(other, -tolerance))
    bounds, turned = interval(one), interval(other)
    assert bounds is not None
    assert turned is not None
    assert bounds == pytest.approx((-turned[1], -turned[0]), abs=1e-6)
    assert bounds[0] <= (estimate(one) or 0.0) <= bounds[1]


def test_a_version_as_good_is_called_worse_in_at_most_the_stated_share_however_often_looked_at() -> None:
    rng = np.random.default_rng(7)
    bad = 0
    for _ in range(1_000):
        worse, better = (np.cumsum(rng.binomial(50, 0.03, 60)) for _ in range(2))
        bad += any(
            higher_than(Pairs(50.0 * (n + 1), float(worse[n]), float(better[n]))) >= math.log(100) for n in range(60)
        )
    assert surely_below(bad, 1_000) <= 0.01


def test_the_same_cases_need_far_fewer_than_two_arms() -> None:
    # Five points of accuracy, 12 % of the cases decided otherwise: two arms of 10 % errors need about 3,500.
    rng = np.random.default_rng(8)
    needed = []
    for _ in range(200):
        state, cases = Pairs(), 0
        while higher_than(state) < math.log(100):
            worse, better, _ = rng.multinomial(20, [0.085, 0.035, 0.88])
            state, cases = fold(state, 20, int(worse), int(better)), cases + 20
        needed.append(cases)
    assert np.mean(needed) < 800


def test_a_share_of_disagreement_has_an_interval() -> None:
    state = fold(Pairs(), 2_000, 100, 0)
    bounds = interval(state)
    assert bounds is not None
    assert 0.03 < bounds[0] < 0.05 < bounds[1] < 0.07
    assert lower_than(state, 0.08) > math.log(100)
    assert interval(Pairs()) is None


def test_more_differing_cases_than_there_are_cases_are_refused() -> None:
    with pytest.raises(Misuse, match="expected worse and better cases among 3, found 2 and 2"):
        fold(Pairs(), 3, 2, 2)
