from __future__ import annotations

from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.contract.load import load_contract, parse_contract
from mainstay.contract.quality import Counted, QualityCheck, compile_quality, read_requirement
from mainstay.contract.sql_types import Answer
from mainstay.contract.standard import OPERATORS
from mainstay.contract.types import Quality, SchemaObject
from mainstay.errors import InvalidDocument
from shared_data import ROOT, shared_data

numbers = st.one_of(st.integers(-50, 50), st.sampled_from((0.1, 0.7, 5.5, -2.5, 1e3)))


def declared_of(*checks: dict[str, Any], properties: list[dict[str, Any]] | None = None) -> SchemaObject:
    """An object with checks of its own, or with properties that have some."""
    document = {
        "apiVersion": "v3.1.0",
        "kind": "DataContract",
        "id": "c",
        "version": "1.0.0",
        "status": "draft",
        "schema": [{"name": "orders", "quality": checks, "properties": properties or [{"name": "id"}]}],
    }
    return parse_contract(msgspec.json.encode(document), "c.yaml").schema[0]


def checks_at(kind: str | None, *checks: dict[str, Any], **others: Any) -> tuple[QualityCheck, ...]:
    given = {"name": "id", "quality": list(checks), **({"logicalType": kind} if kind else {}), **others}
    return compile_quality(declared_of(properties=[given]))


def read(**operator: Any) -> Any:
    check = msgspec.convert({"metric": "rowCount", **operator}, Quality)
    return read_requirement(check, booleans=True)


@given(numbers, numbers, numbers)
def test_operators_mean_what_the_standard_says(value: float, low: float, high: float) -> None:
    exact, least, most = (Fraction(repr(each)) for each in (value, low, high))
    assert read(mustBe=low).holds(exact) == (exact == least)
    assert read(mustNotBe=low).holds(exact) == (exact != least)
    assert read(mustBeGreaterThan=low).holds(exact) == (exact > least)
    assert read(mustBeGreaterOrEqualTo=low).holds(exact) == (exact >= least)
    assert read(mustBeLessThan=high).holds(exact) == (exact < most)
    assert read(mustBeLessOrEqualTo=high).holds(exact) == (exact <= most)
    if least < most:
        both = read(mustBeGreaterThan=low).holds(exact) and read(mustBeLessThan=high).holds(exact)
        assert read(mustBeBetween=[low, high]).holds(exact) == both
        assert read(mustNotBeBetween=[low, high]).holds(exact) == (not both)


def test_every_operator_of_the_standard_is_read() -> None:
    for name in OPERATORS:
        assert read(**{name: [1, 2] if name.endswith("Between") else 1}).words


@pytest.mark.parametrize(
    ("operator", "said"),
    [
        ({}, "no operator"),
        ({"mustBe": None}, "found null"),
        ({"mustBe": "0"}, 'found "0"'),
        ({"mustNotBe": [0]}, "found a list"),
        ({"mustBeBetween": [100, 0]}, "the smaller number first"),
        ({"mustNotBeBetween": [3.5, 3.5]}, "the smaller number first"),
    ],
)
def test_what_demands_nothing_that_can_be_compared_is_told(operator: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read(**operator)


def test_a_share_is_compared_as_it_is_written() -> None:
    (check,) = checks_at(None, {"metric": "nullValues", "mustBeLessOrEqualTo": 0.7, "unit": "percent"})
    assert check.counted(Counted(7, 1_000)).verdict == "pass"  # 100 * 7 / 1000 is more than 0.7 in doubles
    found = check.counted(Counted(8, 1_000))
    assert (found.verdict, found.observed, found.required) == ("fail", 0.8, "at most 0.7 percent")
    assert (found.count, found.places) == (8, 1_000)


def test_a_share_of_nothing_is_unknown_and_a_count_of_nothing_is_not() -> None:
    share, count = checks_at(
        None, {"metric": "nullValues", "mustBe": 0, "unit": "Percent"}, {"metric": "nullValues", "mustBe": 0}
    )
    assert share.counted(Counted(0, 0)).verdict == "unknown"
    assert count.counted(Counted(0, 0)).verdict == "pass"


def test_a_verdict_says_which_rule_it_is_of() -> None:
    words = {
        "name": "few gaps",
        "id": "id-gaps",
        "description": "An order has an id.",
        "dimension": "completeness",
        "severity": "error",
        "businessImpact": "operational",
    }
    (check,) = checks_at(None, {"metric": "nullValues", "mustBeLessThan": 5, **words})
    found = msgspec.to_builtins(check.counted(Counted(5, 9)))
    assert found == {
        "field": "id",
        "kind": "library",
        "metric": "nullValues",
        "name": "few gaps",
        "id": "id-gaps",
        "description": "An order has an id.",
        "dimension": "completeness",
        "severity": "error",
        "business_impact": "operational",
        "required": "less than 5 rows",
        "observed": 5,
        "unit": "rows",
        "count": 5,
        "places": 9,
        "verdict": "fail",
        "reason": "",
        "answerable": True,
    }


@pytest.mark.parametrize(
    ("check", "answerable"),
    [
        ({"type": "text", "description": "Orders are paid."}, False),
        ({"description": "Orders are paid."}, False),
        ({"type": "custom", "engine": "soda", "implementation": "x"}, False),
        ({"metric": "rowCount", "mustBe": 1}, True),  # at a property
        ({"metric": "missingValues", "mustBe": 0}, True),  # without a list
        ({"metric": "missingValues", "mustBe": 0, "arguments": {"missingValues": "N/A"}}, True),
        ({"metric": "invalidValues", "mustBe": 0}, True),  # without a list or a pattern
        ({"metric": "duplicateValues", "mustBe": 0, "arguments": {"properties": ["id"]}}, True),
        ({"metric": "nullValues", "mustBe": "none"}, True),
        ({"metric": "nullValues", "mustBe": True}, True),
        ({"metric": "nullValues", "mustBe": 0, "unit": "furlongs"}, True),
        ({"metric": "nullValues", "mustBe": 0, "rule": "duplicateCount"}, True),  # says two things
        ({"type": "sql", "query": "SELECT 1", "mustBe": None}, True),
    ],
)
def test_what_cannot_be_judged_is_unknown_and_never_a_pass(check: dict[str, Any], answerable: bool) -> None:
    (made,) = checks_at(None, check)
    assert made.measure is None
    assert made.query is None
    found = made.unknown(made.reason)
    assert (found.verdict, found.answerable) == ("unknown", answerable)
    assert found.reason


@pytest.mark.parametrize(
    ("check", "said"),
    [
        ({"metric": "nullValues", "mustBe": 0}, "counted at a property"),
        ({"metric": "rowCount", "mustBe": 0, "unit": "percent"}, "in percent"),
        ({"metric": "duplicateValues", "mustBe": 0}, "arguments.properties"),
        ({"metric": "duplicateValues", "mustBe": 0, "arguments": {"properties": []}}, "at least one name"),
        ({"metric": "duplicateValues", "mustBe": 0, "arguments": {"properties": ["idd"]}}, "did you mean id?"),
        ({"metric": "duplicateValues", "mustBe": 0, "arguments": {"properties": [7]}}, "names 7"),
        ({"type": "sql", "query": "SELECT count({property}) FROM {object}", "mustBe": 0}, "rule of an object"),
    ],
)
def test_a_check_of_an_object_that_cannot_be_made_says_why(check: dict[str, Any], said: str) -> None:
    (made,) = compile_quality(declared_of(check))
    assert made.measure is None
    assert said in made.reason


def test_the_deprecated_rule_stands_beside_the_metric_it_means() -> None:
    for rule, metric in (("nullCheck", "nullValues"), ("duplicateCount", "duplicateValues"), ("our own", "nullValues")):
        (made,) = checks_at("string", {"metric": metric, "rule": rule, "mustBe": 0})
        assert made.measure is not None


def test_a_check_of_two_kinds_is_two_checks() -> None:
    made = checks_at(None, {"type": "sql", "metric": "nullValues", "query": "SELECT 1", "mustBe": 0})
    assert [each.kind for each in made] == ["library", "sql"]
    assert made[0].measure is not None
    assert made[1].query == "SELECT 1"


def test_checks_stand_where_the_document_has_them() -> None:
    check = {"metric": "nullValues", "mustBe": 0}
    lines = {"name": "lines", "logicalType": "array", "items": {"logicalType": "string", "quality": [check]}}
    customer = {"name": "customer", "logicalType": "object", "properties": [{"name": "id", "quality": [check]}]}
    made = compile_quality(declared_of({"metric": "rowCount", "mustBe": 0}, properties=[customer, lines]))
    assert [each.field for each in made] == ["$", "customer.id", "lines[]"]


def test_duplicates_are_counted_of_plain_values_only() -> None:
    check = {"metric": "duplicateValues", "mustBe": 0}
    for kind in ("object", "array"):
        (made,) = checks_at(kind, check)
        assert "plain values" in made.reason


def test_a_query_names_the_property_it_stands_at() -> None:
    query = {"type": "sql", "query": "SELECT count(*) FROM {object} WHERE {property} IS NULL", "mustBe": 0}
    (made,) = checks_at(None, query)
    assert made.query == 'SELECT count(*) FROM "orders" WHERE "id" IS NULL'


@pytest.mark.parametrize(
    ("wanted", "answer", "verdict", "observed"),
    [
        (0, Answer("number", "0"), "pass", 0),
        (0, Answer("number", "0.0"), "pass", 0),
        (0.1, Answer("number", "0.1"), "pass", 0.1),
        (0.1, Answer("number", "0.100"), "pass", 0.1),
        (0, Answer("number", "3"), "fail", 3),
        (True, Answer("boolean", "true"), "pass", True),
        (True, Answer("boolean", "false"), "fail", False),
        (True, Answer("number", "1"), "unknown", None),
        (0, Answer("boolean", "false"), "unknown", None),
        (0, Answer("null", "expected a number, found null"), "unknown", None),
        (0, Answer("refused", "it writes"), "unknown", None),
        (0, Answer("stopped", "it took too long"), "unknown", None),
    ],
)
def test_an_answer_is_compared_with_what_the_rule_demands(
    wanted: Any, answer: Answer, verdict: str, observed: Any
) -> None:
    (check,) = compile_quality(declared_of({"type": "sql", "query": "SELECT 1", "mustBe": wanted}))
    found = check.answered(answer)
    assert (found.verdict, found.observed) == (verdict, observed)
    assert bool(found.reason) == (verdict == "unknown")


def test_every_check_of_contracts_made_by_others_can_be_made_or_says_why_not() -> None:
    shared_data("contracts")
    seen = 0
    for path in sorted((ROOT / "contracts").rglob("*.yaml")):
        try:
            contract = load_contract(path)
        except InvalidDocument:  # which are contracts is tested in test_load
            continue
        for declared in contract.schema:
            for check in compile_quality(declared):
                seen += 1
                assert (check.measure is not None) or (check.query is not None) or check.reason
    assert seen >= 15
