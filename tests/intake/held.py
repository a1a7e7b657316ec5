"""Held rows for tests, in tables as the door leaves them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from mainstay.cli.init import create_workspace
from mainstay.intake.declared import sources_in_force
from mainstay.intake.door import Door
from mainstay.intake.door_tables import DONE, QUARANTINE_SCHEMA
from mainstay.intake.landing import landing_of
from mainstay.intake.types import (
    ARRIVED_AT,
    COERCED,
    CONTRACT,
    DAY,
    DOOR_WRITER,
    EXTRA,
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
)
from mainstay.lake.lake import open_lake
from tiny import CONTRACT as TINY_CONTRACT
from tiny import NAME, write_folder

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.intake.types import Taken
    from mainstay.lake.lake import Lake
    from mainstay.lake.tables import Table
    from mainstay.workspace import Workspace

SOURCE: Final = "feed"
BEGIN: Final = datetime(2026, 3, 1, 6, tzinfo=UTC)  # item 1 arrived then; each item half a day behind the last
TAKEN: Final = pl.Schema(
    {
        "who": pl.String(),
        "a": pl.Float64(),
        ITEM: pl.Int64(),
        ROW: pl.Int64(),
        EXTRA: pl.String(),
        COERCED: pl.String(),
        DAY: pl.Date(),
    }
)


def broken(field: str, rule: str, found: str = "found", expected: str = "expected") -> dict[str, str]:
    return {"field": field, "rule": rule, "expected": expected, "found": found}


def arrival(item: int) -> datetime:
    return BEGIN + timedelta(hours=12 * (item - 1))


def held_row(item: int, row: int, raw: bytes | dict[str, Any], *violations: dict[str, str], **more: Any) -> Any:
    """A held row; `more` are `kind`, `header`, `reason`, `contract` where they are others than usual."""
    return {
        ITEM: item,
        ROW: row,
        RAW: raw if isinstance(raw, bytes) else json.dumps(raw).encode(),
        KIND: more.get("kind", "jsonl"),
        HEADER: more.get("header"),
        ORIGIN: f"GET https://api.example.com/?page={item}",
        ARRIVED_AT: arrival(item),
        VIOLATIONS: list(violations),
        CONTRACT: more.get("contract", "tiny@1.0.0"),
        REASON: more.get("reason", "rules"),
        DAY: arrival(item).date(),
    }


def hold(lake: Lake, rows: list[Any], *, reached: int = 0, capability: str = NAME, source: str = SOURCE) -> Table:
    """Put rows into quarantine, as the door does with items up to `reached` that hold no others."""
    table = lake.create(quarantine_table(capability, source), QUARANTINE_SCHEMA, partition_by=[DAY])
    item = max([reached, *(row[ITEM] for row in rows)])
    position = max((table.position(DOOR_WRITER) or 0) + 1, item << 32 | DONE)
    table.append(pl.DataFrame(rows, schema=QUARANTINE_SCHEMA), writer=DOOR_WRITER, position=position)
    _accept(lake, [], item, capability, source)
    return table


def let_in(lake: Lake, rows: list[tuple[str, float, int, int]], extra: str | None = None) -> Table:
    """Put rows into the table of accepted ones: who, a, item and row."""
    made = [
        {"who": who, "a": a, ITEM: item, ROW: row, EXTRA: extra, COERCED: None, DAY: arrival(item).date()}
        for who, a, item, row in rows
    ]
    return _accept(lake, made, max(row[2] for row in rows), NAME, SOURCE)


def _accept(lake: Lake, rows: list[Any], item: int, capability: str, source: str) -> Table:
    table = lake.create(intake_table(capability, source), TAKEN, partition_by=[DAY])
    position = max((table.position(DOOR_WRITER) or 0) + 1, item << 32 | DONE)
    rows_of_it = pl.DataFrame(rows, schema=TAKEN)
    table.append(rows_of_it, writer=DOOR_WRITER, position=position, metadata={"cursor": {"after": item}})
    return table


def many(items: int, rows: int) -> list[Any]:
    """Rows of several items: each is without `a`, and every third has a `b` of another type as well."""
    return [
        held_row(
            item,
            row,
            {"who": f"K-{row % 5}", "b": "x"},
            broken("a", "required"),
            *([broken("b", "type", '"x"')] if row % 3 == 0 else []),
        )
        for item in range(1, items + 1)
        for row in range(1, rows + 1)
    ]


def declare(workspace: Workspace, maximum: float = 100, **changes: Any) -> None:
    """The folder of the capability, with the source; its contract knows `who`, and classifies `note`."""
    contract = json.loads(json.dumps(TINY_CONTRACT))
    contract["schema"][0]["properties"][0]["logicalTypeOptions"]["maximum"] = maximum
    contract["schema"][0]["properties"].append({"name": "who", "logicalType": "string"})
    source = {"name": SOURCE, "push": {}, "key": ["who"], **changes}
    write_folder(workspace.capabilities / NAME, graph=b"onnx", contract=contract, sources=[source])


def make_workspace(root: Path) -> Workspace:
    """A workspace in which the source is declared."""
    workspace, _, _ = create_workspace(root, "tests.example.com/held")
    declare(workspace)
    return workspace


def take_in(workspace: Workspace) -> list[Taken]:
    """What waits goes through the door."""
    in_force = sources_in_force(workspace, NAME)
    source = in_force.source(SOURCE)
    door = Door(open_lake(workspace), NAME, source, in_force.contract, in_force.described(source))
    landing = landing_of(workspace.data, NAME, SOURCE)
    landing.reserve(door.reached)
    taken = []
    for item in landing.waiting():
        taken.append(door.take(item, landing.path(item)))
        landing.drop(item)
    return taken
