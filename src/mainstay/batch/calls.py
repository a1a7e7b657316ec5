"""The rows of a piece as calls: the JSON of each input, its key, and the values of those that keep the contract."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np
import polars as pl

from mainstay.batch.encoding import columns_for_model, encode_record, encode_rows, is_flat, rows_of
from mainstay.contract.columns import compile_columns
from mainstay.contract.columns_records import plain, read_cell
from mainstay.decision.record import NULL
from mainstay.errors import NOT_READ

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mainstay.batch.types import Piece
    from mainstay.capability.load import Declared
    from mainstay.contract.columns_binding import Binding
    from mainstay.contract.rules import Node
    from mainstay.runtime.tensors import Column, Columns
    from mainstay.runtime.types import Row

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Calls(NamedTuple):
    """The rows of a piece, those that are broken at the end."""

    inputs: list[bytes]  # JSON, but for what is none
    keys: list[bytes]  # JSON
    good: list[int]  # the positions of those that keep the contract, in order
    values: Values


class Values:
    """The values of rows that keep the contract, as columns or, where these do not hold them, as rows."""

    def __init__(self, columns: Columns | None, rows: Sequence[Row], nodes: dict[str, Node]) -> None:
        self.columns = columns
        self._rows = rows
        self._nodes = nodes

    def rows(self) -> Sequence[Row]:
        """As the contract's validator would give them."""
        return self._rows if self.columns is None else rows_of(self.columns, self._nodes)

    def of(self, places: Sequence[int]) -> Values:
        """Those at some places."""
        if self.columns is None:
            return Values(None, [self._rows[place] for place in places], self._nodes)
        taken: dict[str, Column] = {
            name: [column[place] for place in places] if isinstance(column, list) else column[list(places)]
            for name, column in self.columns.items()
        }
        return Values(taken, (), self._nodes)

    def cut(self, start: int, end: int) -> Values:
        """Those from `start` to behind `end`."""
        if self.columns is None:
            return Values(None, self._rows[start:end], self._nodes)
        return Values({name: column[start:end] for name, column in self.columns.items()}, (), self._nodes)


class CallMaker:
    """Makes calls of the rows of one table. An object is for one thread."""

    def __init__(self, declared: Declared, key: str | None) -> None:
        """`key` is the field that holds the business key. Where the contract has none, it is no part of the input."""
        name = declared.capability.objects.input
        described = next(each for each in declared.contract.schema if each.name == name)
        self._columns = compile_columns(described)
        self._nodes = dict(self._columns.nodes)
        self._input = declared.input
        self._is_flat = is_flat(self._nodes)
        self._key = key
        self._drops_key = key is not None and key not in self._nodes
        self._bindings: dict[tuple[Any, ...], Binding] = {}

    def calls(self, piece: Piece) -> Calls:
        """The rows of a piece, and then those that are broken."""
        made = self._of_lines(piece.lines) if piece.frame is None else self._of_frame(piece.frame, cells=piece.cells)
        if piece.broken:
            made.inputs.extend(raw for _, raw in piece.broken)
            made.keys.extend([NULL] * len(piece.broken))
        return made

    # Columns.

    def _of_frame(self, frame: pl.DataFrame, *, cells: bool) -> Calls:
        keys = self._keys(frame)
        if self._key is not None and self._drops_key and self._key in frame.columns:
            frame = frame.drop(self._key)
        judged = self._binding(frame, cells=cells).judge(frame)
        bad = judged.bad_rows([])
        typed = judged.frame if cells else frame
        if bad.is_empty():
            return Calls(encode_rows(typed, self._nodes), keys, list(range(frame.height)), self._values(typed))
        is_good = np.ones(frame.height, np.bool_)
        is_good[bad.to_numpy()] = False
        good = np.flatnonzero(is_good).tolist()
        kept = typed.filter(pl.Series(is_good))
        inputs = [b""] * frame.height
        for places, texts in (
            (good, encode_rows(kept, self._nodes)),
            (bad, self._as_they_came(frame[bad], cells=cells)),
        ):
            for place, text in zip(places, texts, strict=True):
                inputs[place] = text
        return Calls(inputs, keys, good, self._values(kept))

    def _binding(self, frame: pl.DataFrame, *, cells: bool) -> Binding:
        schema = (cells, *frame.schema.items())
        if schema not in self._bindings:
            self._bindings[schema] = self._columns.bind(frame.schema, cells=cells)
        return self._bindings[schema]

    def _values(self, good: pl.DataFrame) -> Values:
        if self._is_flat:
            return Values(columns_for_model(good, self._nodes), (), self._nodes)
        rows = [self._input.values(self._input.decode(text)) for text in encode_rows(good, self._nodes)]
        return Values(None, rows, self._nodes)

    def _as_they_came(self, frame: pl.DataFrame, *, cells: bool) -> list[bytes]:
        columns = [self._read(series, cells=cells) for series in frame.get_columns()]
        names = frame.columns
        return [
            encode_record({name: value for name, value in zip(names, values, strict=True) if value is not None})
            for values in zip(*columns, strict=True)
        ]

    def _read(self, series: pl.Series, *, cells: bool) -> list[Any]:
        node = self._nodes.get(series.name)
        if not cells or node is None:
            return plain(series, node)
        return [None if text is None else read_cell(text, node) for text in series.to_list()]

    def _keys(self, frame: pl.DataFrame) -> list[bytes]:
        if self._key is None or self._key not in frame.columns:
            return [NULL] * frame.height
        return [_key(value) for value in plain(frame[self._key], self._nodes.get(self._key))]

    # JSON lines.

    def _of_lines(self, lines: Sequence[bytes] | None) -> Calls:
        inputs = [line.strip(b" \t\r\n") for line in lines or ()]
        keys = [NULL] * len(inputs)
        if self._key is not None:
            for place, line in enumerate(inputs):
                keys[place], inputs[place] = self._without_key(line)
        good: list[int] = []
        rows: list[Row] = []
        decode, values = self._input.decode, self._input.values
        for place, line in enumerate(inputs):
            try:
                rows.append(values(decode(line)))
            except msgspec.DecodeError:
                continue
            good.append(place)
        return Calls(inputs, keys, good, Values(None, rows, self._nodes))

    def _without_key(self, line: bytes) -> tuple[bytes, bytes]:
        """The key in a line, and the input."""
        try:
            record = _decode(line)
        except NOT_READ:
            return NULL, line
        if not isinstance(record, dict) or self._key not in record:
            return NULL, line
        key = _key(record[self._key])
        if not self._drops_key:
            return key, line
        del record[self._key]
        return key, encode_record(record)


def _key(value: Any) -> bytes:
    """A business key as JSON: what is no text is its own JSON, as a text."""
    if value is None:
        return NULL
    return _encode(value if isinstance(value, str) else encode_record({"": value})[4:-1].decode())
