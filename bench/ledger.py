"""How fast the ledger is sealed, indexed and verified, and that memory does not grow with it.

    python bench/ledger.py [--records 100000 400000] [--directory DIR]

Records are synthetic and of realistic size (leaf about 350 bytes, body about 900), acknowledged in groups of 64. Each
phase runs in a process of its own, so that its memory is its own: what is shown is how far the peak resident set grew
over what it was before the phase. Rates are of wall time, the waiting for the disk included; `cpu` counts only the
time the process computed. A file system may take much longer to make files for some seconds after many were deleted.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mainstay.ledger.entry import SALT_BYTES, commitment, format_id
from mainstay.ledger.index import Index
from mainstay.ledger.log import Log
from mainstay.ledger.sealer import Sealer
from mainstay.ledger.verify import verify_ledger
from mainstay.ledger.wal import Segment, frame_entry
from mainstay.signing import create_signing_key, load_signing_key, load_verifier

if TYPE_CHECKING:
    from collections.abc import Iterator

ORIGIN = "bench.example.com/log"
GROUP = 64
SEGMENT_BYTES = 64 << 20
GOALS = {"seal": 100_000, "verify": 150_000}  # records per second
NOTE = "x" * 640


def write_records(ledger: Path, count: int) -> None:
    """Write-ahead segments with `count` decisions, as one worker leaves them."""
    begun = time.time_ns() // 1_000_000
    written = 0
    while written < count:
        segment, counter = Segment(ledger / "wal"), 0
        while written < count and segment.bytes < SEGMENT_BYTES:
            number = min(GROUP, count - written)
            ids = [format_id(segment.name, counter + place, begun + written // 50) for place in range(number)]
            segment.append([_frame(each, written + place) for place, each in enumerate(ids)], number)
            counter += number
            written += number
        segment.close()


def _frame(entry_id: str, number: int) -> bytes:
    features = f'"carrier":"UA","origin":"EWR","distance":{number % 3000},"delay":{number % 60 - 10},"note":"{NOTE}"'
    output = f'"late":false,"probability":0.{number % 10_000:04d}'
    body = (
        f'{{"principal":"key-7f3a","key":"UA-{number}","input":{{{features}}},"output":{{{output}}},'
        '"confidence":0.91,"details":{"reasons":[],"violations":[],"model_us":48}}'
    ).encode()
    salt = os.urandom(SALT_BYTES)
    leaf = (
        f'{{"kind":"decision","id":"{entry_id}","at":"2026-01-01T00:00:00.{number % 1_000_000:06d}Z",'
        f'"capability":"late-arrival","version":"sha256:{"ab" * 32}","release":7,"stage":"production",'
        f'"outcome":"answered","reasons":[],"principal":"key-7f3a","body":"{commitment(salt, body)}"}}'
    ).encode()
    return frame_entry(leaf, salt, body)


@contextmanager
def measured(result: dict[str, Any]) -> Iterator[None]:
    """Add wall and CPU seconds and the growth of the peak resident set to `result`."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    result["seconds"], result["cpu_seconds"] = time.perf_counter() - wall, time.process_time() - cpu
    result["grown_mb"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def run_phase(phase: str, directory: Path) -> dict[str, Any]:
    """Seal, index or verify the ledger in `directory`, in this process."""
    ledger, keys = directory / "ledger", directory / "keys"
    result: dict[str, Any] = {}
    if phase == "seal":
        with Sealer(ledger, load_signing_key(keys, None), ORIGIN) as sealer, measured(result):
            result["records"] = sealer.seal_once().entries
    elif phase == "index":
        with Index(ledger) as index, measured(result):
            result["records"] = index.catch_up(Log(ledger))
    else:
        verifier = load_verifier(keys)
        with measured(result):
            report = verify_ledger(ledger, verifier)
        assert report.ok, report.findings
        result["records"] = report.size
    return result


def run_child(phase: str, directory: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--phase", phase, "--directory", str(directory)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def main() -> None:
    """Measure each phase for each number of records, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, nargs="+", default=[100_000, 400_000])
    parser.add_argument("--directory", type=Path, default=None, help="where to write; a temporary one by default")
    parser.add_argument("--phase", choices=["seal", "index", "verify"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.phase:
        print(json.dumps(run_phase(options.phase, options.directory)))
        return
    root = Path(tempfile.mkdtemp(prefix="mainstay-bench-", dir=options.directory))
    print(f"{'records':>9} {'phase':8} {'records/s':>10} {'per cpu s':>10} {'memory':>9}  goal")
    try:
        for count in options.records:
            directory = root / str(count)
            create_signing_key(directory / "keys", ORIGIN, None)
            write_records(directory / "ledger", count)
            for phase in ("seal", "index", "verify"):
                found = run_child(phase, directory)
                rate, per_cpu = found["records"] / found["seconds"], found["records"] / found["cpu_seconds"]
                goal = f"{GOALS[phase]:,}/s" if phase in GOALS else ""
                print(f"{count:>9,} {phase:8} {rate:>10,.0f} {per_cpu:>10,.0f} {found['grown_mb']:>+6.1f} MB  {goal}")
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
