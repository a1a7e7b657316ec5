"""Cells of text, read over whole columns as the types of a contract: what `columns_records.read_cell` reads one by one.

Only the plainest forms are read by the engine, whose own idea of a number is wider. Whatever else there is goes through
`read_cell`, once for each distinct text.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from mainstay.contract.columns_masks import INTEGER_RANGES, value_mask
from mainstay.contract.columns_records import read_cell
from mainstay.contract.violations import find_in_fields

if TYPE_CHECKING:
    from mainstay.contract.rules import Node

_WIDE: Final[dict[str, pl.DataType]] = {"u64": pl.UInt64(), "i128": pl.Int128(), "u128": pl.UInt128()}
_PLAIN: Final = {
    "integer": r"\A(?:0|-?[1-9][0-9]{0,17})\z",
    "number": r"\A-?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,40})?\z",
    "boolean": r"\A(?:true|false)\z",
}


def cell_type(node: Node) -> pl.DataType:
    """The type that the cells of a property have once they are read; it holds every value that the rules allow."""
    match node.kind:
        case "integer":
            name = node.options.format if node.options is not None else None
            return _WIDE.get(name or "i64", pl.Int64())
        case "number":
            return pl.Float64()
        case "boolean":
            return pl.Boolean()
        case _:
            return pl.String()


def typed_cells(node: Node | None, texts: pl.Series) -> pl.Series:
    """The values of a column of cells; null where there is none, or none of the type."""
    if node is None or node.kind not in _PLAIN:
        return texts
    kind = cell_type(node)
    is_plain = texts.str.contains(_PLAIN[node.kind])
    plain_texts = texts if is_plain.all() else texts.set(~is_plain, None)
    read = plain_texts == "true" if node.kind == "boolean" else plain_texts.cast(kind, strict=False)
    others = texts.filter(~is_plain).unique().drop_nulls()
    if others.is_empty():
        return read
    values = [_fitting(read_cell(text, node), kind) for text in others.to_list()]
    found = pl.Series(values, dtype=kind, strict=True)
    return read.zip_with(is_plain.fill_null(value=True), texts.replace_strict(others, found, default=None))


def cell_mask(node: Node, texts: pl.Expr, values: pl.Expr) -> pl.Expr | None:
    """Whether cells, given as they are and as `typed_cells` makes them, keep a node's rules."""
    if node.kind in {"object", "array"}:
        kept: pl.Expr | None = texts.map_batches(partial(_walked, node), return_dtype=pl.Boolean, is_elementwise=True)
    else:
        kept = value_mask(node, cell_type(node), values)
        if node.kind in _PLAIN:
            kept = values.is_not_null() if kept is None else values.is_not_null() & kept
    if node.required:
        return texts.is_not_null() if kept is None else texts.is_not_null() & kept
    return None if kept is None else texts.is_null() | kept


def _fitting(value: Any, kind: pl.DataType) -> Any:
    """A value read from a cell, as one of a type, or None where it is not."""
    if isinstance(value, bool):
        return value if kind == pl.Boolean else None
    if isinstance(value, int | float) and kind == pl.Float64:
        return float(value)
    if isinstance(value, int) and kind.is_integer():
        low, high = INTEGER_RANGES[kind]
        return value if low <= value <= high else None
    return None


def _walked(node: Node, texts: pl.Series) -> pl.Series:
    """Whether cells of JSON keep the rules of an object or array, by the walk over records."""
    fields = [("cell", node)]
    distinct = texts.drop_nulls().unique()
    bad = [text for text in distinct.to_list() if find_in_fields(fields, dict(fields), {"cell": read_cell(text, node)})]
    return ~texts.is_in(bad) if bad else pl.repeat(True, len(texts), dtype=pl.Boolean, eager=True)  # noqa: FBT003 - the value to repeat
