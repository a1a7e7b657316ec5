"""Reading a sample of data: CSV, Parquet or JSON lines, at most 200,000 rows and 256 MiB of it, in the order it has.

Of a CSV file everything is read as text: what it holds is inferred later, and a code such as 007 keeps its zeros.
"""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import polars as pl

from mainstay.documents import shorten
from mainstay.errors import NOT_READ, Misuse

if TYPE_CHECKING:
    from pathlib import Path

MAX_ROWS: Final = 200_000
MAX_BYTES: Final = 256 << 20  # of a text file, from its beginning
MAX_COLUMNS: Final = 2_000
MAX_HEADER_BYTES: Final = 64 << 10  # of the first line, that are looked at for the delimiter
DELIMITERS: Final = ",;\t|"

_JSON_TYPES: Final[dict[type, pl.DataType]] = {
    bool: pl.Boolean(),
    int: pl.Int64(),
    float: pl.Float64(),
    str: pl.String(),
}
_INT64: Final = 2**63


class Sample(NamedTuple):
    """Rows of a file, from its beginning."""

    frame: pl.DataFrame
    file: str  # its name, without folders
    is_whole: bool  # whether the file has no further rows


def read_sample(path: Path, max_rows: int = MAX_ROWS) -> Sample:
    """The sample in a file. Raises Misuse when it is none, or holds no rows."""
    read = {
        ".csv": _read_csv, ".tsv": _read_csv,
        ".parquet": _read_parquet, ".pq": _read_parquet,
        ".jsonl": _read_json_lines, ".ndjson": _read_json_lines,
    }.get(path.suffix.lower())  # fmt: skip  # a line for each form
    if read is None:
        raise Misuse(
            f"{path}: expected a file ending in .csv, .parquet or .jsonl, found {path.suffix or 'no suffix'!r}"
        )
    try:
        frame, is_whole = read(path, max_rows)
    except OSError as error:
        raise Misuse(f"{path}: expected a readable file, found: {error.strerror or error}") from None
    except pl.exceptions.PolarsError as error:
        raise Misuse(f"{path}: expected {path.suffix[1:]}, found: {_first_line(error)}") from None
    if not frame.height or not frame.width:
        raise Misuse(f"{path}: expected rows under a row of names, found {frame.height} of {frame.width} columns")
    if frame.width > MAX_COLUMNS:
        raise Misuse(f"{path}: expected at most {MAX_COLUMNS:,} columns, found {frame.width:,}")
    return Sample(frame, path.name, is_whole)


def _read_csv(path: Path, max_rows: int) -> tuple[pl.DataFrame, bool]:
    content, is_whole = _read_beginning(path)
    frame = pl.read_csv(
        io.BytesIO(content),
        separator=_delimiter(content),
        infer_schema=False,
        n_rows=max_rows + 1,
        encoding="utf8",
        raise_if_empty=False,
    )
    repeated = [name for name in frame.columns if "_duplicated_" in name]
    if repeated:
        raise Misuse(f"{path}: expected each column once, found {repeated[0].partition('_duplicated_')[0]!r} again")
    return frame.head(max_rows), is_whole and frame.height <= max_rows


def _delimiter(content: bytes) -> str:
    """The character that parts the names of the first line, outside of quotes, into the most columns."""
    line = content[:MAX_HEADER_BYTES].partition(b"\n")[0].decode("utf-8", "replace")
    widths = {each: len(next(csv.reader([line], delimiter=each), [])) for each in DELIMITERS}
    return max(DELIMITERS, key=lambda each: widths[each])


def _read_beginning(path: Path) -> tuple[bytes, bool]:
    """The file's whole lines, up to MAX_BYTES, and whether they are all of it."""
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) <= MAX_BYTES:
        return content, True
    end = content.rfind(b"\n", 0, MAX_BYTES) + 1
    if not end:
        raise Misuse(f"{path}: expected lines of less than {MAX_BYTES:,} bytes, found a longer one")
    return content[:end], False


def _read_parquet(path: Path, max_rows: int) -> tuple[pl.DataFrame, bool]:
    frame = pl.scan_parquet(path).head(max_rows + 1).collect(engine="streaming")
    return frame.head(max_rows), frame.height <= max_rows


def _read_json_lines(path: Path, max_rows: int) -> tuple[pl.DataFrame, bool]:
    content, is_whole = _read_beginning(path)
    columns: dict[str, list[Any]] = {}
    rows = 0
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        if rows == max_rows:
            is_whole = False
            break
        try:
            record = decode(line)
        except NOT_READ as error:
            raise Misuse(f"{path}:{number}: expected a JSON object on each line: {error}") from None
        for name, value in record.items():
            columns.setdefault(name, [None] * rows).append(value)
        rows += 1
        for values in columns.values():
            if len(values) < rows:
                values.append(None)
    return pl.DataFrame([series_of(str(path), name, values) for name, values in columns.items()]), is_whole


def series_of(source: str, name: str, values: list[Any]) -> pl.Series:
    """A column of scalars as JSON has them. Raises Misuse naming the `source` when they are of several kinds."""
    kinds = {type(each) for each in values if each is not None}
    if kinds <= {int, float} and len(kinds) == 2:
        return pl.Series(name, [None if each is None else float(each) for each in values], pl.Float64)
    if len(kinds) > 1 or not kinds <= _JSON_TYPES.keys():
        found = ", ".join(sorted(each.__name__ for each in kinds))
        raise Misuse(f"{source}: expected values of one kind in {shorten(name)!r}, no objects or lists, found {found}")
    if kinds == {int} and any(each is not None and not -_INT64 <= each < _INT64 for each in values):
        raise Misuse(f"{source}: expected integers of 64 bits in {shorten(name)!r}, found larger ones")
    return pl.Series(name, values, _JSON_TYPES[kinds.pop()] if kinds else pl.Null())


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
