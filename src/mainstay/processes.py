"""How each process of ours begins: where its log lines go, and what ends it.

A process *beside* others is `python -m MODULE WORKSPACE`. It ends when its standard input does, and so with whoever
started it, however that ends.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread
from typing import TYPE_CHECKING, Final

from mainstay.workspace import open_workspace

if TYPE_CHECKING:
    from mainstay.workspace import Workspace

_PR_SET_PDEATHSIG: Final = 1
_QUIET: Final = ("alembic", "httpx")  # libraries that log every step and call that goes well


def begin_beside(name: str, *, niceness: int = 0) -> tuple[Workspace, Event]:
    """Begin a process beside others: the workspace that its command line names, and the event that says it is to end.

    Set when standard input ends, or by SIGTERM or SIGINT. `name` is in its log lines. Raises Misuse when there is no
    workspace.
    """
    set_up_logging(name)
    os.nice(niceness)
    stop = stop_at_signals()
    Thread(target=_set_at_end_of_input, args=(stop,), daemon=True).start()
    return open_workspace(Path(sys.argv[1])), stop


def set_up_logging(name: str) -> None:
    """Log lines of this process to standard error, with its name and time."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format=f"%(asctime)s {name} %(levelname)s %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S%z",
    )
    for each in _QUIET:
        logging.getLogger(each).setLevel(logging.WARNING)


def stop_at_signals() -> Event:
    """An event that SIGTERM and SIGINT set from now on. To be called in the main thread."""
    stop = Event()
    asked: SimpleQueue[int] = SimpleQueue()
    # Not by the handler: it may have interrupted a `wait` that holds the event's lock, and would wait for it for ever.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _frame: asked.put(number))
    Thread(target=_set_when_asked, args=(stop, asked), daemon=True).start()
    return stop


def end_with_parent() -> None:
    """Have the kernel send SIGTERM to this process when its parent dies, however that ends (Linux, prctl(2))."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() == 1:  # it has died already
        sys.exit(0)


def _set_when_asked(stop: Event, asked: SimpleQueue[int]) -> None:
    asked.get()
    stop.set()


def _set_at_end_of_input(stop: Event) -> None:
    while os.read(sys.stdin.fileno(), 4_096):
        pass
    stop.set()
