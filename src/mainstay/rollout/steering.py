"""Moving versions through their stages, by hand or by the pass.

Every function writes the move in one transaction, with the event that tells of it and the approval that it rests on,
and then publishes what it asks for. Whether the person may do so, and whether the checks of the stage hold, the caller
has seen: `Move.evidence` is what it rests on, and goes into the record. Killed anywhere, what is left is done by the
pass, or by whoever moves the rollout next.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import msgspec

from mainstay.catalog import holding
from mainstay.catalog import releases as catalog
from mainstay.catalog.versions import load_manifest
from mainstay.errors import Failed, Misuse
from mainstay.rollout import store
from mainstay.rollout.moves import (
    Made,
    Move,
    bound,
    check_words,
    ended_row,
    first_row,
    needs_approval,
    next_row,
    next_stage,
    record_proposal,
    write_end,
    write_first,
    write_next,
    write_proposal,
)
from mainstay.rollout.settling import Steering, declared_by, record_release, settle, steered, tell
from mainstay.rollout.types import PRINCIPAL, Proposal, Rollout, digest_of, instant

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from mainstay.catalog.holds import Standing, Stop
    from mainstay.catalog.types import Release
    from mainstay.rollout.types import Stage
    from mainstay.signing import SigningKey
    from mainstay.workspace import Workspace

logger = logging.getLogger("mainstay.rollout")


def begin(steering: Steering, move: Move) -> Made:
    """Begin a rollout of a version at a stage: a shadow, a canary, or all of production at once.

    Raises Misuse when another version is on trial, this one is in force already or of another capability, or a stage
    is left out that the version in force requires.
    """
    check_words(move.reason, move.principal)
    _check_version(steering.workspace, move)
    with steered(steering.workspace, move.capability):
        release = steering.in_force(move.capability)
        champion = None if release is None else release.version
        if release is not None and champion == move.version and release.canary is None:
            raise Misuse(f"{move.version} is in production already: expected another version")
        rules = declared_by(steering.workspace, champion or move.version)
        rollout = first_row(move, rules, release, store.new_id("rollout"))

        def work(connection: Connection) -> Made:
            if needs_approval(rules, None, champion, move.stage):
                return write_proposal(connection, move, rollout.id, 0, champion)
            return write_first(connection, rollout, move)

        return _carry_out(steering, steering.write(work))


def advance(steering: Steering, move: Move) -> Made:
    """Bring the version on trial to its next step, or to a later stage.

    Raises Misuse when that version is not on trial, or what is asked for does not lie behind what it has.
    """
    check_words(move.reason, move.principal)
    with steered(steering.workspace, move.capability):
        rollout = steering.database.read(lambda connection: store.find_running(connection, move.capability))
        if rollout is None or rollout.version != move.version:
            found = "none" if rollout is None else rollout.version
            raise Misuse(f"{move.capability}: expected {move.version} to be on trial, found {found}")
        return _go_on(steering, settle(steering, rollout), move)


def promote(steering: Steering, move: Move) -> Made:
    """Bring a version into production: the one on trial, or one that was on none where nothing requires it.

    Raises as `begin` and `advance` do.
    """
    wanted = msgspec.structs.replace(move, stage="production", percent=None)
    running = steering.database.read(lambda connection: store.find_running(connection, move.capability))
    if running is not None and running.version == move.version:
        return advance(steering, wanted)
    return begin(steering, wanted)


def move_on(steering: Steering, rollout: Rollout, *, reason: str, evidence: Any) -> Made:
    """What the pass does when the evidence suffices: the next step, or a proposal where a person has to approve it.

    What somebody refused is not proposed again until the rollout has moved. The lock of the capability must be held.
    Raises store.Moved when somebody was faster.
    """
    rules = declared_by(steering.workspace, rollout.champion or rollout.version)
    stage, percent = next_stage(rollout, rules)
    move = Move(
        capability=rollout.capability,
        version=rollout.version,
        stage=stage,
        percent=percent,
        reason=reason,
        principal=PRINCIPAL,
        evidence=evidence,
    )
    if needs_approval(rules, rollout, rollout.champion, stage):
        facts = (move.capability, move.version, stage, rollout.id, rollout.moves, percent, rollout.champion)
        if steering.database.read(lambda at: store.was_refused(at, rollout.id, digest_of(*facts))):
            return rollout
    return _go_on(steering, rollout, move)


def roll_back(
    steering: Steering, capability: str, *, reason: str, principal: str, to: int | None = None, evidence: Any = None
) -> Rollout | Release:
    """Take a version back: the one on trial, else the one in production, else what the releases say came before.

    With `to`, the number of a release, what that release put into force is published again, whatever is on trial. Where
    the control database does not answer, the releases alone are gone back in; the pass takes notice when it does.
    Raises Misuse when there is nothing to go back to.
    """
    check_words(reason, principal)
    with steered(steering.workspace, capability):
        if to is None:
            try:
                rollout = _to_take_back(steering, capability)
                if rollout is not None:
                    stage: Stage = "stopped_by_hand" if rollout.running else "rolled_back"
                    return take_back(steering, rollout, stage, reason=reason, principal=principal, evidence=evidence)
            except Failed as error:
                logger.error("%s: gone back in its releases alone: %s", capability, error)  # noqa: TRY400 - says all
        key = steering.key
        release = catalog.roll_back(steering.workspace, capability, key=key, reason=reason, principal=principal, to=to)
        record_release(steering.workspace, release)
        return release


def take_back(
    steering: Steering, rollout: Rollout, stage: Stage, *, reason: str, principal: str, evidence: Any = None
) -> Rollout:
    """End a rollout and have what it stood beside decide alone. The lock of the capability must be held."""
    after = ended_row(rollout, stage, reason, steering.in_force(rollout.capability))
    ended = steering.write(lambda connection: write_end(connection, rollout, after, principal, evidence))
    return _settled(steering, ended)


def stop(workspace: Workspace, capability: str, *, key: SigningKey, reason: str, principal: str) -> Stop:
    """Send every decision of a capability to its fallback at once; its rollout does not move meanwhile.

    It needs neither the control database nor a release, so that it works whatever else does not. Raises as
    `holding.stop` does.
    """
    return holding.stop(workspace, capability, reason=reason, principal=principal, key=key)


def resume(workspace: Workspace, capability: str, *, key: SigningKey, reason: str, principal: str) -> Standing | None:
    """Let a capability decide again, and its rollout go on; what is lifted, None where it was not stopped."""
    return holding.resume(workspace, capability, reason=reason, principal=principal, key=key)


# Four eyes.


def approve(steering: Steering, proposal_id: str, *, digest: str, reason: str, principal: str) -> Rollout:
    """Approve a proposal and make its move, in one transaction.

    `digest` is what the approver has looked at. Raises Misuse when the proposal is not there, was settled, has expired,
    or is of the same person (who proposed it, or began the rollout), and when what it is bound to is not so any more.
    """
    check_words(reason, principal)
    capability = _proposal(steering, proposal_id).capability
    with steered(steering.workspace, capability):
        release = steering.in_force(capability)
        champion = None if release is None else release.version

        def work(connection: Connection) -> Rollout:
            proposal = store.find_proposal(connection, proposal_id)
            assert proposal is not None, "proposals are never removed"
            rollout = store.find(connection, proposal.rollout)
            _check_approval(proposal, rollout, champion, digest=digest, principal=principal)
            store.settle_proposal(connection, proposal, "approved", principal)
            by_whom = {"proposed_by": proposal.proposed_by}
            record_proposal(connection, proposal, "rollout.approved", principal, reason.strip(), by_whom)
            move = _approved(proposal, principal)
            rules = declared_by(steering.workspace, champion or proposal.version)
            if rollout is None:
                begun = first_row(move, rules, release, proposal.rollout)
                return write_first(connection, msgspec.structs.replace(begun, by=proposal.proposed_by), move)
            return write_next(connection, rollout, next_row(rollout, move, rules, release), move)

        return _settled(steering, steering.write(work))


def withdraw(steering: Steering, proposal_id: str, *, reason: str, principal: str) -> Proposal:
    """Take a proposal back, or refuse it. Raises Misuse when there is none that waits."""
    check_words(reason, principal)

    def work(connection: Connection) -> None:
        proposal = store.find_proposal(connection, proposal_id)
        if proposal is None or proposal.verdict is not None:
            raise Misuse(f"expected a proposal that waits, found none with the id {proposal_id[:80]!r}")
        store.settle_proposal(connection, proposal, "withdrawn", principal)
        record_proposal(connection, proposal, "rollout.withdrawn", principal, reason.strip(), {})

    steering.write(work)
    tell(steering)
    return _proposal(steering, proposal_id)


def _proposal(steering: Steering, proposal_id: str) -> Proposal:
    found = steering.database.read(lambda connection: store.find_proposal(connection, proposal_id))
    if found is None:
        raise Misuse(f"expected the id of a proposal, found {proposal_id[:80]!r}")
    return found


def _approved(proposal: Proposal, principal: str) -> Move:
    return Move(
        capability=proposal.capability,
        version=proposal.version,
        stage=proposal.stage,
        percent=proposal.percent,
        reason=proposal.reason,
        principal=principal,
        evidence={"proposal": proposal.id, "digest": proposal.digest, "proposed_by": proposal.proposed_by},
    )


def _check_approval(
    proposal: Proposal, rollout: Rollout | None, champion: str | None, *, digest: str, principal: str
) -> None:
    if proposal.verdict is not None:
        raise Misuse(f"{proposal.id} was {proposal.verdict} before, by {proposal.settled_by}")
    if proposal.expires_at <= instant():
        raise Misuse(f"{proposal.id} expired at {proposal.expires_at}", hint="Propose it again.")
    if principal in {proposal.proposed_by, None if rollout is None else rollout.by}:
        raise Misuse(f"{proposal.id}: expected another person than who proposed it or began it, found {principal}")
    now = bound(proposal, 0 if rollout is None else rollout.moves, champion)
    if not digest == proposal.digest == now:
        raise Misuse(
            f"{proposal.id}: expected what was proposed, {proposal.digest}, found {digest[:80]!r} approved,"
            f" and as things stand now it would be {now}",
            hint="Look at it again; when something was moved meanwhile, it has to be proposed again.",
        )


# What all of them do.


def _go_on(steering: Steering, rollout: Rollout, move: Move) -> Made:
    rules = declared_by(steering.workspace, rollout.champion or rollout.version)
    after = next_row(rollout, move, rules, steering.in_force(rollout.capability))

    def work(connection: Connection) -> Made:
        if needs_approval(rules, rollout, rollout.champion, move.stage):
            return write_proposal(connection, move, rollout.id, rollout.moves, rollout.champion)
        return write_next(connection, rollout, after, move)

    return _carry_out(steering, steering.write(work))


def _carry_out(steering: Steering, made: Made) -> Made:
    if isinstance(made, Rollout):
        return _settled(steering, made)
    tell(steering)
    return made


def _settled(steering: Steering, rollout: Rollout) -> Rollout:
    settled = settle(steering, rollout)
    tell(steering)
    return settled


def _to_take_back(steering: Steering, capability: str) -> Rollout | None:
    def look(connection: Connection) -> Rollout | None:
        found = store.find_running(connection, capability)
        return found or store.find_in_production(connection, capability)

    found = steering.database.read(look)
    if found is None:
        return None
    settled = settle(steering, found)  # what somebody did without the rollout may have ended it
    in_production = settled.stage == "production" and settled.champion is not None
    return settled if settled.running or in_production else None


def _check_version(workspace: Workspace, move: Move) -> None:
    found = load_manifest(workspace.versions, move.version).capability
    if found != move.capability:
        raise Misuse(f"{move.version} is a version of {found!r}: expected one of {move.capability!r}")
