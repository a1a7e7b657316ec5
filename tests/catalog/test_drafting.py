from __future__ import annotations

import fcntl
import json
import os
from typing import TYPE_CHECKING, Any

import joblib
import lightgbm
import numpy as np
import pandas as pd
import polars as pl
import pytest
import skops.io
import xgboost
import yaml
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder

import drafts
from mainstay.authority.policy import compile_authority
from mainstay.capability.load import load_capability
from mainstay.catalog.drafting_data import read_sample
from mainstay.catalog.drafting_folder import Trust
from mainstay.catalog.register import register
from mainstay.errors import Failed, InvalidDocument, Misuse

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.catalog.drafting import Drafted

ASKED = {
    "purpose", "owner.team", "owner.contact", "replaces", "output.probability.of_class", "deadline_ms",
    "fallback[0].constant.probability", "fallback[0].constant.label",
}  # fmt: skip  # one a line would fill a page
TRUST = Trust("made by this test")


def declared(drafted: Drafted) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((drafted.folder / "capability.yaml").read_text("utf-8"))
    return found


def properties(drafted: Drafted, place: int = 0) -> dict[str, dict[str, Any]]:
    contract = yaml.safe_load((drafted.folder / "contract.odcs.yaml").read_text("utf-8"))
    return {each["name"]: each for each in contract["schema"][place]["properties"]}


def lines_of(drafted: Drafted, name: str) -> list[Any]:
    return [json.loads(line) for line in (drafted.folder / "tests" / name).read_text("utf-8").splitlines()]


# What is drafted.


def test_a_draft_holds_questions_and_nothing_else_that_is_wrong(tmp_path: Path) -> None:
    drafted = drafts.make(tmp_path)
    assert {each.where for each in drafted.questions} == ASKED
    with pytest.raises(InvalidDocument) as caught:
        load_capability(drafted.folder)
    assert [(each.file, each.line) for each in caught.value.problems] == [(q.file, q.line) for q in drafted.questions]
    drafts.answer(drafted.questions)
    loaded = load_capability(drafted.folder)
    compile_authority(loaded)
    assert loaded.capability.deadline_ms == 5_000
    assert [each.name for each in loaded.input.properties] == ["a", "b", "c"]


def test_nothing_is_registered_while_a_question_is_open(tmp_path: Path) -> None:
    drafted = drafts.make(tmp_path)
    drafts.answer(drafted.questions[1:])
    with pytest.raises(InvalidDocument, match=r"purpose: expected an answer to: what does the business use the answer"):
        register(drafted.folder, tmp_path / "versions")
    drafts.answer(drafted.questions[:1])
    made = register(drafted.folder, tmp_path / "versions")
    assert made.manifest.runtime == "onnx"
    assert made.manifest.profile is not None
    assert made.manifest.profile.rows == drafts.ROWS
    assert made.manifest.calibration is not None


def test_the_rows_of_the_sample_are_samples_and_reference(tmp_path: Path) -> None:
    table = drafts.readings()
    drafted = drafts.make(tmp_path, data=drafts.write_sample(tmp_path / "s.csv", table))
    first = {name: pytest.approx(table[name][0]) for name in "abc"}
    assert lines_of(drafted, "samples.jsonl")[0] == first
    reference = lines_of(drafted, "reference.jsonl")
    assert len(reference) == len(table)
    assert reference[0] == {"input": first, "outcome": {"above": int(table["above"][0])}}
    assert "Nothing was held out" in (drafted.folder / "capability.yaml").read_text("utf-8")


def test_few_rows_declare_little_and_false_alarms_that_they_can_show(tmp_path: Path) -> None:
    drafted = drafts.make(tmp_path, data=drafts.write_sample(tmp_path / "s.csv", drafts.readings(40)))
    assert declared(drafted)["reference"]["false_alarms"] == 0.03
    assert "logicalTypeOptions" not in properties(drafted)["a"]
    fewer = drafts.make(
        tmp_path, target=tmp_path / "fewer", data=drafts.write_sample(tmp_path / "t.csv", drafts.readings(19))
    )
    assert "reference" not in declared(fewer)
    assert any(note.startswith("there are no reference rows") for note in fewer.pilot.notes)


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_the_form_of_the_sample_makes_no_difference(tmp_path: Path, form: str) -> None:
    table = drafts.readings()
    other = tmp_path / f"sample.{form}"
    if form == "parquet":
        pl.from_pandas(table).write_parquet(other)
    else:
        other.write_text("".join(json.dumps(row) + "\n" for row in table.to_dict("records")), "utf-8")
    one, two = drafts.make(tmp_path), drafts.make(tmp_path, data=other, target=tmp_path / "two")
    assert properties(one) == properties(two)


# Columns.


def test_columns_are_matched_by_number_and_said_to_be(tmp_path: Path) -> None:
    drafted = drafts.make(tmp_path)
    assert drafted.pilot.matched.features_by == "inferred: by their number, in the order of the sample"
    assert drafted.pilot.matched.label == "above"
    assert drafted.pilot.matched.label_by == "inferred: the sample has one column more than the model takes"
    assert declared(drafted)["model"]["features"] == ["a", "b", "c"]


def test_columns_too_many_are_listed_with_what_to_do(tmp_path: Path) -> None:
    data = drafts.write_sample(tmp_path / "s.csv", drafts.readings().assign(id=range(drafts.ROWS)))
    with pytest.raises(Misuse, match=r"the model takes 3 features .* found 5") as caught:
        drafts.make(tmp_path, data=data)
    assert "--ignore COLUMN" in caught.value.hint
    assert drafts.make(tmp_path, data=data, label="above", ignored=("id",)).pilot.matched.unused == ("id",)


def test_a_column_that_is_not_there_is_named_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match=r'--label abov: expected a column of the sample \(did you mean "above"\?\)'):
        drafts.make(tmp_path, label="abov")


def test_without_a_label_it_is_said_that_the_features_may_hold_it(tmp_path: Path) -> None:
    data = drafts.write_sample(tmp_path / "s.csv", drafts.readings().drop(columns="above"))
    drafted = drafts.make(tmp_path, data=data)
    assert drafted.pilot.matched.features_by.endswith("see that what the model predicts is not among them")
    assert "outcome" not in declared(drafted)["objects"]
    assert "monitoring" not in declared(drafted)
    assert "label" not in declared(drafted)["reference"]


def test_a_label_of_other_values_than_the_classes_calibrates_nothing(tmp_path: Path) -> None:
    table = drafts.readings()
    table["above"] = np.where(table["above"] == 1, "yes", "no")
    drafted = drafts.make(tmp_path, data=drafts.write_sample(tmp_path / "s.csv", table))
    assert "label" not in declared(drafted)["reference"]
    assert properties(drafted, 2)["above"]["logicalType"] == "string"
    assert any("which is which cannot be inferred" in note for note in drafted.pilot.notes)


def test_a_graph_of_integers_has_no_gaps(tmp_path: Path) -> None:
    table = (drafts.readings(50)[["a", "b", "c"]] * 10).round().astype(int)
    drafted = drafts.make(
        tmp_path,
        model=str(drafts.write_graph(tmp_path / "i.onnx", integers=True)),
        data=drafts.write_sample(tmp_path / "s.csv", table),
    )
    assert {(each["logicalType"], each.get("required")) for each in properties(drafted).values()} == {("integer", True)}


# The folder.


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "drafted").mkdir()
    with pytest.raises(Misuse, match="drafted exists, and nothing is overwritten"):
        drafts.make(tmp_path)
    assert not list((tmp_path / "drafted").iterdir())
    assert not (tmp_path / ".drafted.draft").exists()


def test_what_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    data = tmp_path / "s.csv"
    data.write_text("a,b\n1,two\n", "utf-8")
    with pytest.raises(Misuse):
        drafts.make(tmp_path, data=data)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_what_a_killed_draft_left_is_swept_away(tmp_path: Path) -> None:
    left = tmp_path / ".drafted.draft"
    (left / "model").mkdir(parents=True)
    (left / "model" / "half.onnx").write_bytes(b"half")
    (left / "capability.yaml").write_text("apiVersion")
    drafted = drafts.make(tmp_path)
    assert not left.exists()
    assert {path.name for path in (drafted.folder / "model").iterdir()} == {"model.onnx"}


def test_two_that_draft_the_same_do_not_meet(tmp_path: Path) -> None:
    other = tmp_path / ".drafted.draft"
    other.mkdir()
    held = os.open(other, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(Misuse, match="is being drafted by another process"):
            drafts.make(tmp_path)
    finally:
        os.close(held)
    assert other.is_dir()


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"name": "Late"}, "'Late': expected 2 to 63 lower-case letters"),
        ({"model": "model.h5"}, "model.h5: expected a model in a file ending in .onnx, .skops"),
        ({"model": "absent.onnx"}, "absent.onnx: expected a file, found: No such file"),
        ({"model": "absent.py:predict"}, "absent.py: expected a Python file, found nothing"),
        ({"model": "m.joblib"}, "m.joblib is a pickle: whoever wrote it can run any code"),
    ],
)
def test_what_cannot_be_brought_is_refused_with_a_reason(tmp_path: Path, said: dict[str, Any], message: str) -> None:
    with pytest.raises(Misuse, match=message):
        drafts.make(tmp_path, **said)


# The sample.


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("s.xlsx", b"", "expected a file ending in .csv, .parquet or .jsonl"),
        ("s.csv", b"", "expected rows under a row of names"),
        ("s.csv", b"a,b\n", "expected rows under a row of names"),
        ("s.csv", b"a,a\n1,2\n", "expected each column once, found 'a' again"),
        ("s.csv", b"a,b\n1,\xff\n", "expected csv, found: invalid utf-8"),
        ("s.csv", b"a,b\n1,2,3\n", "expected csv, found: found more fields"),
        ("s.parquet", b"PAR1", "expected parquet, found"),
        ("s.jsonl", b'{"a": 1}\n[2]\n', r"s.jsonl:2: expected a JSON object"),
        ("s.jsonl", b'{"a": {}}\n', "no objects or lists, found dict"),
        ("s.jsonl", b'{"a": 1}\n{"a": "1"}\n', "expected values of one kind in 'a', .* found int, str"),
        ("s.jsonl", b'{"a": 9223372036854775808}\n', "expected integers of 64 bits"),
    ],
)
def test_what_is_no_sample_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(Misuse, match=message):
        read_sample(path)


def test_a_sample_is_the_beginning_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text("a;b\n" + "".join(f"{place:03d};x,y\n" for place in range(20)), "utf-8")
    sample = read_sample(path, 5)
    assert (sample.frame.height, sample.is_whole) == (5, False)
    assert sample.frame["a"].to_list() == ["000", "001", "002", "003", "004"]
    assert read_sample(path, 20).is_whole


def test_json_lines_may_lack_fields(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text('{"a": 1}\n\n{"b": 2.5, "a": null}\n{"b": 3}\n', "utf-8")
    assert read_sample(path).frame.to_dict(as_series=False) == {"a": [1, None, None], "b": [None, 2.5, 3.0]}


# Models that are opened in a process of their own.


@pytest.mark.acceptance
def test_a_pipeline_says_which_columns_are_text_and_a_linear_model_takes_no_gap(tmp_path: Path) -> None:
    table = drafts.readings().assign(zone=np.tile(["10115", "80331"], drafts.ROWS // 2), more=1.5)
    table["above"] = np.where(table["above"] == 1, "up", "down")
    columns = ColumnTransformer([("zone", OneHotEncoder(), ["zone"]), ("rest", "passthrough", ["a", "b"])])
    fitted = Pipeline([("columns", columns), ("line", LogisticRegression())]).fit(
        table[["zone", "a", "b"]], table["above"]
    )
    joblib.dump(fitted, tmp_path / "m.joblib")
    table.loc[3, "a"] = None
    drafted = drafts.make(
        tmp_path, model=str(tmp_path / "m.joblib"), data=drafts.write_sample(tmp_path / "s.csv", table), trust=TRUST
    )
    found = properties(drafted)
    assert [(name, each["logicalType"]) for name, each in found.items()] == [
        ("zone", "string"), ("a", "number"), ("b", "number"),
    ]  # fmt: skip  # one a line would fill a page
    assert found["a"]["required"]
    assert "the model fails without it" in (drafted.folder / "contract.odcs.yaml").read_text("utf-8")
    assert "1 of 400 rows lack what is required, and would be refused" in drafted.pilot.notes
    assert drafted.pilot.matched.unused == ("c", "more")
    assert declared(drafted)["reference"]["label"] == "above"
    labels = {"kind": "classes", "truth": "above", "prediction": "label"}
    assert declared(drafted)["monitoring"] == {"labels": labels}
    drafts.answer(drafted.questions, positive="up")
    assert register(drafted.folder, tmp_path / "versions", trust_pickle="made by this test").manifest.classes == (
        "down", "up",
    )  # fmt: skip  # one a line would fill a page


@pytest.mark.acceptance
def test_types_of_a_skops_file_are_trusted_by_a_person(tmp_path: Path) -> None:
    table = drafts.readings()
    fitted = HistGradientBoostingClassifier(max_iter=5).fit(table[["c", "a"]], table["above"])
    skops.io.dump(fitted, tmp_path / "m.skops")
    predictor = "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"
    with pytest.raises(Misuse, match="holds types that are not trusted") as caught:
        drafts.make(tmp_path, model=str(tmp_path / "m.skops"))
    assert f"--trust-type {predictor}" in caught.value.hint
    drafted = drafts.make(tmp_path, model=str(tmp_path / "m.skops"), trusted_types=(predictor, "other.type"))
    assert declared(drafted)["model"] == {"kind": "sklearn", "file": "model/m.skops", "trusted_types": [predictor]}
    assert list(properties(drafted)) == ["c", "a"]
    assert drafted.pilot.matched.label == "above"


@pytest.mark.acceptance
def test_a_regression_answers_a_value_and_its_label_is_any_number(tmp_path: Path) -> None:
    table = drafts.readings()
    fitted = LinearRegression().fit(table[["a", "b"]].to_numpy(), table["c"])
    skops.io.dump(fitted, tmp_path / "m.skops")
    drafted = drafts.make(
        tmp_path,
        model=str(tmp_path / "m.skops"),
        data=drafts.write_sample(tmp_path / "s.csv", table[["a", "b", "c"]]),
        label="c",
    )
    assert drafted.pilot.task == "regression"
    assert declared(drafted)["output"] == {"value": {"take": "value"}}
    labels = {"kind": "number", "truth": "c", "prediction": "value"}
    assert declared(drafted)["monitoring"] == {"labels": labels}
    assert properties(drafted, 2)["c"]["logicalType"] == "number"
    assert "logicalTypeOptions" not in properties(drafted, 2)["c"]
    drafts.answer(drafted.questions, value=0.0)
    register(drafted.folder, tmp_path / "versions")


@pytest.mark.acceptance
@pytest.mark.parametrize("library", ["xgboost", "lightgbm"])
def test_boosters_of_several_classes_have_a_probability_for_each(tmp_path: Path, library: str) -> None:
    table = drafts.readings().assign(grade=np.tile([0, 1, 2, 1], drafts.ROWS // 4))
    features = table[["b", "a"]]
    booster: xgboost.Booster | lightgbm.Booster
    if library == "xgboost":
        model = tmp_path / "m.ubj"
        booster = xgboost.XGBClassifier(n_estimators=3).fit(features, table["grade"]).get_booster()
    else:
        model = tmp_path / "m.txt"
        booster = lightgbm.LGBMClassifier(n_estimators=3, verbose=-1).fit(features, table["grade"]).booster_
    booster.save_model(model)
    drafted = drafts.make(
        tmp_path, model=str(model), data=drafts.write_sample(tmp_path / "s.csv", table), label="grade"
    )
    assert declared(drafted)["output"] == {
        **{f"probability_{each}": {"take": "probability", "of_class": each} for each in range(3)},
        "label": {"take": "label"},
    }
    assert drafted.pilot.matched.features == ("b", "a")
    assert drafted.pilot.label_shares()[0] == (1, 0.5)
    drafts.answer(drafted.questions)
    assert register(drafted.folder, tmp_path / "versions").manifest.classes == (0, 1, 2)


FUNCTION = """\
from helper import LIMIT


def predict(records):
    def one(record):
        text = "high" if record["a"] > LIMIT else "low"
        return {"score": min(1.0, abs(record["a"]) / 4), "text": text, "day": record["day"]}

    return [one(record) for record in records]
"""


@pytest.mark.acceptance
def test_a_python_function_is_called_to_learn_what_it_gives(tmp_path: Path) -> None:
    code = tmp_path / "pilot"
    (code / ".hidden").mkdir(parents=True)
    (code / "predict.py").write_text(FUNCTION, "utf-8")
    (code / "helper.py").write_text("LIMIT = 0.5\n", "utf-8")
    (code / "weights.bin").write_bytes(b"w")
    (code / ".hidden" / "secret").write_text("s", "utf-8")
    table = drafts.readings().assign(day="2024-01-31")
    table.loc[5, ["a", "b"]] = None
    data = drafts.write_sample(code / "sample.csv", table)
    drafted = drafts.make(tmp_path, model=f"{code}/predict.py:predict", data=data, label="above")
    assert declared(drafted)["model"] == {"kind": "python", "call": "predict.py:predict"}
    brought = {path.relative_to(drafted.folder).as_posix() for path in drafted.folder.rglob("*") if path.is_file()}
    assert {"predict.py", "helper.py", "weights.bin"} <= brought
    assert not {"sample.csv", ".hidden/secret"} & brought
    found = properties(drafted)
    assert found["day"]["logicalType"] == "date"
    assert found["a"]["required"]
    assert not found["b"].get("required", False)
    given = properties(drafted, 1)
    assert {name: each["logicalType"] for name, each in given.items()} == {
        "score": "number", "text": "string", "day": "date",
    }  # fmt: skip  # one a line would fill a page
    assert given["score"]["logicalTypeOptions"] == {"minimum": 0, "maximum": 1}
    drafts.answer(drafted.questions, score=0.5, text="low", day="2024-01-31")
    assert register(drafted.folder, tmp_path / "versions").manifest.runtime == "isolated"


@pytest.mark.acceptance
@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def predict(records):\n    return 1\n", "fails on every row of the sample: TypeError: expected a list of"),
        (
            "def predict(records):\n    raise ValueError('no')\n",
            r"fails on every row .* ValueError: no \(predict.py, line 2\)",
        ),
        ("def other(records):\n    return []\n", "predict.py has no function 'predict'"),
        ("1 / 0\n", "importing predict.py:predict raised ZeroDivisionError"),
        ("import no_such_module\n", "the model cannot be opened: No module named 'no_such_module'"),
        ("import os\nos._exit(3)\n", "calling the function ended its process with code 3"),
        ("def predict(records):\n    return [{} for _ in records]\n", "gave objects without fields"),
        ("def predict(records):\n    return [{'a': [1]} for _ in records]\n", "no objects or lists, found list"),
    ],
)
def test_a_function_that_cannot_be_used_is_refused_with_its_own_words(tmp_path: Path, code: str, message: str) -> None:
    (tmp_path / "pilot").mkdir()
    (tmp_path / "pilot" / "predict.py").write_text(code, "utf-8")
    with pytest.raises((Misuse, Failed), match=message):
        drafts.make(tmp_path, model=f"{tmp_path}/pilot/predict.py:predict", label="above")
    assert not (tmp_path / "drafted").exists()


@pytest.mark.acceptance
def test_what_columns_settle_is_drafted_and_what_may_tell_of_a_person_only_on_somebodys_word(tmp_path: Path) -> None:
    code = tmp_path / "pilot"
    code.mkdir()
    (code / "predict.py").write_text("def predict(records):\n    return [{'score': 0.5} for _ in records]\n", "utf-8")
    chosen = np.random.default_rng(0).integers(20, size=drafts.ROWS)
    numbers = {"city": chosen, "state": chosen % 4, "phone": chosen + 100}
    table = pd.DataFrame({name: [f"no. {number}" for number in column] for name, column in numbers.items()})
    data = drafts.write_sample(tmp_path / "sample.csv", table.assign(above=chosen % 2))
    said: dict[str, Any] = {"model": f"{code}/predict.py:predict", "data": data, "label": "above"}
    (table_of,) = drafts.make(tmp_path, **said).pilot.input.tables
    assert (table_of.determinant, table_of.dependents) == (("city",), ("state",))
    text = (tmp_path / "drafted" / "contract.odcs.yaml").read_text("utf-8")
    assert "# inferred from 20 values of city; 400 rows agree with others that have the same" in text
    assert "      - [no. 0, no. 0]" in text
    assert "no. 119" not in text
    told = drafts.make(tmp_path, **said, public=("phone",), target=tmp_path / "told")
    assert {each.determinant for each in told.pilot.input.tables} == {("city",), ("phone",)}
    assert "no. 119" in (tmp_path / "told" / "contract.odcs.yaml").read_text("utf-8")
    with pytest.raises(Misuse, match=r'--public fone: expected a column of the sample \(did you mean "phone"\?\)'):
        drafts.make(tmp_path, **said, public=("fone",), target=tmp_path / "none")


def test_a_function_needs_a_folder_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "predict.py").write_text(FUNCTION, "utf-8")
    with pytest.raises(Misuse, match="stands above the folder that is drafted"):
        drafts.make(tmp_path, model=f"{tmp_path}/predict.py:predict")


@pytest.mark.acceptance
def test_a_pickle_that_is_no_model_is_refused(tmp_path: Path) -> None:
    joblib.dump({"not": "a model"}, tmp_path / "m.pkl")
    with pytest.raises(Misuse, match=r"expected a fitted classifier or regressor, found builtins\.dict"):
        drafts.make(tmp_path, model=str(tmp_path / "m.pkl"), trust=TRUST)
    table = drafts.readings()
    fitted = LogisticRegression().fit(table[["b", "c"]], pd.Series(np.where(table["above"] == 1, "y", "n")))
    joblib.dump(fitted, tmp_path / "m.pkl")
    with pytest.raises(Misuse, match="the model takes columns that the sample does not have: c"):
        drafts.make(
            tmp_path,
            model=str(tmp_path / "m.pkl"),
            data=drafts.write_sample(tmp_path / "s.csv", table.drop(columns="c")),
            trust=TRUST,
        )
