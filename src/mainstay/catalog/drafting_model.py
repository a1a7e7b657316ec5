"""Which columns the model takes and which is its label, what it answers, and which gaps it cannot take."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import polars as pl

from mainstay.capability.types import OutputField
from mainstay.catalog.describe import Gives, call_function
from mainstay.catalog.drafting_data import series_of
from mainstay.catalog.drafting_types import OUTPUT, Given, Matched
from mainstay.catalog.graph import Graph, understand_classes, understand_outputs
from mainstay.contract.inference import allowed_values, infer_object
from mainstay.contract.inference_names import has_word
from mainstay.contract.types import Options, Property, SchemaObject
from mainstay.documents import nearest, shorten
from mainstay.errors import Failed, Misuse
from mainstay.runtime.frames import IsolatedModel
from mainstay.runtime.isolated import run_isolated
from mainstay.runtime.types import Feature, Prediction

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mainstay.catalog.conversion import Limits
    from mainstay.catalog.describe import Described
    from mainstay.contract.inference_types import InferredObject
    from mainstay.contract.types import LogicalType
    from mainstay.runtime.types import Kind, Row

LABEL_WORDS: Final = frozenset({"label", "target", "class", "outcome", "y"})
PROBABILITY_WORDS: Final = frozenset({"probability", "prob", "score", "confidence"})
MOST_PROBABILITIES: Final = 10  # classes that each have a property
BASE_ROWS: Final = 2  # rows in which a gap is made, column by column

FEATURE_KINDS: Final[dict[str, Kind]] = {
    "number": "number",
    "integer": "integer",
    "boolean": "boolean",
    "string": "string",
}


# Columns.


def check_column(name: str, option: str, frame: pl.DataFrame) -> None:
    """Raises Misuse where an option names no column of the sample."""
    if name not in frame.columns:
        near = nearest(name, frame.columns)
        raise Misuse(
            f"{option} {name}: expected a column of the sample" + (f' (did you mean "{near}"?)' if near else ""),
            hint=f"It has: {shorten(', '.join(frame.columns), 2_000)}",
        )


def match_columns(described: Described, frame: pl.DataFrame, label: str | None, ignored: Sequence[str]) -> Matched:
    """The columns the model takes, and the label's. Raises Misuse when they cannot be told."""
    for name, option in ((label, "--label"), *((each, "--ignore") for each in ignored)):
        if name is not None:
            check_column(name, option, frame)
    left = [each for each in frame.columns if each != label and each not in ignored]
    takes = described.takes
    if takes.names is not None:
        return _by_names(described, frame, takes.names, label, left)
    if takes.width is None and described.kind != "onnx":
        return Matched(tuple(left), "all columns of the sample", label, "as said", tuple(ignored))
    width = takes.width or len(left)
    label_by = "as said"
    if label is None and len(left) == width + 1:
        label = next((each for each in left if has_word(each, LABEL_WORDS)), left[-1])
        label_by = "inferred: the sample has one column more than the model takes"
        left.remove(label)
    if len(left) != width:
        raise Misuse(
            f"the model takes {width} features and has no names for them: expected as many columns in the sample, "
            f"beside the label, found {len(left)}",
            hint=f"Leave out others with --ignore COLUMN, and name the label with --label. There are: "
            f"{shorten(', '.join(left), 2_000)}",
        )
    by = "inferred: by their number, in the order of the sample"
    if label is None:
        by += "; see that what the model predicts is not among them"
    return Matched(tuple(left), by, label, label_by, tuple(ignored))


def _by_names(
    described: Described, frame: pl.DataFrame, names: Sequence[str], label: str | None, left: Sequence[str]
) -> Matched:
    missing = [each for each in names if each not in left]
    if missing:
        near = {each: nearest(each, left) for each in missing}
        shown = ", ".join(each + (f' (did you mean "{near[each]}"?)' if near[each] else "") for each in missing[:20])
        raise Misuse(
            f"the model takes columns that the sample does not have: {shown}",
            hint=f"The sample has: {shorten(', '.join(left), 2_000)}",
        )
    others = [each for each in left if each not in names]
    label_by = "as said"
    if label is None:
        label, label_by = _guess_label(frame, others, () if described.gives is None else described.gives.classes)
    unused = tuple(each for each in frame.columns if each not in names and each != label)
    return Matched(tuple(names), "the model's own names", label, label_by, unused)


def _guess_label(frame: pl.DataFrame, others: Sequence[str], classes: Sequence[object]) -> tuple[str | None, str]:
    """The one column that holds the model's classes and is called so, or is the only one that could be it."""
    fitting = [each for each in others if not classes or _holds(frame[each], classes)]
    named = [each for each in fitting if has_word(each, LABEL_WORDS)]
    if len(named) == 1:
        return named[0], "inferred: by its name and its values"
    if len(fitting) == 1 and classes:
        return fitting[0], "inferred: the only other column that holds the model's classes"
    return None, ""


def _holds(column: pl.Series, classes: Sequence[object]) -> bool:
    """Whether a column's values are the classes, and more than one of them."""
    if column.dtype.is_nested() or column.dtype == pl.Binary:
        return False
    found = set(column.drop_nulls().unique().cast(pl.String, strict=False).head(len(classes) + 1).to_list())
    return len(found) > 1 and {str(each).lower().removesuffix(".0") for each in found} <= {
        str(each).lower() for each in classes
    }


# What it answers.


def given_of(gives: Gives) -> Given:
    """The object that is answered, for a model with these outputs."""
    if "value" in gives.roles:
        value = Property(name="value", logical_type="number", required=True, description="What the model estimates.")
        return Given(gives, _object([value]), {"value": OutputField(take="value")})
    properties, mapping = [], {}
    binary = len(gives.classes) == 2
    if "probabilities" in gives.roles and len(gives.classes) <= MOST_PROBABILITIES:
        for place, each in enumerate(gives.classes[-1:] if binary else gives.classes):
            name = "probability" if binary else f"probability_{_word(each)}"
            name = f"{name}_{place}" if name in mapping else name
            properties.append(_probability(name, "the positive class" if binary else f"class {each}"))
            mapping[name] = OutputField(take="probability", of_class=each)
    kind = kind_of_classes(gives.classes)
    properties.append(
        Property(
            name="label",
            logical_type=kind,
            required=True,
            description="The class that the model chooses.",
            quality=() if kind == "boolean" or not gives.classes else (allowed_values(gives.classes),),
        )
    )
    mapping["label"] = OutputField(take="label")
    return Given(gives, _object(properties), mapping)


def kind_of_classes(classes: Sequence[str | int | bool]) -> LogicalType:
    """The logical type of a label; text for a model that does not say its classes."""
    kinds = {type(each) for each in classes}
    return {bool: "boolean", int: "integer"}.get(next(iter(kinds)), "string") if len(kinds) == 1 else "string"  # type: ignore[return-value]  # each is a logical type


def _object(properties: Sequence[Property]) -> SchemaObject:
    return SchemaObject(name=OUTPUT, logical_type="object", properties=tuple(properties))


def _probability(name: str, of_what: str) -> Property:
    return Property(
        name=name,
        logical_type="number",
        required=True,
        description=f"The probability of {of_what}, as the model states it.",
        logical_type_options=Options(minimum=0, maximum=1),
    )


def _word(label: object) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", str(label)).strip("_") or "empty"


def _given_by_function(outputs: Sequence[dict[str, Any]]) -> Given:
    """The object that a Python function gives, from what it gave."""
    names = list(dict.fromkeys(chain.from_iterable(outputs)))
    if not names:
        raise Misuse("the function gave objects without fields: expected what is answered, found nothing")
    columns = [series_of("the function's output", name, [each.get(name) for each in outputs]) for name in names]
    properties = []
    for each in infer_object(pl.DataFrame(columns), OUTPUT).columns:
        declared = each.declared
        share = declared.logical_type in ("number", "integer") and has_word(each.name, PROBABILITY_WORDS)
        properties.append(
            Property(
                name=each.name,
                logical_type=declared.logical_type,
                required=each.support == len(outputs),
                logical_type_options=Options(minimum=0, maximum=1) if share and _in_unit(each.values) else None,
            )
        )
    sure = next((each.name for each in properties if each.name == "confidence"), None)
    return Given(None, _object(properties), {}, sure)


def _in_unit(values: pl.Series) -> bool:
    return bool(values.drop_nulls().is_between(0, 1).all())


# Running it.


class _Trial(NamedTuple):
    """Which rows it gave a whole answer for, why not for the first of the others, and what it answers."""

    answered: list[bool]
    error: str
    given: Given


class Tried(NamedTuple):
    """What running the model on some rows has shown."""

    given: Given
    cannot_miss: tuple[str, ...]  # columns without which it fails


@dataclass(frozen=True, slots=True)
class Runner:
    """Runs the model that stands in a folder being drafted."""

    folder: Path
    file: str | None
    call: str | None
    described: Described
    limits: Limits

    def try_rows(self, taken: InferredObject, places: Sequence[int]) -> Tried:
        """Run the rows at these places; and the most complete of them again, with a gap in each column that may have
        one. Raises Misuse or Failed when the model answers for none of them.
        """
        names = [each.name for each in taken.columns]
        columns = [each.values.gather(list(places)).to_list() for each in taken.columns]
        rows: list[Row] = list(zip(*columns, strict=True))
        base = sorted(range(len(rows)), key=lambda place: sum(value is None for value in rows[place]))[:BASE_ROWS]
        gaps = [
            (place, column)
            for column, each in enumerate(taken.columns)
            if not each.declared.required
            for place in base
            if rows[place][column] is not None
        ]
        made = [(*rows[place][:column], None, *rows[place][column + 1 :]) for place, column in gaps]
        trial = self._run(taken, [*rows, *made])
        if not any(trial.answered[: len(rows)]):
            raise Failed(f"the model answers for none of {len(rows)} rows of the sample: {trial.error}")
        failed = {
            names[column]
            for (place, column), answered in zip(gaps, trial.answered[len(rows) :], strict=True)
            if not answered and trial.answered[place]
        }
        return Tried(trial.given, tuple(name for name in names if name in failed))

    def _run(self, taken: InferredObject, rows: list[Row]) -> _Trial:
        match self.described.kind:
            case "onnx":
                return self._run_graph(taken, rows)
            case "python":
                return self._call(taken, rows)
            case _:
                return self._run_isolated(taken, rows)

    def _call(self, taken: InferredObject, rows: list[Row]) -> _Trial:
        assert self.call is not None, "a Python function has a place"
        names = [each.name for each in taken.columns]
        called = call_function(
            self.folder, self.call, [dict(zip(names, row, strict=True)) for row in rows], self.limits
        )
        outputs = [each for each in called.outputs if each is not None]
        if not outputs:
            raise Misuse(f"{self.call} fails on every row of the sample: {called.error}")
        return _Trial([each is not None for each in called.outputs], called.error, _given_by_function(outputs))

    def _run_isolated(self, taken: InferredObject, rows: list[Row]) -> _Trial:
        described = self.described
        assert described.kind != "onnx", "a graph runs in this process"
        assert described.gives is not None, "a library's model says what it answers"
        given = given_of(described.gives)
        fields = tuple(each.name for each in taken.columns)
        model = IsolatedModel(
            folder=str(self.folder.resolve()),
            kind=described.kind,
            file=self.file,
            fields=fields,
            features=_features(taken),
            output=given.mapping,
            output_fields=tuple(given.mapping),
            trusted_types=described.trusted_types,
        )
        results, _ = run_isolated(model, rows, seconds=self.limits.wall_seconds)
        errors = [each for each in results if isinstance(each, Exception)]
        answered = [isinstance(each, Prediction) and _is_whole(each.values) for each in results]
        return _Trial(answered, shorten(str(errors[0]), 300) if errors else "its output is no finite number", given)

    def _run_graph(self, taken: InferredObject, rows: list[Row]) -> _Trial:
        assert self.file is not None, "a graph stands in a file"
        graph = Graph((self.folder / self.file).read_bytes())
        features = _features(taken)
        inputs, names = graph.inputs(features), [each.name for each in features]
        tensors = graph.run(inputs, names, graph.output_names, rows)
        finite = [True] * len(rows)
        for tensor in tensors.values():
            if tensor.dtype.kind == "f" and tensor.shape[:1] == (len(rows),):
                whole = [all(map(math.isfinite, each)) for each in tensor.reshape(len(rows), -1).tolist()]
                finite = [one and other for one, other in zip(finite, whole, strict=True)]
        kept = {name: tensor[finite] for name, tensor in tensors.items()} if any(finite) else tensors
        outputs = understand_outputs(kept, sum(finite) or len(rows))
        classes = understand_classes(outputs, kept, graph.metadata)
        gives = Gives(roles=tuple(each.role for each in outputs), classes=classes)
        return _Trial(finite, "its output is no finite number", given_of(_one_of_each(gives)))


def _one_of_each(gives: Gives) -> Gives:
    """Without a value beside classes: a graph's scores are no answer where it has probabilities or a label."""
    if "value" in gives.roles and len(gives.roles) > 1:
        return msgspec.structs.replace(gives, roles=tuple(each for each in gives.roles if each != "value"))
    return gives


def _features(taken: InferredObject) -> tuple[Feature, ...]:
    return tuple(
        Feature(each.name, FEATURE_KINDS[each.declared.logical_type or ""], nullable=not each.declared.required)
        for each in taken.columns
    )


def _is_whole(values: Sequence[Any]) -> bool:
    return all(each is not None and (not isinstance(each, float) or math.isfinite(each)) for each in values)
