"""What is in force, read from local files and taken without dropping a call: the releases, the API keys, the holds.

A release or a snapshot that cannot be read or started leaves the one before it in force: a broken file must not take
down what works. It is logged, and tried again when the file changes. Nothing waits for anything else: neither a revoked
key nor another capability for a model that is slow to start. A hold that cannot be read is in force: it is there for
safety.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from mainstay.authority import keys
from mainstay.catalog import holds, releases
from mainstay.decision.plan import compile_release
from mainstay.decision.types import Hold
from mainstay.errors import MainstayError
from mainstay.signing import load_verifier

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mainstay.authority.keys import KeyRing
    from mainstay.catalog.holds import Standing
    from mainstay.decision.path import DecisionPath
    from mainstay.decision.plan import ReleasePlan
    from mainstay.decision.service import Service
    from mainstay.workspace import Workspace

logger = logging.getLogger("mainstay.decision")

FIRST_START_SECONDS = 10.0  # how long a process that just began waits for its models; then their fallbacks answer

Plans = dict[str, "ReleasePlan"]  # by capability


class Watch:
    """Keeps one decision path at what the files say. Its methods belong to the event loop's thread."""

    def __init__(
        self, workspace: Workspace, path: DecisionPath, on_keys: Callable[[KeyRing], None], on_look: Callable[[], None]
    ) -> None:
        """`on_keys` is given each new ring of keys; `on_look` is called whenever the files were looked at."""
        self._workspace = workspace
        self._verifier = load_verifier(workspace.keys)
        self._path = path
        self._on_keys = on_keys
        self._on_look = on_look
        self._keys_seen: object = None  # the fingerprint of the keys in force
        self._seen: object = None  # that of the releases
        self._plans: Plans = {}  # of what is served, and of what is being started
        self._holds_seen: object = None  # the fingerprint of the holds
        self._holds: dict[str, Standing] = {}  # by capability
        self._reading_holds: asyncio.Task[None] | None = None
        self._reading_keys: asyncio.Task[None] | None = None
        self._reading: asyncio.Task[None] | None = None
        self._starting: dict[str, asyncio.Task[None]] = {}  # by capability
        self._timer: asyncio.TimerHandle | None = None
        self.on_services: Callable[[], None] = lambda: None  # called when other services are served

    async def start(self) -> None:
        """Take what is in force now, and look again every `refresh_seconds`."""
        self._take_keys(*self._read_keys())
        self._take_holds(*self._read_holds())
        self._seen, self._plans = self._read(self._plans)
        services = {name: self._path.open(plan) for name, plan in self._plans.items()}
        await asyncio.gather(*(self._wait_first(name, service) for name, service in services.items()))
        self._serve(services)
        self._timer = self._path.loop.call_later(self._workspace.settings.refresh_seconds, self._look)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
        for task in (self._reading_keys, self._reading_holds, self._reading, *self._starting.values()):
            if task is not None:
                task.cancel()

    def _look(self) -> None:
        self._timer = self._path.loop.call_later(self._workspace.settings.refresh_seconds, self._look)
        self._on_look()
        if self._reading_keys is None and keys.signature_of(self._workspace.access) != self._keys_seen:
            self._reading_keys = self._path.loop.create_task(self._refresh_keys())
        if self._reading_holds is None and self._fingerprint_holds() != self._holds_seen:
            self._reading_holds = self._path.loop.create_task(self._refresh_holds())
        if self._reading is None and releases.signature_of(self._workspace.releases) != self._seen:
            self._reading = self._path.loop.create_task(self._refresh())

    # Keys.

    async def _refresh_keys(self) -> None:
        try:
            self._take_keys(*await self._path.loop.run_in_executor(None, self._read_keys))
        finally:
            self._reading_keys = None

    def _read_keys(self) -> tuple[object, KeyRing | None]:
        """The fingerprint of the keys and their ring; None where they cannot be read."""
        seen = keys.signature_of(self._workspace.access)
        try:
            return seen, keys.load_key_ring(self._workspace.access, self._verifier)
        except MainstayError as error:
            logger.error("API keys not loaded, those before them stay in force: %s", error)  # noqa: TRY400 - says all
            return seen, None

    def _take_keys(self, seen: object, ring: KeyRing | None) -> None:
        self._keys_seen = seen
        if ring is not None:
            self._on_keys(ring)

    # Holds.

    async def _refresh_holds(self) -> None:
        try:
            self._take_holds(*await self._path.loop.run_in_executor(None, self._read_holds))
        except OSError as error:
            logger.error("holds not read, those before them stay in force: %s", error)  # noqa: TRY400 - says all
            self._holds_seen = self._fingerprint_holds()
        finally:
            self._reading_holds = None

    def _fingerprint_holds(self) -> object:
        try:
            return holds.signature_of(self._workspace.holds)
        except OSError as error:
            return error.errno

    def _read_holds(self) -> tuple[object, dict[str, Standing]]:
        """The fingerprint of the holds and what they are. Raises OSError when their directory cannot be read."""
        return holds.signature_of(self._workspace.holds), holds.read_holds(self._workspace.holds, self._verifier)

    def _take_holds(self, seen: object, found: dict[str, Standing]) -> None:
        before, self._holds, self._holds_seen = self._holds, found, seen
        self._hold(self._path.services)
        for name in sorted(before.keys() | found.keys()):
            standing = found.get(name)
            if standing is None:
                logger.warning("%s is held no more: its model answers", name)
            elif standing != before.get(name):
                hold = hold_of(standing)
                effect = (
                    "its fallback ladder answers"
                    if hold.code == "stopped"
                    else "what it declares for feed_stopped applies"
                )
                logger.warning("%s is held, %s: %s", name, effect, standing.damage or hold.detail)

    def _hold(self, services: Mapping[str, Service]) -> None:
        for name, service in services.items():
            standing = self._holds.get(name)
            service.held = None if standing is None else hold_of(standing)

    # Releases.

    async def _refresh(self) -> None:
        try:
            # Compiling a release takes longer than a decision may wait.
            self._seen, found = await self._path.loop.run_in_executor(None, self._read, dict(self._plans))
        finally:
            self._reading = None
        before, self._plans = self._plans, found
        for name in before.keys() | found.keys():
            if before.get(name) is not found.get(name):
                self._replace(name, found.get(name))

    def _read(self, before: Plans) -> tuple[object, Plans]:
        """The fingerprint of the releases, and their plans; what did not change is kept as it is compiled."""
        seen = releases.signature_of(self._workspace.releases)
        plans = {}
        for name in releases.capabilities_with_releases(self._workspace.releases):
            plan = before.get(name)
            try:
                release = releases.read_current(self._workspace.releases, name, self._verifier)
                if plan is None or plan.release != release:
                    plan = compile_release(self._workspace, release, shadows=True)
            except (MainstayError, ValueError, OSError, RuntimeError) as error:
                logger.error("release of %s not loaded, the one before it stays in force: %s", name, error)  # noqa: TRY400
            if plan is not None:
                plans[name] = plan
        return seen, plans

    def _replace(self, name: str, plan: ReleasePlan | None) -> None:
        """Begin to serve another release of a capability, or none; one that is still being started is given up."""
        starting = self._starting.pop(name, None)
        if starting is not None:
            starting.cancel()
        if plan is not None:
            self._starting[name] = self._path.loop.create_task(self._start(name, plan))
        elif name in self._path.services:
            self._serve({each: service for each, service in self._path.services.items() if each != name})

    async def _start(self, name: str, plan: ReleasePlan) -> None:
        """Serve a release once its models are started. If they do not start, it stands back for the one before it."""
        service = None
        try:
            service = self._path.open(plan)
            await service.wait_ready(plan.capability.model.start_seconds)
        except asyncio.CancelledError:
            if service is not None:
                service.close()
            raise
        except (MainstayError, OSError) as error:
            if service is None or name in self._path.services:
                self._stand_back(name, plan, service, error)
                return
            _tell_of_fallback(name, error)
        del self._starting[name]
        self._serve({**self._path.services, name: service})

    def _stand_back(self, name: str, plan: ReleasePlan, service: Service | None, error: Exception) -> None:
        logger.error("release %d of %s not taken: %s", plan.release.number, name, error)
        if service is not None:
            service.close()
        served = self._path.services.get(name)
        if served is None:
            del self._plans[name]
        else:
            self._plans[name] = served.release
        del self._starting[name]

    async def _wait_first(self, name: str, service: Service) -> None:
        try:
            await service.wait_ready(FIRST_START_SECONDS)
        except MainstayError as error:
            _tell_of_fallback(name, error)

    def _serve(self, services: dict[str, Service]) -> None:
        before = self._path.services
        self._hold(services)
        self._path.serve(services.values())
        self.on_services()
        for name, service in services.items():
            if before.get(name) is not service:
                release = service.release.release
                logger.info("serving %s release %d, version %s", name, release.number, release.version)


def hold_of(standing: Standing) -> Hold:
    """What a hold means for decisions. A document that cannot be relied on may say that the capability is stopped."""
    stopped = standing.stopped is not None or bool(standing.damage)
    return Hold("stopped" if stopped else "feed_stopped", standing.detail)


def _tell_of_fallback(name: str, error: Exception) -> None:
    logger.error("the model of %s did not start, its fallback answers: %s", name, error)
