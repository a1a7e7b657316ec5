"""The tables of `dependencies` over columns: which rows keep them. Why a row does not, the record's own rule says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import polars as pl

from mainstay.contract.columns_records import TEMPORAL, TEXTS, temporal_texts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mainstay.contract.dependencies import Dependencies, Dependency
    from mainstay.contract.rules import Node

_TYPES: Final[dict[str, pl.DataType]] = {"integer": pl.Int64(), "number": pl.Float64(), "boolean": pl.Boolean()}


class BoundDependencies:
    """The tables of an object, for tables whose columns hold these of its properties."""

    def __init__(self, dependencies: Dependencies, nodes: Mapping[str, Node], names: Sequence[str]) -> None:
        self._nodes = nodes
        self._tables = [
            (each, _mapping_frame(each, nodes))
            for each in dependencies.tables
            if all(name in names for name in each.determinant)
        ]
        self.names = tuple(name for name in dependencies.names if name in names)

    def kept(self, columns: Mapping[str, pl.Series], right: Mapping[str, pl.Series], rows: int) -> pl.Series:
        """Whether each of so many rows keeps every table.

        `columns` are those of `names`, and `right` says of some of all properties in which rows they keep their own
        rules; of the others they do in all.
        """
        values = {name: plain_values(column, self._nodes[name]) for name, column in columns.items()}
        kept = pl.repeat(True, rows, dtype=pl.Boolean, eager=True)  # noqa: FBT003 - the value to repeat
        for table, mapping in self._tables:
            kept &= self._keep(table, mapping, values, right, rows)
        return kept

    def _keep(
        self,
        table: Dependency,
        mapping: pl.DataFrame,
        values: Mapping[str, pl.Series],
        right: Mapping[str, pl.Series],
        rows: int,
    ) -> pl.Series:
        keys = [_only(values[name], right.get(name)).alias(f"d{i}") for i, name in enumerate(table.determinant)]
        settled = pl.DataFrame(keys).join(mapping, on=[each.name for each in keys], how="left", maintain_order="left")
        kept = pl.repeat(True, rows, dtype=pl.Boolean, eager=True)  # noqa: FBT003 - the value to repeat
        for i, name in enumerate(table.dependent):
            wanted = settled[f"y{i}"]
            agrees = wanted.is_null()
            if name in values:
                agrees |= (values[name] == wanted).fill_null(value=False)
            if name in right:
                agrees |= ~right[name]
            kept &= agrees
        return kept


def plain_values(column: pl.Series, node: Node) -> pl.Series:
    """Values that keep a scalar property's own rules, as the tables have them; what others become is left open."""
    kind, made = column.dtype, _TYPES.get(node.kind, pl.String())
    if made == pl.String and kind in TEMPORAL:
        return temporal_texts(column, node)
    fits = kind in TEXTS if made == pl.String else kind == made if made == pl.Boolean else kind.is_numeric()
    if not fits:
        return pl.repeat(None, len(column), dtype=made, eager=True)
    if isinstance(kind, pl.Decimal) and made == pl.Float64:
        return column.cast(pl.String).cast(pl.Float64)  # the nearest double, which a quotient need not be
    return column.cast(made, strict=False)


def _only(column: pl.Series, right: pl.Series | None) -> pl.Series:
    return column if right is None else column.set(~right, None)


def _mapping_frame(table: Dependency, nodes: Mapping[str, Node]) -> pl.DataFrame:
    width = len(table.determinant)
    names = (*table.determinant, *table.dependent)
    rows: list[tuple[Any, ...]] = [(*key, *settled) for key, settled in table.mapping.items()]
    columns = [
        pl.Series(f"d{i}" if i < width else f"y{i - width}", values, dtype=_TYPES.get(nodes[name].kind, pl.String()))
        for i, (name, values) in enumerate(zip(names, zip(*rows, strict=True), strict=True))
    ]
    return pl.DataFrame(columns)
