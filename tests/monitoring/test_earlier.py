from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from mainstay.errors import Misuse
from mainstay.monitoring.drift import Sample
from mainstay.monitoring.earlier import baseline, copies
from mainstay.monitoring.histograms import Moments

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
NOW = datetime(2026, 3, 4, tzinfo=UTC)


def hours(many: int) -> list[datetime]:
    return [NOW + i * HOUR for i in range(many)]


def test_copies_are_of_the_days_before_until_there_are_eight_weeks() -> None:
    assert copies(hours(24), HOUR, NOW - 6 * DAY) == []
    daily = copies(hours(24), HOUR, NOW - 55 * DAY)
    assert [each[0] for each in daily] == [NOW - back * DAY for back in range(1, 29)]
    weekly = copies(hours(24), HOUR, NOW - 57 * DAY)
    assert [each[0] for each in weekly] == [NOW - back * 7 * DAY for back in range(1, 9)]
    assert all(step.hour == i for i, step in enumerate(weekly[0]))


@pytest.mark.parametrize("many", [1, 24, 25, 168, 200])
def test_neither_the_window_nor_two_copies_share_a_step(many: int) -> None:
    found = copies(hours(many), HOUR, NOW - 400 * DAY)
    steps = [step for each in [hours(many), *found] for step in each]
    assert found
    assert len(set(steps)) == len(steps)


def test_the_baseline_has_each_earlier_window_as_a_unit() -> None:
    past = [Sample(np.array([[1, 2], [3, 4]]), Moments(2, 1.0, 0.0)), Sample(np.array([[5, 6]]), Moments(2, 3.0, 0.0))]
    found = baseline(past)
    assert found.counts.tolist() == [[4, 6], [5, 6]]
    assert found.moments == Moments(4, 2.0, 4.0)
    assert baseline([Sample(past[0].counts)]).moments is None


def test_without_a_window_or_a_past_there_is_nothing_to_compare() -> None:
    with pytest.raises(Misuse, match="steps of a window"):
        copies([], HOUR, NOW)
    with pytest.raises(Misuse, match="earlier windows"):
        baseline([])
