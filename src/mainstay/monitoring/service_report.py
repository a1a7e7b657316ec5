"""How a capability keeps what callers may rely on: budgets, latency, cost, and what is to be told of them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from mainstay.monitoring.findings import Cause, Finding, Interval, Severity
from mainstay.monitoring.service_budget import Budget, Burning, ServiceStep, budget_of
from mainstay.monitoring.service_cost import CostOfDecisions, cost_of
from mainstay.monitoring.service_counts import merged
from mainstay.monitoring.service_objectives import objectives_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mainstay.capability.types import Capability

MANY: Final = 20  # decisions in a window: where so many were usual, chance hardly leaves it empty

_SHARES: Final = (0.5, 0.9, 0.99)
_WEEK: Final = timedelta(days=7)
_WORDS: Final = {
    "availability": "calls without an answer",
    "model_answers": "calls that the model did not answer",
    "latency": "calls that took too long",
    "review_share": "decisions that wait for a person",
}


class ServiceReport(Struct, frozen=True, kw_only=True):
    """The service levels of a capability at a moment, over their period."""

    at: datetime
    period_days: float
    decisions: int
    outcomes: dict[str, int]
    reasons: dict[str, int]
    budgets: tuple[Budget, ...]  # of what is declared
    latency_seconds: dict[str, float]  # by quantile, of calls; empty where none was timed
    cost: CostOfDecisions | None
    findings: tuple[Finding, ...]


def service_report(capability: Capability, steps: Sequence[ServiceStep], now: datetime) -> ServiceReport:
    """How service levels stand at `now`, by the steps of the period, whole versions and stages added up, in order."""
    levels = capability.service_levels
    since = now - timedelta(days=levels.period_days)
    known = [each for each in steps if since <= each.begin <= now]
    counts = merged(each.counts for each in known)
    step_hours = capability.monitoring.step_hours
    budgets = tuple(
        budget_of(objective, known, now, levels.period_days, step_hours) for objective in objectives_of(levels)
    )
    cost = cost_of(counts, capability.cost, levels.cost_per_decision)
    found = [_burning(capability.name, each, now) for budget in budgets for each in budget.burning[:1]]
    found += [_spent(capability.name, budget, now) for budget in budgets if budget.spent]
    if cost is not None and cost.is_above:
        found.append(_dear(capability.name, cost, now, levels.period_days))
    found += _silence(capability, known, now)
    quantiles = {f"p{share * 100:g}": counts.quantile(share) for share in _SHARES}
    return ServiceReport(
        at=now,
        period_days=levels.period_days,
        decisions=counts.decisions,
        outcomes={name: counts.count(outcome=name) for name in ("answered", "fallback", "review", "refused")},
        reasons=counts.reasons,
        budgets=budgets,
        latency_seconds={name: seconds for name, seconds in quantiles.items() if seconds is not None},
        cost=cost,
        findings=tuple(found),
    )


def _burning(capability: str, burning: Burning, now: datetime) -> Finding:
    name, long = burning.objective.name, burning.long
    severity: Severity = "critical" if burning.objective.waits and burning.speed != "lasting" else "warning"
    text = (
        f"{name}: {long.bad:,} of {long.of:,} {_WORDS[name]} in {burning.long_hours:g} h, {burning.burn_rate:.3g} times"
        f" what is allowed; {burning.budget_share:.0%} of the period's error budget"
    )
    estimate = long.estimate()
    assert estimate is not None
    return Finding(
        code="budget_burning",
        severity=severity,
        capability=capability,
        column=name,
        against="declared",
        text=text,
        observed=Interval(value=estimate.value, low=estimate.low, high=estimate.high),
        required=burning.objective.allowed,
        p_value=burning.chance,
        window_from=now - timedelta(hours=burning.long_hours),
        window_to=now,
        rows=long.of,
        numbers={
            "burn_rate": burning.burn_rate,
            "threshold": burning.threshold,
            "budget_share": burning.budget_share,
            "short_hours": burning.short_hours,
            "short_bad": burning.short.bad,
            "short_calls": burning.short.of,
        },
        cause=Cause(kind="service", why=f"the bad share is above {burning.threshold:.3g} in both windows"),
    )


def _spent(capability: str, budget: Budget, now: datetime) -> Finding:
    name, estimate = budget.objective.name, budget.bad_share
    assert estimate is not None
    assert budget.left is not None
    return Finding(
        code="level_missed",
        severity="critical",
        capability=capability,
        column=name,
        against="declared",
        text=f"{name}: {budget.tally.bad:,} of {budget.tally.of:,} {_WORDS[name]} in {budget.period_days:g} days, and"
        f" {budget.allowed_bad:,.1f} are allowed",
        observed=Interval(value=estimate.value, low=estimate.low, high=estimate.high),
        required=budget.objective.allowed,
        window_from=now - timedelta(days=budget.period_days),
        window_to=now,
        rows=budget.tally.of,
        numbers={"left": budget.left, "bad": budget.tally.bad, "allowed_bad": budget.allowed_bad},
        cause=Cause(kind="service", why="the error budget of the period is spent"),
    )


def _dear(capability: str, cost: CostOfDecisions, now: datetime, period_days: float) -> Finding:
    each = cost.per_decision
    assert cost.at_most is not None
    return Finding(
        code="level_missed",
        severity="critical",
        capability=capability,
        column="cost_per_decision",
        against="declared",
        text=f"a decision costs {each.value:.4g} {cost.currency} over {period_days:g} days, and {cost.at_most:.4g} is"
        " allowed",
        observed=Interval(value=each.value, low=each.low, high=each.high),
        required=cost.at_most,
        window_from=now - timedelta(days=period_days),
        window_to=now,
        rows=cost.decisions,
        numbers={"total": cost.total},
        cause=Cause(kind="service", why="its time and its reviews cost more than declared"),
    )


def _silence(capability: Capability, steps: Sequence[ServiceStep], now: datetime) -> list[Finding]:
    """That nobody asked for a whole window, and many did in the one before and in the same one a week ago.

    A capability younger than that is held against the window before alone.
    """
    window = timedelta(hours=capability.monitoring.window_hours)
    decided = [
        sum(each.counts.decisions for each in steps if end - window <= each.begin < end)
        for end in (now, now - window, now - _WEEK)
    ]
    is_young = not steps or steps[0].begin > now - _WEEK - window
    usual = decided[1] if is_young or window > _WEEK else min(decided[1:])
    if decided[0] or usual < MANY:
        return []
    finding = Finding(
        code="no_decisions",
        severity="warning",
        capability=capability.name,
        against="before",
        text=f"no decision was asked for in {window.total_seconds() / 3600:g} h, where there were {usual:,} before",
        window_from=now - window,
        window_to=now,
        rows=0,
        numbers={"before": decided[1], "week_before": decided[2]},
        cause=Cause(kind="service", why="callers do not come through, or do not call"),
    )
    return [finding]
