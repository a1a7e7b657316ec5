from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnx
import pytest
import skops.io
from onnx import TensorProto, helper
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder

from catalog.folders import (
    ABC_ROWS,
    FLIGHT_FIELDS,
    PROBABILITY,
    TRUST,
    VALUE,
    boosted_onnx,
    check_nothing_is_stored,
    check_whole,
    flights_folder,
    onnx_folder,
    pickle_folder,
    write_folder,
)
from catalog.models import Exits, Sleeps, WritesAFile, boosted, flights_frame, line, matrix
from mainstay.capability.load import load_capability
from mainstay.catalog.conversion import Limits
from mainstay.catalog.isolation import isolated_model
from mainstay.catalog.register import register
from mainstay.catalog.types import Trust
from mainstay.errors import Damaged, Failed, InvalidDocument, MainstayError, Misuse
from mainstay.runtime.isolated import run_isolated
from mainstay.runtime.types import Prediction


@pytest.fixture
def versions(tmp_path: Path) -> Path:
    return tmp_path / "versions"


def test_a_scikit_learn_pipeline_becomes_a_version(tmp_path: Path, versions: Path) -> None:
    folder = flights_folder(tmp_path / "folder")
    told: list[str] = []
    registered = register(folder, versions, progress=told.append)
    assert registered.created
    check_whole(versions, registered)
    manifest = registered.manifest
    assert manifest.capability == "late-arrival"
    assert manifest.classes == (False, True)
    assert [each.kind for each in manifest.inputs] == ["string", "float", "float"]
    assert manifest.conversion is not None
    assert manifest.conversion.rows == 50
    assert 0 < manifest.conversion.max_difference < 1e-6
    assert manifest.environment.keys() == {"python", "numpy", "onnx", "onnxruntime", "scikit-learn", "skl2onnx"}
    assert manifest.runtime == "onnx"
    assert manifest.trust is None
    assert [each.path for each in manifest.code] == ["folder/train.py"]
    assert manifest.source is not None
    assert manifest.source.path == "folder/model/m.skops"
    assert manifest.artifact is not None
    assert manifest.artifact.path == "artifact.onnx"
    assert "converting the model to ONNX" in told
    again = register(folder, versions, progress=told.append, limits=Limits(wall_seconds=0))
    assert not again.created, "with no time for a conversion: there was none"
    assert (again.version, again.manifest, again.path) == (registered.version, manifest, registered.path)
    elsewhere = register(shutil.copytree(folder, tmp_path / "copy"), tmp_path / "other")
    assert elsewhere.version == registered.version, "the same content makes the same version anywhere"
    assert elsewhere.created


def test_an_onnx_file_is_taken_as_it_is(tmp_path: Path, versions: Path) -> None:
    artifact = boosted_onnx()
    registered = register(onnx_folder(tmp_path / "folder", artifact), versions)
    check_whole(versions, registered)
    manifest = registered.manifest
    assert manifest.artifact is not None
    assert manifest.artifact == manifest.source
    assert (registered.path / manifest.artifact.path).read_bytes() == artifact
    assert manifest.classes == ("no", "yes")
    assert {each.role for each in manifest.outputs} == {"label", "probabilities"}
    assert manifest.conversion is None
    assert manifest.environment.keys() == {"python", "onnxruntime"}
    assert not register(tmp_path / "folder", versions).created


@pytest.mark.parametrize(
    "changed", ["capability.yaml", "contract.odcs.yaml", "authority.cedar", "tests/samples.jsonl", "train.py"]
)
def test_any_changed_file_makes_another_version(tmp_path: Path, versions: Path, changed: str) -> None:
    folder = onnx_folder(tmp_path / "folder", boosted_onnx())
    first = register(folder, versions)
    path = folder / changed
    path.write_text(path.read_text() + ("# later\n" if changed.endswith((".yaml", ".py")) else "\n"))
    second = register(folder, versions)
    assert second.created
    assert second.version != first.version


def test_files_that_do_not_matter_make_no_other_version(tmp_path: Path, versions: Path) -> None:
    folder = onnx_folder(tmp_path / "folder", boosted_onnx())
    first = register(folder, versions)
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "train.py").write_text("")
    (folder / ".venv").mkdir()
    (folder / ".venv" / "x.py").write_text("")
    os.utime(folder / "train.py", (0, 0))
    assert register(folder, versions).version == first.version


def test_every_problem_of_the_folder_is_listed(tmp_path: Path, versions: Path) -> None:
    folder = onnx_folder(tmp_path / "folder", boosted_onnx())
    path = folder / "capability.yaml"
    path.write_text(path.read_text().replace("title:", "titel:").replace("late-arrival", "Late Arrival"))
    with pytest.raises(InvalidDocument) as caught:
        register(folder, versions)
    assert len(caught.value.problems) >= 2
    check_nothing_is_stored(versions)


def test_every_sample_that_breaks_the_contract_is_listed_with_its_line(tmp_path: Path, versions: Path) -> None:
    rows: list[Any] = [ABC_ROWS[0], {"a": "one", "b": 1.0}, {"a": 1, "b": 2, "c": None}, ABC_ROWS[1]]
    folder = onnx_folder(tmp_path / "folder", boosted_onnx(), rows=rows)
    with pytest.raises(InvalidDocument) as caught:
        register(folder, versions)
    assert {(each.line, each.where) for each in caught.value.problems} == {(2, "a"), (2, "c"), (3, "c")}
    assert {each.file for each in caught.value.problems} == {str(folder / "tests/samples.jsonl")}
    check_nothing_is_stored(versions)


def test_the_list_of_broken_samples_is_bounded(tmp_path: Path, versions: Path) -> None:
    folder = onnx_folder(tmp_path / "folder", boosted_onnx(), rows=[{}] * 1_000)
    with pytest.raises(InvalidDocument) as caught:
        register(folder, versions)
    assert len(caught.value.problems) == 20


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_samples_are_needed(tmp_path: Path, versions: Path, content: str) -> None:
    folder = onnx_folder(tmp_path / "folder", boosted_onnx())
    (folder / "tests" / "samples.jsonl").write_text(content)
    with pytest.raises(MainstayError):
        register(folder, versions)
    check_nothing_is_stored(versions)


def test_an_output_that_breaks_its_contract_is_refused(tmp_path: Path, versions: Path) -> None:
    answer = PROBABILITY.replace("maximum: 1", "maximum: 0.001")
    folder = onnx_folder(tmp_path / "folder", boosted_onnx(), answer=answer)
    with pytest.raises(Failed, match=r"the output of sample row \d+ breaks the output contract: risk"):
        register(folder, versions)
    check_nothing_is_stored(versions)


def test_an_output_that_is_not_finite_is_refused(tmp_path: Path, versions: Path) -> None:
    nodes = [
        helper.make_node("ReduceSum", ["X", "axes"], ["sum"], keepdims=1),
        helper.make_node("Log", ["sum"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["N", 3])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [helper.make_tensor("axes", TensorProto.INT64, [1], [1])])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    rows = [{"a": 1.0, "b": 1.0, "c": 1.0}, {"a": -1.0, "b": -1.0, "c": -1.0}]
    output = {"estimate": {"take": "value"}}
    folder = onnx_folder(tmp_path / "folder", made.SerializeToString(), answer=VALUE, output=output, rows=rows)
    with pytest.raises(Failed, match="output 'y' of sample row 2 is no finite number"):
        register(folder, versions)
    check_nothing_is_stored(versions)


def test_a_declaration_that_asks_for_what_the_model_does_not_give_is_refused(tmp_path: Path, versions: Path) -> None:
    output = {"risk": {"take": "value"}, "late": {"take": "threshold"}}
    folder = onnx_folder(tmp_path / "folder", boosted_onnx(), output=output)
    with pytest.raises(Misuse, match=r"output\.risk takes value"):
        register(folder, versions)
    check_nothing_is_stored(versions)


def test_a_conversion_that_does_not_agree_runs_isolated(tmp_path: Path, versions: Path) -> None:
    output = {"estimate": {"take": "value"}}
    source = {"file": "model/m.skops", "kind": "sklearn", "tolerance": 1e-15}
    folder = write_folder(tmp_path / "folder", model=source, answer=VALUE, output=output)
    skops.io.dump(line(), folder / "model" / "m.skops")
    told: list[str] = []
    registered = register(folder, versions, progress=told.append)
    check_whole(versions, registered)
    manifest = registered.manifest
    assert manifest.runtime == "isolated"
    assert manifest.artifact == manifest.source
    assert (manifest.conversion, manifest.inputs, manifest.outputs) == (None, (), ())
    assert manifest.isolated_because is not None
    assert re.search(r"values of sample row \d+ differ by .*e-0.*, expected at most 1e-15", manifest.isolated_because)
    assert any("Common causes" in note or "rounded to float32" in note for note in registered.notes)
    assert "running the model in a process of its own" in told
    assert not register(folder, versions).created


def test_a_model_without_an_onnx_form_runs_isolated(tmp_path: Path, versions: Path) -> None:
    X = matrix()  # noqa: N806
    model = make_pipeline(FunctionTransformer(np.cbrt), LogisticRegression()).fit(X, np.where(X[:, 0] > 0, "yes", "no"))
    registered = register(pickle_folder(tmp_path / "folder", model), versions, trust_pickle=TRUST)
    assert registered.manifest.runtime == "isolated"
    assert "FunctionTransformer" in (registered.manifest.isolated_because or "")
    assert registered.manifest.classes == ("no", "yes")
    declared = load_capability(registered.path / "folder")
    results, _ = run_isolated(isolated_model(registered.path, declared), [tuple(X[0].tolist())], seconds=9)
    assert isinstance(results[0], Prediction)
    assert results[0].values[0] == pytest.approx(model.predict_proba(X[:1])[0, 1])


def test_a_folder_may_ask_for_a_process_of_its_own(tmp_path: Path, versions: Path) -> None:
    folder = write_folder(tmp_path / "folder", model={"file": "m.joblib", "kind": "sklearn", "run": "isolated"})
    joblib.dump(boosted(), folder / "m.joblib")
    told: list[str] = []
    registered = register(folder, versions, trust_pickle=TRUST, progress=told.append)
    assert registered.manifest.isolated_because == "model.run is isolated"
    assert registered.manifest.environment.keys() == {"python", "numpy", "scikit-learn"}
    assert "converting the model to ONNX" not in told


def test_integers_that_float32_cannot_hold_go_in_as_integers(tmp_path: Path, versions: Path) -> None:
    frame = flights_frame(50)[["carrier", "month"]]
    frame["month"] += 20_000_000
    source = {"file": "model/m.skops", "kind": "sklearn"}
    fields = "".join(FLIGHT_FIELDS.splitlines(keepends=True)[:2]).replace("minimum: 1, maximum: 12", "minimum: 1")
    folder = write_folder(tmp_path / "folder", model=source, fields=fields, rows=frame.to_dict("records"))
    columns = ColumnTransformer([("both", OneHotEncoder(handle_unknown="ignore"), ["carrier", "month"])])
    model = Pipeline([("columns", columns), ("classifier", LogisticRegression())])
    skops.io.dump(model.fit(frame, frame["month"] > 20_000_006), folder / "model" / "m.skops")
    told: list[str] = []
    registered = register(folder, versions, progress=told.append)
    assert "converting again, with integers as integers" in told
    assert [each.kind for each in registered.manifest.inputs] == ["string", "int64"]


def test_a_link_that_leaves_the_folder_is_not_followed(tmp_path: Path, versions: Path) -> None:
    folder = onnx_folder(tmp_path / "folder", boosted_onnx())
    (tmp_path / "secret.py").write_text("password = 1\n")
    (folder / "helper.py").symlink_to(tmp_path / "secret.py")
    with pytest.raises(Misuse, match="a link that leaves it"):
        register(folder, versions)
    check_nothing_is_stored(versions)


def test_a_pickle_is_not_opened_without_a_reason(tmp_path: Path, versions: Path) -> None:
    seen = tmp_path / "seen"
    folder = pickle_folder(tmp_path / "folder", WritesAFile(seen))
    for trust in (None, "", "  "):
        with pytest.raises(Misuse, match="is a pickle") as caught:
            register(folder, versions, trust_pickle=trust)
        assert "--trust-pickle REASON" in str(caught.value)
        assert "skops" in str(caught.value)
    assert not seen.exists()
    check_nothing_is_stored(versions)


def test_a_trusted_pickle_is_registered_with_the_reason(tmp_path: Path, versions: Path) -> None:
    registered = register(pickle_folder(tmp_path / "folder", boosted()), versions, trust_pickle=TRUST)
    assert registered.manifest.trust == Trust(reason=TRUST)
    check_whole(versions, registered)


@pytest.mark.parametrize(
    ("model", "found", "wall_seconds"),
    [(Sleeps(), "took longer than 2 s", 2), (Exits(), "ended its process", 60)],
    ids=["sleeping", "exiting"],
)
def test_a_hostile_pickle_that_is_trusted_registers_nothing(
    tmp_path: Path, versions: Path, model: Any, found: str, wall_seconds: float
) -> None:
    folder = pickle_folder(tmp_path / "folder", model)
    with pytest.raises(Failed, match=found):
        register(folder, versions, trust_pickle=TRUST, limits=Limits(wall_seconds=wall_seconds))
    check_nothing_is_stored(versions)


def test_a_model_in_a_file_of_another_kind_is_refused(tmp_path: Path, versions: Path) -> None:
    folder = write_folder(tmp_path / "folder", model={"file": "model/m.bin", "kind": "sklearn"})
    (folder / "model" / "m.bin").write_bytes(b"x")
    with pytest.raises(Misuse, match=r"ending in one of \.skops"):
        register(folder, versions)


def test_a_damaged_version_is_not_taken_for_registered(tmp_path: Path, versions: Path) -> None:
    folder = onnx_folder(tmp_path / "folder", boosted_onnx())
    path = register(folder, versions).path / "folder" / "train.py"
    path.chmod(0o644)
    path.write_text("print('fat')\n")
    with pytest.raises(Damaged, match=r"train\.py") as caught:
        register(folder, versions)
    assert "register its folder again" in str(caught.value)


def test_the_process_that_registers_loads_no_scikit_learn(tmp_path: Path, versions: Path) -> None:
    folder = pickle_folder(tmp_path / "folder", boosted())
    code = """
import sys
from pathlib import Path
from mainstay.catalog.register import register
register(Path(sys.argv[1]), Path(sys.argv[2]), trust_pickle="for this test")
loaded = {"sklearn", "pandas", "skl2onnx", "skops", "joblib", "onnx"} & sys.modules.keys()
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", code, str(folder), str(versions)], check=True, timeout=60)


def test_without_the_extra_it_says_what_to_install(tmp_path: Path, versions: Path) -> None:
    """An installation without scikit-learn: everything of this one but that, by links."""
    site = tmp_path / "site"
    site.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if not path.name.startswith(("sklearn", "scikit_learn")):
            (site / path.name).symlink_to(path)
    folder = pickle_folder(tmp_path / "folder", boosted())
    code = """
import site, sys
from pathlib import Path
site.addsitedir(sys.argv[1])
from mainstay.catalog.register import register
from mainstay.errors import Misuse
try:
    register(Path(sys.argv[2]), Path(sys.argv[3]), trust_pickle="for this test")
except Misuse as error:
    print(error)
"""
    command = [sys.executable, "-I", "-S", "-c", code, str(site), str(folder), str(versions)]
    shown = subprocess.run(command, check=True, timeout=60, capture_output=True, text=True).stdout
    assert "needs scikit-learn, which is not installed" in shown
    assert "pip install 'mainstay-ai[sklearn]'" in shown


def test_what_was_read_is_what_is_stored(tmp_path: Path, versions: Path) -> None:
    """A file that changes under the hands of the one who registers it makes no wrong digest."""
    folder = onnx_folder(tmp_path / "folder", boosted_onnx())

    def change(step: str) -> None:
        if step == "checking the samples":
            for path in (folder / "model" / "m.onnx", folder / "train.py", folder / "capability.yaml"):
                path.write_bytes(b"changed meanwhile")

    registered = register(folder, versions, progress=change)
    check_whole(versions, registered)
    stored = onnx.load_from_string((registered.path / "folder" / "model" / "m.onnx").read_bytes())
    assert stored.graph.name.startswith("ONNX(")
