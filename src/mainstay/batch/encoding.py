"""Rows of a table as the JSON that a caller would send, and the same rows as columns for a model.

What a value of a column is as JSON is said by `contract.columns_records`; a null is left out. The text is that of
msgspec. A table of plain columns with plain names is written by the engine, whose text is the same but for doubles from
10^15 on; rows that hold such, and tables with anything else, are written value by value.
"""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
import polars as pl

from mainstay.contract.columns_records import TEMPORAL, TEXTS, plain, temporal_texts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mainstay.contract.rules import Node
    from mainstay.runtime.tensors import Column

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_ .-]+", re.ASCII)
_PLAIN_INTEGERS: Final = (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64)
_WRITTEN_ALIKE: Final = 1e15  # doubles below, written by the engine and by msgspec, are the same text
_NUMERIC_KINDS: Final = frozenset({"number", "integer", "boolean"})
_TEXT_KINDS: Final = frozenset({"string", "date", "timestamp", "time"})
_encode = msgspec.json.Encoder().encode


def is_flat(nodes: Mapping[str, Node]) -> bool:
    """Whether an object has scalars only, so that its rows can be given as columns."""
    return all(node.kind in _NUMERIC_KINDS | _TEXT_KINDS for node in nodes.values())


def encode_rows(frame: pl.DataFrame, nodes: Mapping[str, Node]) -> list[bytes]:
    """Each row as JSON: compact, in the order of the columns, without nulls."""
    written = _written_by_engine(frame, nodes)
    if written is None:
        return _one_by_one(frame, nodes)
    texts, others = written
    if len(others):
        for place, text in zip(others.tolist(), _one_by_one(frame[others], nodes), strict=True):
            texts[place] = text
    return texts


def _one_by_one(frame: pl.DataFrame, nodes: Mapping[str, Node]) -> list[bytes]:
    columns = [plain(frame[name], nodes.get(name)) for name in frame.columns]
    names = frame.columns
    return [
        encode_record({name: value for name, value in zip(names, values, strict=True) if value is not None})
        for values in (zip(*columns, strict=True) if columns else [()] * frame.height)
    ]


def encode_record(record: dict[str, Any]) -> bytes:
    """One record as JSON. What JSON has no form for is written as Python's `json` does, and is refused as malformed."""
    if all(_is_plain(value) for value in record.values()):
        return _encode(record)
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def _is_plain(value: Any) -> bool:
    """Whether msgspec writes what it is: it writes null for a number that is not finite."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, int):
        return -(2**63) <= value < 2**64
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    return not isinstance(value, list) or all(map(_is_plain, value))


def _written_by_engine(
    frame: pl.DataFrame, nodes: Mapping[str, Node]
) -> tuple[list[bytes], np.ndarray[Any, Any]] | None:
    """The texts and which rows are yet to be written by others; None where that is all of them."""
    if not all(map(_PLAIN_NAME.fullmatch, frame.columns)):
        return None
    columns: list[pl.Series] = []
    others = np.zeros(frame.height, np.bool_)
    large = _large_columns(frame)
    for series in frame.get_columns():
        kind, node = series.dtype, nodes.get(series.name)
        if series.null_count() == len(series):
            continue
        if kind.is_float():
            doubles = series if kind == pl.Float64 else series.cast(pl.Float64)
            if series.name in large:
                others |= ~(doubles.abs() < _WRITTEN_ALIKE).fill_null(value=True).to_numpy()
            if node is not None and node.kind == "integer":
                others |= (doubles.floor() != doubles).fill_null(value=False).to_numpy()
                doubles = doubles.cast(pl.Int64, strict=False)
            columns.append(doubles)
        elif kind in _PLAIN_INTEGERS or kind == pl.Boolean or kind == pl.String:  # noqa: PLR1714 - types compare oddly
            columns.append(series)
        elif kind in TEXTS:
            columns.append(series.cast(pl.String))
        elif kind in TEMPORAL:
            columns.append(temporal_texts(series, node).alias(series.name))
        else:
            return None
    if not columns:
        return [b"{}"] * frame.height, np.flatnonzero(others)
    text = pl.DataFrame(columns).select(pl.struct(pl.all()).struct.json_encode()).to_series()
    return _without_nulls(text, columns).cast(pl.Binary).to_list(), np.flatnonzero(others)


def _large_columns(frame: pl.DataFrame) -> frozenset[str]:
    """The columns of doubles some of which the engine would write otherwise; looked for in one pass over all."""
    names = [name for name, kind in frame.schema.items() if kind.is_float()]
    if not names or not frame.height:
        return frozenset()
    is_small = frame.select((pl.col(name).abs().cast(pl.Float64) < _WRITTEN_ALIKE).all() for name in names)
    return frozenset(name for name, small in zip(names, is_small.row(0), strict=True) if not small)


def _without_nulls(text: pl.Series, columns: Sequence[pl.Series]) -> pl.Series:
    """The objects without the members that are null.

    Inside a text every quote has a backslash before it, and no name has a quote, so `"name":null` is found only where
    a member is: behind its first or another quote, and before a comma or the end.
    """
    names = [column.name for column in columns if column.null_count()]
    if not names:
        return text
    text = text.str.replace_many([f'"{name}":null,' for name in names], [""] * len(names))
    last = columns[-1].name
    if last in names:
        text = text.str.replace_many([f',"{last}":null}}', f'{{"{last}":null}}'], ["}", "{}"])
    return text


def columns_for_model(frame: pl.DataFrame, nodes: Mapping[str, Node]) -> dict[str, Column]:
    """The values of each declared field, of rows that keep the contract; `is_flat` holds."""
    return {
        name: _column(frame[name] if name in frame.columns else pl.Series([None] * frame.height, dtype=pl.Null), node)
        for name, node in nodes.items()
    }


def _column(series: pl.Series, node: Node) -> Column:
    if node.kind in _TEXT_KINDS:
        if series.dtype in TEMPORAL:
            series = temporal_texts(series, node)
        texts: list[str | None] = series.cast(pl.String).to_list()
        return texts
    if series.null_count() or node.kind == "number" or series.dtype.is_decimal():
        if series.dtype.is_decimal():
            series = series.cast(pl.String)  # of longer decimals only their text says which double is the nearest
        doubles = series if series.dtype == pl.Float64 else series.cast(pl.Float64)
        return (doubles.fill_null(math.nan) if doubles.null_count() else doubles).to_numpy()
    return series.to_numpy() if series.dtype == pl.Boolean else series.cast(pl.Int64).to_numpy()


def rows_of(columns: Mapping[str, Column], nodes: Mapping[str, Node]) -> list[tuple[Any, ...]]:
    """The same values as rows, each as the contract's validator would give it; None where missing."""
    listed = [_values(columns[name], node) for name, node in nodes.items()]
    return list(zip(*listed, strict=True))


def _values(column: Column, node: Node) -> list[Any]:
    if isinstance(column, list):
        return column
    values: list[Any] = column.tolist()
    if column.dtype != np.float64:
        return values
    if node.kind == "number":
        return [None if value != value else value for value in values]  # noqa: PLR0124 - true of NaN only
    make = int if node.kind == "integer" else bool
    return [None if value != value else make(value) for value in values]  # noqa: PLR0124
