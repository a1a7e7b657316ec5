from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

END_SECONDS = 20

BESIDE = """
import logging, os, sys
from mainstay.processes import begin_beside
workspace, stop = begin_beside("weighing", niceness=3)
for name in ("ours", "httpx", "alembic"):
    logging.getLogger(name).info("all is well")
    logging.getLogger(name).warning("look here")
print(workspace.settings.log, os.nice(0), flush=True)
stop.wait()
sys.exit(7)
"""

# Nearly always in the middle of a wait, which takes the lock of the event.
AWAITED = """
import os, signal, sys, threading, time
from mainstay.processes import stop_at_signals
stop = stop_at_signals()

def tell():
    for _ in range(50):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.0005)

teller = threading.Thread(target=tell, daemon=True)
teller.start()
while teller.is_alive():
    stop.wait(0)
print(stop.is_set())
"""

CHILD = """
import time
from mainstay.processes import end_with_parent
end_with_parent()
print("up", flush=True)
time.sleep(60)
"""

PARENT = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE, text=True)
child.stdout.readline()
print(child.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "mainstay.toml").write_text('log = "weighing.example.com"\n')
    return tmp_path


@contextmanager
def running(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", code, *arguments]
    with subprocess.Popen(command, stdin=-1, stdout=-1, stderr=-1, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_process_beside_others_has_its_workspace_and_comes_after_them(workspace: Path) -> None:
    with running(BESIDE, str(workspace)) as process:
        assert said(process) == f"weighing.example.com {os.nice(0) + 3}"


def test_it_ends_when_its_standard_input_does(workspace: Path) -> None:
    with running(BESIDE, str(workspace)) as process:
        said(process)
        process.communicate(timeout=END_SECONDS)  # closes it
        assert process.returncode == 7


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_when_a_signal_says_so(number: signal.Signals, workspace: Path) -> None:
    with running(BESIDE, str(workspace)) as process:
        said(process)
        process.send_signal(number)
        assert process.wait(END_SECONDS) == 7


def test_its_log_lines_have_its_name_and_a_time_and_those_of_chatty_libraries_are_left_out(workspace: Path) -> None:
    with running(BESIDE, str(workspace)) as process:
        said(process)
        _, logged = process.communicate(timeout=END_SECONDS)
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}"
    lines = ("INFO all is well", *["WARNING look here"] * 3)
    assert re.fullmatch("".join(rf"{time} weighing {line}\n" for line in lines), logged), logged


def test_a_process_without_a_workspace_does_not_begin(tmp_path: Path) -> None:
    with running(BESIDE, str(tmp_path / "none")) as process:
        _, complaint = process.communicate(timeout=END_SECONDS)
        assert process.returncode == 1
        assert "mainstay.errors.Misuse" in complaint


def test_a_signal_that_comes_in_the_middle_of_a_wait_holds_it_up_for_no_time() -> None:
    with running(AWAITED) as process:
        assert process.communicate(timeout=END_SECONDS) == ("True\n", "")


def test_a_process_ends_with_its_parent_however_that_ends() -> None:
    with running(PARENT, CHILD) as parent:
        child = os.pidfd_open(int(said(parent)))
        try:
            parent.kill()
            ended, _, _ = select.select([child], [], [], END_SECONDS)
            assert ended
        finally:
            os.close(child)
