"""Recording rules and burn-rate alerts of the service levels that a capability declares.

The alerts are those of `service_budget`, which says why they are as they are. The exact binomial is not to be had in
PromQL; in its place stands Chernoff's bound of it (Hoeffding 1963, theorem 1), which is never smaller: an alert waits
for a few calls more, and is never more hasty.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from mainstay.monitoring.prometheus_expressions import (
    DECISIONS,
    SECONDS,
    bad_of,
    calls_of,
    duration,
    increase,
    number,
    or_none,
    quoted,
    selector,
)
from mainstay.monitoring.prometheus_types import Rule, Subject
from mainstay.monitoring.service_budget import FEWEST_BAD, ODDS, Window, windows_of
from mainstay.monitoring.service_objectives import Objective, Promised, objectives_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mainstay.capability.keeping import Cost

CALLS: Final = "capability:mainstay_level_calls:increase"
BAD: Final = "capability:mainstay_level_bad:increase"
BAD_SHARE: Final = "capability:mainstay_level_bad_share:ratio"
BUDGET_LEFT: Final = "capability:mainstay_error_budget_left:ratio"
COST: Final = "capability:mainstay_cost_per_decision:mean6h"

_LONGEST_RANGE_HOURS: Final = 6  # longer windows are added up from recorded hours: to read so many samples is dear
_HOUR: Final = "1h"
_COST_WINDOW: Final = "6h"
_FEWEST_DECISIONS: Final = 100  # that a mean cost is of

_SUMMARIES: Final[dict[Promised, str]] = {
    "availability": "calls of {name} get no answer",
    "model_answers": "the model of {name} does not answer",
    "latency": "answers of {name} are slow",
    "review_share": "too many decisions of {name} wait for a person",
}
_ANCHORS: Final[dict[Promised, str]] = {
    "availability": "an-error-budget-burns",
    "model_answers": "many-answers-by-fallback",
    "latency": "answers-are-slow",
    "review_share": "decisions-wait-for-a-person",
}


def measured(subject: Subject) -> list[Objective]:
    """The objectives that the metrics can tell: not a latency beyond the histogram's last bound."""
    return [
        each
        for each in objectives_of(subject.capability.service_levels)
        if each.latency_seconds is None or each.latency_seconds <= subject.bounds[-1]
    ]


def has_cost(cost: Cost) -> bool:
    """Whether anything of a decision is said to cost."""
    return bool(cost.per_decision or cost.per_second or cost.per_review)


def level_rules(subject: Subject) -> list[Rule]:
    """Every recording rule, in an order in which each needs only those before it."""
    rules = [rule for objective in measured(subject) for rule in _records(subject, objective)]
    cost = subject.capability.cost
    if has_cost(cost):
        rules.append(Rule(record=COST, expr=_cost(subject), labels={"currency": cost.currency}))
    return rules


def level_alerts(subject: Subject) -> list[Rule]:
    """The burn-rate alerts, and that of the cost."""
    period = subject.capability.service_levels.period_days
    alerts = []
    for objective in measured(subject):
        alerts += [_burning(subject, objective, window) for window in windows_of(objective, period)]
        alerts.append(_spent(subject, objective))
    alerts += _dear(subject)
    return alerts


def notes(subject: Subject) -> list[str]:
    """What is declared and cannot be measured by these metrics; for people."""
    left_out = [each for each in objectives_of(subject.capability.service_levels) if each not in measured(subject)]
    last = f"{subject.bounds[-1] * 1000:,.0f} ms"
    return [f"{each.name}: no rule is made; the metrics end at {last}" for each in left_out]


def _records(subject: Subject, objective: Objective) -> Iterator[Rule]:
    name = subject.capability.name
    labels: dict[str, str] = {"objective": objective.name}
    period_hours = subject.capability.service_levels.period_days * 24
    windows = windows_of(objective, period_hours / 24)
    hours = sorted({1.0, period_hours, *(each for window in windows for each in window[1:3])})
    which = f"{{capability={quoted(name)},objective={quoted(objective.name)}}}"
    for each in hours:
        window = duration(each)
        if each <= _LONGEST_RANGE_HOURS:
            calls = calls_of(objective, name, window)
            bad = bad_of(objective, name, window, f"{CALLS}{window}{which}", subject.bounds)
        else:
            calls, bad = (f"sum_over_time({part}{_HOUR}{which}[{window}:{_HOUR}])" for part in (CALLS, BAD))
        yield Rule(record=f"{CALLS}{window}", expr=calls, labels=labels)
        yield Rule(record=f"{BAD}{window}", expr=bad, labels=labels)
        yield Rule(
            record=f"{BAD_SHARE}{window}", expr=f"{BAD}{window}{which} / ({CALLS}{window}{which} > 0)", labels=labels
        )
    period = duration(period_hours)
    yield Rule(
        record=BUDGET_LEFT,
        expr=f"1 - {BAD_SHARE}{period}{which} / {number(objective.allowed)}",
        labels={**labels, "period": period},
    )


def _burning(subject: Subject, objective: Objective, window: Window) -> Rule:
    name = subject.capability.name
    which = f"{{capability={quoted(name)},objective={quoted(objective.name)}}}"
    long, short = duration(window.long_hours), duration(window.short_hours)
    period = duration(subject.capability.service_levels.period_days * 24)
    bad, calls, share = (f"{part}{long}{which}" for part in (BAD, CALLS, BAD_SHARE))
    at = number(window.threshold)
    spends = number(window.tier.budget_share * objective.allowed)
    nats = (
        f"{bad} * ln({share} / {at})"
        f" + ({calls} - {bad}) * ln((1 - clamp_max({share}, 0.999999999)) / {number(1 - window.threshold)})"
    )
    lines = (
        f"{share} > {at}",
        f"and {bad} >= {FEWEST_BAD}",
        f"and {bad} >= {spends} * {CALLS}{period}{which}",
        f"and {nats} > {number(-math.log(ODDS))}",
        f"unless {BAD_SHARE}{short}{which} <= {at}",
    )
    rate = window.threshold / objective.allowed
    wakes = objective.waits and window.tier.speed != "lasting"
    return subject.alert(
        "MainstayErrorBudgetBurning",
        " ".join(lines),
        severity="critical" if wakes else "warning",
        labels={"objective": objective.name, "speed": window.tier.speed},
        summary=f"{_SUMMARIES[objective.name].format(name=name)}: the error budget burns",
        description=f"{{{{ $value | humanizePercentage }}}} of the calls that `{objective.name}` speaks of were bad in"
        f" the last {long}, and still are; {number(100 * objective.allowed)} % may be. At more than {rate:.3g} times"
        f" that, {window.tier.budget_share:.0%} of the error budget of {period} goes in {long}.",
        anchor=_ANCHORS[objective.name],
    )


def _spent(subject: Subject, objective: Objective) -> Rule:
    name = subject.capability.name
    which = f"{{capability={quoted(name)},objective={quoted(objective.name)}}}"
    period = duration(subject.capability.service_levels.period_days * 24)
    return subject.alert(
        "MainstayErrorBudgetSpent",
        f"{BUDGET_LEFT}{which} < 0 and ignoring (period) {BAD}{period}{which} >= {FEWEST_BAD}",
        severity="warning",
        lasts="1h",
        labels={"objective": objective.name},
        summary=f"{_SUMMARIES[objective.name].format(name=name)}: the error budget is spent",
        description=f"Of the error budget of `{objective.name}` over {period}, {{{{ $value | humanizePercentage }}}} is"
        " left: more calls were bad than may be. No new version should go out but to mend this.",
        anchor=_ANCHORS[objective.name],
    )


def _cost(subject: Subject) -> str:
    """What a decision costs: its own price, its time, and its share of reviews."""
    name, cost = subject.capability.name, subject.capability.cost
    seconds = increase(_COST_WINDOW, selector(f"{SECONDS}_sum", name))
    timed = increase(_COST_WINDOW, selector(f"{SECONDS}_count", name))
    decided = increase(_COST_WINDOW, selector(DECISIONS, name))
    reviewed = increase(_COST_WINDOW, selector(DECISIONS, name, 'outcome="review"'))
    return " ".join(
        (
            f"{number(cost.per_decision)}",
            f"+ {number(cost.per_second)} * {seconds} / ({timed} > 0)",
            f"+ {number(cost.per_review)} * {or_none(reviewed, decided)} / ({decided} > 0)",
        )
    )


def _dear(subject: Subject) -> Sequence[Rule]:
    at_most = subject.capability.service_levels.cost_per_decision
    name, cost = subject.capability.name, subject.capability.cost
    if at_most is None or not has_cost(cost):
        return ()
    decided = increase(_COST_WINDOW, selector(DECISIONS, name))
    alert = subject.alert(
        "MainstayDecisionsTooDear",
        f"{COST}{{capability={quoted(name)}}} > {number(at_most)} and on (capability) {decided} >= {_FEWEST_DECISIONS}",
        severity="warning",
        lasts="1h",
        summary=f"a decision of {name} costs more than declared",
        description=f"A decision costs {{{{ $value | humanize }}}} {cost.currency} over the last {_COST_WINDOW}, and"
        f" {number(at_most)} is declared.",
        anchor="decisions-cost-too-much",
    )
    return (alert,)
