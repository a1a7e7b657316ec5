"""When that happened which is decided about, where an input field says so, in place of when it was decided.

A replay of nine months in two minutes, and a batch over last year, have the windows of those months. Labels are counted
by when they were observed, then: what became of a flight of April was known in April.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from mainstay.monitoring.evidence import parse

if TYPE_CHECKING:
    from mainstay.capability.keeping import Monitoring

_INSTANT: Final = pl.Datetime("us", "UTC")
_WITH_OFFSET: Final = "%Y-%m-%dT%H:%M:%S%.f%#z"
_WITHOUT: Final = ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d")  # taken for UTC


def decisions_in_time(decisions: pl.DataFrame, monitoring: Monitoring) -> pl.DataFrame:
    """Rows of decisions in the order of the ledger, `at` being the event time where the declaration names a field.

    A row whose input does not say it (it broke the contract, or was erased) has that of the row before it; where no row
    says it, `at` stays when it was decided.
    """
    if monitoring.time is None or not decisions.height:
        return decisions
    told = parse(decisions["input"], pl.Schema({monitoring.time: pl.String()}))[monitoring.time]
    return decisions.with_columns(pl.coalesce(instants(told).forward_fill().backward_fill(), pl.col("at")).alias("at"))


def outcomes_in_time(outcomes: pl.DataFrame, monitoring: Monitoring) -> pl.DataFrame:
    """Rows of outcomes, `at` being when they were observed where decisions are counted by event time."""
    if monitoring.time is None:
        return outcomes
    return outcomes.with_columns(pl.coalesce("observed_at", "at").alias("at"))


def instants(texts: pl.Series) -> pl.Series:
    """ISO 8601 dates and instants, in UTC where they say no offset; null for anything else."""
    texts = texts.str.to_uppercase()
    found = [texts.str.to_datetime(_WITH_OFFSET, time_unit="us", time_zone="UTC", strict=False)]
    for form in _WITHOUT:
        read = texts.str.to_datetime(form, time_unit="us", strict=False)
        found.append(read.dt.replace_time_zone("UTC"))
    return pl.select(pl.coalesce(found).cast(_INSTANT)).to_series()
