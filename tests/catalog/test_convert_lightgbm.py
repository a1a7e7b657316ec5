"""LightGBM's models, trained here, converted in this process and compared."""

from __future__ import annotations

from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
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
from mainstay.catalog.convert_lightgbm import LIGHTGBM
from mainstay.errors import Failed
from mainstay.runtime.types import Feature, ModelInput

# In this process numpy's, in the converters; LightGBM's, of a fit on names and an answer without.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:X does not have valid feature names")

CHILD = Child(LIGHTGBM)
PLACES = ("first", "second", "third")
PLAIN = tuple(Feature(name, "number", nullable=True) for name in PLACES)
X, ROWS, TARGETS = boosting_table(), boosting_rows(), boosting_targets()
ROUNDS = 8


def booster(objective: str, target: str, **parameters: Any) -> lightgbm.Booster:
    """The third column is one of categories."""
    if objective.startswith("multi"):
        parameters["num_class"] = 3
    settings = {"objective": objective, "verbose": -1, "min_data_in_leaf": 5, "min_data_per_group": 5, "num_threads": 1}
    return lightgbm.train(settings | parameters, lightgbm.Dataset(X, TARGETS[target], categorical_feature=[2]), ROUNDS)


def saved(model: lightgbm.Booster) -> bytes:
    return model.model_to_string().encode()


@pytest.mark.parametrize(
    ("objective", "target", "roles", "classes"),
    [
        ("binary", "binary", ["probabilities"], (0, 1)),
        ("multiclass", "multi", ["probabilities"], (0, 1, 2)),
        ("regression", "value", ["value"], ()),
        ("quantile", "value", ["value"], ()),
        ("poisson", "count", ["value"], ()),
        ("gamma", "count", ["value"], ()),
        ("tweedie", "count", ["value"], ()),
    ],
)
def test_a_file_of_its_own_converts_and_agrees(
    objective: str, target: str, roles: list[str], classes: tuple[int, ...]
) -> None:
    content = saved(booster(objective, target))
    assert b"decision_type=1" in content or b" 1 " in content, "it splits by category"
    reply, _ = CHILD.convert(content, PLAIN, ROWS, source="model.txt")
    assert [output.role for output in reply.outputs] == roles
    assert reply.classes == classes
    assert reply.inputs == (ModelInput(name="features", kind="float", fields=PLACES),)
    assert CHILD.compare(content, PLAIN, ROWS, source="model.txt").rows == 200


GAPS = [(None, None, None), (0.0, 0.0, 0.0), (None, 0.5, 3.0), (-0.0, None, 12.0), (0.5, 0.0, 99.0), (0.5, 0.5, None)]


@pytest.mark.parametrize("use_missing", [False, True], ids=["a gap is zero", "a gap is a gap"])
def test_gaps_zeros_and_unseen_categories_are_taken_as_the_model_takes_them(*, use_missing: bool) -> None:
    content = saved(booster("binary", "binary", use_missing=use_missing))
    assert CHILD.compare(content, PLAIN, [*ROWS, *GAPS], source="model.txt").max_difference < 1e-5


def test_a_zero_that_is_a_gap_is_found_out() -> None:
    content = saved(booster("binary", "binary", zero_as_missing=True))
    with pytest.raises(Failed, match=r"probabilities of sample row 20\d differ"):
        CHILD.compare(content, PLAIN, [*ROWS, *GAPS], source="model.txt")


@pytest.mark.parametrize(
    ("objective", "target", "parameters"),
    [
        ("multiclassova", "multi", {}),
        ("cross_entropy", "binary", {}),
        ("binary", "binary", {"sigmoid": 2.0}),
        ("regression", "value", {"reg_sqrt": True}),
        ("binary", "binary", {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5}),
    ],
    ids=["one against all", "cross entropy", "another sigmoid", "root of the target", "random forest"],
)
def test_what_does_not_convert_is_found_out(objective: str, target: str, parameters: dict[str, Any]) -> None:
    """By comparing, or already because the converter does not know it."""
    with pytest.raises((Failed, AssertionError), match=r"does not agree|NoForm"):
        CHILD.compare(saved(booster(objective, target, **parameters)), PLAIN, ROWS, source="model.txt")


def test_a_booster_on_named_columns_takes_them_in_its_own_order() -> None:
    frame = pd.DataFrame(X, columns=PLACES)[list(PLACES[::-1])]
    model = lightgbm.train({"objective": "binary", "verbose": -1}, lightgbm.Dataset(frame, TARGETS["binary"]), ROUNDS)
    reply, _ = CHILD.convert(saved(model), PLAIN, ROWS, source="model.txt")
    assert reply.inputs[0].fields == PLACES[::-1]
    assert CHILD.compare(saved(model), PLAIN, ROWS, source="model.txt").max_difference < 1e-6


@pytest.mark.parametrize("kind", ["classifier", "multiclass", "text labels", "regressor"])
@pytest.mark.parametrize("named", [False, True], ids=["matrix", "frame"])
def test_its_scikit_learn_interface_converts_and_agrees(kind: str, *, named: bool) -> None:
    parameters: dict[str, Any] = {"n_estimators": ROUNDS, "verbose": -1, "min_child_samples": 5}
    model, target = {
        "classifier": (lightgbm.LGBMClassifier(**parameters), TARGETS["binary"]),
        "multiclass": (lightgbm.LGBMClassifier(**parameters), TARGETS["multi"]),
        "text labels": (lightgbm.LGBMClassifier(**parameters), np.array(["no", "yes"])[TARGETS["binary"]]),
        "regressor": (lightgbm.LGBMRegressor(**parameters), TARGETS["value"]),
    }[kind]
    model.fit(pd.DataFrame(X, columns=PLACES) if named else X, target)
    reply, _ = CHILD.convert(model, PLAIN, ROWS)
    assert [output.role for output in reply.outputs] == (
        ["value"] if kind == "regressor" else ["label", "probabilities"]
    )
    assert CHILD.compare(model, PLAIN, ROWS, 2e-5).max_difference <= 2e-5


def test_it_converts_at_the_end_of_a_pipeline() -> None:
    model = make_pipeline(SimpleImputer(), lightgbm.LGBMClassifier(n_estimators=ROUNDS, verbose=-1))
    assert CHILD.compare(model.fit(X, TARGETS["binary"]), PLAIN, ROWS).max_difference < 1e-6


def test_text_in_categories_has_no_form_and_is_answered_by_the_original() -> None:
    frame = flights_frame()
    late = flights_late(frame)
    frame["carrier"] = frame["carrier"].astype("category")
    model = lightgbm.LGBMClassifier(n_estimators=ROUNDS, verbose=-1).fit(frame, late)
    found = CHILD.find_no_form(model, FLIGHT, frame_rows(frame))
    assert found == "carrier go in as pandas categories, which ONNX has not"
    assert CHILD.find_no_form(saved(model.booster_), FLIGHT, frame_rows(frame), source="model.txt") == found


def test_text_that_was_no_category_is_refused() -> None:
    frame = flights_frame().assign(carrier=0.0)
    data = lightgbm.Dataset(frame, flights_late(flights_frame()))
    model = lightgbm.train({"objective": "binary", "verbose": -1}, data, ROUNDS)
    refused = CHILD.refuse(saved(model), FLIGHT, frame_rows(flights_frame()), source="model.txt")
    assert "fitted on 0 columns of categories, expected as many; found carrier" in refused.message


def test_what_lightgbm_did_not_save_is_refused() -> None:
    assert "expected a model that LightGBM saved" in CHILD.refuse(b"tree\n", source="model.txt").message


def test_the_same_model_always_makes_the_same_bytes() -> None:
    content = saved(booster("multiclass", "multi"))
    first, second = (CHILD.convert(content, PLAIN, ROWS, source="model.txt")[1] for _ in range(2))
    assert first == second
