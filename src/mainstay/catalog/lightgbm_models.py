"""Models of LightGBM: its own files and boosters as they are; its scikit-learn interface as estimators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightgbm
import numpy as np

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

NATIVE_SUFFIXES = (".txt",)
PROBABILITIES = ("binary", "multiclass", "multiclassova", "cross_entropy")  # objectives


class Booster:
    """A booster without scikit-learn's interface; it predicts with its best iteration, as LightGBM itself does."""

    def __init__(self, booster: lightgbm.Booster, offered: Offered) -> None:
        self.booster = booster
        names = booster.feature_name()
        nameless = names == [f"Column_{place}" for place in range(len(names))]  # how LightGBM calls a matrix's columns
        columns = choose_columns(offered, None if nameless else names, booster.num_feature())
        self.columns = columns._replace(categories=_find_categories(booster, columns))
        dump = booster.dump_model(num_iteration=1)
        words = dump.get("objective", "").split()
        self.roles: tuple[Role, ...] = ("value",)
        self.classes: tuple[str | int | bool, ...] = ()
        if words and words[0] in PROBABILITIES:
            self.roles = ("probabilities",)
            self.classes = tuple(range(max(2, dump["num_class"])))

    def answer(self, rows: Sequence[Row], *, rounded: bool = False) -> Answers:
        columns = self.columns if self.columns.categories else self.columns._replace(by_name=False)
        found = np.asarray(self.booster.predict(build_table(columns, rows, rounded=rounded)), dtype=np.float64)
        if "value" in self.roles:
            return {"value": one_per_row(found, len(rows))}
        return {"probabilities": found if found.ndim == 2 else np.column_stack([1 - found, found])}


def load(path: Path, offered: Offered, trusted_types: tuple[str, ...]) -> Original:
    """The model in a text file of LightGBM's own, or in a trusted pickle."""
    if path.suffix in NATIVE_SUFFIXES:
        try:
            return Booster(lightgbm.Booster(model_file=path), offered)
        except lightgbm.basic.LightGBMError as error:
            raise RefusedModel(f"{path.name}: expected a model that LightGBM saved: {str(error)[:500]}") from None
    model = open_file(path, trusted_types)
    if isinstance(model, lightgbm.Booster):
        return Booster(model, offered)
    return Estimator(model, offered, _find_categories_of_estimator)


def _find_categories_of_estimator(model: Any, columns: Columns) -> frozenset[str]:
    if not isinstance(model, lightgbm.LGBMModel):
        return frozenset()
    return _find_categories(model.booster_, columns)


def _find_categories(booster: lightgbm.Booster, columns: Columns) -> frozenset[str]:
    """The columns that were pandas categories when it was fitted.

    The booster holds how many there were, and which columns it splits by category; one that it never splits by is
    told from a number by being text. Raises RefusedModel when that does not add up.
    """
    count = len(booster.pandas_categorical or ())
    infos = booster.dump_model(num_iteration=1)["feature_infos"]
    texts = {each.name for each in columns.features if each.kind == "string"}
    split = {name for name, info in infos.items() if info["values"]} if count else set()
    found = texts | (split & {each.name for each in columns.features})
    if len(found) != count:
        raise RefusedModel(
            f"the model was fitted on {count} columns of categories, expected as many; found "
            f"{', '.join(sorted(found)) or 'none'}",
            "Text goes in as categories: fit the model on a DataFrame whose text columns are of type category.",
        )
    return frozenset(found)
