from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from contract.contracts import document, named_properties
from mainstay.contract.load import load_contract, parse_contract
from mainstay.contract.types import Contract, CustomProperty, Property, SchemaObject, Team
from mainstay.contract.writing import WIDTH, scalar, write_contract, write_yaml
from mainstay.documents import Problems, plain, read_document
from mainstay.errors import InvalidDocument
from shared_data import shared_data

texts = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.sampled_from(
        ("null", "yes", "1.5", "0x1f", "2024-01-01", "- a", "a: b", "a #b", "#c", "*x", "<<", "", " ", "'")
    ),
    st.text("ab \n#:-\t\u2028\xa0é😀", max_size=150),
    st.text("word ", min_size=90, max_size=300),
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**38), 10**38),
    st.floats(allow_nan=False, allow_infinity=False),
    texts.filter(lambda text: not text.startswith("TODO")),
)
trees = st.recursive(
    scalars,
    lambda below: st.one_of(st.lists(below, max_size=4), st.dictionaries(texts, below, max_size=4)),
    max_leaves=25,
)


def read_back(content: bytes) -> Any:
    problems = Problems()
    found = read_document(content, "made.yaml", problems)
    assert not problems.found, (problems.found, content.decode())
    assert found is not None
    return plain(found.root)


def read_or_none(content: bytes) -> Contract | None:
    try:
        return parse_contract(content, "given.yaml")
    except InvalidDocument:
        return None


def same(one: Any, other: Any) -> bool:
    """Equal, also in the kinds of numbers and in the order of keys."""
    return repr(one) == repr(other)


@given(st.dictionaries(texts, trees, min_size=1, max_size=5))
@settings(deadline=None)
def test_whatever_json_can_say_is_read_back_the_same(tree: dict[str, Any]) -> None:
    assert same(read_back(write_yaml(tree)), tree)


@given(tree=st.dictionaries(st.sampled_from("abc"), trees, min_size=1, max_size=3), text=st.text(max_size=300))
@settings(deadline=None)
def test_no_comment_changes_what_is_said(tree: dict[str, Any], text: str) -> None:
    paths = ["a", "b", "c", "a[0]", "a[1]", "b[0][0]", "c.a"]
    assert same(read_back(write_yaml(tree, dict.fromkeys(paths, text), top=text)), tree)


@given(named_properties(3))
@settings(deadline=None)
def test_a_contract_is_read_back_equal(fields: list[dict[str, Any]]) -> None:
    contract = read_or_none(document(fields))
    assume(contract is not None)
    assert contract is not None
    assert parse_contract(write_contract(contract), "made.yaml") == contract


def test_every_valid_contract_of_the_standard_is_read_back_equal() -> None:
    read = 0
    for path in sorted(shared_data("contracts").rglob("*.y*ml")):
        try:
            contract = load_contract(path)
        except InvalidDocument:
            continue
        assert parse_contract(write_contract(contract), path.name) == contract, path
        read += 1
    assert read > 30


def test_what_is_absent_is_left_out_and_what_is_empty_is_not() -> None:
    contract = Contract(
        api_version="v3.1.0",
        kind="DataContract",
        id="c",
        version="1.0.0",
        status="draft",
        team=Team(),
        custom_properties=(CustomProperty(property="nothing", value=None),),
    )
    assert write_contract(contract).decode() == (
        'apiVersion: v3.1.0\nkind: DataContract\nid: c\nversion: "1.0.0"\nstatus: draft\nteam: {}\n'
        "customProperties:\n  - { property: nothing, value: null }\n"
    )


def test_a_comment_stands_above_what_it_is_about_and_is_wrapped() -> None:
    declared = Property(name="age", logical_type="integer", required=True)
    contract = Contract(
        api_version="v3.1.0",
        kind="DataContract",
        id="c",
        version="1.0.0",
        status="draft",
        schema=(SchemaObject(name="person", properties=(declared,)),),
    )
    made = write_contract(contract, {"schema[0].properties[0]": "seen " * 40}, top="One\nTwo").decode()
    lines = made.splitlines()
    assert lines[:2] == ["# One", "# Two"]
    place = next(i for i, line in enumerate(lines) if "name: age" in line)
    assert lines[place - 1].startswith("      # seen")
    assert max(map(len, lines)) <= WIDTH
    assert parse_contract(made.encode(), "c.yaml") == contract


def test_words_that_yaml_once_took_for_booleans_are_quoted() -> None:
    assert [scalar(word) for word in ("yes", "No", "on", "null", "true", "1", "word", "two words")] == [
        '"yes"', '"No"', '"on"', '"null"', '"true"', '"1"', "word", "two words",
    ]  # fmt: skip  # one a line would fill a page


def test_what_json_cannot_say_is_refused() -> None:
    with pytest.raises(TypeError, match="expected what JSON can say, found set"):
        write_yaml({"a": {1}})


def test_the_rows_of_a_table_stand_each_on_one_line() -> None:
    rows = [["a", 1, "long words " * 12 + "end"], ["b", None, "x"]]
    made = write_yaml({"mapping": rows, "none": []}).decode().splitlines()
    assert made[0] == "mapping:"
    assert made[1].startswith("  - [a, 1, long words")
    assert made[2:] == ["  - [b, null, x]", "none: []"]
