from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl
import pytest

from lineage.emitted import make_workspace
from mainstay.capability.sources import Push, Source
from mainstay.errors import Misuse
from mainstay.intake.traced import item_facts, row_behind, rows_by_key
from mainstay.intake.types import ARRIVED_AT, CONTRACT, DAY, ITEM, ORIGIN, ROW, intake_table
from mainstay.lake.lake import Lake, open_lake

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.workspace import Workspace

NAME, FEED = "late-arrival", "feed"
TABLE = intake_table(NAME, FEED)
BEGIN = datetime(2026, 3, 1, 6, tzinfo=UTC)
SCHEMA = pl.Schema(
    {
        "id": pl.Int64(),
        ITEM: pl.Int64(),
        ROW: pl.Int64(),
        ORIGIN: pl.String(),
        ARRIVED_AT: pl.Datetime("us", "UTC"),
        CONTRACT: pl.String(),
        DAY: pl.Date(),
    }
)
ITEMS = 6  # one a day, with the keys 1 and 2, and one of its own


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = make_workspace(tmp_path)
    table = open_lake(workspace).create(TABLE, SCHEMA, partition_by=[DAY])
    for item in range(1, ITEMS + 1):
        arrived = arrival(item)
        rows = [
            {
                "id": key,
                ITEM: item,
                ROW: row,
                ORIGIN: f"page {item}",
                ARRIVED_AT: arrived,
                CONTRACT: "c@1",
                DAY: arrived.date(),
            }
            for row, key in enumerate((1, 2, 10 * item), 1)
        ]
        table.append(pl.DataFrame(rows, schema=SCHEMA), writer="door", position=item)
    return workspace


def arrival(item: int) -> datetime:
    return BEGIN + timedelta(days=item - 1)


def lose(workspace: Workspace, *days: int) -> None:
    """Remove the files of what arrived on these days, so that whoever reads them fails."""
    for day in days:
        files = list((workspace.data / "lake" / TABLE).glob(f"{DAY}={arrival(day):%Y-%m-%d}/*.parquet"))
        assert files
        for file in files:
            file.unlink()


def by_key(workspace: Workspace, key: str, at: datetime, *fields: str, days: int = 31) -> list[tuple[int, int]]:
    source = Source(name=FEED, push=Push(), key=fields or ("id",))
    found = rows_by_key(workspace, open_lake(workspace), NAME, source, key, at, days=days)
    assert {each.link for each in found} <= {"key"}
    return [(each.item, each.row) for each in found]


def test_a_row_is_read_from_the_files_that_may_hold_it_alone(workspace: Workspace) -> None:
    lose(workspace, 1, 2, 3, 5, 6)
    found = row_behind(workspace, open_lake(workspace), TABLE, 4, 3)
    assert (found.link, found.arrived_at, found.origin, found.contract) == ("row", arrival(4), "page 4", "c@1")
    facts = item_facts(workspace, open_lake(workspace), NAME, FEED, 4)
    assert (facts.accepted, facts.quarantined, facts.arrived_at) == (3, 0, arrival(4))


def test_a_key_is_looked_for_backwards_from_the_decision_and_no_further_than_its_newest_row(
    workspace: Workspace,
) -> None:
    lose(workspace, 1, 2, 3, 5, 6)
    assert by_key(workspace, "2", arrival(4) + timedelta(hours=1)) == [(4, 2)]


def test_rows_that_arrived_later_are_not_what_was_known(workspace: Workspace) -> None:
    assert by_key(workspace, "1", arrival(4) - timedelta(hours=1)) == [(3, 1)]
    assert by_key(workspace, "1", BEGIN - timedelta(hours=1)) == []
    assert by_key(workspace, "40", arrival(6)) == [(4, 3)]
    assert by_key(workspace, "40", arrival(6), days=1) == []


@pytest.mark.parametrize("key", ["x", "", "1.0", "9999999999999999999", "99999999999999999999", "77"])
def test_what_is_no_key_of_the_table_has_no_row(key: str, workspace: Workspace) -> None:
    assert by_key(workspace, key, arrival(6)) == []


def test_a_key_of_several_fields_and_one_that_the_table_lacks_are_not_guessed_at(workspace: Workspace) -> None:
    assert by_key(workspace, "1", arrival(6), "id", "other") == []
    assert by_key(workspace, "1", arrival(6), "other") == []


def test_a_table_and_an_item_that_are_not_there_are_told(workspace: Workspace, tmp_path: Path) -> None:
    found = row_behind(workspace, Lake(tmp_path / "another"), TABLE, 1, 1)
    assert (found.item, found.arrived_at, found.origin) == (1, None, None)
    with pytest.raises(Misuse, match="item 9 of late-arrival/feed"):
        item_facts(workspace, open_lake(workspace), NAME, FEED, 9)
