"""Batch decisions with records, beside ONNX Runtime alone: rows per CPU second on one core, and peak memory.

The model has 30 features and 100 trees; with it come a contract, an out-of-distribution score, calibration, a policy
that looks at every answer, and a durable record of each row. CPU is that of the whole process, user and system, after
it has begun: reading the table, deciding, recording, writing the output.

    python bench/batch.py [--rows 1000000] [--repeats 3] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import polars as pl
from fixture import CAPABILITY, Fixture, make_fixture

CORE = 0
ALONE_ROWS = 8_192  # that ONNX Runtime is given together, as a batch does

# Measured by others on a like machine: `MLflow pyfunc`, a row a call, is its scoring server's in-process path.
PEERS = "MLflow pyfunc, one row a call: 6,500 us a row, 150 rows a second; scikit-learn alone: 784 us for one row"


def make_table(fixture: Fixture, path: Path, rows: int) -> None:
    """Rows like those that the model knows, each a little different."""
    random = np.random.default_rng(0)
    known = np.array([list(row.values()) for row in fixture.rows])
    parts = []
    for start in range(0, rows, 100_000):
        count = min(100_000, rows - start)
        values = known[random.integers(0, len(known), count)] * (1 + 0.002 * random.standard_normal((count, 30)))
        parts.append(pl.DataFrame(values, schema=fixture.fields))
    pl.concat(parts).write_parquet(path, row_group_size=131_072)


def measure_alone(artifact: Path, table: Path) -> float:
    """CPU microseconds a row of ONNX Runtime on one thread, from floats that are ready."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session: Any = onnxruntime.InferenceSession(str(artifact), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    output = next(each.name for each in session.get_outputs() if "prob" in each.name)
    rows = pl.read_parquet(table, n_rows=100_000).to_numpy().astype(np.float32)
    session.run([output], {name: rows[:ALONE_ROWS]})
    begun = time.process_time()
    for start in range(0, len(rows), ALONE_ROWS):
        session.run([output], {name: rows[start : start + ALONE_ROWS]})
    return (time.process_time() - begun) / len(rows) * 1e6


def run_once(workspace: Path, token: str, table: Path, output: Path) -> dict[str, float]:
    """One batch in a process of its own, on one core; what it says of itself."""
    command = ["taskset", "-c", str(CORE), sys.executable, __file__, "--child", str(workspace), str(table), str(output)]
    environment = {
        **os.environ,
        "MAINSTAY_API_KEY": token,
        "OPENBLAS_NUM_THREADS": "1",
        "POLARS_MAX_THREADS": "1",
    }
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def peak_mb() -> float:
    """The most memory this process had. `getrusage` would count what its parent had when it began it."""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text("ascii"), re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


def child(workspace: str, table: str, output: str) -> None:
    """Begin, run, and print CPU, wall and memory. A first small run opens what is opened once."""
    from mainstay.batch.batches import Asked, run_batch  # noqa: PLC0415 - the parent process needs none of it
    from mainstay.workspace import open_workspace  # noqa: PLC0415

    opened = open_workspace(Path(workspace))
    begun, wall, done = 0.0, 0.0, 0

    def told(reached: Any) -> None:
        nonlocal begun, wall, done
        if not begun:  # the first step is not counted: it opens the release
            begun, wall, done = time.process_time(), time.perf_counter(), reached.summary.rows

    asked = Asked(CAPABILITY, table, Path(output))
    summary, _ = run_batch(opened, asked, os.environ["MAINSTAY_API_KEY"], told)
    rows = summary.rows - done
    print(
        json.dumps(
            {
                "rows": summary.rows,
                "cpu_us": (time.process_time() - begun) / rows * 1e6,
                "wall_us": (time.perf_counter() - wall) / rows * 1e6,
                "peak_mb": peak_mb(),
                "answered": summary.outcomes.get("answered", 0),
            }
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(*given.child)
        return
    with tempfile.TemporaryDirectory() as directory:
        fixture = make_fixture(Path(directory) / "workspace")
        table = Path(directory) / "rows.parquet"
        make_table(fixture, table, given.rows)
        pairs = [
            (
                measure_alone(fixture.artifact, table),
                run_once(fixture.workspace.root, fixture.token, table, Path(directory) / f"decided-{number}"),
            )
            for number in range(given.repeats)
        ]
    summary = {
        "rows": float(given.rows),
        "answered": pairs[0][1]["answered"],
        "onnxruntime_alone_us": statistics.median(alone for alone, _ in pairs),
        "batch_cpu_us": statistics.median(run["cpu_us"] for _, run in pairs),
        "batch_wall_us": statistics.median(run["wall_us"] for _, run in pairs),
        "rows_per_cpu_second": 1e6 / statistics.median(run["cpu_us"] for _, run in pairs),
        "onnxruntime_rows_per_cpu_second": 1e6 / statistics.median(alone for alone, _ in pairs),
        "peak_mb": max(run["peak_mb"] for _, run in pairs),
    }
    if given.json:
        print(json.dumps({**summary, "pairs": pairs}))
        return
    for name, value in summary.items():
        print(f"{name:34} {value:14,.2f}")
    print(PEERS)


if __name__ == "__main__":
    main()
