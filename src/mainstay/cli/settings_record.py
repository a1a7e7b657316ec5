"""Settings are changes too: when the settings in force are not those recorded last, an entry says which, and by whom.

What was recorded last stands in a small file beside the ledger. When it is lost, or a process is killed between the
two, the same settings are recorded once more; none is ever left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from mainstay.cli.common import record_change
from mainstay.errors import NOT_READ
from mainstay.files import write_atomic

if TYPE_CHECKING:
    from mainstay.workspace import Workspace

RECORDED_FILE = "settings.json"
MAX_BYTES = 1 << 20

_NOT_RECORDED = frozenset({"host", "port", "workers"})  # where and how fast it serves; commands set them for one run


def settings_of(workspace: Workspace) -> dict[str, Any]:
    """The settings in force, as plain values, as far as they are recorded."""
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(workspace.settings))
    return {name: value for name, value in found.items() if name not in _NOT_RECORDED}


def remember_settings(workspace: Workspace) -> None:
    """Take what is in force for what is recorded. Raises OSError when the disk will not have it."""
    write_atomic(workspace.data / RECORDED_FILE, msgspec.json.encode(settings_of(workspace)) + b"\n")


def record_settings(workspace: Workspace, reason: str) -> str | None:
    """Record what is set otherwise than was recorded last; the id of the entry, None where nothing is.

    Raises OSError when the disk will not take it.
    """
    now, before = settings_of(workspace), _recorded(workspace)
    changed = {
        name: {"before": before.get(name), "now": now.get(name)}
        for name in (*now, *(name for name in before if name not in now))
        if before.get(name) != now.get(name)
    }
    if not changed:
        return None
    entry_id = record_change(workspace, "settings.changed", workspace.settings.log, reason, changed)
    remember_settings(workspace)
    return entry_id


def _recorded(workspace: Workspace) -> dict[str, Any]:
    """What was recorded last; nothing where that cannot be read."""
    try:
        with (workspace.data / RECORDED_FILE).open("rb") as file:
            return msgspec.json.decode(file.read(MAX_BYTES), type=dict[str, Any])
    except (FileNotFoundError, *NOT_READ):
        return {}
