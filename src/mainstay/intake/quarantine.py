"""The rows that the door did not let in: which are still open, grouped by what was wrong, and what became of each.

The table `quarantine/...` only grows. What became of a row stands in `settled/...`, in the partition of the same day,
so that a row is open while its day's partition there does not name it. A day whose two partitions have as many rows is
done with, which the tables' logs say: no row of it is read. Of the other days rows are read a chunk at a time, so
memory does not grow with what is held; what a command costs grows with the rows of the days that have open ones.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import polars as pl

from mainstay.errors import Misuse
from mainstay.intake.quarantine_settled import fate_of, replayed_from
from mainstay.intake.types import (
    ARRIVED_AT,
    CONTRACT,
    DAY,
    HEADER,
    ITEM,
    KIND,
    ORIGIN,
    RAW,
    REASON,
    ROW,
    VIOLATIONS,
    intake_table,
    quarantine_table,
    settled_table,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import date, datetime

    from mainstay.lake.lake import Lake
    from mainstay.lake.tables import Table

CHUNK_ROWS: Final = 20_000  # of one item that are in memory at a time
EXAMPLES: Final = 3
MAX_GROUPS: Final = 1_000  # that are told apart; of those with the fewest rows only the number is known
RECORD: Final = "$"  # the field of what is about a whole record, as violations have it

_NUMBER: Final = re.compile(r"\[[0-9]+\]")
_PLACE: Final = [ITEM, ROW]
_JUDGED: Final = [*_PLACE, ARRIVED_AT, VIOLATIONS, CONTRACT, REASON]
_GROUP: Final = ["field", "rule", "reason", "contract"]
WHOLE: Final = [*_JUDGED, RAW, ORIGIN, KIND, HEADER, DAY]


class Chosen(NamedTuple):
    """Which open rows are meant: those that match one of each kind that is given; all, where nothing is."""

    rules: tuple[tuple[str, str], ...] = ()  # field and rule
    items: tuple[int, ...] = ()
    rows: tuple[tuple[int, int], ...] = ()  # item and row

    @property
    def is_everything(self) -> bool:
        return not (self.rules or self.items or self.rows)

    def described(self) -> dict[str, list[str]]:
        """As it is written at the command line; empty where all are meant."""
        written = {
            "rules": [f"{field}:{rule}" for field, rule in self.rules],
            "items": [str(item) for item in self.items],
            "rows": [f"{item}:{row}" for item, row in self.rows],
        }
        return {name: texts for name, texts in written.items() if texts}

    def has_item(self, item: int) -> bool:
        """Whether rows of an item can be meant."""
        return (not self.items or item in self.items) and (not self.rows or any(item == each for each, _ in self.rows))


class Group(NamedTuple):
    """The open rows that break one rule at one field, under one contract. A row that breaks several is in several."""

    field: str  # `$` for the record; items of an array count together, as `lines[].sku`
    rule: str  # or, of rows that break none, the reason for which they are held
    reason: str
    contract: str
    rows: int
    items: int  # that they came in
    oldest: datetime  # arrival
    newest: datetime
    examples: tuple[tuple[int, int], ...]  # item and row of the first few


class Grouped(NamedTuple):
    """The open rows of a source."""

    rows: int
    groups: tuple[Group, ...]  # the largest first
    uncounted: int  # rows of further groups, once for each


class Day(NamedTuple):
    """A day of arrival: how many rows were held, and of how many of them something became."""

    day: date
    rows: int
    settled: int


class Span(NamedTuple):
    """Consecutive rows of an item, as many as are in memory at a time."""

    day: date
    item: int
    first: int
    last: int

    def expr(self) -> pl.Expr:
        """The rows of it, in a table of the lake."""
        place = (pl.col(DAY) == self.day) & (pl.col(ITEM) == self.item)
        return place & (pl.col(ROW) >= self.first) & (pl.col(ROW) <= self.last)


class Quarantine:
    """What is held of one source. An object is for one thread, and reads the tables as they are when it is asked."""

    def __init__(self, lake: Lake, capability: str, source: str) -> None:
        """Raises Misuse when nothing of the source was ever held."""
        found = lake.find(quarantine_table(capability, source))
        if found is None:
            raise Misuse(
                f"{capability} {source}: expected a source of which rows are held, found none",
                hint=f"There are: {', '.join(map(' '.join, sources_with_quarantine(lake))) or 'none'}.",
            )
        self.capability = capability
        self.source = source
        self._lake = lake
        self._held = found
        self._settled = lake.find(settled_table(capability, source))

    def refresh(self) -> None:
        """Look at the newest versions from now on."""
        self._held.refresh()
        self._settled = self._lake.find(settled_table(self.capability, self.source))

    def days(self) -> list[Day]:
        """Every day of arrival that has held rows, oldest first; by the tables' logs alone."""
        settled = rows_by_day(self._settled) if self._settled is not None else {}
        return [Day(day, rows, settled.get(day, 0)) for day, rows in sorted(rows_by_day(self._held).items())]

    def open_rows(self) -> int:
        """How many rows are open."""
        return sum(each.rows - each.settled for each in self.days())

    def groups(self, chosen: Chosen, told: Callable[[int], None] = lambda _: None) -> Grouped:
        """The open rows that are meant, by rule."""
        tally = _Tally()
        for rows in self.chunks(chosen, _JUDGED, told):
            tally.add(rows)
        return tally.grouped()

    def chunks(
        self, chosen: Chosen, columns: Sequence[str], told: Callable[[int], None] = lambda _: None
    ) -> Iterator[pl.DataFrame]:
        """The open rows that are meant, in the order in which they came, rows of one item at a time: never none.

        `columns` are what each has. `told` is called with the number of open rows that were looked at since before.
        """
        needed = list(dict.fromkeys([*_PLACE, *columns, *([VIOLATIONS, REASON] if chosen.rules else [])]))
        for span in self._spans(chosen):
            rows = self._held.frame().filter(span.expr()).select(needed).collect().sort(ROW)
            rows = self._still_open(rows, span)
            told(rows.height)
            if chosen.rows:
                wanted = pl.DataFrame(chosen.rows, schema={ITEM: pl.Int64, ROW: pl.Int64}, orient="row")
                rows = rows.join(wanted, on=_PLACE, how="semi", maintain_order="left")
            if chosen.rules:
                rows = rows.filter(_breaks(rows, chosen.rules))
            if rows.height:
                yield rows.select(columns)

    def _still_open(self, rows: pl.DataFrame, span: Span) -> pl.DataFrame:
        if self._settled is None:
            return rows
        done = self._settled.frame().filter(span.expr()).select(_PLACE).collect()
        return rows.join(done, on=_PLACE, how="anti", maintain_order="left")

    def _spans(self, chosen: Chosen) -> Iterator[Span]:
        for day in self.days():
            if day.rows == day.settled:
                continue
            items = (
                self._held.frame()
                .filter(pl.col(DAY) == day.day)
                .group_by(ITEM)
                .agg(pl.col(ROW).min().alias("first"), pl.col(ROW).max().alias("last"))
                .collect(engine="streaming")
                .sort(ITEM)
            )
            for item, first, last in items.iter_rows():
                if chosen.has_item(item):
                    for begin in range(first, last + 1, CHUNK_ROWS):
                        yield Span(day.day, item, begin, min(begin + CHUNK_ROWS - 1, last))

    # One row.

    def row(self, item: int, row: int) -> dict[str, Any]:
        """A held row, open or not, with the columns WHOLE. Raises Misuse when there is none of these numbers."""
        return self.rows([(item, row)])[item, row]

    def rows(self, places: Sequence[tuple[int, int]]) -> dict[tuple[int, int], dict[str, Any]]:
        """Held rows, open or not. Raises Misuse when one of them is not there."""
        items = sorted({item for item, _ in places})
        wanted = pl.DataFrame(places, schema={ITEM: pl.Int64, ROW: pl.Int64}, orient="row").unique()
        numbers = wanted[ROW].unique().to_list()
        near = self._held.frame().filter(pl.col(ITEM).is_in(items) & pl.col(ROW).is_in(numbers)).select(WHOLE)
        frame = near.collect().join(wanted, on=_PLACE, how="semi")
        found = {(each[ITEM], each[ROW]): each for each in frame.iter_rows(named=True)}
        for item, row in places:
            if (item, row) not in found:
                raise Misuse(
                    f"{self.capability} {self.source}: expected a held row {item}:{row}, found none",
                    hint=f"List what is held: mainstay quarantine list {self.capability} {self.source}",
                )
        return found

    def fate(self, item: int, row: int) -> Fate | None:
        """What became of a held row; None while it is open."""
        found = None if self._settled is None else fate_of(self._settled, item, row)
        if found is None:
            return None
        into = None
        if found.how == "replayed" and found.into_item is not None and found.into_row is not None:
            into = self.verdict(found.into_item, found.into_row)
        return Fate(found.how, found.at, found.by, found.reason, found.into_item, found.into_row, found.entry, into)

    def verdict(self, item: int, row: int) -> str | None:
        """What the door said of a row of an item: `accepted`, `held`, or None where neither table has it.

        That is one which it has not seen yet, or which was known already and is not kept twice.
        """
        here = (pl.col(ITEM) == item) & (pl.col(ROW) == row)
        for name, verdict in (
            (intake_table(self.capability, self.source), "accepted"),
            (quarantine_table(self.capability, self.source), "held"),
        ):
            table = self._lake.find(name)
            if table is not None and table.frame().filter(here).select(ITEM).head(1).collect().height:
                return verdict
        return None

    def first_of(self, item: int, row: int) -> tuple[int, int] | None:
        """The held row that came first, of a row that was replayed, perhaps again and again; None where it was not."""
        first = None
        while self._settled is not None:
            before = replayed_from(self._settled, item, row)
            if before is None:
                break
            first = item, row = before
        return first


class Fate(NamedTuple):
    """What became of a held row."""

    how: str  # replayed or discarded
    at: datetime
    by: str
    reason: str
    into_item: int | None  # where it was replayed: the item, and its place there
    into_row: int | None
    entry: str  # of the ledger, that says so
    verdict: str | None  # what the door said of it then, as `Quarantine.verdict` has it


def sources_with_quarantine(lake: Lake) -> list[tuple[str, str]]:
    """The capabilities and sources of which rows were ever held."""
    prefix = quarantine_table("", "").removesuffix("/")
    names = (name.removeprefix(prefix).partition("/") for name in lake.names(prefix))
    return [(capability, source) for capability, _, source in names]


def rows_by_day(table: Table) -> dict[date, int]:
    """How many rows each partition has, by what the log says of its files; none is read."""
    files = pl.DataFrame(table.delta(version=table.version).get_add_actions(flatten=True))
    if not files.height:
        return {}
    counted = files.group_by(f"partition.{DAY}").agg(pl.col("num_records").sum())
    return {day: int(rows) for day, rows in counted.iter_rows()}


# What a row is held for.


def broken_rules() -> pl.Expr:
    """What each row breaks, as a list of structs of a field and a rule, each once."""
    each = pl.element().struct
    named = pl.struct(
        each.field("field").str.replace_all(_NUMBER.pattern, "[]").alias("field"), each.field("rule").alias("rule")
    )
    whole = pl.concat_list(pl.struct(pl.lit(RECORD).alias("field"), pl.col(REASON).alias("rule")))
    found = pl.col(VIOLATIONS).list.eval(named).list.unique(maintain_order=True)
    return pl.when(pl.col(VIOLATIONS).list.len() > 0).then(found).otherwise(whole)


def without_numbers(field: str) -> str:
    """The path of a violation as groups have it.

    >>> without_numbers("lines[2].sku")
    'lines[].sku'
    """
    return _NUMBER.sub("[]", field)


def _breaks(rows: pl.DataFrame, rules: Sequence[tuple[str, str]]) -> pl.Series:
    """Which rows break one of the rules."""
    wanted = pl.DataFrame(rules, schema={"field": pl.String, "rule": pl.String}, orient="row")
    numbered = rows.select(broken_rules().alias("broken")).with_row_index("position")
    found = numbered.explode("broken").unnest("broken").join(wanted, on=["field", "rule"], how="semi")
    return numbered["position"].is_in(found["position"].unique().to_list())


class _Tally:
    """Groups, of what was seen until now."""

    def __init__(self) -> None:
        self._rows = 0
        self._uncounted = 0
        self._last: int | None = None  # the item whose rows were seen last: its next rows are no further item
        self._seen: pl.DataFrame | None = None  # the groups that the last item is in
        self._groups: pl.DataFrame | None = None

    def add(self, rows: pl.DataFrame) -> None:
        """Count rows of one item."""
        self._rows += rows.height
        item = int(rows[ITEM][0])
        broken = rows.with_columns(broken_rules().alias("broken")).explode("broken").unnest("broken")
        groups = (
            broken.rename({REASON: "reason", CONTRACT: "contract"})
            .group_by(_GROUP, maintain_order=True)
            .agg(
                pl.len().cast(pl.Int64).alias("rows"),
                pl.lit(1, dtype=pl.Int64).alias("items"),
                pl.col(ARRIVED_AT).min().alias("oldest"),
                pl.col(ARRIVED_AT).max().alias("newest"),
                pl.struct(ITEM, ROW).head(EXAMPLES).alias("examples"),
            )
        )
        if item == self._last and self._seen is not None:
            again = groups.join(self._seen, on=_GROUP, how="semi").select(*_GROUP, pl.lit(0).alias("again"))
            groups = groups.join(again, on=_GROUP, how="left", maintain_order="left")
            groups = groups.with_columns(pl.coalesce(pl.col("again").cast(pl.Int64), "items").alias("items"))
            groups = groups.drop("again")
            self._seen = pl.concat([self._seen, groups.select(_GROUP)]).unique()
        else:
            self._seen = groups.select(_GROUP)
        self._last = item
        self._merge(groups)

    def _merge(self, groups: pl.DataFrame) -> None:
        both = groups if self._groups is None else pl.concat([self._groups, groups])
        merged = both.group_by(_GROUP, maintain_order=True).agg(
            pl.col("rows").sum(),
            pl.col("items").sum(),
            pl.col("oldest").min(),
            pl.col("newest").max(),
            pl.col("examples").explode().head(EXAMPLES),
        )
        merged = merged.sort("rows", *_GROUP, descending=[True, *[False] * len(_GROUP)])
        self._uncounted += int(merged["rows"].slice(MAX_GROUPS).sum())
        self._groups = merged.head(MAX_GROUPS)

    def grouped(self) -> Grouped:
        rows = [] if self._groups is None else self._groups.iter_rows(named=True)
        groups = (
            Group(**{**each, "examples": tuple((place[ITEM], place[ROW]) for place in each["examples"])})
            for each in rows
        )
        return Grouped(self._rows, tuple(groups), self._uncounted)
