"""The process that monitors: `python -m mainstay.monitoring.running WORKSPACE`.

One pass after the other of every capability in production. It ends when its standard input does, and so with whoever
started it, however that ends. It may be killed anywhere, and two of them at once do no harm.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Final

from mainstay.catalog.releases import capabilities_with_releases
from mainstay.errors import MainstayError
from mainstay.lake.lake import open_lake
from mainstay.monitoring.passes import Monitor
from mainstay.processes import begin_beside
from mainstay.state.database import open_database

if TYPE_CHECKING:
    from threading import Event

    from mainstay.lake.lake import Lake
    from mainstay.state.database import Database
    from mainstay.workspace import Workspace

logger = logging.getLogger("mainstay.monitoring")

_NICE: Final = 10  # everything else comes first


def main() -> None:
    """Monitor until standard input ends, or a signal says so."""
    workspace, stop = begin_beside("monitoring", niceness=_NICE)
    try:
        with open_database(workspace) as database:
            monitor_on(workspace, open_lake(workspace), database, stop)
    except MainstayError as error:
        sys.exit(str(error))


def monitor_on(workspace: Workspace, lake: Lake, database: Database, stop: Event) -> None:
    """Make a pass of every capability, and again after `monitor_interval_seconds`, until `stop` is set.

    A problem of one is logged when it begins and when it has passed, and tried again; it stops no other.
    """
    monitors: dict[str, Monitor] = {}
    complaints: dict[str, str] = {}
    while not stop.is_set():
        for name in capabilities_with_releases(workspace.releases):
            if stop.is_set():
                return
            monitor = monitors.setdefault(name, Monitor(workspace, lake, database, name))
            found = _pass(monitor, name, stop)
            if found != complaints.get(name, ""):
                logger.error("%s: %s", name, found) if found else logger.info("%s: monitored again", name)
            complaints[name] = found
        stop.wait(workspace.settings.monitor_interval_seconds)


def _pass(monitor: Monitor, name: str, stop: Event) -> str:
    """One pass; what the matter was, empty when nothing was."""
    try:
        passed = monitor.go(stop=stop.is_set)
    except (MainstayError, OSError) as error:
        return str(error)
    for each in passed.opened:
        finding = each.finding
        logger.warning("%s: %s: %s (%s)", name, finding.severity, finding.text, finding.cause.kind)
    for each in passed.resolved:
        logger.info("%s: over: %s", name, each.finding.text)
    return ""


if __name__ == "__main__":
    main()
