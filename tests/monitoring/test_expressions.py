from __future__ import annotations

import json
import math
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.errors import Misuse
from mainstay.monitoring.business import evaluate
from mainstay.monitoring.expressions import compile_expression


def joined(*rows: tuple[Any, Any, Any]) -> pl.DataFrame:
    texts = [[None if part is None else json.dumps(part) for part in row] for row in rows]
    return pl.DataFrame(texts, schema=dict.fromkeys(("input", "output", "outcome_json"), pl.String), orient="row")


def value(expression: str, *row: Any) -> float | None:
    given = joined((*row, *[None] * (3 - len(row)))) if row else joined(({}, {}, {}))
    (found,) = evaluate(compile_expression(expression), given).to_list()
    return None if found is None else float(found)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("1 + 2 * 3", 7.0),
        ("(1 + 2) * 3", 9.0),
        ("8 / 4 / 2", 1.0),
        ("5 - 3 - 1", 1.0),
        ("--2 - -3", 5.0),
        ("1.5e3", 1500.0),
        (".5", 0.5),
        ("1 / 0", None),
        ("1e308 * 10", None),
        ("2 > 1", 1.0),
        ("not 2 > 1", 0.0),
        ("not not true", 1.0),
        ("true and false or true", 1.0),
        ("true or false and false", 1.0),
        ("if(1 < 2, 10, 20)", 10.0),
        ("if('a' == \"a\", 1, 0)", 1.0),
        (r"if('it\'s' != 'its', 1, 0)", 1.0),
        ("true == false", 0.0),
    ],
)
def test_it_computes(expression: str, expected: float | None) -> None:
    assert value(expression) == expected


def test_fields_are_read_as_what_they_are_used_as() -> None:
    row = ({"amount": 120, "kind": "new"}, {"score": 0.7}, {"paid": True, "net amount": 100})
    assert value("input.amount * output.score", *row) == pytest.approx(84)
    assert value('if(input.kind == "new" and outcome.paid, outcome["net amount"], 0)', *row) == 100
    assert value("outcome.paid", {}, {}, {"paid": 3}) == 3


@pytest.mark.parametrize(
    "row",
    [({},), ({"x": None},), ({"x": "3"},), ({"x": True},), ({"x": [1]},), (None,), ([1],), ({"x": 10**400},)],
)
def test_a_row_in_which_a_field_is_no_such_value_has_none(row: tuple[Any, ...]) -> None:
    assert value("input.x + 1", *row) is None
    assert value("if(input.x > 1, 1, 0)", *row) is None


def test_only_the_branch_taken_needs_a_value() -> None:
    assert value("if(input.x > 1, 1, input.missing)", {"x": 2}) == 1


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("", "expected a number, a text, `if(`, `(` or a field such as `input.amount` at character 1, found the end"),
        ("1 +", "at character 4, found the end"),
        ("(1", "expected `)` at character 3, found the end"),
        ("1 2", "expected an operator or the end at character 3, found `2`"),
        ("amount", "expected a number, a text, `if(`, `(` or a field such as `input.amount` at character 1"),
        ("input", "expected `.` at character 6, found the end"),
        ("input.1", "at character 6, found `.1`"),
        ("1 < 2 < 3", "expected `and` or `or` between two comparisons at character 7"),
        ("1 + 'a'", "expected a number at character 5, found a text"),
        ("1 == 'a'", "expected two values of one kind at character 3, found number and text"),
        ("'a' < 'b'", "expected numbers around `<` at character 5, found text"),
        ("true + 1", "expected a number at character 1, found a truth"),
        ("1 and true", "expected a truth at character 1, found a number"),
        ("'a'", "expected a number at character 1, found a text"),
        ("1 ; 2", "expected a number, a name or an operator at character 3, found `;`"),
        ("__import__('os')", "at character 1, found `__import__`"),
        ("input.x.y", "expected an operator or the end at character 8"),
        ("1" + " + 1" * 1_000, "expected an expression of at most 1000 parts"),
        ("(" * 60 + "1" + ")" * 60, "expected an expression at most 50 deep"),
        ("1" * 10_001, "expected an expression of at most 10000 characters, found 10001"),
    ],
)
def test_what_is_no_expression_is_refused_with_where(expression: str, message: str) -> None:
    with pytest.raises(Misuse) as caught:
        compile_expression(expression)
    assert message in str(caught.value)


@given(st.text(alphabet="01.+-*/()<>=! andortifue,input.output'\"[]", max_size=60))
def test_any_text_compiles_or_is_refused(text: str) -> None:
    try:
        compiled = compile_expression(text)
    except Misuse:
        return
    assert len(evaluate(compiled, joined(({}, {}, {}), (None, None, None)))) == 2


trees = st.recursive(
    st.integers(0, 9).map(str),
    lambda inner: st.builds("({} {} {})".format, inner, st.sampled_from("+-*/"), inner),
    max_leaves=12,
)


@given(trees)
def test_arithmetic_is_that_of_another_implementation(expression: str) -> None:
    try:
        expected: float | None = float(eval(expression))  # noqa: S307 - Python's own arithmetic, over what we made
    except ZeroDivisionError:
        expected = None
    found = value(expression)
    assert found == expected or (expected is not None and found == pytest.approx(expected) and math.isfinite(expected))


def test_a_constant_has_a_value_for_every_decision() -> None:
    assert evaluate(compile_expression("2"), joined(({}, {}, {}), ({}, {}, {}))).to_list() == [2.0, 2.0]
