"""A feed stops and its capability with it: in the running service, under load, over restarts and kills."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Self

import httpx
import pytest

import tiny
from mainstay.catalog.holding import hold, lift
from mainstay.catalog.holds import find_hold
from mainstay.cli.init import create_workspace
from mainstay.signing import load_signing_key, load_verifier

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mainstay.workspace import Workspace

pytestmark = pytest.mark.acceptance

CONSTANT = {"probability": 0.25, "yes": False}
GOOD = {"a": 0.5, "b": 0.25}
SECONDS = 1.0  # within which every worker follows


def stop(workspace: Workspace) -> None:
    key = load_signing_key(workspace.keys, None)
    hold(workspace, tiny.NAME, "feed", code="bad_share", reason="for a test", principal="mainstay:intake", key=key)


def go_on(workspace: Workspace) -> None:
    key = load_signing_key(workspace.keys, None)
    lift(workspace, tiny.NAME, "feed", reason="mended", principal="os:ops", key=key)


def ask(up: tiny.Up) -> dict[str, Any]:
    answer = httpx.post(up.decisions_url, json={"input": GOOD}, headers=up.headers, timeout=20)
    answer.raise_for_status()
    found: dict[str, Any] = answer.json()
    return found


class Load:
    """Callers that ask without end, each on a connection of its own."""

    def __init__(self, up: tiny.Up, callers: int = 4) -> None:
        self._up = up
        self._end = Event()
        self.answers: list[tuple[float, float, str, str]] = []  # begun, ended, outcome, first reason
        self.failures: list[str] = []
        self._threads = [Thread(target=self._call) for _ in range(callers)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _call(self) -> None:
        with httpx.Client(headers=self._up.headers, timeout=20) as client:
            while not self._end.is_set():
                begun = time.monotonic()
                answer = client.post(self._up.decisions_url, json={"input": GOOD})
                if answer.status_code != 200:
                    self.failures.append(answer.text)
                    continue
                found = answer.json()
                reason = found["reasons"][0]["code"] if found["reasons"] else ""
                self.answers.append((begun, time.monotonic(), found["outcome"], reason))

    def wait_until_answered(self, seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while not self.answers:
            assert time.monotonic() < deadline, "nobody is answered"
            time.sleep(0.01)

    def after(self, moment: float) -> set[tuple[str, str]]:
        """How calls ended that began after a moment."""
        return {(outcome, reason) for begun, _, outcome, reason in self.answers if begun >= moment}


@pytest.fixture
def served(tmp_path: Path) -> tuple[Workspace, str]:
    return tiny.make_served(tmp_path / "w", fallback=[{"constant": CONSTANT}])


@pytest.fixture
def up(served: tuple[Workspace, str]) -> Iterator[tiny.Up]:
    with tiny.up(*served, workers=2) as running:
        yield running


@pytest.mark.alone
def test_a_hold_sends_every_decision_to_the_fallback_within_a_second_and_a_lift_back(up: tiny.Up) -> None:
    answered, stopped = ("answered", ""), ("fallback", "feed_stopped")
    with Load(up) as load:
        load.wait_until_answered()
        before = time.monotonic()
        assert load.after(0) == {answered}
        stop(up.workspace)
        held = time.monotonic()
        time.sleep(SECONDS + 0.5)
        assert load.after(held + SECONDS) == {stopped}
        go_on(up.workspace)
        lifted = time.monotonic()
        time.sleep(SECONDS + 0.5)
    assert load.after(lifted + SECONDS) == {answered}
    assert load.failures == []
    assert load.after(before) == {answered, stopped}
    log = (up.workspace.run / "up.log").read_text()
    assert "tiny is held, what it declares for feed_stopped applies: source feed is stopped since 20" in log
    assert "tiny is held no more" in log


def test_the_record_and_the_status_say_it(up: tiny.Up) -> None:
    stop(up.workspace)
    time.sleep(SECONDS)
    decided = ask(up)
    assert (decided["outcome"], decided["output"]) == ("fallback", CONSTANT)
    assert decided["reasons"][0]["detail"].startswith("source feed is stopped since 20")
    explained = mainstay(up, "explain", decided["decision_id"])
    (route,) = [line for line in explained.splitlines() if line.split()[:2] == ["5", "route"]]
    assert "stopped here" in route
    assert "feed_stopped: source feed is stopped since 20" in route
    shown = mainstay(up, "status")
    assert "  held       source feed is stopped since 20" in shown
    assert "for a test" in shown
    assert "let it go on: mainstay intake release tiny feed --reason '...'" in shown
    assert "same" in mainstay(up, "replay", decided["decision_id"])


def test_a_worker_that_starts_with_a_hold_holds_at_once(served: tuple[Workspace, str]) -> None:
    workspace, token = served
    stop(workspace)
    with tiny.up(workspace, token, workers=2, refresh_seconds=60) as up:
        assert {ask(up)["outcome"] for _ in range(20)} == {"fallback"}


def test_a_damaged_hold_holds_over_restarts_and_a_release_of_another_version(served: tuple[Workspace, str]) -> None:
    workspace, token = served
    stop(workspace)
    (workspace.holds / "tiny.json").write_bytes(b"{")
    with tiny.up(workspace, token) as up:
        assert ask(up)["reasons"][0]["detail"].startswith("it is held, and the document")
        tiny.release(workspace, fallback=[{"constant": CONSTANT | {"probability": 0.125}}])
        until = time.monotonic() + 15
        while ask(up)["output"]["probability"] != 0.125:
            assert time.monotonic() < until
            time.sleep(0.05)
        assert "cannot be relied on" in mainstay(up, "status")
        go_on(workspace)
        time.sleep(SECONDS)
        assert ask(up)["outcome"] == "answered"


def mainstay(up: tiny.Up, *words: str) -> str:
    """What a command prints."""
    command = [sys.executable, "-m", "mainstay.cli.main", *words, "--workspace", str(up.workspace.root)]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ).stdout


_CHILD = """
import sys
from pathlib import Path
from mainstay.catalog.holding import hold, lift
from mainstay.signing import load_signing_key
from mainstay.workspace import open_workspace

workspace = open_workspace(Path(sys.argv[1]))
key = load_signing_key(workspace.keys, None)
print("ready", flush=True)
while True:
    for source in ("one", "two"):
        hold(workspace, "tiny", source, code="bad_share", reason="r", principal="p", key=key)
    for source in ("one", "two"):
        lift(workspace, "tiny", source, reason="r", principal="p", key=key)
"""


def test_whoever_is_killed_leaves_a_document_that_is_whole_or_none(tmp_path: Path) -> None:
    workspace = create_workspace(tmp_path / "w", "tests.example.com/holds")[0]
    verifier = load_verifier(workspace.keys)
    chosen = random.Random(5)
    for _ in range(12):
        command = [sys.executable, "-c", _CHILD, str(workspace.root)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ) as child:
            assert child.stdout is not None
            child.stdout.readline()
            time.sleep(chosen.uniform(0.0, 0.05))
            child.send_signal(signal.SIGKILL)
        found = find_hold(workspace.holds, tiny.NAME, verifier)
        assert found is None or (found.holds and not found.damage)
        stop(workspace)
        found = find_hold(workspace.holds, tiny.NAME, verifier)
        assert found is not None
        assert all(each.entry for each in found.holds if each.source == "feed")
        for source in ("one", "two", "feed"):
            lift(workspace, tiny.NAME, source, reason="r", principal="p", key=load_signing_key(workspace.keys, None))
        assert find_hold(workspace.holds, tiny.NAME, verifier) is None
