from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from lake.lakes import DAY, make_table, numbers, rows
from mainstay.errors import Failed, Misuse
from mainstay.lake.commits import Superseded
from mainstay.lake.lake import Lake
from mainstay.lake.maintenance import Policy, maintain
from mainstay.lake.snapshots import open_snapshot
from mainstay.lake.tables import Table
from mainstay.lake.taking import take

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(DAY.year, DAY.month, DAY.day, 12, tzinfo=UTC) + timedelta(days=30)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path)
    table = make_table(lake)
    for n in range(0, 40, 5):
        table.append(rows(n, n + 5), writer="w", position=n, metadata={"after": n})
    return lake


def test_tables_are_brought_to_what_the_policy_asks_and_a_second_step_finds_nothing_to_do(lake: Lake) -> None:
    take(lake, "march", "intake/flights/feed")
    policy = Policy(keep_versions=timedelta(), keep_rows=timedelta(days=28))
    done = {each.table: each for each in maintain(lake, policy, NOW)}
    feed = done["intake/flights/feed"]
    assert (feed.joined, feed.dropped, feed.removed, feed.problem) == (4, 20, 8, "")
    table = lake.table("intake/flights/feed")
    assert numbers(table) == list(range(20, 40))
    assert table.cursor("w") == {"after": 35}
    assert len(open_snapshot(lake, "march").frame().collect()) == 40
    open_snapshot(lake, "march").verify()
    before = table.version
    assert all((each.joined, each.dropped, each.removed) == (0, 0, 0) for each in maintain(lake, policy, NOW))
    assert table.refresh().version == before


def test_rows_stay_for_ever_where_nothing_else_is_asked(lake: Lake) -> None:
    list(maintain(lake, Policy(), NOW + timedelta(days=10_000)))
    assert numbers(lake.table("intake/flights/feed")) == list(range(40))


def test_a_log_is_shortened_once_a_day(lake: Lake) -> None:
    table = lake.table("intake/flights/feed")
    list(maintain(lake, Policy(), NOW))
    first = table.refresh().version
    list(maintain(lake, Policy(), NOW + timedelta(hours=23)))
    assert table.refresh().version == first
    list(maintain(lake, Policy(), NOW + timedelta(hours=25)))
    assert table.refresh().version == first + 1


def test_a_table_that_somebody_rewrites_does_not_stop_the_others(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    make_table(lake, "other", count=10)
    real = Table.compact

    def compact(table: Table, *arguments: Any) -> int:
        if table.name == "other":
            raise Superseded("table other: a concurrent transaction deleted data")
        return real(table, *arguments)

    monkeypatch.setattr(Table, "compact", compact)
    done = {each.table: each for each in maintain(lake, Policy(), NOW)}
    assert done["other"].problem == "table other: a concurrent transaction deleted data"
    assert done["intake/flights/feed"].joined == 8


def test_a_policy_is_held_to_its_bounds(lake: Lake) -> None:
    with pytest.raises(Misuse, match="0 to 7 days"):
        list(maintain(lake, Policy(keep_versions=timedelta(days=8)), NOW))
    assert list(maintain(Lake(f"{lake.location.root}/none"), Policy(), NOW)) == []


def test_a_storage_that_does_not_answer_is_told(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "tables/_delta_log" / f"{0:020d}.json").write_bytes(b"{")
    with pytest.raises(Failed):
        list(maintain(lake, Policy(), NOW))


@pytest.mark.parametrize("name", ["intake/flights/feed", "quarantine/flights/feed", "settled/flights/feed"])
def test_rows_by_the_day_of_their_arrival_are_kept_as_long_as_others(name: str, tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    table = lake.create(name, pl.Schema({"mainstay_day": pl.Date(), "n": pl.Int64()}), partition_by=["mainstay_day"])
    for n in range(10):
        frame = pl.DataFrame({"mainstay_day": [DAY + timedelta(days=n)], "n": [n]})
        table.append(frame, writer="door", position=n, metadata={"item": n})
    policy = Policy(keep_versions=timedelta(), keep_rows=timedelta(days=26))
    done = {each.table: each for each in maintain(lake, policy, NOW)}
    assert (done[name].dropped, done[name].problem) == (4, "")
    assert numbers(table.refresh()) == list(range(4, 10))
    assert table.cursor("door") == {"item": 9}
    assert done[name].removed >= 4
