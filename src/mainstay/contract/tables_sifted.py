"""Some rows of a file with everything that was found of them: `tables_sifting.sift` gives them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import polars as pl

    from mainstay.contract.types import Violation

FileKind: TypeAlias = Literal["csv", "jsonl", "parquet"]
Record: TypeAlias = dict[str, Any]

encode: Final = msgspec.json.Encoder(enc_hook=str).encode


@dataclass(frozen=True, slots=True)
class Sifted:
    """Some consecutive rows of a file. What is to be called is called before the next piece is asked for."""

    begin: int  # rows, lines of JSON, of the file before these; the first has the number `begin` + 1
    end: int
    clean: pl.DataFrame  # good rows; of JSON lines `tables_text.record_type`, of CSV `columns_cells.cell_type`
    numbers: pl.Series  # Int64, of the good rows in the file, from 1
    extra: pl.Series  # String: of each good row, the JSON of what the contract does not know; or null
    bad: pl.Series  # Int64, the numbers of the other rows
    bad_extra: Sequence[str | None]
    records: Callable[[], list[Record | None]]  # of the bad rows, what the contract knows; None where one is no record
    explain: Callable[[Sequence[int]], list[tuple[Violation, ...]]]  # of some bad rows, by index
    raw_bad: Callable[[Sequence[int]], list[bytes]]  # the same
    raw_clean: Callable[[Sequence[int]], list[bytes]]  # of some good rows, by index
    columns: Mapping[str, str]  # that these rows have, and their types, for people
    unknown: tuple[str, ...]  # of them those that the contract does not know
    header: str | None = None  # of CSV, JSON: the delimiter and the names of the columns, by which raw rows are read

    @property
    def rows(self) -> int:
        """How many records these are; empty lines are none."""
        return len(self.numbers) + len(self.bad)
