"""Every row of the table in `docs/reference/contract-changes.md` is what `compare_contracts` says of such a change."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from contract.contracts import document
from mainstay.contract.difference import compare_contracts, overall
from mainstay.contract.difference_keys import CONTRACT_KEYS, DESCRIPTION_KEYS, KEYS, OBJECT_KEYS
from mainstay.contract.difference_terms import BETTER
from mainstay.contract.load import parse_contract

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "reference" / "contract-changes.md"


def of(kind: str, *, required: bool = True, **options: object) -> dict[str, Any]:
    return {"logicalType": kind, "required": required, "logicalTypeOptions": options}


def listed(*values: object, kind: str = "string") -> dict[str, Any]:
    check = {"metric": "invalidValues", "arguments": {"validValues": list(values)}, "mustBe": 0}
    return of(kind) | {"quality": [check]}


def ruled(**rule: object) -> dict[str, Any]:
    return of("string", required=False) | {"quality": [rule]}


NULLS: Final = {"metric": "nullValues", "unit": "percent"}
TEXT: Final = of("string")
KEPT: Final = {"kept": of("integer")}

# By the words of the table: the properties before and after.
FIELDS: Final[dict[str, tuple[dict[str, Any], dict[str, Any]]]] = {
    "a required property is added": (KEPT, KEPT | {"it": TEXT}),
    "an optional property is added": (KEPT, KEPT | {"it": of("string", required=False)}),
    "a required property is removed": (KEPT | {"it": TEXT}, KEPT),
    "an optional property is removed": (KEPT | {"it": of("string", required=False)}, KEPT),
    "a required property is renamed": ({"it": TEXT}, {"other": TEXT}),
    "a property becomes required": ({"it": of("string", required=False)}, {"it": TEXT}),
    "a property is no longer required": ({"it": TEXT}, {"it": of("string", required=False)}),
    "integer becomes number": ({"it": of("integer")}, {"it": of("number")}),
    "date, timestamp or time becomes string": ({"it": of("date")}, {"it": TEXT}),
    "any other change of type": ({"it": TEXT}, {"it": of("integer")}),
    "a type is given where there was none": ({"it": {"required": True}}, {"it": TEXT}),
    "bounds or lengths are narrowed": ({"it": of("integer", minimum=0)}, {"it": of("integer", minimum=1)}),
    "bounds or lengths are widened": ({"it": of("string", maxLength=3)}, {"it": of("string", maxLength=4)}),
    "multipleOf becomes a multiple of what it was": (
        {"it": of("number", multipleOf=0.1)},
        {"it": of("number", multipleOf=0.5)},
    ),
    "multipleOf becomes neither a multiple nor a divisor of what it was": (
        {"it": of("integer", multipleOf=4)},
        {"it": of("integer", multipleOf=6)},
    ),
    "a value is added to a list of values": ({"it": listed("a")}, {"it": listed("a", "b")}),
    "a value is removed from a list of values": ({"it": listed("a", "b")}, {"it": listed("a")}),
    "a range becomes a list of all its values": (
        {"it": of("integer", minimum=1, maximum=3)},
        {"it": listed(1, 2, 3, kind="integer")},
    ),
    "a pattern is added": ({"it": TEXT}, {"it": of("string", pattern="^[A-Z]+$")}),
    "a pattern is removed": ({"it": of("string", pattern="^[A-Z]+$")}, {"it": TEXT}),
    "a pattern is added that every listed value matches": (
        {"it": listed("EWR", "JFK")},
        {"it": listed("EWR", "JFK") | {"logicalTypeOptions": {"pattern": "^[A-Z]{3}$"}}},
    ),
    "a pattern becomes another one, and no text is found that tells them apart": (
        {"it": of("string", pattern="^(?=A)[A-Z]+$")},
        {"it": of("string", pattern="^A[A-Z]*$")},
    ),
    "a format that is enforced is added": ({"it": TEXT}, {"it": of("string", format="uuid")}),
    "a format that only describes is added": ({"it": TEXT}, {"it": of("string", format="iban")}),
    "a timestamp loses its offset": ({"it": of("timestamp")}, {"it": of("timestamp", timezone=False)}),
    "a time must have an offset": ({"it": of("time")}, {"it": of("time", timezone=True)}),
    "uniqueItems is added": ({"it": of("array")}, {"it": of("array", uniqueItems=True)}),
    "a property becomes unique": ({"it": TEXT}, {"it": TEXT | {"unique": True}}),
    "a required property becomes the primary key": ({"it": TEXT}, {"it": TEXT | {"primaryKey": True}}),
    "the primary key takes one more required property": (
        {"it": TEXT | {"primaryKey": True}, "other": TEXT},
        {"it": TEXT | {"primaryKey": True}, "other": TEXT | {"primaryKey": True}},
    ),
    "a property is classified": ({"it": TEXT}, {"it": TEXT | {"classification": "confidential"}}),
    "a property is classified no more": ({"it": TEXT | {"classification": "confidential"}}, {"it": TEXT}),
    "a threshold of a quality rule is tightened": (
        {"it": ruled(**NULLS, mustBeLessThan=5)},
        {"it": ruled(**NULLS, mustBeLessThan=4)},
    ),
    "a threshold of a quality rule is loosened": (
        {"it": ruled(**NULLS, mustBeLessThan=5)},
        {"it": ruled(**NULLS, mustBeLessOrEqualTo=5)},
    ),
    "a quality rule in SQL is added": (
        {"it": of("string", required=False)},
        {"it": ruled(type="sql", query="SELECT count(*) FROM ${table}", mustBeGreaterThan=1)},
    ),
    "a quality rule for people is added": (
        {"it": of("string", required=False)},
        {"it": ruled(type="text", description="x")},
    ),
}
HEAD: Final[dict[str, Any]] = msgspec.json.decode(document([{"name": "it", "logicalType": "string"}]))
OBJECT: Final = HEAD["schema"][0]
SERVER: Final = {"server": "main", "type": "kafka", "host": "a.example.com"}
LATENCY: Final = {"property": "latency", "value": 4, "unit": "h", "element": "thing.it"}

# Keys of the contract before and after.
TERMS: Final[dict[str, tuple[dict[str, Any], dict[str, Any]]]] = {
    "an object is added": ({}, {"schema": [OBJECT, OBJECT | {"name": "more"}]}),
    "an object is removed": ({"schema": [OBJECT, OBJECT | {"name": "more"}]}, {}),
    "a server is added": ({}, {"servers": [SERVER]}),
    "a server is removed, or moves": ({"servers": [SERVER]}, {"servers": [SERVER | {"host": "b.example.com"}]}),
    "a service level is raised": (
        {"slaProperties": [LATENCY]},
        {"slaProperties": [LATENCY | {"value": 60, "unit": "min"}]},
    ),
    "a service level is lowered": (
        {"slaProperties": [LATENCY]},
        {"slaProperties": [LATENCY | {"value": 1, "unit": "d"}]},
    ),
    "retention becomes another": (
        {"slaProperties": [LATENCY | {"property": "retention"}]},
        {"slaProperties": [LATENCY | {"property": "re", "value": 5}]},
    ),
    "the status becomes deprecated or retired": ({}, {"status": "deprecated"}),
}


def table() -> dict[str, tuple[str, ...]]:
    text = PAGE.read_text("utf-8").partition("| change |")[2]
    rows = re.findall(r"^\| ([^|`]+) \| (\w+) \| (\w+) \| (\w+) \|$", text, re.MULTILINE)
    return {row[0]: row[1:] for row in rows}


def contracts(label: str) -> tuple[bytes, bytes]:
    if label in TERMS:
        old, new = (msgspec.json.encode(HEAD | keys) for keys in TERMS[label])
        return old, new
    old, new = (document([{"name": name, **each} for name, each in fields.items()]) for fields in FIELDS[label])
    return old, new


def test_the_table_has_a_row_for_every_case() -> None:
    assert list(table()) == [*FIELDS, *TERMS]


@pytest.mark.parametrize("label", [*FIELDS, *TERMS])
def test_a_row_says_what_such_a_change_is_called(label: str) -> None:
    old, new = (parse_contract(each, "contract.yaml") for each in contracts(label))
    strict = compare_contracts(old, new)
    tolerant = compare_contracts(old, new, tolerant_readers=True)
    found = overall(strict, ["producers"]), overall(strict, ["consumers"]), overall(tolerant, ["consumers"])
    assert strict
    assert found == table()[label]


def test_the_page_lists_the_keys_that_mean_the_same_wherever_they_stand() -> None:
    rows = re.findall(r"^\| (`[^|]+`) \| (\w+) \| (\w+) \|$", PAGE.read_text("utf-8"), re.MULTILINE)
    shown = {key: row[1:] for row in rows for key in re.findall(r"`([^`]+)`", row[0])}
    pairs = CONTRACT_KEYS | DESCRIPTION_KEYS | KEYS | OBJECT_KEYS
    pairs = {key: pair for key, pair in pairs.items() if key not in {"logicalType", "id"}}
    assert shown == {key: tuple(each.effect for each in pair.verdicts) for key, pair in pairs.items()}


def test_the_page_says_which_service_levels_compare() -> None:
    text = PAGE.read_text("utf-8")
    more, less = (re.search(rf"{words}: ([^.]+)\.", text) for words in ("more is better", "less is better"))
    assert more is not None
    assert less is not None
    said = {name: sign for found, sign in ((more, 1), (less, -1)) for name in re.findall(r"`(\w+)`", found[1])}
    assert said == BETTER
