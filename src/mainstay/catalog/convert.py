"""The child that loads a scikit-learn model and converts it to ONNX: `python -m mainstay.catalog.convert DIRECTORY`.

Only `mainstay.catalog.conversion` starts it. It reads `request.json` and the model there, and writes `artifact.onnx`
and `reply.json`. Whatever else goes wrong ends it with a traceback, which the parent shows.
"""

from __future__ import annotations

import resource
import sys
import warnings
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import joblib
import msgspec
import numpy as np
import pandas as pd
import skops.io
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType
from skl2onnx.common.exceptions import MissingConverter, MissingShapeCalculator
from sklearn.base import is_classifier, is_regressor
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import InconsistentVersionWarning

from mainstay.catalog.conversion import (
    ARTIFACT,
    REPLY,
    REQUEST,
    SKOPS_SUFFIX,
    Feature,
    Prediction,
    Refusal,
    Reply,
    Request,
)
from mainstay.runtime.types import ModelInput, ModelOutput

_TENSORS = {"float": FloatTensorType, "int64": Int64TensorType, "string": StringTensorType}
_MATRIX = "features"


class RefusedError(Exception):
    """The model cannot be converted, for a reason a person can act on."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.refusal = Refusal(message=message, hint=hint)


class Plan(NamedTuple):
    """How rows go into the original and into the graph."""

    features: list[Feature]  # those the model takes, in its order
    by_name: bool  # the original takes a DataFrame
    inputs: tuple[ModelInput, ...]
    has_integer_choice: bool


def main() -> None:
    directory = Path(sys.argv[1])
    request = msgspec.json.decode((directory / REQUEST).read_bytes(), type=Request)
    _limit(request)
    try:
        reply: Reply | Refusal = convert_model(request, directory)
    except RefusedError as refused:
        reply = refused.refusal
    (directory / REPLY).write_bytes(msgspec.json.encode(reply))


def _limit(request: Request) -> None:
    """Hold this process, and whatever the model starts, to its limits."""
    limits = request.limits
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory_bytes, limits.memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu_seconds, limits.cpu_seconds))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 30, 2 << 30))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def convert_model(request: Request, directory: Path) -> Reply:
    """Load, convert, and answer the sample rows with the original."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = _load(directory / request.source, request.trusted_types)
    notes = dict.fromkeys(str(each.message) for each in caught if each.category is InconsistentVersionWarning)
    while hasattr(model, "best_estimator_"):  # a search is served by the estimator it found
        model = model.best_estimator_
    _check_kind(model)
    plan = _plan(model, request)
    graph = _to_onnx(model, plan)
    (directory / ARTIFACT).write_bytes(graph.SerializeToString(deterministic=True))
    used = {each.name for each in graph.graph.input}
    places = [request.features.index(feature) for feature in plan.features]
    rows = [tuple(row[place] for place in places) for row in request.rows]
    return Reply(
        inputs=tuple(each for each in plan.inputs if each.name in used),
        outputs=_outputs(model, [each.name for each in graph.graph.output]),
        classes=_classes(model) if is_classifier(model) else (),
        original=_predict(model, _table(plan, rows, rounded=False)),
        original_rounded=_predict(model, _table(plan, rows, rounded=True)),
        has_integer_choice=plan.has_integer_choice,
        notes=tuple(notes),
    )


def _load(path: Path, trusted_types: tuple[str, ...]) -> Any:
    """The model in a file; the parent has made sure that a pickle is trusted."""
    if path.suffix != SKOPS_SUFFIX:
        return joblib.load(path)
    try:
        needed = skops.io.get_untrusted_types(file=path)
    except BadZipFile as error:
        raise RefusedError(f"{path.name}: expected a skops file: {error}") from None
    refused = sorted(set(needed) - set(trusted_types))
    if refused:
        listed = ", ".join(sorted(set(needed) | set(trusted_types)))
        raise RefusedError(
            f"{path.name} holds types that are not trusted: {', '.join(refused)}",
            f"If you know them to be harmless, write in capability.yaml under `model:`\n  trusted_types: [{listed}]",
        )
    return skops.io.load(path, trusted=list(trusted_types))


def _check_kind(model: Any) -> None:
    """Raises RefusedError for what is no single-output classifier or regressor."""
    found = f"{type(model).__module__}.{type(model).__qualname__}"
    if not hasattr(model, "predict") or not (is_classifier(model) or is_regressor(model)):
        raise RefusedError(f"expected a fitted scikit-learn classifier or regressor, found {found}")
    if is_classifier(model) and isinstance(getattr(model, "classes_", None), list):
        raise RefusedError(f"expected one label per row, found {found} with {len(model.classes_)} outputs")


def _plan(model: Any, request: Request) -> Plan:
    """Which features the model takes, in which tensors. Raises RefusedError when they do not fit."""
    names = getattr(model, "feature_names_in_", None)
    features = _in_model_order(request, names, getattr(model, "n_features_in_", None))
    choice = [each.kind == "integer" and not each.nullable for each in features]
    as_int64 = request.integers == "int64"
    if names is not None and _has_column_transformer(model):
        inputs = tuple(
            ModelInput(name=each.name, kind=_tensor_kind(each, as_int64=as_int64 and free), fields=(each.name,))
            for each, free in zip(features, choice, strict=True)
        )
        return Plan(features, by_name=True, inputs=inputs, has_integer_choice=any(choice))
    kinds = {_tensor_kind(each, as_int64=as_int64 and all(choice)) for each in features}
    if len(kinds) > 1:
        texts = ", ".join(each.name for each in features if each.kind == "string")
        raise RefusedError(
            f"expected numbers only, or a model with a ColumnTransformer fitted on a DataFrame; found text in: {texts}",
            "Fit the pipeline on a DataFrame and give it a ColumnTransformer that encodes text by column name.",
        )
    matrix = ModelInput(name=_MATRIX, kind=kinds.pop(), fields=tuple(each.name for each in features))
    return Plan(features, by_name=names is not None, inputs=(matrix,), has_integer_choice=all(choice))


def _in_model_order(request: Request, names: Any, width: int | None) -> list[Feature]:
    """The features the model takes, by its own names where it has them, else all that are declared."""
    by_name = {each.name: each for each in request.features}
    if names is None:
        if width is not None and width != len(by_name):
            raise RefusedError(
                f"the model takes {width} features and has no names for them; found {len(by_name)} in the declaration",
                "List the fields in the model's order under `model.features` in capability.yaml.",
            )
        return list(request.features)
    missing = [str(name) for name in names if name not in by_name]
    if missing:
        raise RefusedError(f"the model was fitted on columns that the input does not have: {', '.join(missing)}")
    unknown = sorted(by_name.keys() - set(names))
    if unknown and request.features_declared:
        raise RefusedError(f"model.features lists columns that the model was not fitted on: {', '.join(unknown)}")
    return [by_name[name] for name in names]


def _has_column_transformer(model: Any) -> bool:
    parts = model.get_params(deep=True).values()
    return any(isinstance(part, ColumnTransformer) for part in (model, *parts))


def _tensor_kind(feature: Feature, *, as_int64: bool) -> Any:
    if feature.kind == "string":
        return "string"
    return "int64" if as_int64 else "float"


def _to_onnx(model: Any, plan: Plan) -> Any:
    types = [(each.name, _TENSORS[each.kind]([None, len(each.fields)])) for each in plan.inputs]
    # Only where there are probabilities would a dictionary per row be made of them.
    options = {id(model): {"zipmap": False}} if _has_probabilities(model) else None
    try:
        return to_onnx(model, initial_types=types, options=options)
    except (MissingConverter, MissingShapeCalculator) as error:
        raise RefusedError(
            f"a part of the model has no ONNX form: {str(error).splitlines()[0]}",
            "Replace that part by one that skl2onnx supports, or bring the model as ONNX (`kind: onnx`).",
        ) from None


def _outputs(model: Any, names: list[str]) -> tuple[ModelOutput, ...]:
    """What the graph's outputs are. skl2onnx gives a regressor one, a classifier its label and then its scores."""
    if not is_classifier(model):
        return (ModelOutput(name=names[0], role="value"),)
    label = ModelOutput(name=names[0], role="label")
    if not _has_probabilities(model):
        return (label,)
    return (label, ModelOutput(name=names[1], role="probabilities"))


def _has_probabilities(model: Any) -> bool:
    return is_classifier(model) and hasattr(model, "predict_proba")


def _classes(model: Any) -> tuple[str | int | bool, ...]:
    return tuple(_plain_labels(model.classes_))


def _plain_labels(labels: Any) -> list[str | int | bool]:
    """Labels as JSON has them; whole floats, which an outcome column with gaps turns integers into, as integers."""
    plain: list[str | int | bool] = []
    for label in np.asarray(labels).tolist():
        if isinstance(label, float) and label.is_integer():
            plain.append(int(label))
        elif isinstance(label, str | int):
            plain.append(label)
        else:
            raise RefusedError(f"expected class labels that are text, integers or booleans, found {label!r}")
    return plain


def _table(plan: Plan, rows: list[tuple[Any, ...]], *, rounded: bool) -> Any:
    """What the original is given: a DataFrame where it was fitted on one, else a matrix.

    A missing number is NaN; missing text is what pandas makes of None. `rounded`: every number goes through float32.
    """
    columns = list(zip(*rows, strict=True))
    if not plan.by_name:
        if plan.features[0].kind == "string":
            return np.array(columns, dtype=object).T
        matrix = np.array(columns, dtype=np.float64).T
        return _round(matrix) if rounded else matrix
    named = zip(plan.features, columns, strict=True)
    return pd.DataFrame({feature.name: _column(feature, column, rounded=rounded) for feature, column in named})


def _column(feature: Feature, column: tuple[Any, ...], *, rounded: bool) -> Any:
    if feature.kind == "string":
        return list(column)
    if feature.kind == "number" or None in column:
        numbers = np.array(column, dtype=np.float64)
        return _round(numbers) if rounded else numbers
    return np.array(column, dtype=np.bool_ if feature.kind == "boolean" else np.int64)


def _round(numbers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    with np.errstate(over="ignore"):
        return numbers.astype(np.float32).astype(np.float64)


def _predict(model: Any, table: Any) -> Prediction:
    """What the original answers. msgspec writes a number that is not finite as null, which the parent refuses."""
    if not is_classifier(model):
        values = np.asarray(model.predict(table), dtype=np.float64)
        if values.size != len(table):
            raise RefusedError(f"expected one value per row, found {values.size // max(1, len(table))}")
        column: list[float | None] = list(values.reshape(-1).tolist())
        return Prediction(values=column)
    labels = _plain_labels(model.predict(table))
    if not _has_probabilities(model):
        return Prediction(labels=labels)
    return Prediction(labels=labels, probabilities=np.asarray(model.predict_proba(table), dtype=np.float64).tolist())


if __name__ == "__main__":
    main()
