"""Changes beside the records: servers, service levels, keys of the contract itself."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from contract.contracts import document
from mainstay.contract.difference import compare_contracts, facts, suggested_step
from mainstay.contract.load import parse_contract

HEAD: dict[str, Any] = msgspec.json.decode(document([{"name": "it", "logicalType": "string"}]))
SERVER = {"server": "main", "type": "kafka", "host": "a.example.com"}
B, C, U = "breaking", "compatible", "unknown"


def changes(old: dict[str, Any], new: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The place and the effects of every change, between contracts with these keys besides."""
    before, after = (parse_contract(msgspec.json.encode(HEAD | each), "contract.yaml") for each in (old, new))
    found = compare_contracts(before, after)
    assert facts(before, after, found)["changes"] == [
        {"place": each.place} | msgspec.to_builtins(each) for each in found
    ]
    return [(each.place, each.producers.effect, each.consumers.effect) for each in found]


def level(name: str, value: object, unit: str | None = None, **more: object) -> dict[str, Any]:
    return {"slaProperties": [{"property": name, "value": value, **({"unit": unit} if unit else {}), **more}]}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({}, {}, []),
        ({}, {"version": "2.0.0"}, []),
        ({}, {"id": "other"}, [("id", U, U)]),
        ({}, {"apiVersion": "v3.0.2"}, [("apiVersion", C, C)]),
        ({}, {"status": "active"}, [("status", C, C)]),
        ({}, {"status": "Retired"}, [("status", U, U)]),
        ({}, {"description": {"limitations": "x"}}, [("description.limitations", C, U)]),
        ({"description": {"purpose": "x"}}, {"description": {"purpose": "y"}}, [("description.purpose", C, C)]),
        (
            {"servers": [SERVER]},
            {"servers": [SERVER | {"server": "other"}]},
            [("servers[main]", B, B), ("servers[other]", C, C)],
        ),
        ({"servers": [SERVER]}, {"servers": [SERVER | {"description": "x"}]}, [("servers[main].description", C, C)]),
        ({"servers": [SERVER]}, {"servers": [SERVER | {"environment": "x"}]}, [("servers[main].environment", U, U)]),
        ({"servers": [SERVER]}, {"servers": [SERVER | {"format": "avro"}]}, [("servers[main].format", B, B)]),
        ({"roles": [{"role": "reader"}]}, {"roles": []}, [("roles", U, U)]),
        ({}, {"price": {"priceAmount": 3}}, [("price", C, U)]),
    ],
)
def test_a_change_beside_the_records(
    old: dict[str, Any], new: dict[str, Any], expected: list[tuple[str, str, str]]
) -> None:
    assert changes(old, new) == expected


@pytest.mark.parametrize(
    ("old", "new", "effects"),
    [
        (level("latency", 4, "h"), level("ly", 240, "minutes"), (C, C)),
        (level("latency", 4, "h"), level("latency", "PT3H"), (B, C)),
        (level("latency", 1, "month"), level("latency", 31, "d"), (U, U)),
        (level("latency", 4, "h"), level("latency", "soon"), (U, U)),
        (level("availability", 99, "percent"), level("availability", 99.9, "%"), (B, C)),
        (level("availability", 99, "percent"), level("availability", 99), (U, U)),
        (level("endOfLife", "2030-01-01"), level("el", "2031-01-01T00:00:00Z"), (B, C)),
        (level("generalAvailability", "2030-01-01"), level("generalAvailability", "2031-01-01"), (C, B)),
        (level("retention", 1, "y"), level("retention", 2, "y"), (U, U)),
        (level("frequency", 1, "d"), level("frequency", 1, "d", schedule="0 30 * * *"), (U, U)),
        (level("frequency", 1, "d"), level("frequency", 1, "d", description="x"), (C, C)),
        (level("throughput", 10, "rows/s"), level("throughput", 20, "rows/s"), (B, C)),
        (level("charm", 10), level("charm", 11), (U, U)),
        ({}, level("latency", 4, "h"), (B, C)),
        (level("latency", 4, "h"), {}, (C, B)),
    ],
)
def test_a_service_level_is_compared_by_what_it_promises(
    old: dict[str, Any], new: dict[str, Any], effects: tuple[str, str]
) -> None:
    found = changes(old, new)
    assert ([each[1:] for each in found] or [(C, C)]) == [effects]


def test_levels_of_other_elements_are_others() -> None:
    one, other = (level("latency", 4, "h", element=name)["slaProperties"] for name in ("thing.it", "thing.other"))
    assert changes({"slaProperties": one}, {"slaProperties": other}) == [
        ("slaProperties[latency of thing.it]", C, B),
        ("slaProperties[latency of thing.other]", B, C),
    ]
    assert changes({"slaProperties": one + one}, {"slaProperties": one}) == [
        ("slaProperties[latency of thing.it (2)]", C, B)
    ]


def test_an_object_under_another_name_is_hinted_at() -> None:
    table = HEAD["schema"][0] | {"physicalName": "tbl"}
    contracts = [
        parse_contract(msgspec.json.encode(HEAD | {"schema": [table | {"name": name}]}), "c") for name in ("one", "two")
    ]
    found = compare_contracts(*contracts)
    assert [(each.object, each.hint) for each in found] == [
        ("one", "is it now called two?"),
        ("two", "was it called one?"),
    ]
    assert suggested_step(found) == "major"


def test_keys_of_objects_and_rules_about_them_are_compared() -> None:
    table = HEAD["schema"][0]
    rows = {"id": "rows", "metric": "rowCount", "mustBeGreaterThan": 5}
    for more, expected in (
        ({"quality": [rows]}, [("thing.quality[rows]", B, C)]),
        ({"quality": [{"type": "sql", "query": "SELECT 1", "mustBe": 1}]}, [("thing.quality[0]", U, C)]),
        ({"physicalType": "view"}, [("thing.physicalType", U, U)]),
        ({"description": "x"}, [("thing.description", C, C)]),
        ({"logicalType": "object"}, [("thing.logicalType", C, C)]),
    ):
        assert changes({}, {"schema": [table | more]}) == expected


def test_the_parts_of_a_primary_key_are_told_in_their_order() -> None:
    def keyed(*names: str) -> dict[str, Any]:
        parts = [
            {"name": n, "logicalType": "string", "required": True}
            | ({"primaryKey": True, "primaryKeyPosition": names.index(n) + 1} if n in names else {})
            for n in ("a", "b")
        ]
        return {"schema": [{"name": "thing", "properties": parts}]}

    assert changes(keyed("a", "b"), keyed("b", "a")) == [("thing.primaryKeyPosition", C, C)]
    assert changes(keyed("a"), keyed("a", "b")) == [("thing.primaryKey", C, B)]
    assert changes(keyed("a"), keyed("b")) == [("thing.primaryKey", B, B)]
    assert changes(keyed(), keyed("b")) == [("thing.primaryKey", B, C)]


def test_keys_in_objects_count_and_keys_in_arrays_are_left_open() -> None:
    def nested(kind: str, **more: object) -> dict[str, Any]:
        inner = {"name": "n", "logicalType": "string", "required": True, **more}
        below: dict[str, Any] = {"logicalType": "object", "properties": [inner]}
        outer = below if kind == "object" else {"logicalType": "array", "items": below}
        return {"schema": [{"name": "thing", "properties": [{"name": "o", "required": True, **outer}]}]}

    assert changes(nested("object"), nested("object", unique=True)) == [("thing.o.n.unique", B, C)]
    assert changes(nested("object", unique=True), nested("object", primaryKey=True)) == [
        ("thing.primaryKey", C, C),
        ("thing.o.n.unique", C, C),
    ]
    assert changes(nested("array"), nested("array", unique=True)) == [("thing.o[].n.unique", U, U)]
