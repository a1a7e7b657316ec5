"""The tables of drift.py, and our part of it: a window held against stored counts of its reference.

    python bench/drift_table.py make FOLDER ROWS        reference.parquet, window.parquet and reference.json
    python bench/drift_table.py ours FOLDER TIMES       the window, read so many times over, against reference.json
    python bench/drift_table.py floor FOLDER 1          read and decoded, and nothing else

40 normal numbers and 10 texts of eight values. Of the numbers 8 have moved by a tenth of a standard deviation, and of
the texts 2 have changed their mix by a twentieth; the names of those that drifted begin with `d`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from mainstay.monitoring.binning import Column
from mainstay.monitoring.drift import Comparison, Sample, compare, judge
from mainstay.monitoring.histograms import BATCH_ROWS, COLUMNS_AT_ONCE, Histogram, count_parquet
from mainstay.monitoring.reference_counts import count_reference, decode_reference

NUMBERS: Final = [*(f"dx{i}" for i in range(8)), *(f"x{i:02}" for i in range(32))]
TEXTS: Final = [*(f"dc{i}" for i in range(2)), *(f"c{i}" for i in range(8))]
VALUES: Final = np.array(["north", "south", "east", "west", "online", "telephone", "partner", "other"])
SHIFT, MIXED = 0.1, 0.05
REFERENCE_ROWS: Final = 100_000  # of the stored counts; peers are given as many rows as the window has
GROUP_ROWS: Final = 100_000


def table(random: np.random.Generator, rows: int, *, drifted: bool) -> pl.DataFrame:
    mix = np.full(len(VALUES), 1 / len(VALUES))
    moved = mix.copy()
    moved[0] += MIXED
    moved[1:5] -= MIXED / 4
    columns = {name: random.standard_normal(rows) + SHIFT * (drifted and name[0] == "d") for name in NUMBERS}
    texts = {
        name: VALUES[random.choice(len(VALUES), rows, p=moved if drifted and name[0] == "d" else mix)] for name in TEXTS
    }
    return pl.DataFrame({**columns, **texts})


def make(folder: Path, rows: int) -> None:
    random = np.random.default_rng(0)
    reference = table(random, rows, drifted=False)
    reference.write_parquet(folder / "reference.parquet", row_group_size=GROUP_ROWS)
    (folder / "reference.json").write_bytes(count_reference(reference.head(REFERENCE_ROWS)).encode())
    del reference
    table(random, rows, drifted=True).write_parquet(folder / "window.parquet", row_group_size=GROUP_ROWS)


def ours(folder: Path, times: int) -> dict[str, int]:
    reference = decode_reference((folder / "reference.json").read_bytes())
    counted = count_parquet([folder / "window.parquet"] * times, reference.columns)
    found = judge(
        [_compare(reference.sample(each.name), counted, each) for each in reference.columns], level=0.01, smallest=0.02
    )
    drifted = [each.comparison.column for each in found if each.verdict == "drift"]
    true = sum(name[0] == "d" for name in drifted)
    return {"found": true, "false": len(drifted) - true}


def _compare(reference: Sample, counted: dict[str, Histogram], column: Column) -> Comparison:
    return compare(column, reference, Sample.of([counted[column.name]]))


def floor(folder: Path) -> dict[str, int]:
    rows = 0
    for start in range(0, len(NUMBERS + TEXTS), COLUMNS_AT_ONCE):
        frame = pl.scan_parquet(folder / "window.parquet", low_memory=True)
        chosen = frame.select((NUMBERS + TEXTS)[start : start + COLUMNS_AT_ONCE])
        rows += sum(batch.height for batch in chosen.collect_batches(chunk_size=BATCH_ROWS, maintain_order=False))
    return {"rows": rows}


if __name__ == "__main__":
    what, where, many = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    if what == "make":
        make(where, many)
    else:
        print(json.dumps(ours(where, many) if what == "ours" else floor(where)))
