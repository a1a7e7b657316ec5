"""Error budgets: what of the bad calls that are allowed in a period is left, how fast it goes, and whom to tell.

Alerts are those of the Google SRE workbook, chapter 5 ("Alerting on SLOs", Beyer and others 2018): a budget that burns
at a rate that spends 2 % of it in 1 hour, 5 % in 6 hours or 10 % in 3 days, in a long window and still in a short one.
A budget of 30 days so gives the rates 14.4, 6 and 1. Three things are added, because that recipe wakes people for three
errors in a quiet night:

    the errors themselves must be so large a part of the period's budget, counted in calls and not in hours
    there are FEWEST_BAD of them at least
    chance alone would give so many, at the rate that is asked about, in less than ODDS of windows (exact binomial)

and a short window without calls keeps an alert that burns rather than ending it: nothing in it says that all is well.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from datetime import datetime, timedelta
from itertools import accumulate
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

import numpy as np
from msgspec import Struct

from mainstay.monitoring.intervals import Estimate  # noqa: TC001 - msgspec reads the types of a struct
from mainstay.monitoring.service_objectives import Objective, Tally, tally

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mainstay.monitoring.service_counts import ServiceCounts

Speed: TypeAlias = Literal["fast", "slow", "lasting"]

FEWEST_BAD: Final = 5
ODDS: Final = 1e-3
PRESENT: Final = timedelta(hours=24)  # what "at the present rate" is measured over

_HOUR: Final = timedelta(hours=1)
_TICK: Final = timedelta(microseconds=1)  # a step that ends where a window begins is not in it


class Tier(NamedTuple):
    """How fast a budget may go before somebody is told."""

    speed: Speed
    long_hours: float
    short_hours: float
    budget_share: float  # that goes in the long window


TIERS: Final = (Tier("fast", 1, 1 / 12, 0.02), Tier("slow", 6, 0.5, 0.05), Tier("lasting", 72, 6, 0.10))


class ServiceStep(NamedTuple):
    """What was counted in a step of time; steps of one sequence do not overlap."""

    begin: datetime
    counts: ServiceCounts


class Burning(Struct, frozen=True, kw_only=True):
    """A budget that goes too fast."""

    objective: Objective
    speed: Speed
    threshold: float  # of the bad share
    burn_rate: float  # over the long window: 1 spends the budget in exactly its period
    long_hours: float
    long: Tally
    short_hours: float
    short: Tally
    budget_share: float  # of the period's budget that went in the long window
    chance: float  # of so many bad calls, were the true share at the threshold


class Budget(Struct, frozen=True, kw_only=True):
    """An error budget over a rolling period."""

    objective: Objective
    period_days: float
    tally: Tally
    bad_share: Estimate | None  # None without calls
    allowed_bad: float  # calls
    left: float | None  # share of the budget; negative when more than all of it went; None without calls
    burn_rate: float | None  # at present; None without calls
    runs_out_hours: (
        float | None
    )  # at the present rate; 0: it is spent; None: never, old errors leave the period in time
    burning: tuple[Burning, ...] = ()

    @property
    def spent(self) -> bool:
        """Whether more than the whole budget went, by more than a handful of calls."""
        return self.tally.bad >= FEWEST_BAD and self.tally.bad > self.allowed_bad


class Window(NamedTuple):
    """A tier as it is applied: its windows, and the bad share above which it fires."""

    tier: Tier
    long_hours: float
    short_hours: float
    threshold: float


def windows_of(objective: Objective, period_days: float, step_hours: float = 0.0) -> list[Window]:
    """The tiers for a budget of a period; with `step_hours`, their windows are whole steps.

    A burn rate below 1 spends no budget, so that 1 is the lowest. A threshold that no share of bad calls could pass is
    set half-way between what is allowed and everything. Windows longer than a quarter of the period are left out.
    """
    found: list[Window] = []
    for tier in TIERS:
        if tier.long_hours > period_days * 24 / 4 and found:
            break
        rate = max(1.0, tier.budget_share * period_days * 24 / tier.long_hours)
        threshold = min(rate * objective.allowed, (1 + objective.allowed) / 2)
        long_hours, short_hours = _whole(tier.long_hours, step_hours), _whole(tier.short_hours, step_hours)
        found.append(Window(tier, long_hours, short_hours, threshold))
    return found


def _whole(hours: float, step_hours: float) -> float:
    return hours if step_hours == 0 else -(-hours // step_hours) * step_hours


def budget_of(
    objective: Objective, steps: Sequence[ServiceStep], now: datetime, period_days: float, step_hours: float
) -> Budget:
    """How a budget stands at `now`, by steps of `step_hours` in order of time; those of the future do not count."""
    period = timedelta(days=period_days)
    known = [each for each in steps if now - period <= each.begin <= now]
    tallies = [tally(objective, each.counts) for each in known]
    begins = [each.begin for each in known]
    whole = _sum(tallies)
    allowed_bad = objective.allowed * whole.of
    present = _since(begins, tallies, now - PRESENT)
    return Budget(
        objective=objective,
        period_days=period_days,
        tally=whole,
        bad_share=whole.estimate(),
        allowed_bad=allowed_bad,
        left=left_of(objective, whole),
        burn_rate=present.bad / present.of / objective.allowed if present.of else None,
        runs_out_hours=_runs_out(objective, begins, tallies, now, period),
        burning=tuple(_burning(objective, begins, tallies, now, period_days, step_hours)),
    )


def left_of(objective: Objective, whole: Tally) -> float | None:
    """The share of a period's budget that is left; negative when more than all of it went; None without calls."""
    return 1 - whole.bad / (objective.allowed * whole.of) if whole.of else None


def tallies_over_time(
    objective: Objective, steps: Sequence[ServiceStep], moments: Sequence[datetime], period_days: float
) -> list[Tally]:
    """The tally of the period that ends at each moment; steps are in order of time. Each step is looked at once."""
    period = timedelta(days=period_days)
    begins = [each.begin for each in steps]
    tallies = [tally(objective, each.counts) for each in steps]
    bad = [0, *accumulate(each.bad for each in tallies)]
    of = [0, *accumulate(each.of for each in tallies)]
    found = []
    for moment in moments:
        first, last = bisect_left(begins, moment - period), bisect_right(begins, moment)
        found.append(Tally(bad[last] - bad[first], of[last] - of[first]))
    return found


def _sum(tallies: Sequence[Tally]) -> Tally:
    return Tally(sum(each.bad for each in tallies), sum(each.of for each in tallies))


def _since(begins: Sequence[datetime], tallies: Sequence[Tally], since: datetime) -> Tally:
    return _sum([each for begin, each in zip(begins, tallies, strict=True) if begin >= since])


def _burning(
    objective: Objective,
    begins: Sequence[datetime],
    tallies: Sequence[Tally],
    now: datetime,
    period_days: float,
    step_hours: float,
) -> list[Burning]:
    """The fastest tiers first. Windows reach back to the begin of the step that their own begin falls into."""
    allowed_bad = objective.allowed * _sum(tallies).of
    found = []
    for tier, long_hours, short_hours, threshold in windows_of(objective, period_days, step_hours):
        long = _since(begins, tallies, now - timedelta(hours=long_hours + step_hours) + _TICK)
        short = _since(begins, tallies, now - timedelta(hours=short_hours + step_hours) + _TICK)
        if long.bad < FEWEST_BAD or long.bad < tier.budget_share * allowed_bad or not _is_over(long, short, threshold):
            continue
        found.append(
            Burning(
                objective=objective,
                speed=tier.speed,
                threshold=threshold,
                burn_rate=long.bad / long.of / objective.allowed,
                long_hours=long_hours,
                long=long,
                short_hours=short_hours,
                short=short,
                budget_share=long.bad / allowed_bad,
                chance=long.chance(threshold),
            )
        )
    return found


def _is_over(long: Tally, short: Tally, threshold: float) -> bool:
    """Whether the bad share is surely above the threshold in the long window, and in the short one still."""
    over = long.bad > threshold * long.of and long.chance(threshold) < ODDS
    return over and (short.of == 0 or short.bad > threshold * short.of)


def _runs_out(
    objective: Objective, begins: Sequence[datetime], tallies: Sequence[Tally], now: datetime, period: timedelta
) -> float | None:
    """Hours until more is spent than is allowed, if calls and errors keep coming as in the last PRESENT.

    What leaves the rolling period on the way gives its part of the budget back.
    """
    if not begins:
        return None
    present, hours = _since(begins, tallies, now - PRESENT), PRESENT / _HOUR
    known_hours = (now - begins[0]) / _HOUR
    hours = min(hours, known_hours) if known_hours > 0 else hours
    leaves = np.array([(begin + period - now) / _HOUR for begin in begins])  # hours from now, ascending
    gone_bad = np.concatenate([[0], np.cumsum([each.bad for each in tallies])])
    gone_of = np.concatenate([[0], np.cumsum([each.of for each in tallies])])
    ahead = np.linspace(0, period / _HOUR, 673)
    left = np.searchsorted(leaves, ahead, side="right")
    bad = gone_bad[-1] - gone_bad[left] + ahead * present.bad / hours
    of = gone_of[-1] - gone_of[left] + ahead * present.of / hours
    over = np.flatnonzero((bad > objective.allowed * of) & (bad >= FEWEST_BAD))
    return float(ahead[over[0]]) if len(over) else None
