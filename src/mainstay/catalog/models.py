"""From what was brought to a model that was seen to run: a graph in process, a process of its own, or one elsewhere.

A model of scikit-learn, XGBoost or LightGBM becomes a graph when that answers as it does on every sample row; where it
has no such graph it runs isolated, and the reason is kept.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import msgspec
import numpy as np

from mainstay.capability.types import OutputField
from mainstay.catalog import conversion
from mainstay.catalog.agreement import check_agreement
from mainstay.catalog.conversion import Limits, NotConverted, Reply, Request
from mainstay.catalog.graph import Graph, understand_classes, understand_outputs
from mainstay.catalog.isolation import isolated_model
from mainstay.catalog.samples import features_of, mapping_of
from mainstay.contract.rules import is_classified
from mainstay.errors import Failed, Misuse
from mainstay.runtime.isolated import run_isolated
from mainstay.runtime.outputs import build_mapper
from mainstay.runtime.remote import check_remote, read_secret, run_remote
from mainstay.runtime.remote_model import RemoteModel
from mainstay.runtime.types import Prediction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from mainstay.capability.load import Declared
    from mainstay.capability.types import ModelSource
    from mainstay.catalog.sources import Sources
    from mainstay.catalog.types import Conversion
    from mainstay.runtime.types import Feature, ModelInput, ModelOutput, Result, Row

REMOTE_BATCH_SECONDS: Final = 60.0
DECLARED_ISOLATED: Final = "model.run is isolated"


class Tried(NamedTuple):
    """What a model gave for a row, and the class that it chose; None where it has no classes."""

    result: Result
    chosen: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model that was run on every sample row. The fields up to `notes` are as in a manifest."""

    runtime: Literal["onnx", "isolated", "remote"]
    inputs: tuple[ModelInput, ...] = ()
    outputs: tuple[ModelOutput, ...] = ()
    classes: tuple[str | int | bool, ...] = ()
    conversion: Conversion | None = None
    isolated_because: str | None = None
    notes: tuple[str, ...] = ()
    converted: bytes | None = None  # the graph, where one was made
    samples: list[Result]  # what it gave for every sample row
    run: Callable[[Sequence[Row]], list[Tried]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What getting a model may use."""

    limits: Limits
    leaving: Callable[[Declared], Callable[[Row], Row]] | None  # makes what of a row may leave for a remote model
    tell: Callable[[str], None]


def get_model(sources: Sources, rows: Sequence[Row], means: Means) -> Model:
    """The model, run on every sample row.

    Raises Misuse when it cannot be taken as it is, Failed when it does not run.
    """
    source = sources.declared.capability.model
    match source.kind:
        case "onnx":
            means.tell("running the graph")
            return _bring(sources, rows)
        case "python":
            return _isolate(sources, rows, means)
        case "remote":
            return _reach(sources.declared, source, rows, means)
        case "sklearn" | "xgboost" | "lightgbm":
            if source.run == "isolated":
                return _isolate(sources, rows, means, because=DECLARED_ISOLATED)
            try:
                return _convert(sources, _request(sources.declared, source.kind, rows, means.limits), rows, means)
            except NotConverted as error:
                notes = (error.hint,) if error.hint else ()
                return _isolate(sources, rows, means, because=error.reason, notes=notes)


# In process.


def _bring(sources: Sources, rows: Sequence[Row]) -> Model:
    """Kind onnx: what the graph takes and gives is found out."""
    declared = sources.declared
    artifact = sources.content(_file(declared))
    graph = Graph(artifact)
    inputs = graph.inputs(features_of(declared))
    tensors = _run_graph(graph, inputs, graph.output_names, declared, rows)
    outputs = understand_outputs(tensors, len(rows))
    classes = understand_classes(outputs, tensors, graph.metadata)
    return _in_process(graph, declared, inputs, outputs, classes, tensors)


def _convert(sources: Sources, request: Request, rows: Sequence[Row], means: Means) -> Model:
    """Convert, run, compare. Integers go into float tensors first, as most models take them; when that does not agree,
    which is how encoders of integer categories may fail, they are tried as integers. Raises NotConverted.
    """
    means.tell("converting the model to ONNX")
    source = sources.content(_file(sources.declared))
    reply, artifact = conversion.convert(request, source)
    try:
        model = _compare(reply, artifact, sources.declared, rows, request)
    except NotConverted as first:
        if not reply.has_integer_choice:
            raise
        means.tell("converting again, with integers as integers")
        try:
            reply, artifact = conversion.convert(msgspec.structs.replace(request, integers="int64"), source)
            model = _compare(reply, artifact, sources.declared, rows, request)
        except (NotConverted, Misuse, Failed):
            raise first from None  # the first attempt says what is wrong with the model as it is
    assert model.conversion is not None, "it was compared"
    means.tell(f"the conversion agrees: largest difference {model.conversion.max_difference:g} on {len(rows):,} rows")
    return model


def _compare(reply: Reply, artifact: bytes, declared: Declared, rows: Sequence[Row], request: Request) -> Model:
    """The graph as a model. Raises NotConverted when it does not run, or does not answer as the original."""
    tolerance = declared.capability.model.tolerance
    try:
        graph = Graph(artifact)
        tensors = _run_graph(graph, reply.inputs, [each.name for each in reply.outputs], declared, rows)
        compared = check_agreement(reply, tensors, len(rows), tolerance)
    except (Failed, Misuse) as error:
        raise NotConverted(error.message, error.hint) from None
    model = _in_process(graph, declared, reply.inputs, reply.outputs, reply.classes, tensors)
    return replace(
        model, conversion=compared, converted=artifact, notes=(*reply.notes, *_never_missing(request, reply))
    )


def _in_process(
    graph: Graph,
    declared: Declared,
    inputs: tuple[ModelInput, ...],
    outputs: tuple[ModelOutput, ...],
    classes: tuple[str | int | bool, ...],
    tensors: Mapping[str, np.ndarray[Any, Any]],
) -> Model:
    """A graph that gave `tensors` for the sample rows.

    Raises Misuse when the declaration asks for what it does not give, Failed when a number it gave is not finite.
    """
    _check_finite(outputs, tensors)
    mapping = mapping_of(declared)
    if any(each.role in ("label", "probabilities") for each in outputs):
        mapping |= _CHOSEN
    try:
        predictions = build_mapper(outputs, classes, mapping)
    except ValueError as error:
        raise Misuse(str(error)) from None

    def read(found: Mapping[str, np.ndarray[Any, Any]]) -> list[Tried]:
        columns, confidence = predictions(found)
        values = list(zip(*columns, strict=True))
        stated = [None] * len(values) if confidence is None else confidence
        return _split(list(map(Prediction, values, stated)), mapping)

    names = [each.name for each in outputs]

    def run(rows: Sequence[Row]) -> list[Tried]:
        try:
            return read(graph.run(inputs, declared.input.fields, names, rows))
        except Failed as error:
            if len(rows) == 1:
                return [Tried(error, None)]
        half = len(rows) // 2
        return run(rows[:half]) + run(rows[half:])

    samples = [result for result, _ in read(tensors)]
    return Model(runtime="onnx", inputs=inputs, outputs=outputs, classes=classes, samples=samples, run=run)


_CHOSEN: Final = {"": OutputField(take="label")}  # one more field, of a name that no contract has


def _split(results: Sequence[Result], mapping: Mapping[str, OutputField]) -> list[Tried]:
    """Take the class apart again, where it was asked for."""
    if "" not in mapping:
        return [Tried(result, None) for result in results]
    return [
        Tried(Prediction(each.values[:-1], each.confidence), each.values[-1])
        if isinstance(each, Prediction)
        else Tried(each, None)
        for each in results
    ]


def _run_graph(
    graph: Graph, inputs: Sequence[ModelInput], names: Sequence[str], declared: Declared, rows: Sequence[Row]
) -> dict[str, Any]:
    fields = declared.input.fields
    tensors = graph.run(inputs, fields, names, rows)
    graph.check_rows_are_independent(inputs, fields, rows, tensors)
    return tensors


def _check_finite(outputs: Sequence[ModelOutput], tensors: Mapping[str, np.ndarray[Any, Any]]) -> None:
    for output in outputs:
        tensor = tensors[output.name]
        if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
            row = int(np.isfinite(tensor.reshape(len(tensor), -1)).all(axis=1).argmin()) + 1
            raise Failed(f"output {output.name!r} of sample row {row} is no finite number")


def _request(declared: Declared, library: conversion.Library, rows: Sequence[Row], limits: Limits) -> Request:
    features, model = features_of(declared), declared.capability.model
    places = {name: place for place, name in enumerate(declared.input.fields)}
    wanted = [places[feature.name] for feature in features]
    return Request(
        library=library,
        source="model" + PurePosixPath(_file(declared)).suffix.lower(),
        features=features,
        features_declared=bool(model.features),
        rows=[tuple(row[place] for place in wanted) for row in rows],
        trusted_types=model.trusted_types,
        integers="float",
        limits=limits,
    )


def _never_missing(request: Request, reply: Reply) -> Iterable[str]:
    """A note on fields that may be missing and never are in the sample: there the conversion was not compared."""
    used = {field for each in reply.inputs for field in each.fields}
    unseen = [
        feature.name
        for place, feature in enumerate(request.features)
        if feature.nullable and feature.name in used and all(row[place] is not None for row in request.rows)
    ]
    if unseen:
        yield f"no sample row lacks {', '.join(unseen)}: how the model takes a gap there was not compared"


def _file(declared: Declared) -> str:
    file = declared.capability.model.file
    assert file is not None, "every kind that is opened from a file declares one"
    return file


# In a process of its own.


def _isolate(
    sources: Sources,
    rows: Sequence[Row],
    means: Means,
    *,
    because: str | None = None,
    notes: tuple[str, ...] = (),
) -> Model:
    means.tell("running the model in a process of its own")
    model = isolated_model(sources.root, sources.declared)
    seconds = means.limits.wall_seconds
    samples, info = run_isolated(model, rows, seconds=seconds)
    asked = model
    if info.classes:
        asked = msgspec.structs.replace(
            model, output=model.output | _CHOSEN, output_fields=(*model.output_fields, *_CHOSEN)
        )
    return Model(
        runtime="isolated",
        classes=info.classes,
        isolated_because=because,
        notes=(*notes, *info.notes),
        samples=samples,
        run=lambda more: _split(run_isolated(asked, more, seconds=seconds)[0], asked.output),
    )


# Elsewhere.


def _reach(declared: Declared, source: ModelSource, rows: Sequence[Row], means: Means) -> Model:
    remote = source.remote
    assert remote is not None, "kind remote declares where it is"
    features, output = features_of(declared), mapping_of(declared)
    leaving = None if means.leaving is None else means.leaving(declared)
    if leaving is None and _is_any_classified(declared, features):
        raise Misuse("the remote model takes classified fields: expected a way to protect them, found none")
    secret = read_secret(remote)
    means.tell(f"asking {remote.url} for its model")
    asyncio.run(check_remote(remote, features, output, secret))

    def run(some: Sequence[Row]) -> list[Result]:
        model = RemoteModel(
            remote,
            fields=declared.input.fields,
            features=features,
            output=output,
            confidence=source.confidence,
            secret=secret,
        )
        given = some if leaving is None else list(map(leaving, some))
        return run_remote(model, given, batch=declared.capability.limits.batch, seconds=REMOTE_BATCH_SECONDS)

    means.tell("running the samples through the remote model")
    return Model(runtime="remote", samples=run(rows), run=lambda more: _split(run(more), output))


def _is_any_classified(declared: Declared, features: Sequence[Feature]) -> bool:
    names = {each.name for each in features}
    return any(is_classified(each) for each in declared.input.properties if each.name in names)
