"""Sources over HTTP whose process is killed at each of its system calls, one after the other."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from intake.api import api
from intake.test_rest import numbers, paged
from mainstay.capability.sources import Pages

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.acceptance


ASK = """
    import json, os, signal, sys
    from pathlib import Path
    from intake.test_rest import Feed
    from mainstay.capability.sources import Pages

    TOUCHING = ("open", "os.", "fcntl.", "shutil.", "tempfile.", "socket.connect")

    def feed(data, url):
        made = Feed(data, url, pages=Pages(style="offset"), records="data", cursor="id", cursor_parameter="since")
        waiting = made.landing.waiting()
        made.cursor = waiting[-1].cursor if waiting else None
        return made

    def run(data, url, killed_at):
        child = os.fork()
        if child == 0:
            try:
                seen = 0
                def look(event, _):
                    nonlocal seen
                    if event.startswith(TOUCHING):
                        seen += 1
                        if seen == killed_at:
                            os.kill(os.getpid(), signal.SIGKILL)
                made = feed(data, url)
                sys.addaudithook(look)
                made.round()
            finally:
                os._exit(0)
        return os.waitpid(child, 0)[1]

    root, url, killed_at, whole = Path(sys.argv[1]), sys.argv[2], 0, False
    feed(root / "0", url).round()  # loads what each child would have to load
    while not whole:
        killed_at += 1
        data = root / str(killed_at)
        whole = run(data, url, killed_at) == 0
        run(data, url, 0)
        run(data, url, 0)
        assert feed(data, url).ids() == list(range(1, 8)), (killed_at, feed(data, url).ids())
    print(killed_at)
"""


def test_an_api_that_is_asked_by_processes_killed_at_any_step_gives_each_record_once(tmp_path: Path) -> None:
    program = textwrap.dedent(ASK)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with api(paged(numbers(1, 7), 3, Pages(style="offset"))) as server:
        command = [sys.executable, "-c", program, str(tmp_path), server.url]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 30  # steps it was killed at


ADOPT = """
    import json, os, signal, sys
    from pathlib import Path
    from intake.test_adopting import Adopter, Worker

    TOUCHING = ("open", "os.", "fcntl.", "shutil.", "tempfile.")

    def in_child(work):
        child = os.fork()
        if child == 0:
            try:
                work()
            finally:
                os._exit(0)
        return os.waitpid(child, 0)[1]

    def push(data, first):
        def work():
            worker = Worker(data)
            worker.push(first, first + 1, key=str(first))
            worker.push(first, first + 1, key=str(first))
            worker.push(first + 2)
            os.kill(os.getpid(), signal.SIGKILL)
        in_child(work)

    def step(data, killed_at):
        def work():
            seen = 0
            def look(event, _):
                nonlocal seen
                if event.startswith(TOUCHING):
                    seen += 1
                    if seen == killed_at:
                        os.kill(os.getpid(), signal.SIGKILL)
            adopter = Adopter(data)
            adopter.cursor = known(adopter)
            sys.addaudithook(look)
            while adopter.step() is not None:
                pass
        return in_child(work)

    def known(adopter):
        waiting = adopter.landing.waiting()
        return waiting[-1].cursor if waiting else None

    root, killed_at, first, expected = Path(sys.argv[1]), 0, 0, []
    while True:
        killed_at += 1
        data = root / str(killed_at)
        for _ in range(2):
            push(data, first := first + 10)
        step(data, 0)
        push(data, first := first + 10)
        push(data, first := first + 10)
        whole = step(data, killed_at) == 0
        step(data, 0)
        found = sorted(Adopter(data).ids())
        wanted = sorted(at + each for at in range(first - 30, first + 1, 10) for each in range(3))
        assert found == wanted, (killed_at, found, wanted)
        if whole:
            break
    print(killed_at)
"""


def test_events_that_are_adopted_by_processes_killed_at_any_step_are_in_exactly_one_item(tmp_path: Path) -> None:
    program = textwrap.dedent(ADOPT)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 30  # steps it was killed at
