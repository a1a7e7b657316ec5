"""The monitoring process of a real workspace, killed at random moments: every decision is counted exactly once."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

import polars as pl
import pytest

import tiny
from mainstay.monitoring.folding import WRITER, Folder
from mainstay.monitoring.store import read_findings, read_memory
from mainstay.monitoring.windows import BUSINESS, COLUMN, LABELS, SERVICE
from mainstay.state.database import open_database
from monitoring.worlds import BEGIN, World

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.acceptance

DAYS = 6
ROWS = 700


def start(world: World) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "mainstay.monitoring.running", str(world.workspace.root)]
    environment = {"MAINSTAY_MONITOR_INTERVAL_SECONDS": "0.05", "PYTHONPATH": ":".join(sys.path)}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)


def position(world: World) -> int:
    table = Folder(world.workspace, world.lake, tiny.NAME).table()
    return 0 if table is None else table.position(WRITER) or 0


def test_a_monitor_that_is_killed_at_any_moment_counts_every_decision_once(tmp_path: Path) -> None:
    world = World(tmp_path / "w", monitoring={"step_hours": 12})
    chance = random.Random(5)
    labels = kills = 0
    for day in range(DAYS):
        decided = world.decide(ROWS, BEGIN + timedelta(days=day), shift=1.5 if day >= DAYS - 2 else 0.0)
        labels += world.report(decided.head(ROWS // 2), timedelta(hours=3)).height
        process = start(world)
        with suppress(subprocess.TimeoutExpired):
            process.wait(chance.uniform(1.0, 3.0))
        process.kill()
        kills += 1
        process.communicate()
    process = start(world)
    deadline = time.monotonic() + 90
    with open_database(world.workspace) as database:
        while time.monotonic() < deadline:
            memory = read_memory(database, tiny.NAME)
            done = memory is not None and memory.judged_until == BEGIN + timedelta(days=DAYS + 1)
            if done and position(world) >= world.sequence:
                break
            assert process.poll() is None
            time.sleep(0.2)
        assert process.stdin is not None
        process.stdin.close()  # it ends with its standard input
        assert process.wait(20) == 0
        assert process.stderr is not None
        process.stderr.close()
        found = read_findings(database, tiny.NAME)
    assert kills == DAYS
    table = Folder(world.workspace, world.lake, tiny.NAME).table()
    assert table is not None
    assert table.position(WRITER) == world.sequence
    rows = (
        table.frame().filter(pl.col("segment").is_null()).group_by("kind", "name").agg(pl.col("rows").sum()).collect()
    )
    counts = {(kind, name): n for kind, name, n in rows.iter_rows()}
    assert counts[SERVICE, ""] == DAYS * ROWS
    assert counts[COLUMN, "input.a"] == DAYS * ROWS
    assert counts[COLUMN, "output.yes"] == DAYS * ROWS
    assert counts[LABELS, "binary"] == labels
    assert counts[BUSINESS, "sure"] == DAYS * ROWS
    assert counts[BUSINESS, "right"] == labels
    assert "input.a" in {each.finding.column for each in found}
    open_keys = [each.finding.key for each in found if each.is_open]
    assert len(open_keys) == len(set(open_keys))
