"""Erasure reaches the tables of decisions: what the ledger was asked to erase is made null in rows exported before.

The tables of scheduled batches hold decisions, too, by their ids: those of the entries meant stand in the tables of
decisions, or are about to.

So a table that grew with the log says the same as one that is made anew from it. A request is met in the log before
it is carried out there; here it is carried out at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from mainstay.lake import snapshots
from mainstay.lake.conditions import MAX_VALUES, AllOf, NoneOf, OneOf, Within, in_runs
from mainstay.lake.decision_rows import BATCH_AT, BATCH_ID, BATCH_LEAF, BATCHES, BODIES, DECISIONS, OUTCOMES, SHADOWS
from mainstay.lake.lagging import instant
from mainstay.ledger.index import Index
from mainstay.ledger.log import Log

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from mainstay.lake.conditions import Condition
    from mainstay.lake.lake import Lake
    from mainstay.ledger.erasure_entries import Request, Rule

_KNOWN: Final = ("sequence", "id", "at", "outcome", "input")
_REVIEW: Final = (pl.col("outcome") == "review") & pl.col("input").is_not_null()


class Erasures:
    """The requests that one batch of the log holds."""

    def __init__(self, ledger_dir: Path, requests: Sequence[Request]) -> None:
        self._ledger = ledger_dir
        self._requests = requests

    def blank_rows(self, kind: str, capability: str, rows: pl.DataFrame) -> pl.DataFrame:
        """Rows that are about to be exported, without what is to be erased."""
        for condition in self._conditions(kind, capability, rows.lazy()):
            concerned = condition.expr()
            emptied = [pl.when(concerned).then(None).otherwise(pl.col(column)).alias(column) for column in BODIES[kind]]
            rows = rows.with_columns(emptied)
        return rows

    def blank_tables(self, lake: Lake, rows: Mapping[tuple[str, str], pl.DataFrame], *, below: int, writer: str) -> int:
        """Rows exported before, those of batches, and in snapshots of them; how many were changed.

        `rows` are about to be exported. A table that `writer` has brought to `below` was seen to before that.
        """
        changed = 0
        for kind in (DECISIONS, OUTCOMES, SHADOWS):
            for name in lake.names(kind) if self._requests else ():
                table = lake.table(name)
                if (table.position(writer) or 0) < below:
                    conditions = list(self._conditions(kind, name.removeprefix(kind), table.frame()))
                    changed += sum(snapshots.blank(lake, name, each, BODIES[kind]).rows for each in conditions)
        return changed + self._blank_batches(lake, rows)

    def _blank_batches(self, lake: Lake, rows: Mapping[tuple[str, str], pl.DataFrame]) -> int:
        changed = 0
        for name in lake.names(BATCHES) if self._requests else ():
            capability = name.removeprefix(BATCHES).partition("/")[0]
            exported = lake.find(DECISIONS + capability)
            known = [] if exported is None else [exported.frame().select(_KNOWN)]
            if (DECISIONS, capability) in rows:
                known.append(rows[DECISIONS, capability].lazy().select(_KNOWN))
            table = lake.table(name)
            columns = [column for column in table.schema if column not in BATCH_LEAF]
            for each in self._batch_conditions(capability, pl.concat(known)) if known else ():
                if table.frame().filter(each.expr()).head(1).collect().height:
                    changed += snapshots.blank(lake, name, each, columns).rows
        return changed

    def _batch_conditions(self, capability: str, known: pl.LazyFrame) -> Iterator[Condition]:
        """What is meant among the rows of a batch, whose places in the log are `known` by their ids."""
        for request in self._requests:
            rule = request.wish.rule
            if rule is None:
                for meant in _listed(request, capability):
                    ids = known.filter(meant.expr()).select("id").unique().collect()["id"].to_list()
                    parts = (ids[at : at + MAX_VALUES] for at in range(0, len(ids), MAX_VALUES))
                    yield from (OneOf(BATCH_ID, tuple(part)) for part in parts)
            elif rule.capability == capability:
                # Of rows that old all may go: whether the log had them when the rule was recorded is no matter here.
                waiting = self._waiting(rule, request.sequence, known)
                yield AllOf(tuple(_aged(rule, waiting, at=BATCH_AT, decision=BATCH_ID)))

    def _conditions(self, kind: str, capability: str, rows: pl.LazyFrame) -> Iterator[Condition]:
        for request in self._requests:
            rule = request.wish.rule
            if rule is None:
                yield from _listed(request, capability)
            elif rule.capability == capability:
                yield _ruled(rule, self._waiting(rule, request.sequence, rows) if kind == DECISIONS else [])

    def _waiting(self, rule: Rule, request: int, rows: pl.LazyFrame) -> list[str]:
        """The decisions in the rows that waited for a person when the request was made: a rule is not about them."""
        reviews = rows.filter(_ruled(rule, []).expr() & _REVIEW).select("id").collect()["id"].to_list()
        if not reviews:
            return []
        with Index(self._ledger) as index:
            index.catch_up(Log(self._ledger))
            return [decision for decision in reviews if index.erasures.waited(decision, request)]


def _listed(request: Request, capability: str) -> Iterator[Condition]:
    """The entries that a request lists, if it is about the capability."""
    if request.wish.capability in {None, capability}:
        yield from in_runs("sequence", request.wish.entries)


def _ruled(rule: Rule, waiting: Sequence[str]) -> Condition:
    return AllOf((Within("sequence", rule.first, rule.last), *_aged(rule, waiting, at="at", decision="id")))


def _aged(rule: Rule, waiting: Sequence[str], *, at: str, decision: str) -> list[Condition]:
    """What a rule says of a row but its place in the log, by the columns of the time and of the decision."""
    since, before = instant(rule.since), instant(rule.before)
    parts: list[Condition] = [] if since is None and before is None else [Within(at, since, before)]
    parts += (NoneOf(decision, tuple(waiting[n : n + MAX_VALUES])) for n in range(0, len(waiting), MAX_VALUES))
    return parts
