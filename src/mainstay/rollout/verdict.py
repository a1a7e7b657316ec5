"""The verdict over a canary, from what its judge has folded: how every guard stands, and what follows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import numpy as np

from mainstay.errors import Misuse
from mainstay.rollout import sequential_differences as differences
from mainstay.rollout import sequential_outputs as outputs
from mainstay.rollout.judging import guarded, scale_of
from mainstay.rollout.judging_types import Judgement, Standing
from mainstay.rollout.sequential import discoveries, weight_needed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mainstay.rollout.judging import Judge, Plan
    from mainstay.rollout.judging_types import Guard, Reason, Ruling, State
    from mainstay.rollout.sequential_differences import Difference

    _Key: TypeAlias = tuple[Guard, str | None, str | None]

SHARE_OF_SEGMENTS: Final = 0.25  # of the chance of rolling back wrongly, where segments are watched
DOUBT: Final = math.log(20)  # of a guard that need not be shown
FALSE_DOUBTS: Final = 0.05  # of the segments in doubt, those that are as good, on average
_MOST: Final = 1e300  # JSON has no infinity
_OWN_PRICE: Final = 2.0  # what averages over bets and steps cost, about, in a forecast


@dataclass(frozen=True)
class _Found:
    """One guard, on the scale it is folded on."""

    guard: Guard
    segment: str | None
    field: str | None
    tolerance: float
    log_share: float  # of the chance of rolling back wrongly
    worse: float  # log e-value
    worse_enough: float  # log e-value of the parts that may roll back
    kept: float  # log e-value
    estimate: float | None
    estimate_here: float | None  # in this step
    interval: Callable[[], tuple[float, float] | None]  # it costs more than all the rest: only for what is shown
    weight: float
    variance: float  # per weight
    canary: differences.Sums
    production: differences.Sums

    @property
    def key(self) -> _Key:
        return self.guard, self.segment, self.field


class _Marks(NamedTuple):
    blamed: set[_Key]
    doubted: set[_Key]
    required: set[_Key]


def verdict(judge: Judge, *, step: int, hours: float, settled: bool = False) -> Judgement:
    """What is to become of the canary, `hours` after its `step` (from 0) began.

    With `settled` it is in production already: labels that still arrive may roll it back, and nothing else happens.
    May be asked at any time and any number of times. Raises Misuse for a step that the plan does not have.
    """
    plan = judge.plan
    if not 0 <= step < len(plan.stage.steps):
        raise Misuse(f"expected a step from 0 to {len(plan.stage.steps) - 1}, found {step}")
    found = _all(judge, step)
    parts = [each for each in _of_segments(judge, step) if each.weight]
    wanted = -math.log(plan.stage.false_rollbacks)
    harm = float(np.logaddexp.reduce([each.log_share + each.worse_enough for each in (*found, *parts)] or [-math.inf]))
    rolled_back = harm >= wanted
    marks = _Marks(
        blamed=_blamed([*found, *parts], wanted) if rolled_back else set(),
        doubted=_doubted(plan, found, parts),
        required={each.key for each in found if each.guard != "quality" or plan.stage.min_labels > 0},
    )
    standings = [_standing(plan, each, marks) for each in found]
    of_segments = [_standing(plan, each, marks) for each in parts if each.key in marks.blamed | marks.doubted]
    decisions = judge.decisions.get(step, 0)
    labels = _labels(judge)
    ruling, reason = _ruling(plan, step, hours, (decisions, labels), standings, of_segments)
    if rolled_back:
        ruling, reason = "roll_back", "harm"
    elif settled:
        ruling, reason = "keep_collecting", "watching"
    return Judgement(
        ruling=ruling,
        reason=reason,
        why=_why(plan, step, hours, reason, (decisions, labels), [*standings, *of_segments]),
        guards=tuple(standings),
        segments=tuple(of_segments),
        harm=_plain(harm),
        needed=1 / plan.stage.false_rollbacks,
        decisions=decisions,
        labels=labels,
        more=None if ruling != "keep_collecting" or settled else _more(plan, step, decisions, standings),
    )


def _labels(judge: Judge) -> int:
    quality = judge.guards.get("quality")
    return 0 if quality is None else sum(cohort.canary.n for cohort in quality.cohorts.values())


def _tolerance(plan: Plan, guard: Guard) -> float:
    guards = plan.stage.guards
    declared: dict[Guard, float | None] = {
        "errors": guards.errors,
        "fallback": guards.fallback,
        "review": guards.review,
        "latency": guards.latency,
        "output": guards.output,
        "quality": guards.quality,
        "cost": guards.cost,
    }
    return (declared[guard] or 0.0) / scale_of(plan, guard)[1]


def _all(judge: Judge, step: int) -> list[_Found]:
    """Every guard over all decisions."""
    plan = judge.plan
    number = len(judge.guards) + len(judge.outputs)
    log_share = math.log((1 - SHARE_OF_SEGMENTS if plan.segments else 1.0) / max(1, number))
    found = [_difference(plan, name, None, judge.guards[name], log_share, step) for name in guarded(plan)]
    return found + [_output(judge, field, log_share, step) for field in plan.outputs]


def _of_segments(judge: Judge, step: int) -> list[_Found]:
    number = sum(len(states) for states in judge.segments.values())
    log_share = math.log(SHARE_OF_SEGMENTS / max(1, number))
    return [
        _difference(judge.plan, name, segment, states[name], log_share, step)
        for segment, states in judge.segments.items()
        for name in guarded(judge.plan)
        if name in states
    ]


def _difference(
    plan: Plan, guard: Guard, segment: str | None, state: Difference, log_share: float, step: int
) -> _Found:
    tolerance = _tolerance(plan, guard)
    wanted = -math.log(plan.stage.false_rollbacks)
    parts = differences.parts_of(state, len(plan.stage.steps))
    whole = parts[0].cohort
    enough = [
        part.log_share + part.log_value
        for part in parts
        if (part.cohort.estimate or 0.0) > 0
        and (part.cohort.estimate or 0.0) >= tolerance / 2
        and differences.lower_than(state.kind, part.cohort, tolerance) < wanted
    ]
    here = state.cohorts.get(step)
    return _Found(
        guard=guard,
        segment=segment,
        field=None,
        tolerance=tolerance,
        log_share=log_share,
        worse=_average([part.log_share + part.log_value for part in parts], len(parts) - 1, len(plan.stage.steps)),
        worse_enough=float(np.logaddexp.reduce(enough or [-math.inf])),
        kept=differences.lower_than(state.kind, whole, tolerance),
        estimate=whole.estimate,
        estimate_here=None if here is None else here.estimate,
        interval=partial(differences.interval, state.kind, whole),
        weight=whole.weight,
        variance=whole.variance / whole.weight if whole.weight else 0.0,
        canary=whole.canary,
        production=whole.production,
    )


def _output(judge: Judge, field: str, log_share: float, step: int) -> _Found:
    state, steps = judge.outputs[field], len(judge.plan.stage.steps)
    whole = outputs.whole(state.cohorts.values())
    values = [math.log(0.5) + outputs.further(whole)]
    values += [outputs.further(cohort) - math.log(2 * steps) for cohort in state.cohorts.values()]
    here = state.cohorts.get(step)
    worse = _average(values, len(state.cohorts), steps)
    canary, production = whole.decisions
    return _Found(
        guard="output",
        segment=None,
        field=field,
        tolerance=state.tolerance,
        log_share=log_share,
        worse=worse,
        worse_enough=worse,
        kept=outputs.nearer(whole, state.tolerance),
        estimate=outputs.distance(whole),
        estimate_here=None if here is None else outputs.distance(here),
        interval=partial(outputs.interval, whole, state.tolerance),
        weight=whole.weight,
        variance=0.25,
        canary=differences.Sums(canary),
        production=differences.Sums(production),
    )


def _average(log_values: list[float], steps_seen: int, steps: int) -> float:
    """Of the parts, those of the steps that have not begun being worth 1 each."""
    unseen = (steps - steps_seen) / (2 * steps)
    return float(np.logaddexp.reduce([*log_values, math.log(unseen) if unseen else -math.inf]))


def _blamed(found: Iterable[_Found], wanted: float) -> set[_Key]:
    """The guards that would have sufficed by themselves, or else the one that weighed most."""
    ordered = sorted(found, key=lambda each: -(each.log_share + each.worse_enough))
    alone = {each.key for each in ordered if each.log_share + each.worse_enough >= wanted}
    return alone or {ordered[0].key}


def _doubted(plan: Plan, found: list[_Found], parts: list[_Found]) -> set[_Key]:
    """What looks broken.

    A guard that has to be shown: when it is beyond the tolerance, in this step or over all. One that has not: when its
    own e-value is 20 or more. Of segments: those called worse with a false discovery rate of 5 %.
    """
    doubted = set()
    for each in found:
        if each.guard == "quality" and plan.stage.min_labels == 0:
            broken = each.worse_enough >= DOUBT
        else:
            broken = max(each.estimate or 0.0, each.estimate_here or 0.0) > each.tolerance
        if broken:
            doubted.add(each.key)
    if parts:
        called = discoveries([each.worse_enough for each in parts], FALSE_DOUBTS)
        doubted |= {each.key for each, is_called in zip(parts, called, strict=True) if is_called}
    return doubted


def _standing(plan: Plan, found: _Found, marks: _Marks) -> Standing:
    low, width = scale_of(plan, found.guard)
    wanted = -math.log(plan.stage.false_rollbacks)
    state: State = "open"
    if found.key in marks.blamed:
        state = "harmful"
    elif found.key in marks.doubted:
        state = "in_doubt"
    elif not found.weight:
        state = "no_evidence"
    elif found.kept >= wanted:
        state = "kept"
    canary, production = found.canary.mean, found.production.mean
    interval = found.interval()
    return Standing(
        guard=found.guard,
        state=state,
        required=found.key in marks.required,
        segment=found.segment,
        field=found.field,
        canary=None if canary is None or found.field else low + width * canary,
        production=None if production is None or found.field else low + width * production,
        canary_n=found.canary.n,
        production_n=found.production.n,
        difference=None if found.estimate is None else width * found.estimate,
        low=None if interval is None else width * interval[0],
        high=None if interval is None else width * interval[1],
        tolerance=width * found.tolerance,
        harm=_plain(found.worse),
        kept=_plain(found.kept),
        more=_until_settled(found, wanted) if state in {"open", "in_doubt"} else None,
    )


def _until_settled(found: _Found, wanted: float) -> int | None:
    """Decisions (labels) of the canary until the guard is shown to be kept or broken, would all go on as it went."""
    if found.estimate is None or not found.weight:
        return None
    kept = weight_needed(found.tolerance - found.estimate, found.variance, wanted)
    broken = math.inf
    if found.guard != "output" and found.estimate >= found.tolerance / 2:
        broken = weight_needed(found.estimate, found.variance, wanted - found.log_share + _OWN_PRICE)
    elif found.guard == "output":
        broken = weight_needed(found.estimate - found.tolerance, found.variance, wanted - found.log_share + _OWN_PRICE)
    needed = min(kept, broken)
    if not math.isfinite(needed):
        return None
    return max(1, math.ceil(found.canary.n * (needed / found.weight - 1)))


def _ruling(
    plan: Plan,
    step: int,
    hours: float,
    seen: tuple[int, int],
    standings: list[Standing],
    of_segments: list[Standing],
) -> tuple[Ruling, Reason]:
    """What follows where no harm is sure."""
    missing = _missing(plan, step, seen, standings, of_segments)
    if missing is None:
        return "promote", "not_worse" if _is_last(plan, step) else "minimum_reached"
    return ("roll_back", "waited_too_long") if hours >= plan.stage.max_hours else ("keep_collecting", missing)


def _missing(
    plan: Plan, step: int, seen: tuple[int, int], standings: list[Standing], of_segments: list[Standing]
) -> Reason | None:
    if seen[0] < plan.stage.min_decisions:
        return "too_few_decisions"
    if seen[1] < plan.stage.min_labels:
        return "too_few_labels"
    if any(each.state == "in_doubt" for each in (*standings, *of_segments)):
        return "in_doubt"
    if _is_last(plan, step) and any(each.required and each.state != "kept" for each in standings):
        return "not_yet_shown"
    return None


def _is_last(plan: Plan, step: int) -> bool:
    return step == len(plan.stage.steps) - 1


def _more(plan: Plan, step: int, decisions: int, standings: list[Standing]) -> int | None:
    """Decisions of the canary until it can go on; None when a guard's own forecast is missing."""
    needed = [plan.stage.min_decisions - decisions]
    if _is_last(plan, step):
        for each in standings:
            if each.required and each.state != "kept":
                if each.more is None or each.guard == "quality":
                    return None  # labels come when they come
                needed.append(each.more)
    return max([1, *needed])


def _plain(log_value: float) -> float:
    return min(_MOST, math.exp(min(log_value, 690.0)))


def _why(plan: Plan, step: int, hours: float, reason: Reason, seen: tuple[int, int], standings: list[Standing]) -> str:
    match reason:
        case "harm":
            return "; ".join(_told(each) for each in standings if each.state == "harmful")
        case "waited_too_long":
            missing = _missing(plan, step, seen, [s for s in standings if not s.segment], standings)
            return f"{hours:,.0f} hours in this step, {_lacking(plan, missing, seen, standings)}"
        case "minimum_reached":
            return f"{seen[0]:,} decisions in this step, and no guard in doubt"
        case "not_worse":
            return f"every guard is kept: {', '.join(_name(each) for each in standings if each.required)}"
        case "watching":
            return f"in production; {seen[1]:,} labels of its time as a canary so far"
        case _:
            return _lacking(plan, reason, seen, standings)


def _lacking(plan: Plan, reason: Reason | None, seen: tuple[int, int], standings: list[Standing]) -> str:
    match reason:
        case "too_few_decisions":
            return f"{seen[0]:,} of {plan.stage.min_decisions:,} decisions in this step"
        case "too_few_labels":
            return f"{seen[1]:,} of {plan.stage.min_labels:,} labels"
        case "in_doubt":
            return "in doubt: " + "; ".join(_told(each) for each in standings if each.state == "in_doubt")
        case _:
            unshown = [each for each in standings if each.required and each.state != "kept"]
            return "not yet shown: " + "; ".join(_told(each) for each in unshown)


def _name(standing: Standing) -> str:
    field = f" {standing.field}" if standing.field else ""
    where = f" of {standing.segment}" if standing.segment else ""
    return f"{standing.guard}{field}{where}"


def _told(standing: Standing) -> str:
    """How a guard stands, in a line."""
    if standing.difference is None or standing.low is None or standing.high is None:
        return f"{_name(standing)}: nothing to compare yet"
    if standing.guard == "output":
        return (
            f"{_name(standing)} at a distance of {standing.difference:.3f} "
            f"({standing.low:.3f} to {standing.high:.3f}), tolerated {standing.tolerance:g}"
        )
    if standing.guard in {"quality", "cost"}:
        noun = "loss" if standing.guard == "quality" else "cost"
        return (
            f"{_name(standing)}: {noun} {standing.canary:.4g} against {standing.production:.4g}, a difference of "
            f"{standing.difference:.4g} ({standing.low:.4g} to {standing.high:.4g}), tolerated {standing.tolerance:g}"
        )
    low, high = 100 * standing.low, 100 * standing.high
    return (
        f"{_name(standing)} {100 * (standing.canary or 0):.2f} % against {100 * (standing.production or 0):.2f} %, "
        f"a difference of {100 * standing.difference:.2f} points ({low:.2f} to {high:.2f}), "
        f"tolerated {100 * standing.tolerance:g}"
    )
