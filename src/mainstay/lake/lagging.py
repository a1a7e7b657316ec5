"""How far the tables are behind the ledger, for whoever may load nothing of the tables.

The exporting process leaves in a small file how far it has come; the ledger says the rest.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from mainstay.errors import NOT_READ
from mainstay.ledger.archives import archived_until
from mainstay.ledger.entry import read_leaf
from mainstay.ledger.log import Log

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.workspace import Workspace

PROGRESS_FILE: Final = "lake.json"  # in the folder of what lives while processes do


class Lag(NamedTuple):
    """How far the tables are behind the log."""

    sealed: int  # entries in the log
    exported: int  # entries that the tables have seen
    seconds: float  # how long ago the first entry that they have not seen was recorded; 0 when there is none


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """What the exporting process said when it had looked last."""

    exported: int  # entries that the tables have seen
    at: str  # RFC 3339, UTC
    problem: str = ""  # what keeps it from exporting; empty: nothing


class Standing(NamedTuple):
    """How it goes with the export of a workspace."""

    progress: Progress
    lag: Lag


def save_progress(workspace: Workspace, progress: Progress) -> None:
    """Leave word of how far the export has come. Not synced to disk: the tables know it. Raises OSError."""
    workspace.run.mkdir(parents=True, exist_ok=True)
    path = workspace.run / PROGRESS_FILE
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(msgspec.json.encode(progress))
    temporary.replace(path)


def standing(workspace: Workspace) -> Standing | None:
    """How far the tables are behind the log now; None when nothing was ever exported here, or nobody knows.

    Raises Damaged when the log is not whole.
    """
    try:
        content = (workspace.run / PROGRESS_FILE).read_bytes()
        progress = msgspec.json.decode(content, type=Progress)
    except (OSError, *NOT_READ):
        return None
    return Standing(progress, lag_behind(workspace.ledger, progress.exported))


def lag_behind(ledger_dir: Path, exported: int) -> Lag:
    """How far tables that have seen `exported` entries are behind the log."""
    log = Log(ledger_dir)
    seen = max(exported, archived_until(ledger_dir))
    sealed = log.size
    if seen >= sealed:
        return Lag(sealed, seen, 0.0)
    leaf = read_leaf(next(log.leaves(seen, seen + 1)))
    now = datetime.now(UTC)
    recorded = None if leaf is None else instant(leaf.at)
    return Lag(sealed, seen, max(0.0, (now - (recorded or now)).total_seconds()))


def instant(text: str) -> datetime | None:
    """RFC 3339; without an offset it is UTC. None when it is no time."""
    try:
        found = datetime.fromisoformat(text)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
