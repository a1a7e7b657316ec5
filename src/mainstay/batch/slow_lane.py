"""Rows that are not simply answered by a graph in this process, decided by the service itself.

Contract violations, doubts, denials, fallbacks, models that run elsewhere: what becomes of each is the service's to
say, and so it is asked, without a clock that hurries it and without a journal: what it would record is taken from it.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from mainstay.decision.path import DecisionPath
from mainstay.decision.record import DecisionRecorder, Recorded, Served
from mainstay.decision.replay import BATCH, unhurried
from mainstay.errors import Failed
from mainstay.ledger.journal import Place

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from mainstay.decision.plan import Plan, ReleasePlan
    from mainstay.decision.record import Stamp, Took, Verdict
    from mainstay.decision.service import Service
    from mainstay.decision.types import Hold

_NOT_KEPT: Final = OSError("what is decided here is recorded by others")


class Settled(NamedTuple):
    """What the service would have recorded of one row."""

    key: bytes
    given: bytes
    verdict: Verdict
    canary: bool


class _Captor(DecisionRecorder):
    """A recorder that keeps what it is given. The principal of each call is its number here."""

    def __init__(self, plan: Plan, kept: dict[int, Settled]) -> None:
        super().__init__(Served("", "", 0, plan.stage, ""), "")
        self._canary = plan.stage == "canary"
        self._kept = kept

    def record(
        self, stamp: Stamp, principal: bytes, key: bytes, given: bytes, verdict: Verdict, took: Took
    ) -> Recorded:
        del took  # nobody waited
        stamp.next()
        self._kept[int(principal)] = Settled(key, bytes(given), verdict, self._canary)
        return Recorded(b"", b"")


class _Nameless:
    """In the place of a segment: the ids that are made of its name are thrown away."""

    name = "0000000000"


class _Nowhere:
    """In the place of a journal. Nobody is answered by it, so that nothing is remembered as answered either."""

    outstanding = 0
    healthy = True

    def next_place(self) -> Place:
        return Place(cast("Any", _Nameless), 0)

    def submit(self, _place: Place, _framed: bytes, _count: int, done: Callable[[OSError | None], None]) -> None:
        done(_NOT_KEPT)

    def close(self) -> None:
        """Nothing was opened."""


class SlowLane:
    """The service of a release. An object is for one thread; it is opened when it is first asked."""

    def __init__(self, release: ReleasePlan, memory: Path, call_bytes: int) -> None:
        """`memory` holds last good answers; `call_bytes` is the most that one call may have."""
        self._kept: dict[int, Settled] = {}
        self._release = self._captured(release)
        self._memory = memory
        self._call_bytes = call_bytes
        self._loop = asyncio.new_event_loop()
        self._service: Service | None = None

    def decide(self, calls: Sequence[tuple[bytes, bool]], held: Hold | None) -> list[Settled]:
        """What becomes of each call, and of whether its row goes to the canary. `held`: why the model is not asked.

        Raises Failed when a model does not start.
        """
        service = self._opened()
        service.held = held
        settled: list[Settled] = []
        for start in range(0, len(calls), BATCH):
            settled += self._loop.run_until_complete(self._decide(service, calls[start : start + BATCH]))
        return settled

    def close(self) -> None:
        """Let go of the models."""
        if self._service is not None:
            self._loop.run_until_complete(_closed(self._service))
        self._loop.close()

    async def _decide(self, service: Service, calls: Sequence[tuple[bytes, bool]]) -> list[Settled]:
        await service.wait_ready(service.release.capability.model.start_seconds)
        self._kept.clear()
        release = service.release
        gates = []
        for number, (call, to_canary) in enumerate(calls):
            plan = release.canary if to_canary else release.production
            gate, _ = service.decide_each(b"%d" % number, [call], plan=plan)
            gates.append(gate.opened)
        await asyncio.gather(*gates)
        if len(self._kept) < len(calls):
            raise Failed(f"{len(calls) - len(self._kept)} of {len(calls)} rows came to no end")
        return [self._kept[number] for number in range(len(calls))]

    def _opened(self) -> Service:
        if self._service is None:
            path = DecisionPath(
                self._loop,
                lambda _on_idle: _Nowhere(),
                lambda _item, _seconds: None,
                call_bytes=self._call_bytes,
                memory=self._memory,
            )
            self._service = path.open(self._release)
        return self._service

    def _captured(self, release: ReleasePlan) -> ReleasePlan:
        patient = unhurried(release)

        def captured(plan: Plan) -> Plan:
            return replace(plan, recorder=_Captor(plan, self._kept))

        fallbacks = {digest: captured(plan) for digest, plan in patient.fallbacks.items()}
        canary = None if patient.canary is None else captured(patient.canary)
        return replace(patient, production=captured(patient.production), canary=canary, fallbacks=fallbacks)


async def _closed(service: Service) -> None:
    service.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.gather(*others, return_exceptions=True)
