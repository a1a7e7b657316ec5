"""One worker: a process that serves decisions from local files alone.

It reads the releases and the API keys, takes new ones within `refresh_seconds` of their publication without dropping
a call, and on SIGTERM stops accepting, answers what it accepted, and closes its journal in good order.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop
from granian.constants import HTTPModes, Interfaces
from granian.log import LogLevels
from granian.rsgi import ProtocolClosed  # type: ignore[attr-defined]  # it re-exports without saying so
from granian.server.embed import Server

from mainstay.decision.in_force import Watch
from mainstay.decision.path import DecisionPath
from mainstay.errors import MainstayError
from mainstay.ledger.journal import Journal
from mainstay.processes import end_with_parent, set_up_logging
from mainstay.server.app import Application, observe_into
from mainstay.server.metrics import load_counts, save_counts, slot_file, total
from mainstay.workspace import open_workspace

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mainstay.server.metrics import Counts
    from mainstay.workspace import Workspace

logger = logging.getLogger("mainstay.server")

BACKLOG = 1024  # connections the kernel keeps for us while we are busy
COUNTS_SECONDS = 1.0


class Worker:
    """What one worker process holds, and its life."""

    def __init__(self, workspace: Workspace, slot: int, loop: asyncio.AbstractEventLoop) -> None:
        self._workspace = workspace
        self._loop = loop
        self._slot = slot
        self._counts = load_counts(slot_file(workspace.run, slot))
        self._base = load_counts(slot_file(workspace.run, slot))  # what earlier workers of the slot had counted
        self._path = DecisionPath(
            loop,
            self._open_journal,
            observe_into(self._counts),
            call_bytes=workspace.settings.max_body_bytes,
            memory=workspace.memory,
            shadowing=(self._open_shadow_journal, self._counts.count_shadow),
        )
        self._app = Application(workspace, self._path, self._counts, self._all_counts, closed=ProtocolClosed)
        self._watch = Watch(workspace, self._path, self._app.trust, self._app.forget_callers)
        self._watch.on_services = self._app.route
        self._saving: asyncio.Future[None] | None = None  # of counts, under way

    async def run(self) -> None:
        """Serve until SIGTERM, then drain."""
        settings = self._workspace.settings
        await self._watch.start()
        gc.collect()
        gc.freeze()  # what is compiled now lives as long as the process: the collector need not look at it again
        server = Server(
            self._app,
            address=settings.host,
            port=settings.port,
            interface=Interfaces.RSGI,
            http=HTTPModes.http1,
            websockets=False,
            backlog=BACKLOG,
            log_level=LogLevels.error,
        )

        def drain() -> None:
            self._app.draining = True
            server.stop()

        self._loop.add_signal_handler(signal.SIGTERM, drain)
        self._loop.add_signal_handler(signal.SIGINT, lambda: None)  # Ctrl-C goes to the supervisor, which drains us
        self._save_counts_regularly()
        await server.serve()
        if not await self._path.drained(settings.drain_seconds):
            logger.warning("drain ended with decisions unanswered: in_flight=%d", self._path.in_flight)
        await self._app.close()
        self._watch.stop()
        self._path.close()
        self._timer.cancel()
        if self._saving is not None:
            await self._saving
        self._save_counts(self._current_counts())

    def _open_journal(self, on_idle: Callable[[], None]) -> Journal:
        self._journal = Journal(self._workspace.ledger / "wal", self._loop.call_soon_threadsafe, on_idle=on_idle)
        return self._journal

    def _open_shadow_journal(self) -> Journal:
        return Journal(self._workspace.ledger / "wal", self._loop.call_soon_threadsafe)

    # Counts.

    def _current_counts(self) -> Counts:
        journal = self._journal
        counts = self._counts
        counts.records = self._base.records + journal.records
        counts.syncs = self._base.syncs + journal.syncs
        counts.sync_seconds = self._base.sync_seconds + journal.sync_seconds
        counts.write_failures = self._base.write_failures + journal.failures
        return counts

    def _all_counts(self) -> Counts:
        own = slot_file(self._workspace.run, self._slot)
        others = (path for path in self._workspace.run.glob("metrics-*.json") if path != own)
        return total([self._current_counts(), *map(load_counts, others)])

    def _save_counts_regularly(self) -> None:
        self._timer = self._loop.call_later(COUNTS_SECONDS, self._save_counts_regularly)
        if self._saving is None or self._saving.done():  # else the disk is slow: decisions must not wait for it
            self._saving = self._loop.run_in_executor(None, self._save_counts, self._current_counts())

    def _save_counts(self, counts: Counts) -> None:
        try:
            save_counts(slot_file(self._workspace.run, self._slot), counts)
        except OSError as error:
            logger.warning("counts not saved: %s", error)


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m mainstay.server.worker --workspace DIR --slot N`, started by the supervisor."""
    parser = argparse.ArgumentParser(prog="mainstay-worker")
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--slot", type=int, required=True)
    parser.add_argument("--with-parent", action="store_true", help="end when the starting process does")
    given = parser.parse_args(arguments)
    set_up_logging(f"worker-{given.slot}")
    if given.with_parent:
        end_with_parent()
    workspace = open_workspace(given.workspace)
    workspace.run.mkdir(parents=True, exist_ok=True)

    async def serve() -> None:
        await Worker(workspace, given.slot, asyncio.get_running_loop()).run()

    try:
        uvloop.run(serve())
    except (MainstayError, OSError) as error:
        logger.error("worker ends: %s", error)  # noqa: TRY400 - the message says all
        sys.exit(1)


if __name__ == "__main__":
    main()
