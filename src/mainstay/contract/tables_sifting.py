"""One file held against a contract from a row to a row, for whoever keeps every record with what was found of it.

    for sifted in sift("parquet", path, validator, begin=0):
        sifted.clean          # the good rows, of the columns that the contract knows; their numbers beside them
        sifted.records()      # the others, as records where they are any
        sifted.explain([0])   # why the first of these is bad
        sifted.raw_bad([0])   # its bytes, as they stand in the file; of Parquet its JSON

`tables.check_table` asks more and keeps less. Here a column that the contract does not know makes no row bad: its
values are set apart. And no row is bad because of another one: which records repeat others is asked across files, by
whoever has the earlier ones.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, takewhile
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from mainstay.contract.columns_records import as_json
from mainstay.contract.tables_csv import CsvReader, read_header
from mainstay.contract.tables_memory import return_large_blocks
from mainstay.contract.tables_sifted import Sifted, encode
from mainstay.contract.tables_sifting_lines import sift_lines
from mainstay.contract.tables_sources import count_rows, read_frames, scan_parquet, schema_of, without
from mainstay.contract.tables_text import named_cells
from mainstay.errors import Failed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from mainstay.contract.columns import ColumnValidator
    from mainstay.contract.columns_binding import Binding
    from mainstay.contract.tables_csv import Rows
    from mainstay.contract.tables_sifted import FileKind
    from mainstay.contract.types import Violation

MAX_ROWS: Final = 65_536  # of a piece: whoever takes them keeps several, and what is made of them


def sift(
    kind: FileKind,
    path: Path,
    validator: ColumnValidator,
    *,
    delimiter: str | None = None,
    begin: int = 0,
    end: int | None = None,
) -> Iterator[Sifted]:
    """The rows of a file behind `begin`, up to `end` or the file's end, judged. `delimiter` is that of CSV.

    Raises Failed when the file, or a part of it, is none of its kind; OSError when the disk does not give it.
    """
    return_large_blocks()
    match kind:
        case "parquet":
            return _sift_parquet(path, validator, begin, end)
        case "csv":
            return _sift_csv(path, validator, delimiter, begin, end)
        case _:
            return sift_lines(path, validator, begin, end)


# Parquet


def _sift_parquet(path: Path, validator: ColumnValidator, begin: int, end: int | None) -> Iterator[Sifted]:
    schema = schema_of(path, scan_parquet(path))
    binding, unknown = _bound(validator, schema)
    types = {name: str(kind) for name, kind in schema.items()}
    height = count_rows(path, scan_parquet(path))

    def judged(piece: tuple[int, pl.DataFrame]) -> Sifted:
        at, whole = piece
        numbers = pl.int_range(at + 1, at + 1 + whole.height, dtype=pl.Int64, eager=True)
        span = (at, at + whole.height)
        return _sifted(binding, whole, numbers, span, lambda rows: _rows_as_json(whole[list(rows)]), (types, unknown))

    # A generator would hold each piece until the next is asked for, while whoever took it writes its rows.
    until = height if end is None else min(end, height)
    return map(judged, read_frames(path, scan_parquet(path), begin, until, most_rows=MAX_ROWS))


def _rows_as_json(frame: pl.DataFrame) -> list[bytes]:
    columns = [as_json(column, None) for column in frame.get_columns()]
    return [encode(dict(zip(frame.columns, row, strict=True))) for row in zip(*columns, strict=True)]


# CSV


def _sift_csv(
    path: Path, validator: ColumnValidator, delimiter: str | None, begin: int, end: int | None
) -> Iterator[Sifted]:
    header = read_header(path, delimiter, frozenset(name for name, _ in validator.nodes))
    binding, unknown = _bound(validator, dict.fromkeys(header.names, pl.String()), cells=True)
    if not binding.names:
        names = ", ".join(header.names[:5])
        raise Failed(f"expected a header with names of the contract, found none of them: {names[:200]}")
    types = dict.fromkeys(header.names, "text")
    written = encode([header.delimiter, *header.names]).decode()

    def judged(rows: Rows) -> Sifted:
        part = _cut(rows, begin, end)
        frame = named_cells(part.cells, header.names, validator)
        numbers = pl.Series(part.whole, dtype=pl.Int64) + part.first
        span = (part.first - 1, part.first - 1 + part.height)
        made = replace(_sifted(binding, frame, numbers, span, part.raw, (types, unknown)), header=written)
        return _with_broken(made, part) if part.broken else made

    reader = CsvReader(path, header.delimiter, header.bytes, len(header.names))
    behind = (rows for rows in reader if rows.first - 1 + rows.height > begin)
    return map(judged, takewhile(lambda rows: end is None or rows.first - 1 < end, behind))


def _cut(rows: Rows, begin: int, end: int | None) -> Rows:
    """Those of consecutive rows that are behind `begin` and up to `end`."""
    low = max(0, begin - (rows.first - 1))
    high = rows.height if end is None else min(rows.height, end - (rows.first - 1))
    if (low, high) == (0, rows.height):
        return rows
    from_, to = (int(at) for at in np.searchsorted(rows.whole, [low, high]))
    return rows._replace(
        first=rows.first + low,
        height=high - low,
        cells=rows.cells.slice(from_, to - from_),
        whole=rows.whole[from_:to] - low,
        broken=[each._replace(position=each.position - low) for each in rows.broken if low <= each.position < high],
        raw=lambda indices: rows.raw([from_ + i for i in indices]),
    )


def _with_broken(made: Sifted, rows: Rows) -> Sifted:
    """The same and the rows that could not be read, in their places among the bad ones."""
    numbers = pl.concat([made.bad, pl.Series([rows.first + each.position for each in rows.broken], dtype=pl.Int64)])
    order = numbers.arg_sort().to_list()
    known = len(made.bad)

    def both(of_known: Callable[[Sequence[int]], list[Any]], of_broken: Callable[[int], Any]) -> Any:
        def each(indices: Sequence[int]) -> list[Any]:
            places = [order[i] for i in indices]
            found = iter(of_known([place for place in places if place < known]))
            return [next(found) if place < known else of_broken(place - known) for place in places]

        return each

    everything = range(len(order))
    return Sifted(
        **{
            **{name: getattr(made, name) for name in made.__slots__},
            "bad": numbers.gather(order),
            "bad_extra": both(lambda places: [made.bad_extra[place] for place in places], lambda _: None)(everything),
            "records": lambda: both(lambda _: made.records(), lambda _: None)(everything),
            "explain": both(made.explain, lambda place: (rows.broken[place].violation,)),
            "raw_bad": both(made.raw_bad, lambda place: rows.broken[place].raw),
        }
    )


# Columns


def _bound(
    validator: ColumnValidator, schema: Mapping[str, pl.DataType], *, cells: bool = False
) -> tuple[Binding, tuple[str, ...]]:
    """The rules for the columns that the contract knows, and the names of the others."""
    known = {name for name, _ in validator.nodes}
    binding = validator.bind({name: kind for name, kind in schema.items() if name in known}, cells=cells)
    return binding, tuple(name for name in schema if name not in known)


def _sifted(
    binding: Binding,
    whole: pl.DataFrame,
    numbers: pl.Series,
    span: tuple[int, int],
    raw: Callable[[Sequence[int]], list[bytes]],
    columns: tuple[Mapping[str, str], tuple[str, ...]],
) -> Sifted:
    """Rows of columns, judged; `numbers` are theirs, `raw` gives their bytes by index."""
    types, unknown = columns
    judged = binding.judge(whole.select(binding.names))
    again = [pl.repeat(False, whole.height, dtype=pl.Boolean, eager=True)] * len(binding.keys)  # noqa: FBT003 - the value
    bad = judged.bad_rows(again)
    kept = np.delete(np.arange(whole.height), bad.to_numpy()) if len(bad) else None
    places = bad.to_list()
    extra = _extra(whole.select(unknown), whole.height)

    def explain(indices: Sequence[int]) -> list[tuple[Violation, ...]]:
        rows = bad.gather(list(indices))
        return list(chain.from_iterable(each.reasons for each in judged.explained(rows, again)))

    def raw_clean(indices: Sequence[int]) -> list[bytes]:
        return raw(list(indices) if kept is None else kept[list(indices)].tolist())

    return Sifted(
        begin=span[0],
        end=span[1],
        clean=without(judged.frame, bad),
        numbers=numbers if kept is None else numbers.gather(kept),
        extra=extra if kept is None else extra.gather(kept),
        bad=numbers.gather(bad),
        bad_extra=extra.gather(bad).to_list(),
        records=lambda: list(judged.records(bad)),
        explain=explain,
        raw_bad=lambda indices: raw([places[i] for i in indices]),
        raw_clean=raw_clean,
        columns=types,
        unknown=unknown,
    )


def _extra(columns: pl.DataFrame, height: int) -> pl.Series:
    """Each row as a JSON object without what is null; null where nothing is left."""
    if all(column.null_count() == height for column in columns.get_columns()):
        return pl.repeat(None, height, dtype=pl.String, eager=True)
    values = [as_json(column, None) for column in columns.get_columns()]
    rows = zip(*values, strict=True)
    objects = ({n: v for n, v in zip(columns.columns, row, strict=True) if v is not None} for row in rows)
    return pl.Series([encode(each).decode() if each else None for each in objects], dtype=pl.String)
