from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from cyclopts import Parameter
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from mainstay.capability.words import Name
from mainstay.catalog.versions import load_manifest, stored_digests
from mainstay.cli.common import DEFAULT, Common, columns, err, out, print_json, record_change, require_sight
from mainstay.errors import MainstayError, Misuse
from mainstay.lake.lake import open_lake
from mainstay.lake.snapshots import export, open_snapshot, snapshot_names
from mainstay.lake.taking import take
from mainstay.lake.where import parse_where
from mainstay.lineage.emitting import Emitter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mainstay.lake.lake import Lake
    from mainstay.lake.snapshots import Snapshot
    from mainstay.workspace import Workspace

RECORDED = "mainstay.snapshot.entry"  # the property with the ledger's entry of its taking
SHORT_HASH = 12


def take_snapshot(
    name: str,
    table: str,
    /,
    *,
    where: Annotated[
        tuple[str, ...],
        Parameter(help="Only rows where COLUMN=VALUE, !=, >= or <; repeat for several that all hold.", negative=""),
    ] = (),
    version: Annotated[int | None, Parameter(help="Of the table; by default the newest.")] = None,
    reason: Annotated[str, Parameter(help="What it is for; recorded.")] = "",
    common: Common = DEFAULT,
) -> None:
    """Copy rows of a table under a name, with a digest: what a model is trained on.

    Example: mainstay snapshot take march intake/late-arrival/feed --where "mainstay_day<2026-04-01"

    Parameters
    ----------
    name
        What to call it: lower-case letters, digits, dashes and underscores.
    table
        The table, such as intake/late-arrival/feed.
    """
    workspace = common.open()
    lake = open_lake(workspace)
    _require_table(workspace, table)
    condition = parse_where(where, lake.table(table).schema)
    emitter = Emitter(workspace)
    try:
        with _busy(f"copying {table}"):
            snapshot = take(lake, name, table, version=version, where=condition, emitter=emitter)
    finally:
        emitter.close()
    if RECORDED not in snapshot.table.properties:  # else it was taken before
        entry = record_change(workspace, "snapshot.taken", name, reason, msgspec.to_builtins(snapshot.taken))
        snapshot.table.set_property(RECORDED, entry)
    if common.json:
        print_json(_facts(workspace, snapshot))
        return
    for line in _lines(_facts(workspace, snapshot)):
        out.print(line, markup=False)
    out.print(f"A version records it with `model: {{trained_on: {name}}}` in capability.yaml.")


def list_snapshots(*, common: Common = DEFAULT) -> None:
    """List every snapshot: of what, when, how many rows, and which versions were trained on it.

    Example: mainstay snapshot list
    """
    workspace = common.open()
    lake = open_lake(workspace)
    found, unfinished = [], []
    for name in snapshot_names(lake):
        try:
            found.append(_facts(workspace, open_snapshot(lake, name)))
        except Misuse:
            unfinished.append(name)
    if common.json:
        print_json({"snapshots": found, "unfinished": unfinished})
        return
    if not found and not unfinished:
        out.print("there is no snapshot")
    if found:
        rows = [["NAME", "ROWS", "TABLE", "VERSION", "TAKEN", "SHA-256", "TRAINED"]]
        rows += [_row(each) for each in found]
        for line in columns(rows):
            out.print(line, markup=False)
    for name in unfinished:
        out.print(f"{name}: begun and never finished; taking it again drops what was begun", markup=False)


def verify_snapshot(
    name: Annotated[str | None, Parameter(help="One snapshot; by default all.")] = None,
    /,
    *,
    common: Common = DEFAULT,
) -> int:
    """Read snapshots again: are their rows those that were taken, byte by byte?

    Example: mainstay snapshot verify march
    """
    lake = open_lake(common.open())
    if name is not None:
        open_snapshot(lake, name)  # one that was named is to be there
    found: dict[str, str] = {}
    for each in [name] if name is not None else snapshot_names(lake):
        with _busy(f"reading {each}"):
            found[each] = _problem(lake, each)
    holds = not any(found.values())
    if common.json:
        each_of_them = [{"snapshot": each, "holds": not problem, "problem": problem} for each, problem in found.items()]
        print_json({"ok": holds, "snapshots": each_of_them})
    else:
        for each, problem in found.items():
            out.print(f"FAIL  {problem}" if problem else f"OK    {each}", markup=False)
        if not found:
            out.print("there is no snapshot")
    return 0 if holds else 1


def export_snapshot(
    name: str,
    directory: Path,
    /,
    *,
    form: Annotated[Literal["parquet", "jsonl"], Parameter(name="--format", help="Of the files.")] = "parquet",
    common: Common = DEFAULT,
) -> None:
    """Write a snapshot to files, in order, with its document beside them.

    Example: mainstay snapshot export march training/march

    Parameters
    ----------
    name
        The snapshot.
    directory
        Where to; it must not exist.
    """
    workspace = common.open()
    snapshot = open_snapshot(open_lake(workspace), name)
    _require_table(workspace, snapshot.taken.table)
    with _busy(f"writing {name}"):
        files = export(snapshot, directory, form)
    if common.json:
        print_json({"snapshot": name, "directory": str(directory), "files": [file.name for file in files]})
        return
    noun = "file" if len(files) == 1 else "files"
    out.print(f"{name}: {snapshot.rows:,} rows in {len(files):,} {noun} in {directory}", markup=False)


@contextmanager
def _busy(what: str) -> Iterator[None]:
    with Progress(
        SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=err, transient=True
    ) as bar:
        bar.add_task(what, total=None)
        yield


def _require_table(workspace: Workspace, table: str) -> None:
    """Raises Misuse unless whoever runs this may see decisions of the capability that a table is about."""
    parts = table.split("/")
    if len(parts) > 1:
        try:
            capability = msgspec.convert(parts[1], Name)
        except msgspec.ValidationError:
            return
        require_sight(workspace, capability)


def _problem(lake: Lake, name: str) -> str:
    """Why a snapshot is not as it was taken; empty when it is."""
    try:
        open_snapshot(lake, name).verify()
    except MainstayError as error:
        return error.message
    return ""


def _facts(workspace: Workspace, snapshot: Snapshot) -> dict[str, Any]:
    versions = []
    for digest in stored_digests(workspace.versions):
        manifest = load_manifest(workspace.versions, digest)
        if manifest.trained_on is not None and manifest.trained_on.snapshot == snapshot.name:
            versions.append({"capability": manifest.capability, "version": digest})
    return {
        **msgspec.to_builtins(snapshot.taken),
        "losses": msgspec.to_builtins(snapshot.losses),
        "trained": versions,
    }


def _row(facts: dict[str, Any]) -> list[str]:
    rows = facts["losses"][-1]["rows"] if facts["losses"] else facts["rows"]
    lost = f" ({facts['rows'] - rows:,} erased)" if facts["losses"] else ""
    digest = facts["losses"][-1]["sha256"] if facts["losses"] else facts["sha256"]
    return [
        facts["name"],
        f"{rows:,}{lost}",
        facts["table"],
        str(facts["version"]),
        facts["taken_at"],
        digest[:SHORT_HASH],
        str(len(facts["trained"])) + (" version" if len(facts["trained"]) == 1 else " versions"),
    ]


def _lines(facts: dict[str, Any]) -> list[str]:
    where = f", where {facts['where']}" if facts["where"] else ""
    return [
        f"{facts['name']}: {facts['rows']:,} rows of {facts['table']} at version {facts['version']}{where}",
        f"SHA-256 {facts['sha256']}",
    ]
