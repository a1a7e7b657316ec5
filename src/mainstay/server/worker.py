"""One worker: a process that serves decisions from local files alone.

It reads the releases and the API keys, takes new ones within `refresh_seconds` of their publication without dropping
a call, and on SIGTERM stops accepting, answers what it accepted, and closes its journal in good order.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import uvloop
from granian.constants import HTTPModes, Interfaces
from granian.log import LogLevels
from granian.server.embed import Server

from mainstay.authority import keys
from mainstay.catalog import releases
from mainstay.decision.path import DecisionPath
from mainstay.decision.plan import Plan, compile_plan
from mainstay.errors import MainstayError
from mainstay.ledger.journal import Journal
from mainstay.server.app import Application, observe_into
from mainstay.server.metrics import load_counts, save_counts, slot_file, total
from mainstay.signing import load_verifier
from mainstay.workspace import open_workspace

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mainstay.authority.keys import KeyRing
    from mainstay.server.metrics import Counts
    from mainstay.signing import Verifier
    from mainstay.workspace import Workspace

logger = logging.getLogger("mainstay.server")

BACKLOG = 1024  # connections the kernel keeps for us while we are busy
COUNTS_SECONDS = 1.0
DRAIN_POLL_SECONDS = 0.02
_PR_SET_PDEATHSIG = 1


class InForce(NamedTuple):
    """What the files say is in force, and the fingerprint they had when they were read."""

    seen: object
    ring: KeyRing
    plans: dict[str, Plan]


class Worker:
    """What one worker process holds, and its life. All of it runs on the event loop's thread but `_load`."""

    def __init__(self, workspace: Workspace, slot: int, loop: asyncio.AbstractEventLoop) -> None:
        self._workspace = workspace
        self._loop = loop
        self._verifier: Verifier = load_verifier(workspace.keys)
        self._slot = slot
        self._counts = load_counts(slot_file(workspace.run, slot))
        self._base = load_counts(slot_file(workspace.run, slot))  # what earlier workers of the slot had counted
        self._in_force = InForce(None, keys.KeyRing(()), {})
        self._refreshing: asyncio.Task[None] | None = None
        limit = workspace.settings.max_body_bytes
        self._path = DecisionPath(loop, self._open_journal, observe_into(self._counts), call_bytes=limit)
        self._app = Application(workspace, self._path, self._counts, self._all_counts)

    async def run(self) -> None:
        """Serve until SIGTERM, then drain."""
        settings = self._workspace.settings
        self._take(self._load(self._in_force))
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
        self._loop.call_later(settings.refresh_seconds, self._refresh)
        self._loop.call_later(COUNTS_SECONDS, self._save_counts_regularly)
        await server.serve()
        await self._drained(settings.drain_seconds)
        self._path.journal.close()
        self._save_counts()

    async def _drained(self, seconds: float) -> None:
        """Wait until everything accepted is answered, at most `seconds`."""
        deadline = self._loop.time() + seconds
        while self._path.in_flight and self._loop.time() < deadline:  # noqa: ASYNC110 - once in a process's life
            await asyncio.sleep(DRAIN_POLL_SECONDS)
        if self._path.in_flight:
            logger.warning("drain ended with decisions unanswered: in_flight=%d", self._path.in_flight)

    def _open_journal(self, on_idle: Callable[[], None]) -> Journal:
        return Journal(self._workspace.ledger / "wal", self._loop.call_soon_threadsafe, on_idle=on_idle)

    # What is in force.

    def _fingerprint(self) -> object:
        return releases.signature_of(self._workspace.releases), keys.signature_of(self._workspace.access)

    def _load(self, before: InForce) -> InForce:
        """Read what the files say is in force; what did not change is kept as it is compiled.

        A release or a snapshot that cannot be read leaves the one before it in force: a broken file must not take
        down what works. It is logged, and tried again when the file changes.
        """
        seen = self._fingerprint()
        ring = before.ring
        try:
            ring = keys.load_key_ring(self._workspace.access, self._verifier)
        except MainstayError as error:
            logger.error("API keys not loaded, those before them stay in force: %s", error)  # noqa: TRY400 - says all
        plans = {}
        for name in releases.capabilities_with_releases(self._workspace.releases):
            plan = before.plans.get(name)
            try:
                release = releases.read_current(self._workspace.releases, name, self._verifier)
                plans[name] = (
                    plan if plan is not None and plan.release == release else compile_plan(self._workspace, release)
                )
            except (MainstayError, ValueError, OSError, RuntimeError) as error:
                logger.error("release of %s not loaded, the one before it stays in force: %s", name, error)  # noqa: TRY400
                if plan is not None:
                    plans[name] = plan
        return InForce(seen, ring, plans)

    def _take(self, loaded: InForce) -> None:
        before, self._in_force = self._in_force, loaded
        if loaded.ring is not before.ring:
            self._app.trust(loaded.ring)
        if loaded.plans != before.plans or before.seen is None:
            self._app.serve(loaded.plans)
        for name, plan in loaded.plans.items():
            if before.plans.get(name) is not plan:
                logger.info("serving %s release %d, version %s", name, plan.release.number, plan.release.version)

    def _refresh(self) -> None:
        self._loop.call_later(self._workspace.settings.refresh_seconds, self._refresh)
        self._app.forget_callers()
        if self._refreshing is None and self._fingerprint() != self._in_force.seen:
            self._refreshing = self._loop.create_task(self._reload())

    async def _reload(self) -> None:
        try:
            # Compiling a release takes longer than a decision may wait.
            self._take(await self._loop.run_in_executor(None, self._load, self._in_force))
        finally:
            self._refreshing = None

    # Counts.

    def _current_counts(self) -> Counts:
        journal = self._path.journal
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
        self._loop.call_later(COUNTS_SECONDS, self._save_counts_regularly)
        self._save_counts()

    def _save_counts(self) -> None:
        try:
            save_counts(slot_file(self._workspace.run, self._slot), self._current_counts())
        except OSError as error:
            logger.warning("counts not saved: %s", error)


def end_with_parent() -> None:
    """Have the kernel send SIGTERM to this process when its parent dies, however that ends (Linux, prctl(2))."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() == 1:  # it has died already
        sys.exit(0)


def set_up_logging(name: str) -> None:
    """Log lines of this process to standard error, with its name and time."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format=f"%(asctime)s {name} %(levelname)s %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S%z",
    )


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
