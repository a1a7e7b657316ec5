"""The retraining pass: looks at what asks for retraining, and has the requests run, one at a time.

DBOS is loaded when the first request is there to be run, and not before: most processes that steer never need it.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import msgspec

from mainstay.capability.load import load_capability
from mainstay.catalog.releases import capabilities_with_releases, history, read_current
from mainstay.catalog.versions import FOLDER, version_path
from mainstay.errors import MainstayError
from mainstay.ledger.change import Change, record_change
from mainstay.monitoring.store import read_findings, read_memory
from mainstay.retraining import store
from mainstay.retraining.triggers import Barred, Past, look
from mainstay.retraining.types import PRINCIPAL
from mainstay.rollout.settling import Steering
from mainstay.state.lease import LeaseLost

if TYPE_CHECKING:
    from collections.abc import Callable

    from mainstay.capability.keeping import Retraining
    from mainstay.catalog.types import Release
    from mainstay.retraining.types import Request
    from mainstay.signing import SigningKey
    from mainstay.state.database import Database
    from mainstay.state.lease import Lease
    from mainstay.workspace import Workspace

logger = logging.getLogger("mainstay.retraining")

NAME: Final = "retraining"
_JOBS: Final = "mainstay.retraining.jobs"
_DURABLE: Final = "mainstay.state.durable"


class RetrainingPass:
    """Made once in a process, and asked for a turn again and again by one thread."""

    name = NAME

    def __init__(self, workspace: Workspace, key: SigningKey) -> None:
        self._workspace = workspace
        self._key = key
        self._declared: dict[str, tuple[str, Retraining | None]] = {}  # by capability: the version, and what it says
        self._first_releases: dict[str, datetime] = {}  # when each capability came into production; never changes
        self._jobs: Any = None  # `durable.Jobs`, once there was something to run

    @property
    def every_seconds(self) -> float:
        return self._workspace.settings.steering_interval_seconds

    def turn(self, database: Database, lease: Lease, stop: Callable[[], bool]) -> None:
        """Ask where something asks, and go on with what was asked for.

        Raises LeaseLost when another process steers, Failed when the control database does not answer.
        """
        steering = Steering(self._workspace, self._key, database, lease)
        for name in capabilities_with_releases(self._workspace.releases):
            if stop():
                return
            try:
                self._look_at(steering, name)
            except LeaseLost:
                raise
            except (MainstayError, OSError) as error:
                logger.error("%s: %s", name, error)  # noqa: TRY400 - the message says all

    def _look_at(self, steering: Steering, name: str) -> None:
        release = read_current(self._workspace.releases, name, self._key.verifier)
        declared = self._retraining(steering, name, release.version)
        request = store.unsettled(steering.database, name)
        if request is None and declared is not None:
            request = self._ask(steering, release, declared)
        if request is not None:
            self._go_on(steering, request)

    def _retraining(self, steering: Steering, name: str, version: str) -> Retraining | None:
        """What the version in production declares."""
        known = self._declared.get(name)
        if known is None or known[0] != version:
            folder = version_path(steering.workspace.versions, version) / FOLDER
            known = self._declared[name] = (version, load_capability(folder).capability.retraining)
        return known[1]

    def _ask(self, steering: Steering, release: Release, declared: Retraining) -> Request | None:
        """Put the request that something asks for; None where nothing does, or it may not be.

        While monitoring catches up, what is open is what was so in some window of the past: nothing asks until then.
        """
        database, name = steering.database, release.capability
        memory = read_memory(database, name)
        if memory is not None and memory.waiting:
            return None
        past = Past(last_ended=store.last_ended(database, name), first_release=self._first_release(name))
        found = look(declared, read_findings(database, name, open_only=True), past, datetime.now(UTC), release)
        if found is None:
            return None
        if isinstance(found, Barred):
            request, is_new = store.bar(database, name, found, PRINCIPAL)
            self._tell(request, "retraining.barred", is_new=is_new)
            return None
        request, is_new = store.ask(database, name, found, PRINCIPAL)
        self._tell(request, "retraining.requested", is_new=is_new)
        return request

    def _first_release(self, name: str) -> datetime:
        if name not in self._first_releases:
            first = history(self._workspace.releases, name, self._key.verifier)[0]
            self._first_releases[name] = datetime.fromisoformat(first.published_at)
        return self._first_releases[name]

    def _tell(self, request: Request, action: str, *, is_new: bool) -> None:
        if not is_new:
            return
        logger.info("%s: %s, %s: %s", request.capability, action, request.cause, request.why or request.reason)
        change = Change(
            action=action,
            subject=f"{request.capability}/{request.id}",
            principal=request.asked_by,
            reason=request.why or request.reason,
            details=msgspec.to_builtins(request),
        )
        record_change(self._workspace.ledger, change)

    def _go_on(self, steering: Steering, request: Request) -> None:
        """Have a request run, unless it does already; what was begun by a process before goes on by itself."""
        jobs = self._running_jobs(steering)
        if request.status == "open":
            began = msgspec.structs.replace(request, status="running", began_at=datetime.now(UTC))
            request = store.change(steering.database, began, write=steering.write)
        standing = jobs.find(request.id)
        if standing is None:
            jobs.start(request.id, import_module(_JOBS).retrain, request.id)
        elif standing.state in ("failed", "cancelled"):
            why = standing.problem or "the run was cancelled"
            over = msgspec.structs.replace(
                request, status="ended", ending="failed", why=why, ended_at=datetime.now(UTC)
            )
            store.change(steering.database, over, write=steering.write)
            self._tell(over, "retraining.ended", is_new=True)

    def _running_jobs(self, steering: Steering) -> Any:
        if self._jobs is None:
            jobs = import_module(_JOBS)  # before jobs are taken up: they have to be known by then
            jobs.serve(steering)
            assert steering.lease is not None, "a pass has its turns under the lease"
            # Left open: jobs end with the process, and the next one takes them up.
            self._jobs = import_module(_DURABLE).Jobs(steering.database, steering.lease).__enter__()
        return self._jobs
