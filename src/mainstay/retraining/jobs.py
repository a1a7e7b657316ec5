"""A run as a durable job: whatever is killed, and whenever, the next process goes on behind the last step that ended.

Each step may be made again, and what it gives is kept as plain values. What goes wrong is what the run came to: it
stands in the request, and nothing tries for ever. A process has one workspace whose jobs it runs: `serve` says which.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from mainstay.errors import Failed, MainstayError, Misuse
from mainstay.ledger.change import Change, record_change
from mainstay.retraining import store
from mainstay.retraining.runs import clear_away, compare_versions, freeze_rows, make_challenger
from mainstay.retraining.types import PRINCIPAL, Frozen, Request
from mainstay.rollout.moves import Move
from mainstay.rollout.steering import begin
from mainstay.state.durable import job, step

if TYPE_CHECKING:
    from mainstay.retraining.challenge import Challenge
    from mainstay.retraining.types import Ending
    from mainstay.rollout.settling import Steering


@dataclass(slots=True)
class _Serving:
    """What jobs of this process work on; they are begun by their ids alone."""

    steering: Steering | None = None


_serving = _Serving()


def serve(steering: Steering) -> None:
    """Have the jobs of this process work on this workspace from now on."""
    _serving.steering = steering


@job
def retrain(request_id: str) -> str:
    """Run a request to its end; how it ended."""
    problem = freeze(request_id)
    if not problem:
        problem = train(request_id)
    if not problem:
        problem = challenge(request_id)
    return end(request_id, problem)


@step
def freeze(request_id: str) -> str:
    """Take the snapshots; what kept it from that, else nothing."""
    steering, request = _here(request_id)
    release = steering.in_force(request.capability)
    if release is None:
        return f"{request.capability} has no release, and so no champion"
    try:
        frozen = freeze_rows(steering.workspace, request, release.version)
    except (MainstayError, OSError) as error:
        return str(error)
    _note(request, frozen=frozen)
    return ""


@step
def train(request_id: str) -> str:
    """Train and register the challenger; what kept it from that, else nothing."""
    steering, request = _here(request_id)
    try:
        trained = make_challenger(steering.workspace, request, _frozen(request))
    except (MainstayError, OSError) as error:
        return str(error)
    _note(request, trained=trained)
    return ""


@step
def challenge(request_id: str) -> str:
    """Hold the challenger against the champion; what kept it from that, else nothing."""
    steering, request = _here(request_id)
    frozen, trained = _frozen(request), request.trained
    assert trained is not None, "it is registered in the step before"
    if trained.version == frozen.champion:
        return ""
    try:
        judged = compare_versions(steering.workspace, frozen, trained.version)
    except (MainstayError, OSError) as error:
        return str(error)
    _note(request, challenge=judged)
    return ""


@step
def end(request_id: str, problem: str) -> str:
    """Say what came of it, in the request and in the ledger; a challenger that is better enters as a shadow."""
    steering, request = _here(request_id)
    clear_away(steering.workspace, request)
    if request.ending is None:
        ending, why = _ending(request, problem)
        if ending == "better" and request.rollout is None:
            rollout, refusal = _enter(steering, request)
            why = why if rollout is not None else f"{why}; it did not enter as a shadow: {refusal}"
            request = _note(request, rollout=rollout)
        request = msgspec.structs.replace(request, ending=ending, why=why, ended_at=datetime.now(UTC))
        # The ledger first: a request that has ended has its entry. Killed between, it has two that say the same.
        _record(steering, request)
        store.change(steering.database, msgspec.structs.replace(request, status="ended"), write=steering.write)
    return request.ending or ""


def _ending(request: Request, problem: str) -> tuple[Ending, str]:
    if problem:
        return "failed", problem
    judged: Challenge | None = request.challenge
    if judged is None:
        return "same", "training made the version that is in force"
    return judged.verdict, judged.why


def _enter(steering: Steering, request: Request) -> tuple[str | None, str]:
    """Begin the challenger as a shadow; the id of the rollout or of its proposal, or why it could not be."""
    assert request.trained is not None, "it was compared"
    move = Move(
        capability=request.capability,
        version=request.trained.version,
        stage="shadow",
        reason=f"retrained, and better on the newest rows: {request.reason}"[:10_000],
        principal=PRINCIPAL,
        evidence={"retraining": request.id},
    )
    try:
        return begin(steering, move).id, ""
    except Misuse as error:
        return None, error.message


def _record(steering: Steering, request: Request) -> None:
    change = Change(
        action="retraining.ended",
        subject=f"{request.capability}/{request.id}",
        principal=PRINCIPAL,
        reason=request.why,
        details=msgspec.to_builtins(request),
    )
    record_change(steering.workspace.ledger, change)


def _here(request_id: str) -> tuple[Steering, Request]:
    if _serving.steering is None:
        raise Failed("this process runs no retraining")
    return _serving.steering, store.find(_serving.steering.database, request_id)


def _note(request: Request, **changes: Any) -> Request:
    steering = _serving.steering
    assert steering is not None, "the request was read with it"
    noted = msgspec.structs.replace(request, **changes)
    return store.change(steering.database, noted, write=steering.write)


def _frozen(request: Request) -> Frozen:
    assert request.frozen is not None, "it is frozen in the first step"
    return request.frozen
