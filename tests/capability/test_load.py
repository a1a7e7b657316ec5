from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mainstay.capability import load
from mainstay.capability.load import Declared, load_capability
from mainstay.errors import InvalidDocument, Misuse

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mainstay.problems import Problem

    Change = Callable[[str], str]

CAPABILITY = """\
apiVersion: mainstay/v1
name: late-arrival
title: Will it be late?
purpose: To rebook.
owner: {team: Operations, contact: ops-control@example.com}
objects: {input: departure, output: prediction, outcome: arrival}
model:
  file: model/model.onnx
  kind: onnx
  features: [delay, carrier]
output:
  probability: {take: probability, of_class: 1}
  late: {take: threshold}
samples: samples.jsonl
fallback:
  - constant: {probability: 0.25, late: false}
promise:
  positive: late
  score: probability
"""
CONTRACT = """\
apiVersion: v3.1.0
kind: DataContract
id: c
version: 1.0.0
status: active
schema:
  - name: departure
    properties:
      - {name: carrier, logicalType: string, required: true}
      - {name: delay, logicalType: integer, required: true}
      - {name: at, logicalType: timestamp}
  - name: prediction
    properties:
      - name: probability
        logicalType: number
        required: true
        logicalTypeOptions: {minimum: 0, maximum: 1}
      - {name: late, logicalType: boolean, required: true}
  - name: arrival
    properties:
      - {name: late, logicalType: boolean, required: true}
      - {name: delay, logicalType: integer}
  - name: empty
"""


def write(folder: Path, capability: str = CAPABILITY, contract: str = CONTRACT) -> Path:
    (folder / "model").mkdir(parents=True, exist_ok=True)
    (folder / "model" / "model.onnx").write_bytes(b"onnx")
    (folder / "samples.jsonl").write_text("{}\n")
    (folder / "capability.yaml").write_text(capability)
    (folder / "contract.odcs.yaml").write_text(contract)
    return folder


def read(folder: Path) -> Declared | tuple[Problem, ...]:
    try:
        return load_capability(folder)
    except InvalidDocument as invalid:
        return invalid.problems


def problems_of(folder: Path) -> list[str]:
    """The problems of a folder as `file:line where: expected | found`."""
    found = read(folder)
    return [
        f"{each.file.removeprefix(f'{folder}/')}:{each.line} {each.where}: {each.expected} | {each.found}"
        for each in (() if isinstance(found, Declared) else found)
    ]


def test_a_folder_that_agrees_is_read_and_compiled(tmp_path: Path) -> None:
    declared = load_capability(write(tmp_path))
    assert isinstance(declared, Declared)
    assert dataclasses.is_dataclass(declared)
    assert declared.folder == tmp_path
    assert declared.capability.api_version == "mainstay/v1"
    assert declared.input.fields == ("carrier", "delay", "at")
    assert declared.output.fields == ("probability", "late")
    assert declared.outcome is not None
    assert declared.outcome.values(declared.outcome.decode(b'{"late": true}')) == (True, None)


def test_a_folder_without_an_outcome_has_none(tmp_path: Path) -> None:
    text = CAPABILITY.replace(", outcome: arrival", "").replace("  positive: late\n", "")
    assert load_capability(write(tmp_path, text)).outcome is None


def test_problems_of_both_files_are_told_together(tmp_path: Path) -> None:
    capability = CAPABILITY.replace("features: [delay, carrier]", "features: [delay, carier, at]").replace(
        "name: late-arrival", "name: late-arrival\ndeadline_ms: 0"
    )
    assert problems_of(write(tmp_path, capability, CONTRACT.replace("id: c", "idd: c"))) == [
        "capability.yaml:3 deadline_ms: a whole number, at least 1 and at most 600000 | 0",
        "contract.odcs.yaml:1 id: text | nothing",
        'contract.odcs.yaml:3 idd: a known key (did you mean "id"?) | "idd"',
    ]
    capability = capability.replace("deadline_ms: 0", "deadline_ms: 1")
    assert problems_of(write(tmp_path, capability, CONTRACT.replace("minimum: 0", "minimum: 2"))) == [
        'capability.yaml:11 model.features[1]: a property of the input departure (did you mean "carrier"?) | "carier"',
        (
            "capability.yaml:11 model.features[2]: features of logicalType string, integer, number, boolean; "
            "list those to "
            "use under features | at, which has logicalType timestamp"
        ),
        "contract.odcs.yaml:17 schema[1].properties[0].logicalTypeOptions.maximum: more than minimum, 2 | 1",
    ]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "input: departure",
            "input: departures",
            '6 objects.input: an object of the contract (did you mean "departure"?) | "departures"',
        ),
        (
            "output: prediction",
            "output: empty",
            '6 objects.output: an object with properties | "empty", which has none',
        ),
        (
            "  features: [delay, carrier]\n",
            "",
            (
                "7 model: features of logicalType string, integer, number, boolean; list those to use under features | "
                "at, which has logicalType timestamp"
            ),
        ),
        ("[delay, carrier]", "[delay, delay]", '10 model.features[1]: each feature once | "delay"'),
        (
            "  late: {take: threshold}\n",
            "",
            "11 output.late: how this property of the output comes from the model | nothing",
        ),
        (
            "{take: threshold}",
            "{take: value}",
            "13 output.late.take: value to fill a property of logicalType number | boolean",
        ),
        (
            "take: probability,",
            "take: label,",
            "12 output.probability.take: label to fill a property of logicalType string or integer or boolean | number",
        ),
        (
            "  late: {take: threshold}",
            "  late: {take: threshold}\n  lat: {take: value}",
            '14 output.lat: a property of the output prediction (did you mean "late"?) | "lat"',
        ),
        (
            "probability: 0.25",
            "probability: 1.25",
            "16 fallback[0].constant.probability: at most 1 (maximum) | 1.25",
        ),
        (
            "{probability: 0.25, late: false}",
            "{probability: 0}",
            "16 fallback[0].constant.late: a value (required) | nothing",
        ),
        (
            "positive: late",
            "positive: delay",
            "18 promise.positive: a property of logicalType boolean | delay, of integer",
        ),
        (
            "score: probability",
            "score: propability",
            '19 promise.score: a property of the output prediction (did you mean "probability"?) | "propability"',
        ),
        (
            ", outcome: arrival",
            "",
            '18 promise.positive: objects.outcome beside it, whose field it names | "late"',
        ),
        (
            "samples: samples.jsonl",
            "samples: sample.jsonl",
            '14 samples: a file inside the folder | "sample.jsonl", which is none',
        ),
        (
            "file: model/model.onnx",
            "file: model",
            '8 model.file: a file inside the folder | "model", which is none',
        ),
        (
            "file: model/model.onnx",
            "file: ../model.onnx",
            '8 model.file: a path inside the folder | "../model.onnx"',
        ),
        (
            "name: late-arrival",
            "name: late-arrival\ncontract: other.yaml",
            '3 contract: a file inside the folder | "other.yaml", which is none',
        ),
        ("apiVersion: mainstay/v1", "apiVersion: mainstay/v2", '1 apiVersion: "mainstay/v1" | "mainstay/v2"'),
    ],
)
def test_each_disagreement_is_told_where_it_stands(tmp_path: Path, old: str, new: str, problem: str) -> None:
    assert old in CAPABILITY
    found = problems_of(write(tmp_path, CAPABILITY.replace(old, new, 1)))
    assert f"capability.yaml:{problem}" in found
    assert len(found) <= 2


def test_a_folder_without_a_declaration_has_that_problem_and_those_of_its_contract(tmp_path: Path) -> None:
    folder = write(tmp_path, contract=CONTRACT.replace("id: c\n", ""))
    (folder / "capability.yaml").unlink()
    assert problems_of(folder) == [
        "capability.yaml:1 the document: a readable file of at most 1048576 bytes | no such file",
        "contract.odcs.yaml:1 id: text | nothing",
    ]


def test_an_empty_folder_is_told_what_it_lacks(tmp_path: Path) -> None:
    assert problems_of(tmp_path) == [
        "capability.yaml:1 the document: a readable file of at most 1048576 bytes | no such file"
    ]


def test_what_is_no_folder_is_misuse(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="found nothing"):
        load_capability(tmp_path / "none")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("capability.yaml", "a link that leaves it, or leads nowhere"),
        ("contract.odcs.yaml", '"contract.odcs.yaml", which is none'),
        ("model/model.onnx", '"model/model.onnx", which leads out of it or nowhere'),
        ("samples.jsonl", '"samples.jsonl", which leads out of it or nowhere'),
    ],
)
def test_a_link_that_leaves_the_folder_is_refused(tmp_path: Path, name: str, expected: str) -> None:
    outside = write(tmp_path / "outside")
    folder = write(tmp_path / "folder")
    (folder / name).unlink()
    (folder / name).symlink_to(outside / name)
    assert [problem.partition(" | ")[2] for problem in problems_of(folder)] == [expected]


def test_a_link_within_the_folder_is_followed_and_one_in_a_circle_refused(tmp_path: Path) -> None:
    folder = write(tmp_path)
    (folder / "samples.jsonl").rename(folder / "real.jsonl")
    (folder / "samples.jsonl").symlink_to("real.jsonl")
    assert problems_of(folder) == []
    (folder / "real.jsonl").unlink()
    (folder / "real.jsonl").symlink_to("samples.jsonl")
    assert len(problems_of(folder)) == 1


def test_files_beyond_their_bounds_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, CAPABILITY + "#" * load.MAX_DECLARATION_BYTES)
    assert problems_of(folder) == [
        "capability.yaml:1 the document: a readable file of at most 1048576 bytes | a larger one"
    ]
    write(folder)
    with (folder / "samples.jsonl").open("r+b") as file:
        file.truncate(load.MAX_SAMPLES_BYTES + 1)
    assert problems_of(folder) == ["capability.yaml:14 samples: a file of at most 67108864 bytes | 67108865 bytes"]


LINES = st.sampled_from((*CAPABILITY.splitlines(), *CONTRACT.splitlines(), "x: [", "  - &a {b: *a}", "\tx", "? y"))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_whatever_stands_in_the_files_there_are_problems_or_a_capability(tmp_path: Path, data: st.DataObject) -> None:
    def shuffle(text: str) -> str:
        lines = text.splitlines()
        for _ in range(data.draw(st.integers(0, 3))):
            at = data.draw(st.integers(0, len(lines) - 1))
            lines[at : at + data.draw(st.integers(0, 2))] = data.draw(st.lists(LINES, max_size=2))
        return "\n".join(lines)

    found = read(write(tmp_path, shuffle(CAPABILITY), shuffle(CONTRACT)))
    assert isinstance(found, Declared) or (found and all(len(each.found) <= 80 for each in found))
