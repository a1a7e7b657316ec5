from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from io import BytesIO
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from intake import doors
from intake.doors import Feed, source
from mainstay.errors import Misuse
from mainstay.intake import door, door_rows
from mainstay.intake.door_tables import DoorTables
from mainstay.intake.types import (
    COERCED,
    CONTRACT,
    DAY,
    EVENT_AT,
    EXTRA,
    ITEM,
    LATE,
    ORIGIN,
    RAW,
    REASON,
    ROW,
    VIOLATIONS,
    Held,
    Hold,
    PartFacts,
)

if TYPE_CHECKING:
    from pathlib import Path

GOOD: dict[str, Any] = {"id": 1, "amount": 2.5, "note": "a", "at": "2024-05-06T07:08:09+02:00"}
BAD: dict[str, Any] = {"id": -1, "amount": 5_000, "note": "b"}


def parquet(frame: pl.DataFrame) -> bytes:
    buffer = BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()


def test_good_rows_are_accepted_and_bad_ones_quarantined_with_every_reason(tmp_path: Path) -> None:
    feed = Feed(tmp_path)
    item = feed.land_records(GOOD, BAD, cursor={"after": 2})
    taken = feed.take(item)
    assert (taken.rows, taken.accepted, taken.quarantined) == (2, 1, 1)
    row = feed.accepted().row(0, named=True)
    assert row["id"] == 1
    assert row["at"] == datetime(2024, 5, 6, 5, 8, 9, tzinfo=UTC)
    assert (row[ITEM], row[ROW], row[CONTRACT], row[DAY]) == (1, 1, "orders@1.0.0", item.arrived_at.date())
    assert (row[LATE], row[COERCED], row[EXTRA], row[EVENT_AT]) == (None, None, None, None)
    bad = feed.quarantined().row(0, named=True)
    assert json.loads(bad[RAW]) == BAD
    assert [(each["field"], each["rule"]) for each in bad[VIOLATIONS]] == [("id", "minimum"), ("amount", "maximum")]
    assert (bad[ITEM], bad[ROW], bad[REASON], bad[ORIGIN]) == (1, 2, "rules", "a test")
    door = feed.door()
    assert (door.reached, door.cursor) == (1, {"after": 2})


def test_a_door_that_nothing_passed_makes_no_table(tmp_path: Path) -> None:
    door = Feed(tmp_path).door()
    assert (door.reached, door.cursor) == (0, None)
    assert not (tmp_path / "lake").exists()


def test_the_bytes_of_a_csv_row_are_kept_as_they_came(tmp_path: Path) -> None:
    feed = Feed(tmp_path)
    rows = b'1,2.5,"a ""quoted"" note",\r\n-2,"1",  "odd\r\n-3,9999,"two\nlines",\r\n4,5\r\n'
    taken = feed.take(feed.land(b"id,amount,note,at\r\n" + rows, "csv"))
    assert (taken.accepted, taken.quarantined) == (1, 3)
    assert feed.accepted()["note"].to_list() == ['a "quoted" note']
    bad = feed.quarantined()
    assert bad[RAW].to_list() == [b'-2,"1",  "odd\r\n', b'-3,9999,"two\nlines",\r\n', b"4,5\r\n"]
    assert bad[ROW].to_list() == [2, 3, 4]


def test_a_bad_row_of_parquet_is_kept_as_json(tmp_path: Path) -> None:
    feed = Feed(tmp_path)
    frame = pl.DataFrame(
        {
            "id": [1, -1],
            "amount": [1.0, float("nan")],
            "at": [None, datetime(2024, 1, 2, tzinfo=UTC)],
            "odd": [b"\xff", b"\x00"],
        }
    )
    taken = feed.take(feed.land(parquet(frame), "parquet"))
    assert (taken.accepted, taken.quarantined) == (1, 1)
    assert json.loads(feed.quarantined()[RAW][0]) == {
        "id": -1,
        "amount": "NaN",
        "at": "2024-01-02T00:00:00Z",
        "odd": "AA==",
    }
    assert json.loads(feed.accepted()[EXTRA][0]) == {"odd": "/w=="}


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_column_that_the_contract_does_not_know_is_kept_beside(tmp_path: Path, kind: Any) -> None:
    feed = Feed(tmp_path)
    frame = pl.DataFrame({"id": [1, 2, -3], "colour": ["red", None, "blue"]})
    taken = feed.take(feed.land(_written(frame, kind), kind))
    assert (taken.accepted, taken.quarantined) == (2, 1)
    extra = [text and {k: v for k, v in json.loads(text).items() if v is not None} for text in feed.accepted()[EXTRA]]
    assert extra in ([{"colour": "red"}, None], [{"colour": "red"}, {}])
    assert [each.field for each in taken.findings if each.code == "column_new"] == ["colour"]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, kind: Any) -> None:
    text = (
        doors.CONTRACT
        + """\
      - {name: day, logicalType: date}
      - {name: clock, logicalType: time}
      - {name: local, logicalType: timestamp, logicalTypeOptions: {timezone: false}}
      - {name: big, logicalType: integer, logicalTypeOptions: {format: u64}}
      - {name: free}
      - {name: yes, logicalType: boolean}
      - {name: open, logicalType: object}
      - name: nested
        logicalType: object
        properties: [{name: sku, logicalType: string}, {name: sold, logicalType: date}]
      - {name: tags, logicalType: array, items: {logicalType: integer}}
"""
    )
    feed = Feed(tmp_path)
    records: list[dict[str, Any]] = [
        {
            "id": 1, "amount": 2.0, "note": "n", "at": "2024-05-06T07:08:09.123456Z", "day": "2024-02-29",
            "clock": "10:11:12", "local": "2024-05-06T07:08:09", "big": 2**64 - 1, "free": "x", "yes": True,
            "open": {"a": [1]}, "nested": {"sku": "s", "sold": "2024-01-01"}, "tags": [1, 2],
        },
        {"id": 2},
    ]  # fmt: skip  # a record, which would fill a page
    if kind == "jsonl":
        content = b"\n".join(json.dumps(each).encode() for each in records)
    elif kind == "csv":
        names = list(records[0])
        cells = pl.DataFrame(
            [[_cell(each.get(name)) for name in names] for each in records],
            schema=dict.fromkeys(names, pl.String),
            orient="row",
        )
        content = cells.write_csv().encode()
    else:
        frame = pl.DataFrame(records, schema_overrides={"big": pl.UInt64})
        content = parquet(
            frame.with_columns(
                pl.col("at").str.to_datetime("%+", time_unit="ns", time_zone="UTC"),
                pl.col("day").str.to_date(),
                pl.col("clock").str.to_time(),
                pl.col("local").str.to_datetime(time_unit="ms"),
                pl.col("id").cast(pl.Int16),
                pl.col("amount").cast(pl.Float32),
                pl.col("note").cast(pl.Categorical),
            )
        )
    taken = feed.take(feed.land(content, kind), text)
    assert taken.quarantined == 0, feed.quarantined()[VIOLATIONS].to_list()
    first, second = feed.accepted().drop(ROW, ITEM, ORIGIN, "mainstay_arrived_at", CONTRACT, DAY).to_dicts()
    assert json.loads(first.pop("open")) == {"a": [1]}
    assert json.loads(first.pop("free")) == "x"
    assert {name: value for name, value in first.items() if value is not None} == {
        "id": 1, "amount": 2.0, "note": "n", "at": datetime(2024, 5, 6, 7, 8, 9, 123_456, tzinfo=UTC),
        "day": date(2024, 2, 29), "clock": "10:11:12", "local": datetime(2024, 5, 6, 7, 8, 9),  # noqa: DTZ001 - a local time
        "big": Decimal(2**64 - 1), "yes": True, "nested": {"sku": "s", "sold": "2024-01-01"}, "tags": [1, 2],
    }  # fmt: skip  # as above
    assert {name for name, value in second.items() if value is not None} == {"id"}


def test_names_that_no_table_has_are_given_others_that_stay(tmp_path: Path) -> None:
    text = (
        doors.CONTRACT
        + """\
      - {name: Arrival Delay, logicalType: integer}
      - {name: NOTE, logicalType: string}
      - {name: mainstay_item, logicalType: string}
"""
    )
    feed = Feed(tmp_path)
    record = {"id": 1, "Arrival Delay": 5, "NOTE": "x", "mainstay_item": "y"}
    feed.take(feed.land_records(record), text)
    feed.take(feed.land_records(record), text + "      - {name: Arrival_Delay, logicalType: integer}\n")
    rows = feed.accepted()
    assert rows["Arrival_Delay"].to_list() == [5, 5]
    assert rows["Arrival_Delay_2"].to_list() == [None, None]
    assert rows["NOTE_2"].to_list() == ["x", "x"]
    assert rows["_mainstay_item"].to_list() == ["y", "y"]
    assert rows[ITEM].to_list() == [1, 2]


def test_the_table_grows_with_the_contract(tmp_path: Path) -> None:
    feed = Feed(tmp_path)
    feed.take(feed.land_records(GOOD))
    grown = doors.CONTRACT.replace("1.0.0", "1.1.0") + "      - {name: more, logicalType: integer}\n"
    feed.take(feed.land_records({**GOOD, "more": 7}), grown)
    assert feed.accepted()["more"].to_list() == [None, 7]
    assert feed.accepted()[CONTRACT].to_list() == ["orders@1.0.0", "orders@1.1.0"]


def test_a_field_of_another_type_gets_another_column(tmp_path: Path) -> None:
    feed = Feed(tmp_path)
    feed.take(feed.land_records(GOOD))
    feed.take(
        feed.land_records({"id": 2, "note": 5}),
        doors.CONTRACT.replace("note, logicalType: string", "note, logicalType: integer"),
    )
    assert feed.accepted()["note"].to_list() == ["a", None]
    assert feed.accepted()["note_2"].to_list() == [None, 5]


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"<html>\n<body>Service unavailable</body></html>\n", "jsonl"),
        (b"<html>\n<body>Service unavailable</body></html>\n", "csv"),
        (b"PAR1 and no more", "parquet"),
        (b"", "csv"),
        (b"", "parquet"),
    ],
)
def test_what_is_no_file_of_its_kind_is_one_row_and_is_kept(tmp_path: Path, content: bytes, kind: Any) -> None:
    feed = Feed(tmp_path)
    item = feed.land(content, kind, cursor=9)
    taken = feed.take(item)
    assert (taken.rows, taken.accepted, taken.quarantined, taken.rejected) == (1, 0, 1, True)
    assert [each.code for each in taken.findings] == ["file_rejected", "rows_quarantined"]
    row = feed.quarantined().row(0, named=True)
    assert (row[REASON], row[RAW], row[ROW]) == ("unreadable", content, 1)
    feed.landing.drop(item)
    assert (feed.landing.folder.parent / "rejected" / item.file).read_bytes() == content
    assert (feed.door().reached, feed.door().cursor) == (1, 9)


def test_a_file_that_is_none_is_one_row_though_its_taking_was_cut_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = Feed(tmp_path)
    item = feed.land(b"no table at all", "parquet", cursor=9)
    with monkeypatch.context() as patched:
        patched.setattr(DoorTables, "accept", _cut)
        with pytest.raises(KeyboardInterrupt):
            feed.take(item)
    assert feed.quarantined().height == 1
    taken = feed.take(item)
    assert (taken.rows, taken.quarantined, taken.rejected) == (1, 1, True)
    assert feed.quarantined()[ROW].to_list() == [1]
    assert (feed.door().reached, feed.door().cursor) == (1, 9)


def test_what_was_begun_of_an_item_that_is_lost_says_nothing_of_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    feed = Feed(tmp_path, judge=lambda facts: asked.append(facts.item.number))
    lost = feed.land_records({"id": -1}, {"id": 2})
    with monkeypatch.context() as patched:
        patched.setattr(DoorTables, "accept", _cut)
        with pytest.raises(KeyboardInterrupt):
            feed.take(lost)
    feed.landing.drop(lost)
    feed.take(feed.land_records({"id": 3}, {"id": 4}))
    assert asked == [1, 2]
    assert feed.accepted()["id"].to_list() == [3, 4]


def _cut(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def test_rejected_files_are_kept_within_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    feed = Feed(tmp_path)

    def reject(content: bytes = b"none") -> list[str]:
        item = feed.land(content, "parquet")
        feed.take(item)
        feed.landing.drop(item)
        return sorted(path.name[10:12] for path in (feed.landing.folder.parent / "rejected").iterdir())

    monkeypatch.setattr(door, "MOST_REJECTED", 2)
    assert [reject() for _ in range(3)] == [["01"], ["01", "02"], ["02", "03"]]
    monkeypatch.setattr(door, "MAX_REJECTED_BYTES", 10)
    assert reject(b"longer than all") == ["04"]  # the newest is kept, whatever it is


def test_a_parquet_file_that_breaks_off_inside_gives_the_rows_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mainstay.contract.tables_sifting.MAX_ROWS", 1_000)
    buffer = BytesIO()
    frame = pl.DataFrame({"id": range(10_000), "note": [f"{i * 7919}" for i in range(10_000)]})
    frame.write_parquet(buffer, row_group_size=1_000, compression="zstd")
    content = bytearray(buffer.getvalue())
    at = len(content) // 2
    content[at : at + 2_000] = b"\xff" * 2_000
    feed = Feed(tmp_path)
    taken = feed.take(feed.land(bytes(content), "parquet"))
    assert taken.rejected
    assert 1_000 <= taken.accepted < 10_000
    assert feed.quarantined()[ROW].to_list() == [taken.accepted + 1]


def test_an_empty_item_is_taken(tmp_path: Path) -> None:
    feed = Feed(tmp_path)
    asked: list[PartFacts] = []
    feed.judge = asked.append
    taken = feed.take(feed.land(b"\n\n", cursor=4))
    assert (taken.rows, taken.findings, asked) == (0, (), [])
    assert feed.door().cursor == 4


def test_what_is_in_the_tables_is_not_taken_again(tmp_path: Path) -> None:
    feed = Feed(tmp_path)
    item = feed.land_records(GOOD, BAD)
    feed.take(item)
    assert feed.take(item).rows == 0
    assert (feed.accepted().height, feed.quarantined().height) == (1, 1)


def test_a_judge_holds_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door_rows, "PART_ROWS", 2)
    monkeypatch.setattr("mainstay.contract.tables_sifting.MAX_ROWS", 2)
    told: list[PartFacts] = []

    def judge(facts: PartFacts) -> Hold | None:
        told.append(facts)
        return Hold("bad_share", "too many") if facts.quarantined > 1 else None

    feed = Feed(tmp_path, judge=judge)
    frame = pl.DataFrame({"id": [1, -2, -3, -4, 5]})
    item = feed.land(parquet(frame), "parquet")
    with pytest.raises(Held) as raised:
        feed.take(item)
    assert (raised.value.taken.rows, raised.value.hold.code) == (2, "bad_share")
    assert (feed.accepted()["id"].to_list(), feed.quarantined()[ROW].to_list()) == ([1], [2])
    assert [(each.first_row, each.rows, list(each.bad), each.last) for each in told] == [
        (1, 2, [2], False),
        (3, 2, [3, 4], False),
    ]
    assert told[1].broken[0].rows == 2
    assert told[0].missing == ("amount", "note", "at")
    assert feed.door().reached == 0
    feed.judge = None
    assert feed.take(item).rows == 5
    assert (feed.accepted()["id"].to_list(), feed.quarantined()[ROW].to_list()) == ([1, 5], [2, 3, 4])


def test_a_source_names_fields_of_the_contract(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="found 'nobody'"):
        Feed(tmp_path, source(key=("nobody",))).door()
    with pytest.raises(Misuse, match="expected event_time to be a date or timestamp"):
        Feed(tmp_path, source(event_time="note")).door()


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_values_are_coerced_where_the_contract_allows_it(tmp_path: Path, kind: Any) -> None:
    text = doors.CONTRACT.replace(
        "{name: note, logicalType: string}",
        "{name: day, logicalType: date, customProperties:"
        " [{property: mainstay.coerce, value: [trim, {missing: [n/a]}, {date: ['%d.%m.%Y']}]}]}",
    )
    feed = Feed(tmp_path)
    frame = pl.DataFrame({"id": [1, 2, 3, 4, -5], "day": ["24.12.2024", " n/a", "soon", "2024-12-24", "1.1.2024"]})
    taken = feed.take(feed.land(_written(frame, kind), kind), text)
    assert (taken.accepted, taken.coerced, taken.quarantined) == (3, 2, 2)
    rows = feed.accepted()
    assert rows["id"].to_list() == [1, 2, 4]
    assert rows["day"].to_list() == [date(2024, 12, 24), None, date(2024, 12, 24)]
    assert rows[COERCED].to_list() == ['{"day":"24.12.2024"}', '{"day":" n/a"}', None]
    assert feed.quarantined()[ROW].to_list() == [3, 5]


def _written(frame: pl.DataFrame, kind: str) -> bytes:
    if kind == "parquet":
        return parquet(frame)
    return frame.write_csv().encode() if kind == "csv" else frame.write_ndjson().encode()


def _cell(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)
