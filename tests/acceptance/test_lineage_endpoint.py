"""Events of lineage sent to a real HTTP server that takes them, refuses them, is slow or not there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from openlineage.client.event_v2 import Job, Run, RunEvent, RunState
from openlineage.client.transport.http import ApiKeyTokenProvider, HttpConfig, HttpTransport

from lineage.emitted import kinds, make_workspace
from lineage.others import read_by_their_client
from mainstay.lineage import endpoint
from mainstay.lineage.emitting import Emitter, standing, uuid7

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mainstay.workspace import Workspace

pytestmark = pytest.mark.acceptance

KEY = "a-key-of-tests"
VARIABLES = {"OPENLINEAGE_API_KEY": KEY}
BOTH = [("load", "START"), ("load", "COMPLETE")]


class Receiver(ThreadingHTTPServer):
    """Takes what clients of OpenLineage send; `answers` are given first, and then 201."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.events: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.pause_seconds = 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["content-length"]))
        time.sleep(self.server.pause_seconds)
        self.server.paths.append(self.path)
        self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
        status, headers = self.server.answers.pop(0) if self.server.answers else (201, {})
        if status == 201:
            self.server.events.append(msgspec.json.decode(content))
        self.send_response(status)
        for name, value in {"content-length": "0", **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as the standard library calls it
        pass


@contextmanager
def receiving(port: int = 0) -> Iterator[Receiver]:
    with Receiver(port) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as server:
        yield server


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "FIRST_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(endpoint, "LONGEST_PAUSE_SECONDS", 0.2)


def load(workspace: Workspace, times: int = 1) -> Emitter:
    emitter = Emitter(workspace, VARIABLES)
    for _ in range(times):
        with emitter.run("load"):
            pass
    return emitter


def wait_until(true: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


def test_events_arrive_in_order_where_the_standards_own_client_sends_them(receiver: Receiver, tmp_path: Path) -> None:
    load(make_workspace(tmp_path, receiver.url), 3).close(20)
    assert kinds(receiver.events) == BOTH * 3
    for event in receiver.events:
        read_by_their_client(event)
    config = HttpConfig(url=receiver.url, auth=ApiKeyTokenProvider({"api_key": KEY}))
    run = RunEvent(
        eventType=RunState.START,
        eventTime="2026-01-01T00:00:00Z",
        run=Run(runId=str(uuid7())),
        job=Job("theirs", "load"),
        producer="urn:theirs",
    )
    HttpTransport(config).emit(run)
    assert len(set(receiver.paths)) == 1
    assert {each["authorization"] for each in receiver.headers} == {f"Bearer {KEY}"}
    assert {each["content-type"] for each in receiver.headers} == {"application/json"}


def test_the_endpoint_may_be_named_with_its_path(receiver: Receiver, tmp_path: Path) -> None:
    load(make_workspace(tmp_path, f"{receiver.url}/api/v1/lineage")).close(20)
    assert set(receiver.paths) == {"/api/v1/lineage"}


@pytest.mark.parametrize("status", [500, 503, 401, 404, 429, 302])
def test_what_was_not_taken_is_sent_again(status: int, receiver: Receiver, tmp_path: Path) -> None:
    receiver.answers = [(status, {"retry-after": "0", "location": f"{receiver.url}/other"})] * 2
    workspace = make_workspace(tmp_path, receiver.url)
    emitter = load(workspace)
    wait_until(lambda: kinds(receiver.events) == BOTH)
    wait_until(lambda: standing(workspace)[1:] == (0, 0, ""))
    emitter.close()


def test_what_is_refused_for_good_is_counted_and_the_next_is_sent(receiver: Receiver, tmp_path: Path) -> None:
    receiver.answers = [(422, {})]
    workspace = make_workspace(tmp_path, receiver.url)
    load(workspace).close(20)
    assert kinds(receiver.events) == BOTH[1:]
    assert standing(workspace).lost == 1


def test_a_slow_endpoint_holds_nobody_up(receiver: Receiver, tmp_path: Path) -> None:
    receiver.pause_seconds = 1.0
    workspace = make_workspace(tmp_path, receiver.url)
    began = time.monotonic()
    emitter = load(workspace, 5)
    assert time.monotonic() - began < 1.0
    emitter.close(0)
    assert time.monotonic() - began < 2.5
    assert standing(workspace).waiting >= 8


def test_events_wait_for_an_endpoint_that_is_not_there(tmp_path: Path) -> None:
    with receiving() as first:
        port = first.server_address[1]
    workspace = make_workspace(tmp_path, f"http://127.0.0.1:{port}")
    began = time.monotonic()
    load(workspace, 2).close()
    assert time.monotonic() - began < 2.0  # it is known to be gone: nobody waits for it
    found = standing(workspace)
    assert (found.waiting, found.lost) == (4, 0)
    assert "no answer" in found.problem
    with receiving(port) as again:
        emitter = Emitter(workspace, VARIABLES)
        wait_until(lambda: kinds(again.events) == BOTH * 2)
        emitter.close()
    assert standing(workspace)[1:] == (0, 0, "")


def test_a_full_queue_loses_the_newest_and_counts_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mainstay.lineage.sinks.MAX_WAITING", 3)
    workspace = make_workspace(tmp_path, "http://127.0.0.1:9")
    load(workspace, 4).close()
    assert (standing(workspace).waiting, standing(workspace).lost) == (3, 5)


CHILD = """
import sys
from pathlib import Path
from mainstay.lineage.emitting import Emitter
from mainstay.workspace import open_workspace
emitter = Emitter(open_workspace(Path(sys.argv[1])))
while True:
    with emitter.run("load"):
        print(flush=True)
"""


def test_a_process_killed_at_any_moment_loses_no_event_that_it_had_emitted(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, "http://127.0.0.1:9")
    runs = 0
    for round_ in range(5):
        paths = os.pathsep.join(path for path in sys.path if path)
        with subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": paths},
        ) as process:
            assert process.stdout is not None
            for _ in range(3 + round_):
                assert process.stdout.readline() == b"\n"
                runs += 1
            process.send_signal(signal.SIGKILL)
            runs += len(process.stdout.read())
    with receiving() as receiver:
        emitter = Emitter(make_workspace(tmp_path, receiver.url), VARIABLES)
        wait_until(lambda: standing(workspace).waiting == 0)
        emitter.close()
        events = receiver.events
    started = {event["run"]["runId"] for event in events if event["eventType"] == "START"}
    ended = {event["run"]["runId"] for event in events if event["eventType"] == "COMPLETE"}
    assert len(started) >= runs  # one may have begun that had no time to say so
    assert ended <= started
    assert len(ended) >= runs - 5


def test_a_key_that_no_header_holds_is_told_and_not_shown(receiver: Receiver, tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, lineage=receiver.url)
    emitter = Emitter(workspace, {"OPENLINEAGE_API_KEY": "geheim\nOder"})
    with emitter.run("load"):
        pass
    wait_until(lambda: bool(standing(workspace).problem))
    emitter.close(0.1)
    assert "OPENLINEAGE_API_KEY" in standing(workspace).problem
    assert "geheim" not in standing(workspace).problem
    assert receiver.events == []


def test_blanks_around_the_key_do_not_count(receiver: Receiver, tmp_path: Path) -> None:
    emitter = Emitter(make_workspace(tmp_path, lineage=receiver.url), {"OPENLINEAGE_API_KEY": f"{KEY}\n"})
    with emitter.run("load"):
        pass
    emitter.close(5)
    assert receiver.headers[0]["authorization"] == f"Bearer {KEY}"
