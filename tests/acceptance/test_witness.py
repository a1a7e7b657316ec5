"""A witness on a machine of its own: real processes, asked by code that is written from the specification alone."""

from __future__ import annotations

import hashlib
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import pytest

import tiny
from acceptance.witness_protocol import Connection, Log, cosigned_at, tree_hash
from ledger.samples import write_segment
from mainstay.cli.init import create_workspace
from mainstay.ledger.sealer import Sealer
from mainstay.server.supervisor import free_port
from mainstay.server.witness import BODY_SECONDS
from mainstay.signing import load_signing_key

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mainstay.workspace import Workspace

pytestmark = pytest.mark.acceptance

ORIGIN = "log.example.com/others"
COMMAND = [sys.executable, "-m", "mainstay.cli.main"]


def run(*words: str, fails: int = 0) -> str:
    """What a command prints."""
    done = subprocess.run([*COMMAND, *words], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == fails, (done.stdout, done.stderr)
    return done.stdout if not fails else done.stdout + done.stderr


@dataclass
class Served:
    """A witness that is being served."""

    directory: Path
    port: int
    vkey: str
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connection(self) -> closing[Connection]:
        return closing(Connection(self.port))

    def ask(self, method: str, path: str, body: bytes = b"") -> Any:
        with self.connection() as connection:
            return connection.ask(method, path, body)

    def submit(self, body: bytes) -> Any:
        return self.ask("POST", "/add-checkpoint", body)


def start(directory: Path, port: int) -> Served:
    """Serve a witness, and wait until it is ready."""
    with (directory / "log.txt").open("ab") as log:
        command = [*COMMAND, "witness", "serve", str(directory), "--port", str(port)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    served = Served(directory, port, (directory / "witness.vkey").read_text().strip(), process)
    deadline = time.monotonic() + 20
    while True:
        try:
            if served.ask("GET", "/health/ready").status == 200:
                return served
        except OSError:
            assert process.poll() is None, (directory / "log.txt").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)


def end(served: Served) -> None:
    served.process.terminate()
    assert served.process.wait(20) == 0, (served.directory / "log.txt").read_text()


@pytest.fixture(params=["ed25519", "ml-dsa-44"])
def witness(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    """A witness that knows no log."""
    run("witness", "init", str(tmp_path / "w"), "--name", "witness.example.com/w", "--algorithm", request.param)
    served = start(tmp_path / "w", free_port("127.0.0.1"))
    yield served
    end(served)


def test_a_witness_follows_the_specification(witness: Served) -> None:
    log = Log(ORIGIN)
    path = f"/{hashlib.sha256(ORIGIN.encode()).hexdigest()}/checkpoint"
    assert witness.submit(log.body(0, 5)).status == 404, "default deny"
    run("witness", "add-log", str(witness.directory), log.vkey)
    assert witness.ask("GET", path).status == 404, "never cosigned"
    with witness.connection() as connection:  # kept open, as clients should
        size = 0
        shown = b""
        for larger in (5, 8, 8, 64, 100, 257):
            before = int(time.time())
            reply = connection.ask("POST", "/add-checkpoint", log.body(size, larger))
            assert reply.status == 200, reply
            assert before <= cosigned_at(reply.body, witness.vkey, log.text(larger)) <= time.time() + 1
            size, shown = larger, log.sign(log.text(larger)) + reply.body
        assert connection.ask("GET", path).body == shown
        for old in (0, 256, 258):
            conflict = connection.ask("POST", "/add-checkpoint", log.body(old, 300))
            assert (conflict.status, conflict.body) == (409, b"257\n")
            assert conflict.headers["content-type"] == "text/x.tlog.size"
        other = Log(ORIGIN, "another leaf", log.key)
        rules = {
            400: [b"", b"old 257\n" + log.sign(log.text(300)), log.body(0, 100).replace(b"old 0", b"old 101")],
            403: [Log(ORIGIN).body(257, 300), log.body(257, 300).replace(b"\n300\n", b"\n301\n")],
            404: [Log("unknown.example.com").body(0, 5)],
            422: [other.body(257, 300), other.body(257, 257), b"old 257\n\n" + log.sign(log.text(300))],
        }
        for status, bodies in rules.items():
            assert {connection.ask("POST", "/add-checkpoint", body).status for body in bodies} == {status}
        assert connection.ask("POST", "/add-checkpoint", log.body(257, 300)).status == 200


def test_the_empty_log_is_cosigned_with_the_head_of_the_empty_tree_only(witness: Served) -> None:
    log = Log(ORIGIN)
    run("witness", "add-log", str(witness.directory), log.vkey)
    wrong = b"old 0\n\n" + log.sign(log.text(0, bytes(32)))
    assert witness.submit(wrong).status == 422
    empty = b"old 0\n\n" + log.sign(log.text(0, tree_hash([])))
    assert cosigned_at(witness.submit(empty).body, witness.vkey, log.text(0))
    assert witness.submit(log.body(0, 5).replace(b"old 0\n", b"old 0\n" + b"A" * 43 + b"=\n")).status == 422
    assert witness.submit(log.body(0, 5)).status == 200


@pytest.mark.parametrize("witness", ["ed25519"], indirect=True)
def test_requests_are_bounded(witness: Served) -> None:
    assert witness.submit(bytes(300_000)).status == 413
    assert witness.ask("GET", "/add-checkpoint").status == 405
    assert witness.ask("POST", "/health/live").status == 405
    assert witness.ask("GET", "/nothing").status == 404
    with witness.connection() as slow, witness.connection() as fast:
        slow.send("POST", "/add-checkpoint", b"old 0\n", length=1_000)
        assert fast.ask("GET", "/health/ready").status == 200, "one slow caller holds up nobody"
        began = time.monotonic()
        assert slow.receive().status == 408
        assert time.monotonic() - began < 3 * BODY_SECONDS


def test_of_submissions_at_once_one_wins_and_the_others_are_told(witness: Served) -> None:
    log = Log(ORIGIN)
    run("witness", "add-log", str(witness.directory), log.vkey)
    bodies = [log.body(0, size) for size in range(5, 25)]
    replies: list[Any] = []
    threads = [threading.Thread(target=lambda body=body: replies.append(witness.submit(body))) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(reply.status for reply in replies) == [200] + [409] * 19
    assert len({reply.body for reply in replies if reply.status == 409}) == 1


class Caller(threading.Thread):
    """Submits one history to a witness, as fast as it can, however often that is killed."""

    def __init__(self, log: Log, port: int, vkey: str, stop: threading.Event) -> None:
        super().__init__()
        self._log = log
        self._port = port
        self._vkey = vkey
        self._stopped = stop
        self.cosigned: list[tuple[int, int]] = []  # when, and how many entries

    def run(self) -> None:
        rng = random.Random(self._log.name)
        known = 0
        while not self._stopped.is_set():
            size = known + rng.randrange(1, 4)
            try:
                with closing(Connection(self._port)) as connection:
                    reply = connection.ask("POST", "/add-checkpoint", self._log.body(known, size))
            except OSError:  # it was killed just now
                time.sleep(0.01)
                continue
            if reply.status == 200:
                self.cosigned.append((cosigned_at(reply.body, self._vkey, self._log.text(size)), size))
                known = size
            else:
                known = int(reply.body) if reply.status == 409 else 0


def test_a_witness_killed_at_any_moment_never_cosigns_two_histories_or_goes_back(tmp_path: Path) -> None:
    run("witness", "init", str(tmp_path / "w"), "--name", "witness.example.com/w", "--algorithm", "ed25519")
    one = Log(ORIGIN)
    logs = [one, Log(ORIGIN, "another leaf", one.key)]
    run("witness", "add-log", str(tmp_path / "w"), one.vkey)
    port = free_port("127.0.0.1")
    served = start(tmp_path / "w", port)
    stop = threading.Event()
    callers = [Caller(log, port, served.vkey, stop) for log in logs]
    for caller in callers:
        caller.start()
    rng = random.Random(20130401)
    for _ in range(8):
        time.sleep(rng.random() * 0.3)
        served.process.kill()
        served.process.wait()
        served = start(tmp_path / "w", port)
    stop.set()
    for caller in callers:
        caller.join()
    end(served)
    mine, other = sorted((caller.cosigned for caller in callers), key=len)
    assert mine == [], "of two histories one was cosigned"
    assert len(other) > 30
    assert [size for _, size in other] == sorted({size for _, size in other}), "each was larger than the one before"
    assert [moment for moment, _ in other] == sorted(moment for moment, _ in other), "and none was dated back"


# The whole of it: a workspace, two witnesses, three anchors.


@contextmanager
def two_witnesses(tmp_path: Path, workspace: Workspace) -> Iterator[list[Served]]:
    """Two witnesses of a workspace, and its policy that asks for both."""
    served = []
    for name, algorithm in (("north", "ml-dsa-44"), ("south", "ed25519")):
        directory = str(tmp_path / name)
        run("witness", "init", directory, "--name", f"witness.example.com/{name}", "--algorithm", algorithm)
        run("witness", "add-log", directory, str(workspace.keys / "signing.vkey"))
        served.append(start(tmp_path / name, free_port("127.0.0.1")))
    lines = [f"witness {each.directory.name} {each.vkey} {each.url}\n" for each in served]
    policy = "".join(lines) + "group both all north south\nquorum both\n"
    (workspace.root / "witnesses.policy").write_text(policy)
    try:
        yield served
    finally:
        for each in served:
            if each.process.poll() is None:
                end(each)


def configure(workspace: Workspace, tmp_path: Path, *, interval_seconds: float = 0.2) -> list[str]:
    """Anchor a workspace in a directory and a git repository; their URLs."""
    (tmp_path / "worm").mkdir()
    subprocess.run(["git", "init", "--quiet", "--bare", str(tmp_path / "c.git")], check=True)  # noqa: S607 - the caller's
    urls = [(tmp_path / "worm").as_uri(), f"git+{(tmp_path / 'c.git').as_uri()}"]
    with (workspace.root / "mainstay.toml").open("a") as settings:
        settings.write(
            f'witnesses = "witnesses.policy"\nanchors = {urls}\nanchor_interval_seconds = {interval_seconds}\n'
        )
    return urls


def verify(workspace: Workspace, *words: str, fails: int = 0) -> Any:
    """The report of `mainstay ledger verify`."""
    said = run("ledger", "verify", "--workspace", str(workspace.root), "--json", *words, fails=fails)
    return msgspec.json.decode(said[: said.rindex("}") + 1])


def covered(report: Any) -> dict[str, int]:
    return {each["by"]: each["size"] for each in report["coverage"]["anchored"]}


def test_decisions_are_witnessed_and_anchored_while_they_are_served(tmp_path: Path) -> None:
    workspace, token = tiny.make_served(tmp_path / "workspace")
    urls = configure(workspace, tmp_path)
    with two_witnesses(tmp_path, workspace) as witnesses:
        with tiny.up(workspace, token) as up:
            for _ in range(5):
                httpx.post(up.decisions_url, json={"input": {"a": 1, "b": 2}}, headers=up.headers).raise_for_status()
            names = {"witnesses north, south", *urls}
            names |= {f"witness {each.directory.name} at {each.url}" for each in witnesses}
            deadline = time.monotonic() + 20
            while True:
                report = verify(workspace)
                sizes = covered(report)
                if sizes.keys() == names and min(sizes.values()) >= 9:
                    break
                assert time.monotonic() < deadline, report
                time.sleep(0.2)
            status = msgspec.json.decode(run("status", "--workspace", str(workspace.root), "--json"))
            assert {each["name"] for each in status["anchors"]} == {"north", "south", *urls}
            assert all(each["failing_since"] is None for each in status["anchors"])
        end(witnesses[0])
        assert verify(workspace)["coverage"]["unread"][0]["source"].startswith("witness north at ")
    public = str(workspace.keys / "signing.vkey")
    words = ["--directory", str(workspace.ledger), "--public-key", public]
    for source in (str(tmp_path / "worm"), str(tmp_path / "c.git"), str(workspace.ledger / "witnessed")):
        policy = ["--policy", str(workspace.root / "witnesses.policy")]
        assert "the ledger verifies" in run("ledger", "verify", *words, "--against", source, *policy)


def test_a_rewritten_log_is_found_by_whatever_kept_a_checkpoint(tmp_path: Path) -> None:
    workspace, _, _ = create_workspace(tmp_path / "workspace", "tests.example.com/rewritten")
    urls = configure(workspace, tmp_path)
    key = load_signing_key(workspace.keys, None)
    with two_witnesses(tmp_path, workspace) as witnesses:
        with Sealer(workspace.ledger, key, key.name) as sealer:
            sealer.seal_once()
            first = sealer.seal_once().size
            run("ledger", "anchor", "--workspace", str(workspace.root))
            write_segment(workspace.ledger, 40)
            assert sealer.seal_once().size == first + 40
        run("ledger", "anchor", "--workspace", str(workspace.root))
        shutil.rmtree(workspace.ledger)
        write_segment(workspace.ledger, 300)
        with Sealer(workspace.ledger, key, key.name) as sealer:
            sealer.seal_once()
        report = verify(workspace, fails=1)
        places = [finding["file"] for finding in report["findings"]]
        assert len(places) == 4
        assert all("THE LOG FORKS" in finding["what"] for finding in report["findings"])
        assert f"extend {first} entries" in report["findings"][2]["what"], "the first anchored size that disagrees"
        said = run("ledger", "anchor", "--workspace", str(workspace.root), fails=1)
        assert "ANOTHER HISTORY" in said
        status = run("status", "--workspace", str(workspace.root))
        assert status.count("FAILING") == len(witnesses)
        for url in urls:
            assert f"{url}: 300 entries" in status, "an anchor keeps what it is given; that it contradicts, verify says"


def test_anchoring_killed_at_any_moment_goes_on_where_it_was(tmp_path: Path) -> None:
    workspace, _, _ = create_workspace(tmp_path / "workspace", "tests.example.com/killed")
    configure(workspace, tmp_path)
    key = load_signing_key(workspace.keys, None)
    rng = random.Random(20130401)
    with two_witnesses(tmp_path, workspace):
        killed = size = 0
        begun = time.monotonic()
        run("ledger", "anchor", "--workspace", str(workspace.root))
        whole_seconds = time.monotonic() - begun
        for _ in range(6):
            write_segment(workspace.ledger, 3)
            with Sealer(workspace.ledger, key, key.name) as sealer:
                size = sealer.seal_once().size
            command = [*COMMAND, "ledger", "anchor", "--workspace", str(workspace.root)]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(rng.uniform(0.4, 0.9) * whole_seconds)
            process.send_signal(signal.SIGKILL)
            killed += process.wait() == -signal.SIGKILL
        said = run("ledger", "anchor", "--workspace", str(workspace.root), "--json")
        assert {each["entries"] for each in msgspec.json.decode(said)["published"]} == {size}
        assert set(covered(verify(workspace)).values()) == {size}
    assert killed > 2
