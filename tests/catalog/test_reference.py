"""Reading reference rows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.folders import onnx_folder
from mainstay.capability.load import Declared, load_capability
from mainstay.catalog import reference
from mainstay.catalog.reference import read_reference
from mainstay.errors import InvalidDocument, MainstayError, Misuse

if TYPE_CHECKING:
    from pathlib import Path

INPUT = {"a": 1.0, "b": 2.0, "c": 3.0}


@pytest.fixture(scope="module")
def declared(tmp_path_factory: pytest.TempPathFactory) -> Declared:
    return declare(tmp_path_factory.mktemp("reference") / "folder", {"file": "reference.jsonl", "label": "label"})


def declare(folder: Path, described: dict[str, Any]) -> Declared:
    onnx_folder(folder, b"", declared={"reference": described})
    (folder / "reference.jsonl").write_text("")
    return load_capability(folder)


def lines(*records: Any) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def test_inputs_are_rows_and_outcomes_give_their_label(declared: Declared) -> None:
    content = lines(
        {"input": INPUT, "outcome": {"label": "yes", "minutes": 3}},
        {"input": INPUT},
        {"input": INPUT, "outcome": None},
        {"input": INPUT, "outcome": {"minutes": 3}},
    )
    found = read_reference(b"\n" + content, "r.jsonl", declared)
    assert found.inputs == [(1.0, 2.0, 3.0)] * 4
    assert found.labels == ["yes", None, None, None]


def test_without_a_label_outcomes_are_checked_all_the_same(tmp_path: Path) -> None:
    unlabelled = declare(tmp_path / "folder", {"file": "reference.jsonl"})
    assert read_reference(lines({"input": INPUT, "outcome": {"label": "yes"}}), "r", unlabelled).labels == [None]
    with pytest.raises(InvalidDocument, match=r"outcome\.label"):
        read_reference(lines({"input": INPUT, "outcome": {"label": 7}}), "r", unlabelled)


def test_every_line_that_breaks_a_contract_is_listed(declared: Declared) -> None:
    content = lines(
        {"input": INPUT},
        {"input": {"a": "x", "b": 1}, "outcome": {"label": 3}},
        {"outcome": {}},
        {"input": INPUT, "results": {}},
        {"input": INPUT, "outcome": []},
    )
    with pytest.raises(InvalidDocument) as caught:
        read_reference(content, "r.jsonl", declared)
    found = [(each.line, each.where) for each in caught.value.problems]
    assert found == [(2, "input.a"), (2, "input.c"), (2, "outcome.label"), (3, "$"), (4, "$"), (5, "outcome.$")]


def test_an_outcome_needs_a_description(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    declare(folder, {"file": "reference.jsonl"})
    path = folder / "capability.yaml"
    path.write_text(path.read_text().replace(", outcome: truth", ""))
    with pytest.raises(InvalidDocument, match=r"outcome: expected objects\.outcome in capability\.yaml"):
        read_reference(lines({"input": INPUT, "outcome": {"label": "yes"}}), "r", load_capability(folder))


def test_rows_are_counted(declared: Declared, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Misuse, match="expected at least one row"):
        read_reference(b"\n\n", "r", declared)
    monkeypatch.setattr(reference, "MAX_REFERENCE_ROWS", 2)
    read_reference(lines(*[{"input": INPUT}] * 2), "r", declared)
    with pytest.raises(Misuse, match="expected at most 2 rows"):
        read_reference(lines(*[{"input": INPUT}] * 3), "r", declared)


@given(content=st.one_of(st.binary(max_size=200), st.text(alphabet='{}[]":,inputoc1e-', max_size=80).map(str.encode)))
def test_whatever_stands_there_is_read_or_refused(declared: Declared, content: bytes) -> None:
    try:
        read_reference(content, "r", declared)
    except MainstayError:
        return


def test_nesting_without_end_is_refused(declared: Declared) -> None:
    deep = b"[" * 100_000
    for content in (deep, b'{"input": ' + deep, b'{"input": {"a": ' + deep):
        with pytest.raises(InvalidDocument):
            read_reference(content, "r", declared)
