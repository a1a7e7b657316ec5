from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from capability.folders import CAPABILITY, CONTRACT, problems_of, write

if TYPE_CHECKING:
    from pathlib import Path

HEAD = CAPABILITY[: CAPABILITY.index("model:")]
SAMPLES = "samples: samples.jsonl\n"
FILE = "model: {kind: onnx, file: model/model.onnx, features: [delay]}\n"
OUTPUT = "output: {probability: {take: probability}, late: {take: threshold}}\n"
TENSORS = "output: {probability: {take: tensor}, late: {take: tensor, tensor: classes, column: 1}}\n"
PYTHON = "model: {kind: python, call: predict.py:predict}\n"
REMOTE = "model: {kind: remote, features: [delay], remote: {url: 'http://models.example.com', model: late}}\n"


def problems(folder: Path, *parts: str, contract: str = CONTRACT) -> list[str]:
    """The problems of a declaration made of these parts, without file and line."""
    (folder / "predict.py").write_text("def predict(record): ...\n")
    found = problems_of(write(folder, HEAD + SAMPLES + "".join(parts), contract))
    assert all(each.startswith("capability.yaml:") for each in found), found
    return [each.partition(" ")[2] for each in found]


@pytest.mark.parametrize(
    "parts",
    [
        (FILE, OUTPUT),
        (FILE.replace("kind: onnx,", "kind: sklearn, run: isolated, trusted_types: [a.B],"), OUTPUT),
        (FILE.replace("kind: onnx,", "kind: xgboost, run: isolated,"), OUTPUT),
        (FILE.replace("kind: onnx,", "kind: lightgbm,"), OUTPUT),
        (PYTHON,),
        (PYTHON.replace("python,", "python, run: isolated, confidence: probability,"), "min_confidence: 0.5\n"),
        (REMOTE,),
        (REMOTE, TENSORS),
        (REMOTE.replace("model: late", "model: late, input_tensor: x"),),
        (REMOTE.replace("remote,", "remote, confidence: probability,"), "min_confidence: 0.5\n"),
        (FILE, OUTPUT, "min_confidence: 0.5\n"),
        (FILE, OUTPUT, "when: {low_confidence: refuse}\n"),
        (FILE, OUTPUT, "deadline_ms: 50\nlimits: {run_ms: 50}\n"),
    ],
)
def test_what_fits_is_no_problem(tmp_path: Path, parts: tuple[str, ...]) -> None:
    assert problems(tmp_path, *parts) == []


@pytest.mark.parametrize("kind", ["onnx", "sklearn", "xgboost", "lightgbm"])
def test_a_model_of_a_file_has_a_file_and_neither_call_nor_remote(tmp_path: Path, kind: str) -> None:
    assert problems(tmp_path, f"model: {{kind: {kind}, features: [delay]}}\n", OUTPUT) == [
        f"model.file: this key, which kind {kind} needs | nothing"
    ]
    call = FILE.replace("kind: onnx,", f"kind: {kind}, call: predict.py:predict,")
    assert problems(tmp_path, call, OUTPUT) == [
        f'model.call: no such key with kind {kind}; it belongs to python | "predict.py:predict"'
    ]
    remote = FILE.replace("kind: onnx,", f"kind: {kind}, remote: {{url: 'http://models.example.com', model: late}},")
    assert problems(tmp_path, remote, OUTPUT) == [
        f"model.remote: no such key with kind {kind}; it belongs to remote | a mapping"
    ]
    confidence = FILE.replace("kind: onnx,", f"kind: {kind}, confidence: probability,")
    assert problems(tmp_path, confidence, OUTPUT) == [
        f'model.confidence: no such key with kind {kind}; it belongs to python, remote | "probability"'
    ]


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        (PYTHON.replace(", call: predict.py:predict", ""), "model.call: this key, which kind python needs | nothing"),
        (
            REMOTE.replace(", remote: {url: 'http://models.example.com', model: late}", ""),
            "model.remote: this key, which kind remote needs | nothing",
        ),
        (
            PYTHON.replace("python,", "python, file: model/model.onnx,"),
            (
                "model.file: no such key with kind python; it belongs to onnx, sklearn, xgboost, lightgbm "
                '| "model/model.onnx"'
            ),
        ),
        (
            PYTHON.replace("python,", "python, features: [delay],"),
            (
                "model.features: no such key with kind python; it belongs to onnx, sklearn, xgboost, lightgbm, remote "
                "| a list"
            ),
        ),
        (
            REMOTE.replace("remote,", "remote, trusted_types: [a.B],", 1),
            "model.trusted_types: no such key with kind remote; it belongs to sklearn | a list",
        ),
        (
            REMOTE.replace("remote,", "remote, run: isolated,", 1),
            'model.run: "auto" with kind remote, which needs no isolated process | "isolated"',
        ),
        (
            PYTHON.replace("python,", "python, confidence: late,"),
            "model.confidence: a property of logicalType number | late, of boolean",
        ),
        (
            REMOTE.replace("remote,", "remote, confidence: certainty,", 1),
            'model.confidence: a property of the output prediction: probability, late | "certainty"',
        ),
        (
            REMOTE.replace("[delay]", "[carrier]").replace("model: late", "model: late, input_tensor: x"),
            (
                "model.features[0]: features of logicalType integer, number, boolean, as model.remote.input_tensor "
                "holds numbers | carrier, which has logicalType string"
            ),
        ),
    ],
)
def test_each_kind_of_model_has_its_own_keys(tmp_path: Path, model: str, problem: str) -> None:
    assert problems(tmp_path, model) == [problem]


def test_onnx_is_never_isolated_and_lists_no_trusted_types(tmp_path: Path) -> None:
    assert problems(
        tmp_path, FILE.replace("kind: onnx,", "kind: onnx, run: isolated, trusted_types: [a.B],"), OUTPUT
    ) == [
        'model.run: "auto" with kind onnx, which needs no isolated process | "isolated"',
        "model.trusted_types: no such key with kind onnx; it belongs to sklearn | a list",
    ]


@pytest.mark.parametrize("address", ["ftp://models.example.com", "http://user@models.example.com", "models", "http://"])
def test_a_remote_model_has_an_http_address(tmp_path: Path, address: str) -> None:
    assert problems(tmp_path, REMOTE.replace("http://models.example.com", address)) == [
        f'model.remote.url: an http or https address without user, query or fragment | "{address}"'
    ]


def test_a_python_model_takes_every_property_and_gives_whole_outputs(tmp_path: Path) -> None:
    contract = CONTRACT.replace(
        "logicalType: timestamp}", "logicalType: array, items: {logicalType: object, properties: [{name: x}]}}"
    )
    assert problems(tmp_path, PYTHON, contract=contract) == []
    assert problems(tmp_path, PYTHON, OUTPUT) == [
        "output: no such key with kind python, whose call gives whole output objects | a mapping"
    ]


def test_a_remote_model_fills_every_property_from_tensors_or_lists_none(tmp_path: Path) -> None:
    assert problems(tmp_path, REMOTE, "output: {probability: {take: tensor}}\n") == [
        "output.late: how this property of the output comes from the model | nothing"
    ]
    assert problems(tmp_path, REMOTE, OUTPUT) == [
        "output.late.take: tensor with kind remote | threshold",
        "output.probability.take: tensor with kind remote | probability",
    ]
    contract = CONTRACT.replace(
        "{name: late, logicalType: boolean, required: true}", "{name: late, logicalType: date}", 1
    )
    late = "output: {probability: {take: tensor}, late: {take: tensor}}\n"
    assert problems(tmp_path, REMOTE, late, contract=contract) == [
        "output.late.take: tensor to fill a property of logicalType string or integer or number or boolean | date"
    ]
    assert problems(tmp_path, REMOTE, contract=contract) == [
        "output: a property of logicalType string or integer or number or boolean | late, of date"
    ]


def test_only_a_remote_model_gives_tensors(tmp_path: Path) -> None:
    assert problems(tmp_path, FILE, "output: {probability: {take: tensor}, late: {take: threshold}}\n") == [
        "output.probability.take: probability or value or threshold or label with kind onnx | tensor"
    ]
    assert problems(tmp_path, FILE, OUTPUT.replace("take: probability", "take: probability, tensor: p, column: 0")) == [
        "output.probability.column: no such key beside take: probability | 0",
        'output.probability.tensor: no such key beside take: probability | "p"',
    ]


def test_a_model_of_a_file_must_say_where_its_outputs_come_from(tmp_path: Path) -> None:
    assert problems(tmp_path, FILE) == [
        "output.late: how this property of the output comes from the model | nothing",
        "output.probability: how this property of the output comes from the model | nothing",
    ]


@pytest.mark.parametrize("model", [PYTHON, REMOTE])
def test_a_confidence_that_is_never_stated_cannot_be_low(tmp_path: Path, model: str) -> None:
    kind = "python" if model == PYTHON else "remote"
    assert problems(tmp_path, model, "min_confidence: 0.5\n") == [
        f"min_confidence: model.confidence beside it; without, a {kind} model states none | 0.5"
    ]


def test_a_model_may_not_run_longer_than_the_caller_waits(tmp_path: Path) -> None:
    assert problems(tmp_path, FILE, OUTPUT, "limits: {run_ms: 1000.5}\n") == [
        "limits.run_ms: at most deadline_ms, which is 1000 | 1000.5"
    ]


def test_the_label_of_reference_rows_is_a_property_of_the_outcome(tmp_path: Path) -> None:
    def told(label: str, head: str = HEAD) -> list[str]:
        text = head + SAMPLES + FILE + OUTPUT + f"reference: {{file: samples.jsonl, label: {label}}}\n"
        return [each.partition(" ")[2] for each in problems_of(write(tmp_path, text))]

    assert told("late") == []
    assert told("delay") == []
    assert told("lat") == [
        'reference.label: a property of the outcome arrival (did you mean "late"?) | "lat"',
    ]
    assert told("late", HEAD.replace(", outcome: arrival", "")) == [
        'reference.label: objects.outcome beside it, whose property it names | "late"'
    ]
    contract = CONTRACT.replace("{name: delay, logicalType: integer}", "{name: delay, logicalType: number}")
    text = HEAD + SAMPLES + FILE + OUTPUT + "reference: {file: samples.jsonl, label: delay}\n"
    assert problems_of(write(tmp_path, text, contract)) == [
        "capability.yaml:10 reference.label: a property of logicalType string or integer or boolean | delay, of number"
    ]


def test_what_is_protected_is_classified_somewhere(tmp_path: Path) -> None:
    classified = CONTRACT.replace("{name: carrier,", "{name: carrier, classification: Restricted,")
    assert problems(tmp_path, FILE, OUTPUT, "protect: {restricted: mask, '*': drop}\n", contract=classified) == []
    (problem,) = problems(tmp_path, FILE, OUTPUT, "protect: {restrictd: mask}\n", contract=classified)
    assert problem.startswith("protect.restrictd: a classification")
    assert problem.endswith('| "restrictd"')
    assert problems(tmp_path, FILE, OUTPUT, "protect: {'*': mask}\n") == []


def test_a_remote_model_can_be_given_what_it_needs(tmp_path: Path) -> None:
    classified = CONTRACT.replace("{name: delay, logicalType", "{name: delay, classification: secret, logicalType", 1)
    (problem,) = problems(tmp_path, REMOTE, contract=classified)
    assert problem.startswith("model.features[0]: ")
    assert problems(tmp_path, FILE, OUTPUT, contract=classified) == []
