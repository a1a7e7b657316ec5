"""The columns of an intake table, by what the contract declares, and rows of any kind of file as those columns.

| logicalType | column |
|---|---|
| string, time | String |
| date | Date |
| timestamp | Datetime in microseconds, UTC; with `timezone: false` without a zone |
| integer | Int64; of format u64 Decimal(20, 0), of i128 and u128 String |
| number | Float64 |
| boolean | Boolean |
| object, array, declared below too | Struct, List; in them, dates, times and integers over 64 bits are String |
| object, array, none: left open | String, the JSON of the value |

They hang on the contract alone, so that a feed may change from CSV to Parquet. A timestamp is kept to the microsecond.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import msgspec
import polars as pl

from mainstay.contract.columns_cells import cell_type
from mainstay.contract.columns_records import as_json, plain, temporal_texts
from mainstay.errors import NOT_READ

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mainstay.contract.rules import Node

FIELD_COLUMNS: Final = "mainstay.columns"  # the table's property that says which field stands in which column

_UNFIT: Final = re.compile(r"[\s,;{}()=\x00-\x1f]")  # for the name of a column, of which there are 255 characters
_LONGEST: Final = 200
_OURS: Final = "mainstay_"
_WIDE: Final = frozenset({"u64", "i128", "u128"})
_OPEN: Final = frozenset({"any", "object", "array"})
_UTC: Final = pl.Datetime("us", "UTC")
Origin: TypeAlias = Literal["columns", "cells", "records"]
"""Where values come from: a column of a Parquet file; CSV, as `columns_cells` reads it; decoded records."""

_decode: Final = msgspec.json.Decoder().decode


def assigned(fields: Iterable[str], given: Mapping[str, str]) -> dict[str, str]:
    """The column of each field. Who has one keeps it; another gets its own name, or one like it that is free.

    Names of columns are those that any engine reads: no spaces and none of `,;{}()=`, different in more than case.
    """
    columns = dict(given)
    taken = {column.casefold() for column in columns.values()}
    for field in fields:
        if field in columns:
            continue
        plain_name = _UNFIT.sub("_", field)[:_LONGEST] or "_"
        if plain_name.casefold().startswith(_OURS):
            plain_name = f"_{plain_name}"
        columns[field] = _free(plain_name, taken)
        taken.add(columns[field].casefold())
    return columns


def renewed(field: str, columns: Mapping[str, str]) -> dict[str, str]:
    """The same with another column for a field, whose old one cannot hold what is declared now."""
    taken = {column.casefold() for column in columns.values()}
    return {**columns, field: _free(columns[field], taken)}


def _free(name: str, taken: set[str]) -> str:
    if name.casefold() not in taken:
        return name
    number = 2
    while f"{name}_{number}".casefold() in taken:
        number += 1
    return f"{name}_{number}"


def read_columns(properties: Mapping[str, str]) -> dict[str, str]:
    """The column of each field of the contract, by the properties of an intake table (`Table.properties`)."""
    try:
        return msgspec.json.decode(properties.get(FIELD_COLUMNS, "{}"), type=dict[str, str])
    except NOT_READ:
        return {}


def column_type(node: Node) -> pl.DataType:
    """The type of the column of a field."""
    match node.kind:
        case "date":
            return pl.Date()
        case "timestamp":
            return pl.Datetime("us") if node.options is not None and node.options.timezone is False else _UTC
        case "integer":
            return _integer_type(node)
        case _:
            return _inner_type(node)


def _integer_type(node: Node) -> pl.DataType:
    form = node.options.format if node.options is not None else None
    if form not in _WIDE:
        return pl.Int64()
    return pl.Decimal(20, 0) if form == "u64" else pl.String()


def _inner_type(node: Node) -> pl.DataType:
    """The type of a value inside an object or array."""
    if node.fields is not None:
        return pl.Struct({name: _inner_type(child) for name, child in node.fields})
    if node.items is not None:
        return pl.List(_inner_type(node.items))
    kind = cell_type(node)
    return pl.String() if node.kind == "integer" and kind != pl.Int64() else kind


def fitted(node: Node, values: pl.Series, origin: Origin) -> pl.Series:
    """Good values of a field, as its column has them."""
    match node.kind:
        case "integer" | "number" | "boolean" | "string":
            return values.cast(column_type(node))
        case "date":
            return values.str.to_date("%Y-%m-%d") if values.dtype == pl.String else values.cast(pl.Date)
        case "timestamp":
            return _instants(node, values)
        case "time":
            return temporal_texts(values, node) if values.dtype == pl.Time else values.cast(pl.String)
        case _:
            return _nested(node, values, origin)


def _instants(node: Node, values: pl.Series) -> pl.Series:
    kind = column_type(node)
    if isinstance(values.dtype, pl.Datetime):
        if values.dtype.time_zone is None and kind == _UTC:
            return values.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
        return values.cast(kind)
    texts = values.cast(pl.String)
    if kind == _UTC:
        return texts.str.to_datetime("%+", time_unit="us", time_zone="UTC")
    return texts.str.to_uppercase().str.to_datetime("%Y-%m-%dT%H:%M:%S%.f", time_unit="us")  # RFC 3339 allows a t


def _nested(node: Node, values: pl.Series, origin: Origin) -> pl.Series:
    kind = _inner_type(node)
    if node.kind in _OPEN and node.fields is None and node.items is None:
        if origin == "records" or (origin == "cells" and node.kind != "any"):
            return values  # JSON already
        found: Sequence[Any] = as_json(values, node)
    elif origin == "cells":
        found = [None if text is None else _decode(text) for text in values.to_list()]
    elif origin == "records" or values.dtype == kind:
        return values.cast(kind)
    else:
        found = plain(values, node)
    return pl.Series(values.name, [_value(node, value) for value in found], dtype=kind)


def _value(node: Node, value: Any) -> Any:
    """JSON as `_inner_type` holds it."""
    if value is None:
        return None
    if node.fields is not None:
        return {name: _value(child, value.get(name)) for name, child in node.fields}
    if node.items is not None:
        return [_value(node.items, each) for each in value]
    if node.kind in _OPEN:  # those with something declared below were seen to
        return json.dumps(value, ensure_ascii=False)
    if node.kind == "number":
        return float(value)
    return str(value) if _inner_type(node) == pl.String else value
