"""Batches on a schedule: what a source took in since the last time, decided into a table of the lake.

    python -m mainstay.batch.scheduled WORKSPACE

It is a process of its own so that nothing it does, or dies of, delays serving or sealing. It ends when its standard
input does. How far a batch has come stands in the last commit of its table, `batches/<capability>/<name>`: the item and
the row of the source's table that were decided last. A row that came late and is to be decided again stands in that
table as a new row, and is decided as one.
"""

from __future__ import annotations

import logging
from time import time
from typing import TYPE_CHECKING, Final

from mainstay.batch.deciding import Task, find_release
from mainstay.batch.engines import Here
from mainstay.batch.lake_input import LakeInput
from mainstay.batch.outputs import WRITER, TableOutput
from mainstay.batch.recording import Writer
from mainstay.batch.run_lineage import LAKE, telling
from mainstay.batch.running import Asker, Work
from mainstay.batch.state import LOCK, Memory, new_run
from mainstay.batch.types import START, Place
from mainstay.catalog.declared import declared_in_production
from mainstay.catalog.releases import capabilities_with_releases, read_current, signature_of
from mainstay.decision.record import SCHEDULE
from mainstay.errors import MainstayError, Misuse
from mainstay.intake.types import intake_table
from mainstay.lake.decision_rows import BATCHES, INTAKE_DAY
from mainstay.lake.exporting import open_digests
from mainstay.lake.lake import open_lake
from mainstay.locks import locked
from mainstay.processes import begin_beside
from mainstay.signing import load_verifier

if TYPE_CHECKING:
    from collections.abc import Callable

    from mainstay.batch.types import Summary
    from mainstay.capability.sources import ScheduledBatch
    from mainstay.lake.tables import Table
    from mainstay.workspace import Workspace

logger = logging.getLogger("mainstay.batch")

LOOK_SECONDS: Final = 1.0  # how often it is looked whether a batch is due
RETRY_SECONDS: Final = 30.0  # after a failure
_LOCK_SECONDS: Final = 2.0
_NICE: Final = 5  # serving and sealing come first


def table_name(capability: str, batch: str) -> str:
    """The table that a scheduled batch puts out to."""
    return f"{BATCHES}{capability}/{batch}"


def run_scheduled(
    workspace: Workspace, capability: str, name: str, told: Callable[[], None] = lambda: None
) -> Summary | None:
    """Decide what the source took in since the last time; None when there is nothing new.

    Raises Misuse when nothing of that name is declared by what is in production, or the source has no table yet.
    """
    current = read_current(workspace.releases, capability, load_verifier(workspace.keys))
    _, declared = declared_in_production(workspace, capability, load_verifier(workspace.keys))
    batch = _batch(declared.capability.batches, capability, name)
    lake = open_lake(workspace)
    source = lake.find(intake_table(capability, batch.source))
    if source is None:
        raise Misuse(f"{capability}: source {batch.source} has taken nothing in yet")
    memory = Memory(workspace.data / "batch" / f"{capability}-scheduled-{name}")
    with locked(memory.folder / LOCK, timeout_seconds=_LOCK_SECONDS):
        given = LakeInput(source, [each.name for each in declared.input.properties], key=batch.key)
        table = lake.find(table_name(capability, name))
        if table is not None and not _is_open(memory) and not given.rows_behind(_reached(table)):
            return None
        release = find_release(workspace, capability, current.number)
        writer = Writer(release, SCHEDULE, in_table=True, digests=open_digests(workspace))
        if table is None:
            table = lake.create(table_name(capability, name), writer.schema, partition_by=[INTAKE_DAY])
        table.evolve(writer.schema)
        _heal(workspace, memory, table, writer)
        run = new_run(
            capability=capability,
            release=current.number,
            version=release.production.digest,
            parts=given.parts(),
            since=_reached(table),
            key=batch.key,
            output=table.name,
            kind="lake",
            principal=SCHEDULE,
            position=table.position(WRITER) or 0,
        )
        memory.begin(run)
        work = Work(workspace, run, memory, TableOutput(table, memory.parts, run.position + 1), writer)
        asker = Asker(workspace, release, None)
        engine = Here(Task(workspace.root, capability, run.release, SCHEDULE, run.batch, run.key))
        with telling(workspace, run, f"{LAKE}{source.name}", name) as decided:
            try:
                work.go_on(given, engine, asker.held, told)
            finally:
                engine.close()
            summary = work.finish()
            decided(summary.rows)
        return summary if summary.rows else None


def _is_open(memory: Memory) -> bool:
    """Whether a run was begun here and has not come to its end."""
    return memory.run() is not None and memory.finished() is None


def _heal(workspace: Workspace, memory: Memory, table: Table, writer: Writer) -> None:
    """Bring what an earlier run was killed in to its end. The next begins behind it."""
    run = memory.run()
    if run is not None and _is_open(memory):
        Work(workspace, run, memory, TableOutput(table, memory.parts, run.position + 1), writer).heal()
        table.refresh()


def _reached(table: Table) -> Place:
    cursor = table.cursor(WRITER)
    return START if cursor is None else Place(int(cursor["part"]), int(cursor["row"]))


def _batch(batches: tuple[ScheduledBatch, ...], capability: str, name: str) -> ScheduledBatch:
    for each in batches:
        if each.name == name:
            return each
    known = ", ".join(each.name for each in batches) or "none"
    raise Misuse(f"{capability}: expected one of its scheduled batches, found {name!r}", hint=f"It declares: {known}.")


# The process.


class Schedule:
    """What is due when, over all capabilities in production."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._next: dict[tuple[str, str], float] = {}
        self._complaints: dict[tuple[str, str], str] = {}
        self._seen: object = None
        self._batches: list[tuple[str, ScheduledBatch]] = []

    def run_due(self, now: float, stop: Callable[[], bool]) -> None:
        """Make every batch that is due. A problem is logged when it begins and when it has passed, and tried again."""
        for capability, declared in self._declared():
            place = (capability, declared.name)
            if stop():
                return
            if place not in self._next:
                self._next[place] = self._first(capability, declared)
            if now < self._next[place]:
                continue
            found = ""
            try:
                summary = run_scheduled(self._workspace, capability, declared.name)
                if summary is not None:
                    logger.info(
                        "batch %s of %s: rows=%d outcomes=%s", declared.name, capability, summary.rows, summary.outcomes
                    )
            except (MainstayError, OSError) as error:
                found = str(error)
            wait = min(declared.every_seconds, RETRY_SECONDS) if found else declared.every_seconds
            self._next[place] = now + wait
            self._tell(place, found)

    def _tell(self, place: tuple[str, str], found: str) -> None:
        if found == self._complaints.get(place, ""):
            return
        self._complaints[place] = found
        if found:
            logger.error("batch %s of %s: %s", place[1], place[0], found)
        else:
            logger.info("batch %s of %s is made again", place[1], place[0])

    def _declared(self) -> list[tuple[str, ScheduledBatch]]:
        """The batches of all that is in production; read again when a release has changed."""
        seen = signature_of(self._workspace.releases)
        if seen == self._seen:
            return self._batches
        self._batches, self._seen = [], seen
        verifier = load_verifier(self._workspace.keys)
        for capability in capabilities_with_releases(self._workspace.releases):
            try:
                _, declared = declared_in_production(self._workspace, capability, verifier)
            except (MainstayError, OSError) as error:
                self._tell((capability, "*"), str(error))
                continue
            self._batches += [(capability, each) for each in declared.capability.batches]
        return self._batches

    def _first(self, capability: str, declared: ScheduledBatch) -> float:
        """When a batch is due that this process has not made yet: so long after the last commit of its table."""
        try:
            table = open_lake(self._workspace).find(table_name(capability, declared.name))
            commits = table.history(1) if table is not None and table.position(WRITER) is not None else []
        except MainstayError:
            return 0.0  # it is tried, and says what is wrong
        return commits[0].at.timestamp() + declared.every_seconds if commits else 0.0


def main() -> None:
    """Make batches until standard input ends, or a signal says so."""
    workspace, stop = begin_beside("batch", niceness=_NICE)
    schedule = Schedule(workspace)
    while not stop.is_set():
        schedule.run_due(time(), stop.is_set)
        stop.wait(LOOK_SECONDS)


if __name__ == "__main__":
    main()
