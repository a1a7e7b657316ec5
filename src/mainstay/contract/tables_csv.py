r"""Rows of a CSV file: UTF-8 with a header, cells in double quotes where they need them (RFC 4180).

A file is read in blocks. Where quotes stand only where they may, whole blocks are cut into rows by counting: a line
break or delimiter counts when an even number of quotes stands before it. In a block where a quote stands elsewhere,
each row is read by a grammar, so that one stray quote costs one row and no more. A row that has too many cells or too
few, or is no UTF-8, or whose quotes do not close, is broken: it is given as it is, with the reason. No row is lost.

A quote inside a cell that does not begin with one is a character like others. A cell that is empty without quotes is
null, and so is `""` but in texts. Empty lines are no rows, unless the table has one column only.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import polars as pl

from mainstay.contract.types import Violation
from mainstay.contract.violations import RECORD
from mainstay.errors import Failed, Misuse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

BLOCK_BYTES: Final = 4 << 20
MAX_ROW_BYTES: Final = 1 << 20
DELIMITERS: Final = (",", ";", "\t", "|")

_BOM: Final = b"\xef\xbb\xbf"
_QUOTE, _NEWLINE, _RETURN = b'"\n\r'
_QUOTED: Final = re.compile(r'"([^"]*(?:""[^"]*)*)"')


class Rows(NamedTuple):
    """Consecutive rows of a file."""

    first: int  # the number of the first, from 1
    height: int
    cells: pl.DataFrame  # of the rows that are whole, as texts; columns `c0`, `c1`, …
    whole: Any  # their positions from `first`, a numpy array of integers
    broken: list[Broken]
    raw: Callable[[Sequence[int]], list[bytes]]  # the bytes of some of `cells`, by index, as they stand in the file


class Broken(NamedTuple):
    """A row that could not be read."""

    position: int  # from that of the first
    raw: bytes
    violation: Violation


class CsvReader:
    """The rows of one file, in order. `done` counts the bytes that were read."""

    def __init__(
        self, path: Path, delimiter: str, header_bytes: int, width: int, *, block_bytes: int = BLOCK_BYTES
    ) -> None:
        self._path = path
        self._block_bytes = block_bytes
        self._delimiter = delimiter.encode()
        self._header_bytes = header_bytes
        self._width = width
        self._row = row_pattern(delimiter)
        self._open_row = _open_row_pattern(delimiter)
        self._in_long_line = False  # of which the beginning was given as a broken row
        self.done = 0

    def __iter__(self) -> Iterator[Rows]:
        self.done = self._header_bytes
        first = 1
        rest = b""
        with self._path.open("rb") as file:
            file.seek(self._header_bytes)
            while True:
                read = file.read(self._block_bytes)
                self.done += len(read)
                block = rest + self._after_long_line(read)
                if not read and block and not block.endswith(b"\n"):
                    block += b"\n"  # what ends the last row
                rows, taken = self._rows(block, first, is_last=not read)
                rest = block[taken:]
                first += rows.height
                if rows.height:
                    yield rows
                if not read:
                    return

    def _after_long_line(self, read: bytes) -> bytes:
        if not self._in_long_line:
            return read
        end = read.find(b"\n") + 1
        self._in_long_line = not end
        return read[end:] if end else b""

    def _rows(self, block: bytes, first: int, *, is_last: bool) -> tuple[Rows, int]:
        """The whole rows at the beginning of a block, and how many bytes they are."""
        made = self._by_counting(block, first)
        if made is None or (is_last and made[1] < len(block)) or len(block) - made[1] > MAX_ROW_BYTES:
            return self._by_grammar(block, first, is_last=is_last)
        return made

    def _by_counting(self, block: bytes, first: int) -> tuple[Rows, int] | None:
        """As `_rows`; None where quotes stand where they should not, or the engine counts otherwise."""
        if block.count(b"\r") != block.count(b"\r\n"):
            return None  # of a cell that is one carriage return, the engine makes an empty one
        data = np.frombuffer(block, dtype=np.uint8)
        breaks, delimiters = data == _NEWLINE, data == self._delimiter[0]
        if _QUOTE in block:
            quotes = data == _QUOTE
            inside = np.logical_xor.accumulate(quotes)
            if not _is_well_quoted(data, quotes, inside, self._delimiter[0]):
                return None
            breaks &= ~inside
            delimiters &= ~inside
        ends = np.flatnonzero(breaks)
        if not len(ends):
            return self._none(first), 0
        starts = np.concatenate([[0], ends[:-1] + 1])
        taken = int(ends[-1]) + 1
        cells = np.diff(np.searchsorted(np.flatnonzero(delimiters), ends), prepend=0) + 1
        if self._width > 1:
            sizes = ends - starts
            is_row = ~((sizes == 0) | ((sizes == 1) & (data[starts] == _RETURN)))
            starts, ends, cells = starts[is_row], ends[is_row], cells[is_row]
        sound = (cells == self._width) & (ends - starts < MAX_ROW_BYTES)
        sound[_not_text(block, taken, starts, ends)] = False
        whole = np.flatnonzero(sound)
        frame = self._frame(_joined(block, starts[whole], ends[whole]))
        if frame is None or frame.height != len(whole):
            return None
        broken = [self._broken(i, block[starts[i] : ends[i] + 1]) for i in np.flatnonzero(~sound).tolist()]

        def raw(indices: Sequence[int]) -> list[bytes]:
            rows = whole[np.asarray(indices, dtype=np.int64)]
            return [block[a : b + 1] for a, b in zip(starts[rows].tolist(), ends[rows].tolist(), strict=True)]

        return Rows(first, len(starts), frame, whole, broken, raw), taken

    def _frame(self, text: bytes) -> pl.DataFrame | None:
        """The cells of rows that are whole, or None where the engine does not take them."""
        schema = {f"c{i}": pl.String() for i in range(self._width)}
        if not text:
            return pl.DataFrame(schema=schema)
        try:
            return pl.read_csv(
                text,
                has_header=False,
                schema=schema,
                separator=self._delimiter.decode(),
                quote_char='"' if _QUOTE in text else None,
                raise_if_empty=False,
            )
        except pl.exceptions.PolarsError:
            return None

    def _by_grammar(self, block: bytes, first: int, *, is_last: bool) -> tuple[Rows, int]:
        cells: list[list[str | None]] = []
        whole: list[int] = []
        raws: list[bytes] = []
        broken: list[Broken] = []
        at = count = 0
        while at < len(block):
            found = self._row.match(block, at)
            end = found.end() if found else self._broken_end(block, at, is_last=is_last)
            if end == 0:
                break
            raw = block[at:end]
            at = end
            if self._width > 1 and raw in {b"\n", b"\r\n"}:
                continue
            row = self._cells(raw)
            if isinstance(row, Violation):
                broken.append(self._broken(count, raw))
            else:
                cells.append(row)
                whole.append(count)
                raws.append(raw)
            count += 1
        schema = {f"c{i}": pl.String() for i in range(self._width)}
        frame = pl.DataFrame(cells, schema=schema, orient="row")
        positions = np.asarray(whole, dtype=np.int64)
        return Rows(first, count, frame, positions, broken, lambda indices: [raws[i] for i in indices]), at

    def _broken_end(self, block: bytes, at: int, *, is_last: bool) -> int:
        """Where the line ends that is no row, or 0 when more of the file may yet make it one."""
        line_end = block.find(b"\n", at) + 1
        if is_last or len(block) - at > MAX_ROW_BYTES:
            self._in_long_line = not line_end
            return line_end or len(block)
        return 0 if not line_end or self._open_row.match(block, at) else line_end

    def _broken(self, position: int, raw: bytes) -> Broken:
        violation = self._cells(raw)
        assert isinstance(violation, Violation), "a row that can be read was counted as broken"
        return Broken(position, raw[:MAX_ROW_BYTES], violation)

    def _cells(self, raw: bytes) -> list[str | None] | Violation:
        """The cells of a row, or why it is none."""
        if len(raw) > MAX_ROW_BYTES:
            return Violation(RECORD, "malformed", f"a row of at most {MAX_ROW_BYTES} bytes", "more")
        if not self._row.fullmatch(raw):
            return Violation(RECORD, "malformed", "quotes that open and close cells", "another quote")
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            return Violation(RECORD, "malformed", "UTF-8", "other bytes")
        cells = split_row(text, self._delimiter.decode())
        if len(cells) != self._width:
            return Violation(
                RECORD, "malformed", f"{self._width} cell{'' if self._width == 1 else 's'}", str(len(cells))
            )
        return cells

    def _none(self, first: int) -> Rows:
        schema = {f"c{i}": pl.String() for i in range(self._width)}
        return Rows(first, 0, pl.DataFrame(schema=schema), np.zeros(0, dtype=np.int64), [], lambda _: [])


class Header(NamedTuple):
    """The first row of a file."""

    names: list[str]
    delimiter: str
    bytes: int  # where the rows begin


def read_header(path: Path, delimiter: str | None, known: frozenset[str]) -> Header:
    """The header, by the delimiter or the one that gives most `known` names.

    Raises Failed where there is none, and Misuse where the delimiter cannot be one.
    """
    if delimiter is not None and (len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n'):
        raise Misuse(
            f"expected one ASCII character as the delimiter, but for a quote or line break, found {delimiter!r}"
        )
    with path.open("rb") as file:
        block = file.read(MAX_ROW_BYTES)
    skipped = len(_BOM) if block.startswith(_BOM) else 0
    if block[skipped:] and len(block) < MAX_ROW_BYTES and not block.endswith(b"\n"):
        block += b"\n"
    found = []
    for each in (delimiter,) if delimiter else DELIMITERS:
        row = row_pattern(each).match(block, skipped)
        if row is None:
            continue
        try:
            names = [name or "" for name in split_row(row.group().decode(), each)]
        except UnicodeDecodeError as error:
            raise Failed(f"{path}: expected a header in UTF-8, found other bytes ({error.reason})") from error
        found.append(Header(names, each, row.end()))
    if not found or found[0].names == [""]:
        raise Failed(
            f"{path}: expected a header of at most {MAX_ROW_BYTES} bytes with the names of columns, found none"
        )
    best = max(found, key=lambda header: len(known.intersection(header.names)))
    repeated = {name for name in best.names if best.names.count(name) > 1}
    if repeated:
        raise Failed(f"{path}: expected each column once in the header, found {min(repeated)!r} again")
    return best


def row_pattern(delimiter: str) -> re.Pattern[bytes]:
    """A row with its line break."""
    cell, d = _cell_pattern(delimiter)
    return re.compile(cell + b"(?:" + d + cell + rb")*+\r?\n")


def split_row(row: str, delimiter: str) -> list[str | None]:
    """The cells of what `row_pattern` matched; None where one is empty without quotes."""
    row = row.removesuffix("\n").removesuffix("\r")
    cells: list[str | None] = []
    at = 0
    while True:
        quoted = _QUOTED.match(row, at)
        if quoted:
            cells.append(quoted[1].replace('""', '"'))
            end = quoted.end()
        else:
            end = row.find(delimiter, at)
            end = len(row) if end < 0 else end
            cells.append(row[at:end] or None)
        if end >= len(row):
            return cells
        at = end + 1


def _open_row_pattern(delimiter: str) -> re.Pattern[bytes]:
    """What may begin a row, if more follows the end of the block."""
    cell, d = _cell_pattern(delimiter)
    return re.compile(b"(?:" + cell + d + b")*+(?:" + cell + rb"\r?|" + rb'"[^"]*+(?:""[^"]*+)*+"?)\Z')


def _cell_pattern(delimiter: str) -> tuple[bytes, bytes]:
    """The patterns of a cell and of the delimiter after it."""
    d = re.escape(delimiter.encode())
    return rb'(?:"[^"]*+(?:""[^"]*+)*+"|[^"\n' + d + rb"][^\n" + d + b"]*+|)", d


def _is_well_quoted(data: Any, quotes: Any, inside: Any, delimiter: int) -> bool:
    """Whether each quote opens a cell, closes one, or is one of two that stand for one."""
    at = np.flatnonzero(quotes)
    opens = inside[at]
    before = np.where(at > 0, data[at - 1], _NEWLINE)
    padded = np.append(data, [_NEWLINE, _NEWLINE])
    after, next_after = padded[at + 1], padded[at + 2]
    starts = (before == delimiter) | (before == _NEWLINE) | (before == _QUOTE)
    ends = (after == delimiter) | (after == _NEWLINE) | (after == _QUOTE)
    ends |= (after == _RETURN) & (next_after == _NEWLINE)
    return bool(np.where(opens, starts, ends).all())


def _not_text(block: bytes, taken: int, starts: Any, ends: Any) -> list[int]:
    """Which rows are no UTF-8."""
    if block.isascii():
        return []
    try:
        block[:taken].decode()
    except UnicodeDecodeError:
        return [i for i, (start, end) in enumerate(zip(starts, ends, strict=True)) if not _is_text(block[start:end])]
    return []


def _is_text(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _joined(block: bytes, starts: Any, ends: Any) -> bytes:
    """The rows between these positions, each with its line break."""
    if not len(starts):
        return b""
    gaps = np.flatnonzero(starts[1:] != ends[:-1] + 1)
    firsts = starts[np.concatenate([[0], gaps + 1])]
    lasts = ends[np.concatenate([gaps, [len(ends) - 1]])]
    return b"".join(block[start : end + 1] for start, end in zip(firsts.tolist(), lasts.tolist(), strict=True))
