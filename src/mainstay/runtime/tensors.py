"""From rows of values to the named tensors an ONNX graph takes. Compiled once per version."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mainstay.runtime.types import ModelInput, Row

Feed: TypeAlias = "dict[str, np.ndarray[Any, Any]]"

_NUMERIC = {"float": np.float32, "double": np.float64, "int64": np.int64, "bool": np.bool_}


def build_feeder(inputs: Sequence[ModelInput], fields: Sequence[str]) -> Callable[[Sequence[Row]], Feed]:
    """A function from rows, each with one value per name in `fields`, to the graph's feed.

    Every tensor has shape (n_rows, n_columns of the input). A missing value (None) is NaN in a float tensor and the
    empty string in a string tensor; in an integer tensor it raises TypeError, because there is no integer for it.
    Raises ValueError when an input names a field that is not in `fields`.
    """
    places = {name: place for place, name in enumerate(fields)}
    missing = sorted({field for model_input in inputs for field in model_input.fields} - places.keys())
    if missing:
        raise ValueError(f"the model takes fields that the input does not have: {', '.join(missing)}")
    if len(inputs) == 1:
        return _single(inputs[0], [places[field] for field in inputs[0].fields], len(fields))
    columns = [(each.name, each.kind, [places[field] for field in each.fields]) for each in inputs]

    def feed(rows: Sequence[Row]) -> Feed:
        by_field = list(zip(*rows, strict=True))
        return {name: _tensor(kind, [by_field[place] for place in wanted]) for name, kind, wanted in columns}

    return feed


def _single(model_input: ModelInput, wanted: list[int], width: int) -> Callable[[Sequence[Row]], Feed]:
    """One tensor; the usual case of all fields in order needs no rearranging."""
    name, kind = model_input.name, model_input.kind
    if kind == "string" or len(wanted) == 1:
        return lambda rows: {name: _tensor(kind, [tuple(row[place] for row in rows) for place in wanted])}
    dtype = _NUMERIC[kind]
    if wanted == list(range(width)):
        return lambda rows: {name: np.array(rows, dtype)}
    pick = itemgetter(*wanted)
    return lambda rows: {name: np.array([pick(row) for row in rows], dtype)}


def _tensor(kind: str, columns: list[tuple[Any, ...]]) -> np.ndarray[Any, Any]:
    """Columns of values side by side, (n_rows, n_columns)."""
    if kind == "string":
        texts = [["" if value is None else value for value in column] for column in columns]
        return np.array(texts, dtype=object).T
    if len(columns) == 1:
        return np.array(columns[0], _NUMERIC[kind]).reshape(-1, 1)
    return np.array(columns, _NUMERIC[kind]).T
