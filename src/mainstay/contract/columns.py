"""The rules of a contract over the columns of a table.

    validator = compile_columns(declared)          # a SchemaObject that load_contract accepted
    checked = validator.check(frame)               # a polars DataFrame, or whatever has the Arrow PyCapsule interface
    checked.rows, checked.bad_rows, checked.violations   # int; indices from 0; for each of these rows its Violations

Which rows are bad is computed over whole columns (`columns_masks`). Why, for those rows alone, is told by the walk that
also tells what is wrong with a record (`violations`), so that the reasons are the same: those of
`ObjectValidator.check`, for the row as JSON (`columns_records`), and then those of the rules between rows
(`columns_keys`), which a record validator cannot see.

`tables.check_table` does the same with files of any size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from mainstay.contract.columns_binding import Binding
from mainstay.contract.columns_keys import keys_of, repeated_rows
from mainstay.contract.dependencies import compile_dependencies
from mainstay.contract.rules import compile_fields

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mainstay.contract.columns_keys import Key
    from mainstay.contract.rules import Node
    from mainstay.contract.types import SchemaObject, Violation


class CheckedTable(NamedTuple):
    """What was found in a table in memory."""

    rows: int
    bad_rows: tuple[int, ...]  # from 0, in order
    violations: tuple[tuple[Violation, ...], ...]  # of each bad row


class ColumnValidator:
    """One object of a contract, compiled for tables."""

    def __init__(self, declared: SchemaObject, counted_keys: Sequence[Key] = ()) -> None:
        self.declared = declared
        self.name = declared.name
        self.nodes: tuple[tuple[str, Node], ...] = compile_fields(declared.properties, (), 1)
        self.keys: tuple[Key, ...] = keys_of(declared.properties, self.nodes)
        self.counted_keys = tuple(counted_keys)
        self._dependencies = compile_dependencies(declared.quality, self.nodes)
        places = {each.paths: each for each in reversed((*self.keys, *self.counted_keys))}
        self.all_keys = tuple(dict.fromkeys((*self.keys, *(places[each.paths] for each in self.counted_keys))))

    def bind(self, schema: Mapping[str, pl.DataType], *, cells: bool = False) -> Binding:
        """The rules for tables of a schema; with `cells`, a schema of texts that are read as the contract's types.

        Raises Misuse where the schema nests more deeply than a record may, or hides a part of a key.
        """
        counted = self.all_keys[len(self.keys) :]
        return Binding(self.nodes, self.keys, schema, cells=cells, counted=counted, dependencies=self._dependencies)

    def check(self, table: Any) -> CheckedTable:
        """Every violation of a whole table, those between its rows included.

        `table` is a polars DataFrame or has the Arrow PyCapsule interface (`__arrow_c_stream__`). Raises Misuse where
        its schema nests more deeply than a record may.
        """
        frame = table if isinstance(table, pl.DataFrame) else pl.DataFrame(table)
        judged = self.bind(frame.schema).judge(frame)
        repeated = [repeated_rows(judged.key_columns(key)) for key in self.keys]
        bad = judged.bad_rows(repeated)
        reasons = tuple(each for found in judged.explained(bad, repeated) for each in found.reasons)
        return CheckedTable(frame.height, tuple(bad.to_list()), reasons)


def compile_columns(declared: SchemaObject, counted_keys: Sequence[Key] = ()) -> ColumnValidator:
    """The validator of tables of an object of a contract that `load_contract` or `parse_contract` accepted.

    Of `counted_keys`, the rows that repeat an earlier one are counted and not bad (`TableReport.repeated`).
    """
    return ColumnValidator(declared, counted_keys)
