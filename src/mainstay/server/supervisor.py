"""The supervisor: starts the workers and the control process, starts them again when they die, and drains them.

It holds nothing that they need: if it is killed, the kernel asks its children to drain and end.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.error import URLError
from urllib.request import urlopen

from mainstay.errors import Damaged, Failed, Misuse
from mainstay.files import write_atomic

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mainstay.workspace import Workspace

logger = logging.getLogger("mainstay.server")

STATE_FILE = "up.json"
CONTROL = "control"
POLL_SECONDS = 0.1
FIRST_BACKOFF_SECONDS = 0.1
LONGEST_BACKOFF_SECONDS = 5.0
HEALTHY_SECONDS = 1.0  # a child that lived this long had started: it starts again with the first back-off
KILL_AFTER_SECONDS = 5.0  # beyond the drain


@dataclass(slots=True)
class Child:
    """A process that should be running."""

    name: str
    command: list[str]
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    backoff_seconds: float = FIRST_BACKOFF_SECONDS
    start_at: float = 0.0
    deaths: int = field(default=0)

    def start(self, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, env=environment, start_new_session=True)
        self.started_at = time.monotonic()

    def tend(self, environment: dict[str, str]) -> bool:
        """Start the process if it should be started now; whether anything changed."""
        now = time.monotonic()
        if self.process is None:
            if now < self.start_at:
                return False
            self.start(environment)
            return True
        code = self.process.poll()
        if code is None:
            return False
        if now - self.started_at > HEALTHY_SECONDS:
            self.backoff_seconds = FIRST_BACKOFF_SECONDS
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        logger.warning("%s ended with %s, starting again in %.1f s", self.name, how, self.backoff_seconds)
        self.deaths += 1
        self.process = None
        self.start_at = now + self.backoff_seconds
        self.backoff_seconds = min(self.backoff_seconds * 2, LONGEST_BACKOFF_SECONDS)
        return True


class Supervisor:
    """Keeps one workspace up."""

    def __init__(self, workspace: Workspace, *, control: list[str] | None = None) -> None:
        """`control` is the command of the control process; None leaves it to somebody else."""
        self._workspace = workspace
        settings = workspace.settings  # as the command line has them; the workers are told by environment
        self._environment = {**os.environ, "MAINSTAY_HOST": settings.host, "MAINSTAY_PORT": str(settings.port)}
        self._environment.setdefault("OPENBLAS_NUM_THREADS", "1")  # a worker has one core: threads would only contend
        self._children = [
            Child(f"worker-{slot}", _worker_command(workspace.root, slot)) for slot in range(settings.workers)
        ]
        if control is not None:
            self._children.append(Child(CONTROL, control))
        self._stopping = False
        self._lock = -1

    @property
    def url(self) -> str:
        host = self._workspace.settings.host
        return f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{self._workspace.settings.port}"  # noqa: S104 - read, not bound

    def run(self, *, on_ready: Callable[[str], None] = lambda _url: None) -> None:
        """Keep everything running until SIGTERM or SIGINT, then drain.

        `on_ready` is called with the URL once the first worker takes decisions. Raises Misuse when this workspace is
        up already or the port is taken.
        """
        self._claim()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask_to_stop)
        ready = False
        try:
            while not self._stopping:
                changed = [child.tend(self._environment) for child in self._children]
                if any(changed):
                    self._write_state()
                if not ready and is_ready(self.url):
                    ready = True
                    on_ready(self.url)
                time.sleep(POLL_SECONDS)
        finally:
            self._drain()

    def _ask_to_stop(self, _number: int, _frame: object) -> None:
        self._stopping = True

    def _claim(self) -> None:
        """Be the only supervisor of this workspace, on a port that nobody else has."""
        run = self._workspace.run
        run.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(run / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Misuse(f"{self._workspace.root} is up already", hint="See `mainstay status`.") from None
        settings = self._workspace.settings
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((settings.host, settings.port))
            except OSError as error:
                message = f"cannot listen on {settings.host}:{settings.port}: {error.strerror}"
                raise Misuse(message, hint="Set another `port` in mainstay.toml, or MAINSTAY_PORT.") from None

    def _write_state(self) -> None:
        state = {
            "url": self.url,
            "supervisor": os.getpid(),
            "processes": {child.name: child.process.pid for child in self._children if child.process is not None},
            "deaths": {child.name: child.deaths for child in self._children},
        }
        write_atomic(self._workspace.run / STATE_FILE, json.dumps(state).encode())

    def _drain(self) -> None:
        """End the workers, then the control process, so that it seals what they wrote last."""
        workers = [child for child in self._children if child.name != CONTROL]
        self._end(workers)
        self._end([child for child in self._children if child.name == CONTROL])
        (self._workspace.run / STATE_FILE).unlink(missing_ok=True)
        os.close(self._lock)

    def _end(self, children: list[Child]) -> None:
        running = [child.process for child in children if child.process is not None]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + self._workspace.settings.drain_seconds + KILL_AFTER_SECONDS
        for process in running:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                logger.warning("process %d did not end in time, killing it", process.pid)
                process.kill()
                process.wait()


def is_ready(url: str) -> bool:
    """Whether a worker at `url` takes decisions."""
    try:
        with urlopen(f"{url}/health/ready", timeout=1) as answer:  # noqa: S310 - our own http URL
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def running_state(workspace: Workspace) -> dict[str, object] | None:
    """What the supervisor of this workspace last wrote, if one is running. Raises Damaged when it is no such thing."""
    try:
        content = (workspace.run / STATE_FILE).read_bytes()
        descriptor = os.open(workspace.run / "up.lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        state = _read_state(content)
        if state is None:
            message = f"{workspace.run / STATE_FILE}: expected what a supervisor writes, found something else"
            raise Damaged(message) from None
        return state
    else:
        return None
    finally:
        os.close(descriptor)


def _read_state(content: bytes) -> dict[str, object] | None:
    try:
        state = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return state if isinstance(state, dict) and isinstance(state.get("url"), str) else None


def free_port(host: str) -> int:
    """A port that nobody listens on now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until_ready(url: str, seconds: float, *, alive: Callable[[], bool] = lambda: True) -> None:
    """Wait until a worker at `url` takes decisions. Raises Failed after `seconds`, or when `alive` says no."""
    deadline = time.monotonic() + seconds
    while not is_ready(url):
        if time.monotonic() > deadline or not alive():
            raise Failed(f"nothing takes decisions at {url} after {seconds:.0f} s", hint="Its log says why.")
        time.sleep(0.05)


def _worker_command(root: Path, slot: int) -> list[str]:
    return [
        sys.executable,
        "-m",
        "mainstay.server.worker",
        "--workspace",
        str(root),
        "--slot",
        str(slot),
        "--with-parent",
    ]
