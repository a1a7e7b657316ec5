"""Models with scikit-learn's interface: its own, those of XGBoost and LightGBM, and pipelines of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import is_classifier, is_regressor

from mainstay.catalog.original import (
    Answers,
    Columns,
    Offered,
    Role,
    build_table,
    choose_columns,
    one_per_row,
    open_file,
    plain_labels,
)
from mainstay.runtime.child import RefusedModel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from mainstay.runtime.types import Row


class Estimator:
    """A fitted classifier or regressor of one output."""

    def __init__(self, model: Any, offered: Offered, find_categories: Callable[[Any, Columns], frozenset[str]]) -> None:
        """`find_categories` says which columns a model that is no pipeline takes as pandas categories.

        Raises RefusedModel for what is no such model, or does not take the columns that are offered.
        """
        while hasattr(model, "best_estimator_"):  # a search is served by the estimator it found
            model = model.best_estimator_
        _check_kind(model)
        columns = choose_columns(
            offered, getattr(model, "feature_names_in_", None), getattr(model, "n_features_in_", None)
        )
        self.model = model
        self.columns = columns._replace(categories=find_categories(model, columns))
        self.roles: tuple[Role, ...] = ("value",)
        self.classes: tuple[str | int | bool, ...] = ()
        if is_classifier(model):
            self.roles = ("label", "probabilities") if hasattr(model, "predict_proba") else ("label",)
            self.classes = tuple(plain_labels(model.classes_))

    def answer(self, rows: Sequence[Row], *, rounded: bool = False) -> Answers:
        table = build_table(self.columns, rows, rounded=rounded)
        if "value" in self.roles:
            return {"value": one_per_row(self.model.predict(table), len(rows))}
        answers: Answers = {"label": np.array(plain_labels(self.model.predict(table)), dtype=object)}
        if "probabilities" in self.roles:
            answers["probabilities"] = np.asarray(self.model.predict_proba(table), dtype=np.float64)
        return answers


def load(path: Path, offered: Offered, trusted_types: tuple[str, ...]) -> Estimator:
    """The scikit-learn model in a skops file or a trusted pickle."""
    return Estimator(open_file(path, trusted_types), offered, no_categories)


def no_categories(_model: Any, _columns: Columns) -> frozenset[str]:
    return frozenset()


def _check_kind(model: Any) -> None:
    """Raises RefusedModel for what is no single-output classifier or regressor."""
    found = f"{type(model).__module__}.{type(model).__qualname__}"
    if not hasattr(model, "predict") or not (is_classifier(model) or is_regressor(model)):
        raise RefusedModel(f"expected a fitted classifier or regressor, found {found}")
    if is_classifier(model) and isinstance(getattr(model, "classes_", None), list):
        raise RefusedModel(f"expected one label per row, found {found} with {len(model.classes_)} outputs")
