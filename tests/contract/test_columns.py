"""The second promise of a contract: over columns it says what it says of the same row as a record."""

from __future__ import annotations

from typing import Any

import polars as pl
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from contract.contracts import STRINGS, document, named_properties, scalar_properties
from contract.frames import SCALARS, column, edges, frames
from mainstay.contract.columns import ColumnValidator, compile_columns
from mainstay.contract.columns_records import plain, read_cell
from mainstay.contract.load import parse_contract
from mainstay.contract.validator import ObjectValidator, compile_object
from mainstay.errors import InvalidDocument

ROWS = 12
CELLS = (
    *STRINGS, "0", "-0", "1", "-1", "+1", "01", "1.0", "1.", ".5", "0.5", "-0.0", "1e2", "1E+2", "1e-2", "1e400",
    "-1e400", "nan", "NaN", "inf",
    "Infinity", "0x10", "1_000", "1,5", " 7", "7 ", "\t7", "7\u00a0", "\u0663", "127", "128", "255", "256",
    "2147483648", "9007199254740993",
    "999999999999999999", "9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809",
    "18446744073709551615", "18446744073709551616", "340282366920938463463374607431768211455",
    "1" * 39, "1" * 401, "0.1", "0.3", "0.07",
    "0.30000000000000004", "123456789012345678.25", "9007199254740992.0", "9007199254740994.0", "true", "True",
    "FALSE", "tRue", "yes", "t", "null",
    "{}", "[]", "[1, 1]", "[1, 2", '{"amount": 1}', '{"a": null}', '"a"', "[" * 70 + "]" * 70, "[" * 5000, " ",
)  # fmt: skip  # one a line would fill a page
thorough = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def compiled(fields: list[dict[str, Any]]) -> tuple[ObjectValidator, ColumnValidator] | None:
    """Both validators of generated fields, or None when a contract may not say that, as with bounds that cross."""
    try:
        declared = parse_contract(document(fields), "contract.yaml").schema[0]
    except InvalidDocument:
        return None
    return compile_object(declared), compile_columns(declared)


def records_of(frame: pl.DataFrame, validator: ColumnValidator) -> list[dict[str, Any]]:
    """Each row as the JSON object that it is."""
    nodes = dict(validator.nodes)
    columns = [plain(frame[name], nodes.get(name)) for name in frame.columns]
    rows = zip(*columns, strict=True)
    return [{name: v for name, v in zip(frame.columns, row, strict=True) if v is not None} for row in rows]


@thorough
@given(st.data())
def test_the_columns_rules_say_of_each_row_what_the_record_validator_says_of_its_json(data: st.DataObject) -> None:
    fields = data.draw(named_properties(2))
    both = compiled(fields)
    if both is None:
        event("no contract")
        return
    by_record, by_column = both
    frame = data.draw(frames(fields, ROWS))
    expected = {}
    for number, record in enumerate(records_of(frame, by_column)):
        violations = by_record.check(record)
        event("bad" if violations else "good")
        for violation in violations:
            event(violation.rule)
        if violations:
            expected[number] = violations
    checked = by_column.check(frame)
    assert dict(zip(checked.bad_rows, checked.violations, strict=True)) == expected


@thorough
@given(scalar_properties())
def test_a_scalar_property_has_one_verdict_on_every_edge_value_of_every_type_of_column(
    declared: dict[str, Any],
) -> None:
    both = compiled([{"name": "it", **declared}])
    if both is None:
        event("no contract")
        return
    by_record, by_column = both
    for kind in SCALARS:
        series = column(edges(kind), kind).alias("it")
        expected = {
            n: found for n, r in enumerate(records_of(series.to_frame(), by_column)) if (found := by_record.check(r))
        }
        checked = by_column.check(series.to_frame())
        assert dict(zip(checked.bad_rows, checked.violations, strict=True)) == expected, kind


@settings(thorough, max_examples=150)
@given(scalar_properties())
@example({"required": False, "logicalType": "integer", "logicalTypeOptions": {"format": "u64"}})  # -0 is 0
@example({"required": False, "logicalType": "integer", "logicalTypeOptions": {"format": "u128"}})
@example({"required": True, "logicalType": "number", "logicalTypeOptions": {"multipleOf": 0.1}})
def test_a_cell_has_one_verdict_whether_it_is_read_alone_or_with_its_column(declared: dict[str, Any]) -> None:
    both = compiled([{"name": "it", **declared}])
    if both is None:
        return
    by_record, by_column = both
    texts = pl.Series([*CELLS, None], dtype=pl.String)
    node = by_column.nodes[0][1]
    read = [None if text is None else read_cell(text, node) for text in texts]
    expected = {
        n: found for n, value in enumerate(read) if (found := by_record.check({} if value is None else {"it": value}))
    }
    judged = by_column.bind({"it": pl.String()}, cells=True).judge(texts.alias("it").to_frame())
    bad = judged.bad_rows([])
    reasons = [each for found in judged.explained(bad, []) for each in found.reasons]
    assert dict(zip(bad.to_list(), reasons, strict=True)) == expected
    if node.kind in {"integer", "number", "boolean"}:
        as_typed = float if node.kind == "number" else (lambda value: value)
        right = [(n, value) for n, value in enumerate(read) if n not in expected]
        made = judged.frame["it"]
        assert [made[n] for n, _ in right] == [None if value is None else as_typed(value) for _, value in right]
