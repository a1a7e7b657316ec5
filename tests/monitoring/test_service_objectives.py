from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from mainstay.capability.keeping import Cost, ServiceLevels
from mainstay.monitoring.service_cost import cost_of
from mainstay.monitoring.service_objectives import Tally, objectives_of, tally
from monitoring.levels import counted, declared


def test_only_what_is_declared_is_promised() -> None:
    assert objectives_of(ServiceLevels()) == ()
    found = objectives_of(declared().service_levels)
    assert [(each.name, each.allowed, each.waits) for each in found] == [
        ("availability", 0.001, True),
        ("model_answers", 0.02, False),
        ("latency", 0.01, True),
        ("review_share", 0.05, False),
    ]
    assert found[2].latency_seconds == 0.2
    assert objectives_of(ServiceLevels(review_share=1.0)) == ()


def test_who_is_to_blame_decides_what_counts_against_which_promise() -> None:
    counts = counted(
        {
            "answered": 100,
            "fallback/model_error": 10,
            "refused/no_fallback": 3,
            "refused/contract_violation": 50,
            "review/low_confidence": 7,
            "review/model_crashed": 2,
            "review/outside_authority": 5,
        },
        latency={0: 90, 100: 30},
    )
    found = {each.name: tally(each, counts) for each in objectives_of(declared().service_levels)}
    assert found["availability"] == Tally(5, 115)  # refused, and left to people because it crashed
    assert found["model_answers"] == Tally(22, 122)
    assert found["review_share"] == Tally(14, 177)
    assert found["latency"] == Tally(120, 120)


def test_a_call_is_slow_where_it_took_longer_than_declared() -> None:
    latency = next(each for each in objectives_of(ServiceLevels(latency_ms=1_000)) if each.name == "latency")
    assert tally(latency, counted(0, latency={-50: 90, 0: 5, 1: 4, 60: 1})) == Tally(5, 100)


@given(st.integers(1, 400).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of))), st.floats(0.001, 0.999))
def test_the_chance_of_so_many_is_the_tail_of_the_binomial(found: tuple[int, int], share: float) -> None:
    bad, of = found
    assert math.isclose(Tally(bad, of).chance(share), float(binom.sf(bad - 1, of, share)), rel_tol=1e-8, abs_tol=1e-300)


@pytest.mark.parametrize("share", [0.001, 0.02, 0.3])
@pytest.mark.parametrize("of", [20, 400])
def test_the_interval_covers_the_true_share_at_least_as_often_as_it_says(share: float, of: int) -> None:
    covered = 0.0
    for bad in range(of + 1):
        estimate = Tally(bad, of).estimate()
        assert estimate is not None
        covered += float(binom.pmf(bad, of, share)) if estimate.low <= share <= estimate.high else 0.0
    assert covered >= 0.95
    assert Tally(0, 0).estimate() is None


def test_a_decision_costs_its_price_its_time_and_its_share_of_reviews() -> None:
    counts = counted({"answered": 90, "review/low_confidence": 10}, timed=50, seconds=100.0, squares=250.0)
    found = cost_of(counts, Cost(currency="EUR", per_decision=0.01, per_second=0.1, per_review=4), at_most=0.5)
    assert found is not None
    assert math.isclose(found.per_decision.value, 0.01 + 0.1 * 2 + 4 * 0.1)
    assert math.isclose(found.total, 61.0)
    error = 4 * math.sqrt(0.1 * 0.9 / 100) + 0.1 * math.sqrt((5 - 4) / 50)
    assert math.isclose(found.per_decision.high - found.per_decision.value, 1.959964 * error, rel_tol=1e-6)
    assert not found.is_above  # by the mean it is; surely it is not


def test_what_time_costs_is_not_known_where_nothing_was_timed() -> None:
    assert cost_of(counted(10), Cost(per_second=0.1)) is None
    assert cost_of(counted(0), Cost(per_decision=1)) is None
    found = cost_of(counted(10), Cost(per_decision=1), at_most=0.5)
    assert found is not None
    assert found.is_above
