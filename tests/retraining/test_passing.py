"""What the pass asks for of itself, of what stands in the control database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

import tiny
from mainstay.cli.init import create_workspace
from mainstay.cli.versions import record_promotion, record_registration
from mainstay.monitoring.findings import Cause, Finding
from mainstay.monitoring.store import Memory, keep
from mainstay.retraining.passing import RetrainingPass
from mainstay.retraining.store import requests_of
from mainstay.state.lease import Lease
from rollout.made import Stage
from state.databases import opened

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mainstay.monitoring.findings import Kind

NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    workspace = create_workspace(tmp_path / "w", "tests.example.com/retraining")[0]
    with opened(workspace) as database:
        labels = {"kind": "binary", "truth": "yes", "prediction": "yes", "score": "probability"}
        declared: dict[str, Any] = {"monitoring": {"labels": labels}, "retraining": {"train": "train.py:train"}}
        folder = tiny.write_folder(workspace.capabilities / tiny.NAME, **declared)
        (folder / "train.py").write_text("def train(rows, folder, seed):\n    raise AssertionError('nothing runs')\n")
        version = record_registration(workspace, folder, None).version
        record_promotion(workspace, tiny.NAME, version, "for a test")
        yield Stage(workspace, database)


def found(code: str, kind: Kind, version: str | None = None, column: str | None = None) -> Finding:
    return Finding(
        code=code,
        severity="critical",
        capability=tiny.NAME,
        version=version,
        column=column,
        text=code,
        window_from=NOW,
        window_to=NOW,
        rows=1_000,
        cause=Cause(kind=kind, why="for a test"),
    )


def test_nothing_is_asked_for_while_monitoring_catches_up_and_then_what_bars_it_is_told(stage: Stage) -> None:
    steers = RetrainingPass(stage.workspace, stage.key)
    lease = Lease(stage.database, 60)
    assert lease.take()
    version = stage.current.version
    findings = [
        found("quality_below", "world_changed", version),
        found("unit_changed", "data_broken", "sha256:" + "0" * 64, "input.a"),
        found("quality_fell", "data_broken", "sha256:" + "0" * 64),
    ]
    first = Memory(at=NOW, judged_until=NOW, waiting=3)
    keep(stage.database, tiny.NAME, findings, first)
    steers.turn(stage.database, lease, lambda: False)
    assert requests_of(stage.database, tiny.NAME) == []
    newest = Memory(at=NOW + timedelta(hours=1), judged_until=NOW + timedelta(hours=1))
    keep(stage.database, tiny.NAME, findings, newest, before=first.at)
    steers.turn(stage.database, lease, lambda: False)
    (request,) = requests_of(stage.database, tiny.NAME)
    assert (request.status, request.cause, request.findings) == ("barred", "performance", (f"{findings[0].key}-1",))
    assert request.barred_by == (f"{findings[1].key}-1",), "not what a version that has left made of it"
