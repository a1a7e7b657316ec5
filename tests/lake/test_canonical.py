from __future__ import annotations

import json
import math
import struct
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainstay.errors import Misuse
from mainstay.lake.canonical import encode_header, encode_part, type_name

KINDS: dict[str, tuple[pl.DataType, st.SearchStrategy[Any]]] = {
    "int8": (pl.Int8(), st.integers(-128, 127)),
    "int64": (pl.Int64(), st.integers(-(2**63), 2**63 - 1)),
    "float32": (pl.Float32(), st.floats(width=32)),
    "float64": (pl.Float64(), st.floats()),
    "boolean": (pl.Boolean(), st.booleans()),
    "string": (pl.String(), st.text(max_size=5)),
    "binary": (pl.Binary(), st.binary(max_size=5)),
    "date": (pl.Date(), st.dates(date(1900, 1, 1), date(2100, 1, 1))),
    "timestamp_utc": (
        pl.Datetime("us", "UTC"),
        st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - bounds have none
    ),
    "decimal(6,2)": (pl.Decimal(6, 2), st.decimals(-1000, 1000, places=2)),
    "list<string>": (pl.List(pl.String()), st.lists(st.none() | st.text(max_size=3), max_size=3)),
    "list<list<int8>>": (
        pl.List(pl.List(pl.Int8())),
        st.lists(st.none() | st.lists(st.integers(-5, 5), max_size=2), max_size=2),
    ),
    "struct<a:int8,b:list<string>>": (
        pl.Struct({"a": pl.Int8(), "b": pl.List(pl.String())}),
        st.fixed_dictionaries(
            {"a": st.none() | st.integers(-5, 5), "b": st.none() | st.lists(st.text(max_size=2), max_size=2)}
        ),
    ),
}


def bits(values: list[bool]) -> bytes:
    packed = bytearray(-(-len(values) // 8))
    for place, value in enumerate(values):
        packed[place // 8] |= value << place % 8
    return bytes(packed)


def number(form: str, value: float) -> bytes:
    if form in "fd" and math.isnan(value):
        return struct.pack("<I" if form == "f" else "<Q", 0x7FC00000 if form == "f" else 0x7FF8000000000000)
    return struct.pack("<" + form, value)


def plainly(kind: pl.DataType, values: list[Any]) -> bytes:
    """The encoding as its documentation says it, a value at a time."""
    head = bits([value is not None for value in values])
    there = [value for value in values if value is not None]
    if isinstance(kind, pl.Boolean):
        return head + bits([bool(value) for value in values])
    if isinstance(kind, pl.Struct):
        fields = kind.to_schema().items()
        columns = [(each, [value and value[name] for value in values]) for name, each in fields]
        return head + b"".join(plainly(each, column) for each, column in columns if isinstance(each, pl.DataType))
    if isinstance(kind, pl.List):
        lengths = b"".join(struct.pack("<I", len(value or ())) for value in values)
        assert isinstance(kind.inner, pl.DataType)
        return head + lengths + plainly(kind.inner, [item for value in there for item in value])
    if isinstance(kind, pl.String | pl.Binary | pl.Decimal):
        pieces = [value if isinstance(value, bytes) else str(value).encode() for value in there]
        texts = iter(pieces)
        lengths = b"".join(struct.pack("<I", 0 if value is None else len(next(texts))) for value in values)
        return head + lengths + b"".join(pieces)
    form = {pl.Int8: "b", pl.Int64: "q", pl.Float32: "f", pl.Float64: "d", pl.Date: "i", pl.Datetime: "q"}[type(kind)]
    return head + b"".join(number(form, 0 if value is None else physical(value)) for value in values)


def physical(value: Any) -> Any:
    if isinstance(value, datetime):
        return (value - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    return (value - date(1970, 1, 1)).days if isinstance(value, date) else value


@settings(max_examples=60)
@given(st.data())
@pytest.mark.parametrize("name", KINDS)
def test_columns_are_encoded_as_the_format_says(name: str, data: st.DataObject) -> None:
    kind, values = KINDS[name]
    column = data.draw(st.lists(st.none() | values, max_size=12))
    frame = pl.DataFrame({"c": pl.Series(column, dtype=kind)})
    expected = struct.pack("<Q", len(column)) + plainly(kind, frame["c"].to_list())
    assert b"".join(encode_part(frame)) == expected
    assert type_name(kind) == name


@given(st.lists(st.none() | st.text(max_size=4), min_size=1, max_size=30), st.integers(1, 10))
def test_how_rows_lie_in_memory_makes_no_difference(texts: list[str | None], size: int) -> None:
    whole = pl.DataFrame(
        {"t": pl.Series(texts, dtype=pl.String), "l": [[t] for t in texts]}, {"t": pl.String, "l": pl.List(pl.String)}
    )
    pieces = pl.concat([whole.slice(at, size) for at in range(0, len(texts), size)], rechunk=False)
    assert b"".join(encode_part(pieces)) == b"".join(encode_part(whole))


def test_the_bytes_of_known_rows_never_change() -> None:
    frame = pl.DataFrame(
        {
            "n": pl.Series([1, None, -3], dtype=pl.Int32),
            "t": ["a", None, "ß"],
            "x": [0.5, float("nan"), None],
            "d": pl.Series([Decimal("1.20"), None, Decimal("-0.05")], dtype=pl.Decimal(9, 2)),
            "at": pl.Series([datetime(2026, 1, 1, tzinfo=UTC), None, None], dtype=pl.Datetime("us", "UTC")),
        }
    )
    header = encode_header(frame.schema)
    assert header.startswith(b"mainstay-rows/1\n")
    columns = [["n", "int32"], ["t", "string"], ["x", "float64"], ["d", "decimal(9,2)"], ["at", "timestamp_utc"]]
    assert json.loads(header.splitlines()[1]) == columns
    digest = sha256(header + b"".join(encode_part(frame))).hexdigest()
    assert digest == "2f7e998c1311a683091110b84ed51076dfdf33200037b987ee551212d54be8dc"


def test_a_type_that_no_table_holds_has_no_name() -> None:
    with pytest.raises(Misuse, match="found Time"):
        type_name(pl.Time())
