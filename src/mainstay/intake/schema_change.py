"""Schema change at the door: a judge that holds what comes against the contract object and against what came before.

What came is written down as the contract object it would have: without the columns that are missing, with those that
are new, and with the types that most values have. Whether consumers of the contract can live with that is judged by the
contract difference (`contract.difference`), and told in its words. What they can flows and is reported; what breaks
them holds the source, whose data stay where they landed:

    a required column that does not come; one that seems to come under another name, required or not
    a column whose values are mostly of a type that the contract does not take, and that the door put aside for it
    a column that the contract does not know, where the source declares `new_columns: hold`
    numbers that seem to come in another unit (`unit_change`), which keep every type

A header of CSV and the schema of a Parquet file say what they hold. Of JSON lines, and of cells of text, some may
differ by chance, so fewer than ENOUGH rows say nothing of a schema; what is wrong with them is wrong with rows.
"""

from __future__ import annotations

import difflib
import re
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
import polars as pl

from mainstay.contract.difference_fields import ObjectComparison
from mainstay.contract.rules import is_classified
from mainstay.contract.types import Property
from mainstay.documents import shorten
from mainstay.errors import NOT_READ
from mainstay.files import write_atomic
from mainstay.intake.door_columns import read_columns
from mainstay.intake.newest import newest_item, rows_after
from mainstay.intake.schema_sample import Sample, family, read_sample
from mainstay.intake.types import ITEM, ROW, Finding, Hold, intake_table
from mainstay.intake.unit_change import MANY, SAME, chance, find_unit_change

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from mainstay.capability.sources import Source
    from mainstay.contract.difference_types import Change
    from mainstay.contract.types import SchemaObject
    from mainstay.intake.landing import Item
    from mainstay.intake.schema_sample import Column
    from mainstay.intake.types import PartFacts
    from mainstay.lake.lake import Lake

BREAKING: Final = "schema_breaking"
UNIT: Final = "unit_changed"

ENOUGH: Final = 20  # rows of JSON lines, or cells of text, that say something of a schema
NEAR: Final = 0.75  # how like two names are from which on they are near (Ratcliff and Obershelp, 0 to 1)
OVERLAP: Final = 0.9  # the share of a new column's values that the old one had, from which on they are the same
RECENT_ROWS: Final = 4_096  # that what comes is held against
_RECENT_ITEMS: Final = 1_024
_DISTINCT: Final = 5  # different texts that both columns must have before "the same values" says anything
_OF_A_TYPE: Final = frozenset({"type", "format"})  # rules that a value of another kind breaks
_SHOWN_FIELDS: Final = 5
_MOST_NEW: Final = 256  # new columns of a part that are looked at

Alarm = tuple[str, str, str | None]  # code, words, field


@dataclass(frozen=True)
class Recent:
    """Values of the newest rows of a source that were accepted, and the medians of its newest items."""

    values: dict[str, pl.Series] = field(default_factory=dict)  # by field, not null: Float64 or String
    medians: dict[str, list[float]] = field(default_factory=dict)  # by field of numbers; one of each item


class SchemaChange:
    """The judge of one source. What it finds and lets pass is in `findings` until it is taken from there."""

    def __init__(
        self,
        source: Source,
        described: SchemaObject,
        path_of: Callable[[Item], Path],
        recent: Callable[[], Recent],
        *,
        hurt: Callable[[Sequence[str]], str] = lambda _: "",
        memory: Path | None = None,
        released_to: int = 0,
    ) -> None:
        """`recent` is asked once, when the first part comes. `hurt` says in words whom a change of fields would hurt.

        `memory` is a file for the kinds of columns that came last, which may be lost. Items up to `released_to` are let
        pass, whatever they are.
        """
        self._source = source
        self._described = described
        self._declared = {each.name: each for each in described.properties}
        self._path_of = path_of
        self._ask_recent = recent
        self._hurt = hurt
        self._released_to = released_to
        self._recent: Recent | None = None
        self._item = 0  # whose sample this is
        self._sample = Sample()
        self._memory = memory
        self._families = _read_families(memory)  # of the columns that came before, as far as they had values
        self.findings: deque[Finding] = deque(maxlen=1_000)

    def __call__(self, facts: PartFacts) -> Hold | None:
        """Whether the part comes in another schema than the contract takes."""
        if facts.rejected:
            return None
        is_first = facts.item.number != self._item
        if is_first:
            kinds = {name: each.logical_type for name, each in self._declared.items()}
            self._sample = read_sample(self._path_of(facts.item), facts.item, kinds)
        if self._recent is None:
            self._recent = self._ask_recent()
        alarms, told = self._compare(facts, self._recent)
        if is_first:
            alarms += self._units(facts, self._recent, told)
        if alarms and facts.item.number > self._released_to:
            return self._hold(alarms)
        if is_first:
            told += self._other_families(facts)
            self._remember(are_sound=not alarms)
            self.findings += told
        self._item = facts.item.number
        return None

    def _hold(self, alarms: Sequence[Alarm]) -> Hold:
        words = "; ".join(words for _, words, _ in alarms[:_SHOWN_FIELDS])
        more = f"; and {len(alarms) - _SHOWN_FIELDS} more" if len(alarms) > _SHOWN_FIELDS else ""
        hurt = self._hurt([name for _, _, name in alarms if name is not None])
        code = BREAKING if any(code == BREAKING for code, _, _ in alarms) else alarms[0][0]
        return Hold(code, f"{words}{more}{f'. It would hurt {hurt}' if hurt else ''}")

    # Columns and types.

    def _compare(self, facts: PartFacts, recent: Recent) -> tuple[list[Alarm], list[Finding]]:
        """What breaks, and what flows and is reported."""
        says_all = facts.item.kind != "jsonl" or facts.rows >= ENOUGH
        missing = [name for name in facts.missing if name in self._declared] if says_all else []
        new = [name for name in facts.unknown if says_all or self._source.new_columns == "hold"][:_MOST_NEW]
        other = self._other_types(facts)
        if not (missing or new or other):
            return [], []
        changes = self._difference(missing, new, other)
        renamed = self._renamed(missing, new, recent)
        alarms: list[Alarm] = []
        told: list[Finding] = []
        for name in [*missing, *other, *new]:
            change = changes.get(name)
            is_breaking = change is not None and change.consumers.effect != "compatible"
            words = self._words(name, change, renamed, other)
            if name in renamed or (is_breaking and (name not in new or self._source.new_columns == "hold")):
                alarms.append((BREAKING, words, name))
            elif name in missing and len(recent.values.get(name, ())):
                told.append(Finding("column_missing", words, facts.rows, facts.item.number, name))
            elif name in new and name not in renamed.values():
                told.append(Finding("column_new", words, facts.rows, facts.item.number, name))
        return alarms, told

    def _difference(self, missing: Sequence[str], new: Sequence[str], other: dict[str, Any]) -> dict[str, Change]:
        """What the contract difference says of each of them, by name."""
        kept = [
            Property(name=each.name, logical_type=other[each.name], required=each.required)
            if each.name in other
            else each
            for each in self._described.properties
            if each.name not in missing
        ]
        added = [Property(name=name, logical_type=self._kind(name)) for name in new]
        observed = msgspec.structs.replace(self._described, properties=(*kept, *added))
        is_tolerant = self._source.new_columns == "report"
        found: dict[str, Change] = {}
        for change in ObjectComparison(self._described, observed, is_tolerant=is_tolerant).run():
            before = found.get(change.path)
            if before is None or (before.consumers.effect == "compatible" and change.consumers.effect != "compatible"):
                found[change.path] = change
        return found

    def _other_types(self, facts: PartFacts) -> dict[str, Any]:
        """Fields whose values the door put aside for their type, most of them, and the kind that they have."""
        found = {}
        for broken in facts.broken:
            column = self._sample.columns.get(broken.field)
            if broken.rule not in _OF_A_TYPE or broken.field not in self._declared or column is None:
                continue
            enough = 1 if facts.item.kind == "parquet" else ENOUGH
            share = column.present / max(self._sample.rows, 1)
            if column.kind is not None and broken.rows >= enough and 2 * broken.rows > share * facts.rows:
                found[broken.field] = column.kind
        return found

    def _words(self, name: str, change: Change | None, renamed: dict[str, str], other: dict[str, Any]) -> str:
        column = shorten(name)
        declared = self._declared.get(name)
        reason = f" ({change.consumers.reason})" if change is not None else ""
        if name in renamed:
            return f"column {column} does not come any more{reason}; {renamed[name]} is probably it under another name"
        if name in other and declared is not None:
            return f"column {column} is {declared.logical_type} in the contract, and comes as {other[name]}{reason}"
        if declared is not None:
            need = "required" if declared.required else "optional"
            return f"column {column}, {need}, does not come{reason}"
        kind = self._kind(name)
        looks = f", which looks like {kind}" if kind else ", without any value so far"
        return f"column {column} is not in the contract{looks}{reason}"

    def _kind(self, name: str) -> Any:
        column = self._sample.columns.get(name)
        return None if column is None else column.kind

    def _other_families(self, facts: PartFacts) -> list[Finding]:
        """Columns that come as something else than before, and that the contract takes all the same."""
        found = []
        for name, column in self._sample.columns.items():
            before, now = self._families.get(name), family(column.kind)
            if before and now and before != now and column.present >= ENOUGH:
                words = f"column {shorten(name)} comes as {column.kind}, and came as {before} before"
                found.append(Finding("type_changed", words, facts.rows, facts.item.number, name))
        return found

    # Other names.

    def _renamed(self, missing: Sequence[str], new: Sequence[str], recent: Recent) -> dict[str, str]:
        """Which of the new columns each missing one probably is.

        The values tell, where there are enough; where not, a near name does for a column that must come.
        """
        found: dict[str, str] = {}
        for name in missing:
            free = [each for each in new if each not in found.values() and self._same_kind(name, each)]
            same = {each: self._same_values(recent.values.get(name), self._sample.columns.get(each)) for each in free}
            near = [each for each in free if _are_near(name, each)]
            alike = [each for each in free if same[each]]
            best = [each for each in near if same[each]] or alike
            if not best and self._declared[name].required:
                best = [each for each in near if same[each] is None]
            if len(best) == 1 or (best and best[0] in near):
                found[name] = max(best, key=lambda each: _likeness(name, each))
        return found

    def _same_kind(self, name: str, other: str) -> bool:
        declared, kind = self._declared[name].logical_type, self._kind(other)
        return kind is None or declared is None or family(declared) in {family(kind), "text"}

    @staticmethod
    def _same_values(before: pl.Series | None, column: Column | None) -> bool | None:
        """Whether a column has the values that another had; None where there are too few to say."""
        if before is None or column is None or before.dtype != column.values.dtype:
            return None
        now = column.values
        if min(len(before), len(now)) < ENOUGH or min(before.n_unique(), now.n_unique()) < _DISTINCT:
            return None
        if before.dtype == pl.Float64():
            if min(len(before), len(now)) < MANY:
                return None
            return chance(np.sort(before.to_numpy()), np.sort(now.to_numpy())) >= SAME
        share = now.is_in(before.unique().implode()).mean()
        return share is not None and float(share) >= OVERLAP  # type: ignore[arg-type]  # a mean of booleans

    # Other units.

    def _units(self, facts: PartFacts, recent: Recent, told: list[Finding]) -> list[Alarm]:
        """Numbers that seem to come in another unit: what holds; what is only suspected goes to `told`."""
        alarms: list[Alarm] = []
        for name, declared in self._declared.items():
            before, column = recent.values.get(name), self._sample.columns.get(name)
            is_number = declared.logical_type in {"number", "integer"} and not (declared.unique or declared.primary_key)
            if not is_number or before is None or column is None or column.values.dtype != pl.Float64():
                continue
            found = find_unit_change(before.to_numpy(), column.values.to_numpy(), recent.medians.get(name, ()))
            if found is None:
                continue
            words = f"column {shorten(name)}: {found.words(masked=is_classified(declared))}"
            if found.holds:
                alarms.append((UNIT, words, name))
            else:
                told.append(Finding(UNIT, words, facts.rows, facts.item.number, name))
        return alarms

    # What is remembered.

    def _remember(self, *, are_sound: bool) -> None:
        """What the next item is held against. A released item is what its values are held against from now on."""
        kinds = {name: family(each.kind) for name, each in self._sample.columns.items() if name in self._declared}
        families = self._families | {name: kind for name, kind in kinds.items() if kind}
        if families != self._families and self._memory is not None:
            write_atomic(self._memory, msgspec.json.encode(families))
        self._families = families
        known = self._recent
        if known is None:
            return
        for name in self._declared:
            column = self._sample.columns.get(name)
            if column is None or column.values.is_empty():
                continue
            before = known.values.get(name) if are_sound else None
            is_same = before is not None and before.dtype == column.values.dtype
            joined = pl.concat([before, column.values]) if before is not None and is_same else column.values
            known.values[name] = joined.tail(RECENT_ROWS)
            if column.values.dtype == pl.Float64():
                medians = known.medians.get(name, []) if are_sound else []
                known.medians[name] = [*medians, float(np.median(column.values.to_numpy()))][-_RECENT_ITEMS:]


def _read_families(memory: Path | None) -> dict[str, str]:
    try:
        return {} if memory is None else msgspec.json.decode(memory.read_bytes(), type=dict[str, str])
    except (FileNotFoundError, *NOT_READ):  # then nothing came before
        return {}


def read_recent(lake: Lake, capability: str, source: str, described: SchemaObject, after: int = 0) -> Recent:
    """Some of the newest accepted rows of a source, from all over its newest items, none up to item `after`."""
    table = lake.find(intake_table(capability, source))
    if table is None:
        return Recent()
    known = read_columns(table.properties)
    columns = {each.name: known.get(each.name, each.name) for each in described.properties}
    there = {name: column for name, column in columns.items() if column in table.schema}
    items = 16
    while True:
        newest = rows_after(table, max(after, newest_item(table) - items))
        rows = newest.select(pl.len()).collect().item()
        if rows >= RECENT_ROWS or items >= _RECENT_ITEMS:
            break
        items *= 4
    some = newest.filter(pl.col(ROW) % max(1, rows // RECENT_ROWS) == 0).sort(ITEM)
    return _recent(some.select(ITEM, **there).collect(engine="streaming"), there)


def _recent(rows: pl.DataFrame, names: Iterable[str]) -> Recent:
    values, medians = {}, {}
    for name in names:
        kind = rows[name].dtype
        if kind.is_numeric():
            numbers = rows.select(ITEM, pl.col(name).cast(pl.Float64())).filter(pl.col(name).is_finite())
            values[name] = numbers[name]
            medians[name] = numbers.group_by(ITEM).agg(pl.col(name).median()).sort(ITEM)[name].to_list()
        elif kind in {pl.String(), pl.Date()}:
            values[name] = rows[name].drop_nulls().cast(pl.String())
    return Recent(values, medians)


def _are_near(name: str, other: str) -> bool:
    one, two = _words_of(name), _words_of(other)
    return _likeness(name, other) >= NEAR or bool(one and two and (one <= two or two <= one))


def _likeness(name: str, other: str) -> float:
    one, two = (re.sub(r"[^a-z0-9]", "", each.casefold()) for each in (name, other))
    return float(difflib.SequenceMatcher(None, one, two, autojunk=False).ratio())


def _words_of(name: str) -> frozenset[str]:
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return frozenset(re.findall(r"[a-z]{2,}|[0-9]+", spaced.casefold()))
