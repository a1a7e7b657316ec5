from __future__ import annotations

import re
from datetime import date
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainstay.contract.columns import compile_columns
from mainstay.contract.columns_records import plain
from mainstay.contract.load import parse_contract
from mainstay.contract.quality import QualityVerdict, compile_quality
from mainstay.contract.quality_measures import QualityMeter, duplicate_keys
from mainstay.contract.values import json_key

if TYPE_CHECKING:
    from mainstay.contract.types import SchemaObject


def declared_of(properties: list[dict[str, Any]], *checks: dict[str, Any]) -> SchemaObject:
    document = {
        "apiVersion": "v3.1.0",
        "kind": "DataContract",
        "id": "c",
        "version": "1.0.0",
        "status": "draft",
        "schema": [{"name": "orders", "quality": checks, "properties": properties}],
    }
    return parse_contract(msgspec.json.encode(document), "c.yaml").schema[0]


def measured(declared: SchemaObject, *frames: pl.DataFrame, cells: bool = False) -> list[QualityVerdict]:
    """The verdicts on frames as the batches of one table; with `cells`, of texts read as the contract's types."""
    checks = compile_quality(declared)
    meter = QualityMeter(checks)
    validator = compile_columns(declared)
    for frame in frames:
        meter.add(frame, validator.bind(frame.schema, cells=cells).judge(frame).frame)
    repeated = [0 for _ in duplicate_keys(checks, validator.nodes)]
    return [each for each in meter.verdicts(sum(frame.height for frame in frames), repeated) if each is not None]


def count_of(property_: dict[str, Any], check: dict[str, Any], *values: Any, cells: bool = False) -> int | None:
    return count_in(property_, check, list(values), cells=cells)


def count_in(property_: dict[str, Any], check: dict[str, Any], values: list[Any], *, cells: bool = False) -> int | None:
    declared = declared_of([{"name": "x", **property_, "quality": [{"mustBeLessThan": 10**9, **check}]}])
    dtype = pl.String if cells else None
    (found,) = measured(declared, pl.DataFrame({"x": pl.Series(values, dtype=dtype)}), cells=cells)
    return found.count


STRING: dict[str, Any] = {"logicalType": "string"}
INTEGER: dict[str, Any] = {"logicalType": "integer"}
NUMBER: dict[str, Any] = {"logicalType": "number"}


def missing(*listed: Any) -> dict[str, Any]:
    return {"metric": "missingValues", "arguments": {"missingValues": list(listed)}}


def invalid(**arguments: Any) -> dict[str, Any]:
    return {"metric": "invalidValues", "arguments": arguments}


def test_nulls_are_counted_over_batches() -> None:
    declared = declared_of([{"name": "x", "quality": [{"metric": "nullValues", "mustBe": 3}]}])
    frames = [pl.DataFrame({"x": [1, None]}), pl.DataFrame({"x": [None, None]}), pl.DataFrame({"x": [5, 6]})]
    (found,) = measured(declared, *frames)
    assert (found.verdict, found.count, found.places) == ("pass", 3, 6)


def test_a_null_is_missing_only_where_it_is_listed() -> None:
    assert count_of(STRING, missing("", "N/A"), "a", "", "N/A", None, "n/a") == 2
    assert count_of(STRING, missing(None, "", "N/A"), "a", "", "N/A", None, "n/a") == 3


def test_values_are_compared_as_json_compares_them() -> None:
    assert count_of(INTEGER, missing(-999, "x"), 1, -999, None) == 1
    assert count_of(NUMBER, missing(-999), 1.5, -999.0, float("nan")) == 1
    assert count_of(INTEGER, missing(*[1.0, True]), 1, 2) == 1
    assert count_in({"logicalType": "boolean"}, missing(*[True, 1]), [True, False, None]) == 1
    assert count_of({}, missing(1, "1"), "1", "2") == 1
    assert count_of({"logicalType": "date"}, missing("1900-01-01"), date(1900, 1, 1), date(2024, 1, 1)) == 1


def test_a_cell_is_missing_as_its_text_or_as_its_value() -> None:
    assert count_of(INTEGER, missing(-999, "N/A"), "-999", " -999", "N/A", "5", "x", None, cells=True) == 3
    assert count_of(NUMBER, missing(0), "0", "0.00", "0e5", "1", cells=True) == 3
    assert count_of(STRING, missing("0"), "0", "0.0", cells=True) == 1


def test_a_value_is_invalid_when_it_is_not_listed_and_null_never_is() -> None:
    assert count_of(STRING, invalid(validValues=["kg", "lb", None]), "kg", "g", None, "KG") == 2
    assert count_of(INTEGER, invalid(validValues=[1, 2.0]), 1, 2, 3, None) == 1
    assert count_of(NUMBER, invalid(validValues=[0.1]), 0.1, 0.2, float("nan")) == 2
    assert count_of(INTEGER, invalid(validValues=[1]), "1", "one", "2", None, cells=True) == 2


def test_a_value_of_the_wrong_type_is_not_valid() -> None:
    assert count_of(INTEGER, invalid(validValues=[1, 2]), "1", "2") == 2  # texts, in a typed file


def test_integers_beyond_64_bits_are_listed_as_their_format_allows() -> None:
    wide = {"logicalType": "integer", "logicalTypeOptions": {"format": "u64"}}
    series = pl.Series("x", [2**63, 1], dtype=pl.UInt64)
    declared = declared_of([{"name": "x", **wide, "quality": [{**invalid(validValues=[2**63]), "mustBe": 1}]}])
    assert measured(declared, series.to_frame())[0].count == 1


@pytest.mark.parametrize("kind", [STRING, {}])
def test_a_pattern_is_that_of_the_records(kind: dict[str, Any]) -> None:
    assert count_of(kind, invalid(pattern="^[A-Z]{2}$"), "AB", "AB\n", "abc", "", None) == 3
    assert count_of(kind, invalid(pattern="^(?!AB)"), "AB", "CD") == 1  # lookahead: not the engine's
    assert count_of(kind, invalid(pattern="^\\d+$"), "12", "٣") == 1


def test_a_list_and_a_pattern_must_both_hold() -> None:
    assert count_of(STRING, invalid(validValues=["AB", "cd"], pattern="^[A-Z]+$"), "AB", "cd", "EF") == 2


def test_rows_are_counted() -> None:
    declared = declared_of([{"name": "x"}], {"metric": "rowCount", "mustBeBetween": [2, 4]})
    three = measured(declared, pl.DataFrame({"x": [1, 2]}), pl.DataFrame({"x": [3]}))[0]
    assert (three.verdict, three.observed, three.required) == ("pass", 3, "strictly between 2 and 4 rows")
    assert measured(declared, pl.DataFrame({"x": [1, 2, 3, 4]}))[0].verdict == "fail"


def test_a_property_that_the_data_has_not_is_unknown() -> None:
    declared = declared_of([{"name": "x", "quality": [{"metric": "nullValues", "mustBe": 0}]}])
    (found,) = measured(declared, pl.DataFrame({"y": [1]}))
    assert (found.verdict, found.answerable) == ("unknown", True)
    assert "no x" in found.reason


def test_places_in_objects_and_arrays_are_those_there_is_room_for() -> None:
    check = {"metric": "nullValues", "mustBe": 0}
    street = {"name": "street.name", "quality": [check]}
    properties: list[dict[str, Any]] = [
        {"name": "address", "logicalType": "object", "properties": [street]},
        {"name": "tags", "logicalType": "array", "items": {"logicalType": "string", "quality": [check]}},
        {
            "name": "lines",
            "logicalType": "array",
            "items": {"logicalType": "object", "properties": [{"name": "sku", "quality": [check]}]},
        },
    ]
    frame = pl.DataFrame(
        {
            "address": [{"street.name": "a"}, {"street.name": None}, None],
            "tags": [["a", None], [], None],
            "lines": [[{"sku": 1}, {"sku": None}, None], [], None],
        }
    )
    found = [(each.field, each.count, each.places) for each in measured(declared_of(properties), frame)]
    assert found == [("address.street.name", 1, 2), ("tags[]", 1, 2), ("lines[].sku", 1, 2)]


def test_what_stands_in_the_text_of_a_cell_is_not_looked_into() -> None:
    street = {"name": "street", "quality": [{"metric": "nullValues", "mustBe": 0}]}
    declared = declared_of([{"name": "address", "logicalType": "object", "properties": [street]}])
    (found,) = measured(declared, pl.DataFrame({"address": ['{"street": null}']}), cells=True)
    assert found.verdict == "unknown"


def test_duplicates_are_taken_from_whoever_counts_them() -> None:
    properties: list[dict[str, Any]] = [
        {"name": "id", "quality": [{"metric": "duplicateValues", "mustBe": 0}]},
        {"name": "tenant"},
    ]
    both = {"metric": "duplicateValues", "mustBe": 50, "unit": "percent", "arguments": {"properties": ["tenant", "id"]}}
    declared = declared_of(properties, both)
    checks = compile_quality(declared)
    keys = duplicate_keys(checks, compile_columns(declared).nodes)
    assert [[part.name for part in key.parts] for key in keys] == [["tenant", "id"], ["id"]]
    meter = QualityMeter(checks)
    frame = pl.DataFrame({"id": [1, 1], "tenant": [1, 1]})
    meter.add(frame, frame)
    assert [each and each.verdict for each in meter.verdicts(2, [1, 0])] == ["pass", "pass"]


values = st.one_of(st.none(), st.integers(-3, 3), st.sampled_from(["a", "b", "1", ""]), st.booleans())


@settings(max_examples=40)
@given(
    st.sampled_from(["string", "integer", "number", "boolean", None]),
    st.lists(values, max_size=4),
    st.lists(st.one_of(st.none(), st.integers(-3, 3)), max_size=8),
    st.lists(st.one_of(st.none(), st.sampled_from(["a", "b", "1", "", "c"])), max_size=8),
    st.lists(st.one_of(st.none(), st.booleans()), max_size=8),
)
def test_columns_are_counted_as_one_would_count_their_json(
    kind: str | None, listed: list[Any], whole: list[Any], texts: list[Any], truths: list[Any]
) -> None:
    property_ = {"logicalType": kind} if kind else {}
    for column, dtype in ((whole, pl.Int64), (texts, pl.String), (truths, pl.Boolean), (whole, pl.Float64)):
        series = pl.Series("x", column, dtype=dtype)
        keys = {json_key(value) for value in listed}
        expected = sum(json_key(value) in keys for value in plain(series, None))
        declared = declared_of([{"name": "x", **property_, "quality": [{**missing(*listed), "mustBe": 0}]}])
        assert measured(declared, series.to_frame())[0].count == expected


@given(
    st.lists(st.one_of(st.none(), st.text(max_size=5)), max_size=10), st.sampled_from(["^a", "b$", "[0-9]+", "(?i)^AB"])
)
def test_patterns_are_counted_as_python_finds_them(texts: list[str | None], pattern: str) -> None:
    expected = sum(text is not None and re.search(pattern.replace("$", r"\Z"), text) is None for text in texts)
    assert count_of(STRING, invalid(pattern=pattern), *texts) == (expected if texts else 0)
