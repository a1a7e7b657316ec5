"""The table that queries see, where its file is none that DuckDB reads: its rows again, as Parquet, part by part."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from mainstay.contract.service_facts import moments_of

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.contract.types import SchemaObject

_MOMENTS: Final = frozenset({"date", "timestamp"})


class TableCopy:
    """Rows as Parquet files in a folder of their own, which whoever made it removes."""

    def __init__(self, declared: SchemaObject, folder: Path) -> None:
        self._dated = {each.name: each.logical_type for each in declared.properties if each.logical_type in _MOMENTS}
        self._folder = folder
        self._files: list[str] = []

    @property
    def files(self) -> tuple[str, ...]:
        """The files so far."""
        return tuple(self._files)

    def add(self, raw: pl.DataFrame, typed: pl.DataFrame) -> None:
        """Write a batch: values as the contract reads them; dates and times that are texts become what they say."""
        del raw
        file = self._folder / f"{len(self._files):06}.parquet"
        made = [self._column(column) for column in typed.get_columns()]
        pl.DataFrame(made).write_parquet(file, compression="lz4", statistics=False)
        self._files.append(str(file))

    def _column(self, column: pl.Series) -> pl.Series:
        kind = self._dated.get(column.name)
        moments = moments_of(column) if kind is not None and column.dtype == pl.String else None
        if moments is None:
            return column
        return (moments.cast(pl.Date) if kind == "date" else moments).alias(column.name)
