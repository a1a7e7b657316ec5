"""Replays April as live traffic: a decision when a flight's doors close, an outcome when it lands, in that order.

    MAINSTAY_API_KEY=ms_... python examples/flights/replay.py --url http://127.0.0.1:8321 [--limit N] [--acknowledged FILE]

Time is compressed: an event is sent as soon as a connection is free. Calls whose connection broke, or that were told
to come back, are sent again and counted. Progress goes to standard output as JSON lines, the last of them a summary.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import itertools
import json
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from traffic import Departure, Landing, departures, landings

from mainstay.client.client import AsyncClient
from mainstay.client.errors import CallRefused, Unavailable
from mainstay.client.types import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator

CAPABILITY = "late-arrival"
CONNECTIONS = 16
REPORT_SIZE = 200  # outcomes a call
PROGRESS_SECONDS = 0.2
PAUSE_SECONDS = 0.05  # before a call is sent again
GIVE_UP_SECONDS = 20.0


class Replay:
    """One replay and what came of it."""

    def __init__(self, client: AsyncClient, acknowledged: TextIO | None) -> None:
        self._client = client
        self._acknowledged = acknowledged
        self._events: asyncio.Queue[Departure | list[Landing] | None] = asyncio.Queue(maxsize=CONNECTIONS * 4)
        self.by_outcome: Counter[str] = Counter()
        self.latencies: list[float] = []
        self.outcomes = 0
        self.repeated = 0
        self.at = ""

    async def run(self, limit: int | None) -> None:
        """Send everything; returns when every answer has come."""
        workers = [asyncio.create_task(self._work()) for _ in range(CONNECTIONS)]
        try:
            for event in self._batched(limit):
                await self._events.put(event)
            for _ in workers:
                await self._events.put(None)
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()

    def _batched(self, limit: int | None) -> Iterator[Departure | list[Landing]]:
        """Events in order of time, with landings gathered into reports."""
        flights = list(itertools.islice(departures(), limit))
        sent = {flight.key for flight in flights}
        arrived = (landing for landing in landings() if landing.key in sent)
        landed: list[Landing] = []
        for event in heapq.merge(flights, arrived, key=lambda event: event.at):
            self.at = event.at.isoformat()
            if isinstance(event, Departure):
                yield event
                continue
            landed.append(event)
            if len(landed) == REPORT_SIZE:
                yield landed
                landed = []
        if landed:
            yield landed

    async def _work(self) -> None:
        while (event := await self._events.get()) is not None:
            if isinstance(event, Departure):
                await self._decide(event)
            else:
                await self._report(event)

    async def _decide(self, flight: Departure) -> None:
        begun = time.perf_counter()
        give_up = begun + GIVE_UP_SECONDS
        while True:
            try:
                decision = await self._client.decide(CAPABILITY, flight.input, key=flight.key)
            except CallRefused as refused:
                if refused.decision_id is None:
                    raise
                self._note(refused.decision_id, "refused", refused.reasons[0].code)
                break
            except Unavailable:
                self.repeated += 1
                if time.perf_counter() > give_up:
                    raise
                await asyncio.sleep(PAUSE_SECONDS)
                begun = time.perf_counter()
            else:
                self._note(decision.decision_id, decision.outcome, decision.reasons[0].code if decision.reasons else "")
                break
        self.latencies.append(time.perf_counter() - begun)

    async def _report(self, landed: list[Landing]) -> None:
        reports = [Outcome(key=each.key, outcome=dict(each.outcome), observed_at=each.at) for each in landed]
        give_up = time.perf_counter() + GIVE_UP_SECONDS
        while True:
            try:
                self.outcomes += (await self._client.report(CAPABILITY, reports)).recorded
            except Unavailable:
                self.repeated += 1
                if time.perf_counter() > give_up:
                    raise
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                return

    def _note(self, decision_id: str, outcome: str, reason: str) -> None:
        self.by_outcome[f"{outcome}\t{reason}"] += 1
        if self._acknowledged is not None:
            self._acknowledged.write(decision_id + "\n")

    def progress(self) -> dict[str, object]:
        return {
            "decisions": self.by_outcome.total(),
            "outcomes": self.outcomes,
            "repeated": self.repeated,
            "at": self.at,
        }

    def summary(self, seconds: float) -> dict[str, object]:
        """What came of it; latencies in milliseconds, as the caller saw them."""
        ordered = sorted(self.latencies)
        quantiles = {
            f"p{share}": round(ordered[min(len(ordered) - 1, len(ordered) * share // 100)] * 1000, 2)
            if ordered
            else None
            for share in (50, 95, 99)
        }
        return {
            **self.progress(),
            "done": True,
            "seconds": round(seconds, 2),
            "latency_ms": quantiles,
            "by_outcome": [[*key.split("\t"), count] for key, count in self.by_outcome.most_common()],
        }


async def _tell(replay: Replay) -> None:
    while True:
        await asyncio.sleep(PROGRESS_SECONDS)
        print(json.dumps(replay.progress()), flush=True)


async def replay_april(url: str, key: str, limit: int | None, acknowledged: TextIO | None) -> None:
    """The whole replay against the service at `url`."""
    async with AsyncClient(url, key) as client:
        replay = Replay(client, acknowledged)
        teller = asyncio.create_task(_tell(replay))
        begun = time.perf_counter()
        try:
            await replay.run(limit)
        finally:
            teller.cancel()
        print(json.dumps(replay.summary(time.perf_counter() - begun)), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Replay April 2013 as live traffic.")
    parser.add_argument("--url", required=True)
    parser.add_argument("--limit", type=int, help="flights to send; by default all of April")
    parser.add_argument("--acknowledged", type=Path, help="a file for the id of every decision that was answered")
    given = parser.parse_args()
    key = os.environ.get("MAINSTAY_API_KEY", "")
    if not key:
        sys.exit("no API key: expected one in MAINSTAY_API_KEY")
    if given.acknowledged is None:
        asyncio.run(replay_april(given.url, key, given.limit, None))
        return
    with given.acknowledged.open("w", buffering=1) as acknowledged:
        asyncio.run(replay_april(given.url, key, given.limit, acknowledged))


if __name__ == "__main__":
    main()
