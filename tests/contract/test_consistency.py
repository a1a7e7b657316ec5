from __future__ import annotations

from typing import Any

import pytest

from contract.contracts import document
from mainstay.contract.load import parse_contract
from mainstay.errors import InvalidDocument


def problems_of(*fields: dict[str, Any]) -> list[str]:
    """What is wrong with properties called p0, p1, …: `where below the first: expected | found`."""
    named = [{"name": f"p{i}"} | field for i, field in enumerate(fields)]
    try:
        parse_contract(document(named), "c.yaml")
    except InvalidDocument as invalid:
        prefix = "schema[0].properties"
        return [f"{each.where.removeprefix(prefix)}: {each.expected} | {each.found}" for each in invalid.problems]
    return []


def options(kind: str, **given: object) -> dict[str, Any]:
    return {"logicalType": kind, "logicalTypeOptions": given}


@pytest.mark.parametrize(
    ("kind", "given", "is_wrong"),
    [
        ("integer", {"minimum": 3, "maximum": 3}, False),
        ("integer", {"minimum": 3, "maximum": 2}, True),
        ("integer", {"exclusiveMinimum": 3, "maximum": 3}, True),
        ("number", {"minimum": 0.5, "exclusiveMaximum": 0.5}, True),
        ("number", {"exclusiveMinimum": 0.5, "exclusiveMaximum": 0.6}, False),
        ("string", {"minLength": 3, "maxLength": 2}, True),
        ("array", {"minItems": 3, "maxItems": 2}, True),
        ("object", {"minProperties": 1, "maxProperties": 0}, True),
        ("date", {"minimum": "2024-01-02", "maximum": "2024-01-01"}, True),
        ("date", {"minimum": "2023-02-29"}, True),
        ("timestamp", {"minimum": "2024-01-01 00:00:00+02:00", "maximum": "2023-12-31T22:00:00Z"}, False),
        ("timestamp", {"minimum": "2024-01-01 00:00:00+02:00", "maximum": "2023-12-31T21:59:59Z"}, True),
        ("time", {"minimum": "12:00:00", "maximum": "11:00:00"}, True),
        ("string", {"pattern": "a{2,1}"}, True),
        ("string", {"pattern": "^[A-Z]{3}$"}, False),
        ("object", {"required": ["anything"]}, False),
    ],
)
def test_options_that_nothing_could_satisfy_are_a_problem(kind: str, given: dict[str, Any], is_wrong: bool) -> None:
    assert bool(problems_of(options(kind, **given))) == is_wrong


def test_names_stand_once_at_every_level() -> None:
    nested = {"logicalType": "object", "properties": [{"name": "x"}, {"name": "x"}]}
    in_items = {"logicalType": "array", "items": nested}
    assert problems_of({"name": "same"}, {"name": "same"}, nested, in_items) == [
        '[1].name: another name than that of the property on line 1 | "same"',
        '[2].properties[1].name: another name than that of the property on line 1 | "x"',
        '[3].items.properties[1].name: another name than that of the property on line 1 | "x"',
    ]


@pytest.mark.parametrize("name", ["", 'a"b', "a\\b", "a\nb", "x" * 257])
def test_names_that_no_record_could_be_searched_for_are_a_problem(name: str) -> None:
    assert len(problems_of({"name": name})) == 1


@pytest.mark.parametrize("name", ["class", "a b", "a-b", "é", "x" * 256, "f0", "__init__"])
def test_other_names_are_free(name: str) -> None:
    assert problems_of({"name": name}) == []


def test_required_names_stand_among_the_properties() -> None:
    field = options("object", required=["x", "y"]) | {"properties": [{"name": "x"}]}
    assert problems_of(field) == ['[0].logicalTypeOptions.required[1]: the name of a property | "y"']


def test_properties_and_items_together_need_a_type() -> None:
    field = {"properties": [{"name": "x"}], "items": {"logicalType": "string"}}
    assert problems_of(field) == [
        "[0].items: properties or items, or a logicalType to choose between them | both",
    ]


def test_arguments_of_invalid_values_are_checked() -> None:
    def listed(**arguments: object) -> dict[str, Any]:
        return {"quality": [{"metric": "invalidValues", "mustBe": 0, "arguments": arguments}]}

    place = "quality[0].arguments"
    assert problems_of(
        {"logicalType": "string"} | listed(validValues=["a"], pattern="^a"),
        {"logicalType": "string"} | listed(validValues="a", pattern="("),
        {"logicalType": "integer"} | listed(pattern="^1"),
        {"logicalType": "array"} | listed(validValues=[[1]]),
    ) == [
        f'[1].{place}.pattern: a regular expression (missing ), unterminated subpattern) | "("',
        f'[1].{place}.validValues: a list | "a"',
        f'[2].{place}.pattern: no such argument unless logicalType is string | "^1"',
        f"[3].{place}.validValues: no such argument unless the values are scalars | a list",
    ]


def test_objects_have_different_names() -> None:
    text = document([]).replace(b'"schema":[', b'"schema":[{"name":"thing"},')
    with pytest.raises(InvalidDocument) as raised:
        parse_contract(text, "c.yaml")
    assert [each.where for each in raised.value.problems] == ["schema[1].name"]
