"""What is recorded of a decision, what a replay gave, and how the two compare: field by field."""

from __future__ import annotations

from math import isclose
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec
from msgspec import Struct

from mainstay.decision.record import NULL, Verdict
from mainstay.decision.types import Outcome, Stage  # noqa: TC001 - msgspec reads the annotations
from mainstay.errors import NOT_READ, Damaged
from mainstay.ledger.entry import Entry  # noqa: TC001 - beside the types that msgspec reads

TOLERANCE = 1e-6  # of a number, relative: rows that run together may be summed in another order than one alone

UnknownCode: TypeAlias = Literal[
    "erased",  # the body was destroyed: there is no input to replay
    "archived",  # the entry has left this ledger with an archive
    "input_hidden",  # the record holds something else than what the model was given: masked, dropped, a pseudonym
    "input_withheld",  # the record holds only a digest of the input
    "output_hidden",  # what is recorded agrees, but of the output not everything is recorded
    "version_unavailable",  # the version, its release or what it needs to run is not here, or not what it was
    "remote_model",  # the model runs elsewhere, and may not be the one that answered then
    "model_not_run",  # the model had not answered then, and there is no fallback's answer to compare
    "not_kept",  # the fallback was the last good answer of that moment
    "replay_failed",  # the model did not answer now
]


class Unknown(NamedTuple):
    """Why it is not known whether a decision is the same."""

    code: UnknownCode
    detail: str


class Recorded(Struct, frozen=True, kw_only=True):
    """How a decision ended, as far as it can be compared. Codes stand for reasons: their words may hold a time."""

    outcome: Outcome
    output: Any = None
    confidence: float | None = None
    novelty: float | None = None
    reasons: tuple[str, ...] = ()
    violations: tuple[str, ...] = ()
    answered_by: str | None = None
    proposed: Any = None


class Difference(Struct, frozen=True):
    """One field that is not the same."""

    field: str
    recorded: Any
    replayed: Any


class Replayed(Struct, frozen=True, kw_only=True):
    """One decision, again."""

    id: str
    capability: str
    version: str
    release: int
    stage: Stage
    recorded_at: str
    verdict: Literal["same", "different", "unknown"]
    unknown: UnknownCode | None = None  # why the verdict is unknown
    detail: str = ""
    recorded: Recorded
    replayed: Recorded | None = None  # None: nothing was run
    differences: tuple[Difference, ...] = ()
    exact: bool | None = None  # whether what is the same is so to the last digit


class Leaf(Struct, frozen=True):
    """The leaf of a decision, as far as a replay needs it."""

    kind: Literal["decision"]
    id: str
    at: str
    capability: str
    version: str
    release: int
    stage: Stage
    outcome: Outcome
    reasons: tuple[str, ...] = ()


class _Coded(Struct):
    code: str


class _Broken(Struct):
    field: str
    rule: str


class Details(Struct):
    """Why a decision ended so."""

    reasons: tuple[_Coded, ...] = ()
    violations: tuple[_Broken, ...] = ()
    answered_by: str | None = None
    proposed: Any = None


class Body(Struct):
    """The body of a decision."""

    principal: str
    input: msgspec.Raw
    key: str | None = None
    output: Any = None
    confidence: float | None = None
    novelty: float | None = None
    details: Details | None = None


_leaf = msgspec.json.Decoder(Leaf).decode
_body = msgspec.json.Decoder(Body).decode


def read_decision(entry: Entry) -> tuple[Leaf, Body | None] | None:
    """A recorded decision, its body None when it was erased; None when the entry is no decision.

    Raises Damaged when its body is not what Mainstay records.
    """
    try:
        leaf = _leaf(entry.leaf)
    except NOT_READ:
        return None
    if not entry.body:
        return leaf, None
    try:
        return leaf, _body(entry.body)
    except NOT_READ as error:
        raise Damaged(f"{leaf.id}: expected the body of a decision, found another: {error}") from None


def recorded_of(leaf: Leaf, body: Body | None) -> Recorded:
    """How a decision ended, from its record."""
    if body is None:
        return Recorded(outcome=leaf.outcome, reasons=leaf.reasons)
    details = body.details or Details()
    return Recorded(
        outcome=leaf.outcome,
        output=body.output,
        confidence=body.confidence,
        novelty=body.novelty,
        reasons=leaf.reasons,
        violations=tuple(f"{each.field} ({each.rule})" for each in details.violations),
        answered_by=details.answered_by,
        proposed=details.proposed,
    )


def recorded_from(verdict: Verdict) -> Recorded:
    """How a decision ended, from what would have been recorded of it."""
    decode = msgspec.json.decode
    output = verdict.output if verdict.recorded is None else verdict.recorded
    return Recorded(
        outcome=verdict.outcome,
        output=decode(output),
        confidence=decode(verdict.confidence),
        novelty=decode(verdict.novelty),
        reasons=tuple(reason.code for reason in verdict.reasons),
        violations=tuple(f"{each.field} ({each.rule})" for each in verdict.violations),
        answered_by=verdict.answered_by or None,
        proposed=decode(NULL if verdict.proposed is None else verdict.proposed),
    )


def differences(recorded: Recorded, replayed: Recorded) -> tuple[Difference, ...]:
    """Every field that is not the same, numbers within TOLERANCE."""
    found: list[Difference] = []
    for name in Recorded.__struct_fields__:
        _compare(name, getattr(recorded, name), getattr(replayed, name), found)
    return tuple(found)


def _compare(name: str, recorded: Any, replayed: Any, found: list[Difference]) -> None:
    if isinstance(recorded, dict) and isinstance(replayed, dict):
        for key in (*recorded, *(key for key in replayed if key not in recorded)):
            _compare(f"{name}.{key}", recorded.get(key), replayed.get(key), found)
    elif isinstance(recorded, list) and isinstance(replayed, list) and len(recorded) == len(replayed):
        for place, (one, other) in enumerate(zip(recorded, replayed, strict=True)):
            _compare(f"{name}[{place}]", one, other, found)
    elif not _same(recorded, replayed):
        found.append(Difference(name, recorded, replayed))


def _same(recorded: Any, replayed: Any) -> bool:
    if isinstance(recorded, bool) or isinstance(replayed, bool):
        return recorded is replayed
    if isinstance(recorded, int | float) and isinstance(replayed, int | float):
        return isclose(recorded, replayed, rel_tol=TOLERANCE, abs_tol=TOLERANCE * 1e-6)
    return bool(recorded == replayed)
