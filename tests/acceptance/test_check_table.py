"""Checking a table survives being killed: outputs are whole or absent, and nothing is left lying about for long."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from contract.contracts import document

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.acceptance

ROWS = 600_000
FIELDS: list[dict[str, Any]] = [
    {"name": "id", "logicalType": "integer", "unique": True},
    {"name": "text", "logicalType": "string", "logicalTypeOptions": {"pattern": "^row [0-9]+$"}},
]
CHECK = """
import sys
from pathlib import Path
from mainstay.contract.columns import compile_columns
from mainstay.contract.load import load_contract
from mainstay.contract.tables import check_table
folder = Path(sys.argv[1])
validator = compile_columns(load_contract(folder / "contract.yaml").schema[0])
print("begun", flush=True)
check_table(folder / "t.parquet", validator, folder / "out" / "clean.parquet", folder / "out" / "bad.parquet")
"""


def start(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", CHECK, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "begun\n"
    return process


def test_a_check_killed_at_any_moment_leaves_whole_outputs_or_none(tmp_path: Path) -> None:
    (tmp_path / "contract.yaml").write_bytes(document(FIELDS))
    ids = pl.int_range(ROWS, eager=True).alias("id")
    frame = pl.DataFrame([ids, pl.select(pl.format("row {}", pl.lit(ids))).to_series().alias("text")])
    frame = frame.with_columns(id=pl.when(pl.col("id") % 1_000 == 1).then(pl.col("id") - 1).otherwise("id"))
    frame.write_parquet(tmp_path / "t.parquet", row_group_size=100_000)
    out = tmp_path / "out"
    chance = random.Random(7)
    begun = time.monotonic()
    assert start(tmp_path).wait(timeout=60) == 0
    lasts = time.monotonic() - begun
    for path in out.iterdir():
        path.unlink()
    killed = 0
    while killed < 6:
        process = start(tmp_path)
        time.sleep(chance.uniform(0, lasts))
        process.kill()
        killed += process.wait(timeout=60) != 0
        clean, bad = out / "clean.parquet", out / "bad.parquet"
        if clean.exists():
            assert pl.scan_parquet(clean).select(pl.len()).collect().item() == ROWS - ROWS // 1_000
            assert pl.read_parquet(bad).height == ROWS // 1_000
            clean.unlink()
        elif bad.exists():
            assert pl.read_parquet(bad).height == ROWS // 1_000
    assert start(tmp_path).wait(timeout=60) == 0
    assert sorted(path.name for path in out.iterdir()) == ["bad.parquet", "clean.parquet"]
