"""Recording decisions: ids, leaves, one group in the write-ahead log; and the same decisions as rows to be read."""

from __future__ import annotations

import os
from collections import Counter
from datetime import UTC, datetime
from hashlib import sha256
from time import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import polars as pl

from mainstay.contract.rules import compile_fields
from mainstay.contract.tables_text import column_value, record_type
from mainstay.decision.record import NOTHING, NULL
from mainstay.errors import Failed
from mainstay.ledger.entry import format_id
from mainstay.ledger.journal import SEGMENT_BYTES
from mainstay.ledger.wal import Segment, frame_entries

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.batch.types import Decided
    from mainstay.decision.plan import ReleasePlan

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

    def __init__(self, release: ReleasePlan, principal: str, *, in_table: bool) -> None:
        self.release = release
        self._plans = {False: release.production, True: release.canary or release.production}
        self._principal = principal.encode()
        self._in_table = in_table
        declared = release.production.declared
        self._output = declared.output
        self._nodes = compile_fields(declared.output.properties, (), 1)
        self._decode_lines = msgspec.json.Decoder(declared.output.record_type | None).decode_lines
        self.schema = pl.Schema({**_OURS, **{name: record_type(node) for name, node in self._nodes}})

    def write(self, decided: Decided, segment: str, counter: int) -> Written:
        """As entries of a segment, from `counter` on."""
        now = time()
        at = datetime.fromtimestamp(now, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z").encode()
        head = format_id(segment, 0, int(now * 1000))[:-8].encode()
        ids = [b"%b%08x" % (head, counter + place) for place in range(len(decided.rows))]
        make = {canary: plan.recorder.leaf for canary, plan in self._plans.items()}
        principal = self._principal
        leaves = [
            make[canary]((entry_id, at), outcome, codes, principal, promised)
            for entry_id, canary, outcome, codes, promised in zip(
                ids, decided.canary, decided.outcomes, decided.codes, decided.promised, strict=True
            )
        ]
        hashes = [sha256(b"\x00" + leaf).hexdigest() for leaf in leaves]
        reasons: Counter[str] = Counter()
        for codes, count in Counter(decided.codes).items():
            for code in msgspec.json.decode(codes):
                reasons[code] += count
        return Written(
            frame_entries(leaves, decided.salts, decided.bodies),
            ids[0].decode(),
            ids[-1].decode(),
            self._frame(decided, ids, hashes),
            {outcome.decode(): count for outcome, count in Counter(decided.outcomes).items()},
            dict(reasons),
        )

    def _frame(self, decided: Decided, ids: list[bytes], hashes: list[str]) -> pl.DataFrame:
        count = len(ids)
        versions = {canary: plan.digest for canary, plan in self._plans.items()}
        keyed = any(key is not NULL for key in decided.keys)
        columns: dict[str, Any] = {
            "mainstay_source": pl.Series([decided.origin], dtype=pl.String).new_from_index(0, count),
            "mainstay_item": decided.parts if self._in_table else [None] * count,
            "mainstay_row": decided.rows,
            "mainstay_key": list(map(_decode_key, decided.keys)) if keyed else [None] * count,
            "mainstay_decision_id": pl.Series(ids, dtype=pl.Binary).cast(pl.String),
            "mainstay_outcome": pl.Series(decided.outcomes, dtype=pl.Binary).cast(pl.String),
            "mainstay_confidence": [None if each == NULL else float(each) for each in decided.confidences],
            "mainstay_reasons": _reasons(decided.reasons),
            "mainstay_version": [versions[canary] for canary in decided.canary],
            "mainstay_leaf": hashes,
        }
        made = [
            column.alias(name)
            if isinstance(column := columns[name], pl.Series)
            else pl.Series(name, column, dtype=kind)
            for name, kind in _OURS.items()
        ]
        records = self._decode_lines(b"\n".join(decided.outputs))
        outputs: Any = zip(*(_values(record, len(self._nodes)) for record in records), strict=True)
        for (name, node), values in zip(self._nodes, outputs, strict=True):
            read = [column_value(node, value) for value in values]
            made.append(pl.Series(name, read, dtype=record_type(node)))
        return pl.DataFrame(made)


def _reasons(given: list[bytes]) -> pl.Series:
    if all(each is NOTHING for each in given):  # a list of nothing is dear to make, and cheap to repeat
        return pl.Series([[]], dtype=_REASONS).new_from_index(0, len(given))
    return pl.Series(given, dtype=pl.Binary).cast(pl.String).str.json_decode(_REASONS)


def _values(record: msgspec.Struct | None, width: int) -> tuple[Any, ...]:
    return (None,) * width if record is None else msgspec.structs.astuple(record)


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
