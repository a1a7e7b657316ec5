from __future__ import annotations

from datetime import UTC, datetime, timedelta

from mainstay.capability.sources import Push, Source
from mainstay.intake.pacing import (
    LONGEST_PAUSE_SECONDS,
    LONGEST_RETRY_AFTER_SECONDS,
    after_failure,
    after_run,
    due_in_seconds,
)
from mainstay.intake.state import State
from mainstay.intake.types import Finding

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SOURCE = Source(name="months", push=Push(), every_seconds=60, expected_within_seconds=3_600)
DOWN = Finding("source_down", "refused")
NEW = State(began_at=NOW)


def pause(state: State) -> float:
    return due_in_seconds(state, SOURCE, NOW)


def test_a_new_source_is_due_at_once_and_one_that_ran_as_declared() -> None:
    assert pause(NEW) == 0
    assert pause(after_run(NEW, SOURCE, NOW, 42)) == 42


def test_pauses_double_with_each_failure_up_to_a_bound_and_differ() -> None:
    state, pauses = NEW, []
    for _ in range(12):
        state = after_failure(state, SOURCE, DOWN, NOW)
        pauses.append(pause(state))
    assert 2.5 <= pauses[0] <= 5
    assert 5 <= pauses[1] <= 10
    assert max(pauses) <= LONGEST_PAUSE_SECONDS
    assert pauses[-1] >= LONGEST_PAUSE_SECONDS / 2
    assert len({pause(after_failure(NEW, SOURCE, DOWN, NOW)) for _ in range(10)}) > 1
    assert state.failures == 12
    assert after_run(state, SOURCE, NOW, 60).failures == 0


def test_a_source_is_not_asked_before_it_asked_to_be_nor_left_for_ever() -> None:
    assert pause(after_failure(NEW, SOURCE, DOWN, NOW, 120)) == 120
    assert pause(after_failure(NEW, SOURCE, DOWN, NOW, 10**9)) == LONGEST_RETRY_AFTER_SECONDS


def test_a_clock_that_was_set_back_holds_nothing_up() -> None:
    state = after_run(NEW, SOURCE, NOW + timedelta(days=400), 60)
    assert pause(state) == SOURCE.every_seconds


def test_a_clock_that_was_ahead_hides_no_silence() -> None:
    ahead = State(began_at=NOW, last_arrival_at=NOW + timedelta(days=300))
    state = after_run(ahead, SOURCE, NOW, 60)
    assert state.lasting == ()
    later = after_run(state, SOURCE, NOW + timedelta(seconds=3_601), 60)
    assert [each.code for each in later.lasting] == ["late_feed"]


def test_another_failure_takes_the_place_of_the_one_before() -> None:
    state = after_failure(NEW, SOURCE, DOWN, NOW)
    state = after_failure(state, SOURCE, Finding("not_json", "a page"), NOW)
    assert [each.code for each in state.lasting] == ["not_json"]
    assert [each.code for each in after_run(state, SOURCE, NOW, 60).lasting] == []


def test_silence_is_a_finding_until_something_comes() -> None:
    later = NOW + timedelta(seconds=3_601)
    state = after_run(NEW, SOURCE, later, 60)
    assert [each.code for each in state.lasting] == ["late_feed"]
    assert "3,601 s since it was first asked" in state.lasting[0].detail
    came = State(began_at=NOW, last_arrival_at=later, found=state.found)
    assert after_run(came, SOURCE, later, 60).lasting == ()
    failed = after_failure(came, SOURCE, DOWN, later + timedelta(seconds=3_700))
    assert {each.code for each in failed.lasting} == {"source_down", "late_feed"}
    assert after_run(state, Source(name="months", push=Push()), later, 60).lasting == ()
