"""Erasure reaches the tables of decisions: what the ledger was asked to erase is made null in rows exported before.

So a table that grew with the log says the same as one that is made anew from it. A request is met in the log before
it is carried out there; here it is carried out at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from mainstay.lake import snapshots
from mainstay.lake.conditions import MAX_VALUES, AllOf, NoneOf, Within, in_runs
from mainstay.lake.decision_rows import BODIES, DECISIONS, OUTCOMES
from mainstay.lake.lagging import instant
from mainstay.ledger.index import Index
from mainstay.ledger.log import Log

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from mainstay.lake.conditions import Condition
    from mainstay.lake.lake import Lake
    from mainstay.ledger.erasure_entries import Request, Rule

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

    def blank_tables(self, lake: Lake, *, below: int, writer: str) -> int:
        """Rows exported before, and in snapshots of them; how many were changed.

        A table that `writer` has brought to `below` was seen to before that.
        """
        changed = 0
        for kind in (DECISIONS, OUTCOMES):
            for name in lake.names(kind) if self._requests else ():
                table = lake.table(name)
                if (table.position(writer) or 0) < below:
                    conditions = list(self._conditions(kind, name.removeprefix(kind), table.frame()))
                    changed += sum(snapshots.blank(lake, name, each, BODIES[kind]).rows for each in conditions)
        return changed

    def _conditions(self, kind: str, capability: str, rows: pl.LazyFrame) -> Iterator[Condition]:
        for request in self._requests:
            wish = request.wish
            if wish.rule is not None:
                if wish.rule.capability == capability:
                    waiting = self._waiting(wish.rule, request.sequence, rows) if kind == DECISIONS else []
                    yield _ruled(wish.rule, waiting)
            elif wish.capability in {None, capability}:
                yield from in_runs("sequence", wish.entries)

    def _waiting(self, rule: Rule, request: int, rows: pl.LazyFrame) -> list[str]:
        """The decisions in the rows that waited for a person when the request was made: a rule is not about them."""
        reviews = rows.filter(_ruled(rule, []).expr() & _REVIEW).select("id").collect()["id"].to_list()
        if not reviews:
            return []
        with Index(self._ledger) as index:
            index.catch_up(Log(self._ledger))
            return [decision for decision in reviews if index.erasures.waited(decision, request)]


def _ruled(rule: Rule, waiting: Sequence[str]) -> Condition:
    parts: list[Condition] = [Within("sequence", rule.first, rule.last)]
    since, before = instant(rule.since), instant(rule.before)
    if since is not None or before is not None:
        parts.append(Within("at", since, before))
    parts += (NoneOf("id", tuple(waiting[at : at + MAX_VALUES])) for at in range(0, len(waiting), MAX_VALUES))
    return AllOf(tuple(parts))
