from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mainstay.documents import (
    MAX_BYTES,
    MAX_NODES,
    MAX_PROBLEMS,
    OPEN_QUESTION,
    Place,
    Problems,
    nearest,
    plain,
    read_bytes,
    read_document,
    shorten,
)
from mainstay.errors import InvalidDocument

if TYPE_CHECKING:
    from pathlib import Path


def read(text: str | bytes) -> tuple[Any, list[str]]:
    """What stands in a document, and its problems as `line where: expected | found`."""
    problems = Problems()
    document = read_document(text if isinstance(text, bytes) else text.encode(), "file.yaml", problems)
    told = [f"{each.line} {each.where}: {each.expected} | {each.found}" for each in problems.found]
    return (plain(document.root) if document else None), told


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("true", True),
        ("False", False),
        ("yes", "yes"),
        ("on", "on"),
        ("null", None),
        ("~", None),
        ("", None),
        ("12", 12),
        ("-012", -12),
        ("0o17", 15),
        ("0xff", 255),
        ("1_000", "1_000"),
        ("12:30:45", "12:30:45"),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("2024-01-31", "2024-01-31"),
        ("2024-01-31T10:00:00Z", "2024-01-31T10:00:00Z"),
        ('"12"', "12"),
        ("'true'", "true"),
        ("=", "="),
    ],
)
def test_scalars_mean_what_the_core_schema_says(text: str, meaning: object) -> None:
    found, problems = read(text)
    assert problems == []
    assert found == meaning
    assert type(found) is type(meaning)


def test_every_problem_of_a_document_is_told_with_its_line_and_place() -> None:
    found, problems = read("""\
a: 1
b:
  - x
  - c: .nan
    c: 2
a: 3
<<: {x: y}
1: 2
t: !!str x
? [k]
: v
e: *missing
""")
    assert problems == [
        "4 b[1].c: a finite number of at most 40 digits, or quotes around it | .nan",
        "5 b[1].c: each key once (line 4) | it again",
        "6 a: each key once (line 1) | it again",
        "7 the document: the keys themselves, no merge key | <<",
        "8 the document: a string as key | 1",
        "9 t: no tag | tag:yaml.org,2002:str",
        "10 the document: a string as key | a list",
        "12 e: an alias of something above it | *missing",
    ]
    assert found == {"a": 1, "b": ["x", {"c": None}], "t": None, "e": None}


def test_an_alias_stands_for_what_it_names() -> None:
    assert read("a: &x [1, {b: 2}]\nc: *x\n") == ({"a": [1, {"b": 2}], "c": [1, {"b": 2}]}, [])


def test_an_alias_inside_what_it_names_is_refused() -> None:
    assert read("&x [1, *x]")[1] == ["1 [1]: an alias of something outside itself | *x"]


def test_a_billion_laughs_are_refused_before_they_are_laughed() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    found, problems = read("\n".join(lines))
    assert found is None
    assert len(problems) == 1
    assert problems[0].endswith(f"at most {MAX_NODES} values, aliases written out | more")


@pytest.mark.parametrize(
    "text", ["[" * 65, "- " * 65 + "x", "a: &x " + "[" * 40 + "]" * 40 + "\nb: " + "[" * 30 + "*x"]
)
def test_a_document_nested_too_deeply_is_refused(text: str) -> None:
    found, problems = read(text)
    assert found is None
    assert "at most 64 levels" in problems[0]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"a: [", "2 the document: YAML | did not find expected node content"),
        (b"a: b\nc: \xff", "2 the document: UTF-8 | byte 0xff at offset 8"),
        (b"a: b\n--- c", "2 the document: one document | another one"),
        (b"n: " + b"1" * 5000, None),
        (b"n: 1e999", "1 n: a finite number, or quotes around it | 1e999"),
        (b"a: \x01", None),
        (b'a: "\\ud800"', None),
        (b" " * (MAX_BYTES + 1), f"1 the document: at most {MAX_BYTES} bytes | {MAX_BYTES + 1} bytes"),
    ],
)
def test_what_is_no_yaml_is_one_problem(content: bytes, problem: str | None) -> None:
    _, problems = read(content)
    assert len(problems) == 1
    assert problem is None or problems == [problem]


@given(st.one_of(st.binary(max_size=60), st.text("abc:-[]{}&*!|>%@`\"'\\#?, \n\t01.~<u", max_size=40).map(str.encode)))
def test_any_bytes_are_read_or_have_a_problem(content: bytes) -> None:
    problems = Problems()
    document = read_document(content, "file.yaml", problems)
    assert document is not None or problems
    assert all(len(each.found) <= 80 and each.line >= 1 for each in problems.found)


trees = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(10**39), 10**39), st.floats(allow_nan=False, allow_infinity=False)
    )
    # PyYAML writes a next-line character as it is, and reads a line break in it
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x85"), max_size=8),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(st.text("abc<=yn1~ ", max_size=3), below, max_size=4),
    max_leaves=12,
)


@given(trees)
def test_what_was_written_is_what_is_read(tree: object) -> None:
    found, problems = read(yaml.safe_dump(tree, allow_unicode=True))
    assert (found, problems) == (tree, [])


def test_a_place_below_what_exists_has_the_line_of_the_nearest_above() -> None:
    problems = Problems()
    document = read_document(b"a:\n  b:\n    - 1\n    - 2\n", "file.yaml", problems)
    assert document is not None
    place = Place("file.yaml", document.root, "", problems)
    place.add("x", "y", "a", "b", 1)
    place.add("x", "y", "a", "b", 7, "c")
    place.add("x", "y", "nowhere")
    assert [(each.line, each.where) for each in problems.found] == [(4, "a.b[1]"), (2, "a.b[7].c"), (1, "nowhere")]


def test_problems_are_raised_sorted_once_each_and_no_more_than_a_thousand() -> None:
    problems = Problems()
    for line in range(MAX_PROBLEMS + 5, 0, -1):
        problems.add("b.yaml", line, "w", "e", "f")
    problems.found[-1] = problems.found[-2]
    with pytest.raises(InvalidDocument) as raised:
        problems.raise_any()
    assert len(raised.value.problems) == MAX_PROBLEMS - 1
    assert list(raised.value.problems) == sorted(raised.value.problems)


def test_a_file_that_is_absent_a_directory_or_too_large_is_a_problem(tmp_path: Path) -> None:
    problems = Problems()
    (tmp_path / "large").write_bytes(b"12345")
    assert read_bytes(tmp_path / "absent", "absent", problems) is None
    assert read_bytes(tmp_path, "directory", problems) is None
    assert read_bytes(tmp_path / "large", "large", problems, 4) is None
    assert read_bytes(tmp_path / "large", "large", problems, 5) == b"12345"
    assert [each.found for each in problems.found] == ["no such file", "something else", "a larger one"]


def test_text_is_shown_on_one_line_and_cut() -> None:
    assert shorten("a\nb\u202ec") == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}c"
    assert shorten("x" * 81) == "x" * 79 + "…"
    assert shorten("x" * 80) == "x" * 80


def test_the_nearest_name_is_found_whatever_its_case() -> None:
    assert nearest("Apiversion", ["kind", "apiVersion"]) == "apiVersion"
    assert nearest("zzz", ["kind", "apiVersion"]) is None
    assert nearest("k" * 5000, ["k" * 5000]) is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('a: "@: which team?"', ["1 a: an answer to: which team? | @"]),
        ("a: @", ["1 a: an answer | @"]),
        ("a: @ later", ["1 a: an answer to: later | @"]),
        ("a:\n  - b: |\n      @: one\n      or two?", ["2 a[0].b: an answer to: one or two? | @"]),
        ('a: ["@: which"]', ["1 a[0]: an answer to: which | @"]),
        ("a: [@, DOING]", []),
        ("a: @S", []),
        ("a: not @", []),
        ("@: 1", []),
    ],
)
def test_a_question_that_nobody_has_answered_is_a_problem(text: str, told: list[str]) -> None:
    asked = [each.replace("@", OPEN_QUESTION) for each in told]
    assert read(text.replace("@", OPEN_QUESTION))[1] == asked
