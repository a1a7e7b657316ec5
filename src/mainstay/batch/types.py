"""What passes between the parts of a batch: pieces of a table on their way in, decisions on their way out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from msgspec import Struct

if TYPE_CHECKING:
    import polars as pl

OutputKind: TypeAlias = Literal["parquet", "jsonl", "folder", "lake"]


class Place(NamedTuple):
    """Where a row stands: in the n-th file of an input, or in an item of a table of the lake. From 1."""

    part: int
    row: int


START = Place(0, 0)


class Piece(NamedTuple):
    """Consecutive rows of an input, of one file or of one table. Exactly one of `frame` and `lines` is set.

    Picklable: it is sent to whoever decides about it.
    """

    origin: str  # the name of the file, or of the table
    parts: list[int]  # of each row: `Place.part`
    rows: list[int]
    frame: pl.DataFrame | None = None  # the input's columns, and the key's
    cells: bool = False  # the frame holds texts, which are yet to be read as what the contract declares
    lines: list[bytes] | None = None  # JSON lines
    broken: tuple[tuple[int, bytes], ...] = ()  # rows of CSV that are none: their numbers, and their bytes
    in_table: bool = False  # of the lake

    @property
    def height(self) -> int:
        return len(self.rows) + len(self.broken)


class Decided(NamedTuple):
    """Decisions about the rows of a piece, in order, before they are recorded. Whatever is bytes is JSON."""

    origin: str
    parts: list[int]
    rows: list[int]
    keys: list[bytes]
    canary: list[bool]  # whether it was the canary that decided
    outcomes: list[bytes]  # without quotes
    codes: list[bytes]  # of the reasons
    reasons: list[bytes]
    outputs: list[bytes]
    confidences: list[bytes]
    sealed: list[bytes]  # salt and body
    digests: list[bytes]  # of those, SHA-256: what the leaves promise

    @property
    def last(self) -> Place:
        return Place(self.parts[-1], self.rows[-1])

    def cut(self, start: int, end: int) -> Decided:
        """Some of them."""
        cut: list[Any] = [each[start:end] for each in self[1:]]
        return Decided(self.origin, *cut)


class Summary(Struct, frozen=True, kw_only=True):
    """What a run did, up to now."""

    batch: str  # its id
    capability: str
    version: str
    release: int
    output: str
    rows: int
    outcomes: dict[str, int]
    reasons: dict[str, int]
    first_id: str | None  # of the decisions: the ledger's range, segment by segment, is between these
    last_id: str | None
    finished: bool
    seconds: float  # of the work now done
    rows_per_second: float
