"""Models of XGBoost: its own files and boosters as they are; its scikit-learn interface as estimators."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import xgboost

from mainstay.catalog.estimators import Estimator
from mainstay.catalog.original import (
    Answers,
    Columns,
    Offered,
    Original,
    Role,
    build_table,
    choose_columns,
    one_per_row,
    open_file,
)
from mainstay.runtime.child import RefusedModel

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mainstay.runtime.types import Row

NATIVE_SUFFIXES = (".json", ".ubj")
_ROLES: dict[str, tuple[Role, ...]] = {  # by objective; a value where it is another
    "binary:logistic": ("probabilities",),
    "multi:softprob": ("probabilities",),
    "binary:hinge": ("label",),
    "multi:softmax": ("label",),
}


def roles_of(objective: str) -> tuple[Role, ...]:
    """What a booster of this objective answers."""
    return _ROLES.get(objective, ("value",))


class Booster:
    """A booster without scikit-learn's interface; it predicts with all of its trees, as XGBoost itself does."""

    def __init__(self, booster: xgboost.Booster, offered: Offered) -> None:
        self.booster = booster
        columns = choose_columns(offered, booster.feature_names or None, booster.num_features())
        self.columns = columns._replace(categories=_find_categories(booster, columns))
        learner = json.loads(booster.save_config())["learner"]
        count = max(2, int(learner["learner_model_param"]["num_class"]))
        self.roles = roles_of(learner["objective"]["name"])
        self.classes: tuple[str | int | bool, ...] = () if "value" in self.roles else tuple(range(count))

    def answer(self, rows: Sequence[Row], *, rounded: bool = False) -> Answers:
        found = self.booster.predict(self._matrix(rows, rounded=rounded))
        if "label" in self.roles:
            return {"label": np.array(found.astype(np.int64).tolist(), dtype=object)}
        if "value" in self.roles:
            return {"value": one_per_row(found, len(rows))}
        positive = found.astype(np.float64)
        return {"probabilities": positive if positive.ndim == 2 else np.column_stack([1 - positive, positive])}

    def _matrix(self, rows: Sequence[Row], *, rounded: bool) -> xgboost.DMatrix:
        if self.columns.categories:
            return xgboost.DMatrix(build_table(self.columns, rows, rounded=rounded), enable_categorical=True)
        table = build_table(self.columns._replace(by_name=False), rows, rounded=rounded)
        names, types = self.booster.feature_names, self.booster.feature_types
        return xgboost.DMatrix(table, feature_names=names, feature_types=types, enable_categorical=True)


def load(path: Path, offered: Offered, trusted_types: tuple[str, ...]) -> Original:
    """The model in a file of XGBoost's own, or in a trusted pickle."""
    if path.suffix in NATIVE_SUFFIXES:
        try:
            return Booster(xgboost.Booster(model_file=path), offered)
        except xgboost.core.XGBoostError as error:
            first = (str(error).strip().splitlines() or [""])[0]
            raise RefusedModel(f"{path.name}: expected a model that XGBoost saved: {first[:500]}") from None
    model = open_file(path, trusted_types)
    if isinstance(model, xgboost.Booster):
        return Booster(model, offered)
    return Estimator(model, offered, _find_categories_of_estimator)


def _find_categories_of_estimator(model: Any, columns: Columns) -> frozenset[str]:
    if not isinstance(model, xgboost.XGBModel):
        return frozenset()
    return _find_categories(model.get_booster(), columns)


def _find_categories(booster: xgboost.Booster, columns: Columns) -> frozenset[str]:
    """The columns that were pandas categories when it was fitted.

    Raises RefusedModel for a text column where the model does not hold which code each text has.
    """
    found: frozenset[str] = frozenset()
    if columns.by_name and not booster.get_categories().empty():
        types = zip(columns.features, booster.feature_types or [], strict=True)
        found = frozenset(feature.name for feature, kind in types if kind == "c")
    texts = [each.name for each in columns.features if each.kind == "string" and each.name not in found]
    if texts:
        raise RefusedModel(
            f"expected numbers, or text that the model holds the categories of; found text in: {', '.join(texts)}",
            "Fit it with XGBoost 3.1 or later on a DataFrame whose text columns are of type category.",
        )
    return found
