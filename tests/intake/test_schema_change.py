"""What comes in another schema than the contract says, and what becomes of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest
from msgspec.structs import replace

from intake.facts import part
from mainstay.capability.sources import Files, Source
from mainstay.contract.types import Options, Property, SchemaObject
from mainstay.intake.schema_change import Recent, SchemaChange, read_recent
from mainstay.intake.types import DAY, ITEM, ROW, BrokenRule, intake_table
from mainstay.lake.lake import Lake

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mainstay.intake.types import Hold, PartFacts

ORDER = SchemaObject(
    name="order",
    properties=(
        Property(name="id", logical_type="integer", required=True, primary_key=True, unique=True),
        Property(name="distance", logical_type="number", required=True, logical_type_options=Options(minimum=0)),
        Property(name="weight", logical_type="number"),
        Property(name="city", logical_type="string"),
        Property(name="placed", logical_type="date"),
    ),
)
CITIES = ["Aarhus", "Bergen", "Cork", "Delft", "Evora", "Faro", "Ghent"]


def rows(count: int, seed: int = 0) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "id": np.arange(count) + 1_000 * seed,
            "distance": random.lognormal(6, 0.7, count),
            "weight": random.gamma(2.0, 3.0, count),
            "city": random.choice(CITIES, count),
            "placed": pl.Series(["2026-03-04"] * count).str.to_date(),
        }
    )


class Feed:
    """A source whose items are made here and held against the contract."""

    def __init__(self, folder: Path, kind: str = "parquet", *, recent: Recent | None = None, **said: Any) -> None:
        self.folder, self.kind, self.number = folder, kind, 0
        released_to = said.pop("released_to", 0)
        source = Source(name="feed", files=Files(folder="in"), **said)
        self.judge = SchemaChange(
            source,
            ORDER,
            lambda item: folder / item.file,
            lambda: Recent() if recent is None else recent,
            hurt=lambda fields: f"late-arrival ({', '.join(fields)})",
            memory=folder / "schema.json",
            released_to=released_to,
        )

    def take(self, frame: pl.DataFrame, broken: Sequence[BrokenRule] = (), rows: int | None = None) -> Hold | None:
        self.number += 1
        facts = part(self.number, rows=frame.height if rows is None else rows, kind=self.kind)
        path = self.folder / facts.item.file
        if self.kind == "parquet":
            frame.write_parquet(path)
        elif self.kind == "csv":
            frame.write_csv(path)
        else:
            lines = [
                {name: value for name, value in row.items() if value is not None} for row in frame.rows(named=True)
            ]
            path.write_text("".join(json.dumps(line, default=str) + "\n" for line in lines))
        return self.judge(told(facts, frame, broken))

    def found(self) -> list[tuple[str, str | None]]:
        return [(each.code, each.field) for each in self.judge.findings]


def told(facts: PartFacts, frame: pl.DataFrame, broken: Sequence[BrokenRule]) -> PartFacts:
    declared = [each.name for each in ORDER.properties]
    return part(
        facts.item.number,
        rows=facts.rows,
        kind=facts.item.kind,
        unknown=tuple(name for name in frame.columns if name not in declared),
        missing=tuple(name for name in declared if name not in frame.columns),
        broken=tuple(broken),
    )


@pytest.fixture(params=["parquet", "csv", "jsonl"])
def feed(request: pytest.FixtureRequest, tmp_path: Path) -> Feed:
    return Feed(tmp_path, request.param)


def test_the_same_again_is_nothing(feed: Feed) -> None:
    for seed in range(4):
        assert feed.take(rows(300, seed)) is None
    assert feed.found() == []


# What flows.


def test_a_new_column_flows_and_is_told_with_what_it_looks_like(feed: Feed) -> None:
    assert feed.take(rows(50).with_columns(carrier=pl.lit("DHL"), stops=3)) is None
    assert feed.found() == [("column_new", "carrier"), ("column_new", "stops")]
    first, second = (each.detail for each in feed.judge.findings)
    assert first.startswith("column carrier is not in the contract, which looks like string (")
    assert "looks like integer" in second


def test_an_optional_column_that_goes_flows_and_is_told_once_it_was_there(feed: Feed) -> None:
    without = rows(50).drop("weight")
    assert feed.take(without) is None
    assert feed.found() == []
    assert feed.take(rows(50, 1)) is None
    assert feed.take(without) is None
    assert feed.found() == [("column_missing", "weight")]


def test_whole_numbers_in_place_of_others_are_nothing(feed: Feed) -> None:
    whole = rows(200).with_columns(pl.col("weight").round().cast(pl.Int64))
    assert feed.take(rows(200)) is None
    assert feed.take(whole) is None
    assert feed.found() == []


def test_a_type_that_the_contract_leaves_open_flows_and_is_told(tmp_path: Path) -> None:
    feed = Feed(tmp_path, "jsonl")
    feed.judge._declared["city"] = Property(name="city")
    assert feed.take(rows(50)) is None
    assert feed.take(rows(50).with_columns(city=7)) is None
    assert feed.found() == [("type_changed", "city")]


def test_what_came_last_is_remembered_over_a_restart_and_may_be_lost(tmp_path: Path) -> None:
    for content in (None, b"", b"{broken"):
        first = Feed(tmp_path, "jsonl")
        assert first.take(rows(50)) is None
        if content is not None:
            (tmp_path / "schema.json").write_bytes(content)
        second = Feed(tmp_path, "jsonl")
        second.judge._declared["city"] = Property(name="city")
        assert second.take(rows(50).with_columns(city=7)) is None
        assert second.found() == ([("type_changed", "city")] if content is None else [])
        (tmp_path / "schema.json").unlink()


# What holds.


def test_a_required_column_that_does_not_come_holds_and_says_whom_it_would_hurt(feed: Feed) -> None:
    held = feed.take(rows(50).drop("distance"))
    assert held is not None
    assert held.code == "schema_breaking"
    assert held.fallback
    assert held.reason.startswith("column distance, required, does not come (")
    assert held.reason.endswith(". It would hurt late-arrival (distance)")


def test_of_a_header_one_row_is_enough_and_of_json_lines_it_is_not(tmp_path: Path) -> None:
    for kind in ("csv", "parquet", "jsonl"):
        folder = tmp_path / kind
        folder.mkdir()
        held = Feed(folder, kind).take(rows(1).drop("distance"))
        assert (held is None) == (kind == "jsonl")


def test_a_column_under_a_near_name_is_a_renamed_one(feed: Feed) -> None:
    held = feed.take(rows(50).rename({"distance": "Distance_km"}))
    assert held is not None
    assert "distance does not come any more" in held.reason
    assert "Distance_km is probably it under another name" in held.reason


def test_a_column_under_any_name_with_the_same_values_is_a_renamed_one_though_it_was_optional(feed: Feed) -> None:
    for seed in range(3):
        assert feed.take(rows(300, seed)) is None
    held = feed.take(rows(300, 9).rename({"city": "ort"}))
    assert held is not None
    assert "column city does not come any more" in held.reason
    assert "ort is probably it" in held.reason


def test_numbers_under_another_name_are_known_by_their_distribution(feed: Feed) -> None:
    for seed in range(3):
        assert feed.take(rows(400, seed)) is None
    held = feed.take(rows(400, 9).rename({"weight": "x1"}))
    assert held is not None
    assert "x1 is probably it" in held.reason


def test_a_near_name_with_other_values_is_no_renamed_column(feed: Feed) -> None:
    for seed in range(3):
        assert feed.take(rows(400, seed)) is None
    other = rows(400, 9).drop("city").with_columns(cities=pl.Series([f"order {each}" for each in range(400)]))
    assert feed.take(other) is None
    assert feed.found() == [("column_missing", "city"), ("column_new", "cities")]


def test_a_type_that_the_contract_does_not_take_holds(feed: Feed) -> None:
    texts = rows(60).with_columns(distance=pl.lit("about 40 miles"))
    held = feed.take(texts, [BrokenRule("distance", "type", 60)])
    assert held is not None
    assert held.reason.startswith("column distance is number in the contract, and comes as string (")


def test_a_type_that_the_door_let_pass_does_not_hold(tmp_path: Path) -> None:
    feed = Feed(tmp_path)
    assert feed.take(rows(60).with_columns(pl.col("distance").cast(pl.String))) is None


def test_some_rows_of_another_type_are_bad_rows_and_no_schema(feed: Feed) -> None:
    some = rows(60).with_columns(city=pl.lit("x"))
    assert feed.take(some, [BrokenRule("distance", "type", 20)]) is None


def test_dates_in_another_form_hold(tmp_path: Path) -> None:
    feed = Feed(tmp_path, "csv")
    german = rows(60).with_columns(placed=pl.lit("04.03.2026"))
    held = feed.take(german, [BrokenRule("placed", "type", 60)])
    assert held is not None
    assert "column placed is date in the contract, and comes as string" in held.reason


def test_a_new_column_holds_where_that_is_declared(tmp_path: Path) -> None:
    held = Feed(tmp_path, new_columns="hold").take(rows(50).with_columns(stops=3))
    assert held is not None
    assert held.reason.startswith("column stops is not in the contract, which looks like integer (")


def test_a_released_item_passes_and_the_next_is_held_again(tmp_path: Path) -> None:
    feed = Feed(tmp_path, released_to=1)
    assert feed.take(rows(50).drop("distance")) is None
    assert feed.take(rows(50).drop("distance")) is not None


def test_a_file_that_cannot_be_read_is_left_to_the_door(tmp_path: Path) -> None:
    feed = Feed(tmp_path, "csv")
    facts = part(1, rows=1, kind="csv", rejected=True)
    assert feed.judge(facts) is None
    (tmp_path / facts.item.file).write_bytes(b"")
    assert feed.judge(part(1, rows=1, kind="csv")) is None


# Units.


@pytest.mark.parametrize(
    ("factor", "known_as"),
    [
        (1.609344, "miles to kilometres"),
        (1 / 2.54, "centimetres to inches"),
        (0.4536, "pounds to kilograms"),
        (100, "whole to hundredths"),
        (1 / 1000, "thousandths to whole"),
    ],
)
def test_numbers_in_another_unit_hold(factor: float, known_as: str, feed: Feed) -> None:
    for seed in range(4):
        assert feed.take(rows(800, seed)) is None
    held = feed.take(rows(800, 9).with_columns(pl.col("distance") * factor))
    assert held is not None
    assert held.code == "unit_changed"
    assert held.reason.startswith("column distance: it seems to be ")
    assert f"times what it was ({known_as}" in held.reason
    assert "Kolmogorov-Smirnov" in held.reason


def test_of_few_rows_another_unit_is_only_suspected(feed: Feed) -> None:
    for seed in range(4):
        assert feed.take(rows(100, seed)) is None
    assert feed.take(rows(100, 9).with_columns(pl.col("distance") * 1.609344)) is None
    assert feed.found() == [("unit_changed", "distance")]


def test_after_a_release_the_new_unit_is_the_usual_one(tmp_path: Path) -> None:
    feed = Feed(tmp_path, released_to=5)
    for seed in range(4):
        assert feed.take(rows(800, seed)) is None
    for seed in range(5, 8):
        assert feed.take(rows(800, seed).with_columns(pl.col("distance") * 1.609344)) is None
    assert [code for code, _ in feed.found()] == []


def test_files_in_order_and_of_any_length_are_not_another_unit(feed: Feed) -> None:
    for seed, count in enumerate([500, 20_000, 3_000, 9_000, 700]):
        assert feed.take(rows(count, seed).sort("distance")) is None
    assert feed.found() == []


def test_a_feed_of_many_single_records_is_nothing(tmp_path: Path) -> None:
    feed = Feed(tmp_path, "jsonl")
    assert [feed.take(rows(1, seed)) for seed in range(60)] == [None] * 60
    assert feed.found() == []


# What came before, from the table.


def test_what_came_before_is_read_from_the_newest_items_of_the_table(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    schema = {**rows(1).schema, ITEM: pl.Int64(), ROW: pl.Int64(), DAY: pl.Date()}
    table = lake.create(intake_table("tiny", "feed"), pl.Schema(schema), partition_by=[DAY])
    for item in range(1, 31):
        taken = rows(400, item).with_columns(
            pl.lit(item).alias(ITEM),
            pl.int_range(1, 401).alias(ROW),
            pl.lit("2026-03-04").str.to_date().alias(DAY),
        )
        table.append(taken, writer="door", position=(item << 32) | 400)
    recent = read_recent(lake, "tiny", "feed", ORDER)
    assert set(recent.values) == {"id", "distance", "weight", "city", "placed"}
    assert 4_000 <= len(recent.values["distance"]) <= 8_192
    assert recent.values["id"].min() == 15_000  # of the sixteen newest items
    assert len(recent.medians["distance"]) == 16
    assert read_recent(lake, "tiny", "feed", ORDER, after=28).values["id"].min() == 29_000
    assert len(read_recent(lake, "tiny", "feed", ORDER, after=30).values["id"]) == 0
    held = Feed(tmp_path, recent=recent).take(rows(400, 99).with_columns(pl.col("distance") * 1.609344))
    assert held is not None


def test_of_a_table_that_is_not_there_nothing_came_before(tmp_path: Path) -> None:
    assert read_recent(Lake(tmp_path), "tiny", "feed", ORDER) == Recent()


def test_of_a_classified_column_no_value_is_told(tmp_path: Path) -> None:
    feed = Feed(tmp_path)
    secret = tuple(replace(each, classification="confidential") for each in ORDER.properties)
    feed.judge._declared = {each.name: each for each in secret}
    for seed in range(4):
        assert feed.take(rows(800, seed)) is None
    held = feed.take(rows(800, 9).with_columns(pl.col("distance") * 1_000))
    assert held is not None
    assert "thousandths" in held.reason
    assert "median" not in held.reason
