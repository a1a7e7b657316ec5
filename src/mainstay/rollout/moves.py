"""How a rollout moves, inside one transaction: what is asked for, whether it may come next, what is written of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from mainstay.errors import Misuse
from mainstay.rollout import store
from mainstay.rollout.types import PRINCIPAL, STAGES, Begun, Proposal, Rollout, digest_of, instant

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from mainstay.capability.types import Capability
    from mainstay.catalog.types import Release
    from mainstay.rollout.types import Action, Stage

APPROVAL_HOURS: Final = 72.0  # within which a proposal is approved, or expires
DEFAULT_WATCH_DAYS: Final = 30.0  # until nearly all labels are there, where nobody declared it
MAX_REASON_CHARACTERS: Final = 10_000

Made: TypeAlias = Rollout | Proposal
"""What became of a request: the rollout as it stands now, or a proposal that another person has to approve."""


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for."""

    capability: str
    version: str
    stage: Begun
    percent: float | None = None  # of a canary; None: the next step that is declared
    reason: str
    principal: str
    evidence: Any = None  # what it rests on, such as checks: plain values that go into the record


def check_words(reason: str, principal: str) -> None:
    """Raises Misuse when it is not said why, or by whom."""
    if not 1 <= len(reason.strip()) <= MAX_REASON_CHARACTERS:
        raise Misuse("a rollout is moved for a reason: expected 1 to 10,000 characters saying why")
    if not principal.strip():
        raise Misuse("a rollout is moved by somebody: expected who does it")


def number_of(release: Release | None) -> int:
    return 0 if release is None else release.number


# What comes next.


def next_stage(rollout: Rollout, rules: Capability) -> tuple[Begun, float | None]:
    """What comes next for a version on trial: the stage, and the percentage of a canary."""
    steps = rules.rollout.canary.steps
    later = [each for each in steps if each > rollout.percent] if rollout.stage == "canary" else steps
    return ("canary", min(later)) if later else ("production", None)


def first_row(move: Move, rules: Capability, release: Release | None, identity: str) -> Rollout:
    """The rollout that a move begins. Raises Misuse when a stage is left out that is required."""
    champion = None if release is None else release.version
    _check_stages(rules, champion, move.stage, ())
    return Rollout(
        id=identity,
        capability=move.capability,
        version=move.version,
        champion=champion,
        stage=move.stage,
        percent=_percent(rules, move, 0.0),
        begun_at=instant(),
        since=instant(),
        by=move.principal,
        reason=move.reason.strip(),
        base=number_of(release),
        moves=0,  # until it is written
    )


def next_row(rollout: Rollout, move: Move, rules: Capability, release: Release | None) -> Rollout:
    """The rollout behind its next move. Raises Misuse when that is none that can come next."""
    if not rollout.running:
        raise Misuse(f"{rollout.capability}: {rollout.version} is not on trial any more, it is {rollout.stage}")
    past = STAGES[: STAGES.index(_begun(rollout.stage)) + 1]
    percent = _percent(rules, move, rollout.percent)
    if (STAGES.index(move.stage), percent) <= (len(past) - 1, rollout.percent):
        wanted = f"a canary of more than {rollout.percent:g} %" if rollout.stage == "canary" else "a later stage"
        raise Misuse(f"{rollout.capability}: {rollout.version} is a {rollout.stage}: expected {wanted}, or production")
    _check_stages(rules, rollout.champion, move.stage, past)
    return msgspec.structs.replace(
        rollout,
        stage=move.stage,
        step=rollout.step + 1 if rollout.stage == move.stage else 0,
        percent=percent,
        since=instant(),
        reason=move.reason.strip(),
        base=number_of(release),
        release=None,
        watch_until=_watch_until(rules) if move.stage == "production" and rollout.stage == "canary" else None,
    )


def ended_row(rollout: Rollout, stage: Stage, reason: str, release: Release | None) -> Rollout:
    """The rollout when it is over."""
    return msgspec.structs.replace(
        rollout,
        stage=stage,
        percent=0.0,
        since=instant(),
        reason=reason.strip(),
        base=number_of(release),
        release=None,
        watch_until=None,
    )


def _begun(stage: Stage) -> Begun:
    found: Begun = msgspec.convert(stage, Begun)
    return found


def _check_stages(rules: Capability, champion: str | None, wanted: Begun, past: tuple[Begun, ...]) -> None:
    """Raises Misuse when a version would leave out a stage. The very first has nothing that it could stand beside."""
    if champion is None:
        if wanted != "production":
            raise Misuse(
                f"nothing is in production that a {wanted} could stand beside: expected the first version there",
                hint=f"Promote it: mainstay promote {rules.name} --reason '...'",
            )
        return
    before = STAGES[: STAGES.index(wanted)]
    missing = [each for each in rules.rollout.required if each in before and each not in past]
    if missing:
        raise Misuse(
            f"{rules.name}: the version in production requires {' and '.join(missing)} before {wanted}",
            hint=f"Begin there: mainstay promote {rules.name} --to {missing[0]} --reason '...'",
        )


def _percent(rules: Capability, move: Move, above: float) -> float:
    if move.stage != "canary":
        return 0.0
    if move.percent is None:
        return min((each for each in rules.rollout.canary.steps if each > above), default=0.0)
    if not 0 < move.percent < 100:
        raise Misuse(
            f"a canary decides for a share of the keys: expected above 0 and below 100 %, found {move.percent:g}"
        )
    return float(move.percent)


def _watch_until(rules: Capability) -> str | None:
    """Until when labels of the canary's decisions may send it back: twice as long as nearly all of them take."""
    labels = rules.monitoring.labels
    if labels is None or rules.rollout.canary.guards.quality is None:
        return None
    return instant(datetime.now(UTC) + timedelta(days=2 * (labels.expected_days or DEFAULT_WATCH_DAYS)))


# What is written.


def needs_approval(rules: Capability, rollout: Rollout | None, champion: str | None, stage: str) -> bool:
    """Whether another person has to approve that a version comes to a stage. The very first has nobody to hold it."""
    return champion is not None and stage in rules.rollout.four_eyes and (rollout is None or rollout.stage != stage)


def write_first(connection: Connection, rollout: Rollout, move: Move) -> Rollout:
    """Begin a rollout. Raises Misuse when another version of the capability is on trial."""
    running = store.find_running(connection, rollout.capability)
    if running is not None:
        raise Misuse(
            f"{rollout.capability}: {running.version} is on trial ({running.stage}): expected one at a time",
            hint=f"Take it back first: mainstay rollback {rollout.capability} --reason '...'",
        )
    made = msgspec.structs.replace(rollout, moves=store.next_number(connection, rollout.id))
    if made.stage == "production":
        retire(connection, made)
    store.add(connection, made)
    action: Action = "rollout.promoted" if made.stage == "production" else "rollout.started"
    _record(connection, None, made, action, move.principal, move.evidence)
    return made


def write_next(connection: Connection, before: Rollout, after: Rollout, move: Move) -> Rollout:
    """Write the next move of a rollout. Raises store.Moved when another came between."""
    made = msgspec.structs.replace(after, moves=store.next_number(connection, before.id))
    if made.stage == "production":
        retire(connection, made)
    store.save(connection, made, was=before.moves)
    action: Action = "rollout.promoted" if made.stage == "production" else "rollout.advanced"
    _record(connection, before, made, action, move.principal, move.evidence)
    return made


def end_watch(connection: Connection, rollout: Rollout) -> Rollout:
    """Say that a version in production is not watched any more. Raises store.Moved when another move came between."""
    made = msgspec.structs.replace(rollout, watch_until=None, moves=store.next_number(connection, rollout.id))
    made = msgspec.structs.replace(
        made, reason="all labels that were waited for should be there: nothing spoke against it"
    )
    store.save(connection, made, was=rollout.moves)
    _record(connection, rollout, made, "rollout.ended", PRINCIPAL, None)
    return made


def write_end(connection: Connection, before: Rollout, after: Rollout, principal: str, evidence: Any) -> Rollout:
    """Write that a rollout is over. Raises store.Moved when another move came between."""
    made = msgspec.structs.replace(after, moves=store.next_number(connection, before.id))
    store.save(connection, made, was=before.moves)
    action: Action = "rollout.rolled_back" if made.stage == "rolled_back" else "rollout.ended"
    _record(connection, before, made, action, principal, evidence)
    return made


def retire(connection: Connection, successor: Rollout) -> None:
    """End the rollout whose version is followed by another one in production."""
    former = store.find_in_production(connection, successor.capability)
    if former is None or former.id == successor.id:
        return
    after = msgspec.structs.replace(
        former,
        stage="retired",
        since=instant(),
        reason=f"followed by {successor.version}",
        watch_until=None,
        release=former.release or successor.base,
    )
    write_end(connection, former, after, successor.by, None)


def write_proposal(connection: Connection, move: Move, identity: str, moves: int, champion: str | None) -> Proposal:
    """A proposal of this move; the one that waits where somebody proposed the same before."""
    for each in store.list_proposals(connection, move.capability):
        same = (each.version, each.stage, each.percent) == (move.version, move.stage, move.percent)
        if same and each.digest == bound(each, moves, champion):
            return each
    proposal = Proposal(
        id=store.new_id("proposal"),
        capability=move.capability,
        version=move.version,
        stage=move.stage,
        rollout=identity,
        percent=move.percent,
        digest="",
        proposed_by=move.principal,
        proposed_at=instant(),
        expires_at=instant(datetime.now(UTC) + timedelta(hours=APPROVAL_HOURS)),
        reason=move.reason.strip(),
    )
    proposal = msgspec.structs.replace(proposal, digest=bound(proposal, moves, champion))
    store.add_proposal(connection, proposal)
    details = {"expires_at": proposal.expires_at, "evidence": move.evidence}
    record_proposal(connection, proposal, "rollout.proposed", move.principal, proposal.reason, details)
    return proposal


def bound(proposal: Proposal, moves: int, champion: str | None) -> str:
    """What a proposal would be bound to if it were made now."""
    return digest_of(
        proposal.capability, proposal.version, proposal.stage, proposal.rollout, moves, proposal.percent, champion
    )


def record_proposal(
    connection: Connection, proposal: Proposal, action: Action, by: str, reason: str, details: dict[str, Any]
) -> None:
    """Record that a proposal was made, approved or withdrawn."""
    facts = {
        "capability": proposal.capability,
        "version": proposal.version,
        "to": proposal.stage,
        "percent": proposal.percent,
        "proposal": proposal.id,
        "digest": proposal.digest,
    }
    number = store.next_number(connection, proposal.rollout)
    store.add_event(connection, proposal.rollout, number, action, by, reason, {**facts, **details})


def _record(
    connection: Connection, before: Rollout | None, after: Rollout, action: Action, by: str, evidence: Any
) -> None:
    details = {
        "capability": after.capability,
        "version": after.version,
        "champion": after.champion,
        "from": None if before is None else before.stage,
        "to": after.stage,
        "step": after.step,
        "percent": after.percent,
        "base": after.base,
        "evidence": evidence,
    }
    store.add_event(connection, after.id, after.moves, action, by, after.reason, details)
