"""What a model was trained on: a named snapshot of the lake, as a version records it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mainstay.catalog.types import TrainedOn
from mainstay.errors import Misuse
from mainstay.lake.lake import open_lake
from mainstay.lake.snapshots import open_snapshot

if TYPE_CHECKING:
    from mainstay.workspace import Workspace


def find_training(workspace: Workspace, name: str) -> TrainedOn:
    """The snapshot of this name as it is now. Raises Misuse when there is none, Damaged when its document is not whole.

    Its rows are not read: `Snapshot.verify` does that.
    """
    try:
        snapshot = open_snapshot(open_lake(workspace), name)
    except Misuse as error:
        raise Misuse(f"model.trained_on: {error.message}", hint=error.hint) from None
    taken = snapshot.taken
    return TrainedOn(
        snapshot=taken.name,
        table=taken.table,
        table_version=taken.version,
        where=taken.where,
        rows=snapshot.losses[-1].rows if snapshot.losses else taken.rows,
        sha256=snapshot.sha256,
    )
