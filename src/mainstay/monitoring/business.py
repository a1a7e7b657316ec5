"""What the business cares for: the mean of an expression over decisions and what became of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl
from msgspec import Struct

from mainstay.monitoring.expressions import SIDES, Compiled, Field, Type, column, compile_expression
from mainstay.monitoring.intervals import LEVEL, Estimate, mean
from mainstay.monitoring.labelled import pick, to_number

if TYPE_CHECKING:
    from mainstay.capability.keeping import BusinessMetric

_COLUMNS = dict(zip(SIDES, ("input", "output", "outcome_json"), strict=True))


class BusinessValue(Struct, frozen=True, kw_only=True):
    """A business metric of some decisions. `estimate` is None where the expression had no value for any of them."""

    name: str
    unit: str | None
    estimate: Estimate | None  # of the mean, with Student's interval
    n: int  # decisions with a value
    left_out: int  # decisions without one


def measure_business(metric: BusinessMetric, joined: pl.DataFrame, *, level: float = LEVEL) -> BusinessValue:
    """`metric` over decisions joined with their outcomes (`labelled.join`): the columns `input`, `output` and
    `outcome_json`, JSON text. Raises Misuse for an expression that is none.
    """
    values = evaluate(compile_expression(metric.expression), joined).drop_nulls().to_numpy()
    return BusinessValue(
        name=metric.name,
        unit=metric.unit,
        estimate=mean(values, level=level) if len(values) else None,
        n=len(values),
        left_out=len(joined) - len(values),
    )


def evaluate(compiled: Compiled, joined: pl.DataFrame) -> pl.Series:
    """The value of an expression for each decision, Float64; null where it has none."""
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
