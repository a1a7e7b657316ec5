"""What a batch says of itself to others: which rows it read, by which version, and where its decisions went."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mainstay.lake.lake import open_lake
from mainstay.lineage.emitting import Emitter
from mainstay.lineage.naming import file_dataset, own_dataset, table_dataset

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mainstay.batch.state import Run
    from mainstay.lineage.naming import Dataset
    from mainstay.workspace import Workspace

JOB: Final = "batch"
LAKE: Final = "lake:"


@contextmanager
def telling(workspace: Workspace, run: Run, source: str, name: str = "") -> Iterator[Callable[[int], None]]:
    """Say that a batch begins and how it ends; what is given is told how many rows it has decided.

    `source` is a path, or `lake:` and a table; `name` that of a scheduled batch.
    """
    read, wrote = (
        _dataset(workspace, source),
        _dataset(workspace, LAKE + run.output if run.kind == "lake" else run.output),
    )
    version = own_dataset(workspace.settings.log, "versions", run.version)
    ledger = own_dataset(workspace.settings.log, "ledger")
    emitter = Emitter(workspace)
    try:
        job = ".".join([JOB, run.capability, *([name] if name else [])])
        with emitter.run(job, inputs=[read, version], outputs=[wrote, ledger]) as told:

            def decided(rows: int) -> None:
                told.read(read, rows=rows)
                told.wrote(wrote, rows=rows)
                told.wrote(ledger, rows=rows)

            yield decided
    finally:
        emitter.close()


def _dataset(workspace: Workspace, place: str) -> Dataset:
    if place.startswith(LAKE):
        return table_dataset(open_lake(workspace).location.root, place.removeprefix(LAKE))
    return file_dataset(Path(place))
