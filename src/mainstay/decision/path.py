"""The decision path of one process: nine steps from a call to a recorded answer.

    1 identify   who calls, and whether they may (the face does it: it owns the credentials of its protocol)
    2 admit      refuse early when as many wait as the capability allows
    3 validate   the contract; all errors
    4 protect    what may be recorded of the input
    5 route      the release in force, and the lane of its model
    6 run        in batches of what is waiting; the deadline
    7 guard      the output against the contract; the fallback
    8 record     framed, group-committed
    9 answer     only after the record is on disk

Everything here runs on the event loop's thread; the model and the disk may be waited for, never the other way round.
"""

from __future__ import annotations

import asyncio
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Protocol

from mainstay.decision.last_good import LastGood
from mainstay.decision.service import DONE, Service
from mainstay.decision.shadow import ShadowDesk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from mainstay.decision.plan import ReleasePlan
    from mainstay.decision.service import Pending
    from mainstay.decision.shadow import CountShadow
    from mainstay.ledger.journal import Place

DRAIN_POLL_SECONDS = 0.02
TICK_SECONDS = 0.005  # how finely deadlines are kept
TIMER_EARLY_SECONDS = 0.001  # what the loop's timers may be early: they count milliseconds


class Recording(Protocol):
    """Where records go: the journal of a process, whose words these are."""

    outstanding: int

    @property
    def healthy(self) -> bool: ...
    def next_place(self) -> Place: ...
    def submit(self, place: Place, framed: bytes, count: int, done: Callable[[OSError | None], None], /) -> None: ...
    def close(self) -> None: ...


class DecisionPath:
    """All that a process serves: services by capability, one journal, one sweeper of deadlines."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        journal_factory: Callable[[Callable[[], None]], Recording],
        observe: Callable[[Pending, float], None],
        *,
        call_bytes: int,
        memory: Path,
        shadowing: tuple[Callable[[], Recording], CountShadow] | None = None,
    ) -> None:
        """`call_bytes` is the most that one call of a batch may have; `memory` a directory for last good answers.

        `journal_factory` is given what to call whenever the journal has nothing left to write. `observe` is told each
        decision that ended, and how many seconds it took. `shadowing` opens another journal, for what shadows would
        have decided, and is told what becomes of that; without it no shadow is run.
        """
        self.loop = loop
        self.observe = observe
        self.call_bytes = call_bytes
        self._memory = memory
        self.services: dict[str, Service] = {}
        self._retiring: list[Service] = []
        self._deadlines: dict[int, list[tuple[Service, Pending]]] = {}  # by tick
        self._ticks: list[int] = []  # those of `_deadlines`, as a heap
        self._sweeping = False
        self.journal = journal_factory(self._start_lanes)
        self._shadow_desk = None if shadowing is None else ShadowDesk(loop, *shadowing)

    @property
    def in_flight(self) -> int:
        return sum(service.waiting for service in (*self.services.values(), *self._retiring))

    def open(self, release: ReleasePlan) -> Service:
        """A service for a release, its models starting; it takes calls once `serve` is given it."""
        last_good = None
        if any(step.name == "last_good" for plan in release.plans.values() for step in plan.ladder):
            self._memory.mkdir(parents=True, exist_ok=True)
            contract = release.production.manifest.contract.digest
            last_good = LastGood(self._memory / f"{release.capability.name}.table", contract)
        desk = self._shadow_desk
        shadows = () if desk is None else tuple(desk.open(each) for each in release.shadows)
        return Service(self, release, last_good, shadows)

    def serve(self, services: Iterable[Service]) -> None:
        """Serve these from now on. Calls begun in earlier ones end there."""
        before = self.services
        self.services = {service.release.capability.name: service for service in services}
        for name, service in before.items():
            if self.services.get(name) is not service:
                self._retiring.append(service)
                service.retire()

    async def drained(self, seconds: float) -> bool:
        """Wait until everything accepted is answered, at most `seconds`; whether it is."""
        until = self.loop.time() + seconds
        while self.in_flight and self.loop.time() < until:  # noqa: ASYNC110 - once in a process's life
            await asyncio.sleep(DRAIN_POLL_SECONDS)
        return not self.in_flight

    def close(self) -> None:
        """Let go of every model, and close the journal in good order."""
        for service in (*self.services.values(), *self._retiring):
            service.close()
        self.journal.close()
        if self._shadow_desk is not None:
            self._shadow_desk.close()

    def forget(self, service: Service) -> None:
        """A retired service has answered its last call."""
        self._retiring.remove(service)

    def may_start(self) -> bool:
        """A batch begins when the last group is on disk, so that what comes meanwhile makes one batch and one group."""
        return self.journal.outstanding == 0

    def expect(self, service: Service, item: Pending, deadline: float) -> None:
        """Have `service.expire(item)` called at `deadline` (seconds of the loop's clock), if the item is not done."""
        tick = int(deadline / TICK_SECONDS) + 1
        due = self._deadlines.get(tick)
        if due is None:
            due = self._deadlines[tick] = []
            heappush(self._ticks, tick)
        due.append((service, item))
        if not self._sweeping:
            self._sweeping = True
            self._sweep_at_next_tick()

    def _sweep(self) -> None:
        now = int(self.loop.time() / TICK_SECONDS)
        while self._ticks and self._ticks[0] <= now:
            for service, item in self._deadlines.pop(heappop(self._ticks)):
                if item.state != DONE:
                    service.expire(item)
        self._sweeping = bool(self._deadlines)
        if self._sweeping:
            self._sweep_at_next_tick()

    def _sweep_at_next_tick(self) -> None:
        tick = int(self.loop.time() / TICK_SECONDS) + 1
        self.loop.call_at(tick * TICK_SECONDS + TIMER_EARLY_SECONDS, self._sweep)

    def _start_lanes(self) -> None:
        for service in (*self.services.values(), *self._retiring):
            service.start_lanes()
