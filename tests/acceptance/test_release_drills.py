"""Releases, rollbacks and stops under load: every worker follows in time, and no call fails."""

from __future__ import annotations

import json
import sys
import time
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import tiny
from mainstay.catalog.releases import read_current
from mainstay.cli.versions import record_registration
from mainstay.server.supervisor import running_state
from mainstay.signing import load_signing_key

if TYPE_CHECKING:
    from types import ModuleType

pytestmark = pytest.mark.acceptance

BENCH = Path(__file__).resolve().parents[2] / "bench"
DRILLS = "rollback"  # a program of bench/
CONSTANT = {"probability": 0.25, "yes": False}
BODY = json.dumps({"input": {"a": 0.5, "b": 0.25}}).encode()
WORKERS = 3
LONGEST_GAP_SECONDS = 1.0  # without any answer; the machine may be busy


@pytest.fixture
def drills(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The drills of bench/, which are run here against a small model."""
    monkeypatch.setattr(sys, "path", [str(BENCH), *sys.path])
    return import_module(DRILLS)


def test_no_call_fails_while_versions_come_and_go_and_every_worker_follows_in_time(
    tmp_path: Path, drills: ModuleType
) -> None:
    workspace, token = tiny.make_served(tmp_path / "w", fallback=[{"constant": CONSTANT}])
    key = load_signing_key(workspace.keys, None)
    first = read_current(workspace.releases, tiny.NAME, key.verifier).version
    folder = tiny.write_folder(workspace.capabilities / tiny.NAME, fallback=[{"constant": CONSTANT}], title="Another")
    second = record_registration(workspace, folder, None).version
    with (
        tiny.up(workspace, token, workers=WORKERS) as up,
        drills.Callers(up.url, token, tiny.NAME, BODY, 4, pause_seconds=0.01) as callers,
    ):
        drill = drills.Drill(workspace, tiny.NAME, key, callers)
        drill.run(first, second)
    assert callers.failures == []
    names = ["promote", "shadow", "canary", "promote", "rollback", "stop", "resume"]
    assert [step.name for step in drill.steps] == names
    late = [step for step in drill.steps if step.seconds > step.goal_seconds]
    assert late == []
    assert {each.outcome for each in callers.answers if each.reason != "stopped"} == {"answered"}
    assert {each.outcome for each in callers.answers if each.reason == "stopped"} == {"fallback"}
    by_canary = {each.release for each in callers.answers if each.stage == "canary"}
    assert len(by_canary) == 1, "only while it was one"


def test_nothing_changes_for_callers_when_the_control_process_is_killed(tmp_path: Path, drills: ModuleType) -> None:
    workspace, token = tiny.make_served(tmp_path / "w")
    with (
        tiny.up(workspace, token, workers=2) as up,
        drills.Callers(up.url, token, tiny.NAME, BODY, 4, pause_seconds=0.01) as callers,
    ):
        before = processes(workspace)
        for _ in range(3):
            time.sleep(0.5)
            killed = drills.kill_control(workspace)
            deadline = time.monotonic() + 10
            while processes(workspace).get("control") in {None, killed}:
                assert time.monotonic() < deadline, "it is not started again"
                time.sleep(0.05)
        time.sleep(0.3)
        after = processes(workspace)
    assert {name: pid for name, pid in after.items() if name != "control"} == {
        name: pid for name, pid in before.items() if name != "control"
    }
    assert callers.failures == []
    assert {(each.outcome, each.reason) for each in callers.answers} == {("answered", "")}
    ended = sorted(each.ended for each in callers.answers)
    gaps = [later - earlier for earlier, later in pairwise(ended)]
    assert max(gaps) < LONGEST_GAP_SECONDS


def processes(workspace: Any) -> dict[str, int]:
    """The processes of a workspace that is up, by name."""
    state = running_state(workspace)
    assert state is not None
    found = state["processes"]
    assert isinstance(found, dict)
    return found
