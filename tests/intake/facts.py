"""Facts of parts, as the door tells them to its judges, made by hand."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from mainstay.intake.landing import Item
from mainstay.intake.types import PartFacts

ARRIVED = datetime(2026, 3, 4, 5, 6, tzinfo=UTC)


def part(item: int = 1, *, rows: int = 1, bad: tuple[int, ...] = (), first_row: int = 1, **said: Any) -> PartFacts:
    """A part of an item, of which nothing else is known than what is said."""
    kind = said.pop("kind", "csv")
    landed = Item(number=item, kind=kind, origin="by hand", arrived_at=ARRIVED, bytes=rows)
    facts: dict[str, Any] = {
        "contract": "orders@1.0.0",
        "last": True,
        "columns": {},
        "unknown": (),
        "missing": (),
        "accepted": rows - len(bad),
        "coerced": 0,
        "quarantined": len(bad),
        "late": 0,
        "repeated": 0,
        "broken": (),
        "newest_event_at": None,
        "watermark": None,
    }
    return PartFacts(item=landed, first_row=first_row, rows=rows, bad=bad, **(facts | said))
