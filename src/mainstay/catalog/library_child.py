"""The isolated process of a library's model: `python -m mainstay.catalog.library_child FD`.

Only `mainstay.runtime.process` starts it, for the kinds whose models are opened by scikit-learn, XGBoost or LightGBM.
"""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sklearn.exceptions import InconsistentVersionWarning

from mainstay.catalog.original import Offered
from mainstay.runtime.child import Loaded, RefusedModel, serve
from mainstay.runtime.frames import Gave
from mainstay.runtime.outputs import build_mapper
from mainstay.runtime.types import ModelOutput

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mainstay.capability.types import OutputField
    from mainstay.catalog.original import Original
    from mainstay.runtime.frames import IsolatedModel
    from mainstay.runtime.types import Row

# One process runs one kind, and the libraries of the others need not be installed.
_LOADERS: Final = {
    "sklearn": "mainstay.catalog.estimators",
    "xgboost": "mainstay.catalog.xgboost_models",
    "lightgbm": "mainstay.catalog.lightgbm_models",
}


def load_library_model(model: IsolatedModel) -> Loaded:
    """The model in `model.file`. Raises RefusedModel, and whatever the library raises when it opens the file."""
    if model.file is None:
        raise RefusedModel(f"expected a model file for kind {model.kind}, found none")
    offered = Offered(model.features, declared=len(model.features) < len(model.fields))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loader = import_module(_LOADERS[model.kind])
        original: Original = loader.load(Path(model.folder, model.file), offered, model.trusted_types)
    notes = dict.fromkeys(str(each.message) for each in caught if each.category is InconsistentVersionWarning)
    return Loaded(_build_run(original, model), original.classes, tuple(notes))


def _build_run(original: Original, model: IsolatedModel) -> Callable[[Sequence[Row]], list[Gave]]:
    outputs = [ModelOutput(name=role, role=role) for role in original.roles]
    mapping: Mapping[str, OutputField] = {name: model.output[name] for name in model.output_fields}
    try:
        predictions = build_mapper(outputs, original.classes, mapping)
    except ValueError as error:
        raise RefusedModel(str(error)) from None
    places = {name: place for place, name in enumerate(model.fields)}
    wanted = [places[feature.name] for feature in model.features]

    def run(rows: Sequence[Row]) -> list[Gave]:
        answers = original.answer([tuple(row[place] for place in wanted) for row in rows])
        columns, confidence = predictions(answers)
        stated = [None] * len(rows) if confidence is None else confidence
        return [Gave(list(values), sure) for values, sure in zip(zip(*columns, strict=True), stated, strict=True)]

    return run


if __name__ == "__main__":
    serve(int(sys.argv[1]), load_library_model)
