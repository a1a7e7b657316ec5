"""Event time, arrival time, and which rows are late.

The watermark of a source is the newest event time that came, less the lateness it allows. A row is late when its event
lies before the watermark as it stood when the row's item began: rows that arrive together do not make each other late,
and the same item gives the same answer however often its taking was interrupted. An event time after the arrival moves
the watermark to the arrival and no further, so that one wrong clock does not make late what follows. A row without an
event time is not late.

What becomes of a late row is declared: `join` flags it; `correct` flags it, and it counts as the newest row of its key;
`re-decide` flags it, so that scheduled batches decide again; `ignore` puts it into quarantine with reason `late`.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from mainstay.intake.types import ITEM, LATE, ROW

if TYPE_CHECKING:
    from collections.abc import Sequence

EVENT_TYPE: Final = pl.Datetime("us", "UTC")

_ORDER: Final = "mainstay_order"


def event_times(column: pl.Series) -> pl.Series:
    """The instants of a column of dates or timestamps. A date begins at midnight UTC, and a text is no instant."""
    if column.dtype == pl.Date:
        return column.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    if isinstance(column.dtype, pl.Datetime):
        return column.dt.replace_time_zone("UTC") if column.dtype.time_zone is None else column.cast(EVENT_TYPE)
    return pl.repeat(None, len(column), dtype=EVENT_TYPE, eager=True)


class Watermark:
    """How far a source has come in event time."""

    def __init__(self, allowed_seconds: float, before: datetime | None = None, newest: datetime | None = None) -> None:
        """`before` is the newest event of the items before this one, `newest` that of this one's rows so far too."""
        self._allowed = timedelta(seconds=allowed_seconds)
        self.before = before
        self.newest = newest if newest is not None else before

    @property
    def at(self) -> datetime | None:
        """The watermark by all that came; None before the first event."""
        return self._behind(self.newest)

    @property
    def limit(self) -> datetime | None:
        """Before it a row of this item is late; None where no row is."""
        return self._behind(self.before)

    def late(self, events: pl.Series) -> pl.Series:
        """Whether each row of the item is late."""
        limit = self.limit
        if limit is None:
            return pl.repeat(False, len(events), dtype=pl.Boolean, eager=True)  # noqa: FBT003 - the value to repeat
        return (events < limit).fill_null(value=False)

    def take(self, events: pl.Series, arrived_at: datetime) -> None:
        """Know of rows of the item."""
        newest: Any = events.max()
        if isinstance(newest, datetime):
            counted = min(newest, arrived_at)
            self.newest = counted if self.newest is None else max(self.newest, counted)

    def _behind(self, newest: datetime | None) -> datetime | None:
        if newest is None:
            return None
        try:
            return newest - self._allowed
        except OverflowError:  # the year 1 has no year before it
            return None


def shown(instant: datetime | None) -> str:
    """An instant as RFC 3339 writes it."""
    return "none" if instant is None else instant.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def current(frame: pl.LazyFrame, key: Sequence[str]) -> pl.LazyFrame:
    """Of rows of an intake table, those in force: of each key the one that came last.

    `key` names columns of the table. A late row that joins (`mainstay_late` is `join`) corrects nothing, so it is in
    force only where no other row has its key. A row without a key, one of whose parts is null, is always in force.
    """
    if not key:
        return frame
    joins = pl.col(LATE).fill_null("") == "join"
    # The greatest of these numbers came last. Items have numbers below 2^30, and rows below 2^32.
    order = (pl.when(joins).then(-(2**62)).otherwise(0) + pl.col(ITEM) * 2**32 + pl.col(ROW)).alias(_ORDER)
    whole = pl.all_horizontal(pl.col(list(key)).is_not_null())
    ordered = frame.with_columns(order)
    newest = pl.col(_ORDER) == pl.col(_ORDER).max().over(list(key))
    return ordered.filter(~whole | newest).drop(_ORDER)
