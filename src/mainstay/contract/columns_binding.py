"""A contract's rules bound to the columns of one schema, and what they say of a table of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import and_
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import polars as pl

from mainstay.contract.columns_cells import cell_mask, cell_type, typed_cells
from mainstay.contract.columns_dependencies import BoundDependencies
from mainstay.contract.columns_keys import part_column
from mainstay.contract.columns_masks import member_mask
from mainstay.contract.columns_records import as_json, field_types, item_type, plain, read_cell
from mainstay.contract.rules import MAX_DEPTH
from mainstay.contract.violations import MAX_VIOLATIONS, find_in_fields
from mainstay.errors import Misuse

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mainstay.contract.columns_keys import Key, Part
    from mainstay.contract.dependencies import Dependencies
    from mainstay.contract.rules import Node
    from mainstay.contract.types import Violation

_ROWS_AT_ONCE: Final = 4_096  # that are explained together, so that reasons need little memory


class Explained(NamedTuple):
    """Some bad rows of a table, and why they are."""

    rows: pl.Series  # from 0, in order
    reasons: list[tuple[Violation, ...]]


@dataclass(frozen=True, slots=True, eq=False)
class _Rule:
    """What is demanded of one column: of a field of the contract, of one it does not know, of a part of a key."""

    name: str
    node: Node | None  # None where the contract does not know the field
    at: int | None  # in the table; None where the column is missing and no row is right
    mask: pl.Expr | None  # of right rows


class Binding:
    """The rules for tables of one schema.

    Inside, the columns have names by position: `c0`, and for texts that are to be read also `t0`. Those of a table may
    be such as expressions take for patterns.
    """

    def __init__(
        self,
        fields: Sequence[tuple[str, Node]],
        keys: Sequence[Key],
        schema: Mapping[str, pl.DataType],
        *,
        cells: bool,
        counted: Sequence[Key] = (),
        dependencies: Dependencies | None = None,
    ) -> None:
        self.keys = keys
        self.known = dict(fields)
        self.cells = cells
        self.names = tuple(schema)
        self.types = [
            cell_type(self.known[name]) if cells and name in self.known else kind for name, kind in schema.items()
        ]
        deepest = max(map(_levels, schema.values()), default=0)
        if deepest >= MAX_DEPTH:
            raise Misuse(f"expected columns of at most {MAX_DEPTH - 1} levels, found one of {deepest}")
        self.rules = tuple(self._field_rules(fields))
        self.parts = {part: self._part(part) for key in keys for part in key.parts}
        for part in (part for key in counted for part in key.parts):
            hidden = cells and len(part.path) > 1  # in the text of a cell, where no key is looked for
            self.parts[part] = pl.repeat(None, pl.len()) if hidden else self._part(part)
        self.incomplete = tuple(
            (key, part, self.parts[part].is_not_null())
            for key in keys
            for part in key.parts
            if key.rule == "primary-key" and not part.node.required
        )
        tested = [rule.mask for rule in self.rules] + [mask for _, _, mask in self.incomplete]
        self.dependencies = dependencies
        self._bound = None if dependencies is None else BoundDependencies(dependencies, self.known, self.names)
        self._masks = [mask.alias(str(i)) for i, mask in enumerate(tested) if mask is not None]

    @property
    def schema(self) -> dict[str, pl.DataType]:
        """The names and types of `Judged.frame`."""
        return dict(zip(self.names, self.types, strict=True))

    def table(self, frame: pl.DataFrame) -> Judged:
        """A table of this schema, before anything is said of it."""
        inner = frame.select(pl.all())
        inner.columns = [f"{'t' if self.cells else 'c'}{i}" for i in range(inner.width)]
        if self.cells:
            columns = [typed_cells(self.known.get(name), inner.to_series(i)) for i, name in enumerate(self.names)]
            inner = inner.with_columns(column.alias(f"c{i}") for i, column in enumerate(columns))
        return Judged(self, inner, {})

    def judge(self, frame: pl.DataFrame) -> Judged:
        """What the rules, but for those between rows, say of a table of this schema."""
        inner = self.table(frame).inner
        masks = inner.select(self._masks).get_columns() if self._masks else []
        broken = {int(mask.name): mask for mask in masks if not mask.all()}
        return Judged(self, inner, broken, self._settled(inner, broken))

    def _settled(self, inner: pl.DataFrame, broken: Mapping[int, pl.Series]) -> pl.Series | None:
        """Which rows keep the tables of what settles what; None where all do."""
        if self._bound is None:
            return None
        right = {self.rules[number].name: mask for number, mask in broken.items() if number < len(self.rules)}
        never = pl.repeat(False, inner.height, dtype=pl.Boolean, eager=True)  # noqa: FBT003 - the value to repeat
        right |= {rule.name: never for rule in self.rules if rule.mask is None}
        columns = {name: inner[f"c{self.names.index(name)}"] for name in self._bound.names}
        kept = self._bound.kept(columns, right, inner.height)
        return None if kept.all() else kept

    def raw(self, at: int) -> str:
        """The inner name of a column as it came."""
        return f"{'t' if self.cells else 'c'}{at}"

    def _field_rules(self, fields: Sequence[tuple[str, Node]]) -> Iterator[_Rule]:
        """Those of the contract, in its order, and of what it does not know, in the table's."""
        places = {name: at for at, name in enumerate(self.names)}
        for name, node in fields:
            at = places.get(name)
            if at is None:
                if node.required:
                    yield _Rule(name, node, None, None)
                continue
            value = pl.col(f"c{at}")
            mask = cell_mask(node, pl.col(f"t{at}"), value) if self.cells else member_mask(node, self.types[at], value)
            if mask is not None:
                yield _Rule(name, node, at, mask)
        for name, at in places.items():
            if name not in self.known:
                yield _Rule(name, None, at, pl.col(self.raw(at)).is_null())

    def _part(self, part: Part) -> pl.Expr:
        places = {name: at for at, name in enumerate(self.names)}
        at = places.get(part.path[0])
        if at is None:
            return pl.repeat(None, pl.len())
        if not self.cells:
            return part_column(part, self.types[at], pl.col(f"c{at}"))
        if len(part.path) > 1:
            raise Misuse(
                f"expected a column for {part.name}, part of a key, found it inside the texts of {part.path[0]}",
                hint="Give this table as Parquet or JSON lines.",
            )
        # Where a text could not be read, it is the key itself.
        return pl.coalesce(pl.col(f"c{at}").cast(pl.String), pl.col(f"t{at}"))


class Judged:
    """A table, and which of its rows keep the rules."""

    def __init__(
        self, binding: Binding, inner: pl.DataFrame, broken: Mapping[int, pl.Series], settled: pl.Series | None = None
    ) -> None:
        self._binding = binding
        self.inner = inner
        self._broken = broken  # by number of the rule, where not every row is right
        self._settled = settled  # whether each row keeps what some of its fields settle, where not every one does

    @property
    def frame(self) -> pl.DataFrame:
        """The table of `Binding.schema`; what could not be read of texts is null."""
        made = self.inner.select([f"c{i}" for i in range(len(self._binding.names))])
        made.columns = list(self._binding.names)
        return made

    def records(self, rows: pl.Series) -> list[dict[str, Any]]:
        """Some rows as records: JSON, without what is null and what the contract does not know.

        A value that JSON has not, such as a NaN, is a NotJson.
        """
        found: list[dict[str, Any]] = [{} for _ in range(len(rows))]
        for at, name in enumerate(self._binding.names):
            node = self._binding.known.get(name)
            if node is None:
                continue
            column = self.inner[self._binding.raw(at)].gather(rows)
            values = self._read(column, node) if self._binding.cells else as_json(column, node)
            for record, value in zip(found, values, strict=True):
                if value is not None:
                    record[name] = value
        return found

    def key_columns(self, key: Key) -> pl.DataFrame:
        """The parts of each row's key."""
        return self.inner.select(self._binding.parts[part].alias(f"k{i}") for i, part in enumerate(key.parts))

    def bad_rows(self, repeated: Sequence[pl.Series]) -> pl.Series:
        """The numbers, from 0, of the rows that break a rule; `repeated` says by key which rows repeat an earlier."""
        if any(rule.mask is None for rule in self._binding.rules):
            return pl.Series(range(self.inner.height), dtype=pl.UInt32)
        settled = [] if self._settled is None else [self._settled]
        kept = [*self._broken.values(), *settled, *(~each for each in repeated)]
        return (~reduce(and_, kept)).arg_true() if kept else pl.Series([], dtype=pl.UInt32)

    def explained(self, bad: pl.Series, repeated: Sequence[pl.Series]) -> Iterator[Explained]:
        """Why each of the rows `bad` is: the violations of the row as a record, then those of its keys."""
        for start in range(0, len(bad), _ROWS_AT_ONCE):
            rows = bad.slice(start, _ROWS_AT_ONCE)
            found = self._of_fields(rows)
            self._add_dependencies(rows, found)
            self._add_keys(rows, repeated, found)
            assert all(found), "a rule over columns refuses what the same rule takes in a record"
            yield Explained(rows, [tuple(each) for each in found])

    def _of_fields(self, rows: pl.Series) -> list[list[Violation]]:
        """What the walk over records says of each row, which is shown the broken fields alone."""
        fields: list[list[tuple[str, Node]]] = [[] for _ in range(len(rows))]
        records: list[dict[str, Any]] = [{} for _ in range(len(rows))]
        for number, rule in enumerate(self._binding.rules):
            if rule.mask is not None and number not in self._broken:
                continue
            which = self._breaking(number, rows) if rule.mask is not None else range(len(rows))
            values = self._values(rule.at, rule.node, rows, which) if rule.at is not None else [None] * len(which)
            for position, value in zip(which, values, strict=True):
                if rule.node is not None:
                    fields[position].append((rule.name, rule.node))
                if value is not None:
                    records[position][rule.name] = value
        known = self._binding.known
        return [list(find_in_fields(*each)) for each in zip(fields, [known] * len(rows), records, strict=True)]

    def _add_dependencies(self, rows: pl.Series, found: list[list[Violation]]) -> None:
        dependencies = self._binding.dependencies
        if self._settled is None or dependencies is None:
            return
        which = (~self._settled.gather(rows)).arg_true().to_list()
        columns = {
            name: self._values(at, self._binding.known[name], rows, which)
            for at, name in enumerate(self._binding.names)
            if name in dependencies.names
        }
        for number, position in enumerate(which):
            if len(found[position]) < MAX_VIOLATIONS:
                found[position] += dependencies.violations({name: values[number] for name, values in columns.items()})

    def _add_keys(self, rows: pl.Series, repeated: Sequence[pl.Series], found: list[list[Violation]]) -> None:
        for number, (key, part, _) in enumerate(self._binding.incomplete, start=len(self._binding.rules)):
            if number in self._broken:
                for position in self._breaking(number, rows):
                    found[position].append(key.incomplete(part))
        for key, again in zip(self._binding.keys, repeated, strict=True):
            which = again.gather(rows).arg_true().to_list()
            columns = self.key_columns(key)[rows.gather(which)].get_columns() if which else []
            values = [self._shown(part, column) for part, column in zip(key.parts, columns, strict=False)]
            for position, key_values in zip(which, zip(*values, strict=True), strict=True):
                found[position].append(key.repeated(key_values))

    def _breaking(self, number: int, rows: pl.Series) -> list[int]:
        """The positions in `rows` of those that break a rule."""
        return (~self._broken[number].gather(rows)).arg_true().to_list()

    def _values(self, at: int, node: Node | None, rows: pl.Series, which: Sequence[int]) -> list[Any]:
        return self._read(self.inner[self._binding.raw(at)].gather(rows.gather(list(which))), node)

    def _shown(self, part: Part, column: pl.Series) -> list[Any]:
        return self._read(column, part.node)

    def _read(self, column: pl.Series, node: Node | None) -> list[Any]:
        if not self._binding.cells or node is None:
            return plain(column, node)
        return [None if text is None else read_cell(text, node) for text in column.to_list()]


def _levels(kind: pl.DataType) -> int:
    """How many objects and arrays are nested in the values of a type."""
    if isinstance(kind, pl.Struct):
        return 1 + max((_levels(each) for each in field_types(kind).values()), default=0)
    if isinstance(kind, pl.List | pl.Array):
        return 1 + _levels(item_type(kind))
    return 0
