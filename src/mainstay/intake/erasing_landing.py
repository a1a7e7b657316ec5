"""Records about a person in items that wait for the door: an item is written again without them, in one step.

Of an item of which the door has taken no row yet the records go. Of one that it is in the middle of, an empty record
stands in the place of each, because the door counts rows: what it has not taken of those is held as bad.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from tempfile import NamedTemporaryFile
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import polars as pl
from msgspec.structs import replace

from mainstay.contract.tables_csv import MAX_ROW_BYTES, read_header, row_pattern
from mainstay.errors import MainstayError
from mainstay.files import sync_directory, write_atomic
from mainstay.intake.erasing_match import Sought, value_test
from mainstay.intake.quarantine_masks import read_record

if TYPE_CHECKING:
    import re
    from collections.abc import Iterator
    from pathlib import Path

    from mainstay.intake.landing import Item, Landing

_BLOCK_BYTES: Final = 1 << 20
_FILE_PREFIX: Final = ".draft-erased-"  # swept as any draft is that nobody finishes


class Emptied(NamedTuple):
    """What was, or would be, done to an item."""

    item: int
    records: int


def erase_waiting(
    landing: Landing, sought: Sought, *, under_way: int | None, known: frozenset[str], dry_run: bool
) -> list[Emptied]:
    """Write items again without the records about a person; with `dry_run` only count them.

    `under_way` is the number of the item that the door is in the middle of; `known` are the fields of the contract, by
    which the delimiter of a CSV file is told. Whoever calls keeps the door shut. Raises OSError when the disk takes no
    more: each item is then as it was, or done.
    """
    found = []
    for item in landing.waiting():
        records = _count(landing.path(item), item, sought, known)
        if records:
            found.append(Emptied(item.number, records))
            if not dry_run:
                _rewrite(landing, item, sought, known, keep_places=item.number == under_way)
    return found


def _count(path: Path, item: Item, sought: Sought, known: frozenset[str]) -> int:
    if item.kind == "parquet":
        test = _parquet_test(path, sought)
        return 0 if test is None else int(pl.scan_parquet(path).filter(test).select(pl.len()).collect().item())
    if not _may_hold(path, sought):
        return 0
    return sum(is_meant for _, is_meant in _records(path, item, sought, known))


def _rewrite(landing: Landing, item: Item, sought: Sought, known: frozenset[str], *, keep_places: bool) -> None:
    path = landing.path(item)
    with _replacing(path) as file:
        if item.kind == "parquet":
            _write_parquet(path, file.name, sought, keep_places=keep_places)
        else:
            _write_text(path, file, item, sought, known, keep_places=keep_places)
    write_atomic(path.with_suffix(".json"), msgspec.json.encode(replace(item, bytes=path.stat().st_size)))


@contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """A new file, durably in the place of an old one when nothing was raised; others may have written it by name."""
    with NamedTemporaryFile(dir=path.parent, prefix=_FILE_PREFIX, suffix=path.suffix, delete=False) as file:
        yield file
        file.flush()
        with open(file.name, "rb") as written:  # noqa: PTH123 - its name is text
            os.fsync(written.fileno())
        os.replace(file.name, path)  # noqa: PTH105 - the same
    sync_directory(path.parent)


def erase_rejected(folder: Path, sought: Sought, *, dry_run: bool) -> tuple[int, tuple[str, ...]]:
    """Remove the lines in which a person is named from files that the door rejected, which nobody reads as records.

    How many, and which files cannot be searched: those that are no text. With `dry_run` nothing is changed.
    """
    lines, unread = 0, []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.suffix == ".parquet":
            unread.append(str(path))
            continue
        named = _named_lines(path, sought)
        lines += named
        if named and not dry_run:
            with _replacing(path) as file, path.open("rb") as before:
                file.writelines(line for line in before if not sought.is_named_in(line))
    return lines, tuple(unread)


def _named_lines(path: Path, sought: Sought) -> int:
    with path.open("rb") as file:
        return sum(map(sought.is_named_in, file))


# Text


def _write_text(
    path: Path, file: IO[bytes], item: Item, sought: Sought, known: frozenset[str], *, keep_places: bool
) -> None:
    empty = b"{}\n" if item.kind == "jsonl" else _empty_row(path, item, known)
    for content, is_meant in _records(path, item, sought, known):
        if not is_meant:
            file.write(content)
        elif keep_places:
            file.write(empty)


def _empty_row(path: Path, item: Item, known: frozenset[str]) -> bytes:
    header = _header(path, item, known)
    if header is None:
        return b"\n"
    delimiter, names = header[1], header[2]
    return (delimiter * (len(names) - 1) or '""').encode() + b"\n"


def _may_hold(path: Path, sought: Sought) -> bool:
    """Whether any part of the file can be about the person: most files are read no further than to see that."""
    before = b""
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            if any(Sought((field,)).may_be_in(before + block) for field in sought.fields):
                return True
            before = block[-_BLOCK_BYTES // 8 :]
    return False


def _records(path: Path, item: Item, sought: Sought, known: frozenset[str]) -> Iterator[tuple[bytes, bool]]:
    """The file in pieces, each with whether it is a record about the person; a header is none."""
    if item.kind == "jsonl":
        with path.open("rb") as file:
            for line in file:
                yield line, _is_meant("jsonl", None, line, sought)
        return
    found = _header(path, item, known)
    if found is None:  # it is no CSV: the door rejects it as a whole, and so is it taken here
        content = path.read_bytes()
        yield content, sought.is_named_in(content)
        return
    at, delimiter, names = found
    header = msgspec.json.encode([delimiter, *names]).decode()
    with path.open("rb") as file:
        yield file.read(at), False
        for row in _rows(file, row_pattern(delimiter)):
            yield row, _is_meant("csv", header, row, sought)


def _is_meant(kind: str, header: str | None, raw: bytes, sought: Sought) -> bool:
    if not sought.may_be_in(raw):
        return False
    record = read_record(kind, header, raw)
    return sought.is_named_in(raw) if record is None else sought.is_in(record)


def _header(path: Path, item: Item, known: frozenset[str]) -> tuple[int, str, list[str]] | None:
    try:
        found = read_header(path, item.delimiter, known)
    except MainstayError:
        return None
    return found.bytes, found.delimiter, found.names


def _rows(file: IO[bytes], pattern: re.Pattern[bytes]) -> Iterator[bytes]:
    """The rows of CSV as they stand there, what is no row line by line."""
    rest = b""
    while True:
        read = file.read(_BLOCK_BYTES)
        block = rest + read
        at = 0
        while at < len(block):
            found = pattern.match(block, at)
            end = found.end() if found else 0
            if not end:
                if read and len(block) - at <= MAX_ROW_BYTES:
                    break  # more of the file may make it a row
                end = block.find(b"\n", at) + 1 or len(block)
            yield block[at:end]
            at = end
        rest = block[at:]
        if not read:
            return


# Parquet


def _parquet_test(path: Path, sought: Sought) -> pl.Expr | None:
    """What is true of the rows about the person; None where none can be."""
    try:
        schema = pl.scan_parquet(path).collect_schema()
    except (pl.exceptions.PolarsError, OSError):
        return None  # it is no Parquet: the door rejects it, and what it puts aside is searched there
    tests = []
    for name, value in sought.fields:
        expr, kind = _column(schema, name)
        test = None if expr is None else value_test(expr, kind, value)
        if test is None:
            return None
        tests.append(test)
    return pl.all_horizontal(tests)


def _column(schema: pl.Schema, path: str) -> tuple[pl.Expr | None, Any]:
    if path in schema:
        return pl.col(path), schema[path]
    name, *rest = path.split(".")
    if name not in schema:
        return None, None
    expr = pl.col(name)
    kind: Any = schema[name]
    for part in rest:
        fields = {each.name: each.dtype for each in kind.fields} if isinstance(kind, pl.Struct) else {}
        if part not in fields:
            return None, None
        expr, kind = expr.struct.field(part), fields[part]
    return expr, kind


def _write_parquet(path: Path, target: str, sought: Sought, *, keep_places: bool) -> None:
    test = _parquet_test(path, sought)
    assert test is not None, "rows were found by it"
    rows = pl.scan_parquet(path)
    kept = rows.with_columns(pl.when(~test).then(pl.all())) if keep_places else rows.filter(~test)
    kept.sink_parquet(target)
