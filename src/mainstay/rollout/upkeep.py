"""Beside whoever seals: the process that steers, kept alive while something is in production.

Nothing of the control database or the tables is loaded in this process.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final

from mainstay.catalog.releases import capabilities_with_releases
from mainstay.lake.upkeep import keep_running

if TYPE_CHECKING:
    from threading import Event, Thread

    from mainstay.workspace import Workspace

STEERING: Final = "mainstay.cli.steering"  # by name, since it stands above all that steers


def keep_steered(workspace: Workspace, stop: Event) -> Thread | None:
    """Begin a thread that keeps the steering process alive until `stop` is set; None where the settings want none.

    It begins after one interval: who serves and seals begins first, and who ends before needs none.
    """
    interval = workspace.settings.steering_interval_seconds
    if not interval:
        return None
    due = monotonic() + interval

    def wanted() -> bool:
        return monotonic() >= due and bool(capabilities_with_releases(workspace.releases))

    return keep_running("steering", STEERING, workspace, stop, wanted)
