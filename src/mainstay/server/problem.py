"""Problem details for HTTP APIs (RFC 9457)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from mainstay.decision.types import REASONS

if TYPE_CHECKING:
    from mainstay.decision.types import Reason

TYPE_PREFIX = "urn:mainstay:problem:"
MEDIA_TYPE = "application/problem+json"

_encode = msgspec.json.Encoder().encode


def problem(status: int, name: str, title: str, detail: str, **members: Any) -> bytes:
    """A problem document. `name` is the last part of its type and never changes meaning."""
    return _encode({"type": TYPE_PREFIX + name, "title": title, "status": status, "detail": detail, **members})


def refusal(reason: Reason, decision: bytes) -> tuple[int, bytes]:
    """The status and document of a refused decision: the decision itself, with the members of a problem before it."""
    status, title = REASONS[reason.code]
    head = problem(status, reason.code.replace("_", "-"), title, reason.detail)
    return status, head[:-1] + b"," + decision[1:]
