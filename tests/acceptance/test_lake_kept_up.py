"""The lake as it is by default: kept up beside `mainstay up`, with its lag in status and metrics, and its lineage."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

import tiny
from lineage.emitted import emitted
from lineage.others import read_by_their_client
from mainstay.cli.init import create_workspace
from mainstay.cli.status import gather_status, status_lines
from mainstay.cli.versions import record_promotion, record_registration
from mainstay.lake.lagging import Progress, save_progress
from mainstay.lake.lake import open_lake
from mainstay.lineage.sinks import Account
from mainstay.workspace import Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mainstay.workspace import Workspace

pytestmark = pytest.mark.acceptance


def make_served(root: Path) -> tuple[Workspace, str, str]:
    """A workspace with a version in production that brought reference rows; the token of a key, and the version."""
    workspace, _, token = create_workspace(root, "tests.example.com/lake")
    folder = tiny.write_folder(workspace.capabilities / tiny.NAME, reference={"file": "r.jsonl"})
    rows = [{"input": {"a": n % 20, "b": n % 7}} for n in range(120)]
    (folder / "r.jsonl").write_text("\n".join(map(json.dumps, rows)))
    version = record_registration(workspace, folder, None).version
    record_promotion(workspace, tiny.NAME, version, "for a test")
    return workspace, token, version


def wait_until(true: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.1)


def test_the_lake_is_on_unless_it_is_switched_off() -> None:
    assert Settings(log="x").lake_interval_seconds == 10


def test_decisions_and_profiles_reach_the_lake_and_everybody_can_see_how_far_it_is(tmp_path: Path) -> None:
    workspace, token, version = make_served(tmp_path / "w")
    with tiny.up(workspace, token, lake_interval_seconds=0.2) as up:
        for n in range(5):
            answer = httpx.post(up.decisions_url, headers=up.headers, json={"input": {"a": n, "b": 1}})
            assert answer.status_code == 200

        def metrics() -> dict[str, float]:
            text = httpx.get(f"{up.url}/metrics", headers=up.headers).text
            families = text_string_to_metric_families(text)
            return {family.name: family.samples[0].value for family in families if family.samples}

        def caught_up() -> bool:
            found = metrics()
            seen = found.get("mainstay_lake_exported_entries", 0) >= 7  # with a registration and a release
            return seen and found["mainstay_lake_waiting_entries"] == 0

        wait_until(caught_up)
        assert metrics()["mainstay_lake_lag_seconds"] == 0
        assert metrics()["mainstay_lake_failing"] == 0
        lake = open_lake(workspace)
        assert lake.table(f"decisions/{tiny.NAME}").rows == 5
        wait_until(lambda: lake.find(f"profiles/{tiny.NAME}") is not None)
        found = gather_status(workspace, 1)
        assert found["lake"]["sealed"] == found["lake"]["exported"]
        assert any(line.startswith("lake       ") and "behind" not in line for line in status_lines(found))
    profiles = lake.table(f"profiles/{tiny.NAME}").frame().collect()
    assert profiles.select("version", "column").rows() == [(version, "a"), (version, "b")]
    events = emitted(workspace)
    assert {event["job"]["name"] for event in events} == {"lake.export", "lake.profiles"}
    for event in events:
        read_by_their_client(event)
    exported = [each for event in events if event["eventType"] == "COMPLETE" for each in event["outputs"]]
    rows = [
        each["outputFacets"]["outputStatistics"]["rowCount"]
        for each in exported
        if each["name"].endswith(f"decisions/{tiny.NAME}")
    ]
    assert sum(rows) == 5


def test_status_says_what_keeps_the_lake_and_events_of_lineage(tmp_path: Path) -> None:
    workspace, _ = tiny.make_served(tmp_path / "w")
    assert not any(line.startswith(("lake ", "lineage ")) for line in status_lines(gather_status(workspace, 1)))
    save_progress(workspace, Progress(exported=0, at="2026-03-01T12:00:00Z", problem="the bucket\nis gone"))
    Account(workspace.data / "lineage").add(lost=3, problem="the disk is full")
    lines = status_lines(gather_status(workspace, 1))
    assert "lake       FAILING, 0 entries exported: the bucket. is gone" in lines
    assert any(line.startswith("lineage    3 events lost, to ") and "the disk is full" in line for line in lines)
