"""Settling held rows: replaying them as a new item of the landing, or discarding them. Each row once, and on record.

1. Which rows are meant, and for a replay their bytes as they came, are written to a folder of the source's own; then
   the intention, in one step. What was killed before that did nothing.
2. Replayed rows land: the item's manifest is made in that folder and leaves it when it lands, so that the folder says
   for good whether it did, even where the door has taken the item since.
3. The change is recorded in the ledger, unless an entry with the mark of this intention is there.
4. The rows are written into `settled/...`, a batch under each position, so that none is written twice.
5. The intention goes.

Whoever comes next finishes what somebody was killed in, before anything else. One process settles at a time.
"""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from hashlib import sha256
from io import BytesIO
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias
from uuid import uuid4

import msgspec
import polars as pl
from msgspec.structs import replace

from mainstay.errors import NOT_READ, Damaged
from mainstay.files import sync_directory, write_atomic
from mainstay.intake.landing import Item, landing_of
from mainstay.intake.quarantine import Chosen, Quarantine
from mainstay.intake.quarantine_items import ItemWriter
from mainstay.intake.quarantine_settled import WRITER, create_settled
from mainstay.intake.types import (
    DAY,
    DOOR_WRITER,
    HEADER,
    ITEM,
    KIND,
    RAW,
    REASON,
    REPLAY_OF,
    ROW,
    intake_table,
    item_of,
    quarantine_table,
)
from mainstay.ledger.change import Change, record_change
from mainstay.ledger.log import Log
from mainstay.ledger.recent import find_change
from mainstay.locks import locked

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path
    from typing import Any

    from mainstay.intake.landing import Landing
    from mainstay.lake.lake import Lake
    from mainstay.workspace import Workspace

LOCK_FILE: Final = "quarantine.lock"
FOLDER: Final = "settling"
BATCH_ROWS: Final = 100_000  # written into the table with one commit
LOCK_SECONDS: Final = 60.0

_INTENTION: Final = "intention.json"
_BATCH_BITS: Final = 20  # of a position; the rest is the number of the change
_SELECTING: Final = 0.7  # of the work, about

Outcome: TypeAlias = Literal["replayed", "discarded"]
ACTIONS: Final[dict[Outcome, str]] = {"replayed": "quarantine.replayed", "discarded": "quarantine.discarded"}


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """The replayed rows of one kind and header, which are an item."""

    kind: Literal["csv", "jsonl"]
    delimiter: str | None
    rows: int
    bytes: int
    origin: str
    item: int | None = None  # its number, once it is to land


class Intention(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done, and how far it has come."""

    mark: str  # of the change in the ledger
    number: int  # of the change among those of this source
    how: Outcome
    reason: str
    by: str
    at: datetime
    since: int  # entries in the log before anything was recorded
    chosen: dict[str, list[str]]  # as it was asked for
    rows: int
    skipped: int  # meant, and never to be read by the door: they stay open
    sha256: str  # of the rows, as `item:row` and a line break each, in their order
    batches: int
    parts: tuple[Part, ...]


class Done(NamedTuple):
    """What became of it."""

    how: Outcome
    rows: int
    skipped: int  # open rows that were meant, and cannot be read as records: a replay leaves them
    items: tuple[int, ...]  # that the rows are in now
    entry: str  # of the ledger
    sha256: str


class Settler:
    """Settles held rows of one source, on somebody's word."""

    def __init__(self, workspace: Workspace, lake: Lake, capability: str, source: str) -> None:
        self._ledger = workspace.ledger
        self._lake = lake
        self._capability = capability
        self._source = source
        self._landing: Landing = landing_of(workspace.data, capability, source)
        self._lock = self._landing.folder.parent / LOCK_FILE
        self._folder = self._landing.folder.parent / FOLDER

    def alone(self) -> AbstractContextManager[None]:
        """Held by whoever settles rows of the source, or erases some. Raises Failed when another process does."""
        return locked(self._lock, timeout_seconds=LOCK_SECONDS)

    def settle(
        self,
        how: Outcome,
        chosen: Chosen,
        *,
        reason: str,
        by: str,
        progress: Callable[[float], None] = lambda _: None,
    ) -> Done | None:
        """Replay or discard the open rows that are meant; None where there is none that can be.

        `progress` is told the share that is done. Raises Misuse when nothing of the source was ever held, Failed when
        another process settles rows of it, and OSError when the disk takes no more: the next one finishes what was
        intended, if it was.
        """
        with self.alone():
            self.finish()
            intention = self._intend(how, chosen, reason, by, lambda share: progress(share * _SELECTING))
            if not intention.rows:
                shutil.rmtree(self._folder)
                return None
            write_atomic(self._folder / _INTENTION, msgspec.json.encode(intention))
            return self._carry_out(intention, lambda share: progress(_SELECTING + share * (1 - _SELECTING)))

    def finish(self) -> Done | None:
        """Finish what somebody was killed in. To be called by who holds `alone`."""
        intention = self.intended()
        if intention is None:
            shutil.rmtree(self._folder, ignore_errors=True)
            return None
        return self._carry_out(intention, lambda _: None)

    def intended(self) -> Intention | None:
        """What is under way, or was when somebody was killed."""
        path = self._folder / _INTENTION
        try:
            return msgspec.json.decode(path.read_bytes(), type=Intention)
        except FileNotFoundError:
            return None
        except NOT_READ as error:
            raise Damaged(f"{path}: expected what is to become of held rows, found: {error}") from None

    # 1. What is meant.

    def _intend(
        self, how: Outcome, chosen: Chosen, reason: str, by: str, progress: Callable[[float], None]
    ) -> Intention:
        self._folder.mkdir(mode=0o700, parents=True)
        selection = _Selection(self._folder, replaying=how == "replayed")
        quarantine = Quarantine(self._lake, self._capability, self._source)
        total = max(quarantine.open_rows(), 1)
        seen = 0

        def told(rows: int) -> None:
            nonlocal seen
            seen += rows
            progress(min(seen / total, 1.0))

        for rows in quarantine.chunks(chosen, selection.columns, told):
            selection.add(rows)
        parts = selection.finish()
        reached = create_settled(self._lake, self._capability, self._source).position(WRITER) or 0
        return Intention(
            mark=uuid4().hex,
            number=(reached >> _BATCH_BITS) + 1,
            how=how,
            reason=reason,
            by=by,
            at=datetime.now(UTC),
            since=Log(self._ledger).size,
            chosen=chosen.described(),
            rows=selection.rows,
            skipped=selection.skipped,
            sha256=selection.digest.hexdigest(),
            batches=selection.batches,
            parts=parts,
        )

    def _carry_out(self, intention: Intention, progress: Callable[[float], None]) -> Done:
        for index in range(len(intention.parts)):
            intention = self._land(intention, index)
        entry = self._record(intention)
        self._write_settled(intention, entry, progress)
        (self._folder / _INTENTION).unlink()
        sync_directory(self._folder)
        shutil.rmtree(self._folder)
        items = tuple(part.item for part in intention.parts if part.item is not None)
        return Done(intention.how, intention.rows, intention.skipped, items, entry, intention.sha256)

    # 2. The items.

    def _land(self, intention: Intention, index: int) -> Intention:
        part = intention.parts[index]
        manifest = self._folder / f"manifest-{index}.json"
        if part.item is not None and not manifest.exists():
            return intention
        self._landing.reserve(max(item_of(self._stand(name)[0]) for name in self._tables()))
        with self._landing.numbering() as number:
            item = Item(
                number=number,
                kind=part.kind,
                origin=part.origin,
                arrived_at=datetime.now(UTC),
                bytes=part.bytes,
                cursor=self.cursor(),
                delimiter=part.delimiter,
                replayed=True,
            )
            write_atomic(manifest, msgspec.json.encode(item))  # first: without it, a part with a number has landed
            parts = list(intention.parts)
            parts[index] = replace(part, item=number)
            intention = replace(intention, parts=tuple(parts))
            write_atomic(self._folder / _INTENTION, msgspec.json.encode(intention))
            self._landing.place_prepared(item, _data_path(self._folder, index), manifest)
        return intention

    def _tables(self) -> tuple[str, str]:
        return intake_table(self._capability, self._source), quarantine_table(self._capability, self._source)

    def cursor(self) -> Any:
        """Where the source goes on: as before. Whoever asks holds the landing's numbering."""
        known = [item.cursor for item in self._landing.waiting() if item.cursor is not None]
        if known:
            return known[-1]
        return self._stand(self._tables()[0])[1]  # with the quarantine's commits the door says none

    def _stand(self, name: str) -> tuple[int, Any]:
        """How far the door has come in a table, and the cursor behind that."""
        table = self._lake.find(name)
        reached = None if table is None else table.position(DOOR_WRITER)
        if table is None or reached is None:
            return 0, None
        return reached, (table.cursor(DOOR_WRITER) or {}).get("cursor")

    # 3. The record.

    def _record(self, intention: Intention) -> str:
        action = ACTIONS[intention.how]
        known = find_change(self._ledger, action, intention.mark, since=intention.since)
        if known is not None:
            return known
        details = {
            "mark": intention.mark,
            "source": self._source,
            "chosen": intention.chosen,
            "rows": intention.rows,
            "rows_sha256": intention.sha256,
            "left_unreadable": intention.skipped,
            "into": [{"item": part.item, "rows": part.rows} for part in intention.parts],
        }
        change = Change(
            action=action,
            subject=self._capability,
            principal=intention.by,
            reason=intention.reason,
            details=details,
        )
        return record_change(self._ledger, change)

    # 4. The rows.

    def _write_settled(self, intention: Intention, entry: str, progress: Callable[[float], None]) -> None:
        table = create_settled(self._lake, self._capability, self._source)
        items = pl.Series("into_item", [part.item for part in intention.parts], dtype=pl.Int64)
        for batch in range(intention.batches):
            rows = pl.read_parquet(_batch_path(self._folder, batch)).with_columns(
                pl.lit(intention.how).alias("how"),
                pl.lit(intention.at).dt.cast_time_unit("us").alias("at"),
                pl.lit(intention.by).alias("by"),
                pl.lit(intention.reason).alias("reason"),
                pl.lit(entry).alias("entry"),
            )
            into = items.gather(rows["part"]) if len(items) else pl.Series("into_item", [None] * rows.height, pl.Int64)
            table.append(
                rows.drop("part").with_columns(into.alias("into_item")),
                writer=WRITER,
                position=(intention.number << _BATCH_BITS) | (batch + 1),
                metadata={"entry": entry, "rows": intention.rows},
            )
            progress((batch + 1) / intention.batches)


class _Selection:
    """The rows that are meant, as they are put away until they are settled."""

    def __init__(self, folder: Path, *, replaying: bool) -> None:
        self.columns = [ITEM, ROW, DAY, *([REASON, RAW, KIND, HEADER] if replaying else [])]
        self.rows = 0
        self.skipped = 0
        self.batches = 0
        self.digest = sha256()
        self._folder = folder
        self._items = ItemWriter(lambda index: _data_path(folder, index)) if replaying else None
        self._waiting: list[pl.DataFrame] = []

    def add(self, rows: pl.DataFrame) -> None:
        if self._items is not None:
            places = self._items.add(rows)
            rows = rows.select(ITEM, ROW, DAY).hstack(places)
            self.skipped += rows["part"].null_count()
            rows = rows.drop_nulls("part")
        else:
            none = pl.lit(None, dtype=pl.Int64)
            rows = rows.select(ITEM, ROW, DAY, none.alias("part"), none.alias("into_row"))
        self.rows += rows.height
        self.digest.update(b"".join(b"%d:%d\n" % place for place in rows.select(ITEM, ROW).iter_rows()))
        self._waiting.append(rows)
        if sum(each.height for each in self._waiting) >= BATCH_ROWS:
            self._put_away()

    def _put_away(self) -> None:
        rows = pl.concat(self._waiting) if self._waiting else pl.DataFrame()
        self._waiting.clear()
        if rows.height:
            content = BytesIO()
            rows.write_parquet(content)
            write_atomic(_batch_path(self._folder, self.batches), content.getvalue())
            self.batches += 1

    def finish(self) -> tuple[Part, ...]:
        """Everything is on disk when this returns."""
        self._put_away()
        written = [] if self._items is None else self._items.finish()
        sync_directory(self._folder)
        return tuple(
            Part(
                kind=each.kind,
                delimiter=each.delimiter,
                rows=each.rows,
                bytes=each.bytes,
                origin=f"{REPLAY_OF}{each.named}",
            )
            for each in written
        )


def _data_path(folder: Path, index: int) -> Path:
    """The bytes of a part."""
    return folder / f"data-{index}"


def _batch_path(folder: Path, batch: int) -> Path:
    """Which rows are settled with one commit."""
    return folder / f"rows-{batch}.parquet"
