"""What is sent and what comes back, as frozen types. Members of an answer that are not named here are passed over."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 -- msgspec reads field types at run time
from typing import Any, Literal

from msgspec import Struct


class Reason(Struct, frozen=True):
    """Why a decision came out as it did. Codes are a documented, closed list."""

    code: str
    detail: str = ""


class Receipt(Struct, frozen=True, kw_only=True):
    """What to keep as proof: the hash of the decision's leaf, the log it stands in, and when it was recorded."""

    leaf: str
    log: str
    recorded_at: str  # RFC 3339


class Violation(Struct, frozen=True, kw_only=True):
    """A rule of the contract the input broke."""

    field: str
    rule: str
    expected: Any = None
    found: Any = None


class Decision(Struct, frozen=True, kw_only=True):
    """An answered call. `violations` is empty except for an input of a batch that was refused."""

    decision_id: str
    outcome: Literal["answered", "fallback", "review", "refused"]
    capability: str | None = None
    version: str | None = None
    release: int | None = None
    stage: str | None = None
    output: dict[str, Any] | None = None  # None when a person decides, or when the input was refused
    confidence: float | None = None  # None when the model gives none
    reasons: tuple[Reason, ...] = ()
    receipt: Receipt | None = None
    violations: tuple[Violation, ...] = ()


class Item(Struct, frozen=True):
    """One of many to decide. `key` is the business key that outcomes may be reported under."""

    input: dict[str, Any]
    key: str | None = None


class Outcome(Struct, frozen=True, kw_only=True):
    """What became true, for one decision named either by its id or by its business key."""

    outcome: dict[str, Any]
    observed_at: datetime  # with its offset from UTC
    decision_id: str | None = None
    key: str | None = None


class Recorded(Struct, frozen=True, kw_only=True):
    """How many outcomes are durably recorded, and the receipt of each, in order."""

    recorded: int
    receipts: tuple[Receipt, ...] = ()
