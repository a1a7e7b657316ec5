"""What a governed, durable decision costs, against a bare handler that runs the same graph.

Server on one core, load on the other, 64 connections; bare and governed in turn, pair by pair, because the speed of a
machine drifts and ratios do not. CPU is the server process's own, user and system, per answered request.

    python bench/decisions.py [--pairs 5] [--seconds 3] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fixture import cpu_seconds, make_fixture, resident_mb, start_bare, start_worker
from load import drive, request_bytes

from mainstay.server.metrics import load_counts, slot_file
from mainstay.server.supervisor import free_port

if TYPE_CHECKING:
    import subprocess

    from fixture import Fixture

CONNECTIONS = 64
SERVER_CORE, LOAD_CORE = 0, 1


@dataclass
class Run:
    """One run of one server."""

    cpu_us: float  # per request
    per_second: float
    p50_ms: float
    p99_ms: float
    lone_p50_ms: float  # of one connection alone
    memory_mb: float
    records_per_sync: float | None
    statuses: dict[int, int]


def measure(
    process: subprocess.Popen[bytes], port: int, request: bytes, seconds: float, counts_file: Path | None = None
) -> Run:
    """Warm up, then drive and account. A worker's own counts are in `counts_file`, written every second."""
    drive(("127.0.0.1", port), request, connections=CONNECTIONS, seconds=0.5)
    before = cpu_seconds(process.pid)
    load = drive(("127.0.0.1", port), request, connections=CONNECTIONS, seconds=seconds)
    spent = cpu_seconds(process.pid) - before
    records_per_sync = None
    if counts_file is not None:
        time.sleep(1.2)
        counts = load_counts(counts_file)
        records_per_sync = counts.records / max(1, counts.syncs)
    lone = drive(("127.0.0.1", port), request, connections=1, seconds=0.5)
    return Run(
        cpu_us=spent / load.answered * 1e6,
        per_second=load.per_second,
        p50_ms=load.quantile_ms(0.5),
        p99_ms=load.quantile_ms(0.99),
        lone_p50_ms=lone.quantile_ms(0.5),
        memory_mb=resident_mb(process.pid),
        records_per_sync=records_per_sync,
        statuses=load.statuses,
    )


def run_bare(fixture: Fixture, body: bytes, seconds: float) -> Run:
    port = free_port("127.0.0.1")
    process = start_bare(fixture, port, core=SERVER_CORE)
    time.sleep(1.5)
    run = measure(process, port, request_bytes("/", body), seconds)
    process.terminate()
    process.wait()
    return run


def run_governed(fixture: Fixture, body: bytes, seconds: float) -> Run:
    port = free_port("127.0.0.1")
    counts_file = slot_file(fixture.workspace.run, 0)
    counts_file.unlink(missing_ok=True)
    process = start_worker(fixture, port, core=SERVER_CORE)
    run = measure(process, port, request_bytes(fixture.decisions_path, body, fixture.token), seconds, counts_file)
    process.terminate()
    process.wait()
    return run


def start_up_seconds(fixture: Fixture) -> float:
    """From the start of a worker process to its first ready answer."""
    begun = time.perf_counter()
    process = start_worker(fixture, free_port("127.0.0.1"), core=SERVER_CORE)
    seconds = time.perf_counter() - begun
    process.terminate()
    process.wait()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    os.sched_setaffinity(0, {LOAD_CORE})
    with tempfile.TemporaryDirectory() as directory:
        fixture = make_fixture(Path(directory) / "workspace")
        body = json.dumps({"input": fixture.rows[0]}).encode()
        pairs = []
        for number in range(given.pairs):
            bare, governed = run_bare(fixture, body, given.seconds), run_governed(fixture, body, given.seconds)
            assert set(bare.statuses) == set(governed.statuses) == {200}, (bare.statuses, governed.statuses)
            pairs.append((bare, governed))
            if not given.json:
                print(
                    f"pair {number + 1}: {_line(bare)} | {_line(governed)} | ratio {governed.cpu_us / bare.cpu_us:.2f}"
                )
        started = [start_up_seconds(fixture) for _ in range(3)]
    ratios = [governed.cpu_us / bare.cpu_us for bare, governed in pairs]
    summary = {
        "cpu_ratio_median": statistics.median(ratios),
        "bare_cpu_us": statistics.median(bare.cpu_us for bare, _ in pairs),
        "governed_cpu_us": statistics.median(governed.cpu_us for _, governed in pairs),
        "bare_lone_p50_ms": statistics.median(bare.lone_p50_ms for bare, _ in pairs),
        "governed_lone_p50_ms": statistics.median(governed.lone_p50_ms for _, governed in pairs),
        "records_per_sync": statistics.median(governed.records_per_sync or 0 for _, governed in pairs),
        "worker_memory_mb": max(governed.memory_mb for _, governed in pairs),
        "start_seconds": statistics.median(started),
    }
    if given.json:
        print(json.dumps({**summary, "pairs": [[asdict(run) for run in pair] for pair in pairs]}))
    else:
        for name, value in summary.items():
            print(f"{name:20} {value:.2f}")


def _line(run: Run) -> str:
    latency = f"p50 {run.p50_ms:.2f} p99 {run.p99_ms:.2f} ms"
    return f"{run.cpu_us:6.1f} us {run.per_second:7.0f}/s {latency} {run.memory_mb:.0f} MB"


if __name__ == "__main__":
    main()
