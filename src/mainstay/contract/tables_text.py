"""Tables in files of text: CSV and JSON lines.

The rows of CSV are read as the contract's types (`columns_records`) and judged over columns; a cell of an object or
array stays text. A line of JSON is a record, and judged by the record validator; empty lines are none, but have a
number. In the clean rows a date, time or timestamp stays the text that came; so does, as JSON, what the contract leaves
open.
"""

from __future__ import annotations

import contextlib
import json
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec
import polars as pl

from mainstay.contract.columns_cells import cell_type
from mainstay.contract.tables_csv import CsvReader, read_header
from mainstay.contract.tables_memory import return_large_blocks
from mainstay.contract.tables_sources import BadRows, Piece, bad_rows, without
from mainstay.contract.tables_types import RAW
from mainstay.contract.types import Violation
from mainstay.contract.validator import compile_object
from mainstay.contract.violations import RECORD, is_of_kind
from mainstay.errors import NOT_READ, Misuse

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from mainstay.contract.columns import ColumnValidator
    from mainstay.contract.columns_binding import Binding, Judged
    from mainstay.contract.columns_keys import Key, Part
    from mainstay.contract.rules import Node
    from mainstay.contract.tables_csv import Broken, Rows
    from mainstay.contract.tables_repeats import Repeats
    from mainstay.contract.tables_types import CsvDialect

MAX_LINE_BYTES: Final = 16 << 20
_BLOCK_BYTES: Final = 8 << 20
_RAW: Final = {RAW: pl.Binary()}
_OPEN: Final = frozenset({"any", "object", "array"})  # kinds of nodes that declare nothing below them
_BOM: Final = b"\xef\xbb\xbf"
_INTEGERS: Final[dict[pl.DataType, tuple[int, int]]] = {
    pl.Int64(): (-(2**63), 2**63 - 1),
    pl.UInt64(): (0, 2**64 - 1),
    pl.Int128(): (-(2**127), 2**127 - 1),
    pl.UInt128(): (0, 2**128 - 1),
}
_decode: Final = msgspec.json.Decoder().decode


class _TextFiles:
    """What is common to files of text: progress by bytes."""

    def __init__(self, files: Sequence[Path]) -> None:
        return_large_blocks()
        self._files = files
        self._bytes = max(sum(path.stat().st_size for path in files), 1)
        self._before = 0  # bytes of the files that were read
        self._reader: CsvReader | LineReader | None = None  # of the one that is being read

    def share(self) -> float:
        done = self._before + (self._reader.done if self._reader is not None else 0)
        return min(done / self._bytes, 1.0)

    def _each(self) -> Iterator[Path]:
        self._before = 0
        for path in self._files:
            self._reader = None
            yield path
            self._before += path.stat().st_size


class CsvFiles(_TextFiles):
    """CSV files with one header, in any order of columns."""

    def __init__(self, files: Sequence[Path], validator: ColumnValidator, dialect: CsvDialect) -> None:
        super().__init__(files)
        self._validator = validator
        known = frozenset(name for name, _ in validator.nodes)
        self._headers = {path: read_header(path, dialect.delimiter, known) for path in files}
        names = self._headers[files[0]].names
        for path, header in self._headers.items():
            if sorted(header.names) != sorted(names):
                other = min(set(names) ^ set(header.names))
                raise Misuse(
                    f"{path}: expected the columns of {files[0]}, found a difference in {other!r}",
                    hint="Check files with different columns one by one.",
                )
        texts = dict.fromkeys(names, pl.String())
        self._binding: Binding = validator.bind(texts, cells=True)
        self.clean_schema: Mapping[str, pl.DataType] = self._binding.schema
        self.bad_schema: Mapping[str, pl.DataType] = {**texts, **_RAW}

    def key_tables(self) -> Iterator[list[pl.DataFrame]]:
        for _, _, frame in self._read():
            table = self._binding.table(frame)
            yield [table.key_columns(key) for key in self._validator.all_keys]

    def pieces(self, repeats: Repeats) -> Iterator[Piece]:
        for path, rows, frame in self._read():
            judged = self._binding.judge(frame)
            repeated = repeats.take(frame.height)
            bad = judged.bad_rows(repeated)
            clean = without(judged.frame, bad)
            given = frame.with_columns(pl.lit(None, dtype=pl.Binary).alias(RAW))
            places = pl.Series(rows.whole)
            found = (
                each._replace(numbers=places.gather(each.numbers) + rows.first)
                for each in bad_rows(path, 0, given, judged.explained(bad, repeated))
            )
            yield Piece(
                rows.height, clean, _merged(path, rows, found, self.bad_schema), partial(_as_read, frame, judged)
            )

    def _read(self) -> Iterator[tuple[Path, Rows, pl.DataFrame]]:
        names = list(self.clean_schema)
        for path in self._each():
            header = self._headers[path]
            reader = CsvReader(path, header.delimiter, header.bytes, len(names))
            self._reader = reader
            for rows in reader:
                yield path, rows, named_cells(rows.cells, header.names, self._validator).select(names)


def named_cells(cells: pl.DataFrame, names: list[str], validator: ColumnValidator) -> pl.DataFrame:
    """Cells under the names of a header; an empty one is null, but in texts, where `""` is one."""
    texts = {name for name, node in validator.nodes if node.kind in {"string", "any"}}
    frame = cells.select(
        f"c{i}" if name in texts else pl.when(pl.col(f"c{i}") != "").then(f"c{i}") for i, name in enumerate(names)
    )
    frame.columns = names
    return frame


class JsonLines(_TextFiles):
    """Files with a record in each line."""

    def __init__(self, files: Sequence[Path], validator: ColumnValidator) -> None:
        super().__init__(files)
        self._keys = validator.keys
        self._all_keys = validator.all_keys
        self._nodes = validator.nodes
        self._validator = compile_object(validator.declared)
        self.clean_schema: Mapping[str, pl.DataType] = {name: record_type(node) for name, node in validator.nodes}
        self.bad_schema: Mapping[str, pl.DataType] = _RAW

    def key_tables(self) -> Iterator[list[pl.DataFrame]]:
        for _, lines in self._read():
            records = [_record(line) for _, line in lines]
            yield [_key_frame(key, records) for key in self._all_keys]

    def pieces(self, repeats: Repeats) -> Iterator[Piece]:
        for path, lines in self._read():
            repeated = list(zip(*(each.to_list() for each in repeats.take(len(lines))), strict=True))
            good: list[tuple[Any, ...]] = []
            bad: list[tuple[int, bytes, tuple[Violation, ...]]] = []
            for position, (number, line) in enumerate(lines):
                record = self._decoded(line)
                found = () if record is not None else self._reasons(line)
                if self._keys:
                    found = (*found, *self._of_keys(line, repeated[position]))
                if record is None or found:
                    bad.append((number, line, found))
                else:
                    good.append(self._validator.values(record))
            table = partial(record_frames, self._nodes, [line for _, line in lines])
            yield Piece(len(lines), value_frame(self._nodes, good), iter([_bad_lines(path, bad)] if bad else []), table)

    def _decoded(self, line: bytes) -> Any:
        """The record in a line, or None where it breaks a rule."""
        try:
            return self._validator.decode(line) if len(line) <= MAX_LINE_BYTES else None
        except msgspec.DecodeError:
            return None

    def _reasons(self, line: bytes) -> tuple[Violation, ...]:
        if len(line) > MAX_LINE_BYTES:
            return (Violation(RECORD, "malformed", f"a line of at most {MAX_LINE_BYTES} bytes", "more"),)
        return self._validator.violations(line)

    def _of_keys(self, line: bytes, repeated: Sequence[bool]) -> Iterator[Violation]:
        record = _record(line)
        if record is None:
            return
        for key, again in zip(self._keys, repeated, strict=True):
            values = [_value(record, part) for part in key.parts]
            if again:
                yield key.repeated(values)
            elif key.rule == "primary-key":
                for part, value in zip(key.parts, values, strict=True):
                    if value is None and not part.node.required:
                        yield key.incomplete(part)

    def _read(self) -> Iterator[tuple[Path, list[tuple[int, bytes]]]]:
        """Lines that are not empty, with their numbers."""
        for path in self._each():
            reader = LineReader(path)
            self._reader = reader
            number = 1
            for lines in reader:
                yield path, [(number + i, line) for i, line in enumerate(lines) if line.strip()]
                number += len(lines)


class LineReader:
    """The lines of a file, many at a time. Of one longer than MAX_LINE_BYTES only the beginning, one byte longer."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.done = 0

    def __iter__(self) -> Iterator[list[bytes]]:
        rest = b""
        with self._path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                if not self.done:
                    block = block.removeprefix(_BOM)
                self.done += len(block)
                first, *others = block.split(b"\n")
                rest += first[: MAX_LINE_BYTES + 1 - len(rest)]
                if others:
                    yield [rest, *others[:-1]]
                    rest = others[-1]
        if rest:
            yield [rest]


def value_frame(nodes: Sequence[tuple[str, Node]], rows: Sequence[tuple[Any, ...]]) -> pl.DataFrame:
    """The values of decoded records, `ObjectValidator.values` of each, as columns of `record_type`."""
    columns: Iterable[tuple[Any, ...]] = zip(*rows, strict=True) if rows else [()] * len(nodes)
    return pl.DataFrame(
        [
            pl.Series(name, _column_values(node, values), dtype=record_type(node), strict=True)
            for (name, node), values in zip(nodes, columns, strict=True)
        ]
    )


def record_type(node: Node) -> pl.DataType:
    """The type of a column that holds every record's value of a property."""
    if node.fields is not None:
        return pl.Struct({name: record_type(child) for name, child in node.fields})
    if node.items is not None:
        return pl.List(record_type(node.items))
    return cell_type(node)


def column_value(node: Node, value: Any) -> Any:
    """A value of a decoded record as `record_type` holds it."""
    if value is None:
        return None
    if node.fields is not None:
        inner = msgspec.structs.astuple(value)
        return {name: column_value(child, each) for (name, child), each in zip(node.fields, inner, strict=True)}
    if node.items is not None:
        return [column_value(node.items, each) for each in value]
    if node.kind in _OPEN:
        return json.dumps(value, ensure_ascii=False)
    return value


def record_frames(nodes: Sequence[tuple[str, Node]], lines: Sequence[bytes]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The records in lines, and the same with null for what is not of its type, as `Piece.table` has them.

    In the first, a column in which something is not of its type is one of texts. A line that is no record has no row.
    """
    records = [record for line in lines if (record := _record(line)) is not None]
    came, read = [], []
    for name, node in nodes:
        values = [record.get(name) for record in records]
        fitting = [_fitting(node, value) for value in values]
        typed = pl.Series(name, fitting, dtype=record_type(node))
        odd = any(one is None and other is not None for one, other in zip(fitting, values, strict=True))
        came.append(pl.Series(name, list(map(_text, values)), dtype=pl.String) if odd else typed)
        read.append(typed)
    return pl.DataFrame(came), pl.DataFrame(read)


def _fitting(node: Node, value: Any) -> Any:
    """A JSON value as `record_type` holds it, or None where it, or what stands at its place, is of another type."""
    if value is None or not is_of_kind(node, value):
        return None
    if node.fields is not None:
        return {name: _fitting(child, value.get(name)) for name, child in node.fields}
    if node.items is not None:
        return [_fitting(node.items, each) for each in value]
    match node.kind:
        case "any" | "object" | "array":
            return _text(value)
        case "number":
            return float(value)
        case "integer":
            low, high = _INTEGERS[cell_type(node)]
            return value if low <= value <= high else None
        case _:
            return value


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _as_read(frame: pl.DataFrame, judged: Judged) -> tuple[pl.DataFrame, pl.DataFrame]:
    return frame, judged.frame


def _column_values(node: Node, values: Sequence[Any]) -> Sequence[Any]:
    if node.fields is None and node.items is None and node.kind not in _OPEN:
        return values
    return [column_value(node, value) for value in values]


def _record(line: bytes) -> dict[str, Any] | None:
    """The object in a line, or None where there is none."""
    try:
        value = _decode(line) if len(line) <= MAX_LINE_BYTES else None
    except NOT_READ:
        return None
    return value if isinstance(value, dict) else None


def _value(record: Any, part: Part) -> Any:
    for name in part.path:
        record = record.get(name) if isinstance(record, dict) else None
    return record


def _key_frame(key: Key, records: Sequence[dict[str, Any] | None]) -> pl.DataFrame:
    """The parts of each record's key, as texts that are equal where the values are."""
    return pl.DataFrame(
        {
            f"k{i}": pl.Series([_key_text(_value(record, part), part) for record in records], dtype=pl.String)
            for i, part in enumerate(key.parts)
        }
    )


def _key_text(value: Any, part: Part) -> str | None:
    if value is None:
        return None
    if part.node.kind == "number" and isinstance(value, int) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):  # it is no double, and so no number of the contract either
            value = float(value)
    return json.dumps(value, sort_keys=True)


def _bad_lines(path: Path, bad: Sequence[tuple[int, bytes, tuple[Violation, ...]]]) -> BadRows:
    numbers, lines, reasons = zip(*bad, strict=True)
    return BadRows(
        str(path), pl.Series(numbers, dtype=pl.Int64), pl.DataFrame({RAW: lines}, schema=_RAW), list(reasons)
    )


def _merged(path: Path, rows: Rows, found: Iterable[BadRows], schema: Mapping[str, pl.DataType]) -> Iterator[BadRows]:
    """The bad rows of a piece and its broken ones, in the order of the file."""
    waiting = list(rows.broken)
    for each in found:
        last = int(each.numbers[-1])
        count = sum(rows.first + broken.position < last for broken in waiting)
        between, waiting = waiting[:count], waiting[count:]
        broken = _broken_rows(path, rows, between, schema)
        numbers = pl.concat([each.numbers, broken.numbers])
        order = numbers.arg_sort()
        reasons = [*each.reasons, *broken.reasons]
        yield BadRows(
            each.file,
            numbers.gather(order),
            pl.concat([each.columns, broken.columns])[order],
            [reasons[i] for i in order.to_list()],
        )
    if waiting:
        yield _broken_rows(path, rows, waiting, schema)


def _broken_rows(path: Path, rows: Rows, broken: Sequence[Broken], schema: Mapping[str, pl.DataType]) -> BadRows:
    numbers = pl.Series([rows.first + each.position for each in broken], dtype=pl.Int64)
    raw = pl.Series(RAW, [each.raw for each in broken], dtype=pl.Binary)
    nulls = [pl.Series(name, [None] * len(broken), dtype=kind) for name, kind in schema.items() if name != RAW]
    return BadRows(str(path), numbers, pl.DataFrame([*nulls, raw]), [(each.violation,) for each in broken])
