"""The child that loads a scikit-learn model and converts it to ONNX: `python -m mainstay.catalog.convert DIRECTORY`.

Only `mainstay.catalog.conversion` starts it. It reads `request.json` and the model there, and writes `artifact.onnx`
and `reply.json`. Whatever else goes wrong ends it with a traceback, which the parent shows. The children for other
libraries are this one with another way to load a model and another way to convert it.
"""

from __future__ import annotations

import resource
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType
from skl2onnx.common.exceptions import MissingConverter, MissingShapeCalculator
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import InconsistentVersionWarning

from mainstay.catalog.conversion import ARTIFACT, REPLY, REQUEST, Answered, NoForm, Refusal, Reply, Request
from mainstay.catalog.estimators import load
from mainstay.catalog.original import Offered
from mainstay.runtime.child import RefusedModel
from mainstay.runtime.confinement import confine
from mainstay.runtime.types import ModelInput, ModelOutput

if TYPE_CHECKING:
    from collections.abc import Callable

    from mainstay.catalog.estimators import Estimator
    from mainstay.catalog.original import Answers, Columns, Original, Role
    from mainstay.runtime.types import Feature, Row

_MATRIX = "features"

_TENSORS = {"float": FloatTensorType, "int64": Int64TensorType, "string": StringTensorType}
BOOSTER_OPSETS = {"": 18, "ai.onnx.ml": 3}  # what the converters of onnxmltools write
_CLASSIFIER_OUTPUTS: tuple[Role, ...] = ("label", "probabilities")
_REGRESSOR_OUTPUTS: tuple[Role, ...] = ("value",)


class NoFormError(Exception):
    """The model has no ONNX form that is known here."""


class Converted(NamedTuple):
    """An ONNX model and how rows go into it."""

    graph: Any  # onnx.ModelProto; a classifier's outputs are its label and then its probabilities
    inputs: tuple[ModelInput, ...]
    has_integer_choice: bool = False


class Library(NamedTuple):
    """How models of one library are loaded, and converted."""

    load: Callable[[Path, Offered, tuple[str, ...]], Original]  # raises RefusedModel when the model cannot be taken
    # Converts what `load` gave, leaving it as it is; whatever it raises says that there is no ONNX form.
    to_graph: Callable[[Any, Request], Converted]


def run_child(library: Library) -> None:
    """Do what the request in the directory named on the command line asks for."""
    directory = Path(sys.argv[1])
    request = msgspec.json.decode((directory / REQUEST).read_bytes(), type=Request)
    _limit(request)
    confine(directory, directory)
    reply = convert_model(library, request, directory)
    (directory / REPLY).write_bytes(msgspec.json.encode(reply))


def _limit(request: Request) -> None:
    """Hold this process, and whatever the model starts, to its limits."""
    limits = request.limits
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory_bytes, limits.memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu_seconds, limits.cpu_seconds))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 30, 2 << 30))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def convert_model(library: Library, request: Request, directory: Path) -> Reply | NoForm | Refusal:
    """Load, convert, and answer the sample rows with the original."""
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            offered = Offered(request.features, request.features_declared)
            original = library.load(directory / request.source, offered, request.trusted_types)
        notes = dict.fromkeys(str(each.message) for each in caught if each.category is InconsistentVersionWarning)
        converted = _convert(library, original, request)
        (directory / ARTIFACT).write_bytes(converted.graph.SerializeToString(deterministic=True))
        used = {each.name for each in converted.graph.graph.input}
        answers = _answer(original, request.rows, rounded=False)
        return Reply(
            inputs=tuple(each for each in converted.inputs if each.name in used),
            outputs=_outputs([each.name for each in converted.graph.graph.output], answers),
            classes=original.classes,
            original=_answered(answers),
            original_rounded=_answered(_answer(original, request.rows, rounded=True)),
            has_integer_choice=converted.has_integer_choice,
            notes=tuple(notes),
        )
    except RefusedModel as refused:
        return Refusal(message=refused.message, hint=refused.hint)
    except NoFormError as error:
        return NoForm(reason=str(error))


def _convert(library: Library, original: Original, request: Request) -> Converted:
    try:
        return library.to_graph(original, request)
    except NoFormError:
        raise
    except (MissingConverter, MissingShapeCalculator) as error:
        raise NoFormError(f"a part of the model has no ONNX form: {_first_line(error)}") from None
    except Exception as error:  # noqa: BLE001 - converters raise anything on a model they did not expect
        raise NoFormError(f"the model cannot be converted: {type(error).__name__}: {_first_line(error)}") from None


def _answer(original: Original, rows: list[Row], *, rounded: bool) -> Answers:
    try:
        return original.answer(rows, rounded=rounded)
    except RefusedModel:
        raise
    except Exception as error:  # noqa: BLE001 - a model may raise anything on a row that it does not take
        raise RefusedModel(f"the model fails on the sample: {type(error).__name__}: {_first_line(error)}") from None


def _outputs(names: list[str], answers: Answers) -> tuple[ModelOutput, ...]:
    """The graph's outputs that the original answers as well. Raises NoFormError when they are not all it answers."""
    roles = _CLASSIFIER_OUTPUTS if len(names) > 1 or "value" not in answers else _REGRESSOR_OUTPUTS
    found = tuple(
        ModelOutput(name=name, role=role) for name, role in zip(names, roles, strict=False) if role in answers
    )
    if len(found) < len(answers):
        given, wanted = " and ".join(roles[: len(names)]), " and ".join(answers)
        raise NoFormError(f"its ONNX form gives {given}, where the model gives {wanted}")
    return found


def _answered(answers: Answers) -> Answered:
    """As the parent reads it. msgspec writes a number that is not finite as null, which the parent refuses."""
    return Answered(**{_FIELDS[role]: array.tolist() for role, array in answers.items()})


_FIELDS = {"probabilities": "probabilities", "label": "labels", "value": "values"}


def convert_estimator(
    original: Estimator, model: Any, request: Request, opsets: dict[str, int] | None = None
) -> Converted:
    """The graph of `model`, which is the original's or a copy of it made fit for conversion.

    `opsets` are the operator sets to use, by domain; skl2onnx's own choice where there are none.
    """
    inputs, has_choice = _plan(model, original.columns, request)
    types = [(each.name, _TENSORS[each.kind]([None, len(each.fields)])) for each in inputs]
    # Only where there are probabilities would a dictionary per row be made of them.
    options = {id(model): {"zipmap": False}} if "probabilities" in original.roles else None
    graph = to_onnx(model, initial_types=types, options=options, target_opset=opsets)
    return Converted(graph, inputs, has_choice)


def convert_matrix(columns: Columns, make_graph: Callable[[str, int], Any]) -> Converted:
    """A model of one matrix of numbers, whose graph is made from the matrix's name and its number of columns."""
    _check_no_categories(columns)
    fields = tuple(each.name for each in columns.features)
    return Converted(make_graph(_MATRIX, len(fields)), (ModelInput(name=_MATRIX, kind="float", fields=fields),))


def _check_no_categories(columns: Columns) -> None:
    if columns.categories:
        raise NoFormError(f"{', '.join(sorted(columns.categories))} go in as pandas categories, which ONNX has not")


def _plan(model: Any, columns: Columns, request: Request) -> tuple[tuple[ModelInput, ...], bool]:
    """Which features go into which tensors, and whether integers have a choice of tensor."""
    _check_no_categories(columns)
    features = columns.features
    choice = [each.kind == "integer" and not each.nullable for each in features]
    as_int64 = request.integers == "int64"
    if columns.by_name and _has_column_transformer(model):
        inputs = tuple(
            ModelInput(name=each.name, kind=_tensor_kind(each, as_int64=as_int64 and free), fields=(each.name,))
            for each, free in zip(features, choice, strict=True)
        )
        return inputs, any(choice)
    kinds = {_tensor_kind(each, as_int64=as_int64 and all(choice)) for each in features}
    if len(kinds) > 1:
        texts = ", ".join(each.name for each in features if each.kind == "string")
        raise NoFormError(
            f"text ({texts}) beside numbers needs a ColumnTransformer in a model that was fitted on a DataFrame"
        )
    return (ModelInput(name=_MATRIX, kind=kinds.pop(), fields=tuple(each.name for each in features)),), all(choice)


def _has_column_transformer(model: Any) -> bool:
    parts = model.get_params(deep=True).values()
    return any(isinstance(part, ColumnTransformer) for part in (model, *parts))


def _tensor_kind(feature: Feature, *, as_int64: bool) -> Any:
    if feature.kind == "string":
        return "string"
    return "int64" if as_int64 else "float"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:500]


def to_graph(original: Any, request: Request) -> Converted:
    """What `load` of estimators gave, as ONNX."""
    return convert_estimator(original, original.model, request)


SCIKIT_LEARN = Library(load, to_graph)

if __name__ == "__main__":
    run_child(SCIKIT_LEARN)
