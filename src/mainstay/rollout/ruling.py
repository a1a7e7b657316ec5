"""What is to become of a version on trial, from what was folded of it: of a shadow here, of a canary by its judge."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from mainstay.rollout import sequential_pairs as pairs
from mainstay.rollout.types import Verdict, instant
from mainstay.rollout.verdict import verdict as judge_verdict

if TYPE_CHECKING:
    from mainstay.capability.keeping import CanaryStage, ShadowStage
    from mainstay.rollout.evidence import Folded
    from mainstay.rollout.types import Rollout


class Ruling(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict, and what it rests on as it goes into the record."""

    verdict: Verdict
    evidence: dict[str, Any]


def rule(rollout: Rollout, folded: Folded, shadow: ShadowStage, canary: CanaryStage) -> Ruling | None:
    """The ruling over a rollout as it stands; None where nothing can be said of it, such as without a canary."""
    hours = (datetime.now(UTC) - datetime.fromisoformat(rollout.since)).total_seconds() / 3_600
    if rollout.stage == "shadow":
        return _of_shadow(folded, shadow, canary, hours)
    if folded.judge is None:
        return None
    steps = folded.judge.plan.stage.steps
    settled = rollout.stage == "production"
    step = len(steps) - 1 if settled else max(0, sum(each <= rollout.percent for each in steps) - 1)
    found = judge_verdict(folded.judge, step=step, hours=hours, settled=settled)
    said = Verdict(
        at=instant(),
        verdict=found.ruling,
        code=found.reason,
        reason=found.why,
        decisions=found.decisions,
        labels=found.labels,
    )
    return Ruling(verdict=said, evidence=_evidence(folded, judgement=found))


def _of_shadow(folded: Folded, stage: ShadowStage, canary: CanaryStage, hours: float) -> Ruling:
    """A shadow does no harm, and is never rolled back by itself: it goes on until it may be a canary, or is ended."""
    found = folded.agreement
    code, why = "minimum_reached", f"{found.compared:,} decisions were compared"
    differing = pairs.Pairs(found.compared, found.outcomes_differ + found.outputs_differ)
    failing = pairs.Pairs(found.compared, found.errors)
    if found.compared < stage.min_decisions:
        code = "too_few_decisions"
        why = f"{found.compared:,} of {stage.min_decisions:,} decisions were compared"
    elif hours < stage.min_hours:
        code, why = "not_yet_shown", f"{hours:.1f} of {stage.min_hours:g} hours have passed"
    elif (bounds := pairs.interval(failing)) and canary.guards.errors is not None and bounds[0] > canary.guards.errors:
        code, why = "in_doubt", f"it could not answer {found.errors:,} of {found.compared:,} decisions"
    elif stage.max_disagreement is not None and (bounds := pairs.interval(differing)):
        low, high = bounds
        seen = f"it disagrees on {low:.1%} to {high:.1%} of decisions, at most {stage.max_disagreement:.1%} is wanted"
        if high > stage.max_disagreement:
            code, why = ("in_doubt" if low > stage.max_disagreement else "not_yet_shown"), seen
        else:
            why = seen
    said = Verdict(
        at=instant(),
        verdict="promote" if code == "minimum_reached" else "keep_collecting",
        code=code,
        reason=why,
        decisions=found.compared,
        labels=0,
    )
    return Ruling(verdict=said, evidence=_evidence(folded, agreement=found))


def _evidence(folded: Folded, **said: Any) -> dict[str, Any]:
    place = {"ledger": {"from": folded.begun, "until": folded.reached}}
    return place | {name: msgspec.to_builtins(value) for name, value in said.items()}
