"""Which rows of a table of any size repeat the key of an earlier row: exactly, in bounded memory.

A first pass reads the columns of the keys alone. Up to a budget they stay in memory, and are compared there. Beyond it
they go to temporary files, sorted by the hash of the key into parts; then as many parts at a time as fit the budget are
read back and compared, the values themselves, so that two keys of one hash stay two. Equal keys have equal hashes and
meet in one part. A part larger than the budget, because one key fills it, is read piece by piece beside its distinct
keys. So memory is bounded by the budget unless the distinct keys of one part of 4096 exceed it.

What is found is one byte a row and key, in a temporary file that the kernel maps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from mainstay.contract.columns_keys import repeated_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

BUDGET_BYTES: Final = 64 << 20  # of key columns in memory, of all keys together
_PARTS: Final = 4_096
_SEED: Final = 0x6D61696E


class Repeats:
    """Which rows repeat a key; taken in the order of the rows, from the first."""

    def __init__(self, flags: Sequence[Any]) -> None:
        self._flags = flags  # a byte per row, of each key
        self._taken = 0

    def take(self, rows: int) -> list[pl.Series]:
        """Of each key whether the next `rows` rows repeat it."""
        begin, self._taken = self._taken, self._taken + rows
        return [pl.Series(np.asarray(each[begin : self._taken]).astype(np.bool_)) for each in self._flags]

    def totals(self) -> list[int]:
        """How many rows repeat each key."""
        return [int(np.count_nonzero(each)) for each in self._flags]

    def first(self, keys: int) -> Repeats:
        """Those of the first keys, from the first row on."""
        return Repeats(self._flags[:keys])


def find_repeats(tables: Iterable[Sequence[pl.DataFrame]], keys: int, scratch: Path, budget_bytes: int) -> Repeats:
    """The repeats in a table, of which `tables` gives the columns of each of its keys piece by piece, in order."""
    indexes = [_Index(scratch / f"key{number}", budget_bytes // max(keys, 1)) for number in range(keys)]
    for frames in tables:
        for index, frame in zip(indexes, frames, strict=True):
            index.add(frame)
    return Repeats([index.flags() for index in indexes])


class _Index:
    """The rows of one key."""

    def __init__(self, stem: Path, budget_bytes: int) -> None:
        self._stem = stem
        self._budget_bytes = budget_bytes
        self._held: list[pl.DataFrame] = []
        self._held_bytes = 0
        self._held_from = 0  # the row at which what is held begins
        self._rows = 0
        self._runs: list[_Run] = []

    def add(self, frame: pl.DataFrame) -> None:
        self._held.append(frame.rechunk())
        self._held_bytes += int(frame.estimated_size())
        self._rows += frame.height
        if self._held_bytes > self._budget_bytes:
            self._spill()

    def flags(self) -> Any:
        """A byte per row: 1 where the key is that of an earlier row."""
        if not self._runs:
            held = pl.concat(self._held, rechunk=True) if self._held else None
            return np.zeros(0) if held is None or not held.height else repeated_rows(held).to_numpy()
        self._spill()
        flags = np.memmap(self._stem.with_suffix(".flags"), np.uint8, "w+", shape=(self._rows,))
        for begin, end in self._ranges():
            for rows in self._repeated_in(begin, end):
                flags[rows] = 1
        return flags

    def _spill(self) -> None:
        """Write what is held, sorted by part, and forget it."""
        if not self._held:
            return
        frame = pl.concat(self._held, rechunk=True)
        names = frame.columns
        numbered = frame.with_row_index("row", offset=0).with_columns(pl.col("row").cast(pl.UInt64) + self._held_from)
        whole = numbered.filter(pl.all_horizontal(pl.col(names).is_not_null()))
        part = (pl.struct(names).hash(_SEED) % _PARTS).cast(pl.UInt16).alias("part")
        whole = whole.with_columns(part).sort("part", maintain_order=True)
        path = self._stem.with_suffix(f".{len(self._runs)}.arrow")
        whole.drop("part").write_ipc(path, compression="uncompressed")
        ends = np.searchsorted(whole["part"].to_numpy(), np.arange(_PARTS), side="right")
        self._runs.append(
            _Run(path, np.concatenate([[0], ends]), int(frame.estimated_size() / max(frame.height, 1)) + 1)
        )
        self._held, self._held_bytes, self._held_from = [], 0, self._rows

    def _ranges(self) -> Iterator[tuple[int, int]]:
        """Runs of parts that fit the budget together, each of at least one part."""
        sizes = sum((run.sizes() for run in self._runs), start=np.zeros(_PARTS))
        begin, held = 0, 0.0
        for part, size in enumerate(sizes):
            if held + size > self._budget_bytes and part > begin:
                yield begin, part
                begin, held = part, 0.0
            held += size
        yield begin, _PARTS

    def _repeated_in(self, begin: int, end: int) -> Iterator[Any]:
        """The numbers of the rows, in some parts, that repeat a key."""
        seen: pl.DataFrame | None = None
        held: list[pl.DataFrame] = []
        for run in self._runs:
            held.append(run.read(begin, end))
            if sum(each.estimated_size() for each in held) > self._budget_bytes or run is self._runs[-1]:
                frame = pl.concat(held if seen is None else [seen, *held])
                again = repeated_rows(frame.drop("row"))
                yield frame["row"].filter(again).to_numpy()
                seen, held = frame.filter(~again), []


class _Run:
    """A temporary file of keys and rows, sorted by part."""

    def __init__(self, path: Path, edges: Any, row_bytes: int) -> None:
        self._path = path
        self._edges = edges  # where each part begins, and the end
        self._row_bytes = row_bytes

    def sizes(self) -> Any:
        """The bytes of each part."""
        return np.diff(self._edges) * float(self._row_bytes + 8)

    def read(self, begin: int, end: int) -> pl.DataFrame:
        first, last = int(self._edges[begin]), int(self._edges[end])
        return pl.scan_ipc(self._path, glob=False).slice(first, last - first).collect(engine="in-memory")
