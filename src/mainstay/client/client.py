"""Asking for decisions and reporting outcomes over HTTP.

>>> with Client("https://decisions.example.com", key) as client:  # doctest: +SKIP
...     decision = client.decide("late-arrival", {"carrier": "UA", "dep_delay": 12}, key="2013-04-01-UA-1545-EWR")
...     decision.output["late"]

`Client` and `AsyncClient` are alike to the word; all they share is in `protocol`. Every method raises

* Misuse        before anything is sent: the call itself is wrong
* CallRefused   the service said no, with every violation of the contract
* Unavailable   no answer now: too busy, down, unreachable, or not within `timeout_seconds`
* BadAnswer     what answered is not the service

`timeout_seconds` bounds connecting, each wait for bytes, and then the body as a whole. With `retries`, a failed
connection, 429 and 503 are tried again after a random wait. A connection may fail after the service decided: then a
repeated call is decided, and recorded, twice; a business key tells that the two are one case.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Self

import httpx

from mainstay.client.errors import Unavailable
from mainstay.client.protocol import (
    Answer,
    Attempts,
    Body,
    Call,
    Target,
    decide_call,
    decide_many_call,
    read_decision,
    read_decisions,
    read_recorded,
    report_call,
    transport_failure,
)
from mainstay.client.types import Decision, Item, Outcome, Recorded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Client:
    """Connections to one service under one key. Threads may share it; close it, or use it in a `with`."""

    def __init__(self, url: str, key: str, *, timeout_seconds: float = 10.0, retries: int = 0) -> None:
        self._target = Target(url, key, timeout_seconds, retries)
        self._http = httpx.Client(**self._target.settings())

    def decide(
        self,
        capability: str,
        input: Mapping[str, Any],  # noqa: A002 -- the word of the interface
        *,
        key: str | None = None,
        deadline_ms: int | None = None,
    ) -> Decision:
        """One decision. `key` is the business key that its outcome may be reported under."""
        return read_decision(self._send(decide_call(capability, input, key, deadline_ms)))

    def decide_many(self, capability: str, items: Sequence[Item]) -> list[Decision]:
        """One decision per item, in order. An input against the contract makes one too: refused, with violations."""
        if not items:
            return []
        return read_decisions(self._send(decide_many_call(capability, items)), len(items))

    def report(self, capability: str, outcomes: Sequence[Outcome]) -> Recorded:
        """Outcomes, durably recorded when this returns. To report one twice is safe."""
        if not outcomes:
            return Recorded(recorded=0)
        return read_recorded(self._send(report_call(capability, outcomes)), len(outcomes))

    def _send(self, call: Call) -> Answer:
        attempts = Attempts(self._target.retries)
        while True:
            try:
                return self._exchange(call)
            except Unavailable as error:
                time.sleep(attempts.pause_seconds(error))

    def _exchange(self, call: Call) -> Answer:
        try:
            with self._http.stream("POST", call.path, content=call.content) as response:
                body = Body(response.status_code, self._target.timeout_seconds)
                for chunk in response.iter_raw():
                    body.add(chunk)
        except httpx.HTTPError as error:
            raise transport_failure(error, self._target) from error
        return body.answer(response.headers)

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self._target.url!r})"


class AsyncClient:
    """Connections to one service under one key, on an asyncio loop. Close it, or use it in an `async with`."""

    def __init__(self, url: str, key: str, *, timeout_seconds: float = 10.0, retries: int = 0) -> None:
        self._target = Target(url, key, timeout_seconds, retries)
        self._http = httpx.AsyncClient(**self._target.settings())

    async def decide(
        self,
        capability: str,
        input: Mapping[str, Any],  # noqa: A002 -- the word of the interface
        *,
        key: str | None = None,
        deadline_ms: int | None = None,
    ) -> Decision:
        """One decision. `key` is the business key that its outcome may be reported under."""
        return read_decision(await self._send(decide_call(capability, input, key, deadline_ms)))

    async def decide_many(self, capability: str, items: Sequence[Item]) -> list[Decision]:
        """One decision per item, in order. An input against the contract makes one too: refused, with violations."""
        if not items:
            return []
        return read_decisions(await self._send(decide_many_call(capability, items)), len(items))

    async def report(self, capability: str, outcomes: Sequence[Outcome]) -> Recorded:
        """Outcomes, durably recorded when this returns. To report one twice is safe."""
        if not outcomes:
            return Recorded(recorded=0)
        return read_recorded(await self._send(report_call(capability, outcomes)), len(outcomes))

    async def _send(self, call: Call) -> Answer:
        attempts = Attempts(self._target.retries)
        while True:
            try:
                return await self._exchange(call)
            except Unavailable as error:
                await asyncio.sleep(attempts.pause_seconds(error))

    async def _exchange(self, call: Call) -> Answer:
        try:
            async with self._http.stream("POST", call.path, content=call.content) as response:
                body = Body(response.status_code, self._target.timeout_seconds)
                async for chunk in response.aiter_raw():
                    body.add(chunk)
        except httpx.HTTPError as error:
            raise transport_failure(error, self._target) from error
        return body.answer(response.headers)

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncClient({self._target.url!r})"
