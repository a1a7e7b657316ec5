from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta, Struct, field

from mainstay.documents import Place, Problems, plain, read_document
from mainstay.structs import read_struct


class Leaf(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    weight: Annotated[float, Meta(gt=0, le=10)] = 1.0
    colour: Literal["red", "green"] = "red"


class Tree(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    name: Annotated[str, Meta(pattern=r"^[a-z]+\Z", description="lower case letters")]
    api: str = field(default="x", name="API")
    tree_height: Annotated[int, Meta(ge=1)] | None = None
    first_leaf: Leaf | None = None
    leaves: Annotated[tuple[Leaf, ...], Meta(max_length=2)] = ()
    by_name: dict[Annotated[str, Meta(min_length=2)], Leaf] = {}
    children: tuple[Tree, ...] = ()
    either: str | int | bool | None = None
    open: Any = None
    numbers: list[int | float] = []
    forked: Leaf | tuple[Leaf, ...] | None = None


def read(text: str, *, null_is_absent: bool = True) -> tuple[Tree | None, list[str]]:
    problems = Problems()
    document = read_document(text.encode(), "file.yaml", problems)
    assert document is not None
    tree = read_struct(document, Tree, problems, null_is_absent=null_is_absent)
    return tree, [f"{each.line} {each.where}: {each.expected} | {each.found}" for each in sorted(problems.found)]


def test_a_document_becomes_the_type_with_names_as_they_are_encoded() -> None:
    tree, problems = read("""\
name: oak
API: v1
treeHeight: 3
firstLeaf: {weight: 2}
children: [{name: acorn, either: true}]
forked: [{colour: green}]
open: {x: [1, null]}
numbers: [1, 2.5]
""")
    assert problems == []
    assert tree == Tree(
        name="oak",
        api="v1",
        tree_height=3,
        first_leaf=Leaf(weight=2.0),
        children=(Tree(name="acorn", either=True),),
        forked=(Leaf(colour="green"),),
        open={"x": [1, None]},
        numbers=[1, 2.5],
    )
    assert tree.first_leaf is not None
    assert isinstance(tree.first_leaf.weight, float)


def test_every_problem_is_told_at_once() -> None:
    tree, problems = read("""\
name: Oak
treeHeight: 0
firstleaf: {}
leaves:
  - weight: 11
    colour: blue
  - heavy
  - {}
byName:
  x: {wait: 1}
children:
  - {}
either: [1]
numbers: [true]
forked: 7
""")
    assert tree is None
    assert problems == [
        '1 name: lower case letters | "Oak"',
        "2 treeHeight: a whole number, at least 1 | 0",
        '3 firstleaf: a known key (did you mean "firstLeaf"?) | "firstleaf"',
        "5 leaves: at most 2 items | 3",
        "5 leaves[0].weight: a number, above 0 and at most 10 | 11",
        '6 leaves[0].colour: "green" or "red" | "blue"',
        '7 leaves[1]: a mapping | "heavy"',
        '10 byName.x: as key at least 2 characters | "x"',
        '10 byName.x.wait: a known key (did you mean "weight"?) | "wait"',
        "12 children[0].name: lower case letters | nothing",
        "13 either: text or a whole number or true or false | a list",
        "14 numbers[0]: a whole number or a number | true",
        "15 forked: a mapping or a list | 7",
    ]


def test_an_unknown_key_that_resembles_none_is_answered_with_all() -> None:
    assert read("name: oak\nzzz: 1\n")[1] == [
        (
            "2 zzz: a known key: name, API, treeHeight, firstLeaf, leaves, byName, children, either, open, "
            "numbers, forked"
            ' | "zzz"'
        )
    ]


def test_null_stands_for_an_absent_key_only_where_that_is_said() -> None:
    assert read("name: oak\ntreeHeight:\n") == (Tree(name="oak"), [])
    assert read("name: oak\ntreeHeight:\n", null_is_absent=False)[1] == [
        "2 treeHeight: a whole number, or no such key | null"
    ]
    assert read("name: oak\nopen: null\n", null_is_absent=False) == (Tree(name="oak"), [])


def test_checks_see_every_place_also_where_no_type_could_be_made() -> None:
    problems = Problems()
    document = read_document(b"name: oak\nleaves: [{}, {weight: x}]\n", "file.yaml", problems)
    assert document is not None
    seen: list[tuple[str, Leaf | None]] = []

    def check(place: Place, leaf: Leaf | None) -> None:
        seen.append((place.where, leaf))
        if leaf is not None:
            place.add("something else", "this", "weight")

    assert read_struct(document, Tree, problems, checks={Leaf: check}) is None
    assert seen == [("leaves[0]", Leaf()), ("leaves[1]", None)]
    assert [each.where for each in problems.found] == ["leaves[0].weight", "leaves[1].weight"]


KEYS = [*(each.encode_name for each in msgspec.structs.fields(Tree)), "weight", "colour", "other"]
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 12),
    st.floats(-2, 12),
    st.sampled_from(("oak", "Oak", "red", "green", "")),
)
documents = st.recursive(
    scalars,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.sampled_from(KEYS), below, max_size=4),
    max_leaves=10,
)
leaves = st.fixed_dictionaries({}, optional={"weight": scalars, "colour": scalars, "other": scalars})
near = st.fixed_dictionaries(
    {"name": st.sampled_from(("oak", "Oak", 1))},
    optional={
        "treeHeight": scalars,
        "firstLeaf": leaves | scalars,
        "leaves": st.lists(leaves, max_size=3),
        "byName": st.dictionaries(st.sampled_from(("x", "xy")), leaves, max_size=2),
        "either": documents,
        "numbers": st.lists(scalars, max_size=2),
        "forked": leaves | st.lists(leaves, max_size=2) | scalars,
        "children": st.lists(st.fixed_dictionaries({"name": st.just("acorn")}, optional={"API": scalars}), max_size=2),
    },
)


@given(documents | near)
def test_a_type_is_made_exactly_where_msgspec_makes_it(tree: object) -> None:
    problems = Problems()
    document = read_document(msgspec.json.encode(tree), "file.yaml", problems)
    assert document is not None
    assert plain(document.root) == tree
    made = read_struct(document, Tree, problems)
    try:
        expected = msgspec.convert(tree, Tree)
    except msgspec.ValidationError:
        assert made is None
        assert problems
    else:
        assert made == expected
        assert not problems


@pytest.mark.parametrize("text", ["[]", "x", "", "1"])
def test_a_document_that_is_no_mapping_is_a_problem(text: str) -> None:
    assert len(read(text)[1]) == 1
