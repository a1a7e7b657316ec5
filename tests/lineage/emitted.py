"""Workspaces that emit events, and what they emitted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from mainstay.lineage.emitting import FILE, FOLDER
from mainstay.workspace import open_workspace

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.workspace import Workspace

LOG = "lineage.example.com/pilots"


def make_workspace(root: Path, lineage: str = "") -> Workspace:
    """An empty workspace whose events go to `lineage`."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "mainstay.toml").write_text(f'log = "{LOG}"\nlineage = "{lineage}"\n')
    return open_workspace(root, {})


def events_in(path: Path) -> list[dict[str, Any]]:
    """The events in a file."""
    return [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]


def emitted(workspace: Workspace) -> list[dict[str, Any]]:
    """The events in the file of a workspace that names no other place."""
    return events_in(workspace.data / FOLDER / FILE)


def kinds(events: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """The job and the type of each event."""
    return [(event["job"]["name"], event["eventType"]) for event in events]
