"""Held rows as items that the door can read: the bytes of each as they came, those of one kind and header in one file.

A row of CSV stands under the header it came with. Row n of a file is the nth that was written to it, which holds only
when each is surely one record by itself: bytes that are none, such as a line with a quote that does not close, are left
out. No contract would let them in.
"""

from __future__ import annotations

import csv
import io
import os
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import msgspec
import polars as pl

from mainstay.contract.tables_csv import MAX_ROW_BYTES, row_pattern
from mainstay.contract.tables_text import MAX_LINE_BYTES
from mainstay.errors import Failed
from mainstay.intake.types import HEADER, ITEM, KIND, RAW, REASON, ROW

if TYPE_CHECKING:
    import re
    from collections.abc import Callable
    from pathlib import Path
    from typing import BinaryIO

MAX_FILES: Final = 64  # headers among the rows of one replay

_UNREADABLE: Final = "unreadable"
PLACES: Final = pl.Schema({"part": pl.Int64(), "into_row": pl.Int64()})


class Written(NamedTuple):
    """A file of rows."""

    kind: Literal["csv", "jsonl"]
    delimiter: str | None
    rows: int
    bytes: int
    named: str  # the rows, for people


class ItemWriter:
    """Writes rows to files, one for each kind and header."""

    def __init__(self, path_of: Callable[[int], Path]) -> None:
        """`path_of` says where the file of a number stands, from 0."""
        self._path_of = path_of
        self._files: dict[tuple[str, str | None], _File] = {}

    def add(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Write rows; for each, the number of its file and its row there, or null where it was left out.

        Raises Failed when they came under more than MAX_FILES headers.
        """
        places: list[tuple[int, int] | tuple[None, None]] = []
        for item, row, reason, kind, header, raw in rows.select(ITEM, ROW, REASON, KIND, HEADER, RAW).iter_rows():
            content = None if reason == _UNREADABLE else record_of(kind, header, raw)
            if content is None:
                places.append((None, None))
            else:
                file = self._file(kind, header)
                places.append((file.number, file.write(content, (item, row))))
        return pl.DataFrame(places, schema=PLACES, orient="row")

    def _file(self, kind: str, header: str | None) -> _File:
        found = self._files.get((kind, header))
        if found is None:
            number = len(self._files)
            if number == MAX_FILES:
                raise Failed(
                    f"expected rows under at most {MAX_FILES} headers, found more",
                    hint="Replay them item by item, with --item.",
                )
            found = self._files[kind, header] = _File(number, self._path_of(number), kind, header)
        return found

    def finish(self) -> list[Written]:
        """What was written, durably."""
        return [file.finish() for file in self._files.values()]


class _File:
    def __init__(self, number: int, path: Path, kind: str, header: str | None) -> None:
        self.number = number
        self._kind: Literal["csv", "jsonl"] = "csv" if kind == "csv" else "jsonl"
        self._file: BinaryIO = path.open("wb")
        self._rows = 0
        self._first = self._last = (0, 0)
        self._delimiter: str | None = None
        if header is not None:
            self._delimiter, *names = read_csv_header(header)
            self._file.write(header_line(self._delimiter, names))

    def write(self, content: bytes, place: tuple[int, int]) -> int:
        if not self._rows:
            self._first = place
        self._last = place
        self._rows += 1
        self._file.write(content)
        self._file.write(b"\n")
        return self._rows

    def finish(self) -> Written:
        self._file.flush()
        os.fsync(self._file.fileno())
        size = self._file.tell()
        self._file.close()
        first, last = (f"{item}:{row}" for item, row in (self._first, self._last))
        named = first if self._rows == 1 else f"{self._rows:,} held rows, {first} to {last}"
        return Written(self._kind, self._delimiter, self._rows, size, named)


def record_of(kind: str, header: str | None, raw: bytes) -> bytes | None:
    """The bytes of a row as they can stand in a file among others, without a line break; None where they cannot."""
    content = raw.removesuffix(b"\n").removesuffix(b"\r")
    if kind != "csv":
        return content if content.strip() and b"\n" not in content and len(content) <= MAX_LINE_BYTES else None
    if header is None or len(content) >= MAX_ROW_BYTES:
        return None
    delimiter, *names = read_csv_header(header)
    if not content and len(names) > 1:
        return None
    return content if _pattern(delimiter).fullmatch(content + b"\n") else None


@lru_cache(maxsize=256)
def read_csv_header(header: str) -> tuple[str, ...]:
    """The delimiter and the names of the columns, as HEADER has them."""
    return tuple(msgspec.json.decode(header, type=list[str]))


def header_line(delimiter: str, names: list[str]) -> bytes:
    """The first line of a CSV file."""
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerow(names)
    return text.getvalue().encode()


@lru_cache(maxsize=16)
def _pattern(delimiter: str) -> re.Pattern[bytes]:
    return row_pattern(delimiter)
