"""The words of a decision: its outcomes, its reasons, and what crosses the wire."""

from __future__ import annotations

from typing import Literal, NamedTuple

from msgspec import Raw, Struct

Outcome = Literal["answered", "fallback", "review", "refused"]

Stage = Literal["production", "canary"]

Behaviour = Literal["answer", "fallback", "review", "refuse"]

ReasonCode = Literal[
    "malformed_input",  # the call is not JSON of the documented form
    "contract_violation",  # the input breaks the contract; every broken rule is listed
    "protection_failed",  # what may be recorded of the input could not be made
    "out_of_distribution",  # the input is unlike what the model was registered with
    "low_confidence",  # the model's calibrated confidence is below what is declared
    "deadline_exceeded",  # the model had not answered in its time
    "model_error",  # the model failed on this input
    "model_crashed",  # the model's process ended, or was ended, while it had this input
    "model_unavailable",  # the model is not tried: it failed too often, is starting, or cannot be reached
    "output_invalid",  # the model's output breaks the contract
    "outside_authority",  # the capability may not decide this without a person; the policy is named
    "overloaded",  # more decisions wait than the model can take in time
    "feed_stopped",  # what the capability lives on is stopped at the door: too many bad rows, or another schema
    "stopped",  # the capability itself is stopped, by a person or by its rollout
    "no_fallback",  # the ladder was climbed and no rung had an answer
]

REASONS: dict[ReasonCode, tuple[int, str]] = {
    "malformed_input": (400, "The call is not of the documented form"),
    "contract_violation": (422, "The input breaks the contract"),
    "protection_failed": (422, "The input could not be protected"),
    "out_of_distribution": (422, "The input is unlike what the model knows"),
    "low_confidence": (422, "The model is not sure enough"),
    "deadline_exceeded": (504, "The model did not answer within the deadline"),
    "model_error": (502, "The model failed on this input"),
    "model_crashed": (502, "The model's process ended on this input"),
    "model_unavailable": (503, "The model is not available"),
    "output_invalid": (502, "The model's output breaks the contract"),
    "outside_authority": (403, "This decision is outside the capability's authority"),
    "overloaded": (429, "Too many decisions wait"),
    "feed_stopped": (503, "The feed behind this capability is stopped"),
    "stopped": (503, "This capability is stopped"),
    "no_fallback": (502, "No fallback had an answer"),
}
"""For every reason: the HTTP status of a single decision refused for it, and the title of the problem."""


class Reason(Struct, frozen=True):
    """Why a decision ended as it did."""

    code: ReasonCode
    detail: str


class Hold(NamedTuple):
    """Why the model of a capability is not asked."""

    code: Literal["feed_stopped", "stopped"]
    detail: str


class DecideRequest(Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """A call for one decision. The input stays raw: it is recorded as it came."""

    input: Raw
    key: str | None = None  # the caller's business key, by which the outcome may be reported
    deadline_ms: float | None = None


class DecideManyRequest(Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """A call for many decisions: an array, of which each item is checked on its own."""

    inputs: Raw


MAX_KEY_CHARACTERS = 512
MAX_CALLS = 10_000  # for decisions in one batch; `arrays.MAX_ITEMS` at most
