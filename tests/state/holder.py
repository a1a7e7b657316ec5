"""A process that steers, for tests that kill it: its pass writes its epoch down. `python holder.py WORKSPACE`"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING

import sqlalchemy as sa

from mainstay.state.database import open_database
from mainstay.state.passes import run_passes
from mainstay.workspace import open_workspace

if TYPE_CHECKING:
    from collections.abc import Callable

    from mainstay.state.database import Database
    from mainstay.state.lease import Lease

LEASE_SECONDS = 3.0  # a busy machine may hold a process up for one


class Writing:
    """Writes again and again, and fails now and then: that must keep nobody from the next turn."""

    name = "writing"
    every_seconds = 0.02

    def __init__(self) -> None:
        self._turns = 0

    def turn(self, database: Database, lease: Lease, stop: Callable[[], bool]) -> None:
        assert not stop()
        assert database is not None
        self._turns += 1
        if self._turns == 2:
            raise ValueError("a fault of this pass")

        def work(connection: sa.Connection) -> None:
            last = connection.execute(sa.text("SELECT max(number) FROM written")).scalar() or 0
            row = {"number": last + 1, "epoch": lease.epoch, "process": os.getpid()}
            connection.execute(sa.text("INSERT INTO written VALUES (:number, :epoch, :process)"), row)

        lease.write(work)


def main() -> None:
    stop = Event()
    Thread(target=_wait_for_end, args=(stop,), daemon=True).start()
    with open_database(open_workspace(Path(sys.argv[1]))) as database:
        run_passes(database, LEASE_SECONDS, [Writing()], stop)


def _wait_for_end(stop: Event) -> None:
    sys.stdin.read()
    stop.set()


if __name__ == "__main__":
    main()
