"""Where the rows of a batch come from: files of one kind, or a table of the lake. Read in order, from any place on."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import file_digest
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Protocol

import polars as pl
from msgspec import Struct

from mainstay.batch.types import START, Piece, Place
from mainstay.contract.tables import table_files
from mainstay.contract.tables_csv import CsvReader, read_header
from mainstay.contract.tables_memory import return_large_blocks
from mainstay.contract.tables_sources import scan_ipc, scan_parquet, unreadable
from mainstay.contract.tables_text import LineReader
from mainstay.errors import Misuse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from mainstay.contract.rules import Node
    from mainstay.contract.tables_csv import Header, Rows

PIECE_ROWS: Final = 8_192
PIECE_BYTES: Final = 8 << 20  # of a piece in memory, about: its records are some times as long

SPAN_ROWS: Final = 131_072  # that are read together: skipping into a file is dear
SPAN_BYTES: Final = 32 << 20

_SAMPLED_ROWS: Final = 256
_NO_JSON: Final = (pl.Binary, pl.Duration, pl.Object, pl.Unknown)


class Part(Struct, frozen=True):
    """What an input is made of, as a run remembers it."""

    name: str
    identity: str  # sha256 of a file's content; the version of a table
    bytes: int = 0


class Input(Protocol):
    """The rows of an input."""

    def parts(self) -> tuple[Part, ...]:
        """What it is made of: the same parts hold the same rows."""
        ...

    def pieces(self, after: Place = START) -> Iterator[Piece]:
        """The rows behind a place, in order. Raises Failed when they cannot be read."""
        ...

    def share(self) -> float:
        """How much of the input the pass under way has read, 0 to 1."""
        ...


def open_files(source: Path, nodes: Mapping[str, Node]) -> Input:
    """The files of a source. Raises Misuse when there are none, or of several kinds, or with columns JSON has not."""
    files = table_files(source)
    names = [path.name if path == source else str(path.relative_to(source)) for path in files]
    match files[0].suffix.lower():
        case ".parquet" | ".pq":
            return ColumnInput(files, names, scan_parquet)
        case ".arrow" | ".feather" | ".ipc":
            return ColumnInput(files, names, scan_ipc)
        case ".csv" | ".tsv" | ".txt":
            return CsvInput(files, names, nodes)
        case _:
            return LineInput(files, names)


@dataclass
class _Files:
    files: Sequence[Path]
    names: Sequence[str]

    def parts(self) -> tuple[Part, ...]:
        return tuple(_part(name, path) for name, path in zip(self.names, self.files, strict=True))

    def _behind(self, after: Place) -> Iterator[tuple[int, Path, str, int]]:
        """Each file that is not done: its number, itself, its name, and how many of its rows are done."""
        for number, (path, name) in enumerate(zip(self.files, self.names, strict=True), 1):
            if number >= after.part:
                yield number, path, name, after.row if number == after.part else 0


def _part(name: str, path: Path) -> Part:
    try:
        with path.open("rb") as file:
            return Part(name, f"sha256:{file_digest(file, 'sha256').hexdigest()}", path.stat().st_size)
    except OSError as error:
        raise unreadable(path, error) from None


class ColumnInput(_Files):
    """Files of columns: Parquet or Arrow IPC. Each may have columns of its own."""

    def __init__(self, files: Sequence[Path], names: Sequence[str], scan: Callable[[Path], pl.LazyFrame]) -> None:
        super().__init__(files, names)
        self._scan = scan
        self._heights = [self._height(path) for path in files]
        self._done = 0

    def share(self) -> float:
        return self._done / max(sum(self._heights), 1)

    def pieces(self, after: Place = START) -> Iterator[Piece]:
        self._done = sum(self._heights[: max(after.part - 1, 0)]) + after.row
        for number, path, name, done in self._behind(after):
            scan, height = self._scan(path), self._heights[number - 1]
            sample = _collected(path, scan.slice(done, _SAMPLED_ROWS))
            of_span, of_piece = rows_together(sample, SPAN_ROWS, SPAN_BYTES), rows_at_once(sample)
            for begin in range(done, height, of_span):
                span = _collected(path, scan.slice(begin, of_span))
                for at in range(0, span.height, of_piece):
                    frame = span.slice(at, of_piece)
                    self._done += frame.height
                    first = begin + at + 1
                    yield Piece(name, [number] * frame.height, list(range(first, first + frame.height)), frame=frame)

    def _height(self, path: Path) -> int:
        scan = self._scan(path)
        try:
            check_columns(str(path), dict(scan.collect_schema()))
        except (pl.exceptions.PolarsError, OSError) as error:
            raise unreadable(path, error) from error
        return int(_collected(path, scan.select(pl.len())).item())


class CsvInput(_Files):
    """CSV files, each with a header of its own."""

    def __init__(self, files: Sequence[Path], names: Sequence[str], nodes: Mapping[str, Node]) -> None:
        super().__init__(files, names)
        return_large_blocks()
        self._headers: dict[Path, Header] = {path: read_header(path, None, frozenset(nodes)) for path in files}
        self._texts = {name for name, node in nodes.items() if node.kind in {"string", "any"}}
        self._bytes = [path.stat().st_size for path in files]
        self._before = 0
        self._reader: CsvReader | None = None

    def share(self) -> float:
        done = self._before + (self._reader.done if self._reader is not None else 0)
        return min(done / max(sum(self._bytes), 1), 1.0)

    def pieces(self, after: Place = START) -> Iterator[Piece]:
        for number, path, name, done in self._behind(after):
            self._before = sum(self._bytes[: number - 1])
            header = self._headers[path]
            self._reader = CsvReader(path, header.delimiter, header.bytes, len(header.names))
            for rows in self._reader:
                if rows.first + rows.height - 1 > done:
                    yield from self._cut(number, name, header, rows, done)

    def _cut(self, number: int, name: str, header: Header, rows: Rows, done: int) -> Iterator[Piece]:
        """What was read at once, in pieces, without the rows that are done."""
        frame = rows.cells.select(
            pl.col(f"c{i}") if column in self._texts else pl.when(pl.col(f"c{i}") != "").then(f"c{i}")
            for i, column in enumerate(header.names)
        )
        frame.columns = header.names
        numbers = pl.Series("n", rows.whole, dtype=pl.Int64) + rows.first
        broken = [(rows.first + each.position, each.raw) for each in rows.broken]
        at_once = rows_at_once(frame)
        for first in range(max(rows.first, done + 1), rows.first + rows.height, at_once):
            last = first + at_once  # behind it
            begin, end = (int(numbers.search_sorted(bound)) for bound in (first, last))
            part = frame.slice(begin, end - begin)
            bad = tuple(each for each in broken if first <= each[0] < last)
            if part.height + len(bad):
                places = numbers.slice(begin, end - begin).to_list()
                yield Piece(name, [number] * part.height, places, frame=part, cells=True, broken=bad)


class LineInput(_Files):
    """Files with a record in each line."""

    def __init__(self, files: Sequence[Path], names: Sequence[str]) -> None:
        super().__init__(files, names)
        return_large_blocks()
        self._bytes = [path.stat().st_size for path in files]
        self._before = 0
        self._reader: LineReader | None = None

    def share(self) -> float:
        done = self._before + (self._reader.done if self._reader is not None else 0)
        return min(done / max(sum(self._bytes), 1), 1.0)

    def pieces(self, after: Place = START) -> Iterator[Piece]:
        for number, path, name, done in self._behind(after):
            self._before = sum(self._bytes[: number - 1])
            self._reader = LineReader(path)
            first = 1
            for lines in self._reader:
                numbered = (pair for pair in enumerate(lines, first) if pair[0] > done and pair[1].strip())
                first += len(lines)
                while part := _some(numbered):
                    numbers, texts = zip(*part, strict=True)
                    yield Piece(name, [number] * len(part), list(numbers), lines=list(texts))


def _some(numbered: Iterator[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """The next lines, as many as a piece holds."""
    part: list[tuple[int, bytes]] = []
    size = 0
    for pair in islice(numbered, PIECE_ROWS):
        part.append(pair)
        size += len(pair[1])
        if size >= PIECE_BYTES:
            break
    return part


def rows_at_once(sample: pl.DataFrame) -> int:
    """How many rows like these a piece holds."""
    return rows_together(sample, PIECE_ROWS, PIECE_BYTES)


def rows_together(sample: pl.DataFrame, most_rows: int, most_bytes: int) -> int:
    """How many rows like these are within both bounds; at least one."""
    row_bytes = sample.estimated_size() / max(sample.height, 1)
    return max(1, min(most_rows, int(most_bytes / max(row_bytes, 1))))


def check_columns(what: str, schema: Mapping[str, Any]) -> None:
    """Raises Misuse when a column holds what JSON has no form for."""
    for name, kind in schema.items():
        if isinstance(kind, _NO_JSON):
            raise Misuse(
                f"{what}: expected columns of values that JSON has, found {name!r} of {kind}",
                hint="Leave the column out, or cast it.",
            )


def _collected(path: Path, scan: pl.LazyFrame) -> pl.DataFrame:
    try:
        return scan.collect(engine="in-memory")
    except (pl.exceptions.PolarsError, OSError) as error:
        raise unreadable(path, error) from error
