"""Beside whoever seals: the process that monitors, kept alive while something is in production.

Nothing of the tables or the control database is loaded in this process.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final

from mainstay.catalog.releases import capabilities_with_releases
from mainstay.lake.upkeep import keep_running

if TYPE_CHECKING:
    from threading import Event, Thread

    from mainstay.workspace import Workspace

MONITORING: Final = "mainstay.monitoring.running"


def keep_monitored(workspace: Workspace, stop: Event) -> Thread | None:
    """Begin a thread that keeps the monitoring process alive until `stop` is set; None where the settings want none.

    It begins after one interval: who serves and seals begins first, and who ends before needs none.
    """
    interval = workspace.settings.monitor_interval_seconds
    if not interval or not workspace.settings.lake_interval_seconds:
        return None
    due = monotonic() + interval

    def wanted() -> bool:
        return monotonic() >= due and bool(capabilities_with_releases(workspace.releases))

    return keep_running("monitoring", MONITORING, workspace, stop, wanted)
