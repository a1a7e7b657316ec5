"""Processes that steer and run jobs are killed, stopped and followed by others, on both databases."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from intake.databases import postgres_server
from mainstay.state.passes import LOST_STATUS
from state.databases import KINDS, made_workspace, opened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mainstay.state.database import Database
    from mainstay.workspace import Workspace

pytestmark = pytest.mark.acceptance

STEPS = ("snapshot", "train", "judge")
SCRIPTS = Path(__file__).resolve().parents[1] / "state"
KILLED_AT = {  # in front of a step, behind one that nobody could know of yet, between two, and at the end
    "sqlite": ["snapshot-before", "snapshot-behind", "train-behind", "between", "judge-before", "end"],
    "postgresql": ["snapshot-behind", "judge-before"],
}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres_server() as url:
        yield url


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def workspace(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Workspace]:
    server = request.getfixturevalue("server") if kind == "postgresql" else None
    with made_workspace(tmp_path / "w", kind, monkeypatch, server) as found:
        yield found


# Durable jobs.


def test_a_job_that_is_killed_at_every_step_is_finished(workspace: Workspace, kind: str, tmp_path: Path) -> None:
    counts = tmp_path / "counts"
    with opened(workspace):
        pass
    for place in KILLED_AT[kind]:
        assert run_jobs(workspace, counts, place).returncode == -signal.SIGKILL, place
    done = run_jobs(workspace, counts)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"done 42 epoch {len(KILLED_AT[kind]) + 1}\n"
    passed = Counter(counts.read_text().split())
    for name in STEPS:
        ended = sum(place == f"{name}-behind" for place in KILLED_AT[kind])
        assert passed[f"{name}-behind"] == 1 + ended  # done again only where nobody could know that it was done


def run_jobs(workspace: Workspace, counts: Path, *killed_at: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", str(SCRIPTS / "jobs.py"), str(workspace.root), str(counts), *killed_at]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_only_the_process_that_runs_jobs_loads_what_they_need() -> None:
    code = "import sys, mainstay.rollout.steering, mainstay.state.passes\n"
    code += "print({'dbos', 'polars', 'scipy'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# The lease.


def test_one_steers_at_a_time_whoever_is_killed_or_held_up(workspace: Workspace) -> None:
    with opened(workspace) as database:
        database.write(
            lambda connection: connection.execute(
                sa.text("CREATE TABLE written (number INTEGER, epoch INTEGER, process INTEGER)")
            )
        )
        with holder(workspace) as one, holder(workspace) as two:
            wait(lambda: len(written(database)) > 3)
            first = written(database)[0][2]
            killed, other = (one, two) if first == one.pid else (two, one)
            killed.kill()
            wait(lambda: any(process == other.pid for *_, process in written(database)))
            with holder(workspace) as three:
                time.sleep(0.5)
                other.send_signal(signal.SIGSTOP)
                wait(lambda: any(process == three.pid for *_, process in written(database)))
                other.send_signal(signal.SIGCONT)
                assert other.wait(20) == LOST_STATUS
                behind = len(written(database))
                wait(lambda: len(written(database)) > behind + 2)
        rows = written(database)
    epochs = [epoch for _, epoch, _ in rows]
    assert epochs == sorted(epochs)
    assert set(epochs) == {1, 2, 3}
    assert len({(epoch, process) for _, epoch, process in rows}) == 3
    assert [number for number, *_ in rows] == list(range(1, len(rows) + 1))


@contextmanager
def holder(workspace: Workspace) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, str(SCRIPTS / "holder.py"), str(workspace.root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, env=os.environ) as process:
        try:
            yield process
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(20)
            finally:
                process.kill()


def written(database: Database) -> list[tuple[int, int, int]]:
    rows = database.read(lambda connection: connection.execute(sa.text("SELECT * FROM written ORDER BY number")).all())
    return [(number, epoch, process) for number, epoch, process in rows]


def wait(true: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)
