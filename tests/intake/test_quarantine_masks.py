from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from mainstay.contract.types import SchemaObject
from mainstay.intake.quarantine_masks import Masks, read_record

if TYPE_CHECKING:
    from collections.abc import Sequence


def described(properties: Sequence[dict[str, Any]]) -> SchemaObject:
    return msgspec.convert({"name": "row", "properties": list(properties)}, SchemaObject)


OPEN = described([{"name": "a", "logicalType": "integer"}, {"name": "b", "logicalType": "string"}])
CLASSIFIED = described(
    [
        {"name": "a", "logicalType": "integer", "classification": "internal"},
        {"name": "note", "logicalType": "string", "classification": "confidential"},
        {
            "name": "person",
            "logicalType": "object",
            "properties": [
                {"name": "name", "logicalType": "string", "classification": "restricted"},
                {"name": "city", "logicalType": "string"},
            ],
        },
        {
            "name": "lines",
            "logicalType": "array",
            "items": {
                "logicalType": "object",
                "properties": [
                    {"name": "sku", "logicalType": "string"},
                    {"name": "to", "logicalType": "string", "classification": "restricted"},
                ],
            },
        },
    ]
)


def test_without_classified_fields_bytes_are_shown_as_they_came() -> None:
    masks = Masks(OPEN)
    assert masks.raw("jsonl", None, b'{"a": "x",\xff') == '{"a": "x",\\xff'
    assert masks.raw("csv", '[",","a"]', b"x\r\n") == "x"
    assert masks.found("a", '"x"') == '"x"'


def test_classified_values_are_masked_wherever_they_stand() -> None:
    raw = (
        b'{"a": "x", "note": "secret", "person": {"name": "Ann", "city": "Ulm"},'
        b' "lines": [{"sku": "1", "to": "Ann"}], "notes": "secret"}'
    )
    masks = Masks(CLASSIFIED)
    assert masks.raw("jsonl", None, raw) == (
        '{"a":"x","note":"(masked)","person":{"name":"(masked)","city":"Ulm"},'
        '"lines":[{"sku":"1","to":"(masked)"}],"notes":"(masked)"}'
    )
    assert Masks(CLASSIFIED, unmasked=True).raw("jsonl", None, raw) == raw.decode()


def test_a_value_of_another_shape_than_declared_is_masked_where_parts_of_it_are() -> None:
    masks = Masks(CLASSIFIED)
    assert masks.raw("jsonl", None, b'{"person": ["Ann"], "lines": {"to": "Ann"}, "a": {"name": "Ann"}}') == (
        '{"person":"(masked)","lines":"(masked)","a":"(masked)"}'
    )
    assert masks.raw("jsonl", None, b'{"person": null}') == '{"person":null}'
    assert masks.raw("jsonl", None, b'{"a": ') == "(masked)"
    assert masks.raw("csv", '[",","a","note"]', b"1,secret") == '{"a":"1","note":"(masked)"}'
    assert masks.raw("csv", '[",","a","note"]', b"1,secret,more") == "(masked)"


@pytest.mark.parametrize(
    ("field", "shown"),
    [
        ("a", True),
        ("note", False),
        ("person.city", True),
        ("person.name", False),
        ("lines[3].sku", True),
        ("lines[].to", False),
        ("unknown", False),
        ("$", True),
    ],
)
def test_what_was_found_is_masked_as_the_field_is(field: str, *, shown: bool) -> None:
    assert Masks(CLASSIFIED).found(field, "found") == ("found" if shown else "(masked)")


def test_nothing_is_shown_of_a_source_that_is_declared_no_more() -> None:
    masks = Masks(None)
    assert masks.hides
    assert masks.raw("jsonl", None, b'{"a": 1}') == "(masked)"
    assert masks.found("a", "1") == "(masked)"
    assert Masks(None, unmasked=True).raw("jsonl", None, b'{"a": 1}') == '{"a": 1}'


def test_a_record_is_read_as_its_kind_says() -> None:
    assert read_record("jsonl", None, b'{"a": 1}') == {"a": 1}
    assert read_record("jsonl", None, b"[1]") is None
    assert read_record("csv", '[";","a","b"]', b'1;"x;y"\r\n') == {"a": "1", "b": "x;y"}
    assert read_record("csv", '[";","a","b"]', b"1;\xff") is None
    assert read_record("csv", None, b"1;2") is None
