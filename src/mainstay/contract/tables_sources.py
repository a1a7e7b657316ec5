"""Where the rows of a table come from, and what every kind of file gives: judged rows, piece by piece."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeVar

import numpy as np
import polars as pl

from mainstay.documents import shorten
from mainstay.errors import Failed, Misuse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from mainstay.contract.columns import ColumnValidator
    from mainstay.contract.columns_binding import Explained
    from mainstay.contract.tables_repeats import Repeats
    from mainstay.contract.types import Violation

MAX_ROWS: Final = 131_072  # of a piece
PIECE_BYTES: Final = 32 << 20  # of a piece in memory, about
_SAMPLED_ROWS: Final = 1_024
_Read = TypeVar("_Read")


class BadRows(NamedTuple):
    """Some bad rows of a piece, in order."""

    file: str
    numbers: pl.Series  # of the rows in their file, from 1
    columns: pl.DataFrame  # of `Source.bad_schema`
    reasons: list[tuple[Violation, ...]]


class Piece(NamedTuple):
    """Some rows of a file, judged."""

    rows: int
    clean: pl.DataFrame  # of `Source.clean_schema`
    bad: Iterator[BadRows]  # made as they are taken, before the next piece
    table: Callable[[], tuple[pl.DataFrame, pl.DataFrame]]  # its rows as they came, and as the contract reads them


class Source(Protocol):
    """A table in files of one kind."""

    clean_schema: Mapping[str, pl.DataType]
    bad_schema: Mapping[str, pl.DataType]

    def key_tables(self) -> Iterator[list[pl.DataFrame]]:
        """The columns of each key of the contract, piece by piece."""
        ...

    def pieces(self, repeats: Repeats) -> Iterator[Piece]:
        """All rows, judged; `repeats` are those found in `key_tables`."""
        ...

    def share(self) -> float:
        """How much of the source the pass under way has read, 0 to 1."""
        ...


class ColumnFiles:
    """Files of columns: Parquet or Arrow IPC. All have the columns of the first, in any order."""

    def __init__(self, files: Sequence[Path], validator: ColumnValidator, scan: Callable[[Path], pl.LazyFrame]) -> None:
        self._files = files
        self._validator = validator
        self._scan = scan
        schemas = [schema_of(path, scan(path)) for path in files]
        for path, schema in zip(files, schemas, strict=True):
            _compare(files[0], schemas[0], path, schema)
        self.clean_schema: Mapping[str, pl.DataType] = schemas[0]
        self.bad_schema: Mapping[str, pl.DataType] = schemas[0]
        self._heights: list[int] = [count_rows(path, scan(path)) for path in files]
        self._done = 0

    def share(self) -> float:
        return self._done / max(sum(self._heights), 1)

    def key_tables(self) -> Iterator[list[pl.DataFrame]]:
        keys = self._validator.all_keys
        wanted = {part.path[0] for key in keys for part in key.parts}
        names = [name for name in self.clean_schema if name in wanted] or list(self.clean_schema)[:1]
        binding = self._validator.bind({name: self.clean_schema[name] for name in names})
        for _, _, frame in self._frames(names):
            table = binding.table(frame)
            yield [table.key_columns(key) for key in keys]

    def pieces(self, repeats: Repeats) -> Iterator[Piece]:
        binding = self._validator.bind(self.clean_schema)
        for path, first, frame in self._frames(list(self.clean_schema)):
            judged = binding.judge(frame)
            repeated = repeats.take(frame.height)
            bad = judged.bad_rows(repeated)
            found = bad_rows(path, first, frame, judged.explained(bad, repeated))
            yield Piece(frame.height, without(frame, bad), found, partial(_as_it_came, frame))

    def _frames(self, names: list[str]) -> Iterator[tuple[Path, int, pl.DataFrame]]:
        """Every file in pieces: the file, the number of the piece's first row in it, the rows."""
        self._done = 0
        for path, height in zip(self._files, self._heights, strict=True):
            for at, frame in read_frames(path, self._scan(path).select(names), 0, height):
                self._done += frame.height
                yield path, at + 1, frame


def read_frames(
    path: Path, scan: pl.LazyFrame, begin: int, end: int, *, most_rows: int = MAX_ROWS
) -> Iterator[tuple[int, pl.DataFrame]]:
    """The rows of a file from `begin` up to `end`, in pieces of bounded size: the index of the first, the rows.

    Raises Failed when the file cannot be read to there.
    """
    sample = _read(path, scan.head(_SAMPLED_ROWS))
    row_bytes = sample.estimated_size() / max(sample.height, 1)
    at_once = min(most_rows, max(1, int(PIECE_BYTES / max(row_bytes, 1))))
    for at in range(begin, end, at_once):
        yield at, _read(path, scan.slice(at, min(at_once, end - at)))


def _as_it_came(frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    return frame, frame


def without(frame: pl.DataFrame, rows: pl.Series) -> pl.DataFrame:
    """The frame without some of its rows."""
    if rows.is_empty():
        return frame
    kept = np.ones(frame.height, dtype=np.bool_)
    kept[rows.to_numpy()] = False
    return frame.filter(pl.Series(kept))


def bad_rows(path: Path, first: int, frame: pl.DataFrame, explained: Iterable[Explained]) -> Iterator[BadRows]:
    """The rows that are explained, of a frame of consecutive ones; `first` is the number of its first."""
    for rows, reasons in explained:
        yield BadRows(str(path), rows.cast(pl.Int64) + first, frame[rows], reasons)


def scan_parquet(path: Path) -> pl.LazyFrame:
    return pl.scan_parquet(path, glob=False, hive_partitioning=False, cache=False)


def scan_ipc(path: Path) -> pl.LazyFrame:
    return pl.scan_ipc(path, glob=False, hive_partitioning=False)


def unreadable(path: Path, error: Exception) -> Failed:
    """What is raised of a file that could not be read; nothing is written then."""
    return Failed(f"{path}: could not be read: {shorten(str(error), 300)}", hint="No output was written.")


def schema_of(path: Path, scan: pl.LazyFrame) -> dict[str, pl.DataType]:
    """The columns of a file. Raises Failed when it is none of its kind."""
    return _of_file(path, lambda: dict(scan.collect_schema()))


def count_rows(path: Path, scan: pl.LazyFrame) -> int:
    """How many rows a file has. Raises Failed when it cannot be read."""
    return int(_read(path, scan.select(pl.len())).item())


def _read(path: Path, scan: pl.LazyFrame) -> pl.DataFrame:
    return _of_file(path, lambda: scan.collect(engine="in-memory"))


def _of_file(path: Path, read: Callable[[], _Read]) -> _Read:
    try:
        return read()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise unreadable(path, error) from error


def _compare(first: Path, expected: Mapping[str, pl.DataType], path: Path, found: Mapping[str, pl.DataType]) -> None:
    for name in (*expected, *found):
        if expected.get(name) != found.get(name):
            raise Misuse(
                f"{path}: expected the columns of {first}, found {name!r} of type {found.get(name, 'nothing')}"
                f" instead of {expected.get(name, 'nothing')}",
                hint="Check files with different columns one by one.",
            )
