"""What single changes are called, and whether examples show it."""

from __future__ import annotations

from typing import Any

import pytest

from contract.contracts import NAMES
from contract.test_difference import contract_of, shown
from mainstay.contract.difference import compare_contracts, next_version, overall, suggested_step, taken_step
from mainstay.contract.validator import compile_object


def field(kind: str | None, *, required: bool = True, **options: object) -> dict[str, Any]:
    made: dict[str, Any] = {"required": required} | ({"logicalType": kind} if kind else {})
    return made | ({"logicalTypeOptions": options} if options else {})


def naming(*names: str) -> dict[str, Any]:
    return field("object") | {"logicalTypeOptions": {"required": [*names]}}


def listing(kind: str | None, *values: object) -> dict[str, Any]:
    check = {"metric": "invalidValues", "arguments": {"validValues": list(values)}, "mustBe": 0}
    return field(kind) | {"quality": [check]}


def between(old: dict[str, Any], new: dict[str, Any], **how: bool) -> tuple[str, str]:
    """The effects, for producers and consumers, of what changed in one property."""
    contracts = [contract_of([{"name": "it", **each}]) for each in (old, new)]
    assert contracts[0] is not None
    assert contracts[1] is not None
    changes = compare_contracts(contracts[0], contracts[1], **how)
    shown(
        changes,
        *(compile_object(each.schema[0]) for each in contracts if each),
        tolerant=how.get("tolerant_readers", False),
    )
    return overall(changes, ["producers"]), overall(changes, ["consumers"])


FLAGS = (True,)
B, C, U = "breaking", "compatible", "unknown"
items = {"logicalType": "object", "properties": [{"name": "a", "logicalType": "integer"}]}


@pytest.mark.parametrize(
    ("old", "new", "effects"),
    [
        (field("integer", minimum=1), field("integer", exclusiveMinimum=0), (C, C)),
        (field("number", minimum=1), field("number", exclusiveMinimum=1), (B, C)),
        (field("number", minimum=0.5, maximum=0.5), listing("number", 0.5), (C, C)),
        (field("integer", format="u8"), field("integer", minimum=0, maximum=255), (C, C)),
        (field("integer"), field("integer", format="i128"), (C, B)),
        (field("integer", format="u128"), field("integer", format="i128"), (B, B)),
        (field("number"), field("number", format="f64"), (C, C)),
        (field("number", format="f32"), field("number"), (C, B)),
        (field("integer", multipleOf=6), field("integer", multipleOf=3), (C, B)),
        (field("integer", multipleOf=1.5), field("integer", multipleOf=3), (C, C)),
        (field("integer", multipleOf=3), field("number", multipleOf=3), (B, B)),
        (field("integer", multipleOf=3, maximum=10, minimum=-10), field("number", multipleOf=3), (C, B)),
        (listing("number", 1, 2), field("integer"), (B, B)),
        (listing("integer", 1, 2), field("number", maximum=2), (C, B)),
        (listing("number", 2**53), listing(None, 2**53), (U, C)),
        (listing(None, 1, "a"), listing(None, 1, "a", *FLAGS), (C, B)),
        (listing("string", "a", None), listing("string", "a"), (C, C)),
        (field("boolean"), listing("boolean", *FLAGS), (B, C)),
        (field("boolean"), field(None), (C, B)),
        (field("string", maxLength=3), field("string", maxLength=2**31 - 1), (C, B)),
        (field("string"), field("string", maxLength=2**31 - 1), (B, C)),
        (field("string", minLength=10**6), field("string", minLength=10**7), (B, C)),
        (field("string", format="uuid"), field("string", format="hostname"), (C, B)),
        (field("string", format="uuid"), field("string", minLength=36, maxLength=36), (C, B)),
        (field("string", format="email"), field("string", maxLength=254), (C, B)),
        (field("string", format="email"), field("string", maxLength=200), (B, B)),
        (field("date"), field("string", maxLength=10), (C, B)),
        (field("string", pattern="^[A-Z]{3}$"), field("string", pattern="^[A-Z]{2}$"), (B, B)),
        (field("string", pattern="^(A|B)$"), listing("string", "A", "B"), (C, C)),
        (field("string", pattern="^A$"), field("string", maxLength=1), (C, B)),
        (field("date", minimum="2024-01-01"), field("date", exclusiveMinimum="2023-12-31"), (C, C)),
        (field("date", minimum="2024-01-01"), field("date", minimum="2024-01-02"), (B, C)),
        (field("timestamp"), field("timestamp", timezone=True), (C, C)),
        (field("timestamp"), field("timestamp", defaultTimezone="Europe/Berlin"), (C, C)),
        (field("time"), field("time", defaultTimezone="Europe/Berlin"), (U, C)),
        (
            field("timestamp", maximum="2024-01-01T00:00:00Z"),
            field("timestamp", maximum="2024-01-01T01:00:00+01:00"),
            (C, C),
        ),
        (field("array", maxItems=1), field("array", uniqueItems=True), (C, B)),
        (field("array", minItems=2), field("array", uniqueItems=True), (B, B)),
        (field("array"), field("array", maxItems=10**6), (B, C)),
        (field("array"), field("array") | {"items": {"logicalType": "string"}}, (B, C)),
        (field("array") | {"items": {}}, field("array"), (C, C)),
        (
            field("array", uniqueItems=True) | {"items": {"logicalType": "integer"}},
            field("array", uniqueItems=True) | {"items": {"logicalType": "number"}},
            (U, B),
        ),
        (
            field("array") | {"items": {"logicalType": "integer"}},
            field("array") | {"items": {"logicalType": "integer", "required": True}},
            (B, C),
        ),
        (field("object") | {"properties": [{"name": "a"}]}, field("object"), (C, B)),
        (field("object") | {"properties": [{"name": "a"}]}, field("object", maxProperties=0), (B, U)),
        (
            field("object") | {"properties": [{"name": "a"}]},
            naming("a") | {"properties": [{"name": "a"}]},
            (B, C),
        ),
        (
            field("object", minProperties=1) | {"properties": [{"name": "a"}, {"name": "b"}]},
            field("object", minProperties=2) | {"properties": [{"name": "a"}, {"name": "b"}]},
            (B, C),
        ),
        (naming("a"), naming("a", "b"), (B, C)),
        (field(None) | {"properties": [{"name": "a"}]}, field("object") | {"properties": [{"name": "a"}]}, (C, C)),
        (field("integer") | {"unique": True}, field("number") | {"unique": True}, (U, B)),
        (field("string") | {"primaryKey": True}, field("string") | {"unique": True}, (C, C)),
        (
            field("string", required=False) | {"unique": True},
            field("string", required=False) | {"primaryKey": True},
            (B, C),
        ),
        (field("array") | {"items": items | {"unique": True}}, field("array") | {"items": items}, (U, U)),
    ],
)
def test_what_a_change_of_one_property_means(
    old: dict[str, Any], new: dict[str, Any], effects: tuple[str, str]
) -> None:
    assert between(old, new) == effects


def test_readers_that_ignore_fields_still_count_those_they_know() -> None:
    old = field("object", minProperties=1) | {"properties": [{"name": "a"}]}
    new = field("object", minProperties=1) | {"properties": [{"name": "a"}, {"name": "b"}]}
    assert between(old, new) == (C, B)
    assert between(old, new, tolerant_readers=True) == (C, U)
    plain = [{key: each for key, each in version.items() if key != "logicalTypeOptions"} for version in (old, new)]
    assert between(*plain, tolerant_readers=True) == (C, C)


def test_a_quality_rule_is_followed_by_its_id_name_or_measure() -> None:
    rows = {"metric": "duplicateValues", "mustBeLessThan": 5}
    for key in ({"id": "d"}, {"name": "d"}, {}):
        old = field("string") | {"quality": [rows | key]}
        assert between(old, field("string") | {"quality": [rows | key | {"mustBeLessThan": 6}]}) == (C, B)
        assert between(old, field("string") | {"quality": [rows | key | {"description": "why"}]}) == (C, C)
        assert between(old, field("string")) == (C, B)


@pytest.mark.parametrize(
    ("rule", "effects"),
    [
        ({"metric": "nullValues", "mustBe": 0}, (C, C)),
        ({"metric": "nullValues", "mustBeGreaterThan": 0}, (B, C)),
        ({"metric": "invalidValues", "arguments": {"validValues": ["a", "b", "c"]}, "mustBeLessThan": 5}, (C, C)),
        ({"metric": "invalidValues", "arguments": {"validValues": ["a"]}, "mustBeLessThan": 5}, (B, C)),
        ({"metric": "invalidValues", "arguments": {"pattern": "^[a-c]$"}, "mustBeLessThan": 5}, (C, C)),
        ({"metric": "missingValues", "arguments": {"missingValues": ["-"]}, "mustBe": 0}, (U, C)),
        ({"type": "custom", "engine": "e", "implementation": "x"}, (U, C)),
        ({"type": "text", "description": "be good"}, (U, C)),
    ],
)
def test_a_rule_about_many_records_is_added(rule: dict[str, Any], effects: tuple[str, str]) -> None:
    old = listing("string", "a", "b")
    assert between(old, old | {"quality": [*old["quality"], rule]}) == effects


@pytest.mark.parametrize(
    ("before", "after", "effects"),
    [
        ({"mustBeLessThan": 5}, {"mustBeLessOrEqualTo": 4}, (C, C)),  # counts are whole
        ({"mustBeLessThan": 5, "unit": "percent"}, {"mustBeLessOrEqualTo": 4, "unit": "percent"}, (B, C)),
        ({"mustBeBetween": [1, 5]}, {"mustBeBetween": [0, 5]}, (C, B)),
        ({"mustBeBetween": [1, 3]}, {"mustBe": 2}, (C, C)),
        ({"mustNotBeBetween": [1, 5]}, {"mustNotBe": 3}, (C, B)),
        ({"mustBeGreaterThan": 5}, {"mustBeLessThan": 5}, (B, B)),
        ({"mustBe": 5}, {"mustBe": "5"}, (U, B)),
        ({"mustBeLessThan": 5}, {"mustBeLessThan": 5, "unit": "rows"}, (C, C)),
    ],
)
def test_thresholds_are_compared_by_what_they_allow(
    before: dict[str, Any], after: dict[str, Any], effects: tuple[str, str]
) -> None:
    rule = {"metric": "duplicateValues"}
    assert (
        between(field("string") | {"quality": [rule | before]}, field("string") | {"quality": [rule | after]})
        == effects
    )


# The step and the version


@pytest.mark.parametrize(
    ("old", "new", "step"),
    [
        (field("string"), field("string"), "none"),
        (field("string"), field("string") | {"description": "x"}, "patch"),
        (field("integer", format="u8"), field("integer", minimum=0, maximum=255), "minor"),
        (field("string"), field("string") | {"physicalType": "text"}, "major"),
        (field("string"), field("integer"), "major"),
    ],
)
def test_the_suggested_step_follows_from_the_worst_change(old: dict[str, Any], new: dict[str, Any], step: str) -> None:
    contracts = [contract_of([{"name": "it", **each}]) for each in (old, new)]
    assert contracts[0] is not None
    assert contracts[1] is not None
    assert suggested_step(compare_contracts(contracts[0], contracts[1])) == step


def test_versions_are_counted_as_semantic_versioning_does() -> None:
    assert [next_version("1.2.3", step) for step in ("none", "patch", "minor", "major")] == [
        None,
        "1.2.4",
        "1.3.0",
        "2.0.0",
    ]
    assert next_version("2024-01", "major") is None
    pairs = {
        ("1.2.3", "1.2.3"): "none",
        ("1.2.3", "1.2.5"): "patch",
        ("1.2.3", "1.4.0"): "minor",
        ("v1.2.3", "3.0.0"): "major",
    }
    assert {pair: taken_step(*pair) for pair in pairs} == pairs
    assert taken_step("1.2.3", "1.2.2") is None
    assert taken_step("one", "two") is None


def test_a_property_may_be_called_what_it_likes() -> None:
    old, new = (contract_of([{"name": 'a "b', **each}]) for each in (field("string"), field("integer")))
    assert old is None or new is not None
    for name in NAMES:
        contracts = [contract_of([{"name": name, **each}]) for each in (field("string"), field("integer"))]
        assert contracts[0] is not None
        assert contracts[1] is not None
        [change] = compare_contracts(contracts[0], contracts[1])
        assert change.path == name
