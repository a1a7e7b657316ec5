"""Windows: counts of the decisions of a capability, step by step, as rows of the table `windows/CAPABILITY`.

A row says what was counted of one step of time, version and stage, of all of the traffic or of one value of a segment
field. Rows of one step add up, whenever they came: late decisions and labels make further rows. A window is the sum of
its steps, and nobody reads decisions again to judge it.

Rows are written with the place in the ledger that was reached, in one commit: each decision and label is counted once,
wherever the process is killed. Decisions of a version whose bins are not made yet, because it has made few decisions,
wait: the commit remembers where they begin.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import msgspec
import numpy as np
import polars as pl

from mainstay.lake.conditions import AllOf, Within
from mainstay.lake.decision_rows import DAY
from mainstay.monitoring.drift import Sample
from mainstay.monitoring.evidence import parse
from mainstay.monitoring.histograms import Moments, Tally
from mainstay.monitoring.layouts import CONFIDENCE, INPUT, NOVELTY, OTHERS, OUTPUT, segment_codes
from mainstay.monitoring.service_counts import NOT_OURS, SERVED, ServiceCounts, merged, service_counts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from mainstay.lake.tables import Table
    from mainstay.monitoring.binning import Column
    from mainstay.monitoring.histograms import Counts
    from mainstay.monitoring.layouts import Layout, Watched

    Places: TypeAlias = NDArray[np.intp]

PREFIX: Final = "windows/"
COLUMN: Final = "column"  # kinds of rows: the bins of a column, moments with them
SERVICE: Final = "service"  # outcomes, reasons, latency
LABELS: Final = "labels"  # what became true, against what was said
DELAYS: Final = "delays"  # how long labels took
BUSINESS: Final = "business"
ENDED: Final = "ended"  # how decisions ended, by their scores
TRUTHS: Final = "truths"  # of those with a label, of how many it is so
SCORES: Final = "scores"  # what was said, by the places of an estimator: quality before labels are there

SCHEMA: Final = pl.Schema(
    {
        DAY: pl.Date(),  # of the step
        "step": pl.Datetime("us", "UTC"),  # its begin
        "version": pl.String(),
        "stage": pl.String(),
        "segment": pl.String(),  # the field; null: all of the traffic
        "value": pl.String(),
        "kind": pl.String(),
        "name": pl.String(),
        "rows": pl.Int64(),  # decisions that this row is about; below 0 where a correction takes some back
        "places": pl.List(pl.Int64()),  # what is counted, by number ...
        "keys": pl.List(pl.String()),  # ... or by name
        "counts": pl.List(pl.Int64()),  # how many of each
        "sums": pl.List(pl.Float64()),
    }
)

Row: TypeAlias = "dict[str, Any]"

_NAMES: Final = pl.Categorical()  # of few values: rows are grouped by numbers, where texts would be copied and hashed


class Group(NamedTuple):
    """What rows of counts are about."""

    step: datetime
    version: str
    stage: str
    segment: str | None = None
    value: str | None = None

    def row(self, kind: str, name: str, rows: int, **content: object) -> Row:
        empty: Row = {"places": [], "keys": [], "counts": [], "sums": []}
        return {DAY: self.step.date(), **self._asdict(), "kind": kind, "name": name, "rows": rows, **empty, **content}


# Counting.


def steps_of(at: pl.Series, hours: float) -> pl.Series:
    """The begin of the step of each instant; steps begin at midnight UTC of 1970-01-01 and follow each other."""
    micros = round(hours * 3_600_000_000)
    whole = at.dt.epoch("us") // micros * micros
    return whole.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")


def count_service(decisions: pl.DataFrame, hours: float) -> list[Row]:
    """Counts of outcomes, reasons and latency of each step, version and stage."""
    found = []
    known = decisions.select(pl.col("version", "stage").cast(_NAMES), pl.col(f"^({'|'.join(SERVED)})$"))
    named = known.with_columns(steps_of(decisions["at"], hours).alias("step"))
    for (step, version, stage), rows in named.group_by("step", "version", "stage", maintain_order=True):
        counts = msgspec.json.encode(service_counts(rows)).decode()
        found.append(Group(step, version, stage).row(SERVICE, "", rows.height, keys=[counts]))
    return found


def readable(decisions: pl.DataFrame) -> pl.DataFrame:
    """The decisions whose input reached a model, or could have: it is there, and the contract is kept."""
    first = pl.col("reasons").list.first().fill_null("")
    return decisions.filter(pl.col("input").is_not_null(), ~first.is_in(sorted(NOT_OURS - {"outside_authority"})))


def flat(decisions: pl.DataFrame, watched: Watched) -> pl.DataFrame:
    """The columns that are watched, under their full names, with `at`, `stage` and `answered`."""
    inputs = {**watched.inputs, **{name: pl.String() for name in watched.segments if name not in watched.inputs}}
    read = parse(decisions["input"], pl.Schema(inputs)) if inputs else pl.DataFrame()
    outputs = {**watched.outputs, **watched.scored}
    said = parse(decisions["output"], pl.Schema(outputs)) if outputs else pl.DataFrame()
    return pl.concat(
        [
            decisions.select(
                "at",
                "stage",
                CONFIDENCE,
                NOVELTY,
                (pl.col("outcome") == "answered").fill_null(value=False).alias("answered"),
            ),
            read.rename(lambda name: INPUT + name),
            said.rename(lambda name: OUTPUT + name),
        ],
        how="horizontal",
    )


def count_columns(rows: pl.DataFrame, layout: Layout, hours: float) -> pl.DataFrame:
    """The bins of all columns, of each step and stage and of each value of each segment field. `rows` is `flat`.

    Outputs and confidence are those of answers that the model gave. Novelty is that of every input it was found for:
    the strangest are those that are not answered.
    """
    of_all = [each for each in layout.columns if each.name.startswith(INPUT) or each.name == NOVELTY]
    outputs = [each for each in layout.columns if each not in of_all]
    return pl.concat([_count(rows, of_all, layout, hours), _count(rows.filter("answered"), outputs, layout, hours)])


def _count(rows: pl.DataFrame, columns: Sequence[Column], layout: Layout, hours: float) -> pl.DataFrame:
    if not rows.height or not columns:
        return pl.DataFrame(schema=SCHEMA)
    groups, codes = _groups(rows, layout.version, hours)
    segments = [(field, (*values, OTHERS)) for field, values in layout.segments.items()]
    tally = Tally(columns, (len(groups), *(len(groups) * len(values) for _, values in segments)))
    within = [segment_codes(rows[INPUT + field], values[:-1]) for field, values in segments]
    tally.add(rows, [codes, *(codes * len(values) + own for (_, values), own in zip(segments, within, strict=True))])
    found = [_frame(groups, tally.counted())]
    for grouping, (field, values) in enumerate(segments, 1):
        places = [group._replace(segment=field, value=value) for group in groups for value in values]
        found.append(_frame(places, tally.counted(grouping)))
    return pl.concat(found)


def _groups(rows: pl.DataFrame, version: str, hours: float) -> tuple[list[Group], Places]:
    """The steps and stages that occur, and which of them each row is of."""
    places = rows.select(steps_of(rows["at"], hours).alias("step"), pl.col("stage").cast(_NAMES))
    known = places.unique(maintain_order=True).with_row_index("group")
    codes = places.join(known, on=["step", "stage"], how="left", maintain_order="left", nulls_equal=True)["group"]
    groups = [Group(step, version, stage) for step, stage in known.select("step", "stage").iter_rows()]
    return groups, codes.to_numpy().astype(np.intp)


def _frame(groups: Sequence[Group], counted: Sequence[Counts]) -> pl.DataFrame:
    """Rows of all groups and columns that have decisions."""
    for each in counted:
        if each.column.name == NOVELTY:  # decisions for which none was found have nothing to say of it
            each.counts[:, -1] = 0
    rows = np.array([each.counts.sum(1) for each in counted])  # of each column and group
    column, group = np.nonzero(rows)
    places = pl.DataFrame(groups, schema={name: SCHEMA[name] for name in Group._fields}, orient="row")
    names = pl.Series([each.column.name for each in counted], dtype=pl.String)
    own = [(each, rows[place] > 0) for place, each in enumerate(counted)]
    return (
        places[group]
        .with_columns(
            pl.col("step").dt.date().alias(DAY),
            pl.lit(COLUMN).alias("kind"),
            names[column].alias("name"),
            pl.Series("rows", rows[column, group]),
            pl.lit([], pl.List(pl.Int64)).alias("places"),
            pl.lit([], pl.List(pl.String)).alias("keys"),
            pl.concat([_lists(each.counts[kept]) for each, kept in own]).alias("counts"),
            pl.concat([_lists(each.moments[kept, : 3 * each.column.ordered]) for each, kept in own]).alias("sums"),
        )
        .select(SCHEMA.names())
    )


def _lists(rows: NDArray[Any]) -> pl.Series:
    if not rows.size:
        kind = pl.List(pl.Int64 if rows.dtype == np.int64 else pl.Float64)
        return pl.Series([[]], dtype=kind).new_from_index(0, len(rows))
    return pl.Series(np.ascontiguousarray(rows)).arr.to_list()


def frame_of(rows: Sequence[Row]) -> pl.DataFrame:
    """Rows as the table has them."""
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


# Adding up.


class Counted(NamedTuple):
    """The windows of a capability between two instants, as they were read; rows of one step may be several."""

    frame: pl.DataFrame

    def groups(self) -> list[tuple[str, str]]:
        """The versions and stages that decided, those with the most decisions first."""
        own = self.frame.filter(pl.col("kind") == SERVICE)
        found = (
            own.group_by("version", "stage").agg(pl.col("rows").sum()).sort("rows", "version", descending=[True, False])
        )
        return found.select("version", "stage").rows()

    def columns(self, version: str, stages: Sequence[str]) -> Columns:
        """The histograms of a version."""
        own = self.frame.filter(pl.col("kind") == COLUMN, pl.col("version") == version, pl.col("stage").is_in(stages))
        return Columns(_summed(own))

    def service(self, version: str | None = None) -> list[tuple[datetime, ServiceCounts]]:
        """What was counted in each step, of one version or of all, in their order."""
        own = self.frame.filter(pl.col("kind") == SERVICE)
        own = own if version is None else own.filter(pl.col("version") == version)
        by_step: dict[datetime, list[ServiceCounts]] = {}
        for step, keys in own.sort("step").select("step", "keys").iter_rows():
            by_step.setdefault(step, []).append(_decode(keys[0]))
        return [(step, merged(parts)) for step, parts in by_step.items()]


_decode: Final = msgspec.json.Decoder(ServiceCounts).decode


class Steps(NamedTuple):
    """A column step by step, in order; steps without rows are left out."""

    starts: list[datetime]
    counts: NDArray[np.int64]  # (steps, bins)
    moments: list[Moments | None]

    def sample(self, starts: Sequence[datetime], bins: int) -> Sample:
        """The steps that are named, in that order; those without rows are zero."""
        places = {start: place for place, start in enumerate(self.starts)}
        found = [places.get(start, -1) for start in starts]
        counts = np.zeros((len(starts), bins), np.int64)
        for row, place in enumerate(found):
            if place >= 0:
                counts[row] = self.counts[place]
        return Sample(counts, merged_moments([self.moments[place] for place in found if place >= 0]))


class Columns(NamedTuple):
    """Counts by segment, value and column."""

    by_place: dict[tuple[str | None, str | None, str], Steps]

    def steps(self, column: str, segment: str | None = None, value: str | None = None) -> Steps:
        """The steps of a column that have rows."""
        return self.by_place.get((segment, value, column)) or Steps([], np.zeros((0, 0), np.int64), [])


def merged_moments(parts: Sequence[Moments | None]) -> Moments | None:
    """The moments of all parts together; None where one has none."""
    known = [each for each in parts if each is not None]
    return None if len(known) < len(parts) else sum(known, Moments())


def _summed(rows: pl.DataFrame) -> dict[tuple[str | None, str | None, str], Steps]:
    """By place. All counts are taken out of the frame at once: a frame for each place would cost far more."""
    if not rows.height:
        return {}
    names = ["segment", "value", "name"]
    own = rows.sort([*names, "step"], nulls_last=True, maintain_order=True)
    flat = own["counts"].explode(empty_as_null=False).to_numpy()
    behind = np.cumsum(own["counts"].list.len().to_numpy())  # where the counts of each row end
    begins_place = np.diff(own.select(pl.struct(names).rle_id()).to_series().to_numpy(), prepend=np.uint32(1)) != 0
    begins_place[0] = True
    begins_step = begins_place | (np.diff(own["step"].to_physical().to_numpy(), prepend=0) != 0)
    firsts = np.flatnonzero(begins_step)  # the first row of each step of a place
    starts, moments = own["step"].gather(firsts).to_list(), _of_steps(own["sums"], firsts)
    found: dict[tuple[str | None, str | None, str], Steps] = {}
    places = np.flatnonzero(begins_place)
    ends = np.append(places[1:], own.height)
    steps = np.searchsorted(firsts, np.append(places, own.height))
    for number, place in enumerate(own[places].select(names).rows()):
        row, end, first, last = places[number], ends[number], steps[number], steps[number + 1]
        counts = flat[behind[row - 1] if row else 0 : behind[end - 1]].reshape(end - row, -1)
        if last - first < end - row:  # a step has several rows
            counts = np.add.reduceat(counts, firsts[first:last] - row, axis=0)
        found[place] = Steps(starts[first:last], counts, moments[first:last])
    return found


def _of_steps(sums: pl.Series, firsts: Places) -> list[Moments | None]:
    """The moments of steps, each of which has the rows from its first to the next one's; None where a row has none."""
    known = sums.list.len().to_numpy() > 0
    rows = np.zeros((len(sums), 3))
    rows[known] = sums.explode(empty_as_null=False).to_numpy().reshape(-1, 3)
    many = np.diff(firsts, append=len(sums))
    n, mean, m2 = rows[firsts].T
    for behind in range(1, int(many.max())):
        more = np.flatnonzero(many > behind)
        others, other_mean, other_m2 = rows[firsts[more] + behind].T
        own, both = n[more], n[more] + others
        some = np.maximum(both, 1.0)
        apart = other_mean - mean[more]
        merged_mean = mean[more] + apart * (others / some)
        merged_m2 = m2[more] + other_m2 + apart * apart * (own * others / some)
        alone, other_alone = others == 0, own == 0
        mean[more] = np.where(alone, mean[more], np.where(other_alone, other_mean, merged_mean))
        m2[more] = np.where(alone, m2[more], np.where(other_alone, other_m2, merged_m2))
        n[more] = both
    all_known = np.logical_and.reduceat(known, firsts).tolist()
    return [
        Moments(int(each[0]), each[1], each[2]) if there else None
        for there, each in zip(all_known, np.stack([n, mean, m2], axis=1).tolist(), strict=True)
    ]


def read_windows(
    table: Table,
    since: datetime,
    until: datetime,
    kinds: Sequence[str] = (),
    *,
    segments_since: datetime | None = None,
) -> Counted:
    """The steps that begin at or after `since` and before `until`; of segments from another instant on, where named.

    Raises Failed when the storage does not answer.
    """
    days = Within(DAY, since.date(), until.date() + timedelta(days=1))
    steps = AllOf((days, Within("step", since.astimezone(UTC), until.astimezone(UTC))))
    rows = table.frame().filter(steps.expr())
    if kinds:
        rows = rows.filter(pl.col("kind").is_in(list(kinds)))
    if segments_since is not None:
        rows = rows.filter(pl.col("segment").is_null() | (pl.col("step") >= segments_since))
    return Counted(rows.collect())
