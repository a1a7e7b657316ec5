from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from capability.folders import AUTHORITY, CAPABILITY, CONTRACT, problems_of, read, write
from mainstay.capability import load
from mainstay.capability.load import Declared, load_capability
from mainstay.errors import Misuse

if TYPE_CHECKING:
    from pathlib import Path


def test_a_folder_that_agrees_is_read_and_compiled(tmp_path: Path) -> None:
    declared = load_capability(write(tmp_path))
    assert isinstance(declared, Declared)
    assert dataclasses.is_dataclass(declared)
    assert declared.folder == tmp_path
    assert declared.capability.api_version == "mainstay/v1"
    assert declared.authority == AUTHORITY.encode()
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
            '18 promise.positive: objects.outcome beside it, whose property it names | "late"',
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
        ("authority.cedar", '"authority.cedar", which is none'),
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


def test_without_policies_nothing_may_be_decided_and_the_problem_says_what_to_start_from(tmp_path: Path) -> None:
    folder = write(tmp_path)
    (folder / "authority.cedar").unlink()
    (problem,) = problems_of(folder)
    assert problem.startswith("capability.yaml:1 authority: Cedar policies in a file of the folder")
    assert problem.endswith('| "authority.cedar", which is none')
    assert "without any nothing may be decided" in problem
    assert [line.strip().partition(" ")[0] for line in problem.splitlines() if "permit" in line] == [
        '@id("answers-by-itself")',
        '@id("keys-and-people")',
    ]
    write(folder, CAPABILITY + "authority: policies/a.cedar\n")
    assert "capability.yaml:20 authority: " in problems_of(folder)[0]
    (folder / "policies").mkdir()
    (folder / "policies" / "a.cedar").write_bytes(b"// nobody may do anything\xff")
    assert load_capability(folder).authority == b"// nobody may do anything\xff", "what it says is for others to judge"


def test_policies_have_their_bound(tmp_path: Path) -> None:
    folder = write(tmp_path)
    (folder / "authority.cedar").write_bytes(b"/" * load.MAX_AUTHORITY_BYTES)
    assert problems_of(folder) == []
    (folder / "authority.cedar").write_bytes(b"/" * (load.MAX_AUTHORITY_BYTES + 1))
    assert problems_of(folder) == [
        "authority.cedar:1 the document: a readable file of at most 262144 bytes | a larger one"
    ]


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        ("predict.py:predict", ""),
        ("./model/../model/predict.py:predict", "a Python file of the folder and a function in it"),
        ("./predict.py:predict", ""),
        ("absent.py:predict", 'a file inside the folder | "absent.py", which is none'),
        (".venv/predict.py:predict", "a file that is kept in a version; those in hidden directories are not"),
        ("__pycache__/predict.py:predict", "a file that is kept in a version"),
        ("predict.py", "a Python file of the folder and a function in it"),
        ("predict.pkl:predict", "a Python file of the folder and a function in it"),
        (f"{'x' * 400}.py:predict", "a readable file | File name too long"),
    ],
)
def test_the_call_of_a_python_model_stands_in_a_file_of_the_folder(tmp_path: Path, call: str, problem: str) -> None:
    model = CAPABILITY[CAPABILITY.index("model:") : CAPABILITY.index("samples:")]
    folder = write(tmp_path, CAPABILITY.replace(model, f"model: {{kind: python, call: {call}}}\n"))
    for path in (folder / "predict.py", folder / ".venv" / "predict.py", folder / "__pycache__" / "predict.py"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("def predict(record): ...\n")
    found = problems_of(folder)
    assert len(found) == bool(problem)
    assert problem in "".join(found)


def test_the_reference_rows_stand_in_a_file_of_the_folder(tmp_path: Path) -> None:
    text = CAPABILITY + "reference: {file: reference.jsonl, label: late}\n"
    folder = write(tmp_path, text)
    assert problems_of(folder) == [
        'capability.yaml:20 reference.file: a file inside the folder | "reference.jsonl", which is none'
    ]
    (folder / "reference.jsonl").write_text("{}")
    assert problems_of(folder) == []


def test_a_contract_with_a_name_no_file_can_have_is_a_problem(tmp_path: Path) -> None:
    (problem,) = problems_of(write(tmp_path, CAPABILITY + f"contract: {'x' * 400}\n"))
    assert problem.startswith('capability.yaml:20 contract: a file inside the folder | "xxx')


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
