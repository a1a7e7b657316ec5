"""The words of a decision: its outcomes, its reasons, and what crosses the wire."""

from __future__ import annotations

from typing import Literal

from msgspec import Raw, Struct

Outcome = Literal["answered", "fallback", "review", "refused"]

ReasonCode = Literal[
    "malformed_input",  # the call is not JSON of the documented form
    "contract_violation",  # the input breaks the contract; every broken rule is listed
    "deadline_exceeded",  # the model had not answered when the deadline came
    "model_error",  # the model failed on this input
    "output_invalid",  # the model's output breaks the contract
]

REASONS: dict[ReasonCode, tuple[int, str]] = {
    "malformed_input": (400, "The call is not of the documented form"),
    "contract_violation": (422, "The input breaks the contract"),
    "deadline_exceeded": (504, "The model did not answer within the deadline"),
    "model_error": (502, "The model failed on this input"),
    "output_invalid": (502, "The model's output breaks the contract"),
}
"""For every reason: the HTTP status of a single decision refused for it, and the title of the problem."""


class Reason(Struct, frozen=True):
    """Why a decision ended as it did."""

    code: ReasonCode
    detail: str


class DecideRequest(Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """A call for one decision. The input stays raw: it is recorded as it came."""

    input: Raw
    key: str | None = None  # the caller's business key, by which the outcome may be reported
    deadline_ms: float | None = None


class DecideManyRequest(Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """A call for many decisions; each item is checked on its own."""

    inputs: list[Raw]


MAX_KEY_CHARACTERS = 512
