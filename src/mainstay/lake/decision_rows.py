"""Decisions, outcomes and what shadows would have decided, as rows: of leaves, and of bodies while these are there.

Inputs, outputs, details and outcomes are JSON text, because each capability has its own. A business key is a digest
(HMAC-SHA256, 128 bits, hex), so that a table names nobody by it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec
import polars as pl

from mainstay.errors import NOT_READ
from mainstay.lake.lagging import instant

if TYPE_CHECKING:
    from mainstay.ledger.entry import Entry
    from mainstay.ledger.index_key import KeyDigests

DECISIONS: Final = "decisions/"
OUTCOMES: Final = "outcomes/"
SHADOWS: Final = "shadows/"
BATCHES: Final = "batches/"  # the tables of scheduled batches: a capability, and the batch's name
DAY: Final = "day"  # the partition of every table that grows by the day
INTAKE_DAY: Final = "mainstay_day"  # the same, of tables whose other columns a contract names

_INSTANT: Final = pl.Datetime("us", "UTC")
_LEAF: Final = {"sequence": pl.Int64(), "id": pl.String(), "at": _INSTANT, "capability": pl.String()}
DECISION_BODY: Final = {
    "key": pl.String(),
    "input": pl.String(),
    "output": pl.String(),
    "confidence": pl.Float64(),
    "novelty": pl.Float64(),
    "details": pl.String(),
    "seconds": pl.Float64(),  # from the call to the verdict; null for rows of batches, and before it was recorded
    "call_size": pl.Int64(),  # decisions that the same call asked for, where they were several
    # The row that was decided about in a batch, and where it stood; null for calls.
    "source_batch": pl.String(),
    "source_table": pl.String(),
    "source_item": pl.Int64(),
    "source_file": pl.String(),
    "source_row": pl.Int64(),
}
OUTCOME_BODY: Final = {
    "decision_id": pl.String(),
    "key": pl.String(),
    "outcome": pl.String(),
    "observed_at": _INSTANT,
}
SHADOW_BODY: Final = {
    "output": pl.String(),
    "confidence": pl.Float64(),
    "novelty": pl.Float64(),
    "details": pl.String(),
    "seconds": pl.Float64(),  # that the shadow took
}
_SHADOW_LEAF: Final = {
    "version": pl.String(),
    "release": pl.Int64(),
    "decision_id": pl.String(),
    "outcome": pl.String(),  # that the decision would have had
    "reasons": pl.List(pl.String()),
    "policy": pl.String(),
    "leaf_hash": pl.String(),
}
_DECISION_LEAF: Final = {
    "version": pl.String(),
    "release": pl.Int64(),
    "stage": pl.String(),
    "outcome": pl.String(),
    "reasons": pl.List(pl.String()),
    "policy": pl.String(),
}
_BOTH: Final = {"principal": pl.String(), "leaf_hash": pl.String()}
SCHEMAS: Final = {
    DECISIONS: pl.Schema({DAY: pl.Date(), **_LEAF, **_DECISION_LEAF, **_BOTH, **DECISION_BODY}),
    OUTCOMES: pl.Schema({DAY: pl.Date(), **_LEAF, **_BOTH, **OUTCOME_BODY}),
    SHADOWS: pl.Schema({DAY: pl.Date(), **_LEAF, **_SHADOW_LEAF, **SHADOW_BODY}),
}
BODIES: Final = {  # the columns that may be erased
    DECISIONS: tuple(DECISION_BODY),
    OUTCOMES: tuple(OUTCOME_BODY),
    SHADOWS: tuple(SHADOW_BODY),
}

BATCH_ID: Final = "mainstay_decision_id"
BATCH_AT: Final = "mainstay_at"  # of the record
BATCH_LEAF: Final = frozenset(  # the columns of a batch that erasure leaves: what stands in leaves, and the partition
    {BATCH_ID, BATCH_AT, INTAKE_DAY, "mainstay_outcome", "mainstay_version", "mainstay_leaf"}
)


class _Leaf(msgspec.Struct):
    kind: str
    id: str
    at: str
    capability: str | None = None
    version: str | None = None
    release: int | None = None
    stage: str | None = None
    outcome: str | None = None
    reasons: list[str] = []
    policy: str | None = None
    principal: str | None = None
    decision_id: str | None = None


class _Source(msgspec.Struct):
    batch: str | None = None
    table: str | None = None
    item: int | None = None
    file: str | None = None
    row: int | None = None


class _DecisionBody(msgspec.Struct):
    key: str | None = None
    input: msgspec.Raw = msgspec.Raw(b"null")
    output: msgspec.Raw = msgspec.Raw(b"null")
    confidence: float | None = None
    novelty: float | None = None
    details: msgspec.Raw = msgspec.Raw(b"null")
    seconds: float | None = None
    call_size: int | None = None
    source: _Source | None = None


class _OutcomeBody(msgspec.Struct):
    decision_id: str | None = None
    key: str | None = None
    outcome: msgspec.Raw = msgspec.Raw(b"null")
    observed_at: str | None = None


_leaf = msgspec.json.Decoder(_Leaf).decode
_decision_body = msgspec.json.Decoder(_DecisionBody).decode
_outcome_body = msgspec.json.Decoder(_OutcomeBody).decode
_NO_DECISION: Final = (None,) * len(DECISION_BODY)
_NO_OUTCOME: Final = (None,) * len(OUTCOME_BODY)
_NO_SHADOW: Final = (None,) * len(SHADOW_BODY)
_OURS: Final = (b'{"kind":"decision"', b'{"kind":"outcome"', b'{"kind":"shadow"')

_NO_SOURCE: Final = _Source()

_BETWEEN: Final = "\x1f"  # reasons, which are codes

_Row: TypeAlias = tuple[Any, ...]


class Rows:
    """Rows of one batch, by the table they go to."""

    def __init__(self, digests: KeyDigests) -> None:
        self._digest = digests.of
        self._rows: dict[tuple[str, str], list[_Row]] = {}
        self.unread = 0  # bodies that are not what Mainstay writes: their columns are null

    def add(self, sequence: int, entry: Entry, leaf_hash: str) -> None:
        """The row of an entry; none for a change, and for what Mainstay did not write."""
        if not entry.leaf.startswith(_OURS):
            return
        try:
            leaf = _leaf(entry.leaf)
        except NOT_READ:
            return
        if leaf.capability is None:
            return
        head = (sequence, leaf.id, leaf.at, leaf.capability)
        tail = (leaf.principal, leaf_hash)
        if leaf.kind == "decision":
            middle = (leaf.version, leaf.release, leaf.stage, leaf.outcome, _BETWEEN.join(leaf.reasons), leaf.policy)
            row = (*head, *middle, *tail, *self._decision(entry.body))
            self._rows.setdefault((DECISIONS, leaf.capability), []).append(row)
        elif leaf.kind == "outcome":
            row = (*head, *tail, *self._outcome(entry.body, leaf.at))
            self._rows.setdefault((OUTCOMES, leaf.capability), []).append(row)
        elif leaf.kind == "shadow":
            said = (leaf.decision_id, leaf.outcome, _BETWEEN.join(leaf.reasons), leaf.policy)
            row = (*head, leaf.version, leaf.release, *said, leaf_hash, *self._shadow(entry.body))
            self._rows.setdefault((SHADOWS, leaf.capability), []).append(row)

    def frames(self) -> dict[tuple[str, str], pl.DataFrame]:
        """What was added, by kind of table and capability, in the order of the log."""
        return {place: _frame(place[0], rows) for place, rows in self._rows.items()}

    def _decision(self, content: bytes) -> _Row:
        if not content:
            return _NO_DECISION
        try:
            body = _decision_body(content)
            source = body.source or _NO_SOURCE
            return (
                None if body.key is None else self._digest(body.key).hex(),
                _text(body.input),
                _text(body.output),
                body.confidence,
                body.novelty,
                _text(body.details),
                body.seconds,
                body.call_size,
                source.batch,
                source.table,
                source.item,
                source.file,
                source.row,
            )
        except NOT_READ:
            self.unread += 1
            return _NO_DECISION

    def _shadow(self, content: bytes) -> _Row:
        if not content:
            return _NO_SHADOW
        try:
            body = _decision_body(content)
            return (_text(body.output), body.confidence, body.novelty, _text(body.details), body.seconds)
        except NOT_READ:
            self.unread += 1
            return _NO_SHADOW

    def _outcome(self, content: bytes, at: str) -> _Row:
        if not content:
            return _NO_OUTCOME
        try:
            body = _outcome_body(content)
            return (
                None if body.decision_id is None else body.decision_id.lower(),
                None if body.key is None else self._digest(body.key).hex(),
                _text(body.outcome),
                instant(body.observed_at or at) or instant(at),
            )
        except NOT_READ:
            self.unread += 1
            return _NO_OUTCOME


def _text(value: msgspec.Raw) -> str | None:
    content = bytes(value)
    return None if content == b"null" else content.decode()


def _frame(kind: str, rows: list[_Row]) -> pl.DataFrame:
    """The rows as a table has them; instants and reasons come as text, which is made columns of much faster."""
    names = [name for name in SCHEMAS[kind] if name != DAY]
    texts = {"at", "reasons"}
    columns = [
        pl.Series(name, values, pl.String() if name in texts else SCHEMAS[kind][name], strict=False)
        for name, values in zip(names, zip(*rows, strict=True), strict=True)
    ]
    at = pl.col("at").str.to_datetime("%Y-%m-%dT%H:%M:%S%.fZ", time_unit="us", strict=False).dt.replace_time_zone("UTC")
    frame = pl.DataFrame(columns).with_columns(at).with_columns(pl.col("at").dt.date().alias(DAY))
    if kind == OUTCOMES:
        return frame
    none = pl.lit([], dtype=pl.List(pl.String))
    reasons = pl.when(pl.col("reasons") == "").then(none).otherwise(pl.col("reasons").str.split(_BETWEEN))
    return frame.with_columns(reasons.alias("reasons"))
