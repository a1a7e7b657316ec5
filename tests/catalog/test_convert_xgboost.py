"""XGBoost's models, trained here, converted in this process and compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline

from catalog.children import Child
from catalog.models import (
    FLIGHT,
    boosting_rows,
    boosting_table,
    boosting_targets,
    flights_frame,
    flights_late,
    frame_rows,
)
from mainstay.catalog.convert_xgboost import XGBOOST
from mainstay.errors import Failed
from mainstay.runtime.types import Feature, ModelInput

if TYPE_CHECKING:
    from pathlib import Path

CHILD = Child(XGBOOST)
PLACES = ("first", "second", "third")
PLAIN = tuple(Feature(name, "number", nullable=True) for name in PLACES)
ROUNDS = 8

X, ROWS, TARGETS = boosting_table(), boosting_rows(), boosting_targets()


def booster(objective: str, target: str, **parameters: Any) -> xgboost.Booster:
    if objective.startswith("multi"):
        parameters["num_class"] = 3
    return xgboost.train(
        {"objective": objective, "max_depth": 3} | parameters, xgboost.DMatrix(X, TARGETS[target]), ROUNDS
    )


def saved(model: xgboost.Booster, tmp_path: Path, suffix: str = ".json") -> bytes:
    model.save_model(tmp_path / f"saved{suffix}")
    return (tmp_path / f"saved{suffix}").read_bytes()


@pytest.mark.parametrize("suffix", [".json", ".ubj"])
@pytest.mark.parametrize(
    ("objective", "target", "roles", "classes"),
    [
        ("binary:logistic", "binary", ["probabilities"], (0, 1)),
        ("multi:softprob", "multi", ["probabilities"], (0, 1, 2)),
        ("multi:softmax", "multi", ["label"], (0, 1, 2)),
        ("reg:squarederror", "value", ["value"], ()),
        ("count:poisson", "count", ["value"], ()),
        ("reg:gamma", "count", ["value"], ()),
    ],
)
def test_a_file_of_its_own_converts_and_agrees(
    tmp_path: Path, suffix: str, objective: str, target: str, roles: list[str], classes: tuple[int, ...]
) -> None:
    content = saved(booster(objective, target), tmp_path, suffix)
    reply, _ = CHILD.convert(content, PLAIN, ROWS, source=f"model{suffix}")
    assert [output.role for output in reply.outputs] == roles
    assert reply.classes == classes
    assert reply.inputs == (ModelInput(name="features", kind="float", fields=PLACES),)
    assert CHILD.compare(content, PLAIN, ROWS, source=f"model{suffix}").rows == 200


@pytest.mark.parametrize(
    ("objective", "target"), [("reg:logistic", "binary"), ("binary:logitraw", "binary"), ("binary:hinge", "binary")]
)
def test_an_objective_that_does_not_convert_is_found_out(tmp_path: Path, objective: str, target: str) -> None:
    """By comparing, or already because the graph gives something else than the model."""
    content = saved(booster(objective, target), tmp_path)
    with pytest.raises((Failed, AssertionError), match=r"does not agree|NoForm"):
        CHILD.compare(content, PLAIN, ROWS, source="model.json")


def test_a_booster_on_named_columns_takes_them_in_its_own_order(tmp_path: Path) -> None:
    frame = pd.DataFrame(X, columns=PLACES)[list(PLACES[::-1])]
    model = xgboost.train({"objective": "binary:logistic"}, xgboost.DMatrix(frame, TARGETS["binary"]), ROUNDS)
    features = (*PLAIN, Feature("note", "string", nullable=True))
    rows = [(*row, "x") for row in ROWS]
    asked: dict[str, Any] = {"source": "model.json", "features_declared": False}
    reply, _ = CHILD.convert(saved(model, tmp_path), features, rows, **asked)
    assert reply.inputs[0].fields == PLACES[::-1]
    assert CHILD.compare(saved(model, tmp_path), features, rows, **asked).max_difference < 1e-6
    refused = CHILD.refuse(saved(model, tmp_path), PLAIN[:2], [row[:2] for row in ROWS], source="model.json")
    assert "columns that the input does not have: third" in refused.message


@pytest.mark.parametrize("kind", ["classifier", "multiclass", "regressor", "random forest"])
def test_its_scikit_learn_interface_converts_and_agrees(kind: str) -> None:
    parameters: dict[str, Any] = {"n_estimators": ROUNDS, "max_depth": 3}
    model, target, roles = {
        "classifier": (xgboost.XGBClassifier(**parameters), "binary", ["label", "probabilities"]),
        "multiclass": (xgboost.XGBClassifier(**parameters), "multi", ["label", "probabilities"]),
        "regressor": (xgboost.XGBRegressor(**parameters), "value", ["value"]),
        "random forest": (xgboost.XGBRFClassifier(**parameters), "binary", ["label", "probabilities"]),
    }[kind]
    fitted = model.fit(pd.DataFrame(X, columns=PLACES), TARGETS[target])
    reply, _ = CHILD.convert(fitted, PLAIN, ROWS)
    assert [output.role for output in reply.outputs] == roles
    assert CHILD.compare(fitted, PLAIN, ROWS, 2e-5).max_difference <= 2e-5


def test_the_best_iteration_of_early_stopping_is_what_converts() -> None:
    model = xgboost.XGBRegressor(n_estimators=60, early_stopping_rounds=3, learning_rate=0.9)
    model.fit(X[:100], TARGETS["value"][:100], eval_set=[(X[100:], TARGETS["value"][100:])], verbose=False)
    assert model.best_iteration < 50
    assert CHILD.compare(model, PLAIN, ROWS, 2e-5).max_difference <= 2e-5


def test_it_converts_at_the_end_of_a_pipeline() -> None:
    model = make_pipeline(SimpleImputer(), xgboost.XGBClassifier(n_estimators=ROUNDS))
    assert CHILD.compare(model.fit(X, TARGETS["binary"]), PLAIN, ROWS).max_difference < 1e-6


def test_a_pickled_booster_is_a_booster() -> None:
    assert CHILD.compare(booster("binary:logistic", "binary"), PLAIN, ROWS).max_difference < 1e-6


def test_text_in_categories_has_no_form_and_is_answered_by_the_original(tmp_path: Path) -> None:
    frame = flights_frame()
    late = flights_late(frame)
    frame["carrier"] = frame["carrier"].astype("category")
    model = xgboost.XGBClassifier(n_estimators=ROUNDS, enable_categorical=True).fit(frame, late)
    found = CHILD.find_no_form(model, FLIGHT, frame_rows(frame))
    assert found == "carrier go in as pandas categories, which ONNX has not"
    content = saved(model.get_booster(), tmp_path)
    assert CHILD.find_no_form(content, FLIGHT, frame_rows(frame), source="model.json") == found


def test_text_whose_categories_the_model_does_not_hold_is_refused(tmp_path: Path) -> None:
    frame = flights_frame().assign(carrier=0.0)
    model = xgboost.train({}, xgboost.DMatrix(frame, flights_late(flights_frame())), ROUNDS)
    refused = CHILD.refuse(saved(model, tmp_path), FLIGHT, frame_rows(flights_frame()), source="model.json")
    assert "found text in: carrier" in refused.message


def test_missing_values_that_are_not_nan_are_not_converted() -> None:
    model = xgboost.XGBRegressor(n_estimators=ROUNDS, missing=-1.0).fit(np.nan_to_num(X), TARGETS["value"])
    rows = np.nan_to_num(X).tolist()
    assert "missing values are not nan" in CHILD.find_no_form(model, PLAIN, rows)


def test_what_xgboost_did_not_save_is_refused() -> None:
    assert "expected a model that XGBoost saved" in CHILD.refuse(b"{}", source="model.json").message


def test_the_same_model_always_makes_the_same_bytes(tmp_path: Path) -> None:
    content = saved(booster("multi:softprob", "multi"), tmp_path)
    first, second = (CHILD.convert(content, PLAIN, ROWS, source="model.json")[1] for _ in range(2))
    assert first == second
