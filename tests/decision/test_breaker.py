from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mainstay.capability.types import Breaker as Declared
from mainstay.decision.breaker import FEWEST, LONGEST, Breaker

DECLARED = Declared(failures=0.5, of=20, open_seconds=1.0)


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker(DECLARED)
    for _ in range(FEWEST):
        breaker.failed(now)
    return breaker


def test_a_model_that_only_fails_is_not_tried_after_a_few_calls() -> None:
    breaker = Breaker(DECLARED)
    for _ in range(FEWEST - 1):
        breaker.failed(0.0)
        assert breaker.allows(0.0, 1.0)
    breaker.failed(0.0)
    assert not breaker.allows(0.0, 1.0)
    assert breaker.state(0.5) == "open"


def test_a_few_failures_among_many_answers_leave_it_closed() -> None:
    breaker = Breaker(DECLARED)
    for _ in range(100):
        breaker.succeeded(3)
        breaker.failed(0.0)
    assert breaker.state(0.0) == "closed"


def test_failures_that_come_at_once_are_weighed_against_the_answers_before_them() -> None:
    breaker = Breaker(DECLARED)
    breaker.succeeded(1_000)
    for _ in range(9):
        breaker.failed(0.0)
    assert breaker.state(0.0) == "closed"
    breaker.failed(0.0)
    assert breaker.state(0.0) == "open"


def test_when_the_time_is_over_one_call_probes_and_the_rest_wait() -> None:
    breaker = opened()
    assert not breaker.allows(0.9, 1.9)
    assert breaker.allows(1.0, 1.5)
    assert not breaker.allows(1.0, 1.5)
    breaker.succeeded(1)
    assert breaker.state(1.1) == "closed"
    assert breaker.allows(1.1, 2.0)


def test_a_probe_that_never_reports_makes_way_for_another() -> None:
    breaker = opened()
    assert breaker.allows(1.0, 1.5)
    assert not breaker.allows(1.4, 1.9)
    assert breaker.allows(1.5, 2.0)


def test_every_failed_probe_doubles_the_time_up_to_a_bound() -> None:
    breaker = opened()
    now, waits = 1.0, []
    for _ in range(8):
        assert breaker.allows(now, now + 0.1)
        breaker.failed(now)
        begun = now
        while breaker.state(now) == "open":
            now += 0.5
        waits.append(now - begun)
    assert waits == [2, 4, 8, 16, 32, 32, 32, 32]
    assert waits[-1] == LONGEST * DECLARED.open_seconds


def test_after_it_closed_it_opens_for_the_first_time_span_again() -> None:
    breaker = opened()
    breaker.allows(1.0, 1.1)
    breaker.failed(1.0)
    breaker.allows(3.0, 3.1)
    breaker.succeeded(1)
    for _ in range(FEWEST):
        breaker.failed(4.0)
    assert breaker.state(4.9) == "open"
    assert breaker.state(5.0) == "half-open"


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 3)), max_size=200), st.integers(2, 30))
def test_it_never_stays_open_for_longer_than_its_bound_and_always_lets_a_probe_through(
    steps: list[tuple[bool, float]], of: int
) -> None:
    breaker, now = Breaker(Declared(failures=0.5, of=of, open_seconds=0.5)), 0.0
    for good, seconds in steps:
        now += seconds
        if breaker.allows(now, now + 0.1):
            if good:
                breaker.succeeded(1)
            else:
                breaker.failed(now)
    assert breaker.allows(now + LONGEST * 0.5 + 0.2, now + 100)
