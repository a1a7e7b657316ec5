"""Retraining at the command line."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from mainstay.cli.common import Common
from mainstay.cli.retraining import list_requests, request, show, withdraw
from mainstay.cli.versions import record_promotion
from mainstay.errors import Misuse
from mainstay.monitoring.intervals import Estimate
from mainstay.retraining import store
from mainstay.retraining.challenge import Challenge, Segment
from mainstay.retraining.types import Frozen, Trained
from mainstay.state.database import open_database
from retraining.worlds import make_workspace
from tiny import NAME

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.retraining.types import Request
    from mainstay.workspace import Workspace

BEGAN = datetime(2026, 3, 1, 12, tzinfo=UTC)
CHALLENGE = Challenge(
    metric="roc_auc",
    champion=0.9012,
    challenger=0.9234,
    better=Estimate(0.0222, 0.0101, 0.0343),
    required=0.0,
    level=0.95,
    rows=9_000,
    blocks=30,
    unanswered=(0.0, 0.0),
    segments=(
        Segment(column="part", value="a", rows=6_000, better=Estimate(0.03, 0.01, 0.05), verdict="holds"),
        Segment(column="part", value="b", rows=2_900, better=Estimate(-0.03, -0.05, -0.01), verdict="loses"),
        Segment(column="part", value="(others)", rows=40, better=None, verdict="unknown"),
    ),
    verdict="not_better",
    why="it is better over all, and loses on part=b",
)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made, champion = make_workspace(tmp_path / "w")
    record_promotion(made, NAME, champion, "first")
    return made


def ended(workspace: Workspace, asked: Request, challenge: Challenge = CHALLENGE) -> Request:
    trained = Trained(
        version="sha256:" + "ab" * 32,
        is_new=True,
        fitted=31_000,
        held_out=9_000,
        since=BEGAN - timedelta(days=120),
        split=BEGAN - timedelta(days=30),
        until=BEGAN,
        printed="",
        notes=(),
    )
    with open_database(workspace) as database:
        return store.change(
            database,
            msgspec.structs.replace(
                asked,
                status="ended",
                began_at=BEGAN,
                ended_at=BEGAN + timedelta(seconds=75),
                frozen=Frozen(champion="sha256:" + "cd" * 32, snapshots=("tiny-20260301-8c2f6e1a",)),
                trained=trained,
                challenge=challenge,
                ending=challenge.verdict,
                why=challenge.why,
            ),
        )


def asked_for(workspace: Workspace, capsys: pytest.CaptureFixture[str], reason: str = "to see") -> Request:
    assert request(NAME, reason=reason, common=Common(workspace=workspace.root, json=True)) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    with open_database(workspace) as database:
        return store.find(database, found["id"])


def test_what_is_asked_for_is_listed_shown_and_taken_back(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    common = Common(workspace=workspace.root)
    list_requests(common=common)
    assert "nothing has asked" in capsys.readouterr().out
    request(NAME, reason="summer schedule", common=common)
    told = capsys.readouterr()
    assert "nobody steers this workspace now" in told.err
    assert "by_hand, summer schedule" in told.out
    with pytest.raises(Misuse, match="which is open"):
        request(NAME, reason="again", common=common)
    list_requests(NAME, common=common)
    header, row = capsys.readouterr().out.splitlines()
    assert header.split()[:3] == ["REQUEST", "ASKED", "CAPABILITY"]
    show(row.split()[0], common=common)
    assert "status      open" in capsys.readouterr().out
    withdraw(NAME, reason="not now", common=common)
    assert "status      taken back" in capsys.readouterr().out


def test_what_came_of_it_is_told_with_where_it_loses(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    done = ended(workspace, asked_for(workspace, capsys))
    show(done.id[:8], common=Common(workspace=workspace.root))
    lines = capsys.readouterr().out.splitlines()
    assert "roc_auc     0.9012 now, 0.9234 retrained: better by +0.0222 (+0.0101 to +0.0343 at 95%)" in lines
    assert "  LOSES  part=b, 2,900 rows: -0.0300" in lines
    assert "status      not better: refused, after 75 s" in lines
    assert lines.index("  LOSES  part=b, 2,900 rows: -0.0300") < lines.index("  holds  part=a, 6,000 rows: +0.0300")
    show(done.id, common=Common(workspace=workspace.root, json=True))
    assert json.loads(capsys.readouterr().out)["challenge"]["verdict"] == "not_better"


def test_a_metric_of_lists_is_told_with_how_many_of_them_count(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    judged = msgspec.structs.replace(CHALLENGE, metric="reciprocal_rank", top=5)
    done = ended(workspace, asked_for(workspace, capsys), judged)
    show(done.id, common=Common(workspace=workspace.root))
    told = "reciprocal_rank@5 0.9012 now, 0.9234 retrained: better by +0.0222 (+0.0101 to +0.0343 at 95%)"
    assert told in capsys.readouterr().out.splitlines()


def test_what_cannot_be_decided_is_told_with_why(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    why = "it cannot be decided: expected at least 10 rows of each kind, found 0 that were yes"
    judged = msgspec.structs.replace(
        CHALLENGE, metric="f1", champion=None, challenger=None, better=None, segments=(), verdict="unknown", why=why
    )
    done = ended(workspace, asked_for(workspace, capsys), judged)
    show(done.id, common=Common(workspace=workspace.root))
    lines = capsys.readouterr().out.splitlines()
    assert "compared    9,000 rows by f1, which cannot decide" in lines
    assert "status      unknown: refused, after 75 s" in lines
    assert f"because     {why}" in lines


def test_waiting_needs_somebody_who_steers(workspace: Workspace) -> None:
    common = Common(workspace=workspace.root)
    with pytest.raises(Misuse, match="nobody steers"):
        request(NAME, reason="now", wait=True, common=common)
    with open_database(workspace) as database:
        assert store.requests_of(database) == [], "nothing was left behind"


def test_a_reason_is_needed(workspace: Workspace) -> None:
    with pytest.raises(Misuse, match="with a reason"):
        request(NAME, reason="  ", common=Common(workspace=workspace.root))
