from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import httpx
import msgspec
import pytest

import tiny
from mainstay.intake.landing import landing_of
from mainstay.server.supervisor import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mainstay.workspace import Workspace

pytestmark = pytest.mark.acceptance

EVENTS = f"/v1/capabilities/{tiny.NAME}/sources/orders/events"
SOURCES = [{"name": "orders", "push": {}}]
WORKERS = 2
SENDERS = 4
KILLS = 8
MORE = 40  # events accepted between two kills

ADOPT = """
    import sys, time
    from pathlib import Path
    from mainstay.intake.adopting import PushFetcher
    from mainstay.intake.landing import landing_of

    landing = landing_of(Path(sys.argv[1]), "tiny", "orders")
    fetcher = PushFetcher("a test", landing)
    waiting = landing.waiting()
    cursor = waiting[-1].cursor if waiting else None
    for _ in range(int(sys.argv[2])):
        while (item := fetcher.step(cursor)) is not None:
            cursor = item.cursor
        time.sleep(0.02)
"""


class Processes:
    """Workers on one port and a process that makes items; each is begun again when it is killed."""

    def __init__(self, workspace: Workspace) -> None:
        self._data = workspace.data
        self._root = workspace.root
        self.port = free_port("127.0.0.1")
        self._log = (workspace.root / "processes.log").open("ab")
        self.workers = [self._worker(slot) for slot in range(WORKERS)]
        self.adopter = self.adopt(100_000)

    def _worker(self, slot: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "mainstay.server.worker", "--workspace", str(self._root), "--slot", str(slot)]
        return subprocess.Popen(command, stderr=self._log, env=os.environ | {"MAINSTAY_PORT": str(self.port)})

    def adopt(self, times: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", textwrap.dedent(ADOPT), str(self._data), str(times)]
        return subprocess.Popen(command, stderr=self._log)

    def kill_one(self) -> None:
        chosen = random.randrange(WORKERS + 1)
        process = self.adopter if chosen == WORKERS else self.workers[chosen]
        process.send_signal(signal.SIGKILL)
        process.wait()
        if chosen == WORKERS:
            self.adopter = self.adopt(100_000)
        else:
            self.workers[chosen] = self._worker(chosen)

    def end(self) -> None:
        for process in (*self.workers, self.adopter):
            process.terminate()
        for process in (*self.workers, self.adopter):
            process.wait(20)
        self._log.close()


@contextmanager
def running(workspace: Workspace) -> Iterator[Processes]:
    processes = Processes(workspace)
    try:
        yield processes
    finally:
        processes.end()


class Sender:
    """Sends events, and remembers which were accepted, and which may have been."""

    def __init__(self, url: str, token: str, number: int) -> None:
        self._url = url
        self._headers = {"authorization": f"Bearer {token}"}
        self._number = number
        self._sent = 0
        self.accepted: list[str] = []
        self.unsure: list[str] = []

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            self._sent += 1
            ids = [f"{self._number}-{self._sent}-{each}" for each in range(random.randint(1, 5))]
            if self._sent % 2:
                self._send_until_accepted(ids, stop)
            else:
                (self.accepted if self._send(ids, {}) else self.unsure).extend(ids)

    def _send_until_accepted(self, ids: list[str], stop: threading.Event) -> None:
        key = {"idempotency-key": ids[0]}
        while not self._send(ids, key):
            if stop.wait(0.02):
                self.unsure.extend(ids)
                return
        self.accepted.extend(ids)

    def _send(self, ids: list[str], headers: dict[str, str]) -> bool:
        body = msgspec.json.encode([{"id": each} for each in ids])
        try:
            answer = httpx.post(self._url, content=body, headers=self._headers | headers, timeout=10)
        except httpx.TransportError:
            return False
        return answer.status_code == 202 and answer.json() == {"accepted": len(ids)}


def wait_for_more(senders: list[Sender]) -> None:
    """Until some more events were accepted: a worker takes a while to begin."""
    before, deadline = sum(len(sender.accepted) for sender in senders), time.monotonic() + 30
    while sum(len(sender.accepted) for sender in senders) < before + MORE:
        assert time.monotonic() < deadline, "no events are accepted"
        time.sleep(0.02)


def test_workers_and_adopter_killed_at_random_every_accepted_event_is_in_exactly_one_item(tmp_path: Path) -> None:
    workspace, token = tiny.make_served(tmp_path / "w", sources=SOURCES)
    with running(workspace) as processes:
        url = f"http://127.0.0.1:{processes.port}{EVENTS}"
        senders = [Sender(url, token, number) for number in range(SENDERS)]
        stop = threading.Event()
        with ThreadPoolExecutor(SENDERS) as pool:
            running_senders = [pool.submit(sender.run, stop) for sender in senders]
            try:
                for _ in range(KILLS):
                    wait_for_more(senders)
                    time.sleep(random.uniform(0, 0.2))
                    processes.kill_one()
                wait_for_more(senders)
            finally:
                stop.set()
            for each in running_senders:
                each.result()
    accepted = {event for sender in senders for event in sender.accepted}
    unsure = {event for sender in senders for event in sender.unsure}
    landing = landing_of(workspace.data, tiny.NAME, "orders")
    adopter = subprocess.run([sys.executable, "-c", textwrap.dedent(ADOPT), str(workspace.data), "1"], check=False)
    assert adopter.returncode == 0
    lines = [line for item in landing.waiting() for line in landing.path(item).read_bytes().splitlines()]
    landed = Counter(msgspec.json.decode(line)["id"] for line in lines)
    assert len(accepted) >= KILLS * MORE
    assert accepted - landed.keys() == set(), "accepted, and in no item"
    assert {event for event, times in landed.items() if times > 1} == set(), "in more than one place"
    assert landed.keys() - accepted - unsure == set()
    assert list((landing.folder.parent / "pushed").glob("*.wal")) == []


def test_a_service_that_is_up_takes_events_and_says_how(tmp_path: Path) -> None:
    workspace, token = tiny.make_served(tmp_path / "w", sources=SOURCES)
    with tiny.up(workspace, token) as up:
        answer = httpx.post(
            f"{up.url}{EVENTS}",
            content=b'{"id": 1}\n{"id": 2}\n',
            headers=up.headers | {"content-type": "application/x-ndjson"},
        )
        assert (answer.status_code, answer.json()) == (202, {"accepted": 2})
        described = httpx.get(f"{up.url}/openapi.json", headers=up.headers).json()
        assert EVENTS in described["paths"]
