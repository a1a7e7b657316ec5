"""Whether a canary is promoted, rolled back, or goes on collecting evidence.

*Rolled back* for harm when the e-values that the canary is worse than the version in force, averaged over all guards,
steps and segments, reach 1/false_rollbacks. Only guards enter that look at least half as much worse as tolerated and
are not surely within the tolerance. So a version as good as the one in force (for outputs: within the tolerance) is
rolled back for harm with a chance of at most `false_rollbacks`, over all guards, segments, steps and looks, ever.

*Promoted* to the next step once the minimum is there and no guard looks worse than tolerated; into production once
every guard is *shown* to be kept: its e-value against "worse by the tolerance, or more" is at least 1/false_rollbacks.
All guards must show it, so a version that breaks any of them gets there with a chance of at most `false_rollbacks`.
Quality has to be shown where `min_labels` asks for labels at all. Between equal and worse by the tolerance either may
happen, as in every test with a region of indifference; half the tolerance is about where it turns.

*Given up* when a step lasts longer than `max_hours`: rolled back with the reason `waited_too_long`, which says nothing
against the version, and is not part of the chance above.

A judge is plain data. It is told what arrived in portions of any size, each exactly once, and may be asked at any time.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Literal

import msgspec
from msgspec import Struct

from mainstay.capability.keeping import CanaryStage  # noqa: TC001 - msgspec reads the types of a struct
from mainstay.errors import Misuse
from mainstay.rollout import sequential_differences as differences
from mainstay.rollout import sequential_outputs as outputs
from mainstay.rollout.sequential_differences import Difference, Sums, counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mainstay.rollout.judging_types import Arm, Evidence, Guard

MOST_SEGMENTS: Final = 100
_EXPECTED: Final[dict[str, float]] = {"errors": 0.01, "fallback": 0.02, "review": 0.1, "latency": 0.01, "quality": 0.1}
_OF_SEGMENTS: Final = ("errors", "fallback", "review", "latency", "quality")


class Plan(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is settled before a canary begins, and never changes while it lasts."""

    stage: CanaryStage
    quality: Literal["share", "mean"] | None = None  # of wrong answers, or of losses; None: no labels are declared
    losses: tuple[float, float] = (0.0, 1.0)  # the lowest and highest loss that there can be
    outputs: tuple[str, ...] = ()  # fields whose distribution is watched
    segments: tuple[str, ...] = ()  # that are watched by themselves, at most 100; others are not


class Judge(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All that was folded so far."""

    plan: Plan
    guards: dict[str, Difference]
    outputs: dict[str, outputs.Outputs] = {}
    segments: dict[str, dict[str, Difference]] = {}
    decisions: dict[int, int] = {}  # of the canary, by step


def begin(
    stage: CanaryStage,
    *,
    quality: Literal["share", "mean"] | None = None,
    losses: tuple[float, float] = (0.0, 1.0),
    output_fields: Sequence[str] = (),
    segments: Sequence[str] = (),
) -> Judge:
    """A judge of a canary of which nothing is known yet. Raises Misuse when what is asked for cannot be judged.

    `segments` are named so that a value says of which field it is, such as `carrier=AA`; the ones that production has
    seen most.
    """
    if not losses[0] < losses[1] or not math.isfinite(losses[1] - losses[0]):
        raise Misuse(f"losses: expected the lowest and the highest, found {losses[0]:g} and {losses[1]:g}")
    if len(segments) > MOST_SEGMENTS or len(set(segments)) < len(segments):
        raise Misuse(f"expected at most {MOST_SEGMENTS} segments, each once, found {len(segments)}")
    plan = Plan(
        stage=stage,
        quality=quality,
        losses=(float(losses[0]), float(losses[1])),
        outputs=tuple(output_fields) if stage.guards.output is not None else (),
        segments=tuple(segments),
    )
    names = guarded(plan)
    return Judge(
        plan=plan,
        guards={name: _nothing(plan, name) for name in names},
        outputs={field: outputs.Outputs(tolerance=stage.guards.output or 0.0) for field in plan.outputs},
        segments={
            segment: {name: _nothing(plan, name) for name in names if name in _OF_SEGMENTS} for segment in plan.segments
        },
    )


def guarded(plan: Plan) -> tuple[Guard, ...]:
    """The guards that compare a mean or a share, in the order they are shown in."""
    guards = plan.stage.guards
    declared: list[tuple[Guard, float | None]] = [
        ("errors", guards.errors),
        ("fallback", guards.fallback),
        ("review", guards.review),
        ("latency", guards.latency),
        ("quality", None if plan.quality is None else guards.quality),
        ("cost", guards.cost),
    ]
    return tuple(name for name, tolerance in declared if tolerance is not None)


def _nothing(plan: Plan, name: str) -> Difference:
    if name == "cost":
        return Difference(kind="unbounded")
    kind = plan.quality if name == "quality" and plan.quality else "share"
    return Difference(kind=kind, expected=_EXPECTED[name])


def fold(judge: Judge, evidence: Evidence) -> Judge:
    """The judge with what has arrived. Raises Misuse for counts that cannot be; then nothing is folded.

    Segments that the plan does not name are left out.
    """
    plan, step = judge.plan, evidence.step
    if not 0 <= step < len(plan.stage.steps):
        raise Misuse(f"expected evidence of a step from 0 to {len(plan.stage.steps) - 1}, found {step}")
    per_key = evidence.decisions_per_key
    segments = dict(judge.segments)
    for segment, (canary, production) in evidence.segments.items():
        if segment in segments:
            segments[segment] = _folded(plan, segments[segment], step, canary, production, per_key)
    binned = dict(judge.outputs)
    for field, state in judge.outputs.items():
        canary_bins, production_bins = (arm.outputs.get(field, ()) for arm in (evidence.canary, evidence.production))
        binned[field] = outputs.fold(state, step, canary_bins, production_bins, decisions_per_key=per_key)
    return msgspec.structs.replace(
        judge,
        guards=_folded(plan, judge.guards, step, evidence.canary, evidence.production, per_key),
        outputs=binned,
        segments=segments,
        decisions={**judge.decisions, step: judge.decisions.get(step, 0) + evidence.canary.decisions},
    )


def _folded(
    plan: Plan, states: dict[str, Difference], step: int, canary: Arm, production: Arm, per_key: float
) -> dict[str, Difference]:
    return {
        name: differences.fold(
            state, step, _sums(plan, name, canary), _sums(plan, name, production), decisions_per_key=per_key
        )
        for name, state in states.items()
    }


def _sums(plan: Plan, name: str, arm: Arm) -> Sums:
    match name:
        case "errors":
            return counted(arm.decisions, arm.errors)
        case "fallback":
            return counted(arm.decisions, arm.fallback)
        case "review":
            return counted(arm.decisions, arm.review)
        case "latency":
            return counted(arm.decisions - arm.untimed, arm.slow)
        case "cost":
            return arm.cost
        case _:
            return _scaled(arm.quality, plan.losses)


def _scaled(sums: Sums, losses: tuple[float, float]) -> Sums:
    """Of losses, brought to 0..1."""
    low, width = losses[0], losses[1] - losses[0]
    return Sums(sums.n, (sums.total - sums.n * low) / width, sums.about(low) / width**2)


def scale_of(plan: Plan, guard: Guard) -> tuple[float, float]:
    """What a guard's own zero and unit are, on the scale it is folded on."""
    return (plan.losses[0], plan.losses[1] - plan.losses[0]) if guard == "quality" else (0.0, 1.0)
