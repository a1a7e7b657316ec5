"""The retraining pass in a process of its own, killed again and again: a run comes to its one end all the same."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mainstay.catalog.versions import list_versions
from mainstay.cli.versions import record_promotion
from mainstay.lake.lake import open_lake
from mainstay.lake.snapshots import snapshot_names
from mainstay.monitoring.findings import Cause, Finding
from mainstay.monitoring.store import Memory, keep
from mainstay.retraining import store
from mainstay.retraining.triggers import Wish
from mainstay.rollout import store as rollouts
from mainstay.state.database import open_database
from retraining.worlds import add_decisions, make_workspace
from tiny import NAME

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mainstay.monitoring.findings import Kind
    from mainstay.retraining.types import Request
    from mainstay.state.database import Database
    from mainstay.workspace import Workspace

pytestmark = pytest.mark.acceptance

TESTS = Path(__file__).resolve().parents[1]
END_SECONDS = 90.0


def steer(workspace: Workspace) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}
    environment["MAINSTAY_STEERING_INTERVAL_SECONDS"] = "0.2"
    command = [sys.executable, "-m", "retraining.steering_process", str(workspace.root)]
    return subprocess.Popen(command, env=environment, start_new_session=True)


def kill(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[tuple[Workspace, str, Database]]:
    workspace, champion = make_workspace(tmp_path / "w")
    record_promotion(workspace, NAME, champion, "first")
    add_decisions(workspace, champion)
    with open_database(workspace) as database:
        yield workspace, champion, database


def until_ended(database: Database, process: subprocess.Popen[bytes]) -> Request:
    until = time.monotonic() + END_SECONDS
    while time.monotonic() < until:
        newest = store.requests_of(database, NAME, 1)
        if newest and newest[0].status == "ended":
            return newest[0]
        assert process.poll() is None, "it ended by itself"
        time.sleep(0.1)
    raise AssertionError(f"no end within {END_SECONDS} s: {store.requests_of(database, NAME)}")


def test_a_run_that_is_killed_again_and_again_comes_to_its_one_end(world: tuple[Workspace, str, Database]) -> None:
    workspace, champion, database = world
    request, _ = store.ask(database, NAME, Wish("by_hand", "to see", ()), "os:tests")
    chance = random.Random(5)
    for _ in range(5):
        process = steer(workspace)
        time.sleep(2.0 + chance.random() * 4)
        kill(process)
    process = steer(workspace)
    try:
        ended = until_ended(database, process)
        time.sleep(1)
    finally:
        kill(process)
    assert (ended.id, ended.ending) == (request.id, "better"), ended.why
    assert ended.trained is not None
    assert set(list_versions(workspace.versions)) == {champion, ended.trained.version}
    assert len(snapshot_names(open_lake(workspace))) == 2
    found = database.read(lambda connection: rollouts.find_running(connection, NAME))
    assert found is not None
    assert (found.id, found.version, found.stage) == (ended.rollout, ended.trained.version, "shadow")
    assert len(store.requests_of(database, NAME)) == 1, "and the cool-down keeps others away"
    assert not list((workspace.data / "retraining").iterdir())


def found_now(code: str, kind: Kind) -> Finding:
    now = datetime.now(UTC)
    return Finding(
        code=code,
        severity="critical",
        capability=NAME,
        text=f"{code} in a test",
        window_from=now,
        window_to=now,
        rows=1_000,
        cause=Cause(kind=kind, why="because"),
    )


def test_a_spike_of_quarantined_data_never_retrains_and_quality_does(world: tuple[Workspace, str, Database]) -> None:
    _, _, database = world
    first = Memory(at=datetime.now(UTC))
    spike = [found_now("quality_below", "world_changed"), found_now("feed_troubled", "data_broken")]
    keep(database, NAME, spike, first)
    process = steer(world[0])
    try:
        until = time.monotonic() + END_SECONDS
        while not store.requests_of(database, NAME) and time.monotonic() < until:
            time.sleep(0.1)
        time.sleep(2)
        barred = store.requests_of(database, NAME)
        assert [each.status for each in barred] == ["barred"], "once, however often it is looked at"
        second = Memory(at=datetime.now(UTC))
        keep(database, NAME, [found_now("quality_below", "world_changed")], second, before=first.at)
        ended = until_ended(database, process)
    finally:
        kill(process)
    assert (ended.cause, ended.ending) == ("performance", "better")
    assert len(ended.findings) == 1
