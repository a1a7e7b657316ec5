"""What the business cares for: an expression over decisions and what became of them."""

from __future__ import annotations

from typing import Any

import polars as pl

from mainstay.monitoring.expressions import SIDES, Compiled, Field, Type, column
from mainstay.monitoring.labelled import pick, to_number

_COLUMNS = dict(zip(SIDES, ("input", "output", "outcome_json"), strict=True))


def evaluate(compiled: Compiled, joined: pl.DataFrame) -> pl.Series:
    """The value of an expression for each decision joined with its outcome (`labelled.join`); null where it has none.

    `joined` has the columns `input`, `output` and `outcome_json`, JSON text; the values are Float64.
    """
    by_side: dict[str, list[tuple[Field, Type]]] = {side: [] for side in SIDES}
    for field, kind in sorted(compiled.reads):
        by_side[field.side].append((field, kind))
    columns = []
    for side, reads in by_side.items():
        names = sorted({field.name for field, _ in reads})
        if not names:
            continue
        values = dict(zip(names, pick(joined[_COLUMNS[side]], names), strict=True))
        columns += [_typed(column(field, kind), values[field.name], kind) for field, kind in reads]
    # A constant has one row however many decisions there are.
    rows = pl.Series("rows", [0]).new_from_index(0, len(joined))
    return pl.DataFrame([rows, *columns]).with_columns(value=compiled.value)["value"]


def _typed(name: str, values: list[Any], kind: Type) -> pl.Series:
    match kind:
        case "number":
            return pl.Series(name, [to_number(value) for value in values], dtype=pl.Float64())
        case "text":
            return pl.Series(name, [value if isinstance(value, str) else None for value in values], dtype=pl.String())
        case "truth":
            return pl.Series(name, [value if isinstance(value, bool) else None for value in values], dtype=pl.Boolean())
