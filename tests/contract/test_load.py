from __future__ import annotations

import copy
import csv
import json
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mainstay.contract import standard
from mainstay.contract.load import load_contract, parse_contract
from mainstay.contract.types import Contract, Item, Property, Quality, SchemaObject, Server, Team
from mainstay.contract.validator import compile_object
from mainstay.documents import Problems, plain, read_document
from mainstay.errors import InvalidDocument
from mainstay.structs import read_struct
from shared_data import shared_data

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.problems import Problem

HEAD = "apiVersion: v3.1.0\nkind: DataContract\nid: c\nversion: 1.0.0\nstatus: draft\n"


def read(content: bytes) -> Contract | tuple[Problem, ...]:
    try:
        return parse_contract(content, "c.yaml")
    except InvalidDocument as invalid:
        return invalid.problems


def problems_of(text: str) -> list[str]:
    """The problems of a contract as `line where: expected | found`."""
    found = read(text.encode())
    problems = () if isinstance(found, Contract) else found
    return [f"{each.line} {each.where}: {each.expected} | {each.found}" for each in problems]


def accepts(path: Path) -> bool:
    try:
        load_contract(path)
    except InvalidDocument:
        return False
    return True


def test_contracts_written_by_others_are_accepted_exactly_where_the_standard_accepts_them() -> None:
    folder = shared_data("contracts")
    with (folder / "expected_schema_validation.csv").open(encoding="utf-8") as file:
        expected = {row["file"]: row["valid_odcs_3_1_0"] == "True" for row in csv.DictReader(file)}
    assert {name: accepts(folder / name) for name in expected} == expected


def test_the_fullest_example_of_the_standard_is_read_whole() -> None:
    contract = load_contract(shared_data("contracts", "bitol_examples", "all", "full-example.odcs.yaml"))
    assert contract.api_version == "v3.1.0"
    assert [each.name for each in contract.schema] == ["tbl", "receivers"]
    assert [each.name for each in contract.schema[0].properties][:2] == ["transaction_reference_date", "rcvr_id"]
    assert contract.schema[0].properties[1].primary_key_position == 1
    assert isinstance(contract.team, Team)
    assert contract.servers[0].type in {"postgresql", "snowflake", "postgres"}
    assert contract.sla_properties


def test_a_file_of_the_older_specification_is_told_to_be_one() -> None:
    text = "dataContractSpecification: 1.2.1\nid: x\ninfo: {title: t}\n"
    assert problems_of(text) == [
        (
            "1 dataContractSpecification: the Open Data Contract Standard (apiVersion: v3.1.0, kind: DataContract) | "
            'the older Data Contract Specification "1.2.1"'
        )
    ]


def test_a_contract_that_is_absent_is_a_problem(tmp_path: Path) -> None:
    with pytest.raises(InvalidDocument) as raised:
        load_contract(tmp_path / "none.yaml")
    assert raised.value.problems[0].found == "no such file"


def test_problems_of_every_sort_are_told_together() -> None:
    assert problems_of("""\
apiVersion: v2.2.2
kind: DataContract
id: 7
version: 1.0.0
statuz: draft
schema:
  - name: t
    properties:
      - name: a
        logicalType: int
      - name: b
        logicalType: integer
        logicalTypeOptions: {minimum: 5, maximum: 3, minLength: 1}
      - logicalType: string
        logicalTypeOptions: {pattern: "(", maximum: x}
      - name: b
team: none
""") == [
        '1 apiVersion: "v3.0.0", "v3.0.1", "v3.0.2" or "v3.1.0" | "v2.2.2"',
        "1 status: text | nothing",
        "3 id: text | 7",
        '5 statuz: a known key (did you mean "status"?) | "statuz"',
        (
            '10 schema[0].properties[0].logicalType: "array", "boolean", "date", "integer", "number", "object", '
            '"string", '
            '"time" or "timestamp" | "int"'
        ),
        "13 schema[0].properties[1].logicalTypeOptions.maximum: more than minimum, 5 | 3",
        (
            "13 schema[0].properties[1].logicalTypeOptions.minLength: an option of logicalType integer: "
            "multipleOf, format, "
            'minimum, maximum, exclusiveMinimum, exclusiveMaximum | "minLength"'
        ),
        "14 schema[0].properties[2].name: text | nothing",
        (
            "15 schema[0].properties[2].logicalTypeOptions.maximum: an option of logicalType string: minLength, "
            "maxLength, "
            'pattern, format | "maximum"'
        ),
        (
            "15 schema[0].properties[2].logicalTypeOptions.pattern: a regular expression (missing ), unterminated "
            'subpattern) | "("'
        ),
        '16 schema[0].properties[3].name: another name than that of the property on line 11 | "b"',
        '17 team: a mapping or a list | "none"',
    ]


@pytest.mark.parametrize("version", ["v3.0.0", "v3.0.1", "v3.0.2", "v3.1.0"])
def test_versions_three_of_the_standard_are_accepted(version: str) -> None:
    assert problems_of(HEAD.replace("v3.1.0", version)) == []


@given(st.binary(max_size=80) | st.text(max_size=60).map(lambda text: (HEAD + text).encode()))
def test_whatever_the_bytes_there_is_a_contract_or_there_are_problems(content: bytes) -> None:
    found = read(content)
    assert isinstance(found, Contract) or (found and all(len(each.found) <= 80 for each in found))


# What the schema of the standard says, and what we say without the checks that go beyond it.

STANDARD_ALONE: dict[type, Any] = {
    SchemaObject: standard.check_object,
    Property: standard.check_property,
    Item: standard.check_property,
    Quality: standard.check_quality,
    Server: standard.check_server,
}
OTHER_VALUES: tuple[Any, ...] = (
    None,
    True,
    7,
    -1,
    "x",
    "",
    [],
    {},
    ["x"],
    [{}],
    {"x": 1},
    "v3.0.1",
    "string",
    "object",
    "library",
    "api",
)


def conforms(tree: object) -> bool:
    problems = Problems()
    document = read_document(json.dumps(tree).encode(), "c.json", problems)
    assert document is not None
    made = read_struct(document, Contract, problems, checks=STANDARD_ALONE, null_is_absent=False)
    assert (made is None) == bool(problems)
    return made is not None


def compile_if_accepted(tree: object) -> None:
    """Whatever a contract says, it has problems or compiles."""
    try:
        contract = parse_contract(json.dumps(tree).encode(), "c.yaml")
    except InvalidDocument:
        return
    for each in contract.schema:
        compile_object(each).json_schema()


def spots(tree: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    below = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path, *(spot for key, value in below for spot in spots(value, (*path, key)))]


def test_changed_contracts_are_accepted_exactly_where_the_standards_schema_accepts_them() -> None:
    schema = json.loads(shared_data("contracts", "schema", "odcs-json-schema-v3.1.0.json").read_text("utf-8"))
    says = jsonschema.Draft201909Validator(schema)
    trees = [FULL, *(tree_of(path) for path in sorted(shared_data("contracts", "bitol_examples").glob("[!a]*/*.yaml")))]

    @settings(max_examples=300, deadline=None)
    @given(st.data())
    def compare(data: st.DataObject) -> None:
        tree = copy.deepcopy(data.draw(st.sampled_from(trees)))
        for _ in range(data.draw(st.integers(1, 2))):
            change(tree, data)
        assume(not beyond_comparison(tree))
        assert conforms(tree) == says.is_valid(tree)
        compile_if_accepted(tree)

    compare()


def tree_of(path: Path) -> Any:
    document = read_document(path.read_bytes(), path.name, Problems())
    assert document is not None
    return plain(document.root)


def change(tree: Any, data: st.DataObject) -> None:
    """Take away, replace or add one value somewhere."""
    path = data.draw(st.sampled_from(spots(tree)))
    target = tree
    for part in path[:-1]:
        target = target[part]
    if not path:
        return
    match data.draw(st.sampled_from(("take", "replace", "add"))):
        case "take":
            del target[path[-1]]
        case "replace":
            target[path[-1]] = copy.deepcopy(data.draw(st.sampled_from(OTHER_VALUES)))
        case "add" if isinstance(target[path[-1]], dict):
            key = data.draw(st.sampled_from(KEYS))
            target[path[-1]][key] = copy.deepcopy(data.draw(st.sampled_from(OTHER_VALUES)))


def beyond_comparison(tree: Any) -> bool:
    """Where we differ on purpose: versions before 3, and options of a boolean, for which the standard has no rule."""
    if isinstance(tree, dict):
        if tree.get("logicalType") == "boolean" and tree.get("logicalTypeOptions"):
            return True
        return any(map(beyond_comparison, tree.values()))
    return isinstance(tree, list) and any(map(beyond_comparison, tree))


FULL: dict[str, Any] = {
    "apiVersion": "v3.1.0",
    "kind": "DataContract",
    "id": "c",
    "version": "1",
    "status": "draft",
    "description": {"usage": "x", "anything": 1},
    "tags": ["x"],
    "servers": [
        {"server": "a", "type": "api", "location": "http://x"},
        {"server": "s", "type": "sftp", "location": "sftp://x", "format": "csv"},
        {"server": "p", "type": "postgres", "host": "h", "port": 1, "database": "d", "schema": "s"},
        {"server": "c", "type": "custom", "stream": "x"},
    ],
    "team": {"name": "t", "members": [{"username": "u", "dateIn": "2020-01-01"}]},
    "roles": [{"role": "r", "access": "read"}],
    "support": [{"channel": "c"}],
    "price": {"priceAmount": 1.5},
    "slaProperties": [{"property": "latency", "value": None, "valueExt": 1, "id": "x-1"}],
    "customProperties": [{"property": "p", "value": {"x": [1]}}],
    "schema": [
        {
            "name": "o",
            "logicalType": "object",
            "relationships": [{"from": "a.b", "to": "c.d"}, {"from": ["a.b"], "to": ["c.d"]}],
            "quality": [
                {"type": "sql", "query": "q", "mustBeBetween": [1, 2]},
                {"type": "custom", "engine": "e", "implementation": {"x": 1}},
                {"type": "text", "description": "d"},
                {"metric": "rowCount", "mustBe": None, "unit": "rows"},
            ],
            "properties": [
                {"name": "s", "logicalType": "string", "logicalTypeOptions": {"minLength": 1, "format": "x"}},
                {"name": "n", "logicalType": "number", "logicalTypeOptions": {"minimum": 1, "format": "f32"}},
                {"name": "i", "logicalType": "integer", "logicalTypeOptions": {"multipleOf": 2, "format": "u8"}},
                {"name": "d", "logicalType": "date", "logicalTypeOptions": {"minimum": "2020-01-01"}},
                {"name": "t", "logicalType": "time", "logicalTypeOptions": {"timezone": True}},
                {"name": "b", "logicalType": "boolean", "classification": "x", "examples": [1, None]},
                {"name": "u", "logicalTypeOptions": {}, "items": {}, "properties": []},
                {
                    "name": "a",
                    "logicalType": "array",
                    "logicalTypeOptions": {"uniqueItems": True},
                    "items": {"logicalType": "object", "properties": [{"name": "x", "relationships": [{"to": "a.b"}]}]},
                },
                {"name": "o", "logicalType": "object", "logicalTypeOptions": {"required": ["x"]}},
            ],
        }
    ],
}
KEYS = (
    *(
        "name",
        "type",
        "id",
        "from",
        "to",
        "properties",
        "items",
        "logicalType",
        "logicalTypeOptions",
        "metric",
        "query",
    ),
    *("mustBe", "engine", "rule", "arguments", "format", "minimum", "maximum", "minLength", "required", "uniqueItems"),
    *("port", "host", "path", "other", "relationships", "quality", "tags", "team", "valueExt", "schema", "timezone"),
)


def test_the_contract_that_is_changed_is_valid_unchanged() -> None:
    assert conforms(FULL)
