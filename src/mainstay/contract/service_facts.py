"""What service levels ask of a table: the oldest and newest moment of a property, and how many values it has."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import polars as pl

from mainstay.contract.columns_records import TEXTS
from mainstay.contract.quality_measures import values_at
from mainstay.contract.service_levels import ElementFacts, TableFacts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mainstay.contract.quality import Path
    from mainstay.contract.service_levels import ServiceCheck
    from mainstay.contract.types import Property, SchemaObject

_EARLIEST: Final = datetime(1, 1, 1)  # noqa: DTZ001 - the first of the calendar, compared with moments without a zone
_LATEST: Final = datetime(9999, 12, 31, 23, 59, 59, 999_999)  # noqa: DTZ001 - and the last


@dataclass(slots=True)
class _Seen:
    """What the batches so far had at a path."""

    path: Path
    oldest: datetime | None = None
    newest: datetime | None = None
    present: int = 0
    places: int = 0
    is_there: bool = False

    def add(self, raw: pl.DataFrame, typed: pl.DataFrame) -> None:
        values = values_at(typed, self.path)
        if values is None:
            return
        self.is_there = True
        given = values_at(raw, self.path)
        given = values if given is None else given
        self.present += len(given) - given.null_count()
        self.places += len(given)
        moments = moments_of(values)
        for found in () if moments is None else (moments.min(), moments.max()):
            if isinstance(found, datetime):
                moment = found.replace(tzinfo=UTC)
                self.oldest = moment if self.oldest is None else min(self.oldest, moment)
                self.newest = moment if self.newest is None else max(self.newest, moment)


class FactsGatherer:
    """Facts of one object for its service levels, batch by batch."""

    def __init__(self, declared: SchemaObject, checks: Sequence[ServiceCheck]) -> None:
        wanted = {check.path for check in checks if check.object == declared.name and check.path}
        self._object = declared.name
        self._seen = {path: _Seen(_split(declared.properties, path)) for path in sorted(wanted)}

    def add(self, raw: pl.DataFrame, typed: pl.DataFrame) -> None:
        """Look at a batch. `raw` has the cells of a file of text as they are, `typed` as the contract reads them."""
        for seen in self._seen.values():
            seen.add(raw, typed)

    def facts(self, rows: int, bad_rows: int | None, arrivals: Sequence[datetime] = ()) -> TableFacts:
        """What was seen, with what others know: how many rows the table has, also such as could not be read."""
        elements = {
            path: ElementFacts(oldest=seen.oldest, newest=seen.newest, present=seen.present, places=seen.places)
            for path, seen in self._seen.items()
            if seen.is_there
        }
        return TableFacts(
            object=self._object, rows=rows, bad_rows=bad_rows, elements=elements, arrivals=tuple(arrivals)
        )


def moments_of(values: pl.Series) -> pl.Series | None:
    """Dates and times as moments of UTC without a zone, null where there is none; None of other types of columns.

    A date is its first instant; without an offset, UTC is meant. Texts are those of RFC 3339.
    """
    kind = values.dtype
    if kind == pl.Date:
        moments = values.cast(pl.Datetime("us"))
    elif isinstance(kind, pl.Datetime):
        moments = values.cast(pl.Datetime("us", kind.time_zone))
        moments = moments if kind.time_zone is None else moments.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    elif kind in TEXTS:
        moments = _read_texts(values.cast(pl.String))
    else:
        return None
    # the engine knows years that Python, and RFC 3339, does not
    outside = ~moments.is_between(_EARLIEST, _LATEST)
    return moments.set(outside.fill_null(value=False), None) if outside.any() else moments


def _read_texts(texts: pl.Series) -> pl.Series:
    upper = texts.str.to_uppercase()
    with_offset = upper.str.to_datetime("%+", time_unit="us", time_zone="UTC", strict=False)
    without = upper.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f", time_unit="us", strict=False)
    dates = upper.str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("us"))
    frame = pl.DataFrame([with_offset.dt.replace_time_zone(None).alias("a"), without.alias("b"), dates.alias("c")])
    return frame.select(pl.coalesce("a", "b", "c")).to_series()


def _split(properties: Sequence[Property], path: str) -> Path:
    """The names in a path that leads to a property, any of which may hold a point itself."""
    for each in properties:
        if each.name == path:
            return (path,)
        if path.startswith(f"{each.name}."):
            below = _split(each.properties, path[len(each.name) + 1 :])
            if below:
                return (each.name, *below)
    return ()
