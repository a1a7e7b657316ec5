"""The rules between the rows of a table: `unique`, and the primary key.

A row whose key occurred in an earlier row is bad, whatever else is wrong with that one; the first is kept. A unique
property that is null has no key. A part of the primary key may not be null. Keys are equal when their values in the
table are; of one property that is the whole primary key, `unique` says no more.

A key is made of properties of the object, and of the objects in it; what stands in an array has no place in a row, and
is not looked at. A record validator cannot see these rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from mainstay.contract.types import Violation
from mainstay.contract.values import show
from mainstay.contract.violations import MASKED, RECORD
from mainstay.documents import join, shorten

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from mainstay.contract.rules import Node
    from mainstay.contract.types import Property, Rule

_LAST: Final = 2**31  # where the primary key's parts without a position stand: after the others


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One property of a key."""

    path: tuple[str, ...]
    node: Node
    masked: bool

    @property
    def name(self) -> str:
        where = ""
        for each in self.path:
            where = join(where, each)
        return where


@dataclass(frozen=True, slots=True, eq=False)
class Key:
    """One or more properties whose values together occur in one row only."""

    rule: Rule
    parts: tuple[Part, ...]

    @property
    def paths(self) -> frozenset[tuple[str, ...]]:
        """Which properties it takes: two keys of the same are repeated in the same rows."""
        return frozenset(part.path for part in self.parts)

    @property
    def field(self) -> str:
        """Where its violations are said to be: the property, or the record where it takes several."""
        return self.parts[0].name if len(self.parts) == 1 else RECORD

    def repeated(self, values: Sequence[Any]) -> Violation:
        """Of a row whose key is that of an earlier one; `values` are those of its parts, as JSON."""
        if any(part.masked for part in self.parts):
            found = MASKED
        elif len(self.parts) == 1:
            found = show(values[0])
        else:
            found = shorten(f"({', '.join(show(value) for value in values)})")
        if self.rule == "unique":
            expected = "a value that no earlier row has"
        elif len(self.parts) == 1:
            expected = "a key that no earlier row has"
        else:
            expected = f"a key ({', '.join(part.name for part in self.parts)}) that no earlier row has"
        return Violation(self.field, self.rule, expected, found)

    def incomplete(self, part: Part) -> Violation:
        """Of a row in which a part of the primary key is null."""
        return Violation(part.name, self.rule, "a value, because it is part of the primary key", "nothing")


def keys_of(properties: Sequence[Property], fields: Sequence[tuple[str, Node]]) -> tuple[Key, ...]:
    """The keys of an object with these properties, and their compiled nodes; the primary key comes last."""
    found = list(_parts(properties, dict(fields), (), masked=False))
    chosen = [(declared, part) for declared, part in found if declared.primary_key]
    chosen.sort(key=lambda each: each[0].primary_key_position if each[0].primary_key_position > 0 else _LAST)
    primary = tuple(part for _, part in chosen)
    unique = [part for declared, part in found if declared.unique and primary != (part,)]
    keys = [Key("unique", (part,)) for part in unique]
    return (*keys, Key("primary-key", primary)) if primary else tuple(keys)


def part_column(part: Part, kind: pl.DataType, column: pl.Expr) -> pl.Expr:
    """The values of a key's part, in the column of the field it is in; null where that has no such property."""
    for name in part.path[1:]:
        names = [field.name for field in kind.fields] if isinstance(kind, pl.Struct) else []
        if name not in names:
            return pl.repeat(None, pl.len())
        at = names.index(name)
        kind = kind.fields[at].dtype  # type: ignore[attr-defined]  # it has names, so it is a struct
        column = column.struct.rename_fields([f"f{i}" for i in range(len(names))]).struct.field(f"f{at}")
    return column


def repeated_rows(keys: pl.DataFrame) -> pl.Series:
    """Whether each row's key, if it has one, is that of an earlier row."""
    whole = keys.to_series() if keys.width == 1 else keys.to_struct("key")
    return ~whole.is_first_distinct() & keys.select(pl.all_horizontal(pl.all().is_not_null())).to_series()


def _parts(
    properties: Iterable[Property], nodes: Mapping[str, Node], path: tuple[str, ...], *, masked: bool
) -> Iterator[tuple[Property, Part]]:
    for declared in properties:
        node = nodes[declared.name]
        hidden = masked or node.masked
        below = (*path, declared.name)
        if declared.unique or declared.primary_key:
            yield declared, Part(below, node, hidden)
        if node.fields is not None:
            yield from _parts(declared.properties, dict(node.fields), below, masked=hidden)
