from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from lake.lakes import SCHEMA, make_table, rows
from mainstay.cli.init import create_workspace
from mainstay.errors import Failed, Misuse
from mainstay.lake.lake import REGISTRY, Lake, open_lake

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.lake.tables import Table


def test_the_tables_there_are_can_be_asked_for_by_the_beginning_of_their_names(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    assert lake.names() == []
    for name in ("decisions/b", "outcomes/a", "decisions/a"):
        make_table(lake, name)
    make_table(lake, "decisions/a")
    assert lake.names() == ["decisions/a", "decisions/b", "outcomes/a"]
    assert lake.names("decisions/") == ["decisions/a", "decisions/b"]
    assert lake.find("decisions/c") is None
    assert lake.table("decisions/a").schema == SCHEMA


def test_making_a_table_again_gives_the_one_there_is(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    make_table(lake, "t", count=10)
    assert lake.create("t", SCHEMA, partition_by=["day"]).rows == 10
    narrower = pl.Schema({name: kind for name, kind in SCHEMA.items() if name != "x"})
    assert lake.create("t", narrower, partition_by=["day"]).rows == 10
    for schema, partitions in (
        (pl.Schema({**SCHEMA, "more": pl.String()}), ["day"]),
        (pl.Schema({**SCHEMA, "n": pl.String()}), ["day"]),
        (SCHEMA, []),
    ):
        with pytest.raises(Misuse, match=r"Table\.evolve"):
            lake.create("t", schema, partition_by=partitions)
    with pytest.raises(Misuse, match="one to four parts"):
        lake.create("../t", SCHEMA)


def test_two_who_make_a_table_at_once_have_the_same_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = Lake(tmp_path)
    real = Lake._make

    def slow(self: Lake, name: str, *rest: Any) -> Table:  # the other one is quicker between the look and the making
        if name == "t":
            monkeypatch.setattr(Lake, "_make", real)
            make_table(Lake(tmp_path), "t", count=10)
        return real(self, name, *rest)

    monkeypatch.setattr(Lake, "_make", slow)
    assert lake.create("t", SCHEMA, partition_by=["day"]).rows == 10
    assert lake.names() == ["t"]


def test_a_name_whose_table_was_never_made_is_passed_over(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    make_table(lake, "t")
    registry = lake.table(REGISTRY)
    row = registry.frame().collect().with_columns(name=pl.lit("killed"))
    registry.append(row, writer="names", position=9)
    assert lake.names() == ["t"]
    make_table(lake, "killed")
    assert lake.names() == ["killed", "t"]


def test_a_folder_that_takes_no_table_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(Failed, match="none can be made in"):
        make_table(Lake(tmp_path / "file"), "t")


def test_the_lake_of_a_workspace_stands_where_its_setting_says(tmp_path: Path) -> None:
    workspace = create_workspace(tmp_path / "w", "log.example.com/x")[0]
    assert open_lake(workspace).location.root == str(workspace.data / "lake")
    elsewhere = workspace.with_settings({"lake": "tables"}, str)
    assert open_lake(elsewhere).location.root == str(workspace.root / "tables")
    bucket = workspace.with_settings({"lake": "s3://bucket/x"}, str)
    assert open_lake(bucket).location.root == "s3://bucket/x"
    with pytest.raises(Misuse):
        open_lake(workspace.with_settings({"lake": "gs://bucket/x"}, str))


def test_rows_by_hand_are_readable_at_once(tmp_path: Path) -> None:
    table = make_table(Lake(tmp_path), "t")
    table.append(rows(0, 3), writer="w", position=1)
    assert Lake(tmp_path).table("t").frame().select("n").collect()["n"].to_list() == [0, 1, 2]


def test_files_of_a_wide_table_can_be_passed_over_by_the_columns_that_stand_last(tmp_path: Path) -> None:
    columns = {f"c{n}": pl.Int64() for n in range(30)} | {"s": pl.Struct({"a": pl.Int64(), "b": pl.Int64()})}
    schema = pl.Schema({**columns, "an.odd-name": pl.Int64(), "mainstay_item": pl.Int64()})
    table = Lake(tmp_path).create("wide", schema)
    for item in range(1, 5):
        values: dict[str, Any] = {name: [item] for name in schema} | {"s": [{"a": item, "b": item}]}
        table.append(pl.DataFrame(values, schema=schema), writer="w", position=item)
    files = table.delta().file_uris(file_pruning_predicate='"mainstay_item" = 3')
    assert len(files) == 1
    assert table.frame().filter(pl.col("mainstay_item") == 3).collect()["c7"].to_list() == [3]
