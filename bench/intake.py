"""Records through the door: the orders of validation_table.py, 20 columns, 1 % bad, from a landing into the tables.

    python bench/intake.py [--rows 3000000] [--runs 3] [--only NAME]... [--json]

Each run is a process of its own, which takes one item: every record is held against the whole contract, the bad ones
come into quarantine with their bytes and every reason, the good ones into the table, both durably. CPU is user and
system time of the whole process, its start included, so rows per CPU second are rows per core; memory is its peak.
Afterwards the tables are counted: no row may be lost or doubled.

`with keys` holds each record against those that are known, and its event time against a watermark; `coerced` has 5 % of
rows that the contract lets the door mend.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NamedTuple

# Nothing large is imported here: the peak of a child that is started counts what its parent held.

HERE: Final = Path(__file__).resolve().parent
SHARE_BAD: Final = 0.01
SHARE_COERCED: Final = 0.05
MEMORY_GOAL_MB: Final = 500
# Of each run: the kind of file, whether records have a key, whether some are to be coerced, and the goal per core.
RUNS: Final[dict[str, tuple[str, bool, bool, int | None]]] = {
    "parquet": ("parquet", False, False, 400_000),
    "csv": ("csv", False, False, 100_000),
    "jsonl": ("jsonl", False, False, None),
    "parquet, with keys": ("parquet", True, False, None),
    "parquet, coerced": ("parquet", False, True, None),
}


class Run(NamedTuple):
    cpu_seconds: float
    wall_seconds: float
    peak_mb: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=3_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", action="append", choices=tuple(RUNS))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", nargs=2, metavar=("STEP", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        step, name = arguments.child
        {"make": _make, "take": _take, "count": _count}[step](Path(name), arguments)
        return 0
    names = arguments.only or list(RUNS)
    runs: dict[str, list[Run]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory(prefix="mainstay-intake-") as folder:
        _child("make", folder, arguments.rows)
        for _ in range(arguments.runs):
            for name in names:
                runs[name].append(_child("take", folder, arguments.rows, name))
                _child("count", folder, arguments.rows, name)
    medians = {name: Run(*map(statistics.median, zip(*each, strict=True))) for name, each in runs.items()}
    if arguments.json:
        print(json.dumps({name: run._asdict() for name, run in medians.items()}, indent=2))
    else:
        _show(medians, arguments.rows)
    return int(any(_missed(name, run, arguments.rows) for name, run in medians.items()))


def _child(step: str, folder: str, rows: int, *only: str) -> Run:
    """A step in a process of its own. SystemExit when it fails."""
    command = [sys.executable, __file__, "--child", step, folder, "--rows", str(rows)]
    command += [part for name in only for part in ("--only", name)]
    begun = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"error: {step} {' '.join(only)} ended with {process.returncode}")
    return Run(usage.ru_utime + usage.ru_stime, time.perf_counter() - begun, usage.ru_maxrss / 1024)


def _make(folder: Path, arguments: argparse.Namespace) -> None:
    """The same table as a file of each kind, and one with texts to be mended."""
    polars, table = import_module("polars"), import_module("validation_table")
    table.make(folder, arguments.rows, share_bad=SHARE_BAD)
    given = polars.scan_parquet(folder / "table.parquet")
    texts = given.with_columns(
        polars.col("shipped").dt.strftime("%Y-%m-%dT%H:%M:%SZ"), polars.col("ordered").dt.to_string()
    )
    texts.sink_csv(folder / "table.csv")
    texts.sink_ndjson(folder / "table.jsonl")
    every = int(1 / SHARE_COERCED)
    spaced = polars.when(polars.col("order_id") % every == 0).then(" " + polars.col("sku")).otherwise(polars.col("sku"))
    given.with_columns(spaced.alias("sku")).sink_parquet(folder / "coerced.parquet", row_group_size=table.CHUNK_ROWS)


def _door(folder: Path, name: str) -> tuple[Any, Any]:
    """The door of a run and the landing before it; what is imported is part of what is measured."""
    _, keyed, coerced, _ = RUNS[name]
    sources = import_module("mainstay.capability.sources")
    contract = import_module("validation_table").contract()
    if coerced:
        allowed = b"customProperties: [{property: mainstay.coerce, value: [trim]}], "
        contract = contract.replace(b"{name: sku, ", b"{name: sku, " + allowed)
    made = import_module("mainstay.contract.load").parse_contract(contract, "contract.yaml")
    keys = {"key": ("order_id",), "event_time": "shipped"} if keyed else {}
    source = sources.Source(name="orders", files=sources.Files(folder=str(folder)), **keys)
    lake = import_module("mainstay.lake.lake").Lake(folder / "lake")
    door = import_module("mainstay.intake.door").Door(lake, "bench", source, made, made.schema[0])
    return door, import_module("mainstay.intake.landing").landing_of(folder, "bench", "orders")


def _take(folder: Path, arguments: argparse.Namespace) -> None:
    (name,) = arguments.only
    kind, _, coerced, _ = RUNS[name]
    for left in ("lake", "intake"):
        shutil.rmtree(folder / left, ignore_errors=True)
    door, landing = _door(folder, name)
    with landing.begin(kind) as draft:
        draft.path.unlink()
        os.link(folder / f"{'coerced' if coerced else 'table'}.{kind}", draft.path)
        item = draft.land(origin="bench")
    door.take(item, landing.path(item))


def _count(folder: Path, arguments: argparse.Namespace) -> None:
    """Raises SystemExit unless each row is in one of the tables, once."""
    lake = import_module("mainstay.lake.lake").Lake(folder / "lake")
    found = [
        lake.table(f"{kind}/bench/orders").frame().select("mainstay_row").collect() for kind in ("intake", "quarantine")
    ]
    rows = import_module("polars").concat(found)["mainstay_row"]
    if (
        len(rows) != arguments.rows
        or rows.n_unique() != arguments.rows
        or (rows.min(), rows.max()) != (1, arguments.rows)
    ):
        raise SystemExit(
            f"expected each of {arguments.rows} rows once, found {len(rows)}, {rows.n_unique()} of them different"
        )
    bad = len(found[1])
    if not 0.5 * SHARE_BAD <= bad / arguments.rows <= SHARE_BAD:
        raise SystemExit(f"expected a share of {SHARE_BAD} in quarantine at most, and about so many, found {bad} rows")


def _missed(name: str, run: Run, rows: int) -> bool:
    goal = RUNS[name][3]
    return run.peak_mb > MEMORY_GOAL_MB or (goal is not None and rows / run.cpu_seconds < goal)


def _show(medians: dict[str, Run], rows: int) -> None:
    print(f"{rows:,} rows, medians\n{'':22}{'CPU s':>8}{'rows/CPU s':>12}{'goal':>10}{'rows/s':>10}{'peak MB':>9}")
    for name, run in medians.items():
        goal = "" if RUNS[name][3] is None else f"{RUNS[name][3]:,}"
        print(
            f"{name:22}{run.cpu_seconds:8.2f}{rows / run.cpu_seconds:12,.0f}{goal:>10}"
            f"{rows / run.wall_seconds:10,.0f}{run.peak_mb:9,.0f}"
        )
    print(f"goal of memory: {MEMORY_GOAL_MB} MB")


if __name__ == "__main__":
    sys.exit(main())
