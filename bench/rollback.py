"""How soon a release, a rollback and a stop reach every worker under load, and whether any call fails meanwhile.

`mainstay up` serves the model of decisions.py with several workers. Callers ask without end, each on a connection that
it opens anew every few calls, so that every worker is asked all the time. Each step is timed from when it was published
to when the last call began that was still decided as before; a call that did not get an answer of the decision path
counts as failed. Then the control process is killed, at random moments.

    python bench/rollback.py [--workers 4] [--callers 8] [--rounds 5] [--json]
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, NamedTuple, Self, TypedDict
from urllib.parse import urlsplit

from fixture import CAPABILITY, make_fixture

from mainstay.catalog.holding import resume, stop
from mainstay.catalog.releases import end_shadow, publish, publish_canary, publish_shadow, roll_back
from mainstay.cli.versions import record_registration
from mainstay.server.supervisor import free_port, running_state, wait_until_ready
from mainstay.signing import load_signing_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mainstay.signing import SigningKey
    from mainstay.workspace import Workspace

CALLS_A_CONNECTION = 20
SETTLED_SECONDS = 0.5  # of calls that are all decided in the new way, before a step has reached everybody
LONGEST_SECONDS = 15.0  # that is waited for this
RELEASE_GOAL_SECONDS, ROLLBACK_GOAL_SECONDS = 2.0, 5.0
PRINCIPAL = "os:bench"


class Said(TypedDict):
    """Who publishes, and why."""

    reason: str
    principal: str
    key: SigningKey


class Answer(NamedTuple):
    """One call: when it began and ended (monotonic seconds), and what it was answered."""

    begun: float
    ended: float
    release: int
    stage: str
    outcome: str
    reason: str


class Callers:
    """Ask one capability without end, each on connections of its own, with a pause between calls."""

    def __init__(
        self, url: str, token: str, capability: str, body: bytes, callers: int, *, pause_seconds: float = 0.0
    ) -> None:
        self._address = urlsplit(url)
        self._path = f"/v1/capabilities/{capability}/decisions"
        self._headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        self._body = body
        self._pause_seconds = pause_seconds
        self._end = Event()
        self.answers: list[Answer] = []
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
        while not self._end.is_set():
            connection = http.client.HTTPConnection(self._address.hostname or "", self._address.port, timeout=20)
            try:
                for _ in range(CALLS_A_CONNECTION):
                    self._ask(connection)
                    if self._end.wait(self._pause_seconds):
                        break
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(f"{type(error).__name__}: {error}")
            finally:
                connection.close()

    def _ask(self, connection: http.client.HTTPConnection) -> None:
        begun = time.monotonic()
        connection.request("POST", self._path, self._body, self._headers)
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            self.failures.append(f"{answer.status}: {content.decode('utf-8', 'replace')[:200]}")
            return
        found = json.loads(content)
        reason = found["reasons"][0]["code"] if found["reasons"] else ""
        self.answers.append(Answer(begun, time.monotonic(), found["release"], found["stage"], found["outcome"], reason))

    def reached(self, since: float, holds: Callable[[Answer], bool]) -> float:
        """Seconds from `since` until every call that began was decided as it should be.

        Raises TimeoutError when that is not so within LONGEST_SECONDS.
        """
        while time.monotonic() < since + LONGEST_SECONDS:
            time.sleep(SETTLED_SECONDS / 5)
            later = [each for each in self.answers if each.begun >= since]
            last = max((each.begun for each in later if not holds(each)), default=since)
            if sum(each.begun > last for each in later) >= 50 and time.monotonic() - last >= SETTLED_SECONDS:
                return last - since
        raise TimeoutError(f"{LONGEST_SECONDS:g} s after it was published, some calls are still decided as before")


@dataclass(frozen=True)
class Step:
    """What one step did."""

    name: str
    seconds: float  # until the last worker followed
    goal_seconds: float


@dataclass
class Drill:
    """Steps of one rollout under load, against one running service."""

    workspace: Workspace
    capability: str
    key: SigningKey
    callers: Callers
    steps: list[Step] = field(default_factory=list)

    def run(self, first: str, second: str) -> None:
        """Take `second` from shadow through canary into production beside `first`, back again, stop and resume."""
        where = (self.workspace, self.capability)
        self._publish("promote", lambda: publish(*where, first, **self._said()).number)
        self._publish("shadow", lambda: publish_shadow(*where, second, share=1.0, queue=256, **self._said()).number)
        self._publish("canary", lambda: publish_canary(*where, second, 20.0, **self._said()).number)
        self._publish("promote", lambda: publish(*where, second, **self._said()).number)
        self._publish("rollback", lambda: roll_back(*where, **self._said()).number, ROLLBACK_GOAL_SECONDS)
        end_shadow(*where, second, **self._said())
        self._hold("stop", lambda: stop(*where, **self._said()), stopped=True)
        self._hold("resume", lambda: resume(*where, **self._said()), stopped=False)

    def _said(self) -> Said:
        return {"reason": "a drill", "principal": PRINCIPAL, "key": self.key}

    def _publish(self, name: str, act: Callable[[], int], goal_seconds: float = RELEASE_GOAL_SECONDS) -> None:
        number = act()
        seconds = self.callers.reached(time.monotonic(), lambda each: each.release >= number)
        self.steps.append(Step(name, seconds, goal_seconds))

    def _hold(self, name: str, act: Callable[[], object], *, stopped: bool) -> None:
        act()
        seconds = self.callers.reached(time.monotonic(), lambda each: (each.reason == "stopped") is stopped)
        self.steps.append(Step(name, seconds, RELEASE_GOAL_SECONDS))


def kill_control(workspace: Workspace) -> int:
    """Kill the control process of a running workspace as the kernel does; its process id."""
    state = running_state(workspace)
    assert state is not None, "expected a workspace that is up"
    processes = state["processes"]
    assert isinstance(processes, dict)
    pid = int(processes["control"])
    os.kill(pid, signal.SIGKILL)
    return pid


def quantile_ms(answers: list[Answer], share: float) -> float:
    """The time that `share` of the answers came within."""
    taken = sorted(each.ended - each.begun for each in answers)
    return taken[min(len(taken) - 1, int(share * len(taken)))] * 1000 if taken else float("nan")


@contextmanager
def served(workspace: Workspace, workers: int) -> Iterator[str]:
    """`mainstay up`; its URL."""
    port = free_port("127.0.0.1")
    command = [sys.executable, "-m", "mainstay.cli.main", "up", "--workspace", str(workspace.root)]
    command += ["--port", str(port), "--workers", str(workers)]
    url = f"http://127.0.0.1:{port}"
    workspace.run.mkdir(parents=True, exist_ok=True)
    with (workspace.run / "up.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        wait_until_ready(url, 60, alive=lambda: process.poll() is None)
        yield url
    finally:
        process.terminate()
        process.wait(60)


@dataclass(frozen=True)
class Found:
    """All rounds: the longest that each step took, and what became of the calls."""

    workers: int
    calls: int
    failures: list[str]
    steps: list[Step]
    p99_ms: dict[str, float]


def measure(directory: Path, workers: int, callers: int, rounds: int) -> Found:
    fixture = make_fixture(directory)
    workspace = fixture.workspace
    folder = workspace.capabilities / CAPABILITY
    versions = []
    for title in ("The first", "The second"):
        declared = (folder / "capability.yaml").read_text().replace("Tumour triage", title)
        (folder / "capability.yaml").write_text(declared)
        versions.append(record_registration(workspace, folder, "made by this benchmark").version)
        (folder / "capability.yaml").write_text(declared.replace(title, "Tumour triage"))
    body = json.dumps({"input": fixture.rows[0]}).encode()
    key = load_signing_key(workspace.keys, None)
    quiet: list[Answer] = []
    with served(workspace, workers) as url, Callers(url, fixture.token, CAPABILITY, body, callers) as load:
        time.sleep(3.0)
        quiet = list(load.answers)
        drill = Drill(workspace, CAPABILITY, key, load)
        for _ in range(rounds):
            drill.run(*versions)
        drilled = load.answers[len(quiet) :]
        for _ in range(rounds):
            time.sleep(random.uniform(1.0, 2.0))
            kill_control(workspace)
        time.sleep(1.0)
        killed = load.answers[len(quiet) + len(drilled) :]
    names = list(dict.fromkeys(step.name for step in drill.steps))
    parts = {"before": quiet, "during the steps": drilled, "control killed": killed}
    p99 = {name: round(quantile_ms(answers, 0.99), 2) for name, answers in parts.items()}
    return Found(workers, len(load.answers), load.failures, [_worst(name, drill.steps) for name in names], p99)


def _worst(name: str, steps: list[Step]) -> Step:
    return max((step for step in steps if step.name == name), key=lambda step: step.seconds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--callers", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="mainstay-rollback-"))
    try:
        found = measure(directory / "workspace", given.workers, given.callers, given.rounds)
    finally:
        shutil.rmtree(directory)
    if given.json:
        print(json.dumps(asdict(found), indent=2))
    else:
        show(found)
    met = not found.failures and all(step.seconds <= step.goal_seconds for step in found.steps)
    return 0 if met else 1


def show(found: Found) -> None:
    """The figures for people."""
    print(f"{found.workers} workers, {found.calls:,} calls, {len(found.failures)} failed")
    print(*found.failures[:10], sep="\n")
    print(f"{'step':<12} {'last worker followed after':>28} {'goal':>8}")
    for step in found.steps:
        print(f"{step.name:<12} {step.seconds:>26.2f} s {step.goal_seconds:>6.0f} s")
    print("p99 of answers, ms: " + ", ".join(f"{name} {taken:g}" for name, taken in found.p99_ms.items()))


if __name__ == "__main__":
    sys.exit(main())
