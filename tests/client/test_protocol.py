from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.client.errors import Unavailable
from mainstay.client.protocol import FIRST_WAIT_SECONDS, MAX_WAIT_SECONDS, Attempts


@given(st.integers(0, 100), st.none() | st.floats(0, MAX_WAIT_SECONDS))
def test_waits_are_at_least_what_was_asked_bounded_and_as_many_as_retries(retries: int, asked: float | None) -> None:
    attempts, error = Attempts(retries), Unavailable("busy", retry_after_seconds=asked, may_repeat=True)
    for _ in range(retries):
        assert (asked or 0) <= attempts.pause_seconds(error) <= MAX_WAIT_SECONDS
    with pytest.raises(Unavailable) as caught:
        attempts.pause_seconds(error)
    assert caught.value is error


def test_waits_grow_and_differ() -> None:
    error = Unavailable("busy", may_repeat=True)
    waits = []
    for _ in range(400):
        attempts = Attempts(5)
        waits.append([attempts.pause_seconds(error) for _ in range(5)])
    for attempt, column in enumerate(zip(*waits, strict=True)):
        bound = FIRST_WAIT_SECONDS * 2**attempt
        assert max(column) <= bound
        assert 0.4 * bound < sum(column) / 400 < 0.6 * bound  # uniform over the whole range: "full" jitter


@given(st.floats(MAX_WAIT_SECONDS, exclude_min=True, allow_infinity=False))
def test_a_wait_beyond_the_bound_is_not_waited_for(asked: float) -> None:
    with pytest.raises(Unavailable):
        Attempts(3).pause_seconds(Unavailable("busy", retry_after_seconds=asked, may_repeat=True))


def test_what_is_not_safe_to_repeat_is_not_repeated() -> None:
    with pytest.raises(Unavailable):
        Attempts(3).pause_seconds(Unavailable("too slow"))
