"""What the checks of the library count, over the batches of a table as they come by.

Duplicates are not counted here: they are rows that repeat the key of an earlier row, as for `unique`, so whoever checks
the table counts them by `duplicate_keys` and hands the counts to `verdicts`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from mainstay.contract.columns_keys import Key, Part
from mainstay.contract.columns_masks import value_mask
from mainstay.contract.columns_records import as_list, flattened
from mainstay.contract.quality import ITEMS, Counted, show_path
from mainstay.contract.rules import compile_node
from mainstay.contract.types import Options, Property, Quality

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mainstay.contract.quality import Measure, Path, QualityCheck, QualityVerdict
    from mainstay.contract.rules import Node

_VALUE: Final = pl.col("value")


def values_at(frame: pl.DataFrame, path: Path) -> pl.Series | None:
    """The values at a path, nulls included, one for each place where the rows have room for one; None: no such place.

    A row has one place for a property of the object, and none for one in an object that is null there. An array has
    one for each of its items.
    """
    if path[0] not in frame.columns:
        return None
    values = frame.get_column(path[0])
    for part in path[1:]:
        if part == ITEMS:
            if not isinstance(values.dtype, pl.List | pl.Array):
                return None
            values = flattened(as_list(values.drop_nulls()))
            continue
        if not isinstance(values.dtype, pl.Struct) or part not in [field.name for field in values.dtype.fields]:
            return None
        inner = values.drop_nulls().struct.unnest()
        values = inner.get_column(part)
    return values


def duplicate_keys(checks: Sequence[QualityCheck], nodes: Sequence[tuple[str, Node]]) -> tuple[Key, ...]:
    """The keys whose repetitions the checks count, one for each check that counts duplicates, in their order.

    `nodes` are the compiled properties of the object.
    """
    measures = [check.measure for check in checks if check.measure is not None]
    return tuple(_key(each, nodes) for each in measures if each.metric == "duplicateValues")


def _key(measure: Measure, nodes: Sequence[tuple[str, Node]]) -> Key:
    return Key("unique", tuple(_part(path, nodes) for path in measure.paths))


def _part(path: Path, nodes: Sequence[tuple[str, Node]]) -> Part:
    node = dict(nodes)[path[0]]
    masked = node.masked
    for name in path[1:]:
        node = dict(node.fields or ())[name]
        masked = masked or node.masked
    return Part(path, node, masked)


class QualityMeter:
    """Counts for the library checks of one object, batch by batch: `add` each of them once, then ask `verdicts`."""

    def __init__(self, checks: Sequence[QualityCheck]) -> None:
        self._checks = tuple(checks)
        self._absent: set[Path] = set()
        self._counters = [
            None if check.measure is None or check.measure.metric in _OF_ROWS else _Counter(check.measure)
            for check in checks
        ]
        self._keys = {
            path
            for check in checks
            if check.measure is not None and check.measure.metric in _OF_ROWS
            for path in check.measure.paths
        }

    def add(self, raw: pl.DataFrame, typed: pl.DataFrame) -> None:
        """Count a batch. `raw` has the cells of a file of text as they are, `typed` as the contract reads them."""
        self._absent.update(path for path in self._keys if values_at(typed.clear(), path) is None)
        for counter in self._counters:
            if counter is not None:
                counter.add(raw, typed)

    def verdicts(self, rows: int, repeated: Sequence[int]) -> tuple[QualityVerdict | None, ...]:
        """The verdict of each check, and None of those that ask a query.

        `rows` are all of the table, those that could not be read included; `repeated` how many of them repeat the key
        of an earlier one, for each of `duplicate_keys`.
        """
        counts = iter(repeated)
        return tuple(
            self._verdict(check, counter, rows, counts)
            for check, counter in zip(self._checks, self._counters, strict=True)
        )

    def _verdict(
        self, check: QualityCheck, counter: _Counter | None, rows: int, repeated: Iterator[int]
    ) -> QualityVerdict | None:
        if check.query is not None:
            return None
        if check.measure is None:
            return check.unknown(check.reason)
        if counter is not None:
            is_there, found = counter.is_there, Counted(counter.hits, counter.places)
        else:
            hits = rows if check.measure.metric == "rowCount" else next(repeated)
            is_there, found = self._absent.isdisjoint(check.measure.paths), Counted(hits, rows)
        if not is_there:
            wanted = ", ".join(map(show_path, check.measure.paths))
            return check.unknown(f"the data has no {wanted}, or none that can be looked into")
        return check.counted(found)


_OF_ROWS: Final = frozenset({"rowCount", "duplicateValues"})


@dataclass(slots=True)
class _Counter:
    """One measure of values, and what it has counted."""

    measure: Measure
    hits: int = 0
    places: int = 0
    is_there: bool = False

    def add(self, raw: pl.DataFrame, typed: pl.DataFrame) -> None:
        path = self.measure.paths[0]
        read = values_at(typed, path)
        if read is None:
            return
        given = values_at(raw, path)
        self.is_there = True
        self.places += len(read)
        self.hits += _hits(self.measure, read if given is None else given, read)


def _hits(measure: Measure, given: pl.Series, read: pl.Series) -> int:
    """How many values a measure counts, given as the file has them and as they were read."""
    match measure.metric:
        case "nullValues":
            return given.null_count()
        case "missingValues":
            return _missing(measure, given, read)
        case _:
            # a cell that could not be read is there, and no valid value
            valid = _valid_node(measure)
            return len(given) - given.null_count() - _count(value_mask(valid, read.dtype, _VALUE), read)


def _missing(measure: Measure, given: pl.Series, read: pl.Series) -> int:
    listed = measure.values or ()
    nulls = given.null_count() if None in listed else 0
    hits = _count(value_mask(_listed_node(measure, read), read.dtype, _VALUE), read)
    if given.dtype != read.dtype:
        # a cell that could not be read may be missing as the text it is: N/A among numbers
        unread = given.filter(read.is_null() & given.is_not_null())
        hits += _count(value_mask(_listed_node(measure, unread), unread.dtype, _VALUE), unread)
    return nulls + hits


def _count(mask: pl.Expr | None, values: pl.Series) -> int:
    """Of how many values that are not null a mask over the column `value` is true; None is true of all."""
    present = values.drop_nulls()
    if mask is None or present.is_empty():
        return len(present)
    return int(present.alias("value").to_frame().select(mask.sum()).item())


def _listed_node(measure: Measure, values: pl.Series) -> Node:
    """The rule that a value is one of those called missing, as the values are rather than as they are declared."""
    kind = measure.kind if measure.kind in {"integer", "number"} and values.dtype.is_numeric() else None
    return _node(kind, measure.format if kind == "integer" else None, {"validValues": list(measure.values or ())})


def _valid_node(measure: Measure) -> Node:
    arguments: dict[str, Any] = {}
    if measure.values is not None:
        arguments["validValues"] = list(measure.values)
    if measure.pattern is not None:
        arguments["pattern"] = measure.pattern
    kind = measure.kind or ("string" if measure.pattern is not None else None)
    return _node(kind, measure.format if kind == "integer" else None, arguments)


def _node(kind: Any, number_format: str | None, arguments: dict[str, Any]) -> Node:
    """The rules of a property of which these arguments are strictly demanded, and nothing else but its type."""
    check = Quality(metric="invalidValues", arguments=arguments, must_be=0)
    options = Options(format=number_format)
    return compile_node(Property(name="value", logical_type=kind, logical_type_options=options, quality=(check,)), 1)
