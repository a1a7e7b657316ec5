"""The control process is killed at any moment of a rollout: it goes on where it was, and no caller notices."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Self

import httpx
import pytest

import tiny
from mainstay.catalog.releases import history
from mainstay.cli.versions import record_registration
from mainstay.ledger.log import Log
from mainstay.rollout import store
from mainstay.rollout.moves import Move
from mainstay.rollout.settling import Steering
from mainstay.rollout.steering import begin
from mainstay.rollout.types import Rollout
from mainstay.signing import load_signing_key
from state.databases import opened

if TYPE_CHECKING:
    from collections.abc import Callable

    from mainstay.rollout.types import Begun
    from mainstay.state.database import Database
    from mainstay.workspace import Workspace

pytestmark = pytest.mark.acceptance

SECONDS = 150.0  # for one rollout, on a machine with other work
KILLS = 2  # in each rollout
GUARDS = dict.fromkeys(("fallback", "review", "latency", "output", "quality")) | {"errors": 0.2}
ROLLOUT = {
    "shadow": {"min_decisions": 60},
    "canary": {"steps": [50], "min_decisions": 100, "guards": GUARDS},
}
QUICK = {
    "lake_interval_seconds": 0.3,
    "steering_interval_seconds": 0.3,
    "control_lease_seconds": 1,
    "seal_interval_seconds": 0.1,
    "refresh_seconds": 0.1,
}


class Load:
    """Callers that ask without end; every call has to be answered."""

    def __init__(self, up: tiny.Up, callers: int = 2) -> None:
        self._up, self._end = up, Event()
        self.answers = 0
        self.failures: list[str] = []
        self._threads = [Thread(target=self._call, args=(number,)) for number in range(callers)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _call(self, number: int) -> None:
        with httpx.Client(headers=self._up.headers, timeout=20) as client:
            asked = 0
            while not self._end.is_set():
                asked += 1
                call = {"input": {"a": 0.5, "b": tiny.POISON}, "key": f"{number}-{asked}"}
                answer = client.post(self._up.decisions_url, json=call)
                if answer.status_code == 200:
                    self.answers += 1
                else:
                    self.failures.append(answer.text)
                self._end.wait(0.01)


def test_whoever_kills_the_control_process_changes_neither_the_end_nor_an_answer(tmp_path: Path) -> None:
    fallback = [{"constant": {"probability": 0.5, "yes": True}}]
    workspace, token = tiny.make_served(tmp_path / "w", rollout=ROLLOUT, fallback=fallback)
    broken = registered(workspace, graph=tiny.probability_graph(poisonous=True), fallback=fallback)
    sound = registered(workspace, title="Another", rollout=ROLLOUT, fallback=fallback)
    chosen = random.Random(7)
    with opened(workspace) as database, tiny.up(workspace, token, workers=2, **QUICK) as up, Load(up) as load:
        back = begun(workspace, database, broken, "canary")
        killing(up, chosen, lambda: find(database, back), "rolled_back")
        there = begun(workspace, database, sound, "shadow")
        killing(up, chosen, lambda: find(database, there), "production")
        answered = load.answers
        until(lambda: load.answers > answered + 20)
        until(lambda: len(told(workspace, there)) == 3)
        found = [find(database, each) for each in (back, there)]
        events = {each: database.read(partial(store.list_events, rollout=each)) for each in (back, there)}
    assert load.failures == []
    assert [each.stage for each in found] == ["rolled_back", "production"]
    assert [event.action for event in events[back]] == ["rollout.started", "rollout.rolled_back"]
    assert [event.details["to"] for event in events[there]] == ["shadow", "canary", "production"]
    releases = history(workspace.releases, tiny.NAME, load_signing_key(workspace.keys, None).verifier)
    marks = [each.rollout for each in releases if each.rollout is not None]
    assert len(marks) == len(set(marks)) == 5
    assert (releases[-1].version, releases[-1].canary, releases[-1].shadows) == (sound, None, ())


def registered(workspace: Workspace, **changes: Any) -> str:
    folder = tiny.write_folder(workspace.capabilities / tiny.NAME, **changes)
    return record_registration(workspace, folder, None).version


def begun(workspace: Workspace, database: Database, version: str, stage: Begun) -> str:
    steering = Steering(workspace, load_signing_key(workspace.keys, None), database)
    move = Move(capability=tiny.NAME, version=version, stage=stage, reason="for a test", principal="os:ops")
    made = begin(steering, move)
    assert isinstance(made, Rollout)
    return made.id


def find(database: Database, rollout: str) -> Rollout:
    found = database.read(lambda connection: store.find(connection, rollout))
    assert found is not None
    return found


def killing(up: tiny.Up, chosen: random.Random, look: Callable[[], Rollout], end: str) -> None:
    """Kill what steers, and now and then all of the control process, whenever something has moved, until the end.

    Each is let live until it has done something, since beginning takes it far longer than that.
    """
    deadline = time.monotonic() + SECONDS
    seen, kills = look(), 0
    while (found := look()).stage != end:
        assert time.monotonic() < deadline, (found, (up.workspace.run / "up.log").read_text()[-3_000:])
        time.sleep(0.02)
        if found == seen or kills == KILLS:
            continue
        time.sleep(chosen.uniform(0.0, 0.4))
        name = "control" if kills == 1 else "mainstay.cli.steering"
        for process in descendants(up.process.pid):
            if name in command_of(process):
                kill(process)
        kills += 1
        seen = look()


def kill(process: int) -> None:
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:  # it has ended by itself meanwhile
        return


def descendants(process: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for each in Path("/proc").iterdir():
        if each.name.isdecimal():
            try:
                parent = int((each / "stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
            children.setdefault(parent, []).append(int(each.name))
    found, waiting = [], [process]
    while waiting:
        own = children.get(waiting.pop(), [])
        found += own
        waiting += own
    return found


def command_of(process: int) -> list[str]:
    try:
        return Path(f"/proc/{process}/cmdline").read_text().split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []


def told(workspace: Workspace, rollout: str) -> set[tuple[str, int]]:
    """What the ledger has of a rollout: the action and the number, once each."""
    log = Log(workspace.ledger)
    found = set()
    for entry in log.entries(0, log.size):
        if b'"action":"rollout.' in entry.leaf:
            details = json.loads(entry.body)["details"]
            if details["rollout"] == rollout:
                found.add((json.loads(entry.leaf)["action"], details["number"]))
    return found


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.1)
