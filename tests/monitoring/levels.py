"""A capability that declares every service level, and counts to hold against them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec

from mainstay.capability.types import Capability
from mainstay.monitoring.prometheus_types import Subject
from mainstay.monitoring.service_budget import ServiceStep
from mainstay.monitoring.service_counts import ServiceCounts
from mainstay.server.metrics import BOUNDS_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterable

NOW: Final = datetime(2026, 3, 29, 12, tzinfo=UTC)
LEVELS: Final[dict[str, Any]] = {
    "availability": 0.999,
    "model_answers": 0.98,
    "latency_ms": 200,
    "review_share": 0.05,
    "cost_per_decision": 0.5,
}
_SOURCE: Final = {
    "name": "orders",
    "push": {},
    "expected_within_seconds": 7_200,
    "max_bad_share": 0.1,
    "bad_share_rows": 1_000,
}


def declared(**changes: Any) -> Capability:
    """The capability `desk`, with some of its declaration changed."""
    document = {
        "apiVersion": "mainstay/v1",
        "name": "desk",
        "title": "What is it worth?",
        "purpose": "To be watched.",
        "owner": {"team": "The desk", "contact": "desk@example.com"},
        "objects": {"input": "request", "output": "answer"},
        "model": {"kind": "onnx", "file": "model.onnx"},
        "samples": "samples.jsonl",
        "service_levels": LEVELS,
        "cost": {"currency": "EUR", "per_decision": 0.01, "per_second": 0.1, "per_review": 4},
        "sources": [_SOURCE],
        **changes,
    }
    return msgspec.convert(document, Capability)


def subject(**changes: Any) -> Subject:
    return Subject(capability=declared(**changes), bounds=BOUNDS_SECONDS, runbook="runbook.md")


def counted(calls: dict[str, int] | int, **more: Any) -> ServiceCounts:
    """Counts by outcome and first reason, as in `answered` or `refused/model_error`; a number is of answered ones."""
    found = {"answered": calls} if isinstance(calls, int) else calls
    split = {"\t".join((*key.split("/"), "")[:2]): number for key, number in found.items() if number}
    return ServiceCounts(calls=split, **more)


def hours(counts: Iterable[ServiceCounts], until: datetime = NOW) -> list[ServiceStep]:
    """Steps of an hour, the last of which ends at `until`."""
    known = list(counts)
    begin = until - timedelta(hours=len(known))
    return [ServiceStep(begin + timedelta(hours=number), each) for number, each in enumerate(known)]
