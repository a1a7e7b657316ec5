"""Deciding in this process: the service's own application, asked without a socket.

Identity, limits, contract, policies, fallbacks and records are those of the HTTP face, because it is the same code:
what leaves is the same answer, and what stays in the ledger is the same record. Records are sealed by the workspace's
control process, whenever one runs.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, Self

import httpx
import uvloop

from mainstay.client.errors import Unavailable
from mainstay.client.protocol import (
    Answer,
    Body,
    Call,
    decide_call,
    decide_many_call,
    read_decision,
    read_decisions,
    read_recorded,
    report_call,
)
from mainstay.client.types import Decision, Item, Outcome, Recorded
from mainstay.decision.in_force import Watch
from mainstay.decision.path import DecisionPath
from mainstay.errors import Misuse
from mainstay.ledger.journal import Journal
from mainstay.server.app import Application, observe_into
from mainstay.server.metrics import Counts
from mainstay.workspace import find_workspace

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from mainstay.workspace import Workspace

logger = logging.getLogger("mainstay.embedded")

API_KEY_VARIABLE = "MAINSTAY_API_KEY"
GRACE_SECONDS = 5.0  # beyond the deadline of a decision, before waiting for it is given up


def embed(name: str, workspace: Path | str = ".", *, key: str | None = None) -> Embedded:
    """The capability `name` of the workspace at or above `workspace`, to be decided in this process.

    `key` is the API key to decide under; by default what MAINSTAY_API_KEY holds. Close what is returned, or use it in a
    `with`. Raises Misuse when there is no such workspace or key, or nothing of that name is in production.
    """
    token = key or os.environ.get(API_KEY_VARIABLE, "")
    if not token:
        raise Misuse(f"expected an API key, as `key` or in {API_KEY_VARIABLE}", hint="Make one with `mainstay key`.")
    return Embedded(name, find_workspace(Path(workspace)), token)


class Embedded:
    """One capability, decided in this process. Threads may share it."""

    def __init__(self, name: str, workspace: Workspace, token: str) -> None:
        self._name = name
        self._host = _Host(workspace)
        self._headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        self._timeout_seconds = self._host.deadline_seconds(name) + GRACE_SECONDS
        atexit.register(self.close)

    def decide(
        self,
        input: Mapping[str, Any],  # noqa: A002 -- the word of the interface
        *,
        key: str | None = None,
        deadline_ms: int | None = None,
    ) -> Decision:
        """One decision; raises as `mainstay.Client.decide` does."""
        return read_decision(self._send(decide_call(self._name, input, key, deadline_ms)))

    def decide_many(self, items: Sequence[Item]) -> list[Decision]:
        """One decision per item, in order."""
        return read_decisions(self._send(decide_many_call(self._name, items)), len(items)) if items else []

    def report(self, outcomes: Sequence[Outcome]) -> Recorded:
        """Outcomes, durably recorded when this returns."""
        if not outcomes:
            return Recorded(recorded=0)
        return read_recorded(self._send(report_call(self._name, outcomes)), len(outcomes))

    def close(self) -> None:
        """Answer what is under way, close the journal in good order, end the models. Closing again does nothing."""
        atexit.unregister(self.close)
        self._host.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, call: Call) -> Answer:
        exchange = _Exchange(call, self._headers)
        self._host.run(exchange, self._timeout_seconds)
        body = Body(exchange.status, self._timeout_seconds)
        body.add(exchange.answer)
        return body.answer(httpx.Headers(exchange.answer_headers))


class _Exchange:
    """One call in the form the application takes: granian's scope and protocol in one."""

    method = "POST"

    def __init__(self, call: Call, headers: dict[str, str]) -> None:
        self.path = call.path
        self.headers = headers | {"content-length": str(len(call.content))}
        self._content = call.content
        self.status = 500
        self.answer = b""
        self.answer_headers: list[tuple[str, str]] = []

    async def __call__(self) -> bytes:
        return self._content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._content

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.status, self.answer_headers, self.answer = status, headers, body


class _Host:
    """An event loop on a thread of its own, with the application on it."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._loop = uvloop.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="mainstay", daemon=True)
        self._thread.start()
        self._closed = False
        try:
            asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        except BaseException:  # whatever kept it from starting, the thread must not be left behind
            self._stop()
            raise

    async def _start(self) -> None:
        workspace, counts = self._workspace, Counts()

        def open_journal(on_idle: Callable[[], None]) -> Journal:
            return Journal(workspace.ledger / "wal", self._loop.call_soon_threadsafe, on_idle=on_idle)

        self._path = DecisionPath(
            self._loop,
            open_journal,
            observe_into(counts),
            call_bytes=workspace.settings.max_body_bytes,
            memory=workspace.memory,
            shadowing=(lambda: open_journal(lambda: None), counts.count_shadow),
        )
        self._app = Application(workspace, self._path, counts, lambda: counts)
        self._watch = Watch(workspace, self._path, self._app.trust, self._app.forget_callers)
        self._watch.on_services = self._app.route
        await self._watch.start()

    def deadline_seconds(self, name: str) -> float:
        """Raises Misuse when nothing of this name is in production."""
        service = self._path.services.get(name)
        if service is None:
            known = ", ".join(sorted(self._path.services)) or "nothing"
            self.close()
            raise Misuse(f"expected a capability in production, found no {name!r}: there is {known}")
        return service.release.capability.deadline_ms / 1000

    def run(self, exchange: _Exchange, timeout_seconds: float) -> None:
        if self._closed:
            raise Misuse("this was closed", hint="Call `mainstay.embed` again.")
        future = asyncio.run_coroutine_threadsafe(self._app.__rsgi__(exchange, exchange), self._loop)
        try:
            future.result(timeout_seconds)
        except TimeoutError:
            raise Unavailable(f"no answer within {timeout_seconds:g} s") from None

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
            self._stop()

    async def _end(self) -> None:
        self._watch.stop()
        await self._path.drained(self._workspace.settings.drain_seconds)
        await self._app.close()
        self._path.close()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
