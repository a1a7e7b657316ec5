from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from mainstay.errors import Misuse
from mainstay.rollout.sequential_outputs import Outputs, distance, fold, further, interval, nearer, whole
from rollout.simulated import surely_below

USUAL = np.array([0.05, 0.15, 0.3, 0.3, 0.15, 0.05])
MOVED = np.array([0.05, 0.15, 0.2, 0.4, 0.15, 0.05])  # at a distance of 0.1


def _run(
    rng: np.random.Generator, canary: np.ndarray, production: np.ndarray, *, tolerance: float = 0.1, looks: int = 40
) -> list[Outputs]:
    state, seen = Outputs(tolerance=tolerance), []
    for _ in range(looks):
        state = fold(state, 0, rng.multinomial(60, canary).tolist(), rng.multinomial(140, production).tolist())
        seen.append(state)
    return seen


def test_outputs_at_the_tolerated_distance_are_called_too_far_in_at_most_the_stated_share() -> None:
    rng = np.random.default_rng(0)
    bad = sum(max(further(s.cohorts[0]) for s in _run(rng, MOVED, USUAL)) >= math.log(20) for _ in range(200))
    assert surely_below(bad, 200) <= 0.05


def test_outputs_at_the_tolerated_distance_are_called_near_in_at_most_the_stated_share() -> None:
    rng = np.random.default_rng(1)
    bad = sum(max(nearer(s.cohorts[0], 0.1) for s in _run(rng, MOVED, USUAL)) >= math.log(20) for _ in range(200))
    assert surely_below(bad, 200) <= 0.05


def test_outputs_that_went_elsewhere_are_found_and_equal_ones_shown_to_be_near() -> None:
    rng = np.random.default_rng(2)
    broken = np.array([0.5, 0.1, 0.1, 0.1, 0.1, 0.1])
    for _ in range(10):
        found = _run(rng, broken, USUAL)
        assert further(found[9].cohorts[0]) > math.log(1_000)  # 600 decisions of the canary
        assert nearer(_run(rng, USUAL, USUAL)[-1].cohorts[0], 0.1) > math.log(100)


def test_the_first_block_only_teaches_where_to_look() -> None:
    state = fold(Outputs(tolerance=0.1), 0, [100, 0], [0, 100])
    assert further(state.cohorts[0]) == 0
    assert further(fold(state, 0, [100, 0], [0, 100]).cohorts[0]) > math.log(1_000)


def test_the_interval_holds_the_distance_and_chance_is_taken_off_the_estimate() -> None:
    rng = np.random.default_rng(3)
    estimates = []
    for _ in range(60):
        looks = _run(rng, MOVED, USUAL, looks=10)
        for state in looks:
            bounds = interval(state.cohorts[0], 0.1)
            assert bounds is not None
            assert bounds[0] <= 0.1 <= bounds[1]
        estimates.append(distance(looks[-1].cohorts[0]) or 0.0)
    assert np.mean(estimates) == pytest.approx(0.1, abs=0.01)
    alike = [distance(_run(rng, USUAL, USUAL, looks=10)[-1].cohorts[0]) or 0.0 for _ in range(60)]
    assert np.mean(alike) < 0.02


def test_a_trickle_waits_and_json_changes_nothing() -> None:
    state = Outputs(tolerance=0.1)
    for number in range(9):
        state = fold(state, 1, [1, 0, 0], [])
        state = fold(state, 1, [], [0, number % 2, 1])
    assert state.cohorts[1].weight == 0
    assert distance(state.cohorts[1]) is None
    state = fold(state, 1, [0, 1, 0], [])
    assert state.cohorts[1].weight > 0
    assert state.cohorts[1].decisions == (10, 13)
    again = msgspec.json.decode(msgspec.json.encode(state), type=Outputs)
    assert again == state
    assert fold(again, 0, [9, 9, 9], [9, 9, 9]) == fold(state, 0, [9, 9, 9], [9, 9, 9])


def test_steps_add_up_block_by_block() -> None:
    state = fold(Outputs(tolerance=0.1), 0, [90, 10], [900, 100])
    state = fold(state, 1, [500, 500], [500, 500])  # the world changed for both
    found = whole(state.cohorts.values())
    assert found.gained == pytest.approx((0, 0), abs=1e-12)
    assert distance(found) == pytest.approx(0, abs=1e-9)


def test_other_bins_than_before_are_refused() -> None:
    state = fold(Outputs(tolerance=0.1), 0, [9, 9, 9], [9, 9, 9])
    with pytest.raises(Misuse, match="expected 3 counts of outputs, found 2"):
        fold(state, 0, [9, 9], [9, 9])
    with pytest.raises(Misuse, match="expected 3 counts of outputs, found 3"):
        fold(state, 0, [9, -1, 9], [])


def test_a_tolerance_of_everything_finds_nothing() -> None:
    state = Outputs(tolerance=1.0)
    for _ in range(3):
        state = fold(state, 0, [100, 0], [0, 100])
    assert further(state.cohorts[0]) == 0
