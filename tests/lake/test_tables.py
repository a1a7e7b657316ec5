from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake
from hypothesis import given, settings
from hypothesis import strategies as st

from lake.lakes import DAY, SCHEMA, make_table, numbers, parquet_with, rows
from mainstay.errors import Failed, Misuse
from mainstay.lake.conditions import OneOf, Within
from mainstay.lake.lake import Lake
from mainstay.lake.tables import KEEPER_LOCK_FILE, LOCK_FILE, MAX_KEEP, ORPHAN_AGE
from mainstay.locks import locked

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


def test_a_position_is_reached_once_and_says_what_the_writer_said(lake: Lake) -> None:
    table = make_table(lake, count=20)
    again = table.append(rows(10, 20), writer="w", position=20, metadata={"after": "other"})
    assert not again.made
    assert not table.append(rows(0, 10), writer="w", position=10).made
    assert (table.position("w"), table.cursor("w")) == (20, {"after": 20})
    assert (table.position("nobody"), table.cursor("nobody")) == (None, None)
    assert numbers(table) == list(range(20))
    assert table.rows == 20


@settings(max_examples=15)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 6)), max_size=12))
def test_whatever_is_said_twice_or_late_each_step_is_there_once(
    tmp_path_factory: pytest.TempPathFactory, said: list[tuple[str, int]]
) -> None:
    table = make_table(Lake(tmp_path_factory.mktemp("lake")))
    reached = {"a": -1, "b": -1}
    wanted = []
    for writer, position in said:
        batch = rows(position, position + 1).with_columns(who=pl.lit(writer))
        done = table.append(batch, writer=writer, position=position, metadata={"at": position})
        assert done.made == (position > reached[writer])
        if done.made:
            wanted.append((writer, position))
            reached[writer] = position
    found = table.frame().select("who", "n").collect().rows()
    assert sorted(found) == sorted(wanted)
    for writer, position in reached.items():
        assert table.cursor(writer) == (None if position < 0 else {"at": position})


def test_a_writer_that_stands_elsewhere_is_told(lake: Lake) -> None:
    table = make_table(lake, count=10)
    with pytest.raises(Failed, match="expected w at 5, found it at 10"):
        table.append(rows(10, 20), writer="w", position=20, previous=5)
    with pytest.raises(Failed, match="expected new at 3, found it at None"):
        table.append(rows(10, 20), writer="new", position=20, previous=3)
    assert table.append(rows(10, 20), writer="new", position=20, previous=-1).made
    with pytest.raises(Misuse, match="a position of at least 0"):
        table.append(rows(0, 1), writer="w", position=-1)


def test_a_commit_may_have_no_rows_or_several_batches(lake: Lake) -> None:
    table = make_table(lake)
    assert table.append([], writer="w", position=1).made
    assert table.append([rows(0, 5), rows(5, 9)], writer="w", position=2).rows == 9
    assert table.append(rows(0, 0), writer="w", position=3).made
    assert (table.position("w"), table.rows) == (3, 9)


def test_a_batch_that_does_not_fit_leaves_the_table_and_the_position(lake: Lake) -> None:
    table = make_table(lake, count=10)
    with pytest.raises(Misuse, match="did you mean who"):
        table.append(rows(10, 20).rename({"who": "whom"}), writer="w", position=20)
    assert (table.refresh().version, table.position("w")) == (1, 10)


def test_an_older_version_and_an_earlier_instant_can_be_read(lake: Lake) -> None:
    table = make_table(lake, count=30)
    second = table.history()[1]
    assert (second.version, second.rows, second.writers, second.operation) == (2, 10, {"w": 20}, "WRITE")
    assert numbers(table, version=1) == list(range(10))
    assert len(table.frame(at=second.at).collect()) == 20
    assert len(table.frame(at=second.at - timedelta(milliseconds=1)).collect()) == 10
    assert len(table.frame(at=datetime.now(UTC)).collect()) == 30
    with pytest.raises(Misuse, match="or before, found none"):
        table.frame(at=datetime(2020, 1, 1, tzinfo=UTC))
    frame = table.frame()
    table.append(rows(30, 40), writer="w", position=40)
    assert len(frame.collect()) == 30  # what was opened stays that version
    with pytest.raises(Misuse, match="expected version 77, found up to version 4"):
        table.frame(version=77)


def test_columns_are_added_and_widened_and_old_rows_keep_their_values(lake: Lake) -> None:
    narrow = pl.Schema({"day": pl.Date(), "n": pl.Int32(), "x": pl.Float32(), "d": pl.Decimal(8, 2)})
    table = lake.create("t", narrow, partition_by=["day"], properties={"mainstay.kept": "yes"})
    first = pl.DataFrame({"day": [DAY], "n": [7], "x": [1.5], "d": ["2.25"]}).cast(narrow)
    table.append(first, writer="w", position=1, metadata={"after": 1})
    wide = pl.Schema({"n": pl.Int64(), "x": pl.Float64(), "d": pl.Decimal(12, 4), "new": pl.String()})
    assert table.evolve(wide)
    assert table.schema == pl.Schema({"day": pl.Date(), **wide})
    assert table.cursor("w") == {"after": 1}
    assert table.properties["mainstay.kept"] == "yes"
    assert not table.evolve(wide)
    assert not table.evolve(narrow)  # nothing narrows
    row = table.frame().collect().row(0, named=True)
    assert (row["n"], row["x"], str(row["d"]), row["new"]) == (7, 1.5, "2.2500", None)
    table.append(pl.DataFrame({"day": [DAY], "n": [2**40], "new": ["y"]}), writer="w", position=2)
    assert table.frame().select(pl.col("n").max()).collect().item() == 2**40
    assert table.frame(version=1).collect().schema["n"] == pl.Int32


def test_a_change_that_would_lose_values_is_refused_with_each_reason(lake: Lake) -> None:
    table = make_table(lake, count=10)
    with pytest.raises(Misuse) as caught:
        table.evolve(pl.Schema({"n": pl.String(), "who": pl.Int64(), "extra": pl.Int8()}))
    assert "n: the table has Int64, found String" in str(caught.value)
    assert "who: the table has String, found Int64" in str(caught.value)
    assert table.refresh().version == 1


def test_small_files_are_joined_and_nothing_else_changes(lake: Lake) -> None:
    table = make_table(lake)
    for n in range(6):
        table.append(rows(n, n + 1), writer="w", position=n, metadata={"after": n})
    assert table.compact() == 6
    assert len(table.delta().file_uris()) == 1
    assert numbers(table) == list(range(6))
    assert table.cursor("w") == {"after": 5}
    before = table.version
    assert table.compact() == 0
    assert table.refresh().version == before


def test_vacuum_removes_what_only_old_versions_hold_and_keeps_what_is_young(lake: Lake, tmp_path: Path) -> None:
    table = make_table(lake)
    for n in range(6):
        table.append(rows(n, n + 1), writer="w", position=n)
    table.compact()
    assert table.vacuum(timedelta(days=1)) == 0
    assert len(table.frame(version=3).collect()) == 3
    assert table.vacuum(timedelta()) == 6
    before = table.refresh().version
    assert table.vacuum(timedelta()) == 0  # they are counted once, and no commit says that nothing was done
    assert table.refresh().version == before
    assert numbers(table) == list(range(6))
    assert len(list(tmp_path.rglob("intake/**/*.parquet"))) == 1
    with pytest.raises(Misuse, match="0 to 7 days"):
        table.vacuum(MAX_KEEP + timedelta(days=1))


def test_files_of_a_writer_that_was_killed_go_once_no_writer_can_still_be_at_them(lake: Lake, tmp_path: Path) -> None:
    table = make_table(lake, count=10)
    folder = tmp_path / "lake/intake/flights/feed/day=2026-03-01"
    young, old = folder / "part-young.parquet", folder / "part-old.parquet"
    for path in (young, old):
        path.write_bytes(b"half")
    past = datetime.now(UTC).timestamp() - ORPHAN_AGE.total_seconds() - 3_600
    os.utime(old, (past, past))
    assert table.vacuum(timedelta()) == 1
    assert young.exists()
    assert not old.exists()


def test_rows_of_old_days_are_dropped(lake: Lake) -> None:
    table = make_table(lake, count=40)
    assert table.retain(Within("day", None, DAY + timedelta(days=2))) == 20
    assert table.retain(Within("day", None, DAY + timedelta(days=2))) == 0
    assert numbers(table) == list(range(20, 40))
    assert numbers(table, version=4) == list(range(40))


def test_erased_rows_are_in_no_file_any_more(lake: Lake, tmp_path: Path) -> None:
    table = make_table(lake, count=30)
    table.compact()
    table.append(rows(30, 40), writer="w", position=40, metadata={"after": 40})
    assert parquet_with(tmp_path, "K-3")
    erased = table.erase(OneOf("who", ("K-3", "it's nobody")))
    assert erased.rows == 8
    assert erased.files > 0
    assert parquet_with(tmp_path, "K-3") == []
    assert numbers(table) == [n for n in range(40) if n % 5 != 3]
    assert table.cursor("w") == {"after": 40}
    assert table.erase(OneOf("who", ("K-3",))) == (0, 0)


def test_erasing_nobody_keeps_the_older_versions(lake: Lake) -> None:
    table = make_table(lake, count=20)
    table.compact()
    assert table.erase(OneOf("who", ("nobody",))) == (0, 0)
    assert numbers(table, version=1) == list(range(10))


def test_files_that_a_killed_erasure_left_go_when_it_is_made_again(lake: Lake, tmp_path: Path) -> None:
    table = make_table(lake, count=20)

    class Killed(BaseException):
        pass

    def killed(*_: Any, **__: Any) -> Any:
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(table), "_vacuum", killed)
        with pytest.raises(Killed):
            table.erase(OneOf("who", ("K-3",)))
    assert parquet_with(tmp_path, "K-3")
    again = lake.table(table.name)
    assert again.erase(OneOf("who", ("K-3",))).rows == 0
    assert parquet_with(tmp_path, "K-3") == []
    assert numbers(again) == [n for n in range(20) if n % 5 != 3]


def test_what_was_erased_stands_in_no_commit_either(lake: Lake, tmp_path: Path) -> None:
    """Commits hold the least and the greatest values of the files they added."""
    table = make_table(lake, count=40)
    log = tmp_path / "lake" / table.name / "_delta_log"
    (log / "_torn.00000000000000000099.json").write_text("K-4")
    assert any(b"K-4" in path.read_bytes() for path in log.glob("[0-9]*.json"))
    table.erase(OneOf("who", ("K-4",)))
    assert not [path.name for path in log.iterdir() if b"K-4" in path.read_bytes()]
    for path in log.glob("*.checkpoint.parquet"):
        assert "K-4" not in str(pl.read_parquet(path).to_dicts())
    again = lake.table(table.name)
    assert (again.position("w"), again.cursor("w"), again.rows) == (40, {"after": 40}, 32)
    assert again.properties["delta.logRetentionDuration"] == "interval 7 days"


def test_columns_are_emptied_for_good_in_the_rows_that_are_meant(lake: Lake, tmp_path: Path) -> None:
    table = make_table(lake, count=20)
    assert table.blank(Within("n", 0, 7), ["who", "x", "no such column"]).rows == 7
    found = table.frame().sort("n").collect()
    assert found["who"].null_count() == found["x"].null_count() == 7
    assert found["n"].to_list() == list(range(20))
    assert table.blank(Within("n", 0, 7), ["who", "x"]) == (0, 0)
    assert table.blank(Within("n", 0, 7), ["no such column"]) == (0, 0)
    assert len(list(tmp_path.rglob("intake/**/part-*.parquet"))) == len(table.delta().file_uris())


def test_a_long_log_is_shortened_and_the_cursors_stay(lake: Lake, tmp_path: Path) -> None:
    table = lake.create("t", SCHEMA, properties={"delta.logRetentionDuration": "interval 0 seconds"})
    table.append(rows(0, 1), writer="quiet", position=1, metadata={"after": "long ago"})
    for n in range(30):
        table.append(rows(n, n + 1), writer="w", position=n, metadata={"after": n})
    table.trim(datetime.now(UTC))
    commits = list((tmp_path / "lake/t/_delta_log").glob("*.json"))
    assert len(commits) <= 2
    again = lake.table("t")
    assert again.cursor("quiet") == {"after": "long ago"}
    assert (again.position("quiet"), again.position("w"), again.rows) == (1, 29, 31)
    assert not again.append(rows(0, 1), writer="w", position=29).made
    assert again.append(rows(0, 1), writer="w", position=30).made


def test_commits_of_another_engine_change_nothing_of_what_writers_said(lake: Lake) -> None:
    table = make_table(lake, count=10)
    other = DeltaTable(table.delta().table_uri)
    for n in range(40):
        write_deltalake(other, rows(100 + n, 101 + n), mode="append")
    assert table.refresh().cursor("w") == {"after": 10}
    assert table.append(rows(10, 20), writer="w", position=20, previous=10).made
    assert table.history(1)[0].writers == {"w": 20}
    assert table.history(5)[1].writers == {}
    assert len(numbers(table)) == 60


def test_a_reader_is_surely_at_the_newest_version_until_anybody_commits(lake: Lake) -> None:
    table = make_table(lake, count=10)
    reader = lake.table(table.name)
    assert reader.is_surely_newest()
    table.append(rows(10, 20), writer="w", position=20)
    assert not reader.is_surely_newest()
    assert reader.refresh().is_surely_newest()
    write_deltalake(DeltaTable(table.delta().table_uri), rows(20, 21), mode="append")
    assert not reader.is_surely_newest()
    assert reader.refresh().is_surely_newest()
    reader.set_property("said", "something")
    assert lake.table(table.name).version == reader.version


def test_a_reader_whose_log_was_shortened_is_not_surely_at_the_newest_version(lake: Lake, tmp_path: Path) -> None:
    table = lake.create("t", SCHEMA, properties={"delta.logRetentionDuration": "interval 0 seconds"})
    table.append(rows(0, 1), writer="w", position=0)
    reader = lake.table("t")
    for n in range(1, 5):
        table.append(rows(n, n + 1), writer="w", position=n)
    table.trim(datetime.now(UTC))
    assert not (tmp_path / f"lake/t/_delta_log/{reader.version + 1:020d}.json").exists()
    assert not reader.is_surely_newest()
    assert numbers(reader.refresh()) == [0, 1, 2, 3, 4]
    assert reader.is_surely_newest()


def test_a_reader_of_a_table_that_was_made_anew_is_not_surely_at_its_newest_version(lake: Lake, tmp_path: Path) -> None:
    reader = lake.table(make_table(lake, count=20).name)
    shutil.rmtree(tmp_path / "lake" / reader.name)
    assert not reader.is_surely_newest()
    assert make_table(lake, count=20).version == reader.version
    assert not reader.is_surely_newest()


def test_whoever_holds_the_lock_writes_alone(lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mainstay.lake.tables.LOCK_SECONDS", 0.05)
    monkeypatch.setattr("mainstay.lake.tables.KEEPER_LOCK_SECONDS", 0.05)
    table = make_table(lake, count=10)
    folder = tmp_path / "lake" / table.name
    with locked(folder / LOCK_FILE), pytest.raises(Failed, match="held by another process"):
        table.append(rows(10, 20), writer="w", position=20)
    with locked(folder / KEEPER_LOCK_FILE):
        assert table.append(rows(10, 20), writer="w", position=20).made
        for work in (table.compact, lambda: table.vacuum(timedelta()), lambda: table.erase(OneOf("n", (1,)))):
            with pytest.raises(Failed, match="held by another process"):
                work()
    assert numbers(table) == list(range(20))


def test_a_table_that_is_not_there_is_no_table(lake: Lake) -> None:
    with pytest.raises(Misuse, match="expected a table, found none"):
        lake.table("nothing")


def test_what_is_no_table_any_more_is_told_in_one_line(lake: Lake, tmp_path: Path) -> None:
    table = make_table(lake, count=10)
    (tmp_path / "lake" / table.name / "_delta_log" / f"{0:020d}.json").write_bytes(b"{")
    with pytest.raises(Failed) as caught:
        lake.table(table.name)
    assert "\n" not in caught.value.message
