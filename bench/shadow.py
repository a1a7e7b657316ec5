"""What a shadow costs those who are answered: the same worker without one and with one that is given every decision.

One worker on one core, and with it the process of the shadow's model, behind all others; the load on the other core. In
turn, pair by pair. CPU is the worker process's own, per answered request. What the shadow could not keep up with it has
dropped, and counted.

    python bench/shadow.py [--pairs 5] [--seconds 3] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fixture import CAPABILITY, cpu_seconds, make_fixture, start_worker
from load import drive, request_bytes

from mainstay.catalog.releases import end_shadow, publish_shadow
from mainstay.cli.versions import record_registration
from mainstay.server.metrics import load_counts, slot_file
from mainstay.server.supervisor import free_port
from mainstay.signing import load_signing_key

if TYPE_CHECKING:
    from fixture import Fixture

    from mainstay.signing import SigningKey

CALLERS = (1, 8, 64)
SERVER_CORE, LOAD_CORE = 0, 1
QUEUE = 256  # as `rollout.shadow.queue` is by default
SAID = {"reason": "a benchmark", "principal": "os:bench"}


@dataclass
class Run:
    """So many callers at one worker."""

    callers: int
    cpu_us: float  # per answer
    per_second: float
    p50_ms: float
    p99_ms: float
    compared: float  # share of the answers
    dropped: float


def measure(fixture: Fixture, body: bytes, seconds: float) -> list[Run]:
    """A worker of its own, asked by more and more callers."""
    port = free_port("127.0.0.1")
    counts_file = slot_file(fixture.workspace.run, 0)
    counts_file.unlink(missing_ok=True)
    process = start_worker(fixture, port, core=SERVER_CORE)
    request = request_bytes(fixture.decisions_path, body, fixture.token)
    try:
        drive(("127.0.0.1", port), request, connections=CALLERS[-1], seconds=2.0)  # the shadow's model has started, too
        return [_run(process.pid, port, request, callers, seconds, counts_file) for callers in CALLERS]
    finally:
        process.terminate()
        process.wait()


def _run(pid: int, port: int, request: bytes, callers: int, seconds: float, counts_file: Path) -> Run:
    time.sleep(1.5)  # what waits for the shadow is done, and counts are written every second
    known, before = _shadowed(counts_file), cpu_seconds(pid)
    load = drive(("127.0.0.1", port), request, connections=callers, seconds=seconds)
    spent = cpu_seconds(pid) - before
    assert set(load.statuses) == {200}, load.statuses
    time.sleep(1.5)
    compared, dropped = (after - then for after, then in zip(_shadowed(counts_file), known, strict=True))
    return Run(
        callers=callers,
        cpu_us=spent / load.answered * 1e6,
        per_second=load.per_second,
        p50_ms=load.quantile_ms(0.5),
        p99_ms=load.quantile_ms(0.99),
        compared=compared / load.answered,
        dropped=dropped / load.answered,
    )


def _shadowed(counts_file: Path) -> tuple[int, int]:
    """How many decisions the shadow compared so far, and dropped."""
    found = {"compared": 0, "dropped": 0}
    for key, count in load_counts(counts_file).shadows.items():
        fate = key.rpartition("\t")[2]
        found[fate] = found.get(fate, 0) + count
    return found["compared"], found["dropped"]


def _second(fixture: Fixture) -> str:
    folder = fixture.workspace.capabilities / CAPABILITY
    declaration = folder / "capability.yaml"
    declaration.write_text(declaration.read_text().replace("Tumour triage", "Tumour triage, again"))
    return record_registration(fixture.workspace, folder, "made by this benchmark").version


def _with_shadow(fixture: Fixture, version: str, key: SigningKey, body: bytes, seconds: float) -> list[Run]:
    publish_shadow(fixture.workspace, CAPABILITY, version, share=1.0, queue=QUEUE, key=key, **SAID)
    try:
        return measure(fixture, body, seconds)
    finally:
        end_shadow(fixture.workspace, CAPABILITY, version, key=key, **SAID)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    os.sched_setaffinity(0, {LOAD_CORE})
    with tempfile.TemporaryDirectory() as directory:
        fixture = make_fixture(Path(directory) / "workspace")
        version, key = _second(fixture), load_signing_key(fixture.workspace.keys, None)
        body = json.dumps({"input": fixture.rows[0]}).encode()
        pairs = []
        for number in range(given.pairs):
            without = measure(fixture, body, given.seconds)
            pairs.append((without, _with_shadow(fixture, version, key, body, given.seconds)))
            print(f"pair {number + 1} of {given.pairs}", file=sys.stderr)
    if given.json:
        print(json.dumps([[[asdict(run) for run in runs] for runs in pair] for pair in pairs]))
        return 0
    head = ("callers", "", "us CPU", "answers/s", "p50 ms", "p99 ms", "compared", "dropped")
    print("{:>7} {:10} {:>8} {:>10} {:>8} {:>8} {:>9} {:>8}".format(*head))
    for place, callers in enumerate(CALLERS):
        for side, name in enumerate(("without", "with")):
            runs = [pair[side][place] for pair in pairs]
            middle = {field: statistics.median(asdict(run)[field] for run in runs) for field in asdict(runs[0])}
            print(
                f"{callers:>7} {name:10} {middle['cpu_us']:>8.1f} {middle['per_second']:>10,.0f}"
                f" {middle['p50_ms']:>8.2f} {middle['p99_ms']:>8.2f}"
                f" {middle['compared']:>9.1%} {middle['dropped']:>8.1%}"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
