"""Erasing the rows of a person, by the fields of a source that name one: for good, and with a receipt in the ledger.

0. Events that were pushed become items, and the files that workers kept them in go.
1. What is there is counted: accepted rows, also in snapshots; held rows, open or not; records in items that wait, and
   lines of files that the door rejected. The counts are put away with who asked and why, so that a receipt says all of
   it, however often somebody is killed.
2. It goes: those files are written again, rows leave their tables and every file of older versions, and what became of
   held rows goes with them. The digests of known keys are forgotten; the door makes them again from what is left.
3. It is looked for once more, the receipt is recorded, and what was put away goes.

All the while the door is shut and nobody settles held rows. Made again at any time, it finds what is left.
"""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import uuid4

import msgspec
import polars as pl
from msgspec.structs import replace

from mainstay.contract.tables_files import scratch_folder
from mainstay.errors import NOT_READ, Damaged, Failed
from mainstay.files import sync_directory, write_atomic
from mainstay.intake.adopting import ASIDE_SUFFIX, adopt_all
from mainstay.intake.door import KEYS, REJECTED
from mainstay.intake.door_columns import read_columns
from mainstay.intake.erasing_landing import erase_rejected, erase_waiting
from mainstay.intake.erasing_match import Sought, accepted_rows, held_rows
from mainstay.intake.landing import landing_of
from mainstay.intake.pushing import PUSHED
from mainstay.intake.quarantine_settling import Settler
from mainstay.intake.state import state_of
from mainstay.intake.types import DOOR_WRITER, ITEM, ROW, intake_table, item_of, quarantine_table, settled_table
from mainstay.lake import snapshots
from mainstay.lake.conditions import MAX_PARTS, MAX_VALUES, AllOf, AnyOf, OneOf
from mainstay.ledger.change import Change, record_change
from mainstay.ledger.log import Log
from mainstay.ledger.recent import find_change
from mainstay.privacy.pseudonym import Pseudonyms, load_pseudonym_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mainstay.intake.erasing_landing import Emptied
    from mainstay.lake.conditions import Condition
    from mainstay.lake.lake import Lake
    from mainstay.lake.tables import Table
    from mainstay.workspace import Workspace

ACTION: Final = "intake.erased"
LEAVE_SECONDS: Final = 30.0  # a worker leaves its file of pushed events within a second or two
LOCK_SECONDS: Final = 90.0  # a run over a source lets go after a minute

_PLACE: Final = [ITEM, ROW]
# Erased by whoever is done: files go too that somebody left who was killed between the rows and their files.
_NO_ROW: Final = OneOf(ITEM, (-1,))


class Found(NamedTuple):
    """What there is of a person in one source."""

    accepted: pl.DataFrame  # the item and row of each, those in snapshots only too
    held: pl.DataFrame
    waiting: list[Emptied]
    rejected: int  # lines of files that the door rejected
    unread: tuple[str, ...]  # files that were put aside and cannot be searched: to be looked at
    elsewhere: dict[str, int]  # held rows with the value in another field, by that field: to be looked at
    under_way: bool  # whether somebody was killed in erasing it: a receipt is due, though nothing may be left

    @property
    def records(self) -> int:
        """How many records are to go."""
        return self.accepted.height + self.held.height + sum(each.records for each in self.waiting) + self.rejected


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """An erasure that is under way, as it is put away and as its receipt has it. No value of a field is in it."""

    mark: str
    source: str
    fields: dict[str, str]  # the pseudonym of each value
    asked_at: datetime
    by: str
    reason: str
    since: int  # entries in the log before a receipt can have been recorded
    up_to: int  # the newest item then: what is found in later ones has come since
    accepted: int = 0
    held: int = 0
    waiting: int = 0
    rejected: int = 0


class Gone(NamedTuple):
    """What went, and the receipt that says so."""

    source: str
    accepted: int
    held: int
    waiting: int
    rejected: int
    receipt: str


class SourceErasure:
    """Erases rows of one source."""

    def __init__(self, workspace: Workspace, lake: Lake, capability: str, source: str) -> None:
        self._workspace = workspace
        self._lake = lake
        self._capability = capability
        self._source = source
        self._landing = landing_of(workspace.data, capability, source)
        self._settler = Settler(workspace, lake, capability, source)

    def find(self, sought: Sought, known: frozenset[str]) -> Found:
        """What there is now. `known` are the fields of the contract that the source is held against, if any are."""
        accepted = self._accepted(sought)
        quarantine = self._lake.find(quarantine_table(self._capability, self._source))
        found = None if quarantine is None else held_rows(quarantine, sought)
        waiting = erase_waiting(self._landing, sought, under_way=None, known=known, dry_run=True)
        home = self._landing.folder.parent
        rejected, unread = erase_rejected(home / REJECTED, sought, dry_run=True)
        aside = tuple(map(str, sorted((home / PUSHED).glob(f"*{ASIDE_SUFFIX}"))))
        return Found(
            accepted=accepted,
            held=accepted.clear() if found is None else found.rows,
            waiting=waiting,
            rejected=rejected,
            unread=(*unread, *aside),
            elsewhere={} if found is None else dict(found.elsewhere),
            under_way=self._read(pseudonyms_of(self._workspace, sought)) is not None,
        )

    def _accepted(self, sought: Sought) -> pl.DataFrame:
        """In the table, and in snapshots of it: they may hold rows that have left it."""
        found = []
        for table, given in self._accepted_tables():
            found.append(accepted_rows(table, sought, given).select(pl.all().cast(pl.Int64)))
        empty = pl.DataFrame(schema={ITEM: pl.Int64, ROW: pl.Int64})
        return pl.concat([empty, *found]).unique().sort(_PLACE)

    def _accepted_tables(self) -> Iterator[tuple[Table, dict[str, str]]]:
        name = intake_table(self._capability, self._source)
        table = self._lake.find(name)
        if table is None:
            return
        given = read_columns(table.properties)
        yield table, given
        for each in self._lake.names(snapshots.PREFIX):
            copy = self._lake.table(each)
            if copy.properties.get(snapshots.SOURCE) == name:
                yield copy, given

    def carry_out(
        self,
        sought: Sought,
        known: frozenset[str],
        *,
        reason: str,
        by: str,
        progress: Callable[[str], None] = lambda _: None,
    ) -> Gone | None:
        """Erase what there is; None where there is nothing, and nobody was killed in erasing it before.

        `progress` is told what begins. Raises Failed when somebody works on the source for longer than LOCK_SECONDS,
        and OSError when the disk takes no more: made again, it goes on.
        """
        with self._alone():
            self._settler.finish()
            adopt_all(self._capability, self._source, self._landing, self._settler.cursor(), wait_seconds=LEAVE_SECONDS)
            with scratch_folder(self._landing.folder.parent):
                pass  # copies go that were made by whoever was killed in trying held rows
            progress("looking")
            found = self.find(sought, known)
            asked = self._asked(sought, found, reason, by)
            if asked is None:
                return None
            write_atomic(self._path(asked.fields), msgspec.json.encode(asked))
            progress("erasing")
            self._erase(sought, known, found)
            progress("looking again")
            left = self.find(sought, known)
            if left.records:
                raise Failed(
                    f"{self._capability} {self._source}: expected nothing to be left, found {left.records:,} records",
                    hint="Do it again; what it found before is gone.",
                )
            receipt = self._record(asked)
            self._path(asked.fields).unlink()
            sync_directory(self._path(asked.fields).parent)
            return Gone(self._source, asked.accepted, asked.held, asked.waiting, asked.rejected, receipt)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        state = state_of(self._workspace.data, self._capability, self._source)
        with state.running(timeout_seconds=LOCK_SECONDS), self._settler.alone():
            yield

    # 1. What is asked for.

    def _asked(self, sought: Sought, found: Found, reason: str, by: str) -> Asked | None:
        fields = pseudonyms_of(self._workspace, sought)
        before = self._read(fields)
        if before is None and not found.records:
            return None
        if before is None:
            before = Asked(
                mark=uuid4().hex,
                source=self._source,
                fields=fields,
                asked_at=datetime.now(UTC),
                by=by,
                reason=reason,
                since=Log(self._workspace.ledger).size,
                up_to=-1,
            )
        waiting = [each.records for each in found.waiting if each.item > before.up_to]
        return replace(
            before,
            up_to=max([before.up_to, self._reached(), *(item.number for item in self._landing.waiting())]),
            accepted=before.accepted + found.accepted.filter(pl.col(ITEM) > before.up_to).height,
            held=before.held + found.held.filter(pl.col(ITEM) > before.up_to).height,
            waiting=before.waiting + sum(waiting),
            rejected=max(before.rejected, found.rejected),
        )

    def _read(self, fields: dict[str, str]) -> Asked | None:
        path = self._path(fields)
        try:
            return msgspec.json.decode(path.read_bytes(), type=Asked)
        except FileNotFoundError:
            return None
        except NOT_READ as error:
            raise Damaged(f"{path}: expected an erasure that is under way, found: {error}") from None

    def _path(self, fields: dict[str, str]) -> Path:
        name = sha256(msgspec.json.encode(fields, order="deterministic")).hexdigest()[:32]
        return self._landing.folder.parent / f"erasing-{name}.json"

    def _reached(self) -> int:
        """The item that the door has come to; -1 where there is no table."""
        return max(map(item_of, self._positions().values()), default=-1)

    def _positions(self) -> dict[str, int]:
        names = (intake_table(self._capability, self._source), quarantine_table(self._capability, self._source))
        tables = {name: self._lake.find(name) for name in names}
        return {
            name: position
            for name, table in tables.items()
            if table is not None and (position := table.position(DOOR_WRITER)) is not None
        }

    # 2. What goes.

    def _erase(self, sought: Sought, known: frozenset[str], found: Found) -> None:
        erase_waiting(self._landing, sought, under_way=self._under_way(), known=known, dry_run=False)
        erase_rejected(self._landing.folder.parent / REJECTED, sought, dry_run=False)
        for name, rows in (
            (intake_table(self._capability, self._source), found.accepted),
            (quarantine_table(self._capability, self._source), found.held),
        ):
            if self._lake.find(name) is not None:
                for condition in [*_conditions(rows), _NO_ROW]:
                    snapshots.erase(self._lake, name, condition)
        # Only now: a row that is held, and of which nothing says that it was settled, might be replayed a second time.
        self._erase_orphans()
        shutil.rmtree(self._landing.folder.parent / KEYS, ignore_errors=True)

    def _under_way(self) -> int | None:
        """The item of which the door has taken some rows. Its rows keep their numbers."""
        return self._reached() if self._positions() else None

    def _erase_orphans(self) -> None:
        """What became of rows that are held no more."""
        settled = self._lake.find(settled_table(self._capability, self._source))
        held = self._lake.find(quarantine_table(self._capability, self._source))
        if settled is None or held is None:
            return
        orphans = settled.frame().select(_PLACE).join(held.frame().select(_PLACE), on=_PLACE, how="anti")
        for condition in [*_conditions(orphans.collect(engine="streaming")), _NO_ROW]:
            settled.erase(condition)

    # 3. The receipt.

    def _record(self, asked: Asked) -> str:
        ledger = self._workspace.ledger
        known = find_change(ledger, ACTION, asked.mark, since=asked.since)
        if known is not None:
            return known
        details: dict[str, Any] = msgspec.to_builtins(asked)
        for name in ("since", "by", "reason"):
            del details[name]
        change = Change(
            action=ACTION, subject=self._capability, principal=asked.by, reason=asked.reason, details=details
        )
        return record_change(ledger, change)


def pseudonyms_of(workspace: Workspace, sought: Sought) -> dict[str, str]:
    """The fields that were named, each with the pseudonym of its value: what may be kept of a request."""
    pseudonyms = Pseudonyms(load_pseudonym_key(workspace.keys))
    return {path: str(pseudonyms.of_field(path)(value)) for path, value in sought.fields}


def _conditions(rows: pl.DataFrame) -> Iterator[Condition]:
    """Conditions that together mean these rows."""
    parts: list[Condition] = []
    values = 0
    for (item,), found in rows.sort(_PLACE).group_by(ITEM, maintain_order=True):
        numbers = found[ROW].to_list()
        for at in range(0, len(numbers), MAX_VALUES):
            some = tuple(numbers[at : at + MAX_VALUES])
            if len(parts) == MAX_PARTS or values + len(some) > MAX_VALUES:
                yield AnyOf(tuple(parts))
                parts.clear()
                values = 0
            parts.append(AllOf((OneOf(ITEM, (int(str(item)),)), OneOf(ROW, some))))
            values += len(some)
    if parts:
        yield AnyOf(tuple(parts))
