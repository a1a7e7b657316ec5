"""What reference rows add to a version, through registering."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from catalog.folders import PROBABILITY, TRUST, boosted_onnx, check_nothing_is_stored, check_whole, onnx_folder
from catalog.models import boosted, pickled
from mainstay.catalog.register import register
from mainstay.errors import InvalidDocument, Misuse
from mainstay.runtime.novelty import Novelty

if TYPE_CHECKING:
    from pathlib import Path

ROWS = np.random.default_rng(7).normal(size=(400, 3))


@pytest.fixture
def versions(tmp_path: Path) -> Path:
    return tmp_path / "versions"


def reference_folder(folder: Path, *, count: int = 400, declared: dict[str, Any] | None = None, **changes: Any) -> Path:
    """The label is what the model says, but for every fifth row."""
    described = {"file": "reference.jsonl"} | (declared or {})
    onnx_folder(folder, boosted_onnx(), declared={"reference": described}, **changes)
    lines = []
    for place, row in enumerate(ROWS[:count]):
        label = "yes" if (row.sum() > 0) != (place % 5 == 0) else "no"
        lines.append(json.dumps({"input": dict(zip("abc", row.tolist(), strict=True)), "outcome": {"label": label}}))
    (folder / "reference.jsonl").write_text("\n".join(lines))
    return folder


def test_the_profile_knows_the_reference_rows_from_others(tmp_path: Path, versions: Path) -> None:
    folder = reference_folder(tmp_path / "folder")
    told: list[str] = []
    registered = register(folder, versions, progress=told.append)
    check_whole(versions, registered)
    profile = registered.manifest.profile
    assert profile is not None
    assert (profile.file.path, profile.rows, profile.false_alarms) == ("profile.bin", 400, 0.01)
    assert registered.manifest.reference is not None
    assert registered.manifest.calibration is None, "no label is declared"
    assert "running 400 reference rows" in told
    novelty = Novelty.load((registered.path / "profile.bin").read_bytes(), ("a", "b", "c"))
    p_ordinary, p_far = novelty.p_values([(0.1, 0.2, -0.3), (0.1, 99.0, -0.3)])
    assert p_far < 0.01 < p_ordinary
    assert not register(folder, versions).created
    assert register(reference_folder(tmp_path / "copy"), tmp_path / "other").version == registered.version


def test_other_reference_rows_make_another_version(tmp_path: Path, versions: Path) -> None:
    first = register(reference_folder(tmp_path / "folder"), versions)
    second = register(reference_folder(tmp_path / "fewer", count=399), versions)
    assert second.created
    assert second.version != first.version


def test_reference_rows_whose_output_breaks_the_contract_are_counted(tmp_path: Path, versions: Path) -> None:
    """The samples keep the contract, all but the likeliest of the reference rows do."""
    model, samples = boosted(("no", "yes")), ROWS[:20]
    risk = model.predict_proba(ROWS.astype(np.float32))[:, 1]
    ceiling = float(risk[:20].max()) + 1e-4
    beyond = int((risk > ceiling).sum())
    assert beyond
    answer = PROBABILITY.replace("minimum: 0, maximum: 1", f"minimum: 0, maximum: {ceiling}")
    rows = [dict(zip("abc", row, strict=True)) for row in samples.tolist()]
    registered = register(reference_folder(tmp_path / "folder", answer=answer, rows=rows), versions)
    assert any(f"the output of {beyond} of 400 reference rows breaks" in note for note in registered.notes)
    assert registered.manifest.profile is not None


def test_stated_confidence_is_held_against_the_labels(tmp_path: Path, versions: Path) -> None:
    told: list[str] = []
    folder = reference_folder(tmp_path / "folder", declared={"label": "label"})
    found = register(folder, versions, progress=told.append).manifest.calibration
    assert "calibrating confidence" in told
    assert found is not None
    assert found.rows == 400
    assert found.method in ("isotonic", "sigmoid")
    assert found.error_after < found.error_before
    assert np.interp(0.99, found.stated, found.calibrated) == pytest.approx(0.8, abs=0.1), "every fifth answer is wrong"


@pytest.mark.parametrize("kind", ["sklearn", "python"])
def test_confidence_of_an_isolated_model_is_calibrated(tmp_path: Path, versions: Path, kind: str) -> None:
    folder = reference_folder(tmp_path / "folder", declared={"label": "label"}, answer=LABELLED, output=LABEL_OUTPUT)
    declaration = (folder / "capability.yaml").read_text()
    if kind == "python":
        source = {"kind": "python", "call": "predict.py:predict", "confidence": "risk"}
        declaration = declaration.replace(json.dumps(LABEL_OUTPUT), "{}")
        (folder / "predict.py").write_text(PREDICT)
    else:
        source = {"kind": "sklearn", "file": "m.joblib", "run": "isolated"}
        (folder / "m.joblib").write_bytes(pickled(boosted(("no", "yes"))))
    declaration = declaration.replace('{"file": "model/m.onnx", "kind": "onnx"}', json.dumps(source))
    (folder / "capability.yaml").write_text(declaration)
    found = register(folder, versions, trust_pickle=TRUST).manifest
    assert found.runtime == "isolated"
    assert found.calibration is not None
    assert found.calibration.rows == 400


LABEL_OUTPUT = {"risk": {"take": "probability"}, "label": {"take": "label"}}
LABELLED = """\
      - {name: risk, logicalType: number, required: true}
      - {name: label, logicalType: string, required: true}
"""
PREDICT = """\
def predict(records):
    sums = [sum(record.values()) for record in records]
    return [{"risk": 0.9, "label": "yes" if each > 0 else "no"} for each in sums]
"""


def test_why_confidence_is_not_calibrated_is_said(tmp_path: Path, versions: Path) -> None:
    few = register(
        reference_folder(tmp_path / "few", declared={"label": "label", "false_alarms": 0.1}, count=30), versions
    )
    assert few.manifest.calibration is None
    assert "expected at least 50 reference rows with a label, found 30" in few.notes[-1]


def test_a_label_that_is_no_class_of_the_model_is_refused(tmp_path: Path, versions: Path) -> None:
    folder = reference_folder(tmp_path / "folder", declared={"label": "label"})
    (folder / "model" / "m.onnx").write_bytes(boosted_onnx((0, 1)))
    with pytest.raises(Misuse, match=r"expected labels like the model's classes \(0, 1\), found '(yes|no)' in row 0"):
        register(folder, versions)
    check_nothing_is_stored(versions)


def test_too_few_reference_rows_are_refused(tmp_path: Path, versions: Path) -> None:
    with pytest.raises(Misuse):
        register(reference_folder(tmp_path / "folder", count=5), versions)
    check_nothing_is_stored(versions)


def test_reference_rows_that_break_their_contract_are_listed(tmp_path: Path, versions: Path) -> None:
    folder = reference_folder(tmp_path / "folder")
    (folder / "reference.jsonl").write_text('{"input": {"a": 1}}\n{"input": {"a": 1, "b": 1, "c": 1}, "outcome": 3}')
    with pytest.raises(InvalidDocument) as caught:
        register(folder, versions)
    assert {(each.line, each.where) for each in caught.value.problems} == {
        (1, "input.b"),
        (1, "input.c"),
        (2, "outcome.$"),
    }
    check_nothing_is_stored(versions)
