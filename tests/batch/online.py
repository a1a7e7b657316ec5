"""The same rows, decided by the service as calls are, and what is recorded of both."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, NamedTuple

import tiny
from mainstay.catalog.releases import read_current
from mainstay.decision.path import DecisionPath
from mainstay.decision.plan import compile_release
from mainstay.decision.replay import unhurried
from mainstay.decision.replayed import Recorded, differences, read_decision, recorded_of
from mainstay.ledger.journal import Journal
from mainstay.ledger.wal import SegmentReader, segments
from mainstay.signing import load_verifier

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mainstay.decision.types import Hold
    from mainstay.ledger.entry import Entry
    from mainstay.workspace import Workspace

PRINCIPAL = b"online"


class Record(NamedTuple):
    """What is recorded of a decision, its id, its time and its salt aside."""

    stage: str
    key: Any
    input: str  # JSON, as it stands in the body
    details: Any
    recorded: Recorded
    source: Any


def read_records(ledger: Path) -> list[Record]:
    """Every decision that waits to be sealed, in the order of writing."""
    return [_record(entry) for entry in unsealed(ledger)]


def unsealed(ledger: Path) -> list[Entry]:
    """Every decision in the segments."""
    entries = [
        entry for path in segments(ledger / "wal") for group in SegmentReader(path).groups() for entry in group.entries
    ]
    return [entry for entry in entries if b'"kind":"decision"' in entry.leaf]


def _record(entry: Entry) -> Record:
    read = read_decision(entry)
    assert read is not None
    leaf, body = read
    assert body is not None
    whole = json.loads(entry.body)
    return Record(
        leaf.stage, body.key, bytes(body.input).decode(), whole["details"], recorded_of(leaf, body), whole.get("source")
    )


def decide_online(workspace: Workspace, calls: Sequence[bytes], held: Hold | None = None) -> list[Record]:
    """The service's records of these calls, made with time enough. The ledger must hold no others in segments."""
    before = len(unsealed(workspace.ledger))
    loop = asyncio.new_event_loop()
    path = DecisionPath(
        loop,
        lambda on_idle: Journal(workspace.ledger / "wal", loop.call_soon_threadsafe, on_idle=on_idle),
        lambda _item, _seconds: None,
        call_bytes=workspace.settings.max_body_bytes,
        memory=workspace.memory,
    )
    release = read_current(workspace.releases, tiny.NAME, load_verifier(workspace.keys))
    service = path.open(unhurried(compile_release(workspace, release)))
    service.held = held
    path.serve([service])

    async def decide() -> list[bytes]:
        await service.wait_ready(20)
        ids = []
        for start in range(0, len(calls), 256):
            gate, items = service.decide_each(PRINCIPAL, calls[start : start + 256])
            await gate.opened
            ids += [json.loads(item.answer)["decision_id"].encode() for item in items if item.answer is not None]
        return ids

    ids = loop.run_until_complete(decide())
    path.close()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    found = {entry.leaf[25:61]: entry for entry in unsealed(workspace.ledger)}
    assert len(found) == before + len(calls)
    return [_record(found[each]) for each in ids]


def assert_same(batch: Sequence[Record], online: Sequence[Record]) -> None:
    """Row by row: the same in all but the last digits of numbers."""
    assert len(batch) == len(online)
    for one, other in zip(batch, online, strict=True):
        assert differences(one.recorded, other.recorded) == (), (one, other)
        assert one._replace(recorded=other.recorded, source=None) == other
