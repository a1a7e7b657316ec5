from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

import tiny
from batch.online import assert_same, decide_online, read_records
from mainstay.batch.batches import Asked, run_batch
from mainstay.catalog.versions import open_version
from mainstay.cli.init import create_workspace

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.acceptance

PREDICT = """
def predict(records):
    if any(record["b"] == 66 for record in records):
        raise ValueError("66 is beyond me")
    return [{"probability": 0.25 + record["a"] / 4, "yes": record["a"] > 0} for record in records]
"""
LADDER = [{"constant": {"probability": 0.5, "yes": False}}]


def test_a_model_in_a_process_of_its_own_decides_rows_as_it_does_calls(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "model": {"kind": "python", "call": "predict.py:predict"},
        "output": {},
        "when": {"model_error": "fallback", "contract_violation": "review"},
        "fallback": LADDER,
    }
    workspace, _, token = create_workspace(tmp_path / "w", "tests.example.com/tiny")
    folder = workspace.capabilities / tiny.NAME
    folder.mkdir(parents=True)
    (folder / "predict.py").write_text(PREDICT)
    version = tiny.release(workspace, **changes)
    assert open_version(workspace.versions, version).manifest.runtime == "isolated"
    rows = [{"a": number % 5 / 4, "b": float(number % 90)} for number in range(300)]
    rows[7]["a"] = 500.0  # beyond the contract
    pl.DataFrame(rows).write_parquet(tmp_path / "rows.parquet")
    summary, worked = run_batch(workspace, Asked(tiny.NAME, str(tmp_path / "rows.parquet"), tmp_path / "out"), token)
    assert worked
    failed = sum(row["b"] == 66 for row in rows)
    assert summary.outcomes == {"answered": 299 - failed, "fallback": failed, "review": 1}
    records = sorted(read_records(workspace.ledger), key=lambda each: int(each.source["row"]))
    calls = [b'{"input":{"a":%a,"b":%a}}' % (row["a"], row["b"]) for row in rows]
    assert_same(records, decide_online(workspace, calls))
    written = pl.read_parquet(tmp_path / "out").sort("mainstay_row")
    assert written["mainstay_outcome"].value_counts(sort=True).row(0) == ("answered", 299 - failed)
    assert written["probability"][0] == 0.25
