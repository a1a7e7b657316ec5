"""The rules between rows: the first row of a key is kept, every later one is bad, and no other."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.contracts import document
from mainstay.contract.columns import ColumnValidator, compile_columns
from mainstay.contract.load import parse_contract
from mainstay.contract.types import Violation
from mainstay.errors import Misuse


class ArrowTable:
    """What another library's table shows of itself."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return pl.DataFrame({"id": [1, 2, 1]}).__arrow_c_stream__(requested_schema)


def validator_of(*fields: dict[str, Any]) -> ColumnValidator:
    return compile_columns(parse_contract(document(list(fields)), "contract.yaml").schema[0])


def found(validator: ColumnValidator, table: Any) -> dict[int, list[tuple[str, str, str]]]:
    checked = validator.check(table)
    return {
        row: [(each.field, each.rule, each.found) for each in reasons]
        for row, reasons in zip(checked.bad_rows, checked.violations, strict=True)
    }


def test_of_rows_with_one_value_the_first_is_kept() -> None:
    validator = validator_of({"name": "id", "logicalType": "string", "unique": True})
    frame = pl.DataFrame({"id": ["a", "b", "a", None, None, "a"]})
    assert found(validator, frame) == {2: [("id", "unique", '"a"')], 5: [("id", "unique", '"a"')]}
    assert validator.check(frame).violations[0][0].expected == "a value that no earlier row has"


def test_a_row_that_is_bad_itself_still_has_its_key() -> None:
    validator = validator_of(
        {"name": "id", "logicalType": "integer", "unique": True, "logicalTypeOptions": {"minimum": 0}}
    )
    assert found(validator, pl.DataFrame({"id": [-1, -1]})) == {
        0: [("id", "minimum", "-1")],
        1: [("id", "minimum", "-1"), ("id", "unique", "-1")],
    }


def test_the_parts_of_a_primary_key_stand_in_their_positions_and_are_there() -> None:
    validator = validator_of(
        {"name": "line", "logicalType": "integer", "primaryKey": True, "primaryKeyPosition": 2},
        {"name": "order", "logicalType": "string", "primaryKey": True, "primaryKeyPosition": 1, "required": True},
    )
    frame = pl.DataFrame({"line": [1, 1, 2, 1, None], "order": ["x", "y", "x", "x", "x"]})
    assert validator.check(frame).violations == (
        (Violation("$", "primary-key", "a key (order, line) that no earlier row has", '("x", 1)'),),
        (Violation("line", "primary-key", "a value, because it is part of the primary key", "nothing"),),
    )
    assert found(validator, frame.drop("order"))[0] == [("order", "required", "nothing")]


def test_one_property_that_is_the_primary_key_is_told_once() -> None:
    validator = validator_of({"name": "id", "logicalType": "integer", "primaryKey": True, "unique": True})
    assert found(validator, pl.DataFrame({"id": [1, 1]})) == {1: [("id", "primary-key", "1")]}


def test_a_key_of_which_a_part_is_classified_is_not_shown() -> None:
    validator = validator_of(
        {"name": "iban", "primaryKey": True, "classification": "restricted"}, {"name": "n", "primaryKey": True}
    )
    assert found(validator, pl.DataFrame({"iban": ["S", "S"], "n": [1, 1]})) == {1: [("$", "primary-key", "(masked)")]}


def test_a_key_may_stand_in_an_object() -> None:
    inner = [{"name": "*", "logicalType": "integer", "unique": True}]
    validator = validator_of({"name": "^a$", "logicalType": "object", "properties": inner})
    frame = pl.DataFrame({"^a$": [{"*": 1}, {"*": 2}, {"*": 1}, None, {"*": None}, None]})
    assert found(validator, frame) == {2: [("^a$.*", "unique", "1")]}
    assert found(validator, pl.DataFrame({"^a$": [1, 1]})).keys() == {0, 1}


def test_a_key_inside_cells_of_text_is_refused() -> None:
    inner = [{"name": "id", "unique": True}]
    validator = validator_of({"name": "a", "logicalType": "object", "properties": inner})
    with pytest.raises(Misuse, match=r"a column for a\.id"):
        validator.bind({"a": pl.String()}, cells=True)


def test_doubles_that_compare_equal_are_one_key() -> None:
    validator = validator_of({"name": "x", "logicalType": "number", "unique": True})
    assert found(validator, pl.DataFrame({"x": [0.0, -0.0, 1.0]})) == {1: [("x", "unique", "-0.0")]}


def test_a_table_by_the_arrow_interface_is_taken() -> None:
    validator = validator_of({"name": "id", "logicalType": "integer", "unique": True})
    assert found(validator, ArrowTable()) == {2: [("id", "unique", "1")]}


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(("a", "b", None)), st.sampled_from((1, 2, None))), max_size=20))
def test_exactly_the_later_rows_of_a_key_are_bad(rows: list[tuple[str | None, int | None]]) -> None:
    validator = validator_of(
        {"name": "a", "primaryKey": True}, {"name": "b", "primaryKey": True}, {"name": "c", "unique": True}
    )
    frame = pl.DataFrame(
        {"a": [a for a, _ in rows], "b": [b for _, b in rows], "c": [b for _, b in rows]},
        schema={"a": pl.String, "b": pl.Int64, "c": pl.Int64},
    )
    expected = {}
    for number, (a, b) in enumerate(rows):
        rules = []
        if b is not None and any(b == other for _, other in rows[:number]):
            rules.append("unique")
        rules += ["primary-key"] * ((a is None) + (b is None) or (a, b) in rows[:number])
        if rules:
            expected[number] = sorted(rules)
    assert {row: sorted(rule for _, rule, _ in each) for row, each in found(validator, frame).items()} == expected
