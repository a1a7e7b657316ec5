"""What the columns of an item really are: of a bounded sample of its rows, from all over it.

Files are often in some order, so the first rows of two of them, of different length, are not alike: of a larger file,
PIECES stretches are read, equally far apart. In a file of text such a stretch may begin inside a quoted line break,
which costs a few rows of the sample. A Parquet file says its types; of CSV the kinds are those that its cells can be
read as, of JSON lines those that the values have. A kind is a logical type of the contract standard.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec
import polars as pl

from mainstay.contract.service_facts import moments_of
from mainstay.contract.tables_csv import read_header
from mainstay.errors import NOT_READ, Failed, Misuse

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mainstay.contract.types import LogicalType
    from mainstay.intake.landing import Item

Kind: TypeAlias = "LogicalType"

ROWS: Final = 4_096
PIECES: Final = 8
_PIECE_BYTES: Final = 512 << 10  # of a file of text
_NUMBERS: Final = frozenset({"integer", "number"})
_TEXTS: Final = frozenset({"string", "date", "timestamp", "time"})
_PLAIN: Final = {
    "boolean": r"\A(?i:true|false)\z",
    "integer": r"\A[+-]?[0-9]{1,38}\z",
    "number": r"\A[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?\z",
    "time": r"\A[0-2][0-9]:[0-5][0-9](?::[0-6][0-9](?:\.[0-9]+)?)?\z",
}
_OF_JSON: Final[dict[type, Kind]] = {bool: "boolean", int: "integer", str: "string", list: "array", dict: "object"}
_decode: Final = msgspec.json.Decoder().decode


@dataclass(frozen=True)
class Column:
    """What the sample has of a column."""

    kinds: dict[Kind, int]  # how many values are of each
    values: pl.Series  # those that are not null: Float64 where most are numbers, else String

    @property
    def present(self) -> int:
        """How many values are not null."""
        return sum(self.kinds.values())

    @property
    def kind(self) -> Kind | None:
        """The kind of most values, None where there are none. A column with some fractions is one of numbers."""
        numbers = sum(self.kinds.get(each, 0) for each in ("integer", "number"))
        counted = {each: count for each, count in self.kinds.items() if each not in _NUMBERS}
        if numbers:
            counted["number" if "number" in self.kinds else "integer"] = numbers
        return max(counted, key=lambda each: counted[each], default=None)


@dataclass(frozen=True)
class Sample:
    """Some rows of an item."""

    rows: int = 0
    columns: dict[str, Column] = field(default_factory=dict)


def family(kind: Kind | None) -> str | None:
    """Kinds between which a column changes without anybody changing it: 1.0 may be written as 1."""
    return "number" if kind in _NUMBERS else "text" if kind in _TEXTS else kind


def read_sample(path: Path, item: Item, declared: Mapping[str, Kind | None]) -> Sample:
    """The sample of an item; empty where it is no file of its kind, which the door tells.

    `declared` are the kinds of the fields in the contract: texts are read as what is expected of them.
    """
    try:
        if item.kind == "parquet":
            return _of_frame(_parquet(path), declared, are_cells=False)
        if item.kind == "csv":
            return _of_frame(_csv(path, item, declared), declared, are_cells=True)
        return _json_lines(path, declared)
    except (Failed, Misuse, OSError, pl.exceptions.PolarsError):
        return Sample()


def _parquet(path: Path) -> pl.DataFrame:
    scan = pl.scan_parquet(path, glob=False)
    rows = scan.select(pl.len()).collect().item()
    if rows <= ROWS:
        return scan.collect()
    each = ROWS // PIECES
    return pl.concat([scan.slice(place * (rows - each) // (PIECES - 1), each).collect() for place in range(PIECES)])


def _csv(path: Path, item: Item, declared: Mapping[str, Kind | None]) -> pl.DataFrame:
    header = read_header(path, item.delimiter, frozenset(declared))
    schema = dict.fromkeys(header.names, pl.String())
    frames = [pl.DataFrame(schema=schema)]
    for piece in _pieces(path, header.bytes):
        with contextlib.suppress(pl.exceptions.PolarsError):  # a stretch that cannot be read is not in the sample
            frames.append(
                pl.read_csv(
                    piece,
                    has_header=False,
                    schema=schema,
                    separator=header.delimiter,
                    encoding="utf8-lossy",
                    truncate_ragged_lines=True,
                    ignore_errors=True,
                )
            )
    cells = _thinned(pl.concat(frames))
    return cells.with_columns(pl.when(pl.all() != "").then(pl.all()))


def _json_lines(path: Path, declared: Mapping[str, Kind | None]) -> Sample:
    lines = [line for piece in _pieces(path, 0) for line in piece.split(b"\n") if line.strip()]
    found: dict[str, list[Any]] = {}
    rows = 0
    for line in lines[:: max(1, -(-len(lines) // ROWS))]:
        record = _record(line)
        if record is not None:
            rows += 1
            for name, value in record.items():
                values = found.setdefault(name, [])
                if value is not None:
                    values.append(value)
    return Sample(rows, {name: _of_values(values, declared.get(name, "string")) for name, values in found.items()})


def _pieces(path: Path, start: int) -> list[bytes]:
    """Whole lines of a file behind `start`: all of them, or some from all over it."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size - start
        if size <= PIECES * _PIECE_BYTES:
            file.seek(start)
            return [file.read()]
        found = []
        for place in range(PIECES):
            file.seek(start + place * (size - _PIECE_BYTES) // (PIECES - 1))
            read = file.read(_PIECE_BYTES)
            begin = read.find(b"\n") + 1 if place else 0
            found.append(read[begin : read.rfind(b"\n") + 1])
        return found


def _thinned(frame: pl.DataFrame) -> pl.DataFrame:
    return frame if frame.height <= ROWS else frame.gather_every(-(-frame.height // ROWS))


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = _decode(line) if line.strip() else None
    except NOT_READ:
        return None
    return record if isinstance(record, dict) else None


def _of_values(values: list[Any], expected: Kind | None) -> Column:
    kinds: dict[Kind, int] = {}
    for value in values:
        kind: Kind = _OF_JSON.get(type(value)) or ("integer" if float(value).is_integer() else "number")
        kinds[kind] = kinds.get(kind, 0) + 1
    most = max(kinds, key=lambda each: kinds[each], default="string")
    if most in _NUMBERS:
        numbers = [float(value) for value in values if type(value) in (int, float)]
        return Column(kinds, pl.Series(numbers, dtype=pl.Float64()))
    texts = pl.Series([value for value in values if isinstance(value, str)], dtype=pl.String())
    return _with_texts(Column(kinds, texts), texts, expected)


def _of_frame(frame: pl.DataFrame, declared: Mapping[str, Kind | None], *, are_cells: bool) -> Sample:
    columns = {}
    for series in frame:
        present = series.drop_nulls()
        expected = declared.get(series.name, None if are_cells else "string")
        columns[series.name] = _of_cells(present, expected) if are_cells else _of_series(present, expected)
    return Sample(frame.height, columns)


def _of_series(values: pl.Series, expected: Kind | None) -> Column:
    kind = values.dtype
    count = len(values)
    if kind.is_numeric():
        numbers = values.cast(pl.Float64())
        whole = count if kind.is_integer() else int((numbers == numbers.round()).sum())
        return Column(_some(integer=whole, number=count - whole), numbers.filter(numbers.is_finite()))
    if isinstance(kind, pl.String | pl.Categorical | pl.Enum):
        texts = values.cast(pl.String())
        return _with_texts(Column(_some(string=count), texts), texts, expected)
    found: Kind = "string"
    if kind == pl.Boolean():
        found = "boolean"
    elif kind == pl.Date():
        found = "date"
    elif isinstance(kind, pl.Datetime):
        found = "timestamp"
    elif kind == pl.Time():
        found = "time"
    elif isinstance(kind, pl.List | pl.Array):
        found = "array"
    elif isinstance(kind, pl.Struct):
        found = "object"
    texts = values.cast(pl.String()) if found in _TEXTS - {"string"} else pl.Series([], dtype=pl.String())
    return Column(_some(**{found: count}), texts)


def _of_cells(texts: pl.Series, expected: Kind | None) -> Column:
    """Cells of text are what they are expected to be where they can be read so, else the plainest they can be."""
    count = len(texts)
    if expected == "string":
        return Column(_some(string=count), texts)
    if expected in {"array", "object"}:
        opening = "[" if expected == "array" else "{"
        fitting = int(texts.str.starts_with(opening).sum())
        return Column(_some(**{expected: fitting, "string": count - fitting}), texts)
    are = {kind: int(texts.str.contains(pattern).sum()) for kind, pattern in _PLAIN.items()}
    whole = are["integer"]
    dated = _with_texts(Column({}, texts), texts, expected or "timestamp").kinds
    rest = count - are["boolean"] - are["number"] - sum(each for kind, each in dated.items() if kind != "string")
    kinds = _some(boolean=are["boolean"], integer=whole, number=are["number"] - whole, **dated | {"string": rest})
    if 2 * are["number"] > count:
        numbers = texts.cast(pl.Float64(), strict=False).drop_nulls()
        return Column(kinds, numbers.filter(numbers.is_finite()))
    return Column(kinds, texts)


def _with_texts(column: Column, texts: pl.Series, expected: Kind | None) -> Column:
    """Texts as the dates and times that are expected of them, where they are."""
    if expected not in {"date", "timestamp", "time", None}:
        return column
    if expected == "time":
        fitting = int(texts.str.contains(_PLAIN["time"]).sum())
        return Column(_some(**column.kinds | {"time": fitting, "string": len(texts) - fitting}), column.values)
    moments = moments_of(texts)
    read = texts if moments is None else texts.filter(moments.is_not_null())
    days = int((read.str.len_chars() == 10).sum())
    kinds = column.kinds | {"date": days, "timestamp": len(read) - days, "string": len(texts) - len(read)}
    return Column(_some(**kinds), column.values)


def _some(**counts: int) -> dict[Kind, int]:
    return {kind: count for kind, count in counts.items() if count > 0}  # type: ignore[misc]  # they are kinds
