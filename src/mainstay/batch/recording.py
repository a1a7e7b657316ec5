"""Recording decisions: ids, leaves, one group in the write-ahead log; and the same decisions as rows to be read."""

from __future__ import annotations

import os
from collections import Counter
from datetime import UTC, datetime
from hashlib import sha256
from operator import attrgetter
from time import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import numpy as np
import polars as pl

from mainstay.batch.encoding import is_flat
from mainstay.contract.rules import compile_fields
from mainstay.contract.tables_text import column_value, record_type
from mainstay.decision.record import NOTHING, NULL
from mainstay.errors import Failed
from mainstay.lake.decision_rows import BATCH_AT, INTAKE_DAY
from mainstay.ledger.entry import format_id
from mainstay.ledger.journal import SEGMENT_BYTES
from mainstay.ledger.wal import Segment, frame_entries

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mainstay.batch.types import Decided
    from mainstay.decision.plan import ReleasePlan
    from mainstay.ledger.index_key import KeyDigests

_REASONS: Final = pl.List(pl.Struct({"code": pl.String(), "detail": pl.String()}))
_OURS: Final = {
    "mainstay_source": pl.String(),  # the file or the table
    "mainstay_item": pl.Int64(),  # of the table; null for a file
    "mainstay_row": pl.Int64(),  # in the file, or in the item
    "mainstay_key": pl.String(),
    "mainstay_decision_id": pl.String(),
    "mainstay_outcome": pl.String(),
    "mainstay_confidence": pl.Float64(),
    "mainstay_reasons": _REASONS,
    "mainstay_version": pl.String(),
    "mainstay_leaf": pl.String(),  # the hash of its leaf in the ledger, hex
}
_OF_LAKE: Final = {BATCH_AT: pl.Datetime("us", "UTC"), INTAKE_DAY: pl.Date()}  # besides, of tables of the lake

_PROMISE_CHARACTERS: Final = 64  # of a digest in hex

_decode_key = msgspec.json.Decoder(str | None).decode


class Written(NamedTuple):
    """Decisions ready to be recorded, and to be read."""

    framed: bytes
    first_id: str
    last_id: str
    frame: pl.DataFrame
    outcomes: dict[str, int]
    reasons: dict[str, int]


class Writer:
    """Makes the entries and the rows of decisions of one release."""

    def __init__(
        self, release: ReleasePlan, principal: str, *, in_table: bool, digests: KeyDigests | None = None
    ) -> None:
        """`in_table` says that rows come from a table. With `digests` they go to one of the lake: keys as digests."""
        self.release = release
        self._plans = {False: release.production, True: release.canary or release.production}
        self._principal = principal.encode()
        self._in_table = in_table
        declared = release.production.declared
        self._output = declared.output
        self._nodes = compile_fields(declared.output.properties, (), 1)
        self._attributes = declared.output.record_type.__struct_fields__
        self._decode_lines = msgspec.json.Decoder(declared.output.record_type | None).decode_lines
        self._digests = digests
        ours = _OURS if digests is None else {**_OURS, **_OF_LAKE}
        self.schema = pl.Schema({**ours, **{name: record_type(node) for name, node in self._nodes}})

    def write(self, decided: Decided, segment: str, counter: int) -> Written:
        """As entries of a segment, from `counter` on."""
        seconds = time()
        now = datetime.fromtimestamp(seconds, UTC)
        at = now.isoformat(timespec="microseconds").replace("+00:00", "Z").encode()
        head = format_id(segment, 0, int(seconds * 1000))[:-8].encode()
        ids = [b"%b%08x" % (head, counter + place) for place in range(len(decided.rows))]
        leaves, hashes = self._leaves(decided, ids, at)
        reasons: Counter[str] = Counter()
        for codes, count in Counter(decided.codes).items():
            for code in msgspec.json.decode(codes):
                reasons[code] += count
        return Written(
            frame_entries(leaves, decided.sealed),
            ids[0].decode(),
            ids[-1].decode(),
            self._frame(decided, ids, hashes, now),
            {outcome.decode(): count for outcome, count in Counter(decided.outcomes).items()},
            dict(reasons),
        )

    def _keys(self, keys: list[bytes]) -> list[str | None]:
        read = map(_decode_key, keys)
        if self._digests is None:
            return list(read)
        return [None if key is None else self._digests.of(key).hex() for key in read]

    def _leaves(self, decided: Decided, ids: list[bytes], at: bytes) -> tuple[list[bytes], list[bytes]]:
        """The leaves, and their hashes."""
        count = len(ids)
        alike = list(zip(decided.canary, decided.outcomes, decided.codes, strict=True))
        kinds = set(alike)
        if len(kinds) == 1:
            return self._leaves_alike(*kinds.pop(), at, ids, decided.digests)
        leaves, hashes = [b""] * count, [b""] * count
        places: dict[tuple[bool, bytes, bytes], list[int]] = {}
        for place, kind in enumerate(alike):
            places.setdefault(kind, []).append(place)
        for kind, found in places.items():
            some = [ids[place] for place in found], [decided.digests[place] for place in found]
            for place, leaf, leaf_hash in zip(found, *self._leaves_alike(*kind, at, *some), strict=True):
                leaves[place], hashes[place] = leaf, leaf_hash
        return leaves, hashes

    def _leaves_alike(
        self, canary: bool, outcome: bytes, codes: bytes, at: bytes, ids: list[bytes], digests: list[bytes]
    ) -> tuple[list[bytes], list[bytes]]:
        """Leaves that differ by id and promise alone: one is written, and the others are copies with these changed."""
        promised = b"".join(digests).hex().encode()
        first = promised[:_PROMISE_CHARACTERS]
        leaf = b"\x00" + self._plans[canary].recorder.leaf((ids[0], at), outcome, codes, self._principal, first)
        rows = np.empty((len(ids), len(leaf)), np.uint8)
        rows[:] = np.frombuffer(leaf, np.uint8)
        for begin, column in ((leaf.index(ids[0]), b"".join(ids)), (leaf.rindex(first), promised)):
            width = len(column) // len(ids)
            rows[:, begin : begin + width] = np.frombuffer(column, np.uint8).reshape(-1, width)
        prefixed: list[bytes] = rows.view(f"V{len(leaf)}").ravel().tolist()
        leaves: list[bytes] = np.ascontiguousarray(rows[:, 1:]).view(f"V{len(leaf) - 1}").ravel().tolist()
        return leaves, [sha256(each).digest() for each in prefixed]

    def _frame(self, decided: Decided, ids: list[bytes], hashes: list[bytes], now: datetime) -> pl.DataFrame:
        count = len(ids)
        versions = {canary: plan.digest for canary, plan in self._plans.items()}
        keyed = any(key is not NULL for key in decided.keys)
        columns: dict[str, Any] = {
            "mainstay_source": _repeated([decided.origin] * count),
            "mainstay_item": decided.parts if self._in_table else _repeated([None] * count),
            "mainstay_row": decided.rows,
            "mainstay_key": self._keys(decided.keys) if keyed else _repeated([None] * count),
            "mainstay_decision_id": pl.Series(ids, dtype=pl.Binary).cast(pl.String),
            "mainstay_outcome": _repeated([each.decode() for each in decided.outcomes]),
            "mainstay_confidence": _numbers(decided.confidences),
            "mainstay_reasons": _reasons(decided.reasons),
            "mainstay_version": _repeated([versions[canary] for canary in decided.canary]),
            "mainstay_leaf": pl.Series(hashes, dtype=pl.Binary).bin.encode("hex"),
        }
        if self._digests is not None:
            columns |= {
                BATCH_AT: pl.Series([now]).new_from_index(0, count),
                INTAKE_DAY: _repeated([now.date()] * count),
            }
        made = [
            column.alias(name).cast(kind)
            if isinstance(column := columns[name], pl.Series)
            else pl.Series(name, column, dtype=kind)
            for name, kind in self.schema.items()
            if name in columns
        ]
        records = self._decode_lines(b"\n".join(decided.outputs))
        whole = not any(record is None for record in records)
        for (name, node), attribute in zip(self._nodes, self._attributes, strict=True):
            take = attrgetter(attribute)
            values = [*map(take, records)] if whole else [None if each is None else take(each) for each in records]
            read = values if is_flat({name: node}) else [column_value(node, value) for value in values]
            made.append(pl.Series(name, read, dtype=record_type(node)))
        return pl.DataFrame(made)


def _reasons(given: list[bytes]) -> pl.Series:
    if all(each is NOTHING for each in given):  # a list of nothing is dear to make, and cheap to repeat
        return pl.Series([[]], dtype=_REASONS).new_from_index(0, len(given))
    return pl.Series(given, dtype=pl.Binary).cast(pl.String).str.json_decode(_REASONS)


def _numbers(given: list[bytes]) -> pl.Series:
    """Of JSON; null where that is null."""
    texts = pl.Series(given, dtype=pl.Binary).cast(pl.String)
    return texts.set(texts == NULL.decode(), None).cast(pl.Float64)


def _repeated(values: Sequence[Any]) -> pl.Series | Sequence[Any]:
    """The values as a column; one that is the same everywhere is cheap to repeat."""
    if values.count(values[0]) == len(values):
        return pl.Series(values[:1]).new_from_index(0, len(values))
    return values


class Entries:
    """The segments that a run writes its entries to, one group at a time."""

    def __init__(self, wal: Path) -> None:
        self._wal = wal
        self._segment: Segment | None = None
        self._counter = 0

    def place(self) -> tuple[str, int]:
        """The segment and the counter of the next entry. Raises Failed when the disk takes none."""
        if self._segment is not None and (self._segment.bytes > SEGMENT_BYTES or self._segment.is_to_be_left()):
            self.close()
        if self._segment is None:
            try:
                self._segment, self._counter = Segment(self._wal), 0
            except OSError as error:
                raise _unrecorded(error) from None
        return self._segment.name, self._counter

    def append(self, framed: bytes, count: int) -> None:
        """Record entries whose ids count up from `place`; on disk when this returns. Raises Failed."""
        assert self._segment is not None
        try:
            self._segment.append([framed], count)
            self._segment.leave_cache()
        except OSError as error:
            self._segment.abandon()
            self._segment = None
            raise _unrecorded(error) from None
        self._counter += count

    def close(self) -> None:
        """End the segment in good order, so that it is sealed and goes."""
        segment, self._segment = self._segment, None
        if segment is not None:
            segment.close()


def _unrecorded(error: OSError) -> Failed:
    return Failed(
        f"nothing can be recorded, so nothing is decided: {os.strerror(error.errno) if error.errno else error}",
        hint="Free the ledger's disk, and run the same command again: it goes on where it stopped.",
    )
