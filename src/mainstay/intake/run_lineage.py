"""What a run over a source says of itself to others: which dataset it read, and which tables it wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mainstay.errors import MainstayError
from mainstay.intake.secrets import read_secret
from mainstay.intake.types import intake_table, quarantine_table
from mainstay.lineage.events import Assertion
from mainstay.lineage.naming import (
    database_dataset,
    file_dataset,
    own_dataset,
    table_dataset,
    url_dataset,
)

if TYPE_CHECKING:
    from mainstay.capability.sources import Source
    from mainstay.intake.landing import Item
    from mainstay.intake.types import Taken
    from mainstay.lake.lake import Lake
    from mainstay.lineage.emitting import Run
    from mainstay.lineage.naming import Dataset
    from mainstay.workspace import Workspace


def job_of(capability: str, source: str) -> str:
    """What the runs of a source are called."""
    return f"intake.{capability}.{source}"


def dataset_of(workspace: Workspace, capability: str, source: Source) -> Dataset:
    """Where the records of a source come from. Holds no secret."""
    if source.rest is not None:
        return url_dataset(source.rest.url)
    if source.files is not None:
        folder = source.files.folder
        return url_dataset(folder) if "://" in folder else file_dataset(workspace.root / folder)
    if source.sql is not None:
        try:
            return database_dataset(read_secret(source.sql.url), source.sql.table)
        except (MainstayError, ValueError):  # without its secret nothing is read either, and the run says so
            return own_dataset(workspace.settings.log, "sources", capability, source.name)
    return own_dataset(workspace.settings.log, "sources", capability, source.name)


def tell_taken(told: Run, lake: Lake, origin: Dataset, capability: str, source: str, item: Item, taken: Taken) -> None:
    """Say what became of an item."""
    is_kept = not taken.quarantined
    assertion = Assertion(assertion="contract", success=is_kept)
    told.read(origin, rows=taken.rows, size=item.bytes, assertions=() if is_kept else (assertion,))
    for name, rows in (
        (intake_table(capability, source), taken.accepted),
        (quarantine_table(capability, source), taken.quarantined),
    ):
        if rows:
            told.wrote(table_dataset(str(lake.location.root), name), rows=rows)
