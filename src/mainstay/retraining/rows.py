"""Frozen rows, cut in time: those that a challenger is fitted to, and the newer ones that it is held against.

What is frozen are snapshots of the lake. Of labelled decisions there are two, of the decisions and of the outcomes that
were reported; joined, they are the rows. Of another table there is one, which has the truth as a column.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import numpy as np
import polars as pl

from mainstay.errors import Misuse
from mainstay.lake.conditions import AllOf, Within
from mainstay.lake.decision_rows import DAY, DECISIONS, OUTCOMES
from mainstay.lake.decisions import EXPORTS, WRITER
from mainstay.lake.snapshots import open_snapshot
from mainstay.lake.taking import take
from mainstay.monitoring.event_time import decisions_in_time, outcomes_in_time
from mainstay.monitoring.evidence import SEQUENCE, columns_of, parse
from mainstay.monitoring.labelled import TRUTHS, items_of, read_labelled

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from mainstay.capability.keeping import Labels, Retraining
    from mainstay.capability.load import Declared
    from mainstay.lake.conditions import Condition
    from mainstay.lake.lake import Lake
    from mainstay.lake.snapshots import Snapshot

MOST_ROWS: Final = 5_000_000  # that are held in memory for a run
TIME: Final = "mainstay_at"  # the column of the rows that says when
OUTCOMES_OF: Final = "-outcomes"  # what the second snapshot is called, behind the first
_INSTANT: Final = pl.Datetime("us", "UTC")
_encode = msgspec.json.Encoder().encode


class Holdout(NamedTuple):
    """What both versions are asked, and what was true."""

    records: list[bytes]  # inputs, as JSON
    truth: NDArray[Any]  # (n,) bool, class or number; of rankings a list of what was relevant
    days: NDArray[Any]  # (n,) of the rows: what belongs together
    segments: dict[str, list[str]]


class Rows(NamedTuple):
    """The rows of a run."""

    fitted: int
    held_out: int
    since: datetime  # of the first row
    split: datetime  # the first held out is at it or after
    until: datetime  # of the last


def freeze(lake: Lake, declared: Declared, retraining: Retraining, name: str, now: datetime) -> list[Snapshot]:
    """Take the snapshots of a run, or those that were taken under this name before.

    Raises Misuse when the table is not there or has not the columns that are needed, Failed as taking does.
    """
    if retraining.table is not None:
        return [take(lake, name, retraining.table, where=_newer_than(lake, retraining))]
    capability = declared.capability
    taken = [kind + capability.name for kind in (DECISIONS, OUTCOMES)]
    missing = [table for table in taken if lake.find(table) is None]
    if missing:
        raise Misuse(
            f"{capability.name}: expected labelled decisions to train on, found no table {missing[0]}",
            hint="They come with decisions and their outcomes, and with `lake_interval_seconds` above 0.",
        )
    until = lake.table(EXPORTS).position(WRITER) or 0
    where: Condition = Within(SEQUENCE, 0, until)
    if capability.monitoring.time is None:
        where = AllOf((where, Within(DAY, (now - timedelta(days=retraining.history_days)).date(), None)))
    names = (name, name + OUTCOMES_OF)
    return [_take_once(lake, each, table, where) for each, table in zip(names, taken, strict=True)]


def _take_once(lake: Lake, name: str, table: str, where: Condition) -> Snapshot:
    """A run that was killed after it took a snapshot finds that one, whatever has come since."""
    try:
        return open_snapshot(lake, name)
    except Misuse:
        return take(lake, name, table, where=where)


def _newer_than(lake: Lake, retraining: Retraining) -> Condition | None:
    """The rows of the declared history, by the newest that there is."""
    table, column = lake.table(retraining.table or ""), retraining.time
    if column is None or column not in table.schema:
        raise Misuse(f"table {table.name}: expected a column {column} for retraining.time, found none")
    kind = table.schema[column]
    if not isinstance(kind, pl.Date | pl.Datetime):
        raise Misuse(f"table {table.name}: expected dates or instants in {column}, found {kind}")
    newest: date | datetime | None = table.frame().select(pl.col(column).max()).collect().item()
    return None if newest is None else Within(column, newest - timedelta(days=retraining.history_days), None)


class Cut(NamedTuple):
    """The rows of a run on either side of the split, each with `record`, `truth`, TIME and the segments."""

    rows: Rows
    fitted: pl.DataFrame
    held_out: pl.DataFrame


def read_rows(snapshots: list[Snapshot], declared: Declared, retraining: Retraining) -> Cut:
    """The frozen rows, cut in time.

    Raises Misuse when there are too few rows, too many, or they are not as declared; Damaged as snapshots do.
    """
    labels = labels_of(declared)
    if snapshots[0].rows > MOST_ROWS:
        raise Misuse(
            f"expected at most {MOST_ROWS:,} rows to train on, found {snapshots[0].rows:,}",
            hint="Shorten retraining.history_days.",
        )
    for snapshot in snapshots:
        snapshot.verify()
    read = _read_decisions if retraining.table is None else _read_table
    frame = read(snapshots, declared, retraining, labels).drop_nulls([TIME, "truth"]).sort(TIME, maintain_order=True)
    if frame.height:
        frame = frame.filter(pl.col(TIME) >= pl.col(TIME).max() - timedelta(days=retraining.history_days))
    return _cut(frame, retraining)


def write_rows(cut: Cut, declared: Declared, path: Path) -> None:
    """Write the rows to fit to: each field of the input that is a plain value, the truth by its name, and TIME.

    Raises Misuse when the input has a field of one of these names.
    """
    columns = parse(cut.fitted["record"], columns_of(declared.input))
    truth = labels_of(declared).truth
    if {truth, TIME} & set(columns.columns):
        raise Misuse(f"the input has a field {truth} or {TIME} too: the rows could not have both")
    columns.with_columns(cut.fitted["truth"].alias(truth), cut.fitted[TIME]).write_parquet(path)


def holdout_of(cut: Cut, declared: Declared) -> Holdout:
    """What both versions are held against."""
    held = cut.held_out
    return Holdout(
        records=[record.encode() for record in held["record"]],
        truth=as_objects(held["truth"].to_list()) if held["truth"].dtype == pl.List else held["truth"].to_numpy(),
        days=held[TIME].dt.date().to_physical().to_numpy(),
        segments={
            name: held[f"segment.{name}"].fill_null("").to_list() for name in declared.capability.monitoring.segments
        },
    )


def as_objects(values: Sequence[Any]) -> NDArray[Any]:
    """`(n,)`, each value as it is, also where all are lists of one length."""
    return np.fromiter(values, dtype=object, count=len(values))


def labels_of(declared: Declared) -> Labels:
    """What the truth is. Raises Misuse where that is not declared."""
    labels = declared.capability.monitoring.labels
    if labels is None:
        raise Misuse("retraining needs monitoring.labels: expected what the truth is, found nothing")
    return labels


def _cut(frame: pl.DataFrame, retraining: Retraining) -> Cut:
    newest: datetime | None = frame[TIME].max() if frame.height else None  # type: ignore[assignment]  # of that column
    if newest is None or frame.height < retraining.min_rows:
        raise Misuse(f"expected at least {retraining.min_rows:,} rows with a truth to train on, found {frame.height:,}")
    split = newest - timedelta(days=retraining.holdout_days)
    before = pl.col(TIME) < split
    fitted, held_out = frame.filter(before), frame.filter(~before)
    if not fitted.height or not held_out.height:
        side = "before" if not fitted.height else "after"
        raise Misuse(
            f"expected rows on both sides of {split:%Y-%m-%d %H:%M}, found none {side} it",
            hint="Change retraining.holdout_days, or wait until there is more history.",
        )
    since: datetime = fitted[TIME].min()  # type: ignore[assignment]  # of a column of instants that has rows
    return Cut(Rows(fitted.height, held_out.height, since, split, newest), fitted, held_out)


def _read_decisions(
    snapshots: list[Snapshot], declared: Declared, _retraining: Retraining, labels: Labels
) -> pl.DataFrame:
    """Decisions with a truth, whose input is still there."""
    monitoring = declared.capability.monitoring
    decisions, outcomes = (snapshot.frame().collect() for snapshot in snapshots)
    decisions = decisions_in_time(decisions.sort(SEQUENCE), monitoring)
    outcomes = outcomes_in_time(outcomes, monitoring)
    joined = read_labelled(labels, decisions, outcomes, segments=monitoring.segments).frame
    frame = joined.with_columns(decisions["input"].alias("record"), pl.col("at").alias(TIME))
    return frame.filter(pl.col("record").is_not_null())


def _read_table(snapshots: list[Snapshot], declared: Declared, retraining: Retraining, labels: Labels) -> pl.DataFrame:
    frame = snapshots[0].frame().collect()
    fields = [field for field in declared.input.fields if field in frame.columns]
    if labels.truth not in frame.columns or not fields:
        raise Misuse(
            f"table {retraining.table}: expected the fields of the input and the truth {labels.truth}",
            hint=f"It has: {', '.join(frame.columns)}.",
        )
    records = [_encode(row).decode() for row in frame.select(fields).iter_rows(named=True)]
    time = frame[retraining.time or ""]
    segments = {
        f"segment.{name}": frame[name].cast(pl.String) if name in fields else pl.repeat("", frame.height, eager=True)
        for name in declared.capability.monitoring.segments
    }
    return pl.DataFrame(
        {"record": records, TIME: _instants(time), "truth": _truth(frame[labels.truth], labels), **segments}
    )


def _truth(values: pl.Series, labels: Labels) -> pl.Series:
    if labels.kind == "binary":
        return values == labels.positive
    if labels.kind == "ranking":
        lists = [None if each is None else items_of(each) for each in values.to_list()]
        return pl.Series(lists, dtype=TRUTHS["ranking"])
    return values.cast(pl.Float64 if labels.kind == "number" else pl.String, strict=False)


def _instants(values: pl.Series) -> pl.Series:
    if isinstance(values.dtype, pl.Datetime) and values.dtype.time_zone is None:
        return values.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    if isinstance(values.dtype, pl.Date):
        return values.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    return values.cast(_INSTANT)
