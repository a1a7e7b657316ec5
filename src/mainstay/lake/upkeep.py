"""Beside whoever seals: a process that exports to the lake, begun, watched and ended here.

Nothing of the tables is loaded in this process.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from threading import Thread
from time import monotonic
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from threading import Event

    from mainstay.workspace import Workspace

logger = logging.getLogger("mainstay.lake")

_FIRST_PAUSE_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 60.0
_STEADY_SECONDS: Final = 60.0  # who lived so long did not die of how it was started
_END_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.2


def keep_exported(workspace: Workspace, stop: Event) -> Thread | None:
    """Begin a thread that keeps the exporting process alive until `stop` is set; None where the settings want none.

    It ends soon after `stop` is set, and the process with it. Nothing that happens there reaches the caller.
    """
    if not workspace.settings.lake_interval_seconds:
        return None
    # As a daemon: who ends without setting `stop` is not held up, and the process ends with its standard input.
    thread = Thread(target=_keep, args=(workspace, stop), name="lake", daemon=True)
    thread.start()
    return thread


def _keep(workspace: Workspace, stop: Event) -> None:
    pause = _FIRST_PAUSE_SECONDS
    while not stop.is_set():
        began = monotonic()
        try:
            ended = _run(workspace, stop)
        except OSError as error:  # no memory, no processes: later there may be
            ended = str(error)
        if stop.is_set():
            return
        if monotonic() - began > _STEADY_SECONDS:
            pause = _FIRST_PAUSE_SECONDS
        logger.error("the exporting process ended: %s; begun again in %g s", ended, pause)
        stop.wait(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def _run(workspace: Workspace, stop: Event) -> str:
    """One life of the process; how it ended."""
    command = [sys.executable, "-m", "mainstay.lake.exporting", str(workspace.root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        try:
            while process.poll() is None and not stop.wait(_POLL_SECONDS):
                pass
        finally:
            if process.stdin is not None:
                process.stdin.close()  # it ends with its standard input
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
    status = process.returncode
    return f"signal {-status}" if status < 0 else f"status {status}"
