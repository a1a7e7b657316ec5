"""What a governed decision of Mainstay costs beside what the same model costs in other servers.

Each peer has a virtual environment of its own, made by this script from a list pinned by hash,
peers/*/requirements.txt. Every server in turn has one core, the load the other, with 64 connections that each wait for
their answer. Mainstay and a peer are measured pair by pair, because the speed of a machine drifts and ratios do not.
CPU is that of all processes of a server, user and system, per answered request. Nothing is timed before its answers are
right.

    python bench/peers.py [--only NAME]... [--tuned] [--model histogram] [--pairs 3] [--seconds 3] [--json]
    python bench/peers.py --install       only make the environments
    python bench/peers.py --lock          pin peers/*/requirements.in again
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pickle
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
from fixture import CAPABILITY, make_fixture, start_worker
from load import drive, request_bytes
from peer_servers import PEERS
from tree import adopt_orphans, end_tree, tree_cpu_seconds, tree_memory

from mainstay.server.supervisor import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from fixture import Fixture
    from peer_servers import Peer

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ROOT / "bench" / "peers"
CONNECTIONS = 64
SERVER_CORE, LOAD_CORE = 0, 1
CHECKED_ROWS = 20
TOLERANCE = 1e-5  # of a probability
START_SECONDS = 120.0
SAME_AS_OURS = ("onnxruntime", "scikit-learn")  # a pickle is for the version that wrote it


@dataclass(frozen=True)
class Run:
    """One run of one server; memory is that of all its processes."""

    cpu_us: float  # per request
    per_second: float
    p50_ms: float
    p99_ms: float
    resident_mb: float  # a page that two processes share counts twice
    proportional_mb: float  # and here once
    start_seconds: float


@dataclass(frozen=True)
class Server:
    """One that runs, and how it is asked."""

    process: subprocess.Popen[bytes]
    port: int
    path: str
    token: str
    request: Callable[[dict[str, float]], object]
    probability: Callable[[Any], float]
    start_seconds: float = 0.0

    def body(self, record: dict[str, float]) -> bytes:
        return json.dumps(self.request(record)).encode()

    def ask(self, client: httpx.Client, record: dict[str, float]) -> float:
        """The probability this server answers for a record. httpx.HTTPError when it gives none."""
        headers = {"content-type": "application/json"}
        if self.token:
            headers["authorization"] = f"Bearer {self.token}"
        url = f"http://127.0.0.1:{self.port}{self.path}"
        answer = client.post(url, content=self.body(record), headers=headers).raise_for_status()
        return self.probability(answer.json())


class PeerFailed(Exception):
    """A peer that did not start, or whose answers are wrong."""


def install(peer: Peer, environments: Path) -> Path:
    """The peer's virtual environment, made anew when its list has changed."""
    lock = FOLDERS / peer.folder / "requirements.txt"
    environment = environments / peer.folder
    stamp = environment / "installed"
    wanted = hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()
    if not (stamp.exists() and stamp.read_text() == wanted):
        _say(f"{peer.folder}: installing {lock.relative_to(ROOT)}")
        _uv("venv", "--clear", "--python", sys.executable, str(environment))
        python = str(environment / "bin" / "python")
        exactly = ("--require-hashes", "--only-binary", ":all:", "--compile-bytecode")
        _uv("pip", "sync", *exactly, "--python", python, str(lock))
        stamp.write_text(wanted)
    return environment


def lock_all() -> None:
    """Pin every peer's requirements.in, with the same scikit-learn and ONNX Runtime as Mainstay's own list."""
    ours = (ROOT / "requirements" / "dev.txt").read_text().splitlines()
    same = [line.split(" ")[0] for line in ours if line.startswith(tuple(f"{name}==" for name in SAME_AS_OURS))]
    with tempfile.TemporaryDirectory() as directory:
        constraints = Path(directory) / "constraints.txt"
        constraints.write_text("\n".join(same))
        for wanted in sorted(FOLDERS.glob("*/requirements.in")):
            _say(f"pinning {wanted.relative_to(ROOT)}")
            options = ["--universal", "--python-version", "3.11", "--generate-hashes", "--no-annotate"]
            options += ["--exclude-newer", "1 week", "--only-binary", ":all:", "--constraint", str(constraints)]
            options += ["--custom-compile-command", "python bench/peers.py --lock"]
            _uv("pip", "compile", *options, "--output-file", str(wanted.with_suffix(".txt")), str(wanted))


def start_peer(peer: Peer, environment: Path, fixture: Fixture, scratch: Path) -> Server:
    """The peer, alone on SERVER_CORE; it answers when this returns. PeerFailed when it does not start."""
    begun = time.perf_counter()
    ports = {name: str(free_port("127.0.0.1")) for name in ("port", "port2", "port3")}
    model = str(_model(fixture))
    places = {"bin": str(environment / "bin"), "folder": str(FOLDERS / peer.folder), "scratch": str(scratch)}
    places |= {"model": model, **ports}
    variables = {
        **os.environ,
        "PATH": f"{environment / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}",
        "MODEL": model,
        "ARTIFACT": str(fixture.artifact),
        "FIELDS": json.dumps(fixture.fields),
        "PORT": ports["port"],
        **{name: value.format_map(places) for name, value in peer.environment.items()},
    }
    log = scratch / f"{peer.name}.log"
    with log.open("ab") as output:
        if peer.prepare:
            prepared = subprocess.run(
                _filled(peer.prepare, places), env=variables, stdout=output, stderr=output, check=False
            )
            if prepared.returncode != 0:
                raise PeerFailed(
                    f"expected its model to be prepared, found an error; its last words:\n{_last_words(log)}"
                )
        command = ["taskset", "-c", str(SERVER_CORE), *_filled(peer.command, places)]
        process = subprocess.Popen(
            command, env=variables, cwd=scratch, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    server = Server(process, int(ports["port"]), peer.path, "", peer.request, peer.probability)
    try:
        _wait_for_answer(server, fixture.rows[0], log)
    except BaseException:  # an interrupt must not leave it running either
        end_tree(process)
        raise
    return replace(server, start_seconds=time.perf_counter() - begun)


def start_mainstay(fixture: Fixture) -> Server:
    """A worker of Mainstay, alone on SERVER_CORE; ready when this returns."""
    begun = time.perf_counter()
    port = free_port("127.0.0.1")
    process = start_worker(fixture, port, core=SERVER_CORE)
    return Server(
        process=process,
        port=port,
        path=fixture.decisions_path,
        token=fixture.token,
        request=lambda record: {"input": record},
        probability=lambda answer: answer["output"]["probability"],
        start_seconds=time.perf_counter() - begun,
    )


def measure(server: Server, fixture: Fixture, expected: Sequence[float], seconds: float) -> Run:
    """Check the answers, warm up, drive and account; the server is ended."""
    try:
        check_answers(server, fixture.rows[:CHECKED_ROWS], expected)
        request = request_bytes(server.path, server.body(fixture.rows[0]), server.token)
        address = ("127.0.0.1", server.port)
        drive(address, request, connections=CONNECTIONS, seconds=1.0)
        before = tree_cpu_seconds()
        load = drive(address, request, connections=CONNECTIONS, seconds=seconds)
        spent = tree_cpu_seconds() - before
        memory = tree_memory()
    finally:
        end_tree(server.process)
    if load.failed or load.statuses.keys() != {200}:
        raise PeerFailed(f"expected nothing but answers of status 200, found {load.statuses}, {load.failed} broken")
    return Run(
        cpu_us=spent / load.answered * 1e6,
        # Every connection always has one call under way. To count answers would count those that came after the end.
        per_second=CONNECTIONS / statistics.fmean(load.latencies_seconds),
        p50_ms=load.quantile_ms(0.5),
        p99_ms=load.quantile_ms(0.99),
        resident_mb=memory.resident_mb,
        proportional_mb=memory.proportional_mb,
        start_seconds=server.start_seconds,
    )


def check_answers(server: Server, records: Sequence[dict[str, float]], expected: Sequence[float]) -> None:
    """Are the probabilities those of the model? PeerFailed otherwise."""
    with httpx.Client(timeout=10, trust_env=False) as client:
        for number, (record, right) in enumerate(zip(records, expected, strict=True)):
            found = server.ask(client, record)
            if abs(found - right) > TOLERANCE:
                raise PeerFailed(f"row {number}: expected the probability {right:.7f}, found {found:.7f}")


def expected_probabilities(fixture: Fixture) -> list[float]:
    """What scikit-learn says of the rows that are checked."""
    with _model(fixture).open("rb") as file:
        model = pickle.load(file)  # noqa: S301 - make_fixture wrote it a moment ago
    rows = np.array([list(row.values()) for row in fixture.rows[:CHECKED_ROWS]])
    return [float(each) for each in model.predict_proba(rows)[:, 1]]


def compare(
    peer: Peer, given: argparse.Namespace, fixture: Fixture, expected: Sequence[float]
) -> list[tuple[Run, Run]]:
    """Pairs of runs: Mainstay's, the peer's."""
    environment = install(peer, given.environments)
    pairs = []
    for number in range(given.pairs):
        ours = measure(start_mainstay(fixture), fixture, expected, given.seconds)
        # A short path: some servers put sockets in it.
        with tempfile.TemporaryDirectory(prefix="peer") as scratch:
            theirs = measure(start_peer(peer, environment, fixture, Path(scratch)), fixture, expected, given.seconds)
        pairs.append((ours, theirs))
        shown = f"{ours.cpu_us:.1f} and {theirs.cpu_us:.1f} us, {theirs.cpu_us / ours.cpu_us:.1f} x"
        _say(f"{peer.name}: pair {number + 1} of {given.pairs}: {shown}")
    return pairs


def summary(peer: Peer, pairs: Sequence[tuple[Run, Run]]) -> dict[str, Any]:
    """Medians of the peer's runs, and the median of the ratios of CPU per request."""
    ratio = statistics.median(theirs.cpu_us / ours.cpu_us for ours, theirs in pairs)
    met = None if peer.goal is None else ratio >= peer.goal
    medians = _medians(theirs for _, theirs in pairs)
    return {"name": peer.name, "setting": peer.setting, **medians, "ratio": ratio, "goal": peer.goal, "met": met}


def own_summary(runs: Iterable[Run]) -> dict[str, Any]:
    """Medians of Mainstay's runs, in the form of a peer's."""
    setting = "**Mainstay, governed and durable**"
    return {"name": "mainstay", "setting": setting, **_medians(runs), "ratio": 1.0, "goal": None, "met": None}


def _medians(runs: Iterable[Run]) -> dict[str, float]:
    figures = [asdict(run) for run in runs]
    return {name: statistics.median(each[name] for each in figures) for name in figures[0]}


def table(rows: Iterable[dict[str, Any]]) -> str:
    """Markdown, in the order given."""
    lines = [
        "| server | CPU us / request | x Mainstay | goal | requests/s | p50, p99 ms | memory MB | start s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        goal = "" if row["goal"] is None else f"{row['goal']:g}{'' if row['met'] else ' (missed)'}"
        memory = f"{row['resident_mb']:.0f} ({row['proportional_mb']:.0f})"
        lines.append(
            f"| {row['setting']} | {row['cpu_us']:,.0f} | {row['ratio']:.1f} | {goal} | {row['per_second']:,.0f}"
            f" | {row['p50_ms']:.1f}, {row['p99_ms']:.1f} | {memory} | {row['start_seconds']:.1f} |"
        )
    return "\n".join(lines)


def main() -> int:
    given = _arguments()
    if given.lock:
        lock_all()
        return 0
    chosen = [peer for peer in PEERS if peer.name in given.only or (not given.only and (given.tuned or not peer.tuned))]
    for peer in chosen:
        install(peer, given.environments)
    if given.install:
        return 0
    adopt_orphans()
    measured: list[tuple[Peer, list[tuple[Run, Run]]]] = []
    failed = False
    with tempfile.TemporaryDirectory() as directory:
        fixture = make_fixture(Path(directory) / "workspace", given.model)
        expected = expected_probabilities(fixture)
        os.sched_setaffinity(0, {LOAD_CORE})
        for peer in chosen:
            try:
                measured.append((peer, compare(peer, given, fixture, expected)))
            except (PeerFailed, httpx.HTTPError) as error:
                failed = True
                _say(f"{peer.name}: left out: {error}")
    rows = [summary(peer, pairs) for peer, pairs in measured]
    if rows:
        rows.insert(0, own_summary(ours for _, pairs in measured for ours, _ in pairs))
    if given.json:
        runs = {peer.name: [[asdict(run) for run in pair] for pair in pairs] for peer, pairs in measured}
        print(json.dumps({"table": rows, "pairs": runs}))
    else:
        print(table(rows))
    return int(failed)


def _arguments() -> argparse.Namespace:
    names = [peer.name for peer in PEERS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", default=[], choices=names, help="this peer; may be repeated")
    parser.add_argument("--tuned", action="store_true", help="also peers with what they offer for throughput")
    parser.add_argument(
        "--model", choices=["gradient", "histogram"], default="gradient", help="which gradient boosting"
    )
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of load in each run")
    parser.add_argument("--environments", type=Path, default=ROOT / ".bench", help="where the environments are made")
    parser.add_argument("--install", action="store_true", help="make the environments and stop")
    parser.add_argument("--lock", action="store_true", help="pin what the peers need again and stop")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def _wait_for_answer(server: Server, record: dict[str, float], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    trouble = "nothing"
    with httpx.Client(timeout=10, trust_env=False) as client:
        while time.monotonic() < deadline:
            if server.process.poll() is not None:
                trouble = f"an end with {server.process.returncode}"
                break
            try:
                server.ask(client, record)
            except httpx.HTTPError as error:
                trouble = str(error)
                time.sleep(0.1)
            else:
                return
    last = _last_words(log)
    raise PeerFailed(f"expected an answer within {START_SECONDS:g} s, found {trouble}; its last words:\n{last}")


def _last_words(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:])


def _model(fixture: Fixture) -> Path:
    return fixture.workspace.capabilities / CAPABILITY / "model" / "model.pkl"


def _filled(command: str, places: dict[str, str]) -> list[str]:
    return [part.format_map(places) for part in command.split()]


def _uv(*arguments: str) -> None:
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.exists() else shutil.which("uv")
    if uv is None:
        raise SystemExit(
            "error: expected uv beside this Python or on PATH, found none; run make lint once, it installs uv"
        )
    if subprocess.run([uv, *arguments, "--quiet"], check=False).returncode != 0:
        raise SystemExit(f"error: uv {' '.join(arguments[:2])} did not succeed; its reason stands above")


def _say(text: str) -> None:
    print(f"-- {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
