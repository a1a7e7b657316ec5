"""What can go wrong when a decision is asked for.

MainstayError
├── CallRefused          the service said no (4xx), or recorded a refusal: a late or failing model without a fallback
├── Unavailable          no answer now (429, 503, no connection, too slow): asking again later may help
└── Failed
    └── BadAnswer        something answered, but not as the service does
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mainstay.errors import Failed, MainstayError

if TYPE_CHECKING:
    from mainstay.client.types import Reason, Receipt, Violation

SHOWN_VIOLATIONS = 20
SHOWN_CHARACTERS = 80  # of a value found


class CallRefused(MainstayError):
    """The service understood and said no. `violations` holds every one, not only those the message shows.

    `decision_id` and `receipt` are set when the refusal itself was recorded as a decision; `reasons` then says why.
    """

    def __init__(
        self,
        *,
        status: int,
        title: str,
        detail: str = "",
        violations: tuple[Violation, ...] = (),
        reasons: tuple[Reason, ...] = (),
        decision_id: str | None = None,
        receipt: Receipt | None = None,
    ) -> None:
        self.status = status
        self.title = title
        self.detail = detail
        self.violations = violations
        self.reasons = reasons
        self.decision_id = decision_id
        self.receipt = receipt
        summary = f"{title}: {detail}" if detail else title
        lines = [f"  {_line(violation)}" for violation in violations[:SHOWN_VIOLATIONS]]
        if len(violations) > SHOWN_VIOLATIONS:
            lines.append(f"  and {len(violations) - SHOWN_VIOLATIONS} more")
        super().__init__("\n".join([f"refused ({status}): {summary}", *lines]))


class Unavailable(MainstayError):
    """No answer now. `retry_after_seconds` is what the service asked for, None when it did not say.

    `may_repeat` is true when a repetition was safe to try: the service said so (429, 503), or the connection failed.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retry_after_seconds: float | None = None,
        may_repeat: bool = False,
    ) -> None:
        self.status = status
        self.retry_after_seconds = retry_after_seconds
        self.may_repeat = may_repeat
        super().__init__(message)


class BadAnswer(Failed):
    """Something answered, but not as the service does: a proxy's page, another program, a fault."""

    def __init__(self, message: str, *, status: int) -> None:
        self.status = status
        super().__init__(message)


def _line(violation: Violation) -> str:
    found = repr(violation.found)
    if len(found) > SHOWN_CHARACTERS:
        found = f"{found[:SHOWN_CHARACTERS]}..."
    return f"{violation.field}: {violation.rule}: expected {violation.expected}, found {found}"
