"""What the index takes from each entry of the log: rows, put together for one transaction.

An erased body leaves a decision that is counted and has neither key nor output, and of a reported outcome its count.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from mainstay.errors import NOT_READ
from mainstay.ledger.entry import read_id
from mainstay.ledger.erasure_entries import ARCHIVED, COMPLETED, REQUESTED, read_departed, read_receipt, read_request
from mainstay.ledger.review_entries import RESOLVED, capability_of_resolution, read_waiting
from mainstay.ledger.tiles import WIDTH

if TYPE_CHECKING:
    from mainstay.ledger.entry import Entry
    from mainstay.ledger.erasure_entries import Departed, Receipt, Request
    from mainstay.ledger.index_key import KeyDigests


class DecisionRow(NamedTuple):
    """A decision as far as monitoring needs it. None stands for what its record left out, or was erased."""

    sequence: int
    id: str
    capability: str
    version: str | None
    at: str
    outcome: str | None
    key: bytes | None  # the digest of the business key
    output: bytes | None  # JSON


class OutcomeRow(NamedTuple):
    """A reported label. Exactly one of `decision_id` and `key` is used to join it: the id when there is one."""

    sequence: int
    capability: str
    at: str  # when it was recorded
    decision_id: str | None
    key: bytes | None  # the digest of the business key
    observed_at: str  # as reported, or when it was recorded
    observed_us: int  # the same, microseconds since 1970
    outcome: bytes  # JSON


class WaitingRow(NamedTuple):
    """Where a decision that waits for a person stands; the rest is read from the log."""

    sequence: int
    id: str
    capability: str
    at: str


class ShadowRow(NamedTuple):
    """Where it stands what a shadow would have decided; the rest is read from the log."""

    sequence: int
    decision_id: str


class _Leaf(msgspec.Struct):
    kind: str
    id: str
    at: str
    capability: str | None = None
    version: str | None = None
    outcome: str | None = None
    reasons: list[str] = []
    decision_id: str | None = None  # of a shadow
    action: str | None = None  # of a change, as is the next
    subject: str | None = None


class _DecisionBody(msgspec.Struct):
    key: str | None = None
    output: msgspec.Raw = msgspec.Raw(b"null")


class _OutcomeBody(msgspec.Struct):
    decision_id: str | None = None
    key: str | None = None
    outcome: msgspec.Raw = msgspec.Raw(b"null")
    observed_at: str | None = None


_leaf = msgspec.json.Decoder(_Leaf).decode
_decision_body = msgspec.json.Decoder(_DecisionBody).decode
_outcome_body = msgspec.json.Decoder(_OutcomeBody).decode


class Chunk:
    """Rows to be stored together."""

    def __init__(self, digests: KeyDigests) -> None:
        self._digest = digests.of
        self.runs: list[list[str | int]] = []  # segment, first counter, first sequence, entries
        self.decisions: list[DecisionRow] = []
        self.outcomes: list[OutcomeRow] = []
        self.shadows: list[ShadowRow] = []
        self.waiting: list[WaitingRow] = []
        self.resolutions: list[tuple[int, str]] = []
        self.counters: Counter[tuple[str, str, str]] = Counter()
        self.kept: dict[tuple[str, int], str] = {}  # by capability and bundle: when its oldest body was recorded
        self.requests: list[Request] = []
        self.receipts: list[Receipt] = []
        self.departed: list[Departed] = []
        self._next: tuple[str, int] | None = None

    def add(self, sequence: int, entry: Entry) -> None:
        """Index one entry. One that Mainstay did not write has its place in the log and nothing to be found by."""
        found = read_id(entry.leaf)
        if found is None:
            self._next = None
            return
        if self._next == found[:2]:
            self.runs[-1][3] += 1  # type: ignore[operator] # the fourth of each is a number
        else:
            self.runs.append([found.segment, found.counter, sequence, 1])
        self._next = (found.segment, found.counter + 1)
        try:
            leaf = _leaf(entry.leaf)
            if leaf.capability is not None and leaf.kind == "decision":
                self._add_decision(sequence, leaf, leaf.capability, entry)
            elif leaf.capability is not None and leaf.kind == "outcome":
                self._add_outcome(sequence, leaf, leaf.capability, entry.body)
            elif leaf.capability is not None and leaf.kind == "shadow":
                self._add_shadow(sequence, leaf, leaf.capability, entry.body)
            elif leaf.kind == "change":
                self._add_change(sequence, leaf, entry)
        except NOT_READ:
            return

    def _add_decision(self, sequence: int, leaf: _Leaf, capability: str, entry: Entry) -> None:
        key = output = None
        if entry.body:
            body = _decision_body(entry.body)
            key = None if body.key is None else self._digest(body.key)
            output = None if body.output == b"null" else bytes(body.output)
            self._keep(capability, sequence, leaf.at)
        self.decisions.append(
            DecisionRow(sequence, leaf.id, capability, leaf.version, leaf.at, leaf.outcome, key, output)
        )
        self.counters[capability, "decision", leaf.outcome or ""] += 1
        for code in leaf.reasons:
            self.counters[capability, "reason", code] += 1
        if leaf.outcome == "review" and read_waiting(entry) is not None:
            self.waiting.append(WaitingRow(sequence, leaf.id, capability, leaf.at))

    def _add_outcome(self, sequence: int, leaf: _Leaf, capability: str, content: bytes) -> None:
        if not content:
            self.counters[capability, "outcome", ""] += 1
            return
        body = _outcome_body(content)
        observed = body.observed_at or leaf.at
        microseconds = _microseconds(observed)
        if microseconds is None:  # not a time: then when it was recorded
            observed, microseconds = leaf.at, _microseconds(leaf.at) or 0
        decision_id = None if body.decision_id is None else body.decision_id.lower()
        key = None if body.key is None else self._digest(body.key)
        self.outcomes.append(
            OutcomeRow(sequence, capability, leaf.at, decision_id, key, observed, microseconds, bytes(body.outcome))
        )
        self.counters[capability, "outcome", ""] += 1
        self._keep(capability, sequence, leaf.at)

    def _add_shadow(self, sequence: int, leaf: _Leaf, capability: str, content: bytes) -> None:
        if leaf.decision_id is not None:
            self.shadows.append(ShadowRow(sequence, leaf.decision_id))
        if content:
            self._keep(capability, sequence, leaf.at)

    def _add_change(self, sequence: int, leaf: _Leaf, entry: Entry) -> None:
        if leaf.action == RESOLVED and leaf.subject is not None:
            self.resolutions.append((sequence, leaf.subject))
            capability = capability_of_resolution(entry.body)
            if capability is not None:
                self._keep(capability, sequence, leaf.at)
        elif leaf.action == REQUESTED and (request := read_request(entry, sequence)) is not None:
            self.requests.append(request)
        elif leaf.action == COMPLETED and (receipt := read_receipt(entry, sequence)) is not None:
            self.receipts.append(receipt)
        elif leaf.action == ARCHIVED and (departed := read_departed(entry, sequence)) is not None:
            self.departed.append(departed)

    def _keep(self, capability: str, sequence: int, at: str) -> None:
        place = (capability, sequence // WIDTH)
        oldest = self.kept.get(place)
        if oldest is None or at < oldest:
            self.kept[place] = at


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _microseconds(text: str) -> int | None:
    """RFC 3339 as microseconds since 1970; without an offset it is UTC. None when it is no time."""
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        return None
    if instant.tzinfo is None:
        instant = instant.replace(tzinfo=UTC)
    since = instant - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
