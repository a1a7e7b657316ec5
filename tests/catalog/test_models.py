"""Getting a model of every kind that runs, through registering its folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost

from catalog.folders import ABC_ROWS, FLIGHT_FIELDS, TRUST, check_nothing_is_stored, check_whole, write_folder
from catalog.models import flights_frame, flights_late, frame_rows, matrix, pickled
from client.service import running_service, says
from mainstay.capability.load import load_capability
from mainstay.catalog.conversion import Limits
from mainstay.catalog.isolation import isolated_model
from mainstay.catalog.models import DECLARED_ISOLATED
from mainstay.catalog.register import Registered, register
from mainstay.errors import Failed, Misuse
from mainstay.runtime.isolated import run_isolated
from mainstay.runtime.types import Prediction

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator
    from pathlib import Path

    from client.service import Request, Service
    from mainstay.runtime.types import Row

X = matrix()
LATE = X.sum(axis=1) > 0


@pytest.fixture
def versions(tmp_path: Path) -> Path:
    return tmp_path / "versions"


@pytest.fixture
def service() -> Iterator[Service]:
    with running_service() as running:
        yield running


def ask(registered: Registered, rows: list[Row]) -> list[Any]:
    """What a registered version answers from its own directory, as it will in production."""
    declared = load_capability(registered.path / "folder")
    results, _ = run_isolated(isolated_model(registered.path, declared), rows, seconds=9)
    return results


# XGBoost and LightGBM.


def native_folder(folder: Path, kind: str) -> Path:
    """A booster in the library's own file, fitted on a nameless matrix."""
    if kind == "xgboost":
        write_folder(folder, model={"file": "m.ubj", "kind": kind})
        data = xgboost.DMatrix(X, LATE)
        xgboost.train({"objective": "binary:logistic"}, data, 5).save_model(folder / "m.ubj")
    else:
        write_folder(folder, model={"file": "m.txt", "kind": kind})
        settings = {"objective": "binary", "verbose": -1}
        lightgbm.train(settings, lightgbm.Dataset(X, LATE), 5).save_model(folder / "m.txt")
    return folder


@pytest.mark.parametrize("kind", ["xgboost", "lightgbm"])
def test_a_booster_in_a_file_of_its_own_is_converted_and_needs_no_trust(
    tmp_path: Path, versions: Path, kind: str
) -> None:
    registered = register(native_folder(tmp_path / "folder", kind), versions)
    check_whole(versions, registered)
    manifest = registered.manifest
    assert manifest.runtime == "onnx"
    assert manifest.trust is None
    assert manifest.conversion is not None
    assert manifest.conversion.max_difference < 1e-6
    assert manifest.classes == (0, 1)
    assert [output.role for output in manifest.outputs] == ["probabilities"]
    assert {kind, "onnxmltools", "skl2onnx"} < manifest.environment.keys()


def test_a_pickle_of_the_scikit_learn_interface_is_converted(tmp_path: Path, versions: Path) -> None:
    folder = write_folder(tmp_path / "folder", model={"file": "m.joblib", "kind": "lightgbm"})
    model = lightgbm.LGBMClassifier(n_estimators=5, verbose=-1).fit(X, np.where(LATE, "yes", "no"))
    (folder / "m.joblib").write_bytes(pickled(model))
    manifest = register(folder, versions, trust_pickle=TRUST).manifest
    assert (manifest.runtime, manifest.classes) == ("onnx", ("no", "yes"))


@pytest.mark.parametrize(("kind", "run"), [("xgboost", "auto"), ("lightgbm", "isolated")])
def test_text_that_goes_in_as_categories_runs_isolated(tmp_path: Path, versions: Path, kind: str, run: str) -> None:
    frame = flights_frame(60)
    rows = [dict(zip(frame.columns, row, strict=True)) for row in frame_rows(frame)]
    folder = write_folder(
        tmp_path / "folder", model={"file": "m.joblib", "kind": kind, "run": run}, fields=FLIGHT_FIELDS, rows=rows
    )
    late = flights_late(frame)
    frame["carrier"] = frame["carrier"].astype("category")
    model: Any = xgboost.XGBClassifier(n_estimators=5, enable_categorical=True)
    if kind == "lightgbm":
        model = lightgbm.LGBMClassifier(n_estimators=5, min_child_samples=5, verbose=-1)
    model.fit(frame, late)
    (folder / "m.joblib").write_bytes(pickled(model))
    registered = register(folder, versions, trust_pickle=TRUST)
    because = registered.manifest.isolated_because
    assert because == ("carrier go in as pandas categories, which ONNX has not" if run == "auto" else DECLARED_ISOLATED)
    expected = model.predict_proba(frame)[:, 1]
    answers = ask(registered, frame_rows(flights_frame(60)))
    assert np.abs([risk for (risk, _), _ in answers] - expected).max() < 1e-6
    assert answers[0].confidence == pytest.approx(max(expected[0], 1 - expected[0]))


def test_integer_categories_of_a_frame_run_isolated(tmp_path: Path, versions: Path) -> None:
    frame = pd.DataFrame({"a": X[:, 0], "b": X[:, 1], "c": pd.Categorical(np.arange(100) % 4 * 10)})
    fields = "".join(f"      - {{name: {name}, logicalType: number, required: true}}\n" for name in "ab")
    fields += "      - {name: c, logicalType: integer, required: true}\n"
    rows = frame.astype({"c": int}).to_dict("records")
    source = {"file": "m.pkl", "kind": "lightgbm", "run": "isolated"}
    folder = write_folder(tmp_path / "folder", model=source, fields=fields, rows=rows[:20])
    parameters: dict[str, Any] = {"min_child_samples": 3, "min_data_per_group": 3, "cat_smooth": 0.1}
    model = lightgbm.LGBMClassifier(n_estimators=10, verbose=-1, **parameters).fit(frame, np.arange(100) % 4 > 1)
    (folder / "m.pkl").write_bytes(pickled(model))
    registered = register(folder, versions, trust_pickle=TRUST)
    assert registered.manifest.runtime == "isolated"
    expected = np.asarray(model.predict_proba(frame))[:4, 1]
    answers = ask(registered, [tuple(row.values()) for row in rows[:4]])
    assert [risk for (risk, _), _ in answers] == pytest.approx(list(expected))


# Kind python.

PREDICT = """\
from pathlib import Path

WEIGHT = float((Path(__file__).parent / "weight.txt").read_text())


def predict(records):
    return [{"risk": min(1.0, abs(record["a"]) * WEIGHT), "late": record["a"] > 0} for record in records]
"""


def python_folder(folder: Path, code: str = PREDICT, **changes: Any) -> Path:
    write_folder(folder, model={"kind": "python", "call": "model/predict.py:predict"}, output={}, **changes)
    (folder / "model" / "predict.py").write_text(code)
    (folder / "model" / "weight.txt").write_text("0.5")
    (folder / "notes.txt").write_text("not a part of the model")
    return folder


def test_python_runs_isolated_with_what_stands_beside_it(tmp_path: Path, versions: Path) -> None:
    registered = register(python_folder(tmp_path / "folder"), versions)
    check_whole(versions, registered)
    manifest = registered.manifest
    assert (manifest.runtime, manifest.isolated_because) == ("isolated", None)
    assert (manifest.artifact, manifest.source, manifest.trust) == (None, None, None)
    paths = [each.path for each in manifest.code]
    assert paths == ["folder/model/predict.py", "folder/model/weight.txt", "folder/train.py"]
    assert ask(registered, [(0.5, 0.0, 0.0)]) == [Prediction((0.25, True), None)]


def test_the_distributions_that_python_imports_are_its_environment(tmp_path: Path, versions: Path) -> None:
    code = f"import json\nimport numpy as np\nfrom yaml import safe_load\n{PREDICT}"
    registered = register(python_folder(tmp_path / "folder", code), versions)
    assert registered.manifest.environment.keys() == {"python", "numpy", "PyYAML"}


@pytest.mark.parametrize(
    ("code", "error", "found"),
    [
        (PREDICT.replace("def predict", "def answer"), Misuse, "has no function 'predict'"),
        (PREDICT.replace('"late"', '"soon"'), Failed, "sample row 1: RowFailed: .*has no field 'soon'"),
        (PREDICT.replace("* WEIGHT", "+ 9").replace("min(1.0, ", "("), Failed, r"sample row 1 breaks .* risk"),
        ("import os\nos._exit(3)\n", Failed, "exit code 3"),
        ("def predict(records):\n    while True:\n        pass\n", Failed, "fails on sample row 1: Crashed"),
    ],
    ids=["no such function", "another field", "breaks the contract", "ends itself", "never answers"],
)
def test_python_that_does_not_run_on_the_sample_is_not_registered(
    tmp_path: Path, versions: Path, code: str, error: type[Exception], found: str
) -> None:
    folder = python_folder(tmp_path / "folder", code)
    with pytest.raises(error, match=found):
        register(folder, versions, limits=Limits(wall_seconds=1))
    check_nothing_is_stored(versions)


# Kind remote.


class RemoteRisk:
    """A model elsewhere that takes a, b and c by name."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def __call__(self, service: Service, connection: socket.socket, request: Request) -> None:
        if request.path.endswith("/ready"):
            says(200, {})(service, connection, request)
            return
        if not request.path.endswith("/infer"):
            tensors = [{"name": name, "datatype": "FP64", "shape": [-1]} for name in "abc"]
            given = [
                {"name": "risk", "datatype": "FP64", "shape": [-1]},
                {"name": "late", "datatype": "BOOL", "shape": [-1]},
            ]
            described = {"name": "m", "platform": "", "inputs": tensors, "outputs": given}
            says(200, described)(service, connection, request)
            return
        self.asked.append(request.json)
        column = request.json["inputs"][0]["data"]
        risk = {"name": "risk", "shape": [len(column)], "datatype": "FP64", "data": [0.25] * len(column)}
        late = {"name": "late", "shape": [len(column)], "datatype": "BOOL", "data": [False] * len(column)}
        says(200, {"model_name": "m", "outputs": [risk, late]})(service, connection, request)


def remote_folder(folder: Path, url: str, **changes: Any) -> Path:
    return write_folder(folder, model={"kind": "remote", "remote": {"url": url, "model": "m"}}, output={}, **changes)


def test_a_remote_model_is_asked_for_every_sample(tmp_path: Path, versions: Path, service: Service) -> None:
    risk = RemoteRisk()
    service.will(risk)
    registered = register(remote_folder(tmp_path / "folder", service.url), versions)
    check_whole(versions, registered)
    manifest = registered.manifest
    assert manifest.runtime == "remote"
    assert (manifest.artifact, manifest.source) == (None, None)
    assert risk.asked[0]["inputs"][0]["data"] == [row["a"] for row in ABC_ROWS]


def test_a_remote_model_that_is_not_as_declared_is_not_registered(
    tmp_path: Path, versions: Path, service: Service
) -> None:
    service.will(
        says(
            200,
            {"name": "m", "platform": "", "inputs": [], "outputs": [{"name": "x", "datatype": "FP64", "shape": [-1]}]},
        )
    )
    with pytest.raises(Failed, match=r"output\.risk: expected an output tensor of the model: x"):
        register(remote_folder(tmp_path / "folder", service.url), versions)
    check_nothing_is_stored(versions)


def test_a_classified_value_leaves_only_protected(tmp_path: Path, versions: Path, service: Service) -> None:
    risk = RemoteRisk()
    service.will(risk)
    fields = "".join(f"      - {{name: {name}, logicalType: number, required: true}}\n" for name in "ab")
    fields += "      - {name: c, logicalType: string, required: true, classification: confidential}\n"
    rows = [{"a": 1.0, "b": 1.0, "c": "secret"}]
    model = {"kind": "remote", "remote": {"url": service.url, "model": "m"}}
    folder = write_folder(tmp_path / "folder", model=model, output={}, fields=fields, rows=rows)
    with pytest.raises(Misuse, match="expected a way to protect them"):
        register(folder, versions)
    assert not risk.asked
