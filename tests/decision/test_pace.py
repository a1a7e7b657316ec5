from __future__ import annotations

import pytest

from mainstay.decision.pace import Pace


def test_the_wait_is_what_is_queued_times_the_time_each_took() -> None:
    pace = Pace(256)
    assert pace.wait_seconds == 0
    for _ in range(20):
        pace.began(5.0)
    pace.ended(10, 6.0)
    assert pace.seconds_each == pytest.approx(0.1)
    assert pace.wait_seconds == pytest.approx(1.0)
    pace.ended(10, 7.0)
    assert pace.wait_seconds == 0


def test_a_lone_call_does_not_say_what_one_among_many_costs() -> None:
    pace = Pace(256)
    pace.began(0.0)
    pace.ended(1, 0.05)
    for _ in range(64):
        pace.began(1.0)
    assert pace.wait_seconds == 0


def test_where_rows_run_one_by_one_a_lone_call_says_it_all() -> None:
    pace = Pace(1)
    pace.began(0.0)
    pace.ended(1, 0.05)
    for _ in range(4):
        pace.began(1.0)
    assert pace.wait_seconds == pytest.approx(0.2)


def test_time_without_anything_queued_does_not_count() -> None:
    pace = Pace(1)
    pace.began(0.0)
    pace.ended(1, 0.01)
    pace.began(1_000.0)
    pace.ended(1, 1_000.01)
    assert pace.seconds_each == pytest.approx(0.01)


def test_what_was_given_up_does_not_make_the_model_slow() -> None:
    pace = Pace(1)
    pace.began(0.0)
    pace.ended(1, 0.01)
    pace.began(1.0)
    pace.gave_up(1, 11.0)
    assert pace.queued == 0
    assert pace.seconds_each == pytest.approx(0.01)


def test_a_model_that_turned_slow_is_noticed_within_a_few_batches() -> None:
    pace, now = Pace(1), 0.0
    for each in [0.001] * 50 + [0.1] * 10:
        pace.began(now)
        now += each
        pace.ended(1, now)
    assert pace.seconds_each > 0.05
