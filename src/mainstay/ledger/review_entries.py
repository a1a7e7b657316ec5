"""What the ledger says of reviews: decisions that wait for a person, and what people decided about them."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec

from mainstay.errors import NOT_READ
from mainstay.ledger.entry import Entry  # noqa: TC001 - beside the types that msgspec reads

RESOLVED = "review.resolved"  # the action of a change; its subject is the id of the decision
RESOLVED_MARK = b'"action":"review.resolved"'  # what the leaf of a resolution holds

ReviewVerdict: TypeAlias = Literal["accepted", "changed", "rejected"]


class ReviewReason(msgspec.Struct, frozen=True):
    """Why a decision waits for a person."""

    code: str
    detail: str = ""  # erased with the body


class WaitingReview(NamedTuple):
    """A decision that waits for a person, as a list shows it."""

    id: str
    capability: str
    at: str  # when it was recorded: RFC 3339, UTC
    key: str | None  # the caller's business key
    policy: str | None  # the digest of the authority in force
    reasons: tuple[ReviewReason, ...]


class Resolution(msgspec.Struct, frozen=True, kw_only=True):
    """What a person decided. `output` is as it may be recorded."""

    id: str  # of its entry
    at: str
    principal: str
    verdict: ReviewVerdict | None  # None, as the next ones, once the body was erased
    output: Any
    reason: str | None
    revises: str | None  # the entry of the resolution that this one replaces; None for the first


class _Reasons(msgspec.Struct):
    reasons: tuple[ReviewReason, ...] = ()


class _DecisionBody(msgspec.Struct):
    key: str | None = None
    details: _Reasons | None = None


class _DecisionLeaf(msgspec.Struct):
    kind: Literal["decision"]
    id: str
    at: str
    capability: str
    outcome: Literal["review"]
    reasons: tuple[str, ...] = ()
    policy: str | None = None


class _ResolutionLeaf(msgspec.Struct):
    kind: Literal["change"]
    id: str
    at: str
    action: Literal["review.resolved"]
    subject: str
    principal: str


class _Concerned(msgspec.Struct):
    capability: str


class _ConcernedBody(msgspec.Struct):
    details: _Concerned


class _Details(msgspec.Struct):
    verdict: ReviewVerdict
    output: Any
    revises: str | None


class _ResolutionBody(msgspec.Struct):
    reason: str
    details: _Details


_decision_leaf = msgspec.json.Decoder(_DecisionLeaf).decode
_decision_body = msgspec.json.Decoder(_DecisionBody).decode
_resolution_leaf = msgspec.json.Decoder(_ResolutionLeaf).decode
_resolution_body = msgspec.json.Decoder(_ResolutionBody).decode

_concerned_body = msgspec.json.Decoder(_ConcernedBody).decode


def read_waiting(entry: Entry) -> WaitingReview | None:
    """A decision that waited for a person when it was recorded; None when the entry is no such decision."""
    try:
        leaf = _decision_leaf(entry.leaf)
    except NOT_READ:
        return None
    try:
        body = _decision_body(entry.body)
    except NOT_READ:  # erased
        body = _DecisionBody()
    reasons = tuple(map(ReviewReason, leaf.reasons)) if body.details is None else body.details.reasons
    return WaitingReview(leaf.id, leaf.capability, leaf.at, body.key, leaf.policy, reasons)


def read_resolution(entry: Entry) -> tuple[str, Resolution] | None:
    """The id of the decision that was resolved, and how; None when the entry is no resolution."""
    try:
        leaf = _resolution_leaf(entry.leaf)
    except NOT_READ:
        return None
    verdict, output, reason, revises = None, None, None, None
    try:
        body = _resolution_body(entry.body)
        verdict, output, reason, revises = body.details.verdict, body.details.output, body.reason, body.details.revises
    except NOT_READ:  # erased
        pass
    resolution = Resolution(
        id=leaf.id,
        at=leaf.at,
        principal=leaf.principal,
        verdict=verdict,
        output=output,
        reason=reason,
        revises=revises,
    )
    return leaf.subject, resolution


def capability_of_resolution(body: bytes) -> str | None:
    """Whose decision was resolved; None when the body was erased."""
    try:
        return _concerned_body(body).details.capability
    except NOT_READ:
        return None
