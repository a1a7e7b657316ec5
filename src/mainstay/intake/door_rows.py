"""The verdict on every record of some consecutive rows: accepted, coerced, quarantined, or known already.

A record that breaks the contract is coerced where that is allowed, and else quarantined with every reason. A good one
is held against the records that are known, and what is left against the watermark.
"""

from __future__ import annotations

from array import array
from collections import Counter
from re import sub
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import numpy as np
import polars as pl

from mainstay.contract.tables import flat_reasons, nested_reasons
from mainstay.contract.tables_text import value_frame
from mainstay.contract.violations import MASKED
from mainstay.intake.door_columns import column_type, fitted
from mainstay.intake.door_tables import QUARANTINE_SCHEMA, Counts, arrival_day, quarantine_frame
from mainstay.intake.lateness import EVENT_TYPE, event_times, shown
from mainstay.intake.types import (
    ARRIVED_AT,
    COERCED,
    CONTRACT,
    DAY,
    EVENT_AT,
    EXTRA,
    HEADER,
    ITEM,
    KIND,
    LATE,
    ORIGIN,
    RAW,
    REASON,
    ROW,
    VIOLATIONS,
    BrokenRule,
    PartFacts,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mainstay.capability.sources import Source
    from mainstay.contract.columns import ColumnValidator
    from mainstay.contract.tables_sifted import Sifted
    from mainstay.contract.types import Rule
    from mainstay.intake.coercion import Coercer
    from mainstay.intake.door_columns import Origin
    from mainstay.intake.known_keys import Digests, KnownKeys
    from mainstay.intake.landing import Item
    from mainstay.intake.lateness import Watermark
    from mainstay.intake.types import Reason

PART_ROWS: Final = 131_072
PART_BYTES: Final = 32 << 20  # of rows in memory
MOST_BROKEN: Final = 1_000  # pairs of a field and a rule that are told to a judge
MOST_COLUMNS: Final = 1_000  # that the contract does not know, told likewise

_EXPLAINED_AT_ONCE: Final = 4_096


class Rules(NamedTuple):
    """What rows of an item are held against."""

    source: Source
    validator: ColumnValidator
    contract: str  # id@version
    columns: Mapping[str, str]  # of the table, by field
    coercer: Coercer
    known: KnownKeys | None  # None where the source declares no key
    watermark: Watermark
    refused: str | None = None  # why a person keeps all of the item out


class Part:
    """Rows of an item that are committed together."""

    def __init__(self, rules: Rules, item: Item, begin: int, healed: Mapping[int, str]) -> None:
        """`begin` rows come before it. Those in `healed` are in quarantine already, with that reason."""
        self._rules = rules
        self._item = item
        self._healed = healed
        self._nodes = dict(rules.validator.nodes)
        self._fixed = {
            ITEM: item.number,
            ORIGIN: item.origin,
            ARRIVED_AT: item.arrived_at,
            CONTRACT: rules.contract,
            DAY: arrival_day(item.arrived_at),
        }
        self.begin = begin
        self.end = begin
        self.counts = Counts()
        self.accepted: list[pl.DataFrame] = []
        self.quarantined: list[pl.DataFrame] = []
        self.rejected = False
        self.columns: dict[str, str] = {}
        self.unknown: dict[str, None] = {}
        self._bytes = 0
        self._header: str | None = None  # under which rows of CSV came
        self._broken: Counter[tuple[str, Rule]] = Counter()
        self._bad = array("q")
        self._newest: Any = None

    @property
    def is_full(self) -> bool:
        return self.counts.rows >= PART_ROWS or self._bytes >= PART_BYTES

    def add(self, sifted: Sifted, origin: Origin) -> None:
        """Take the rows behind those that are in it."""
        self.end = sifted.end
        self._header = sifted.header
        self.counts.rows += sifted.rows
        self.columns |= dict(list(sifted.columns.items())[:MOST_COLUMNS])
        self.unknown |= dict.fromkeys(sifted.unknown[:MOST_COLUMNS])
        rows = self._frame(sifted.clean, sifted.numbers, sifted.extra, origin)
        mended = self._mend(sifted) if self._rules.coercer and len(sifted.bad) else None
        bad = list(range(len(sifted.bad)))
        if mended is not None:
            coerced = mended[ROW]
            bad = (~sifted.bad.is_in(coerced.implode())).arg_true().to_list()
            rows = pl.concat([rows, mended]).sort(ROW)
        self._refuse(sifted, bad)
        rows = self._without_healed(rows)
        if self._rules.refused is not None:
            self._refuse_good(rows, sifted, "refused")
            return
        rows = self._settle(rows, sifted)
        self.counts.accepted += rows.height
        self.counts.coerced += rows[COERCED].count()
        if rows.height:
            self._keep(self.accepted, rows)

    def reject(self, said: str, raw: bytes) -> None:
        """Take what follows in the item, which cannot be read, as one row."""
        self.end += 1
        self.counts.rows += 1
        self.rejected = True
        self._header = None
        reason = {"field": "$", "rule": "malformed", "expected": f"a {self._item.kind} file", "found": said}
        self._put_aside([self.end], [raw], [[reason]], "unreadable")

    def facts(self, *, last: bool) -> PartFacts:
        """What a judge is told."""
        counts = self.counts
        broken = self._broken.most_common(MOST_BROKEN)
        return PartFacts(
            item=self._item,
            contract=self._rules.contract,
            first_row=self.begin + 1,
            rows=counts.rows,
            last=last,
            columns=self.columns,
            unknown=tuple(self.unknown),
            missing=tuple(name for name in self._nodes if name not in self.columns) if self.columns else (),
            accepted=counts.accepted,
            coerced=counts.coerced,
            quarantined=counts.quarantined,
            late=counts.late,
            repeated=counts.repeated,
            broken=tuple(BrokenRule(field, rule, rows) for (field, rule), rows in broken),
            bad=self._bad,
            newest_event_at=self._newest,
            watermark=self._rules.watermark.at,
            rejected=self.rejected,
        )

    # Rows that keep the contract

    def _frame(self, fields: pl.DataFrame, numbers: pl.Series, extra: pl.Series, origin: Origin) -> pl.DataFrame:
        """Good rows as the table has them, but for what is settled later."""
        rules = self._rules
        made = []
        for name, node in rules.validator.nodes:
            if name in fields.columns:
                made.append(fitted(node, fields[name], origin).alias(rules.columns[name]))
            else:
                made.append(
                    pl.repeat(None, len(numbers), dtype=column_type(node), eager=True).alias(rules.columns[name])
                )
        frame = pl.DataFrame([*made, numbers.alias(ROW), extra.alias(EXTRA)])
        event = rules.source.event_time
        nothing = pl.repeat(None, frame.height, dtype=EVENT_TYPE, eager=True)
        return frame.with_columns(
            (nothing if event is None else event_times(frame[rules.columns[event]])).alias(EVENT_AT),
            pl.lit(None, pl.String).alias(COERCED),
            *(pl.lit(value, QUARANTINE_SCHEMA[name]).alias(name) for name, value in self._fixed.items()),
        )

    def _mend(self, sifted: Sifted) -> pl.DataFrame | None:
        """The bad rows that can be coerced."""
        numbers = sifted.bad.to_list()
        rows, kept, originals, extra = [], [], [], []
        for index, record in enumerate(sifted.records()):
            coerced = self._rules.coercer.coerce(record) if record is not None else None
            if coerced is not None:
                rows.append(coerced.values)
                kept.append(numbers[index])
                originals.append(msgspec.json.encode(coerced.originals).decode())
                extra.append(sifted.bad_extra[index])
        if not rows:
            return None
        fields = value_frame(self._rules.validator.nodes, rows)
        frame = self._frame(fields, pl.Series(kept, dtype=pl.Int64), pl.Series(extra, dtype=pl.String), "records")
        return frame.with_columns(pl.Series(COERCED, originals, dtype=pl.String))

    def _without_healed(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows that are not in quarantine; the others are counted as they were then."""
        if not self._healed:
            return rows
        healed = rows[ROW].is_in(list(self._healed))
        self.counts.quarantined += int(healed.sum())
        self.counts.late += sum(self._healed[number] == "late" for number in rows[ROW].filter(healed).to_list())
        return rows.filter(~healed)

    def _settle(self, rows: pl.DataFrame, sifted: Sifted) -> pl.DataFrame:
        """The rows that go into the table: neither known already nor late where that is refused."""
        source, known, watermark = self._rules.source, self._rules.known, self._rules.watermark
        late = watermark.late(rows[EVENT_AT]).to_numpy()
        nowhere = np.zeros(rows.height, np.bool_)
        same = changed = nowhere
        digests = None if known is None else self._digests(known, rows)
        if known is not None and digests is not None:
            same, changed = known.resolve(digests, newest=source.repeated == "correct")
            if source.late == "ignore" and late.any():
                others = np.flatnonzero(~late)  # a row that is refused makes no other one a known one
                found = known.resolve(digests.only(others), newest=source.repeated == "correct")
                same[others], changed[others] = found
        late &= ~same
        refused = late if source.late == "ignore" else nowhere
        changed &= ~refused
        ignored = same | changed if source.repeated == "ignore" else same
        unlike = changed if source.repeated == "quarantine" else nowhere
        self.counts.late += int(late.sum())
        self.counts.repeated += int(ignored.sum())
        self._refuse_good(rows.filter(pl.Series(refused)), sifted, "late")
        self._refuse_good(rows.filter(pl.Series(unlike)), sifted, "repeated")
        kept = ~(ignored | refused | unlike)
        flags = pl.when(pl.Series(late)).then(pl.lit(source.late)).cast(pl.String)
        rows = rows.with_columns(flags.alias(LATE))
        if not kept.all():
            rows = rows.filter(pl.Series(kept))
        if known is not None and digests is not None:
            known.add(digests.only(kept))
        watermark.take(rows[EVENT_AT], self._item.arrived_at)
        newest: Any = rows[EVENT_AT].max()
        self._newest = max(filter(None, (self._newest, newest)), default=None)
        return rows

    def _digests(self, known: KnownKeys, rows: pl.DataFrame) -> Digests:
        columns = self._rules.columns
        said = [*(columns[name] for name in self._nodes), EXTRA]
        return known.digests(rows, [columns[name] for name in self._rules.source.key], said)

    # Rows that go into quarantine

    def _refuse(self, sifted: Sifted, bad: Sequence[int]) -> None:
        """Put rows aside that break the contract, with every reason; a few at a time, because reasons are large."""
        for at in range(0, len(bad), _EXPLAINED_AT_ONCE):
            indices = bad[at : at + _EXPLAINED_AT_ONCE]
            numbers = sifted.bad.gather(list(indices)).to_list()
            reasons = sifted.explain(indices)
            for each in reasons:
                self._broken.update({(_general(one.field), one.rule) for one in each})
            self._bad.extend(numbers)
            self._put_aside(numbers, sifted.raw_bad(indices), nested_reasons(flat_reasons(reasons)), "rules")

    def _refuse_good(self, rows: pl.DataFrame, sifted: Sifted, reason: Reason) -> None:
        """Put good rows aside."""
        if not rows.height:
            return
        numbers = rows[ROW]
        clean, bad = sifted.numbers.to_numpy(), sifted.bad.to_numpy()
        raws = _found(numbers, clean, sifted.raw_clean) | _found(numbers, bad, sifted.raw_bad)
        said = self._reasons(rows, reason)
        self._put_aside(numbers.to_list(), [raws[number] for number in numbers.to_list()], said, reason)

    def _reasons(self, rows: pl.DataFrame, reason: Reason) -> list[list[dict[str, str]]]:
        if reason == "late":
            return self._late_reasons(rows)
        if reason == "repeated":
            return self._known_reasons(rows)
        expected, found = "an item that is let in", self._rules.refused or ""
        return [[{"field": "$", "rule": reason, "expected": expected, "found": found}]] * rows.height

    def _late_reasons(self, rows: pl.DataFrame) -> list[list[dict[str, str]]]:
        name = self._rules.source.event_time or ""
        expected = f"an event at or after {shown(self._rules.watermark.limit)}"
        masked = self._nodes[name].masked
        found = [MASKED if masked else shown(event) for event in rows[EVENT_AT].to_list()]
        return [[{"field": name, "rule": "late", "expected": expected, "found": each}] for each in found]

    def _known_reasons(self, rows: pl.DataFrame) -> list[list[dict[str, str]]]:
        field = ", ".join(self._rules.source.key)
        said = {"field": field, "rule": "repeated", "expected": "what is known of this key", "found": "something else"}
        return [[said]] * rows.height

    def _put_aside(self, numbers: list[int], raws: list[bytes], reasons: Any, reason: Reason) -> None:
        self.counts.quarantined += len(numbers)
        rows = {ROW: numbers, RAW: raws, VIOLATIONS: reasons}
        kind = "csv" if self._item.kind == "csv" else "jsonl"
        read_by = {KIND: kind, HEADER: self._header}
        frame = quarantine_frame(rows, {**self._fixed, REASON: reason, **read_by})
        if self._healed:
            frame = frame.filter(~pl.col(ROW).is_in(list(self._healed)))
        if frame.height:
            self._keep(self.quarantined, frame)

    def _keep(self, frames: list[pl.DataFrame], frame: pl.DataFrame) -> None:
        frames.append(frame)
        self._bytes += int(frame.estimated_size())


def _found(numbers: pl.Series, places: Any, raw: Callable[[Sequence[int]], list[bytes]]) -> dict[int, bytes]:
    """The bytes of those rows whose numbers are among `places`, which ascend."""
    wanted = numbers.to_numpy()
    at = np.searchsorted(places, wanted)
    there = at < len(places)
    there[there] = places[at[there]] == wanted[there]
    return dict(zip(wanted[there].tolist(), raw(at[there].tolist()), strict=True))


def _general(field: str) -> str:
    """The field with every item of an array as one: `lines[].sku`."""
    return sub(r"\[[0-9]+\]", "[]", field) if "[" in field else field
