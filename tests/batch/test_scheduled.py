from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

import tiny
from batch.online import read_records, unsealed
from mainstay.batch.batches import Asked, run_batch
from mainstay.batch.lake_input import DOOR
from mainstay.batch.scheduled import Schedule, run_scheduled, table_name
from mainstay.decision.record import SCHEDULE
from mainstay.errors import Misuse
from mainstay.lake.lake import open_lake

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.workspace import Workspace

SOURCES: dict[str, Any] = {
    "sources": [
        {"name": "orders", "files": {"folder": "incoming"}, "late": "re-decide", "event_time": "at", "key": ["note"]}
    ],
    "batches": [{"name": "nightly", "source": "orders", "key": "note", "every_seconds": 3600}],
}
TABLE = f"intake/{tiny.NAME}/orders"


@pytest.fixture
def served(tmp_path: Path) -> tuple[Workspace, str]:
    contract = tiny.CONTRACT | {"schema": [_with_time(tiny.CONTRACT["schema"][0]), *tiny.CONTRACT["schema"][1:]]}
    return tiny.make_served(tmp_path / "w", contract=contract, **SOURCES)


def _with_time(described: dict[str, Any]) -> dict[str, Any]:
    return described | {"properties": [*described["properties"], {"name": "at", "logicalType": "timestamp"}]}


def take_in(workspace: Workspace, item: int, rows: list[tuple[int, float, str]]) -> None:
    """Rows of an item, as the door puts them into the table: number, `a`, key."""
    lake = open_lake(workspace)
    day = datetime(2026, 3, 1, tzinfo=UTC)
    frame = pl.DataFrame(
        {
            "a": [a for _, a, _ in rows],
            "b": [0.5] * len(rows),
            "note": [key for _, _, key in rows],
            "mainstay_item": [item] * len(rows),
            "mainstay_row": [number for number, _, _ in rows],
            "mainstay_late": pl.Series([None] * len(rows), dtype=pl.String),
            "mainstay_day": [day.date()] * len(rows),
        }
    )
    table = lake.find(TABLE) or lake.create(TABLE, frame.schema, partition_by=["mainstay_day"])
    table.append(frame, writer=DOOR, position=(item << 32) | rows[-1][0])


def decided(workspace: Workspace) -> list[tuple[int, int, str]]:
    """What stands in the batch's table: item, row, outcome."""
    table = open_lake(workspace).table(table_name(tiny.NAME, "nightly"))
    rows = table.frame().sort("mainstay_item", "mainstay_row").collect()
    return list(rows.select("mainstay_item", "mainstay_row", "mainstay_outcome").iter_rows())


def test_each_time_what_came_since_is_decided(served: tuple[Workspace, str]) -> None:
    workspace, _ = served
    take_in(workspace, 1, [(1, 0.5, "k1"), (2, 0.25, "k2"), (4, 1.0, "k4")])
    first = run_scheduled(workspace, tiny.NAME, "nightly")
    assert first is not None
    assert first.rows == 3
    assert run_scheduled(workspace, tiny.NAME, "nightly") is None
    take_in(workspace, 3, [(2, 500.0, "k5")])
    second = run_scheduled(workspace, tiny.NAME, "nightly")
    assert second is not None
    assert second.rows == 1
    assert decided(workspace) == [
        (1, 1, "answered"),
        (1, 2, "answered"),
        (1, 4, "answered"),
        (3, 2, "refused"),
    ]
    records = read_records(workspace.ledger)
    assert [each.source for each in records] == [
        {"batch": batch, "table": TABLE, "item": item, "row": row}
        for batch, item, row in ((first.batch, 1, 1), (first.batch, 1, 2), (first.batch, 1, 4), (second.batch, 3, 2))
    ]
    assert [each.key for each in records] == ["k1", "k2", "k4", "k5"]


def test_a_row_that_came_late_has_its_decision_made_again(served: tuple[Workspace, str]) -> None:
    workspace, _ = served
    take_in(workspace, 1, [(1, 0.5, "k1")])
    run_scheduled(workspace, tiny.NAME, "nightly")
    take_in(workspace, 2, [(1, -0.5, "k1")])
    run_scheduled(workspace, tiny.NAME, "nightly")
    assert [(each.key, each.source["item"]) for each in read_records(workspace.ledger)] == [("k1", 1), ("k1", 2)]


def test_the_schedule_makes_what_is_due_and_no_more(
    served: tuple[Workspace, str], caplog: pytest.LogCaptureFixture
) -> None:
    workspace, _ = served
    schedule = Schedule(workspace)
    schedule.run_due(1_000.0, lambda: False)
    assert "has taken nothing in yet" in caplog.text
    take_in(workspace, 1, [(1, 0.5, "k1")])
    schedule.run_due(1_010.0, lambda: False)
    assert open_lake(workspace).find(table_name(tiny.NAME, "nightly")) is None
    schedule.run_due(1_030.0, lambda: False)
    take_in(workspace, 2, [(1, 0.5, "k2")])
    schedule.run_due(1_040.0, lambda: False)
    assert len(decided(workspace)) == 1
    schedule.run_due(1_030.0 + 3_600, lambda: False)
    assert len(decided(workspace)) == 2
    assert {entry.source["item"] for entry in read_records(workspace.ledger)} == {1, 2}


def test_a_batch_that_nobody_declared_is_refused_by_name(served: tuple[Workspace, str]) -> None:
    with pytest.raises(Misuse, match="expected one of its scheduled batches, found 'weekly'"):
        run_scheduled(served[0], tiny.NAME, "weekly")


def test_a_table_of_the_lake_is_decided_as_of_a_version_and_since_another(
    served: tuple[Workspace, str], tmp_path: Path
) -> None:
    workspace, token = served
    take_in(workspace, 1, [(1, 0.5, "k1"), (2, 0.25, "k2")])
    first = open_lake(workspace).table(TABLE).version
    take_in(workspace, 2, [(1, 0.5, "k3")])
    second = open_lake(workspace).table(TABLE).version
    take_in(workspace, 3, [(1, 0.5, "k4")])
    rows = {}
    for name, version, since in (("old", first, None), ("new", second, first), ("all", None, None)):
        asked = Asked(tiny.NAME, f"lake:{TABLE}", tmp_path / name, key="note", version=version, since=since)
        run_batch(workspace, asked, token)
        rows[name] = pl.read_parquet(tmp_path / name)["mainstay_key"].to_list()
    assert rows == {"old": ["k1", "k2"], "new": ["k3"], "all": ["k1", "k2", "k3", "k4"]}


def test_the_principal_of_a_scheduled_decision_is_the_schedule(served: tuple[Workspace, str]) -> None:
    workspace, _ = served
    take_in(workspace, 1, [(1, 0.5, "k1")])
    summary = run_scheduled(workspace, tiny.NAME, "nightly")
    assert summary is not None
    (entry,) = unsealed(workspace.ledger)
    assert f'"principal":"{SCHEDULE}"'.encode() in entry.leaf
