"""Rows as bytes that are the same wherever they are read: what the digest of a snapshot is made over.

The encoding knows nothing of Parquet, Arrow or a library's version. All numbers are little-endian.

    rows      = "mainstay-rows/1" LF · schema LF · part*        schema: JSON, [[name, type], …]
    part      = u64 rows · column*                              in the order of the schema
    column    = validity · values                               validity: a bit per row, the first lowest; 1 is a value
    values    integers, dates (days) and instants (us) since 1970: in their width; 0 where null
              floats: IEEE 754, every NaN 0x7FC00000 or 0x7FF8000000000000; 0 where null
              booleans: a bit per row; 0 where null
              text, bytes, decimals (as text): u32 length per row, then all of them; length 0 where null
              lists: u32 items per row, 0 where null, then the items as a column
              structs: the fields, each a column
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np
import polars as pl

from mainstay.errors import Misuse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import DTypeLike, NDArray
    from polars._typing import PolarsDataType

MAGIC: Final = b"mainstay-rows/1\n"

_WIDTHS: Final[dict[type[pl.DataType], tuple[str, str]]] = {
    pl.Int8: ("int8", "<i1"),
    pl.Int16: ("int16", "<i2"),
    pl.Int32: ("int32", "<i4"),
    pl.Int64: ("int64", "<i8"),
    pl.Float32: ("float32", "<f4"),
    pl.Float64: ("float64", "<f8"),
    pl.Date: ("date", "<i4"),
    pl.Datetime: ("timestamp", "<i8"),
}


def type_name(kind: pl.DataType) -> str:
    """What a type is called in a header. Raises Misuse for one that no table holds."""
    match kind:
        case pl.Boolean():
            return "boolean"
        case pl.String():
            return "string"
        case pl.Binary():
            return "binary"
        case pl.Datetime():
            return "timestamp" if kind.time_zone is None else "timestamp_utc"
        case pl.Decimal():
            return f"decimal({kind.precision},{kind.scale})"
        case pl.List():
            return f"list<{type_name(_instance(kind.inner))}>"
        case pl.Struct():
            return f"struct<{','.join(f'{field.name}:{type_name(_instance(field.dtype))}' for field in kind.fields)}>"
    if type(kind) not in _WIDTHS:
        raise Misuse(f"expected a type that a table holds, found {kind}")
    return _WIDTHS[type(kind)][0]


def _instance(kind: PolarsDataType) -> pl.DataType:
    return kind if isinstance(kind, pl.DataType) else kind()


def encode_header(schema: pl.Schema) -> bytes:
    """What stands before the first part."""
    return MAGIC + msgspec.json.encode([[name, type_name(kind)] for name, kind in schema.items()]) + b"\n"


def encode_part(rows: pl.DataFrame) -> Iterator[bytes]:
    """The bytes of some rows, in pieces. They need a few times the memory of one column."""
    yield rows.height.to_bytes(8, "little")
    for column in rows.iter_columns():
        yield from _encode(column)


def _encode(column: pl.Series) -> Iterator[bytes]:
    yield _bits(column.is_not_null().to_numpy())
    kind = column.dtype
    if isinstance(kind, pl.Boolean):
        yield _bits(column.fill_null(value=False).to_numpy())
    elif isinstance(kind, pl.String):
        yield _numbers(column.str.len_bytes().fill_null(0), "<u4")
        yield "".join(column.drop_nulls().to_list()).encode()
    elif isinstance(kind, pl.Binary):
        yield _numbers(column.bin.size().fill_null(0), "<u4")
        yield b"".join(column.drop_nulls().to_list())
    elif isinstance(kind, pl.Decimal):
        text = column.cast(pl.String)
        yield _numbers(text.str.len_bytes().fill_null(0), "<u4")
        yield "".join(text.drop_nulls().to_list()).encode()
    elif isinstance(kind, pl.List):
        lengths = column.list.len().fill_null(0)
        yield _numbers(lengths, "<u4")
        yield from _encode(column.filter(lengths > 0).explode())  # exploding an empty list gives a null
    elif isinstance(kind, pl.Struct):
        for field in kind.fields:
            yield from _encode(column.struct.field(field.name))
    else:
        yield _fixed(column, kind)


def _fixed(column: pl.Series, kind: pl.DataType) -> bytes:
    name, width = _WIDTHS[type(kind)]
    if name.startswith("float"):
        values = column.fill_null(0).to_numpy().astype(width)  # a copy: NaN is replaced in it
        values[np.isnan(values)] = np.nan
        return values.tobytes()
    return _numbers(column.to_physical().fill_null(0), width)


def _numbers(values: pl.Series, width: DTypeLike) -> bytes:
    return values.to_numpy().astype(width, copy=False).tobytes()


def _bits(values: NDArray[np.bool_]) -> bytes:
    return np.packbits(values, bitorder="little").tobytes()
