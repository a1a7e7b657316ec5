from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import jsonschema
import msgspec
import pytest

from contract.contracts import validator_of
from mainstay.contract.types import Violation
from mainstay.contract.violations import MAX_VIOLATIONS

if TYPE_CHECKING:
    from mainstay.contract.validator import ObjectValidator


def broken(validator: ObjectValidator, record: Any) -> list[tuple[str, str, str]]:
    """Field, rule and finding of every violation; the fast path must refuse, too."""
    raw = json.dumps(record).encode()
    with pytest.raises(msgspec.DecodeError):
        validator.decode(raw)
    return [(each.field, each.rule, each.found) for each in validator.violations(raw)]


def field(name: str, kind: str, *, required: bool = True, **options: object) -> dict[str, Any]:
    return {"name": name, "logicalType": kind, "required": required, "logicalTypeOptions": options}


def test_a_record_is_decoded_to_its_values_in_order() -> None:
    validator = validator_of(
        field("class", "string"), field("a b", "number"), field("on", "date"), field("gone", "integer", required=False)
    )
    assert validator.fields == ("class", "a b", "on", "gone")
    record = validator.decode(b'{"on": "2024-02-29", "class": "x", "a b": 1}')
    assert validator.values(record) == ("x", 1.0, "2024-02-29", None)
    assert record == validator.decode(msgspec.Raw(b'{"on": "2024-02-29", "class": "x", "a b": 1, "gone": null}'))
    assert msgspec.json.encode(record) == b'{"class":"x","a b":1.0,"on":"2024-02-29","gone":null}'


def test_a_record_is_made_from_values_also_where_required_ones_come_last() -> None:
    validator = validator_of(field("a", "integer", required=False), field("b", "string"))
    assert msgspec.json.encode(validator.make(None, "x")) == b'{"a":null,"b":"x"}'
    assert validator.values(validator.decode(b'{"b": "x"}')) == (None, "x")


def test_every_violation_is_told_in_the_order_of_the_contract() -> None:
    validator = validator_of(
        field("code", "string", minLength=3, pattern="^[A-Z]+$"),
        field("amount", "number", minimum=0, multipleOf=0.1),
        field("count", "integer", required=False),
        field("at", "timestamp", maximum="2024-01-01T00:00:00Z"),
        field("open", "boolean"),
        {
            **field("lines", "array", maxItems=2, uniqueItems=True),
            "items": {
                "logicalType": "object",
                "properties": [field("sku", "string"), field("n", "integer", minimum=1)],
            },
        },
    )
    record = {
        "code": "x1",
        "amount": -0.25,
        "count": 1.0,
        "at": "2024-01-01T00:00:00.1Z",
        "lines": [{"sku": "a", "n": 1}, {"n": 0, "sku": None, "m": 1}, {"n": 1, "sku": "a"}],
        "Amuont": 3,
    }
    assert broken(validator, record) == [
        ("code", "min-length", '"x1"'),
        ("code", "pattern", '"x1"'),
        ("amount", "minimum", "-0.25"),
        ("amount", "multiple-of", "-0.25"),
        ("count", "type", "1.0"),
        ("at", "maximum", '"2024-01-01T00:00:00.1Z"'),
        ("open", "required", "nothing"),
        ("lines", "max-items", "an array of 3 items"),
        ("lines", "unique-items", "an array of 3 items"),
        ("lines[1].sku", "required", "null"),
        ("lines[1].n", "minimum", "0"),
        ("lines[1].m", "unknown-field", '"m"'),
        ("Amuont", "unknown-field", '"Amuont"'),
    ]
    violations = validator.violations(json.dumps(record).encode())
    assert violations[-1].expected == 'a field of the contract (did you mean "amount"?)'


def test_items_that_are_the_same_once_read_are_not_unique() -> None:
    numbers = validator_of({**field("n", "array", uniqueItems=True), "items": {"logicalType": "number"}})
    assert broken(numbers, {"n": [1, 1.0]}) == [("n", "unique-items", "an array of 2 items")]
    assert broken(numbers, {"n": [2**53, 2**53 + 1]}) == [("n", "unique-items", "an array of 2 items")]
    anything = validator_of(field("n", "array", uniqueItems=True))
    assert anything.violations(b'{"n": [1, true, "1", [1], {"a": 1}, null]}') == ()
    assert broken(anything, {"n": [{"a": 1, "b": 2}, {"b": 2, "a": 1.0}]}) == [
        ("n", "unique-items", "an array of 2 items")
    ]


@pytest.mark.parametrize("classification", ["restricted", "Confidential", "pii", ""])
def test_what_is_classified_is_never_shown(classification: str) -> None:
    inner = [field("street", "string", maxLength=3), field("n", "integer")]
    validator = validator_of(
        {**field("iban", "string", pattern="^DE"), "classification": classification},
        {**field("address", "object"), "properties": inner, "classification": classification},
        {**field("ids", "array"), "items": {"logicalType": "string", "classification": classification}},
    )
    record = {"iban": "SECRET", "address": {"street": "SECRET", "n": "SECRET", "x": "SECRET"}, "ids": [7123]}
    violations = validator.violations(json.dumps(record).encode())
    assert [each.found for each in violations if each.rule != "unknown-field"] == ["(masked)"] * 4
    assert "SECRET" not in repr(violations)
    assert "7123" not in repr(violations)


@pytest.mark.parametrize("classification", ["public", "Internal", None])
def test_what_is_open_is_shown(classification: str | None) -> None:
    declared = field("code", "string", maxLength=3) | ({"classification": classification} if classification else {})
    assert broken(validator_of(declared), {"code": "long one"}) == [("code", "max-length", '"long one"')]


def test_what_is_found_is_cut_and_of_unknown_fields_only_the_name_is_shown() -> None:
    validator = validator_of(field("code", "string", maxLength=3))
    violations = validator.violations(json.dumps({"code": "y" * 500, "z" * 500: "SECRET"}).encode())
    assert [len(each.found) for each in violations] == [80, 80]
    assert "SECRET" not in repr(violations)
    assert len(violations[1].field) <= 80


def test_the_number_of_violations_is_bounded_and_so_is_the_time_they_take() -> None:
    validator = validator_of(*(field(f"field number {i}", "string") for i in range(30)))
    record = json.dumps({f"field nomber {i}": 0 for i in range(50_000)}).encode()
    begun = time.process_time()
    violations = validator.violations(record)
    assert len(violations) == MAX_VIOLATIONS
    assert time.process_time() - begun < 2


@pytest.mark.parametrize(
    ("raw", "rule"),
    [
        (b"", "malformed"),
        (b"{", "malformed"),
        (b'{"n": NaN}', "malformed"),
        (b'{"n": 1e999}', "malformed"),
        (b'{"n": 01}', "malformed"),
        (b'{"n": 1} x', "malformed"),
        (b"\xef\xbb\xbf{}", "malformed"),
        (b'{"n": "\xff"}', "malformed"),
        (b'{"n": "\\ud800"}', "malformed"),
        (b'{"n": ' + b"1" * 5000 + b"}", "malformed"),
        (b"[" * 100_000, "malformed"),
        (b"null", "not-an-object"),
        (b"[]", "not-an-object"),
        (b'"secret"', "not-an-object"),
    ],
)
def test_what_is_no_record_at_all_has_one_violation(raw: bytes, rule: str) -> None:
    validator = validator_of(field("n", "integer"))
    violations = validator.violations(raw)
    assert [(each.field, each.rule) for each in violations] == [("$", rule)]
    assert "secret" not in repr(violations)
    with pytest.raises(msgspec.DecodeError):
        validator.decode(raw)


def test_a_repeated_name_is_told_when_the_value_that_was_replaced_is_wrong() -> None:
    validator = validator_of(field("n", "integer"))
    assert validator.values(validator.decode(b'{"n": 1, "n": 2}')) == (2,)
    assert validator.violations(b'{"n": 1, "n": 2}') == ()
    with pytest.raises(msgspec.ValidationError):
        validator.decode(b'{"n": "x", "n": 2}')
    assert validator.violations(b'{"n": "x", "n": 2}') == (
        Violation("n", "duplicate-key", "each name once", "it again, beside a value the contract refuses"),
    )


@pytest.mark.parametrize(
    ("format_name", "good", "bad"),
    [
        ("", [-(2**63), 2**63 - 1], [-(2**63) - 1, 2**63, 10**300]),
        ("i8", [-128, 127], [-129, 128]),
        ("u64", [0, 2**64 - 1], [-1, 2**64]),
        ("i128", [-(2**127), 2**127 - 1], [-(2**127) - 1, 2**127]),
    ],
)
def test_integers_keep_their_width_exactly(format_name: str, good: list[int], bad: list[int]) -> None:
    options = {"format": format_name} if format_name else {}
    validator = validator_of({"name": "n", "logicalType": "integer", "logicalTypeOptions": options})
    for value in good:
        assert validator.values(validator.decode(json.dumps({"n": value}).encode())) == (value,)
        assert validator.check({"n": value}) == ()
    for value in bad:
        assert [rule for _, rule, _ in broken(validator, {"n": value})] in (["minimum"], ["maximum"])


def test_decimals_are_multiples_as_they_are_written() -> None:
    validator = validator_of(field("n", "number", multipleOf=0.1))
    for value in (0.3, 0.7, 1, -2.1, 1e22):
        assert validator.check({"n": value}) == ()
        validator.decode(json.dumps({"n": value}).encode())
    assert broken(validator, {"n": 0.35}) == [("n", "multiple-of", "0.35")]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400, "1", True, None])
def test_a_decoded_value_that_json_has_no_number_for_is_no_number(value: object) -> None:
    assert len(validator_of(field("n", "number")).check({"n": value})) == 1


@pytest.mark.parametrize(
    ("must", "is_strict"),
    [
        ({"mustBe": 0}, True),
        ({"mustBe": 0, "unit": "percent"}, True),
        ({"mustBeLessThan": 1}, True),
        ({"mustBeLessThan": 1, "unit": "percent"}, False),
        ({"mustBeLessOrEqualTo": 0}, True),
        ({"mustBeLessOrEqualTo": 5, "unit": "percent"}, False),
        ({"mustBe": False}, False),
    ],
)
def test_listed_values_bind_each_record_only_where_none_may_be_invalid(must: dict[str, Any], is_strict: bool) -> None:
    check = {"metric": "invalidValues", "arguments": {"validValues": ["EWR", "JFK", None]}, **must}
    validator = validator_of(field("origin", "string") | {"quality": [check]})
    assert validator.violations(b'{"origin": "JFK"}') == ()
    assert (validator.violations(b'{"origin": "LHR"}') != ()) is is_strict


@pytest.mark.parametrize(
    ("kind", "listed", "good", "bad"),
    [
        ("number", [1, 2.5], [1, 1.0, 2.5], [2, -1.0]),
        ("integer", [1, 2.0, 2**70], [1, 2], [3, 1.0]),
        ("boolean", [True], [True], [False]),
        ("date", ["2024-01-01"], ["2024-01-01"], ["2024-01-02"]),
        ("string", ["a", 1], ["a"], ["1", ""]),
        (None, [1, "a", [True]], [1.0, "a", [True]], [True, [1], "b", {}]),
    ],
)
def test_listed_values_are_compared_as_json_compares(
    kind: str | None, listed: list[Any], good: list[Any], bad: list[Any]
) -> None:
    check = {"metric": "invalidValues", "arguments": {"validValues": listed}, "mustBe": 0}
    validator = validator_of({"name": "it", "quality": [check]} | ({"logicalType": kind} if kind else {}))
    for value in good:
        validator.decode(json.dumps({"it": value}).encode())
        assert validator.check({"it": value}) == ()
    for value in bad:
        assert broken(validator, {"it": value})[0][1] in {"valid-values", "type"}


def test_the_json_schema_accepts_what_the_contract_accepts() -> None:
    validator = validator_of(
        field("code", "string", maxLength=3, pattern="^[A-Z]+$"),
        field("n", "integer", required=False, minimum=1, multipleOf=2),
        field("on", "date", required=False),
        {**field("list", "array", required=False, uniqueItems=True), "items": field("x", "number")},
        {"name": "it", "logicalType": "object", "logicalTypeOptions": {"required": ["a"]}},
        {"name": "any"},
    )
    schema = validator.json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    for record in (
        {"code": "AB", "n": 4, "on": None, "list": [1, 2.5], "it": {"a": 1}, "any": {"x": 1}},
        {"code": "AB"},
        {"code": "abcd", "n": 3},
        {"code": None},
        {"code": "AB", "it": {}},
        {"code": "AB", "list": [1, 1]},
        {"code": "AB", "other": 1},
    ):
        accepted = validator.check(record) == ()
        assert jsonschema.Draft202012Validator(schema).is_valid(record) == accepted
