"""Keeping the lake up with the ledger: the loop of a process of its own.

Nothing that it does, or dies of, delays sealing. It ends when its standard input does, and so with whoever started it,
however that ends.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import TYPE_CHECKING, Final, TypeAlias

from mainstay.errors import MainstayError
from mainstay.files import sync_directory
from mainstay.lake.decisions import Exporter
from mainstay.lake.lagging import Progress, save_progress
from mainstay.lake.lake import open_lake
from mainstay.lake.maintenance import Policy, maintain
from mainstay.ledger.index_key import load_index_key
from mainstay.lineage.emitting import Emitter
from mainstay.lineage.naming import described, own_dataset, table_dataset
from mainstay.processes import begin_beside

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from threading import Event

    from mainstay.lake.lake import Lake
    from mainstay.lake.tables import Table
    from mainstay.ledger.index_key import KeyDigests
    from mainstay.lineage.emitting import Run
    from mainstay.workspace import Settings, Workspace

    Also: TypeAlias = "Callable[[Workspace, Lake, Emitter], None]"

logger = logging.getLogger("mainstay.lake")

JOB: Final = "lake.export"
KEY_FOLDER: Final = "export"  # in the data directory: what the digests of business keys are made with
_NICE: Final = 5  # serving and sealing come first


def run_process(also: Sequence[Also] = ()) -> None:
    """Export the workspace that the command line names until standard input ends, or a signal says so.

    `also` is done in every round, behind the decisions.
    """
    workspace, stop = begin_beside("lake", niceness=_NICE)
    export_on(workspace, stop, also)


def export_on(workspace: Workspace, stop: Event, also: Sequence[Also] = ()) -> None:
    """Export every `lake_interval_seconds` and maintain every `lake_maintenance_seconds` until `stop` is set.

    A problem is logged when it begins and when it has passed, and tried again.
    """
    emitter = Emitter(workspace)
    rounds = _Rounds(workspace, emitter, also)
    try:
        while not stop.is_set():
            rounds.go(stop)
            stop.wait(workspace.settings.lake_interval_seconds)
    finally:
        emitter.close()


def open_digests(workspace: Workspace) -> KeyDigests:
    """What makes the digests of business keys in the tables; its key is made when there is none yet."""
    folder = workspace.data / KEY_FOLDER
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    sync_directory(folder.parent)
    return load_index_key(folder)


class _Rounds:
    """What is done again and again, and what the matter was the last time."""

    def __init__(self, workspace: Workspace, emitter: Emitter, also: Sequence[Also]) -> None:
        self._workspace = workspace
        self._emitter = emitter
        self._also = also
        self._lake = open_lake(workspace)
        self._exporter = Exporter(self._lake, workspace.ledger, open_digests(workspace), self._wrote)
        self._policy = policy_of(workspace.settings)
        self._run: Run | None = None
        self._reached = 0
        self._complaint = ""
        self._maintained_at = -workspace.settings.lake_maintenance_seconds

    def go(self, stop: Event) -> None:
        found = ""
        try:
            self._export(stop)
            for each in self._also:
                if not stop.is_set():
                    each(self._workspace, self._lake, self._emitter)
            if monotonic() - self._maintained_at >= self._workspace.settings.lake_maintenance_seconds:
                self._maintain(stop)
        except (MainstayError, OSError) as error:
            found = str(error)
        if found != self._complaint:
            logger.error("lake: %s", found) if found else logger.info("lake: exporting again")
            self._complaint = found
        now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        with suppress(OSError):  # it only says how far the tables are; they know it themselves
            save_progress(self._workspace, Progress(exported=self._reached, at=now, problem=found))

    def _export(self, stop: Event) -> None:
        ledger = own_dataset(self._workspace.settings.log, "ledger")
        with self._emitter.run(JOB, inputs=[ledger], only_if_moved=True) as self._run:
            done = self._exporter.catch_up(stop.is_set)
            self._reached = done.last
            if self._run.moved:
                self._run.read(ledger, rows=done.last - done.first)

    def _wrote(self, table: Table, rows: int) -> None:
        if self._run is not None:
            place = table_dataset(self._lake.location.root, table.name)
            columns = ((name, str(kind)) for name, kind in table.schema.items())
            self._run.wrote(described(place, columns, version=table.version), rows=rows)

    def _maintain(self, stop: Event) -> None:
        for done in maintain(self._lake, self._policy, datetime.now(UTC)):
            if done.problem:
                logger.warning("not maintained: table=%s: %s", done.table, done.problem)
            elif done.joined or done.dropped or done.removed:
                logger.info("maintained: table=%s joined=%d dropped=%d removed=%d", *done[:4])
            if stop.is_set():
                return
        self._maintained_at = monotonic()


def policy_of(settings: Settings) -> Policy:
    """What the settings of a workspace ask of its tables."""
    days = settings.lake_rows_days
    return Policy(timedelta(days=settings.lake_versions_days), timedelta(days=days) if days else None)
