from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from cyclopts import Parameter

from mainstay.cli.common import DEFAULT, Common, columns, out, print_json, require_sight
from mainstay.cli.lineage_facts import decision_facts, decision_lines, source_named
from mainstay.errors import Misuse
from mainstay.intake.declared import sources_in_force
from mainstay.intake.traced import (
    DAYS_BACK,
    ItemFacts,
    decisions_by_key,
    decisions_of_batch,
    decisions_of_item,
    item_facts,
)
from mainstay.lake.exporting import KEY_FOLDER
from mainstay.lake.lagging import standing
from mainstay.lake.lake import open_lake
from mainstay.ledger.index_key import load_index_key

if TYPE_CHECKING:
    from collections.abc import Iterator

    import polars as pl

    from mainstay.workspace import Workspace

SHOWN: Final = 20  # decisions, for people

_encode = msgspec.json.Encoder().encode


def lineage(
    subject: str,
    source: str | None = None,
    /,
    *,
    item: Annotated[int | None, Parameter(help="The number of a landing item: which decisions did it touch?")] = None,
    batch: Annotated[str | None, Parameter(help="A batch: which decisions did it make?")] = None,
    days: Annotated[int, Parameter(help="How far back the row behind a call is looked for by its key.")] = DAYS_BACK,
    common: Common = DEFAULT,
) -> None:
    """What stands behind a decision: source rows, contract, version, release. Or what a bad item or batch touched.

    With --json, decisions that were touched are JSON lines, the facts of the item first.

    Example: mainstay lineage 01990c2a-5b1e-7a3f-8c21-55e000000007

    Example: mainstay lineage late-arrival feed --item 7

    Parameters
    ----------
    subject
        The decision_id of an answer; with --item or --batch, the name of a capability.
    source
        With --item: the source of the capability.
    """
    workspace = common.open()
    if item is not None and batch is not None:
        raise Misuse("expected one of --item and --batch, found both")
    if item is not None:
        if source is None:
            raise Misuse(
                "expected a capability and a source, found one name", hint="mainstay lineage NAME SOURCE --item 7"
            )
        _touched_by_item(workspace, subject, source, item, json=common.json)
    elif batch is not None:
        _touched_by_batch(workspace, subject, batch, json=common.json)
    elif source is not None:
        raise Misuse("expected a decision's id, found two names", hint="mainstay lineage NAME SOURCE --item 7")
    else:
        found = decision_facts(workspace, subject, days)
        if common.json:
            print_json(found)
            return
        for line in decision_lines(found):
            out.print(line, markup=False)


def _touched_by_item(workspace: Workspace, capability: str, source: str, number: int, *, json: bool) -> None:
    require_sight(workspace, capability)
    lake = open_lake(workspace)
    facts = item_facts(workspace, lake, capability, source, number)
    touched = _Touched(json=json)
    touched.begin({"item": facts._asdict(), "exported": _exported(workspace)})
    if not json:
        for line in _item_lines(capability, source, facts):
            out.print(line, markup=False)
    for rows in decisions_of_item(lake, capability, facts):
        touched.tell(rows, "row")
    declared = source_named(sources_in_force(workspace, capability).capability, source)
    if declared is not None and len(declared.key) == 1:
        digests = load_index_key(workspace.data / KEY_FOLDER)
        for rows in decisions_by_key(lake, capability, declared, facts, digests):
            touched.tell(rows, "key")
    touched.end()


def _touched_by_batch(workspace: Workspace, capability: str, batch: str, *, json: bool) -> None:
    require_sight(workspace, capability)
    touched = _Touched(json=json)
    touched.begin({"batch": batch, "exported": _exported(workspace)})
    for rows in decisions_of_batch(open_lake(workspace), capability, batch):
        touched.tell(rows, "row")
    touched.end()


def _exported(workspace: Workspace) -> dict[str, Any] | None:
    """How much of the ledger the tables had seen; None where nobody knows."""
    found = standing(workspace)
    return None if found is None else found.lag._asdict()


class _Touched:
    """Tells decisions as they are found: each as a line of JSON, or the first few and counts for people."""

    def __init__(self, *, json: bool) -> None:
        self._json = json
        self._counts: Counter[tuple[str, str]] = Counter()
        self._shown: list[list[str]] = []

    def begin(self, facts: dict[str, Any]) -> None:
        if self._json:
            self._line(facts)

    def tell(self, rows: pl.DataFrame, link: str) -> None:
        for row in rows.iter_rows(named=True):
            self._counts[link, row["outcome"]] += 1
            if self._json:
                self._line({"decision": row["id"], "link": link, **{name: row[name] for name in row if name != "id"}})
            elif len(self._shown) < SHOWN:
                self._shown.append([row["id"], f"{row['at']:%Y-%m-%d %H:%M:%S}Z", row["outcome"], f"by {link}"])

    def end(self) -> None:
        total = self._counts.total()
        if self._json:
            counts = [{"link": link, "outcome": outcome, "decisions": n} for (link, outcome), n in self._counts.items()]
            self._line({"decisions": total, "counts": counts})
            return
        for line in columns([["DECISION", "AT", "OUTCOME", "LINK"], *self._shown]) if self._shown else ():
            out.print(line, markup=False)
        if total > len(self._shown):
            out.print(f"... and {total - len(self._shown):,} more; --json lists them all")
        for (link, outcome), number in sorted(self._counts.items()):
            out.print(f"{number:,} {outcome}, linked by {link}", markup=False)
        if not total:
            out.print("no exported decision was touched")

    @staticmethod
    def _line(value: Any) -> None:
        sys.stdout.buffer.write(_encode(value) + b"\n")
        sys.stdout.buffer.flush()


def _item_lines(capability: str, source: str, facts: ItemFacts) -> Iterator[str]:
    arrived = "" if facts.arrived_at is None else f", arrived {facts.arrived_at:%Y-%m-%d %H:%M:%S}Z"
    yield f"item {facts.item} of {capability}/{source}{arrived}"
    if facts.origin is not None:
        yield f"origin       {facts.origin}"
    if facts.contract is not None:
        yield f"contract     {facts.contract}"
    yield f"accepted     {_rows(facts.accepted)}, in {facts.table}"
    why = ", ".join(f"{reason} {number:,}" for reason, number in facts.reasons.items())
    yield f"quarantined  {_rows(facts.quarantined)}{f': {why}' if why else ''}"


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"
