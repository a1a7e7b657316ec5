"""Trying held rows against the contract in force, before anything changes: how many would pass now?

The door's own rules are asked, of copies. Only what the tables hold is not looked at: whether the key of a row has come
meanwhile shows when it is replayed. A row that was held because its key was known counts as held as long as the source
declares that.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import polars as pl
from msgspec import Struct

from mainstay.contract.columns import compile_columns
from mainstay.contract.tables_files import scratch_folder
from mainstay.contract.tables_sifting import sift
from mainstay.errors import Failed
from mainstay.intake.coercion import Coercer
from mainstay.intake.door_columns import assigned
from mainstay.intake.door_rows import Part, Rules
from mainstay.intake.door_tables import DoorTables
from mainstay.intake.landing import Item, landing_of
from mainstay.intake.lateness import Watermark
from mainstay.intake.quarantine import Chosen, Quarantine
from mainstay.intake.quarantine_items import ItemWriter
from mainstay.intake.types import HEADER, ITEM, KIND, RAW, REASON, ROW, BrokenRule

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mainstay.contract.types import Rule
    from mainstay.intake.declared import InForce
    from mainstay.intake.door_columns import Origin
    from mainstay.intake.quarantine_items import Written
    from mainstay.lake.lake import Lake
    from mainstay.workspace import Workspace

MAX_BROKEN: Final = 20  # rules that are told

_COLUMNS: Final = [ITEM, ROW, REASON, KIND, HEADER, RAW]


class Trial(Struct, frozen=True, kw_only=True):
    """What a replay would come to. rows = accepted + quarantined + repeated + skipped."""

    contract: str  # id@version
    rows: int  # open ones that are meant
    accepted: int  # the coerced ones among them
    coerced: int
    quarantined: int
    repeated: int  # held because their key was known, which the source now lets pass unkept
    skipped: int  # that cannot be read as records, and would stay where they are
    broken: tuple[BrokenRule, ...]  # what those would be held for, by frequency


def try_again(
    workspace: Workspace,
    lake: Lake,
    in_force: InForce,
    source: str,
    chosen: Chosen,
    told: Callable[[int], None] = lambda _: None,
) -> Trial:
    """Hold open rows against what is in force.

    `told` is called with the number of open rows that were looked at since before. Raises Misuse when nothing of the
    source was ever held, or it is not declared any more.
    """
    trying = _Trying(lake, in_force, source)
    with scratch_folder(landing_of(workspace.data, in_force.capability.name, source).folder.parent) as scratch:
        quarantine = Quarantine(lake, in_force.capability.name, source)
        for rows in quarantine.chunks(chosen, _COLUMNS, told):
            trying.add(rows, scratch)
    return trying.trial()


class _Trying:
    """What was found so far."""

    def __init__(self, lake: Lake, in_force: InForce, name: str) -> None:
        source = in_force.source(name)
        declared = in_force.described(source)
        validator = compile_columns(declared)
        newest = DoorTables(lake, in_force.capability.name, name).reached().newest
        self._rules = Rules(
            source,
            validator,
            in_force.contract_name,
            assigned((field for field, _ in validator.nodes), {}),
            Coercer(declared),
            None,
            Watermark(source.allowed_lateness_seconds, newest, newest),
        )
        self._counts = dict.fromkeys(("rows", "accepted", "coerced", "quarantined", "repeated", "skipped"), 0)
        self._broken: Counter[tuple[str, Rule]] = Counter()

    def add(self, rows: pl.DataFrame, scratch: Path) -> None:
        """Try rows of one item."""
        self._counts["rows"] += rows.height
        rows = self._without_known(rows)
        writer = ItemWriter(lambda number: scratch / str(number))
        places = writer.add(rows)
        self._counts["skipped"] += places["part"].null_count()
        for number, written in enumerate(writer.finish()):
            path = scratch / str(number)
            self._try(path, written)
            path.unlink()

    def _without_known(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows that were not held because of their key, unless newer ones now correct older ones."""
        if self._rules.source.repeated == "correct":
            return rows
        known = rows.filter(pl.col(REASON) == "repeated").height
        self._counts["quarantined" if self._rules.source.repeated == "quarantine" else "repeated"] += known
        return rows.filter(pl.col(REASON) != "repeated")

    def _try(self, path: Path, written: Written) -> None:
        item = Item(number=1, kind=written.kind, origin="a trial", arrived_at=datetime.now(UTC), bytes=written.bytes)
        part = Part(self._rules, item, 0, {})
        origin: Origin = "cells" if written.kind == "csv" else "records"
        try:
            for sifted in sift(written.kind, path, self._rules.validator, delimiter=written.delimiter):
                part.add(sifted, origin)
        except Failed as error:  # no column of the header is one of the contract
            if isinstance(error.__cause__, OSError):
                raise
            self._counts["quarantined"] += written.rows
            return
        facts = part.facts(last=True)
        self._counts["accepted"] += facts.accepted
        self._counts["coerced"] += facts.coerced
        self._counts["quarantined"] += facts.quarantined
        self._broken.update({(each.field, each.rule): each.rows for each in facts.broken})

    def trial(self) -> Trial:
        broken = (BrokenRule(field, rule, rows) for (field, rule), rows in self._broken.most_common(MAX_BROKEN))
        return Trial(contract=self._rules.contract, broken=tuple(broken), **self._counts)
