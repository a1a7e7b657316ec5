"""Batches as they are asked for: which rows, by what is in production, to where; a new run, or one that goes on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from mainstay.batch.deciding import Task, find_release
from mainstay.batch.engines import open_engine
from mainstay.batch.inputs import open_files
from mainstay.batch.lake_input import LakeInput
from mainstay.batch.outputs import FileOutput, FolderOutput, kind_of
from mainstay.batch.recording import Writer
from mainstay.batch.run_lineage import telling
from mainstay.batch.running import Asker, Work
from mainstay.batch.state import LOCK, Memory, folder_of, new_run
from mainstay.batch.types import START, Place
from mainstay.catalog.releases import read_current
from mainstay.contract.rules import compile_fields
from mainstay.errors import Misuse
from mainstay.intake.door_tables import place_of
from mainstay.intake.types import DOOR_WRITER
from mainstay.lake.lake import open_lake
from mainstay.locks import locked
from mainstay.signing import load_verifier

if TYPE_CHECKING:
    from collections.abc import Callable

    from mainstay.batch.inputs import Input
    from mainstay.batch.outputs import Output
    from mainstay.batch.state import Run
    from mainstay.batch.types import Summary
    from mainstay.decision.plan import ReleasePlan
    from mainstay.workspace import Workspace

LAKE: Final = "lake:"

_LOCK_SECONDS: Final = 2.0


class Asked(NamedTuple):
    """What somebody asks for."""

    name: str  # of the capability
    source: str  # a file, a folder, or `lake:` and a table
    output: Path
    key: str | None = None  # the field that holds the business key
    version: int | None = None  # of a table; None: the newest
    since: int | None = None  # of a table: only rows that came after this version; None: all
    engine: str = "local"
    workers: int = 1
    new: bool = False  # whether to begin anew, whatever was begun or finished


class Reached(NamedTuple):
    """How far a run has come."""

    share: float
    summary: Summary


def run_batch(
    workspace: Workspace, asked: Asked, token: str, told: Callable[[Reached], None] = lambda _: None
) -> tuple[Summary, bool]:
    """Decide a table; the summary, and whether anything was to be done. `told` is called after each step.

    Called again after any end, it goes on where it stopped. Raises Misuse when the key may not decide, when what was
    begun was another batch, or when the output is somebody else's; Failed when something cannot be read or recorded.
    """
    release_number = read_current(workspace.releases, asked.name, load_verifier(workspace.keys)).number
    release = find_release(workspace, asked.name, release_number)
    asker = Asker(workspace, release, token)
    given, since = _open_input(workspace, asked, release)
    output = asked.output.absolute()
    memory = Memory(folder_of(workspace.data, asked.name, str(output)))
    with locked(memory.folder / LOCK, timeout_seconds=_LOCK_SECONDS):
        wanted = new_run(
            capability=asked.name,
            release=release_number,
            version=release.production.digest,
            parts=given.parts(),
            since=since,
            key=asked.key,
            output=str(output),
            kind=kind_of(output),
            principal=asker.principal,
        )
        run, finished = _begin_or_go_on(memory, wanted, output, new=asked.new)
        if finished is not None:
            return finished, False
        writer = Writer(release, asker.principal, in_table=asked.source.startswith(LAKE))
        work = Work(workspace, run, memory, _open_output(run, memory, writer), writer)
        work.heal()
        task = Task(workspace.root, run.capability, run.release, asker.principal, run.batch, run.key)
        engine = open_engine(asked.engine, task, asked.workers)
        with telling(workspace, run, asked.source) as decided:
            try:
                work.go_on(given, engine, asker.held, lambda: told(Reached(given.share(), work.summary())))
            finally:
                engine.close()
            summary = work.finish()
            decided(summary.rows)
        return summary, True


def _open_input(workspace: Workspace, asked: Asked, release: ReleasePlan) -> tuple[Input, Place]:
    if not asked.source.startswith(LAKE):
        if asked.version is not None or asked.since is not None:
            raise Misuse(f"--version and --since are for tables of the lake, and {asked.source} is none")
        declared = release.production.declared
        nodes = dict(compile_fields(declared.input.properties, (), 1))
        return open_files(Path(asked.source), nodes), START
    table = open_lake(workspace).table(asked.source.removeprefix(LAKE))
    fields = [each.name for each in release.production.declared.input.properties]
    since = START
    if asked.since is not None:
        table.frame(version=asked.since)  # raises Misuse where there is none
        found = next((each for each in table.history(2**31) if each.version == asked.since), None)
        reached = None if found is None else found.writers.get(DOOR_WRITER)
        since = START if reached is None else Place(*place_of(reached))
    return LakeInput(table, fields, asked.version, key=asked.key), since


def _begin_or_go_on(memory: Memory, wanted: Run, output: Path, *, new: bool) -> tuple[Run, Summary | None]:
    """The run to work on, and its summary if it is finished. Raises Misuse when another stands in the way."""
    begun = None if new else memory.run()
    if begun is None:
        _clear_way(memory, output, new=new)
        memory.begin(wanted)
        return wanted, None
    finished = memory.finished()
    changed = begun.differences(wanted)
    if changed:
        state = "holds the decisions of another run" if finished is not None else "is being made by another run"
        raise Misuse(
            f"{output} {state}: something has changed since it began at {begun.began_at}\n" + "\n".join(changed),
            hint="Name another output, or decide all rows anew with `--new`.",
        )
    if finished is not None and not output.exists():
        raise Misuse(
            f"{output}: it was finished, and is gone",
            hint="Its decisions are in the ledger. To decide all rows anew, say `--new`.",
        )
    return begun, finished


def _clear_way(memory: Memory, output: Path, *, new: bool) -> None:
    """Make room for a run's output: only that of an earlier run of ours is in the way and may be removed."""
    ours = memory.run() is not None
    if not output.exists():
        return
    if output.is_dir():
        found = sorted(output.iterdir())
        parts = [path for path in found if path.match("part-*.parquet") or path.match(".part-*.parquet")]
        if found and not (new and ours and len(parts) == len(found)):
            raise Misuse(f"{output}: expected an empty folder or none, found {found[0].name} in it")
        for path in parts:
            path.unlink()
    elif not (new and ours):
        raise Misuse(f"{output} is there already, and no batch of {memory.folder.name.rpartition('-')[0]} made it")
    else:
        output.unlink()


def _open_output(run: Run, memory: Memory, writer: Writer) -> Output:
    path = Path(run.output)
    if run.kind == "folder":
        return FolderOutput(path)
    return FileOutput(path, memory.parts, writer.schema.to_frame())
