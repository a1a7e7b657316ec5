"""The processes that take data in, as `mainstay control` keeps them."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import pytest

from intake.api import Reply, api
from intake.workspaces import NAME, declare, files_source, flights, lines, make_workspace
from mainstay.intake import running, slots
from mainstay.intake.pacing import Order
from mainstay.intake.slots import Ended, Slot
from mainstay.intake.state import state_of
from mainstay.intake.types import intake_table
from mainstay.intake.upkeep import keep_taken_in
from mainstay.lake.lake import open_lake

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mainstay.workspace import Workspace

pytestmark = pytest.mark.acceptance

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is begun here finds what is tested here."""
    monkeypatch.setenv("PYTHONPATH", ENVIRONMENT["PYTHONPATH"])


def put(workspace: Workspace, name: str, content: bytes, folder: str = "in") -> None:
    (workspace.root / folder).mkdir(exist_ok=True)
    unfinished = workspace.root / "unfinished"
    unfinished.write_bytes(content)
    unfinished.rename(workspace.root / folder / name)


def rows(workspace: Workspace, source: str = "months") -> int:
    table = open_lake(workspace).find(intake_table(NAME, source))
    return 0 if table is None else table.rows


def wait_until(true: Callable[[], bool], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.1)


@contextmanager
def taking_in(workspace: Workspace) -> Iterator[Thread]:
    stop = Event()
    thread = Thread(target=running.take_in, args=(workspace, stop))
    thread.start()
    try:
        yield thread
    finally:
        stop.set()
        thread.join(30)
        assert not thread.is_alive()


def children(parent: int) -> list[tuple[int, str]]:
    """The processes that another began, and how they were called."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            fields = (path / "stat").read_text().rpartition(")")[2].split()
            command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:  # it has gone
            continue
        if int(fields[1]) == parent and fields[0] != "Z":
            found.append((int(path.name), command))
    return found


def below(parent: int) -> list[int]:
    direct = [pid for pid, _ in children(parent)]
    return [*direct, *(each for pid in direct for each in below(pid))]


def is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_source_that_hangs_holds_up_no_other_and_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_silence_seconds", lambda source: 10.0 if source.name == "hanging" else 600.0)
    with api(lambda _: Reply(hangs=True)) as server:
        rest = {"url": server.url, "timeout_seconds": 600, "retries": 0}
        hanging = {"name": "hanging", "rest": rest, "key": ["flight"], "every_seconds": 0.1}
        workspace = make_workspace(tmp_path / "w", hanging, files_source())
        state = state_of(workspace.data, NAME, "hanging")
        with taking_in(workspace):
            put(workspace, "1.jsonl", lines(flights(1, 10)))
            wait_until(lambda: rows(workspace) == 10)
            wait_until(lambda: state.read().failures > 0)
            assert [each.code for each in state.read().lasting] == ["source_stuck"]
            put(workspace, "2.jsonl", lines(flights(11, 10)))
            wait_until(lambda: rows(workspace) == 20)
            wait_until(lambda: len(server.requests) > 1)  # it is asked again


def test_what_is_declared_later_is_noticed_and_where_nothing_is_it_ends(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path / "w", files_source())
    with taking_in(workspace) as thread:
        put(workspace, "1.jsonl", lines(flights(1, 5)))
        wait_until(lambda: rows(workspace) == 5)
        declare(workspace, files_source(), files_source("weeks", folder="weekly"))
        put(workspace, "1.jsonl", lines(flights(1, 7)), folder="weekly")
        wait_until(lambda: rows(workspace, "weeks") == 7)
        declare(workspace)
        wait_until(lambda: not thread.is_alive())


def test_a_working_process_that_dies_is_noted_and_the_source_comes_again(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path / "w", files_source())
    put(workspace, "1.jsonl", lines(flights(1, 5)))
    slot = Slot(workspace.root, lambda: False)
    ran = slot.follow(Order(NAME, "months"), 60)
    assert ran is not None
    assert ran.counts.accepted == 5
    ((worker, _),) = children(os.getpid())
    os.kill(worker, signal.SIGKILL)
    with pytest.raises(Ended, match="signal 9"):
        slot.follow(Order(NAME, "months"), 60)
    again = slot.follow(Order(NAME, "months"), 60)
    assert again is not None
    assert again.counts.rows == 0
    assert slot.follow(Order(NAME, "nothing"), 60) is None
    with state_of(workspace.data, NAME, "months").running():
        assert slot.follow(Order(NAME, "months"), 60) is None  # somebody else runs it
    slot.end()
    assert children(os.getpid()) == []


def test_a_working_process_that_says_nothing_is_ended(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path / "w", files_source())
    slot = Slot(workspace.root, lambda: False)
    assert slot.follow(Order(NAME, "months"), 60) is not None
    ((worker, _),) = children(os.getpid())
    os.kill(worker, signal.SIGSTOP)
    with pytest.raises(Ended, match="no sign of life for 1 s"):
        slot.follow(Order(NAME, "months"), 1)
    assert not is_there(worker)
    assert slots.Slot(workspace.root, lambda: True).follow(Order(NAME, "months"), 60) is None  # it is over already


def test_what_a_stopped_run_leaves_is_taken_by_the_next(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path / "w", files_source())
    for number in range(40):
        put(workspace, f"{number:03}.jsonl", lines(flights(100 * number, 20)))
    with taking_in(workspace):
        wait_until(lambda: rows(workspace) > 0)
    with taking_in(workspace):
        wait_until(lambda: rows(workspace) >= 800)
    assert rows(workspace) == 800


def test_control_keeps_it_alive_and_takes_it_along(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path / "w", files_source(), settings="lake_interval_seconds = 0\n")
    put(workspace, "1.jsonl", lines(flights(1, 5)))
    command = [sys.executable, "-m", "mainstay.cli.main", "control", "--workspace", str(workspace.root)]
    with subprocess.Popen(command, env=ENVIRONMENT) as control:
        try:
            wait_until(lambda: rows(workspace) == 5)
            ((intake, called),) = children(control.pid)
            assert "mainstay.intake.running" in called
            family = below(intake)
            os.kill(intake, signal.SIGKILL)
            wait_until(lambda: not any(is_there(pid) for pid in family))
            put(workspace, "2.jsonl", lines(flights(6, 5)))
            wait_until(lambda: rows(workspace) == 10)
            family = below(control.pid)
            assert family
        finally:
            control.terminate()
        assert control.wait(30) == 0
    wait_until(lambda: not any(is_there(pid) for pid in family))


def test_the_process_is_there_while_a_source_is_declared(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    workspace = make_workspace(tmp_path / "w")
    stop = Event()
    thread = keep_taken_in(workspace, stop)
    assert thread is not None
    time.sleep(1.5)
    assert children(os.getpid()) == []
    put(workspace, "1.jsonl", lines(flights(1, 5)))
    declare(workspace, files_source())
    wait_until(lambda: rows(workspace) == 5)
    declare(workspace)
    wait_until(lambda: children(os.getpid()) == [])
    assert not caplog.records  # it was wanted no more, and that is no error
    stop.set()
    thread.join(30)
    assert not thread.is_alive()


def test_the_log_tells_what_begins_and_what_has_passed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    replies: dict[str, Any] = {"now": Reply(b"", status=500)}
    with api(lambda _: replies["now"]) as server, caplog.at_level(logging.INFO):
        rest = {"url": server.url, "retries": 0}
        workspace = make_workspace(
            tmp_path / "w", {"name": "api", "rest": rest, "key": ["flight"], "every_seconds": 0.1}
        )
        with taking_in(workspace):
            wait_until(lambda: "run failed: capability=late-arrival source=api code=source_down" in caplog.text)
            replies["now"] = Reply(b"[]")
            wait_until(lambda: "well again: capability=late-arrival source=api" in caplog.text)
    assert caplog.text.count("run failed") == 1
