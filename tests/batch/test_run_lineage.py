from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

import tiny
from lineage.emitted import emitted
from lineage.others import read_by_their_client
from mainstay.batch.batches import Asked, run_batch
from mainstay.batch.scheduled import run_scheduled
from mainstay.lake.lake import open_lake

if TYPE_CHECKING:
    from pathlib import Path

DECLARED: dict[str, Any] = {
    "sources": [{"name": "orders", "push": {}}],
    "batches": [{"name": "nightly", "source": "orders"}],
}


def rows_of(datasets: list[dict[str, Any]], facets: str, statistics: str) -> dict[str, int]:
    return {each["name"]: each[facets][statistics]["rowCount"] for each in datasets if statistics in each[facets]}


def test_a_batch_says_what_it_decided_about_by_which_version_and_where_that_went(tmp_path: Path) -> None:
    workspace, token = tiny.make_served(tmp_path / "w", **DECLARED)
    given, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    given.write_text('{"a": 1, "b": 0.5}\n' * 3)
    assert run_batch(workspace, Asked(tiny.NAME, str(given), output), token)[1]
    start, complete = emitted(workspace)
    assert (start["job"]["name"], start["eventType"], complete["eventType"]) == ("batch.tiny", "START", "COMPLETE")
    version = next(each["name"] for each in complete["inputs"] if each["namespace"].startswith("mainstay:"))
    (digest,) = (path.parent.name for path in workspace.versions.glob("*/manifest.json"))
    assert version == f"tiny/versions/sha256:{digest}"
    assert rows_of(complete["inputs"], "inputFacets", "inputStatistics") == {str(given): 3}
    assert rows_of(complete["outputs"], "outputFacets", "outputStatistics") == {str(output): 3, "tiny/ledger": 3}
    read_by_their_client(complete)
    assert not run_batch(workspace, Asked(tiny.NAME, str(given), output), token)[1]
    assert len(emitted(workspace)) == 2  # nothing was to be done


def test_a_scheduled_batch_goes_from_table_to_table(tmp_path: Path) -> None:
    workspace, _ = tiny.make_served(tmp_path / "w", **DECLARED)
    frame = pl.DataFrame({"a": [1.0, 2.0], "b": [0.5, 0.5], "mainstay_item": [1, 1], "mainstay_row": [1, 2]})
    lake = open_lake(workspace)
    table = lake.create(f"intake/{tiny.NAME}/orders", frame.schema)
    table.append(frame, writer="door", position=(1 << 32) | 2)
    assert run_scheduled(workspace, tiny.NAME, "nightly") is not None
    complete = emitted(workspace)[-1]
    assert (complete["job"]["name"], complete["eventType"]) == ("batch.tiny.nightly", "COMPLETE")
    root = lake.location.root
    assert rows_of(complete["inputs"], "inputFacets", "inputStatistics") == {f"{root}/intake/tiny/orders": 2}
    written = rows_of(complete["outputs"], "outputFacets", "outputStatistics")
    assert written == {f"{root}/batches/tiny/nightly": 2, "tiny/ledger": 2}
    assert run_scheduled(workspace, tiny.NAME, "nightly") is None
