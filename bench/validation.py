"""A table held against its contract: 5 million rows, 20 columns, 0.1 % bad; beside other validators on the same file.

    python bench/validation.py [--rows 5000000] [--runs 3] [--only NAME]... [--without-peers] [--json]
    python bench/validation.py --agree 1000000     are both executions of a contract one? (validation_agreement.py)

Each run is a process of its own, which reads the table (Parquet, snappy, row groups of 250,000), writes the clean rows
(Parquet, lz4) and the bad ones with their reasons; then the rows are compared with those that are known to be bad. CPU
is user and system time of the whole process, its start included; memory is its peak. Tools run in turn, so that a busy
machine slows all of them.

The peers live in an environment beside this one, made on first use (peers/validation; `peers.py --lock` pins it again).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

# Nothing large is imported here: the peak of a child that is started counts what its parent held.

HERE: Final = Path(__file__).resolve().parent
REQUIREMENTS: Final = HERE / "peers" / "validation" / "requirements.txt"
OURS: Final = ("mainstay", "mainstay, order_id unique too")
PEERS: Final = ("polars", "polars-streaming", "duckdb", "pandera", "dataframely")
CPU_GOAL_SECONDS: Final = 5.5
MEMORY_GOAL_MB: Final = 500


class Run(NamedTuple):
    cpu_seconds: float
    peak_mb: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", action="append", choices=(*OURS, *PEERS))
    parser.add_argument("--without-peers", action="store_true")
    parser.add_argument("--agree", type=int, metavar="RECORDS")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.agree:
        agreement = [sys.executable, str(HERE / "validation_agreement.py"), str(arguments.agree)]
        return subprocess.run(agreement, check=False).returncode
    tools = arguments.only or [*OURS, *(() if arguments.without_peers else PEERS)]
    with tempfile.TemporaryDirectory(prefix="mainstay-validation-") as name:
        folder = Path(name)
        _run([sys.executable, str(HERE / "validation_table.py"), "make", name, str(arguments.rows)])
        runs: dict[str, list[Run]] = {tool: [] for tool in tools}
        for _ in range(arguments.runs):
            for tool in tools:
                runs[tool].append(_run(_command(tool, folder)))
                _run([sys.executable, str(HERE / "validation_table.py"), "verify", name, tool])
    medians = {tool: Run(*map(statistics.median, zip(*each, strict=True))) for tool, each in runs.items()}
    if arguments.json:
        print(json.dumps({tool: run._asdict() for tool, run in medians.items()}, indent=2))
    else:
        _show(medians, arguments.rows)
    first = medians.get(OURS[0])
    missed = first is not None and (first.cpu_seconds > CPU_GOAL_SECONDS or first.peak_mb > MEMORY_GOAL_MB)
    return int(missed)


def _command(tool: str, folder: Path) -> list[str]:
    if tool in OURS:
        more = ["unique"] if tool == OURS[1] else []
        return [sys.executable, str(HERE / "validation_table.py"), "check", str(folder), *more]
    return [str(_peers_python()), str(HERE / "validation_peers.py"), tool, str(folder)]


def _run(command: list[str]) -> Run:
    """Run a program to its end. SystemExit when it fails."""
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"error: {' '.join(command[1:4])} ended with {process.returncode}")
    return Run(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def _peers_python() -> Path:
    """The interpreter of the peers' environment, made anew when its list has changed."""
    home = Path(sys.prefix) / "peers" / "validation"
    python, stamp = home / "bin" / "python", home / "installed"
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()
    if not (stamp.exists() and stamp.read_text() == wanted):
        uv = str(Path(sys.prefix) / "bin" / "uv")
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(home)], check=True)
        install = [
            uv,
            "pip",
            "install",
            "--quiet",
            "--require-hashes",
            "--python",
            str(python),
            "-r",
            str(REQUIREMENTS),
        ]
        subprocess.run(install, check=True)
        stamp.write_text(wanted)
    return python


def _show(medians: dict[str, Run], rows: int) -> None:
    print(f"{rows:,} rows, medians\n{'':34}{'CPU s':>8}{'peak MB':>10}{'CPU, ratio':>12}")
    base = next(iter(medians.values()))
    for tool, run in medians.items():
        print(f"{tool:34}{run.cpu_seconds:8.2f}{run.peak_mb:10,.0f}{run.cpu_seconds / base.cpu_seconds:12.2f}")
    print(f"goal of the first: {CPU_GOAL_SECONDS} s, {MEMORY_GOAL_MB} MB")


if __name__ == "__main__":
    sys.exit(main())
