"""From rows of values to the named tensors an ONNX graph takes. Compiled once per version."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mainstay.runtime.types import ModelInput, Row

Feed: TypeAlias = "dict[str, np.ndarray[Any, Any]]"
Column: TypeAlias = "np.ndarray[Any, Any] | list[str | None]"
"""The values of a field, row by row: texts, or an array of doubles (NaN where missing), of 64-bit integers or of
booleans (none missing)."""
Columns: TypeAlias = "Mapping[str, Column]"
"""By the names of the fields, each as long as the others."""

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


def build_column_feeder(inputs: Sequence[ModelInput]) -> Callable[[Columns], Feed]:
    """The same as `build_feeder`, for columns. The function raises TypeError for a column that a tensor cannot take."""
    wanted = [(each.name, each.kind, each.fields) for each in inputs]
    return lambda columns: {name: _beside(kind, [columns[field] for field in fields]) for name, kind, fields in wanted}


def _beside(kind: str, columns: Sequence[Column]) -> np.ndarray[Any, Any]:
    if kind == "string":
        if not all(isinstance(column, list) for column in columns):
            raise TypeError("expected texts, found numbers")
        return _tensor(kind, [tuple(column) for column in columns])
    made: np.ndarray[Any, Any] = np.empty((len(columns[0]), len(columns)), _NUMERIC[kind])
    for place, column in enumerate(columns):
        if isinstance(column, list) or (made.dtype.kind in "ib" and column.dtype != made.dtype):
            raise TypeError(f"expected a column for a tensor of {kind}, found other values")
        # A large integer becomes a double first, and only then a float, as it does when it comes in a row.
        made[:, place] = column.astype(np.float64, copy=False) if made.dtype.kind == "f" else column
    return made


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
