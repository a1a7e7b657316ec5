from __future__ import annotations

from bisect import bisect_left
from datetime import timedelta
from functools import partial

import numpy as np
import pytest
from scipy.stats import binom

from mainstay.capability.keeping import ServiceLevels
from mainstay.monitoring.service_budget import Budget, budget_of, tallies_over_time, windows_of
from mainstay.monitoring.service_objectives import Objective, objectives_of
from monitoring.levels import NOW, counted, hours

MONTH_HOURS = 28 * 24


def available(share: float = 0.999) -> Objective:
    return objectives_of(ServiceLevels(availability=share))[0]


def stand(bad: list[int], good: list[int], share: float = 0.999) -> Budget:
    steps = [counted({"answered": g, "refused/model_error": b}) for b, g in zip(bad, good, strict=True)]
    return budget_of(available(share), hours(steps), NOW, 28, 1)


def speeds(budget: Budget) -> list[str]:
    return [each.speed for each in budget.burning]


def burns(bad: int, *, speed: str, of: int, share: float) -> bool:
    """Whether somebody is told at that speed when so many of an hour's calls are bad, and there are no others."""
    return speed in speeds(stand([bad], [of - bad], share))


def test_a_budget_of_thirty_days_has_the_burn_rates_of_the_workbook() -> None:
    rates = [window.threshold / 0.001 for window in windows_of(available(), 30)]
    assert rates == pytest.approx([14.4, 6, 1])
    assert [(each.long_hours, each.short_hours) for each in windows_of(available(), 30)] == [
        (1, 1 / 12),
        (6, 0.5),
        (72, 6),
    ]


def test_windows_are_whole_steps_and_never_longer_than_the_period_bears() -> None:
    assert [(each.long_hours, each.short_hours) for each in windows_of(available(), 28, 1)] == [(1, 1), (6, 1), (72, 6)]
    assert [each.long_hours for each in windows_of(available(), 28, 24)] == [24, 24, 72]
    assert [each.tier.speed for each in windows_of(available(), 7)] == ["fast", "slow"]
    assert [each.tier.speed for each in windows_of(available(), 0.1)] == ["fast"]


def test_a_generous_level_can_still_burn() -> None:
    assert windows_of(available(0.8), 28)[0].threshold == pytest.approx(0.6)
    outage = stand([0] * 100 + [50], [50] * 100 + [0], share=0.8)
    assert "fast" in speeds(outage)


def test_what_is_left_and_when_it_runs_out() -> None:
    budget = stand([1] * MONTH_HOURS, [4_999] * MONTH_HOURS)
    assert budget.tally.of == 5_000 * MONTH_HOURS
    assert budget.allowed_bad == pytest.approx(5 * MONTH_HOURS)
    assert budget.left == pytest.approx(0.8)
    assert budget.burn_rate == pytest.approx(0.2)
    assert budget.runs_out_hours is None  # at this rate old errors leave as fast as new ones come
    assert not budget.spent
    assert budget.bad_share is not None
    assert budget.bad_share.low < 0.0002 < budget.bad_share.high


def test_a_budget_that_burns_twice_as_fast_as_it_may_runs_out_in_half_of_the_period() -> None:
    """In the last day as in every one to come: 0.2 % bad; before it nothing. Half of 28 days less the day that was."""
    quiet, burning = MONTH_HOURS - 24, 24
    budget = stand([0] * quiet + [10] * burning, [5_000] * quiet + [4_990] * burning)
    assert budget.runs_out_hours == pytest.approx(14 * 24 - 24, abs=2)


def test_a_spent_budget_has_run_out_now() -> None:
    budget = stand([40] * MONTH_HOURS, [4_960] * MONTH_HOURS)
    assert (budget.spent, budget.runs_out_hours) == (True, 0)
    assert budget.left == pytest.approx(-7)


def test_nothing_is_said_without_calls() -> None:
    budget = budget_of(available(), [], NOW, 28, 1)
    assert (budget.left, budget.burn_rate, budget.runs_out_hours, budget.bad_share) == (None, None, None, None)
    assert not budget.burning


def test_steps_of_the_future_and_from_before_the_period_do_not_count() -> None:
    steps = hours([counted(5), counted(7), counted(9)], until=NOW + timedelta(hours=2))
    assert budget_of(available(), steps, NOW, 28, 1).tally.of == 12  # the step that begins now is under way
    assert budget_of(available(), hours([counted(5)], NOW - timedelta(days=28)), NOW, 28, 1).tally.of == 0


def test_tallies_over_time_are_those_of_each_moment() -> None:
    steps = hours([counted({"answered": 10 + each, "refused/model_error": each % 3}) for each in range(100)])
    moments = [NOW - timedelta(hours=back) for back in (0, 1, 30, 97, 200)]
    each_by_itself = [budget_of(available(), steps, moment, 1, 1).tally for moment in moments]
    assert tallies_over_time(available(), steps, moments, 1) == each_by_itself


def test_an_outage_burns_fast_however_long_the_budget_lasted() -> None:
    budget = stand([0] * (MONTH_HOURS - 1) + [500], [1_000] * (MONTH_HOURS - 1) + [500])
    assert speeds(budget) == ["fast", "slow", "lasting"]
    fast = budget.burning[0]
    assert fast.chance < 1e-9
    assert fast.budget_share == pytest.approx(500 / (0.001 * 1_000 * MONTH_HOURS))
    assert fast.burn_rate == pytest.approx(500)


def test_a_small_leak_burns_slowly() -> None:
    budget = stand([0] * (MONTH_HOURS - 72) + [3] * 72, [1_000] * (MONTH_HOURS - 72) + [997] * 72)
    assert speeds(budget) == ["lasting"]


def test_three_errors_in_a_quiet_night_wake_nobody() -> None:
    traffic = ([2_000] * 16 + [0] * 8) * 28
    budget = stand([0] * (MONTH_HOURS - 1) + [3], traffic)
    assert (budget.tally.bad, traffic[-1]) == (3, 0)
    assert not budget.burning


def test_many_errors_of_a_quiet_night_are_told_when_they_are_a_part_of_the_budget() -> None:
    """Nobody gets an answer in a night of 8 calls an hour: 16 are 2 % of the budget of some 40,000 calls at 98 %."""
    traffic = ([80] * 16 + [8] * 8) * 28
    assert not stand([0] * (MONTH_HOURS - 1) + [8], [*traffic[:-1], 0], share=0.98).burning
    night = stand([0] * (MONTH_HOURS - 8) + [8] * 8, traffic[:-8] + [0] * 8, share=0.98)
    assert "slow" in speeds(night)


def test_an_outage_without_calls_at_its_end_still_burns() -> None:
    budget = stand([0] * (MONTH_HOURS - 3) + [300, 300, 0], [1_000] * (MONTH_HOURS - 3) + [0, 0, 0])
    assert "slow" in speeds(budget)


def test_an_outage_that_is_over_burns_no_more() -> None:
    budget = stand([0] * (MONTH_HOURS - 10) + [500] + [0] * 9, [1_000] * (MONTH_HOURS - 10) + [500] + [1_000] * 9)
    assert not budget.burning


@pytest.mark.parametrize("share", [0.99, 0.999])
@pytest.mark.parametrize("speed", ["fast", "slow"])
def test_a_service_that_keeps_its_level_just_so_wakes_people_less_than_once_in_ten_months(
    share: float, speed: str
) -> None:
    """Exact, for windows of 5 to 100,000 calls each of which is bad with the chance that is allowed: the chance that so
    many are bad that somebody is woken, by a capability that has no other calls in its period. Hourly looks, 672 a
    period, wake at most so often by the sum of their chances.
    """
    worst = 0.0
    for calls in np.unique(np.geomspace(5, 100_000, 40).astype(int)):
        fires = partial(burns, speed=speed, of=int(calls), share=share)
        at_least = bisect_left(range(calls + 1), x=True, key=fires)
        worst = max(worst, float(binom.sf(at_least - 1, calls, 1 - share)))
    assert worst * MONTH_HOURS < 0.1
