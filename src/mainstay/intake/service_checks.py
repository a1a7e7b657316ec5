"""The service levels of a contract, held against what a source really took in.

Nothing is computed over the whole history. The oldest and newest moment of a column, and how many values it has, stand
in the table's log for each of its files (their statistics), so of the rows themselves nothing is read. What the log
does not say is read of the newest RECENT_DAYS days of arrival alone, each of which is a partition: when items came,
which rows of the quarantine broke a rule, and the columns that have no statistics. What a verdict rests on is in its
evidence.

    freshness, latency   the newest accepted row
    retention            the oldest accepted row; without statistics, that of the oldest partition
    completeness         the rows that came in these days; of required properties also those that are in quarantine
    errorRate            the rows that came in these days, and those of them that are in quarantine for a broken rule
    frequency            arrivals of these days, one by one; where the level is of more than a day, the last of each day
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import polars as pl
from msgspec import Struct

from mainstay.capability.source_checks import object_of
from mainstay.contract.durations import parse_duration
from mainstay.contract.service_facts import moments_of
from mainstay.contract.service_levels import (
    ElementFacts,
    ServiceVerdict,
    TableFacts,
    checks_of,
    compile_service_levels,
)
from mainstay.intake.door_columns import read_columns
from mainstay.intake.newest import file_statistics
from mainstay.intake.types import ARRIVED_AT, DAY, REASON, VIOLATIONS, intake_table, quarantine_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mainstay.capability.sources import Source
    from mainstay.capability.types import Capability
    from mainstay.contract.service_levels import ServiceCheck
    from mainstay.contract.types import Contract, SchemaObject
    from mainstay.lake.lake import Lake
    from mainstay.lake.tables import Table

RECENT_DAYS: Final = 7

_BAD: Final = ("rules", "unreadable")
_MAX_DAYS: Final = 400  # of arrivals, one a day
_PARTITION: Final = f"partition.{DAY}"


class Evidence(Struct, frozen=True, kw_only=True):
    """What a verdict rests on."""

    table: str
    version: int | None  # of the table; None: there is none yet
    quarantine_version: int | None
    checked_at: datetime
    since: date  # the first day of arrival whose rows were looked at, where it is about those of the last days
    rows: int  # of the table
    files: int


class CheckedLevel(Struct, frozen=True, kw_only=True):
    """One service level at one element: the verdict, and what it rests on."""

    level: ServiceVerdict
    age_seconds: float | None  # of the newest row there; None where that is not known
    evidence: Evidence


def check_service_levels(
    lake: Lake, capability: Capability, source: Source, contract: Contract, now: datetime
) -> tuple[CheckedLevel, ...]:
    """Every service level of the contract that is of the source's object, or of the contract as a whole.

    `now` has an offset. Raises Failed when the storage does not answer.
    """
    name = object_of(source, capability)
    checks = checks_of(compile_service_levels(contract), name)
    if not checks:
        return ()
    described = next(each for each in contract.schema if each.name == name)
    taken = lake.find(intake_table(capability.name, source.name))
    aside = lake.find(quarantine_table(capability.name, source.name))
    since = now.astimezone(UTC).date() - timedelta(days=RECENT_DAYS - 1)
    looked = _Look(taken, aside, since)
    evidence = Evidence(
        table=intake_table(capability.name, source.name),
        version=None if taken is None else taken.version,
        quarantine_version=None if aside is None else aside.version,
        checked_at=now,
        since=since,
        rows=looked.total,
        files=looked.files.height,
    )
    facts = looked.facts(described, checks)
    return tuple(_judged(check, facts, looked, now, evidence) for check in checks)


def _judged(check: ServiceCheck, facts: TableFacts, looked: _Look, now: datetime, evidence: Evidence) -> CheckedLevel:
    arrivals = looked.arrivals_by_day if _is_of_days(check) else looked.arrivals
    given = TableFacts(
        object=facts.object,
        rows=facts.rows,
        bad_rows=facts.bad_rows,
        elements=facts.elements,
        arrivals=tuple(arrivals),
    )
    element = facts.elements.get(check.path) if check.path else None
    newest = None if element is None else element.newest
    age = None if newest is None or newest > now else (now - newest).total_seconds()
    return CheckedLevel(level=check.judged(given, now), age_seconds=age, evidence=evidence)


def _is_of_days(check: ServiceCheck) -> bool:
    """Whether a level is about so long a time that one arrival of a day is enough to know."""
    if check.property != "frequency" or check.judge is None:
        return False
    moment = datetime(2000, 1, 1, tzinfo=UTC)
    return moment - parse_duration(check.declared.value, check.declared.unit).before(moment) > timedelta(days=1)


class _Look:
    """A look at the tables of a source."""

    def __init__(self, taken: Table | None, aside: Table | None, since: date) -> None:
        self._taken = taken
        self._since = since
        self._aside = aside
        self.files = pl.DataFrame() if taken is None else file_statistics(taken)
        self._columns = {} if taken is None else read_columns(taken.properties)
        self._recent = self.files.filter(pl.col(_PARTITION) >= since) if self.files.height else self.files
        self.total = _sum(self.files, "num_records")
        self._broken = self._read_broken()
        self.arrivals = self._read_arrivals()
        self.arrivals_by_day = self._last_of_days()

    def facts(self, described: SchemaObject, checks: Sequence[ServiceCheck]) -> TableFacts:
        """What is known of the rows of the last days, and of the moments of all."""
        accepted = _sum(self._recent, "num_records")
        required = {each.name for each in described.properties if each.required}
        dated = {each.path for each in checks if each.property != "completeness"}
        paths = sorted({each.path for each in checks if each.path})
        elements = {path: self._element(path, required, is_dated=path in dated) for path in paths}
        return TableFacts(
            object=described.name,
            rows=accepted + self._broken.height,
            bad_rows=self._broken.height,
            elements={path: each for path, each in elements.items() if each is not None},
        )

    def _element(self, path: str, required: set[str], *, is_dated: bool) -> ElementFacts | None:
        """What is known at a path of the contract; None where the table has no such column."""
        column = self._column(path)
        if column is None or not self.files.height:
            return None
        oldest, newest = self._bounds(column) if is_dated else (None, None)
        nulls = f"null_count.{column}"
        if nulls in self._recent.columns and not self._recent[nulls].null_count():
            places = _sum(self._recent, "num_records")
            present = places - _sum(self._recent, nulls)
        else:
            found = self._rows().select(_at(column).len().alias("n"), _at(column).count().alias("p")).collect()
            places, present = found["n"][0], found["p"][0]
        read = self._broken.filter("is_read")
        if path in required and read.height:
            places += read.height
            present += int((~read["missing"].list.contains(path)).sum())
        return ElementFacts(oldest=oldest, newest=newest, present=present, places=places)

    def _column(self, path: str) -> str | None:
        """The column of a path, `address.at` for a field of a struct."""
        field, _, below = path.partition(".")
        for name, rest in ((path, ""), (field, below)):
            column = self._columns.get(name, name)
            if self._taken is not None and column in self._taken.schema:
                return f"{column}.{rest}" if rest else column
        return None

    def _bounds(self, column: str) -> tuple[datetime | None, datetime | None]:
        """The oldest and the newest moment of a column, as its files' statistics say."""
        low, high = f"min.{column}", f"max.{column}"
        told = self.files.filter(pl.col("num_records") > pl.col(f"null_count.{column}")) if low in self.files else None
        if told is not None and not told[low].null_count() and not told[high].null_count():
            least, most = moments_of(told[low]), moments_of(told[high])
            if least is not None and most is not None and told[low].dtype != pl.String():  # texts are cut there
                return _utc(least.min()), _utc(most.max())
        return self._read_bound(column, oldest=True), self._read_bound(column, oldest=False)

    def _read_bound(self, column: str, *, oldest: bool) -> datetime | None:
        """The same of the oldest or the newest partition, from its rows."""
        day = self.files[_PARTITION].min() if oldest else self.files[_PARTITION].max()
        assert self._taken is not None
        rows = self._taken.frame().filter(pl.col(DAY) == day).select(_at(column).alias("moment")).collect()
        moments = moments_of(rows["moment"])
        return None if moments is None else _utc(moments.min() if oldest else moments.max())

    def _rows(self) -> pl.LazyFrame:
        """The accepted rows of the last days."""
        assert self._taken is not None
        return self._taken.frame().filter(pl.col(DAY) >= self._since)

    def _read_broken(self) -> pl.DataFrame:
        """The rows of the last days that are in quarantine for a broken rule: which required fields they lack."""
        if self._aside is None:
            return pl.DataFrame(schema={"missing": pl.List(pl.String()), "is_read": pl.Boolean()})
        rules = pl.col(VIOLATIONS).list
        fields = rules.eval(pl.element().filter(pl.element().struct.field("rule") == "required").struct.field("field"))
        rows = self._aside.frame().filter(pl.col(DAY) >= self._since, pl.col(REASON).is_in(_BAD))
        return rows.select(fields.alias("missing"), (pl.col(REASON) == "rules").alias("is_read")).collect()

    def _read_arrivals(self) -> list[datetime]:
        """When items came in the last days, and the last before them."""
        found: set[datetime] = set()
        for table in (self._taken, self._aside):
            if table is not None:
                rows = table.frame().filter(pl.col(DAY) >= self._since)
                found.update(rows.select(pl.col(ARRIVED_AT).unique()).collect()[ARRIVED_AT].drop_nulls())
        earlier = [each for each in self._last_of_days() if each.date() < self._since]
        return sorted([*found, *earlier[-1:]])

    def _last_of_days(self) -> list[datetime]:
        """The last arrival of each day, of as many as matter."""
        newest = f"max.{ARRIVED_AT}"
        if newest not in self.files.columns:
            return sorted(_noons(self.files[_PARTITION])) if self.files.height else []
        days = self.files.group_by(_PARTITION).agg(pl.col(newest).max()).sort(_PARTITION).tail(_MAX_DAYS)
        return days[newest].drop_nulls().to_list()


def _noons(days: pl.Series) -> set[datetime]:
    return {datetime(each.year, each.month, each.day, 12, tzinfo=UTC) for each in days}


def _at(column: str) -> pl.Expr:
    first, *below = column.split(".")
    expression = pl.col(first)
    for name in below:
        expression = expression.struct.field(name)
    return expression


def _sum(files: pl.DataFrame, column: str) -> int:
    return int(files[column].sum()) if files.height else 0


def _utc(moment: Any) -> datetime | None:
    return moment.replace(tzinfo=UTC) if isinstance(moment, datetime) else None
