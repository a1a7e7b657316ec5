"""Beside whoever seals: processes that work on the lake, begun, watched and ended here.

Nothing of the tables is loaded in this process.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from threading import Thread
from time import monotonic
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable
    from threading import Event

    from mainstay.workspace import Workspace

logger = logging.getLogger("mainstay.lake")

EXPORTING: Final = "mainstay.catalog.exporting"  # by name, since it stands above the lake

_FIRST_PAUSE_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 60.0
_STEADY_SECONDS: Final = 60.0  # who lived so long did not die of how it was started
_END_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.2
_WANTED_SECONDS: Final = 1.0  # how often it is asked whether a process is wanted that is not there
_ENDED_WELL: Final = "status 0"


def keep_exported(workspace: Workspace, stop: Event) -> Thread | None:
    """Begin a thread that keeps the exporting process alive until `stop` is set; None where the settings want none.

    It begins after one interval: who serves and seals begins first, and who ends before needs none.
    """
    interval = workspace.settings.lake_interval_seconds
    if not interval:
        return None
    due = monotonic() + interval
    return keep_running("exporting", EXPORTING, workspace, stop, lambda: monotonic() >= due)


def keep_running(
    what: str, module: str, workspace: Workspace, stop: Event, wanted: Callable[[], bool] = lambda: True
) -> Thread:
    """Begin a thread that keeps `python -m MODULE WORKSPACE` alive until `stop` is set, while it is `wanted`.

    The process ends when its standard input does, soon after `stop` is set. It may end by itself where it is wanted no
    more. Nothing that happens there reaches the caller; `what` names it in the log.
    """
    # As a daemon: who ends without setting `stop` is not held up, and the process ends with its standard input.
    keeper = _Keeper(what, [sys.executable, "-m", module, str(workspace.root)], stop, wanted)
    thread = Thread(target=keeper.keep, name=what, daemon=True)
    thread.start()
    return thread


class _Keeper(NamedTuple):
    what: str
    command: list[str]
    stop: Event
    wanted: Callable[[], bool]

    def keep(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while not self.stop.is_set():
            if not self.wanted():
                self.stop.wait(_WANTED_SECONDS)
                continue
            began = monotonic()
            try:
                ended = _run(self.command, self.stop)
            except OSError as error:  # no memory, no processes: later there may be
                ended = str(error)
            if self.stop.is_set():
                return
            if monotonic() - began > _STEADY_SECONDS:
                pause = _FIRST_PAUSE_SECONDS
            if ended == _ENDED_WELL and not self.wanted():
                continue
            logger.error("the %s process ended: %s; begun again in %g s", self.what, ended, pause)
            self.stop.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def _run(command: list[str], stop: Event) -> str:
    """One life of the process; how it ended."""
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
