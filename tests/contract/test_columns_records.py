from __future__ import annotations

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from contract.contracts import document
from mainstay.contract.columns import ColumnValidator, compile_columns
from mainstay.contract.columns_records import plain, read_cell
from mainstay.contract.load import parse_contract
from mainstay.errors import Misuse


def compiled(**declared: Any) -> ColumnValidator:
    return compile_columns(parse_contract(document([{"name": "it", **declared}]), "contract.yaml").schema[0])


def json_of(series: pl.Series, **declared: Any) -> Any:
    return plain(series, compiled(**declared).nodes[0][1])[0]


def moments(*values: Any, unit: Any = "us", zone: str | None = None) -> pl.Series:
    """A column of datetimes, given as texts or in the unit itself."""
    read = [datetime.fromisoformat(each) if isinstance(each, str) else each for each in values]
    return pl.Series(read, dtype=pl.Datetime(unit, zone))


@pytest.mark.parametrize(
    ("series", "kind", "expected"),
    [
        (pl.Series([3], dtype=pl.UInt8), "integer", 3),
        (pl.Series([3.0]), "integer", 3),
        (pl.Series([3.0]), "number", 3.0),
        (pl.Series([3.5]), "integer", 3.5),
        (pl.Series([2.0**53]), "integer", 2**53),
        (pl.Series([2.0**53 + 2]), "integer", 2.0**53 + 2),
        (pl.Series([0.1], dtype=pl.Float32), "number", 0.10000000149011612),
        (pl.Series([Decimal("5.00")]), "integer", 5),
        (pl.Series([Decimal("5.10")]), "number", 5.1),
        (pl.Series([True]), "boolean", True),
        (pl.Series(["a"], dtype=pl.Categorical), "string", "a"),
        (pl.Series([date(2024, 2, 29)]), "date", "2024-02-29"),
        (moments("2024-02-29"), "date", "2024-02-29"),
        (moments("2024-02-29T01:00"), "date", "2024-02-29T01:00:00"),
        (moments("2024-02-29", zone="UTC"), "date", "2024-02-29T00:00:00Z"),
        (moments("2024-02-29T00:00:00.120", zone="UTC"), "timestamp", "2024-02-29T00:00:00.12Z"),
        (moments(0, unit="ns"), "timestamp", "1970-01-01T00:00:00Z"),
        (moments(1, unit="ns"), "string", "1970-01-01T00:00:00.000000001"),
        (pl.Series([2**31 - 1], dtype=pl.Int32).cast(pl.Date), "date", "5881580-07-11"),
        (pl.Series([time(1, 2, 3, 500_000)]), "time", "01:02:03.5"),
        (pl.Series([{"a": 1, "b": None}]), "object", {"a": 1}),
        (pl.Series([[1, None]]), "array", [1, None]),
        (pl.Series([[1, 2]], dtype=pl.Array(pl.Int8, 2)), "array", [1, 2]),
        (pl.Series([[date(2024, 1, 1)]]), "array", ["2024-01-01"]),
        (pl.Series([None], dtype=pl.Datetime("ns")), "timestamp", None),
    ],
)
def test_a_value_has_one_form_in_json(series: pl.Series, kind: str, expected: Any) -> None:
    made = json_of(series, logicalType=kind)
    assert made == expected
    assert type(made) is type(expected)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "2024-01-01T00:00:00Z"),
        ({"defaultTimezone": "Etc/UTC"}, "2024-01-01T00:00:00Z"),
        ({"defaultTimezone": "Europe/Zurich"}, "2024-01-01T00:00:00"),
        ({"timezone": True}, "2024-01-01T00:00:00"),
        ({"timezone": False}, "2024-01-01T00:00:00"),
    ],
)
def test_a_datetime_without_a_zone_is_utc_where_the_contract_leaves_that_open(
    options: dict[str, Any], expected: str
) -> None:
    series = moments("2024-01-01")
    declared = {"logicalType": "timestamp", "logicalTypeOptions": options}
    assert json_of(series, **declared) == expected
    is_right = expected.endswith("Z") != (options.get("timezone") is False)
    assert (compiled(**declared).check(series.alias("it").to_frame()).bad_rows == ()) is is_right


@pytest.mark.parametrize(
    ("series", "shown"),
    [
        (pl.Series([b"abc"]), "Binary"),
        (pl.Series([timedelta(days=1)]), "Duration(time_unit='us')"),
        (pl.Series([[b"abc"]]), "an array of 1 item"),
        (pl.Series([{"a": float("nan")}]), "an object with 1 field"),
        (pl.Series([float("inf")]), "inf"),
    ],
)
def test_what_json_does_not_have_breaks_the_type(series: pl.Series, shown: str) -> None:
    checked = compiled().check(series.alias("it").to_frame())
    assert [(each.rule, each.found) for each in checked.violations[0]] == [("type", shown)]


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("12", "integer", 12),
        (" 12\t", "integer", 12),
        ("12.0", "integer", 12),
        ("1e2", "integer", 100),
        ("012", "integer", "012"),
        ("+1", "integer", "+1"),
        ("1_0", "number", "1_0"),
        ("1e999", "number", "1e999"),
        ("NaN", "number", "NaN"),
        ("٣", "integer", "٣"),
        ("TRUE", "boolean", True),
        ("1", "boolean", "1"),
        ("[1, 2]", "array", [1, 2]),
        ("[1, 2", "array", "[1, 2"),
        ("[" * 64 + "]" * 64, "array", "[" * 64 + "]" * 64),
        ("2024-01-01", "date", "2024-01-01"),
    ],
)
def test_a_cell_is_read_as_json_reads_it_or_stays_text(text: str, kind: str, expected: Any) -> None:
    assert read_cell(text, compiled(logicalType=kind).nodes[0][1]) == expected


def test_columns_that_nest_more_deeply_than_a_record_may_are_refused() -> None:
    kind: Any = pl.Int8()
    for _ in range(63):
        kind = pl.List(kind)
    compiled().bind({"it": kind})
    with pytest.raises(Misuse, match="at most 63 levels, found one of 64"):
        compiled().bind({"it": pl.List(kind)})
