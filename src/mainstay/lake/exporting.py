"""The process that keeps the lake up with the ledger: `python -m mainstay.lake.exporting WORKSPACE`.

It is a process of its own so that nothing it does, or dies of, delays sealing. It ends when its standard input does,
and so with whoever started it, however that ends.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import TYPE_CHECKING, Final

from mainstay.errors import MainstayError
from mainstay.files import sync_directory
from mainstay.lake.decisions import Exporter
from mainstay.lake.lake import open_lake
from mainstay.lake.maintenance import Policy, maintain
from mainstay.ledger.index_key import load_index_key
from mainstay.workspace import open_workspace

if TYPE_CHECKING:
    from mainstay.lake.lake import Lake
    from mainstay.workspace import Settings, Workspace

logger = logging.getLogger("mainstay.lake")

KEY_FOLDER: Final = "export"  # in the data directory: what the digests of business keys are made with
_NICE: Final = 5  # serving and sealing come first


def main() -> None:
    """Export until standard input ends, or a signal says so."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="%(asctime)s lake %(levelname)s %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S%z",
    )
    os.nice(_NICE)
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    Thread(target=_wait_for_end, args=(stop,), daemon=True).start()
    export_on(open_workspace(Path(sys.argv[1])), stop)


def _wait_for_end(stop: Event) -> None:
    while os.read(sys.stdin.fileno(), 4_096):
        pass
    stop.set()


def export_on(workspace: Workspace, stop: Event) -> None:
    """Export every `lake_interval_seconds` and maintain every `lake_maintenance_seconds` until `stop` is set.

    A problem is logged when it begins and when it has passed, and tried again.
    """
    lake = open_lake(workspace)
    folder = workspace.data / KEY_FOLDER
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    sync_directory(folder.parent)
    exporter = Exporter(lake, workspace.ledger, load_index_key(folder))
    policy = policy_of(workspace.settings)
    complaint, maintained = "", -workspace.settings.lake_maintenance_seconds
    while not stop.is_set():
        try:
            exporter.catch_up(stop.is_set)
            if monotonic() - maintained >= workspace.settings.lake_maintenance_seconds and not stop.is_set():
                _maintain(lake, policy, stop)
                maintained = monotonic()
            found = ""
        except (MainstayError, OSError) as error:
            found = str(error)
        if found != complaint:
            logger.error("lake: %s", found) if found else logger.info("lake: exporting again")
            complaint = found
        stop.wait(workspace.settings.lake_interval_seconds)


def policy_of(settings: Settings) -> Policy:
    """What the settings of a workspace ask of its tables."""
    days = settings.lake_rows_days
    return Policy(timedelta(days=settings.lake_versions_days), timedelta(days=days) if days else None)


def _maintain(lake: Lake, policy: Policy, stop: Event) -> None:
    for done in maintain(lake, policy, datetime.now(UTC)):
        if done.problem:
            logger.warning("not maintained: table=%s: %s", done.table, done.problem)
        elif done.joined or done.dropped or done.removed:
            logger.info("maintained: table=%s joined=%d dropped=%d removed=%d", *done[:4])
        if stop.is_set():
            return


if __name__ == "__main__":
    main()
