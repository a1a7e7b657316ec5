"""A workspace whose capability leaves decisions to people, recorded as the decision path records them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec

import tiny
from mainstay.cli.init import create_workspace
from mainstay.decision.record import DecisionRecorder, Served, Stamp, Took, Verdict
from mainstay.decision.types import Reason
from mainstay.ledger.entry import parse_id
from mainstay.ledger.index import Index
from mainstay.ledger.journal import Place
from mainstay.ledger.log import Log
from mainstay.ledger.reviews import ReviewQueue
from mainstay.ledger.sealer import Sealer
from mainstay.ledger.wal import Segment
from mainstay.signing import load_signing_key

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.decision.types import Outcome

UNSURE = Reason("low_confidence", "expected at least 0.8, found 0.612")
OUTSIDE = Reason("outside_authority", "no-large-delays: a delay of hours is decided by a person")
PROPOSED = {"probability": 0.7, "yes": True}
POLICY = "sha256:" + "ef" * 32


class Desk:
    """Writes decisions into a segment of its own, and seals the ledger when asked to."""

    def __init__(self, directory: Path, **changes: Any) -> None:
        """`changes` are of the declaration and the contract of the tiny capability."""
        self.workspace, _, _ = create_workspace(directory, "tests.example.com/desk")
        self.version = tiny.store(self.workspace, **changes)
        self.queue = ReviewQueue(self.workspace)
        self.segment = Segment(self.workspace.ledger / "wal")
        self.counter = 0

    def leave(
        self,
        *reasons: Reason,
        capability: str = tiny.NAME,
        outcome: Outcome = "review",
        proposed: Any = PROPOSED,
        key: str | None = None,
    ) -> str:
        """Record one decision; its id."""
        served = Served(capability, self.version, 1, "production", POLICY)
        stamp = Stamp(Place(self.segment, self.counter), 1)
        self.counter += 1
        verdict = Verdict(
            outcome,
            reasons=reasons or (UNSURE,),
            proposed=None if proposed is None else msgspec.json.encode(proposed),
            confidence=b"0.612",
        )
        recorder = DecisionRecorder(served, self.workspace.settings.log)
        recorded = recorder.record(stamp, b"0a1b2c3d", json.dumps(key).encode(), b'{"a":1.5}', verdict, Took(0.001))
        self.segment.append([recorded.framed], 1)
        decision_id = json.loads(recorded.answer)["decision_id"]
        assert parse_id(decision_id) is not None
        return str(decision_id)

    def seal(self) -> None:
        key = load_signing_key(self.workspace.keys, None)
        with Sealer(self.workspace.ledger, key, self.workspace.settings.log) as sealer:
            sealer.seal_once()

    def index(self) -> None:
        with Index(self.workspace.ledger) as index:
            index.catch_up(Log(self.workspace.ledger))

    def listed(self, capability: str | None = None, limit: int = 100) -> list[str]:
        return [review.id for review in self.queue.waiting(capability, limit=limit).reviews]
