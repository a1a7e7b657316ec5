"""A window of 1,000,000 x 50 held against stored counts of its reference: CPU and memory; beside other tools.

    python bench/drift.py [--rows 1000000] [--runs 3] [--long 10] [--peers] [--peer-runs 1] [--only NAME]...
                          [--json]

Each run is a process of its own, from its start to its end: ours reads the window (Parquet, zstd, row groups of
100,000) and the stored counts, counts, compares and judges. `floor` only reads and decodes the window. `long` is ours
over the same file so many times over. Peers have no stored form of a reference that all of them could read, so they
are given its rows, as many as the window has. CPU is user and system time; memory is the peak.

Of the 50 columns ten have drifted. Peers live in environments of their own (.bench), made on first use
(peers/drift-*/requirements.txt; `peers.py --lock` pins them again). whylogs is not among them: what it draws and
compares profiles with has no wheels.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

from environments import python_of

# Nothing large is imported here: the peak of a child that is started counts what its parent held.

HERE: Final = Path(__file__).resolve().parent
PEERS: Final = ("evidently", "nannyml", "alibi")
CPU_GOAL_SECONDS: Final = 2.0
MEMORY_GOAL_MB: Final = 300


class Run(NamedTuple):
    """What one process took, and how many of the ten it found, and of the forty it flagged wrongly."""

    cpu_seconds: float
    peak_mb: float
    found: int
    false: int


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--long", type=int, default=10, help="how many times over the window is read in the long run")
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--peer-runs", type=int, default=1)
    parser.add_argument("--only", action="append", choices=PEERS)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    chosen = arguments.only or (PEERS if arguments.peers else ())
    with tempfile.TemporaryDirectory(prefix="mainstay-drift-") as name:
        _run([sys.executable, str(HERE / "drift_table.py"), "make", name, str(arguments.rows)])
        commands = {
            "mainstay": [sys.executable, str(HERE / "drift_table.py"), "ours", name, "1"],
            "floor": [sys.executable, str(HERE / "drift_table.py"), "floor", name, "1"],
            "long": [sys.executable, str(HERE / "drift_table.py"), "ours", name, str(arguments.long)],
            **{
                peer: [str(python_of(f"drift-{peer}")), str(HERE / "drift_peers.py"), peer, "drift", name]
                for peer in chosen
            },
        }
        runs: dict[str, list[Run]] = {tool: [] for tool in commands}
        for done in range(max(arguments.runs, arguments.peer_runs)):
            for tool, command in commands.items():
                if done < (arguments.peer_runs if tool in chosen else arguments.runs):
                    runs[tool].append(_run(command))
    medians = {
        tool: Run(*(statistics.median(column) for column in zip(*each, strict=True))) for tool, each in runs.items()
    }
    if arguments.json:
        print(json.dumps({tool: run._asdict() for tool, run in medians.items()}, indent=2))
    else:
        _show(medians, arguments.rows, arguments.long)
    ours = medians["mainstay"]
    return int(ours.cpu_seconds > CPU_GOAL_SECONDS or ours.peak_mb > MEMORY_GOAL_MB)


def _run(command: list[str]) -> Run:
    """Run a program to its end; its last line says what it found. SystemExit when it fails."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = process.stdout.read().splitlines()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"error: {' '.join(command[1:4])} ended with {process.returncode}")
    said = json.loads(lines[-1]) if lines else {}
    cpu_seconds = usage.ru_utime + usage.ru_stime
    return Run(cpu_seconds, usage.ru_maxrss / 1024, said.get("found", 0), said.get("false", 0))


def _show(medians: dict[str, Run], rows: int, long: int) -> None:
    print(f"{rows:,} rows x 50 columns, medians\n{'':24}{'CPU s':>9}{'peak MB':>9}{'ratio':>8}{'of 10':>7}{'of 40':>7}")
    base = medians["mainstay"].cpu_seconds
    names = {"floor": "reading alone", "long": f"mainstay, {long * rows:,} rows"}
    for tool, run in medians.items():
        counts = f"{run.found:7.0f}{run.false:7.0f}" if tool != "floor" else ""
        ratio = run.cpu_seconds / base
        print(f"{names.get(tool, tool):24}{run.cpu_seconds:9.2f}{run.peak_mb:9,.0f}{ratio:8.1f}{counts}")
    print(f"goal of the first: {CPU_GOAL_SECONDS} s, {MEMORY_GOAL_MB} MB")


if __name__ == "__main__":
    sys.exit(main())
