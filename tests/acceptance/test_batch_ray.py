"""A batch on the distributed engine, here with two workers on one machine, of which one is killed."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest

import tiny

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mainstay.workspace import Workspace

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install mainstay[ray]"
    ),
]

ROWS = 120_000
LONGEST_SECONDS = 150.0


@pytest.fixture
def sockets() -> Iterator[Path]:
    """A folder of a short name: Ray puts sockets there, whose paths may have 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="r-", ignore_cleanup_errors=True) as made:
        yield Path(made)


def begin(workspace: Workspace, token: str, temporary: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """The command."""
    command = [sys.executable, "-m", "mainstay.cli.main", "batch", tiny.NAME, *arguments]
    command += ["--workspace", str(workspace.root), "--json"]
    environment = {**os.environ, "MAINSTAY_API_KEY": token, "RAY_TMPDIR": str(temporary)}
    environment.pop("RAY_ADDRESS", None)
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)


def steps(workspace: Workspace) -> int:
    return sum(path.read_bytes().count(b"\n") for path in workspace.data.glob("batch/*/steps.jsonl"))


def descendants(pid: int) -> dict[int, str]:
    """The processes below one, with their command lines."""
    below: dict[int, list[int]] = {}
    commands = {}
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            fields = (directory / "stat").read_text().rpartition(")")[2].split()
            command = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        below.setdefault(int(fields[1]), []).append(int(directory.name))
        commands[int(directory.name)] = command
    found, waiting = {}, [pid]
    while waiting:
        for child in below.get(waiting.pop(), ()):
            found[child] = commands[child]
            waiting.append(child)
    return found


def a_worker(pid: int) -> tuple[int, dict[int, str]]:
    """A worker of Ray, one that decides if any is seen to; and all processes below the command."""
    seen: dict[int, str] = {}
    for _ in range(200):
        seen = descendants(pid)
        for name in ("ray::decide", "ray::IDLE"):
            workers = [each for each, command in seen.items() if command.startswith(name)]
            if workers:
                return workers[0], seen
        time.sleep(0.01)
    pytest.fail(f"no worker is there: {seen}")


def begun_at(pid: int) -> str | None:
    """When a process began, in ticks; None: it is not there."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else fields[19]


def test_two_workers_of_which_one_is_killed_decide_the_same_as_one_process(tmp_path: Path, sockets: Path) -> None:
    workspace, token = tiny.make_served(tmp_path / "w")
    table = tmp_path / "rows.parquet"
    a = [None if i % 5_003 == 0 else i % 7 - 3.0 for i in range(ROWS)]
    pl.DataFrame({"a": a, "b": [i % 11 / 4 for i in range(ROWS)]}).write_parquet(table)
    plain, spread = tmp_path / "plain", tmp_path / "spread"
    begin(workspace, token, sockets, str(table), str(plain)).communicate(timeout=LONGEST_SECONDS)

    before, deadline = steps(workspace), time.monotonic() + LONGEST_SECONDS
    process = begin(workspace, token, sockets, str(table), str(spread), "--engine", "ray", "--workers", "2")
    try:
        while steps(workspace) < before + 2 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        worker, seen = a_worker(process.pid)
        begun = {pid: begun_at(pid) for pid in seen}
        os.kill(worker, signal.SIGKILL)
        told, complaint = process.communicate(timeout=LONGEST_SECONDS)
    finally:
        process.kill()
    assert process.returncode == 0, complaint.decode()
    summary = json.loads(told)
    assert (summary["rows"], summary["finished"]) == (ROWS, True)
    ours = ["mainstay_decision_id", "mainstay_leaf"]
    one, other = (pl.read_parquet(path) for path in (plain, spread))
    assert other["mainstay_row"].to_list() == list(range(1, ROWS + 1))
    assert one.drop(ours).equals(other.drop(ours))
    deadline = time.monotonic() + 20
    while (left := [pid for pid, at in begun.items() if at and begun_at(pid) == at]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left, f"processes were left behind: {[seen[pid] for pid in left]}"
