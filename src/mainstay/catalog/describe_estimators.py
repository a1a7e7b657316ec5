"""Describing models with scikit-learn's interface, from skops files and trusted pickles; boosters in pickles, too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal
from zipfile import BadZipFile

import numpy as np
import skops.io
from sklearn.base import is_classifier, is_regressor
from sklearn.compose import ColumnTransformer
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, TargetEncoder

from mainstay.catalog.conversion import SKOPS_SUFFIX
from mainstay.catalog.describe import Described, Gives, Takes
from mainstay.catalog.original import open_file, plain_labels
from mainstay.runtime.child import RefusedModel

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mainstay.contract.inference_types import Wanted

_TAKING_TEXT: Final = (ColumnTransformer, OneHotEncoder, OrdinalEncoder, TargetEncoder)
_TAKING_NUMBERS: Final = tuple(
    f"sklearn.{each}"
    for each in (
        *("calibration", "decomposition", "discriminant_analysis", "dummy", "ensemble", "feature_selection", "impute"),
        *("isotonic", "kernel", "linear_model", "model_selection", "multiclass", "naive_bayes", "neighbors"),
        *("neural_network", "pipeline", "preprocessing", "semi_supervised", "svm", "tree"),
    )
)


def describe_file(path: Path, trusted_types: tuple[str, ...]) -> Described:
    """The model in the file. Raises RefusedModel when it is none, or holds types that nobody has called harmless."""
    needed = _needed_types(path, trusted_types) if path.suffix.lower() == SKOPS_SUFFIX else ()
    model = open_file(path, needed)
    library = type(model).__module__.partition(".")[0]
    if type(model).__name__ == "Booster" and library in ("xgboost", "lightgbm"):
        raise RefusedModel(
            f"{path.name} is a pickled booster of {library}",
            "Save it in the library's own format, which runs no code: booster.save_model('model.ubj') or 'model.txt'.",
        )
    return describe_estimator(model, needed)


def _needed_types(path: Path, trusted: tuple[str, ...]) -> tuple[str, ...]:
    try:
        needed = tuple(sorted(skops.io.get_untrusted_types(file=path)))
    except BadZipFile as error:
        raise RefusedModel(f"{path.name}: expected a skops file: {error}") from None
    refused = [each for each in needed if each not in trusted]
    if refused:
        options = " ".join(f"--trust-type {each}" for each in refused)
        raise RefusedModel(
            f"{path.name} holds types that are not trusted: {', '.join(refused)}",
            f"If you know them to be harmless, say so, and they are kept in capability.yaml: {options}",
        )
    return needed


def describe_estimator(model: Any, needed: tuple[str, ...] = ()) -> Described:
    """A fitted classifier or regressor of one output. Raises RefusedModel for anything else."""
    while hasattr(model, "best_estimator_"):  # a search is served by the estimator it found
        model = model.best_estimator_
    what = type(model).__qualname__
    if not hasattr(model, "predict") or not (is_classifier(model) or is_regressor(model)):
        raise RefusedModel(f"expected a fitted classifier or regressor, found {type(model).__module__}.{what}")
    names = getattr(model, "feature_names_in_", None)
    takes = Takes(
        names=None if names is None else tuple(map(str, names)),
        width=getattr(model, "n_features_in_", None),
        kinds=dict(_kinds_of_columns(model)),
        every=None if _takes_text(model) else "number",
    )
    return Described(kind=_kind(model), what=what, takes=takes, gives=_gives(model), trusted_types=needed)


def _gives(model: Any) -> Gives:
    if not is_classifier(model):
        return Gives(roles=("value",))
    if isinstance(getattr(model, "classes_", None), list):
        raise RefusedModel(f"expected one label per row, found a model with {len(model.classes_)} outputs")
    states = hasattr(model, "predict_proba")
    return Gives(
        roles=("label", "probabilities") if states else ("label",), classes=tuple(plain_labels(model.classes_))
    )


def _parts(model: Any) -> tuple[Any, ...]:
    return (model, *model.get_params(deep=True).values())


def _kind(model: Any) -> Literal["sklearn", "xgboost", "lightgbm"]:
    """The library whose conversion the model needs: a pipeline with a booster at its end needs the booster's."""
    libraries = {type(part).__module__.partition(".")[0] for part in _parts(model)}
    if "xgboost" in libraries:
        return "xgboost"
    return "lightgbm" if "lightgbm" in libraries else "sklearn"


def _takes_text(model: Any) -> bool:
    """Whether some part may be given text: one that encodes categories or reads words, or one that is not known."""
    return any(
        isinstance(part, _TAKING_TEXT) or not type(part).__module__.startswith(_TAKING_NUMBERS)
        for part in _parts(model)
        if hasattr(part, "get_params")
    )


def _fitted_parts(model: Any) -> Iterator[Any]:
    """The model and, of a pipeline, its steps as they were fitted."""
    yield model
    for _, step in getattr(model, "steps", ()):
        yield from _fitted_parts(step)


def _kinds_of_columns(model: Any) -> Iterator[tuple[str, Wanted]]:
    """By name, what a ColumnTransformer's encoders know their columns to be, and what goes through as a number."""
    for part in _fitted_parts(model):
        if not isinstance(part, ColumnTransformer):
            continue
        for _, transformer, columns in part.transformers_:
            first = transformer.steps[0][1] if hasattr(transformer, "steps") else transformer
            chosen = [columns] if isinstance(columns, str) else list(columns)
            names = [str(each) for each in chosen if isinstance(each, str)]
            if len(names) != len(chosen):
                continue  # chosen by place: the data decide
            if hasattr(first, "categories_"):
                yield from zip(names, map(_kind_of_categories, first.categories_), strict=True)
            elif hasattr(first, "scale_") or hasattr(first, "mean_"):
                yield from ((name, "number") for name in names)


def _kind_of_categories(categories: Any) -> Wanted:
    """What an encoder's categories are, a missing one apart."""
    kind = np.asarray(categories).dtype.kind
    if kind in "OUST":
        return "string" if any(isinstance(each, str) for each in categories) else "number"
    return "boolean" if kind == "b" else "number"
