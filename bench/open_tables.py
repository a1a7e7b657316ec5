"""The lake: how fast tables take rows and commits, how fast the log reaches them, and what is left after kills.

    python bench/open_tables.py [--rows 400000] [--entries 200000] [--commits 100] [--json]
    python bench/open_tables.py --kills 200

With `--kills`, an exporting process is killed that often at random moments, and every row is held against the log.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from datetime import date, timedelta
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
import polars as pl
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mainstay.lake.decision_rows import DECISIONS, OUTCOMES
from mainstay.lake.decisions import Exporter
from mainstay.lake.lake import Lake
from mainstay.lake.taking import take
from mainstay.ledger.entry import SALT_BYTES, commitment, format_id
from mainstay.ledger.index_key import KeyDigests
from mainstay.ledger.log import Log
from mainstay.ledger.sealer import Sealer
from mainstay.ledger.wal import Segment, frame_entry
from mainstay.signing import SigningKey

if TYPE_CHECKING:
    from collections.abc import Callable

ORIGIN: Final = "bench.example.com/lake"
KEY: Final = SigningKey(ORIGIN, Ed25519PrivateKey.from_private_bytes(bytes(32)))
DIGESTS: Final = KeyDigests(bytes(32))
BATCH_ROWS: Final = 100_000
GROUP: Final = 500
STEP: Final = 50  # entries of a step that is killed, so that there are many moments
GAP_SECONDS: Final = (0.0, 0.4)  # between the first step and the kill, drawn at random


def write_ledger(ledger: Path, entries: int, capabilities: int = 1) -> None:
    """A sealed ledger: decisions over 30 features, of several capabilities in turn, every tenth with its outcome."""
    segment = Segment(ledger / "wal")
    given = {f"feature_{number}": number * 1.25 for number in range(30)}
    for first in range(0, entries, GROUP):
        framed = [
            _entry(segment.name, place, given, capabilities) for place in range(first, min(first + GROUP, entries))
        ]
        segment.append(framed, len(framed))
    segment.close()
    with Sealer(ledger, KEY, ORIGIN) as sealer:
        sealer.seal_once()


def _entry(segment: str, place: int, given: dict[str, float], capabilities: int) -> bytes:
    is_outcome = place % 10 == 9
    entry_id = format_id(segment, place, 1_767_225_600_000 + place)
    salt = sha256(entry_id.encode()).digest()[:SALT_BYTES]
    body: dict[str, Any] = {"key": f"K-{place}", "outcome": {"late": True}, "observed_at": None}
    leaf: dict[str, Any] = {
        "kind": "outcome" if is_outcome else "decision",
        "id": entry_id,
        "at": "2026-01-01T00:00:00.000000Z",
        "capability": f"capability-{place % capabilities}",
        "principal": "key-1",
    }
    if not is_outcome:
        leaf |= {"version": "sha256:1", "release": 1, "stage": "production", "outcome": "answered", "reasons": []}
        body = {"key": f"K-{place}", "input": given, "output": {"p": 0.5}, "confidence": 0.5, "novelty": 0.5}
    content = msgspec.json.encode(body)
    leaf["body"] = commitment(salt, content)
    return frame_entry(msgspec.json.encode(leaf), salt, content)


def flights(rows: int) -> pl.DataFrame:
    """20 columns: floats, integers, text, and the day."""
    rng = np.random.default_rng(7)
    columns: dict[str, Any] = {f"x{number}": rng.normal(size=rows) for number in range(10)}
    columns |= {f"n{number}": rng.integers(0, 1_000, rows) for number in range(6)}
    columns |= {f"t{number}": pl.Series(rng.integers(0, 500, rows)).cast(pl.String) for number in range(3)}
    days = [date(2026, 1, 1) + timedelta(days=number) for number in range(3)]
    return pl.DataFrame({"day": [days[place * 3 // rows] for place in range(rows)], **columns})


def measured(work: Callable[[], object], count: int) -> dict[str, float]:
    """How many of something are done in a second, by the clock and by the CPU time it took."""
    clock, cpu = time.perf_counter(), time.process_time()
    work()
    wall, busy = time.perf_counter() - clock, time.process_time() - cpu
    return {"per_second": round(count / wall, 1), "per_cpu_second": round(count / busy, 1)}


def measure(directory: Path, rows: int, entries: int, commits: int) -> dict[str, Any]:
    """Rates of appending, committing, exporting and taking a snapshot, and the most memory that was held."""
    lake = Lake(directory / "lake")
    batch = flights(BATCH_ROWS)
    table = lake.create("intake/flights", batch.schema, partition_by=["day"])
    found: dict[str, Any] = {}

    def append() -> None:
        for number in range(rows // BATCH_ROWS):
            table.append(batch, writer="bench", position=number)

    found["rows_of_20_columns_appended"] = measured(append, rows // BATCH_ROWS * BATCH_ROWS)
    small = batch.head(100)

    def commit() -> None:
        for number in range(commits):
            table.append(small, writer="commits", position=number)

    found["commits_of_100_rows"] = measured(commit, commits)
    found["files_joined"] = table.compact()
    write_ledger(directory / "ledger", entries)
    exporter = Exporter(lake, directory / "ledger", DIGESTS)
    found["entries_exported"] = measured(exporter.catch_up, entries)
    found["rows_in_a_snapshot_with_digest"] = measured(
        lambda: take(lake, "bench", "intake/flights"), table.refresh().rows
    )
    found["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    return found


def kill_exporters(directory: Path, kills: int, *, quiet: bool) -> dict[str, int]:
    """Kill an exporting process again and again; what was lost and doubled in the end."""
    ledger, place = directory / "ledger", directory / "lake"
    write_ledger(ledger, kills * STEP * 4, capabilities=3)
    killed = 0
    while killed < kills:
        command = [sys.executable, __file__, "--export", str(ledger), str(place)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(random.uniform(*GAP_SECONDS))
            process.send_signal(signal.SIGKILL)
            ended = process.wait() == 0
        killed += not ended
        if ended:  # it was done before it could be killed
            break
        if not quiet and killed % 20 == 0:
            print(f"{killed} kills")
    lake = Lake(place)
    Exporter(lake, ledger, DIGESTS).catch_up()
    names = [name for kind in (DECISIONS, OUTCOMES) for name in lake.names(kind)]
    found = [sequence for name in names for sequence in lake.table(name).frame().collect()["sequence"]]
    size = Log(ledger).size
    return {"kills": killed, "entries": size, "lost": size - len(set(found)), "doubled": len(found) - len(set(found))}


def export(ledger: Path, place: Path) -> None:
    """Export in small steps; whoever began this process kills it."""
    exporter = Exporter(Lake(place), ledger, DIGESTS)
    os.write(1, b"begun\n")
    while (done := exporter.step(STEP)).last > done.first:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--entries", type=int, default=200_000)
    parser.add_argument("--commits", type=int, default=100)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--export", nargs=2, type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.export:
        export(*given.export)
        return
    with tempfile.TemporaryDirectory() as directory:
        if given.kills:
            found: dict[str, Any] = kill_exporters(Path(directory), given.kills, quiet=given.json)
        else:
            found = measure(Path(directory), given.rows, given.entries, given.commits)
    if given.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name.replace('_', ' '):34}", value if isinstance(value, int) else _shown(value))


def _shown(rates: dict[str, float]) -> str:
    return f"{rates['per_second']:>12,.0f} /s {rates['per_cpu_second']:>12,.0f} /s of CPU"


if __name__ == "__main__":
    main()
