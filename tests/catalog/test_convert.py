"""What the child does, in this process; that it is a child is tested in test_conversion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import sklearn
import skops.io
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder
from sklearn.svm import LinearSVC

from catalog.children import Child, compare
from catalog.models import (
    ABC,
    FLIGHT,
    boosted,
    flights_frame,
    flights_pipeline,
    frame_rows,
    line,
    matrix,
    pickled,
)
from mainstay.catalog.convert import SCIKIT_LEARN
from mainstay.errors import Failed
from mainstay.runtime.types import Feature, ModelInput, ModelOutput

if TYPE_CHECKING:
    from pathlib import Path

# numpy's, in skl2onnx; in the child they are printed where nobody looks.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


CHILD = Child(SCIKIT_LEARN)


def test_a_pipeline_on_named_columns_takes_one_input_per_column() -> None:
    rows = frame_rows(flights_frame())
    assert any(None in row for row in rows)
    features = (*FLIGHT[::-1], Feature("note", "string", nullable=True))  # more, and in another order than the model's
    rows = [(*row[::-1], "x") for row in rows]
    reply, artifact = CHILD.convert(flights_pipeline(), features, rows, features_declared=False)
    assert reply.inputs == (
        ModelInput(name="carrier", kind="string", fields=("carrier",)),
        ModelInput(name="month", kind="float", fields=("month",)),
        ModelInput(name="dep_delay", kind="float", fields=("dep_delay",)),
    )
    assert [output.role for output in reply.outputs] == ["label", "probabilities"]
    assert reply.classes == (False, True)
    assert compare(reply, artifact, features, rows, 1e-5).max_difference < 1e-6


def test_a_declared_feature_that_the_model_does_not_know_is_refused() -> None:
    features = (*FLIGHT, Feature("note", "string", nullable=True))
    rows = [(*row, "x") for row in frame_rows(flights_frame(20))]
    assert "not fitted on: note" in CHILD.refuse(flights_pipeline(), features, rows).message


def test_a_column_the_model_needs_and_the_input_lacks_is_named() -> None:
    rows = [row[:2] for row in frame_rows(flights_frame(20))]
    refused = CHILD.refuse(flights_pipeline(), FLIGHT[:2], rows)
    assert "columns that the input does not have: dep_delay" in refused.message


@pytest.mark.parametrize(
    ("classes", "expected"),
    [(("no", "yes"), ("no", "yes")), ((0.0, 1.0), (0, 1))],
    ids=["text", "whole floats"],
)
def test_a_model_on_a_matrix_takes_one_input(classes: tuple[Any, Any], expected: tuple[Any, Any]) -> None:
    reply, artifact = CHILD.convert(boosted(classes))
    assert reply.inputs == (ModelInput(name="features", kind="float", fields=("a", "b", "c")),)
    assert reply.classes == expected
    assert compare(reply, artifact, ABC, matrix().tolist(), 1e-5).max_difference < 1e-6


def test_a_regression_gives_a_value() -> None:
    reply, artifact = CHILD.convert(line())
    assert reply.outputs == (ModelOutput(name="variable", role="value"),)
    assert reply.classes == ()
    assert 0 < compare(reply, artifact, ABC, matrix().tolist(), 1e-5).max_difference < 1e-5


def test_a_classifier_without_probabilities_gives_its_label_only() -> None:
    X = matrix()  # noqa: N806
    search = GridSearchCV(LinearSVC(random_state=0), {"C": [0.1, 1]}, cv=2).fit(X, X[:, 0] > 0)
    reply, artifact = CHILD.convert(search)  # a search is served by what it found
    assert [output.role for output in reply.outputs] == ["label"]
    assert compare(reply, artifact, ABC, X.tolist(), 1e-5).max_difference == 0


def test_the_wrong_number_of_features_is_refused() -> None:
    refused = CHILD.refuse(boosted(), ABC[:2], matrix()[:, :2].tolist())
    assert "takes 3 features" in refused.message
    assert "found 2" in refused.message
    assert "model.features" in refused.hint


def test_text_beside_numbers_in_a_matrix_has_no_form() -> None:
    features = (*ABC[:2], Feature("c", "string", nullable=False))
    rows = [(0.0, float(place), "xy"[place % 2]) for place in range(20)]
    encode = make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression())
    model = encode.fit(np.array(rows, dtype=object), [text == "x" for *_, text in rows])
    found = CHILD.find_no_form(model, features, rows)
    assert found == "text (c) beside numbers needs a ColumnTransformer in a model that was fitted on a DataFrame"


def test_a_model_with_a_part_that_has_no_form_says_which() -> None:
    X = matrix()  # noqa: N806
    model = make_pipeline(FunctionTransformer(np.cbrt), LogisticRegression()).fit(X, X[:, 0] > 0)
    assert "FunctionTransformer" in CHILD.find_no_form(model)


def test_a_model_that_fails_on_the_sample_is_refused() -> None:
    rows = [(None, 1.0, 1.0)]
    refused = CHILD.refuse(line(), tuple(Feature(name, "number", nullable=True) for name in "abc"), rows)
    assert "the model fails on the sample: ValueError: Input X contains NaN" in refused.message


def test_what_is_no_classifier_or_regressor_is_refused() -> None:
    for model in (KMeans(n_clusters=2, n_init=1).fit(matrix()), {"a": 1}):
        assert "expected a fitted classifier or regressor" in CHILD.refuse(model).message


def test_text_that_is_missing_shows_as_a_disagreement() -> None:
    frame = flights_frame()
    frame.loc[::4, "carrier"] = np.nan
    late = (frame["carrier"].isna()).to_numpy()
    model = flights_pipeline()
    model.fit(frame, late)
    reply, artifact = CHILD.convert(model, FLIGHT, frame_rows(frame))
    with pytest.raises(Failed, match=r"sample row \d+ differ by .* expected at most 1e-05") as caught:
        compare(reply, artifact, FLIGHT, frame_rows(frame), 1e-5)
    assert "Fill gaps in text" in str(caught.value)


def test_a_difference_that_rounding_of_inputs_explains_is_said_to_be_that() -> None:
    y = np.arange(100) % 2
    X = np.zeros((100, 3))  # noqa: N806
    X[:, 0] = np.where(y == 1, 1 + 1e-9, 1 - 1e-9)  # float32 has no number between 1 and either
    model = HistGradientBoostingClassifier(max_iter=5, min_samples_leaf=1, random_state=0).fit(X, y)
    reply, artifact = CHILD.convert(model, ABC, X.tolist())
    with pytest.raises(Failed, match="does not agree") as caught:
        compare(reply, artifact, ABC, X.tolist(), 1e-5)
    assert "rounded to float32" in str(caught.value)


def test_integers_may_go_in_as_integers() -> None:
    frame = flights_frame()
    frame["month"] += 20_000_000  # float32 holds whole numbers up to 16,777,216
    columns = ColumnTransformer([("both", OneHotEncoder(handle_unknown="ignore"), ["carrier", "month"])])
    model = Pipeline([("columns", columns), ("classifier", LogisticRegression())])
    model.fit(frame[["carrier", "month"]], frame["month"] > 20_000_006)
    rows = [row[:2] for row in frame_rows(frame)]
    reply, artifact = CHILD.convert(model, FLIGHT[:2], rows)
    assert reply.has_integer_choice
    with pytest.raises(Failed, match="does not agree"):
        compare(reply, artifact, FLIGHT[:2], rows, 1e-5)
    reply, artifact = CHILD.convert(model, FLIGHT[:2], rows, integers="int64")
    assert reply.inputs[1].kind == "int64"
    assert compare(reply, artifact, FLIGHT[:2], rows, 1e-5).max_difference < 1e-6


def test_a_skops_file_of_other_types_needs_them_listed(tmp_path: Path) -> None:
    model = HistGradientBoostingClassifier(max_iter=2).fit(matrix(), matrix()[:, 0] > 0)
    skops.io.dump(model, tmp_path / "m.skops")
    content = (tmp_path / "m.skops").read_bytes()
    needed = "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"
    refused = CHILD.refuse(content, source="model.skops")
    assert needed in refused.message
    assert f"trusted_types: [{needed}]" in refused.hint
    reply, _ = CHILD.convert(content, source="model.skops", trusted_types=(needed,))
    assert reply.classes == (False, True)


def test_what_is_no_skops_file_is_refused() -> None:
    assert "expected a skops file" in CHILD.refuse(b"not a zip file", source="model.skops").message


def test_a_model_of_another_scikit_learn_is_noted() -> None:
    here = sklearn.__version__
    other = "9" + here[1:]
    reply, _ = CHILD.convert(pickled(line()).replace(here.encode(), other.encode()))
    assert other in reply.notes[0]
    assert here in reply.notes[0]
