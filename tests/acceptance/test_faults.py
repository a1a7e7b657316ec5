from __future__ import annotations

import os
import resource
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

import tiny
from mainstay.authority.keys import create_key, revoke_key
from mainstay.cli.common import signing_key
from mainstay.ledger.find import find_entry
from mainstay.ledger.upkeep import keep_sealed
from mainstay.ledger.verify import verify_ledger
from mainstay.server.supervisor import running_state
from mainstay.signing import load_verifier

if TYPE_CHECKING:
    from collections.abc import Callable

    from mainstay.workspace import Workspace

pytestmark = pytest.mark.acceptance

GOOD = {"a": 0.5, "b": 0.25}
SLOW = 4  # about 0.15 s a batch


def post(up: tiny.Up, body: Any) -> httpx.Response:
    return httpx.post(up.decisions_url, json=body, headers=up.headers, timeout=20)


def worker_ids(up: tiny.Up) -> list[int]:
    state: Any = running_state(up.workspace)
    return [number for name, number in state["processes"].items() if name.startswith("worker")]


def running_control(workspace: Workspace) -> int | None:
    state: Any = running_state(workspace) or {}
    number: int | None = state.get("processes", {}).get("control")
    return number


def in_flight(up: tiny.Up) -> int:
    """How many decisions the one worker has accepted and not answered."""
    document = httpx.get(f"{up.url}/metrics", headers=up.headers).text
    return int(document.partition("\nmainstay_worker_in_flight ")[2].split()[0])


def until(holds: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.alone
def test_a_model_that_is_late_is_refused_at_the_deadline(tmp_path: Path) -> None:
    workspace, token = tiny.make_served(tmp_path / "w", graph=tiny.probability_graph(slow_steps=60))
    with tiny.up(workspace, token) as up:
        begun = time.monotonic()
        answers = [post(up, {"input": GOOD, "deadline_ms": 40.5}) for _ in range(4)]
        assert time.monotonic() - begun < 2, "the model alone takes more than two seconds"
        # A busy disk may keep the record from being written in the time that is left: then there is no decision.
        assert {answer.status_code for answer in answers} <= {503, 504}
        answer = next(answer for answer in answers if answer.status_code == 504)
        assert answer.json()["reasons"][0]["code"] == "deadline_exceeded"
        assert find_entry(workspace.ledger, answer.json()["decision_id"]) is not None
        # The late runs cannot be stopped in process: the next waits for them, which a busy machine draws out.
        assert until(lambda: post(up, {"input": GOOD}).status_code == 200, 60)


def test_a_record_under_way_at_the_deadline_is_waited_for_a_little(tmp_path: Path) -> None:
    workspace, token = tiny.make_served(tmp_path / "w")
    with tiny.up(workspace, token) as up:
        answers = [post(up, {"input": GOOD, "deadline_ms": 1}) for _ in range(40)]
        assert {answer.status_code for answer in answers} <= {200, 504}


def test_the_declared_fallback_answers_for_a_late_or_failing_model(tmp_path: Path) -> None:
    fallback = [{"constant": {"probability": 0.5, "yes": False}}]
    graph = tiny.probability_graph(slow_steps=SLOW, poisonous=True)
    workspace, token = tiny.make_served(tmp_path / "w", graph=graph, fallback=fallback)
    with tiny.up(workspace, token) as up:
        late = post(up, {"input": GOOD, "deadline_ms": 30})
        assert (late.status_code, late.json()["outcome"]) == (200, "fallback")
        assert late.json()["output"] == {"probability": 0.5, "yes": False}
        assert late.json()["reasons"][0]["code"] == "deadline_exceeded"
        failing = post(up, {"input": {"a": 1, "b": tiny.POISON}})
        assert (failing.json()["outcome"], failing.json()["reasons"][0]["code"]) == ("fallback", "model_error")


def test_a_row_that_the_model_fails_on_fails_alone(tmp_path: Path) -> None:
    workspace, token = tiny.make_served(tmp_path / "w", graph=tiny.probability_graph(poisonous=True))
    with tiny.up(workspace, token) as up:
        inputs = [{"input": {"a": 1, "b": tiny.POISON if number == 5 else 1}} for number in range(20)]
        answer = httpx.post(f"{up.decisions_url}/batch", json={"inputs": inputs}, headers=up.headers)
        outcomes = [each["outcome"] for each in answer.json()["decisions"]]
        assert outcomes == ["answered"] * 5 + ["refused"] + ["answered"] * 14


def test_more_than_may_wait_are_told_to_come_back(tmp_path: Path) -> None:
    workspace, token = tiny.make_served(
        tmp_path / "w", graph=tiny.probability_graph(slow_steps=SLOW), limits={"waiting": 2}
    )
    with tiny.up(workspace, token) as up, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: post(up, {"input": GOOD}), range(16)))
        refused = [answer for answer in answers if answer.status_code == 429]
        assert refused
        assert {answer.status_code for answer in answers} == {200, 429}
        assert refused[0].headers["retry-after"] == "1"
        assert refused[0].json()["type"] == "urn:mainstay:problem:overloaded"


def test_a_full_disk_gives_503_and_no_decision_until_there_is_room(tmp_path: Path) -> None:
    workspace, token = tiny.make_served(tmp_path / "w")
    with tiny.up(workspace, token) as up:
        worker = worker_ids(up)[0]
        assert post(up, {"input": GOOD}).status_code == 200
        resource.prlimit(worker, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
        answers = [post(up, {"input": GOOD}) for _ in range(5)]
        assert {answer.status_code for answer in answers} == {503}
        assert "decision_id" not in answers[0].json()
        assert answers[-1].headers["retry-after"] == "1"
        assert httpx.get(f"{up.url}/health/ready").status_code == 503
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.prlimit(worker, resource.RLIMIT_FSIZE, unlimited)
        assert until(lambda: httpx.get(f"{up.url}/health/ready").status_code == 200, 5)
        answer = post(up, {"input": GOOD})
        assert answer.status_code == 200
        assert find_entry(workspace.ledger, answer.json()["decision_id"]) is not None
        assert worker_ids(up) == [worker]
    assert verify_ledger(workspace.ledger, load_verifier(workspace.keys)).ok


def test_a_drained_worker_answers_what_it_accepted(tmp_path: Path) -> None:
    workspace, token = tiny.make_served(tmp_path / "w", graph=tiny.probability_graph(slow_steps=12))
    with tiny.up(workspace, token) as up, ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(post, up, {"input": GOOD}) for _ in range(4)]
        assert until(lambda: in_flight(up) == 4, 10)
        os.kill(worker_ids(up)[0], signal.SIGTERM)
        decisions = [call.result().json() for call in calls]
        assert [each["outcome"] for each in decisions] == ["answered"] * 4
        for each in decisions:
            assert find_entry(workspace.ledger, each["decision_id"]) is not None


@pytest.mark.alone
def test_a_new_release_is_served_within_two_seconds_and_no_call_is_dropped(tmp_path: Path) -> None:
    workspace, token = tiny.make_served(tmp_path / "w")
    with tiny.up(workspace, token, workers=2) as up:
        seen: list[tuple[int, int]] = []
        stop = threading.Event()

        def call() -> None:
            with httpx.Client(headers=up.headers) as client:
                while not stop.is_set():
                    answer = client.post(up.decisions_url, json={"input": GOOD})
                    seen.append((answer.status_code, answer.json().get("release", 0)))

        with ThreadPoolExecutor(4) as pool:
            for _ in range(4):
                pool.submit(call)
            time.sleep(0.3)
            tiny.release(workspace, graph=tiny.probability_graph(poisonous=True))
            published = time.monotonic()
            assert until(lambda: len(seen) > 8 and {release for _, release in seen[-8:]} == {2}, 2)
            assert time.monotonic() - published < 2
            stop.set()
        assert {status for status, _ in seen} == {200}
        assert {release for _, release in seen} == {1, 2}


def test_a_damaged_release_leaves_the_one_before_it_in_force(tmp_path: Path) -> None:
    workspace, token = tiny.make_served(tmp_path / "w")
    with tiny.up(workspace, token) as up:
        current = workspace.releases / tiny.NAME / "current"
        content = bytearray(current.read_bytes())
        content[len(content) // 2] ^= 1
        current.write_bytes(content)
        assert until(lambda: "not loaded" in (workspace.run / "up.log").read_text(), 5)
        assert post(up, {"input": GOOD}).json()["release"] == 1


@pytest.mark.alone
def test_a_revoked_key_is_refused_within_two_seconds_and_a_new_one_let_in(tmp_path: Path) -> None:
    workspace, token = tiny.make_served(tmp_path / "w")
    key = signing_key(workspace)
    made, other = create_key(workspace.access, key, name="other", capabilities=[tiny.NAME], verbs=["decide"])
    _, narrow = create_key(workspace.access, key, name="narrow", capabilities=["elsewhere"], verbs=["decide"])
    with tiny.up(workspace, token, workers=2) as up:

        def status(given: str) -> int:
            headers = {"authorization": f"Bearer {given}"}
            return httpx.post(up.decisions_url, json={"input": GOOD}, headers=headers).status_code

        assert (status(other), status(narrow)) == (200, 403)
        revoke_key(workspace.access, key, made.id)
        assert until(lambda: [status(other) for _ in range(6)] == [401] * 6, 2)
        assert status(token) == 200


def test_no_acknowledged_decision_is_lost_when_workers_are_killed(tmp_path: Path) -> None:
    workspace, token = tiny.make_served(tmp_path / "w")
    acknowledged: list[str] = []
    with tiny.up(workspace, token, workers=2) as up:
        stop = threading.Event()

        def call() -> None:
            with httpx.Client(headers=up.headers) as client:
                while not stop.is_set():
                    try:
                        answer = client.post(up.decisions_url, json={"input": GOOD})
                    except httpx.TransportError:
                        continue
                    assert answer.status_code == 200
                    acknowledged.append(answer.json()["decision_id"])

        with ThreadPoolExecutor(6) as pool:
            callers = [pool.submit(call) for _ in range(6)]
            for _ in range(8):
                time.sleep(0.25)
                os.kill(worker_ids(up)[0], signal.SIGKILL)
                assert until(lambda: len(worker_ids(up)) == 2, 10)
            stop.set()
            for caller in callers:
                caller.result()
    report = verify_ledger(workspace.ledger, load_verifier(workspace.keys))
    assert report.ok, report
    assert len(acknowledged) == len(set(acknowledged))
    assert len(acknowledged) > 100
    for each in acknowledged:
        assert find_entry(workspace.ledger, each) is not None


def test_what_is_recorded_is_sealed_once_though_the_control_process_is_killed(tmp_path: Path) -> None:
    workspace, token = tiny.make_served(tmp_path / "w")
    decided = []
    with tiny.up(workspace, token, seal_interval_seconds=0.01) as up:
        for _ in range(6):
            state: Any = running_state(workspace)
            control = state["processes"].get("control")
            decided += [post(up, {"input": GOOD}).json()["decision_id"] for _ in range(20)]
            if control is not None:
                os.kill(control, signal.SIGKILL)
            decided += [post(up, {"input": GOOD}).json()["decision_id"] for _ in range(20)]
            assert until(lambda: running_control(workspace) not in (None, control), 10)  # noqa: B023 - called at once
    stop = threading.Event()
    stop.set()
    keep_sealed(
        workspace, signing_key(workspace), stop
    )  # one that ended while it started has left the rest to the next
    report = verify_ledger(workspace.ledger, load_verifier(workspace.keys))
    assert report.ok, report
    assert report.kinds["decision"] == len(decided)
    for each in decided:
        found = find_entry(workspace.ledger, each)
        assert found is not None
        assert found.sequence is not None


def test_a_second_supervisor_of_a_workspace_is_turned_away(tmp_path: Path) -> None:
    workspace, token = tiny.make_served(tmp_path / "w")
    with tiny.up(workspace, token), pytest.raises(Exception, match="after 30 s"), tiny.up(workspace, token):
        pass


def test_workers_end_when_their_supervisor_is_killed(tmp_path: Path) -> None:
    workspace, token = tiny.make_served(tmp_path / "w")
    with tiny.up(workspace, token, workers=2) as up:
        workers = worker_ids(up)
        os.kill(up.process.pid, signal.SIGKILL)
        assert until(lambda: not any(Path(f"/proc/{worker}/cmdline").exists() for worker in workers), 10)
    with tiny.up(workspace, token) as up:
        assert post(up, {"input": GOOD}).status_code == 200
