"""What checking a table takes and gives: `tables.check_table`."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - msgspec reads the types of a struct when it encodes or decodes one
from typing import TYPE_CHECKING, NamedTuple, Protocol

from msgspec import Struct

from mainstay.contract.types import Rule  # noqa: TC001 - the same

if TYPE_CHECKING:
    import polars as pl

# Columns that the file of bad rows has beside the table's own.
FILE = "mainstay_file"
ROW = "mainstay_row"
RAW = "mainstay_raw"
VIOLATIONS = "mainstay_violations"


class CsvDialect(NamedTuple):
    """How a CSV file is written. UTF-8, a header line, cells in double quotes where they need them (RFC 4180)."""

    delimiter: str | None = (
        None  # one ASCII character; None: that of , ; tab | which gives most of the contract's names
    )


class Progress(NamedTuple):
    """How far a check has come."""

    rows: int
    bad_rows: int
    share: float  # of the work, 0 to 1


class Observer(Protocol):
    """Looks at every row of a table that can be read, piece by piece, while it is checked."""

    def add(self, raw: pl.DataFrame, typed: pl.DataFrame) -> None:
        """Look at some rows: as they came (of CSV, texts), and as the contract reads them, null where that fails."""
        ...


class Example(Struct, frozen=True):
    """One place where a rule was broken."""

    file: str
    row: int  # from 1; a CSV header is not counted
    expected: str
    found: str  # `(masked)` where the contract classifies the field


class RuleCount(Struct, frozen=True):
    """How often one rule was broken in one field; items of an array count together, as `lines[].sku`."""

    field: str
    rule: Rule
    count: int
    examples: tuple[Example, ...]  # the first few


class TableReport(Struct, frozen=True):
    """What a check found."""

    object: str  # the contract's
    files: tuple[str, ...]
    rows: int
    bad_rows: int
    counts: tuple[RuleCount, ...]  # most frequent first
    uncounted: int  # violations of further fields, when there are too many to list
    clean: Path | None
    bad: Path | None
    repeated: tuple[int, ...] = ()  # rows that repeat an earlier one, for each of the validator's `counted_keys`

    @property
    def clean_rows(self) -> int:
        return self.rows - self.bad_rows
