"""Holding an answer that somebody kept against what a proof shows.

An answer carries a receipt: the hash of the leaf, the log and the time it was recorded at. Whoever kept the answer can
later see that the proof is of this very decision, and that nothing else in the answer says otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from mainstay.errors import NOT_READ, Damaged, Misuse
from mainstay.ledger.entry import leaf_hash

if TYPE_CHECKING:
    from mainstay.ledger.proof import Proven

MAX_ANSWER_BYTES = 32 << 20
_MAX_SHOWN = 200  # characters of a value in a message

# What an answer says of a decision that its leaf says too.
_IN_LEAF = ("capability", "version", "release", "stage", "outcome")


class _Receipt(msgspec.Struct):
    leaf: str
    log: str
    recorded_at: str


class _Reason(msgspec.Struct):
    code: str


class _Answer(msgspec.Struct):
    receipt: _Receipt
    decision_id: str | None = None
    capability: str | None = None
    version: str | None = None
    release: int | None = None
    stage: str | None = None
    outcome: str | None = None
    reasons: list[_Reason] | None = None
    output: Any = None


def hold_receipt(content: bytes, proven: Proven) -> Literal["same", "other", "unknown"]:
    """Hold an answer, or a receipt alone, as JSON, against a proof; whether its output is the recorded one.

    The output is "other" when the body in the proof holds another, as it does where what is recorded is protected, and
    "unknown" when the proof holds no body or the answer no output. Raises Misuse when `content` is no answer with a
    receipt, Damaged naming everything in which it and the entry differ.
    """
    answer = _read_answer(content)
    leaf = _read_object(proven.leaf)
    pairs: list[tuple[str, Any, Any]] = [
        ("receipt.leaf", leaf_hash(proven.leaf).hex(), answer.receipt.leaf),
        ("receipt.log", proven.checkpoint.origin, answer.receipt.log),
        ("receipt.recorded_at", leaf.get("at"), answer.receipt.recorded_at),
    ]
    said = [("decision_id", leaf.get("id")), *((name, leaf.get(name)) for name in _IN_LEAF)]
    pairs += [(name, value, getattr(answer, name)) for name, value in said if getattr(answer, name) is not None]
    if answer.reasons is not None:
        pairs.append(("reasons", leaf.get("reasons"), [reason.code for reason in answer.reasons]))
    differences = [
        f"{name}: the log says {_shown(proved)}, the answer {_shown(found)}"
        for name, proved, found in pairs
        if proved != found
    ]
    if differences:
        raise Damaged("the answer is not of this entry: " + "; ".join(differences))
    if proven.body is None or answer.output is None:
        return "unknown"
    return "same" if _read_object(proven.body.content).get("output") == answer.output else "other"


def _read_answer(content: bytes) -> _Answer:
    try:
        return msgspec.json.decode(content, type=_Answer)
    except NOT_READ as error:
        reason = str(error)
    try:
        return _Answer(msgspec.json.decode(content, type=_Receipt))
    except NOT_READ:
        raise Misuse(f"expected the JSON of an answer with its receipt, found an error: {reason}") from None


def _read_object(content: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(content, type=dict[str, Any])
    except NOT_READ:
        return {}


def _shown(value: Any) -> str:
    return ascii(value)[:_MAX_SHOWN]
