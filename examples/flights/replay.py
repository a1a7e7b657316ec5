"""Replays April as live traffic: a decision when a flight's doors close, an outcome when it lands, in that order.

    MAINSTAY_API_KEY=ms_... python examples/flights/replay.py --url http://127.0.0.1:8321 --limit 1000

Time is compressed: an event is sent as soon as a connection is free. Calls whose connection broke, or that were told
to come back, are sent again and counted. Progress goes to standard output as JSON lines, the last of them a summary.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import os
import sys
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import Full, Queue
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, TextIO

from traffic import Departure, Landing, departures, landings

from mainstay.client.client import Client
from mainstay.client.errors import CallRefused, Unavailable
from mainstay.client.types import Outcome
from mainstay.errors import Failed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mainstay.client.types import Reason

CAPABILITY = "late-arrival"
CONNECTIONS = 8
REPORT_SIZE = 200  # outcomes a call
PROGRESS_SECONDS = 0.2
PAUSE_SECONDS = 0.05  # before a call is sent again
GIVE_UP_SECONDS = 20.0


class Replay:
    """One replay and what came of it. Each connection is a thread with a client of its own."""

    def __init__(self, url: str, key: str, acknowledged: TextIO | None) -> None:
        self._url = url
        self._key = key
        self._acknowledged = acknowledged
        self._events: Queue[Departure | list[Landing] | None] = Queue(maxsize=CONNECTIONS * 4)
        self._lock = Lock()
        self.by_outcome: Counter[str] = Counter()
        self.latencies: list[float] = []
        self.outcomes = 0
        self.repeated = 0
        self.at = ""

    def run(self, limit: int | None) -> None:
        """Send everything; returns when every answer has come. Raises what a thread could not go on from."""
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            workers = [pool.submit(self._work) for _ in range(CONNECTIONS)]
            for event in self._batched(limit):
                self._put(event, workers)
            for _ in workers:
                self._put(None, workers)
            for worker in workers:
                worker.result()

    def _put(self, event: Departure | list[Landing] | None, workers: list[Future[None]]) -> None:
        """Hand an event over; raises what ended a worker, so that nobody waits for it."""
        while True:
            for worker in workers:
                if worker.done():
                    worker.result()
            try:
                self._events.put(event, timeout=1.0)
            except Full:
                continue
            return

    def _batched(self, limit: int | None) -> Iterator[Departure | list[Landing]]:
        """Events in order of time, with landings gathered into reports."""
        flights = list(itertools.islice(departures(), limit))
        sent = {flight.key for flight in flights}
        arrived: Iterator[Departure | Landing] = (landing for landing in landings() if landing.key in sent)
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

    def _work(self) -> None:
        with Client(self._url, self._key) as client:
            while (event := self._events.get()) is not None:
                if isinstance(event, Departure):
                    self._decide(client, event)
                else:
                    self._report(client, event)

    def _decide(self, client: Client, flight: Departure) -> None:
        give_up = time.perf_counter() + GIVE_UP_SECONDS
        while True:
            begun = time.perf_counter()
            try:
                decision = client.decide(CAPABILITY, flight.input, key=flight.key)
            except CallRefused as refused:
                if refused.decision_id is None:
                    raise
                return self._note(refused.decision_id, "refused", refused.reasons, time.perf_counter() - begun)
            except Unavailable:
                self._again(give_up)
            else:
                took = time.perf_counter() - begun
                return self._note(decision.decision_id, decision.outcome, decision.reasons, took)

    def _report(self, client: Client, landed: list[Landing]) -> None:
        reports = [Outcome(key=each.key, outcome=dict(each.outcome), observed_at=each.at) for each in landed]
        give_up = time.perf_counter() + GIVE_UP_SECONDS
        while True:
            try:
                recorded = client.report(CAPABILITY, reports).recorded
            except Unavailable:
                self._again(give_up)
            else:
                with self._lock:
                    self.outcomes += recorded
                return

    def _again(self, give_up: float) -> None:
        """Count a call that has to be sent again, and wait a little. Raises Failed when it has been tried for long."""
        with self._lock:
            self.repeated += 1
        if time.perf_counter() > give_up:
            raise Failed(f"{self._url} took no call for {GIVE_UP_SECONDS:.0f} s")
        time.sleep(PAUSE_SECONDS)

    def _note(self, decision_id: str, outcome: str, reasons: tuple[Reason, ...], seconds: float) -> None:
        reason = reasons[0].code if reasons else ""
        with self._lock:
            self.by_outcome[f"{outcome}\t{reason}"] += 1
            self.latencies.append(seconds)
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


def _tell(replay: Replay, stop: Event) -> None:
    while not stop.wait(PROGRESS_SECONDS):
        print(json.dumps(replay.progress()), flush=True)


def replay_april(url: str, key: str, limit: int | None, acknowledged: TextIO | None) -> None:
    """The whole replay against the service at `url`."""
    replay = Replay(url, key, acknowledged)
    stop = Event()
    teller = Thread(target=_tell, args=(replay, stop), daemon=True)
    teller.start()
    begun = time.perf_counter()
    try:
        replay.run(limit)
    finally:
        stop.set()
        teller.join()
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
        replay_april(given.url, key, given.limit, None)
        return
    with given.acknowledged.open("w", buffering=1) as acknowledged:
        replay_april(given.url, key, given.limit, acknowledged)


if __name__ == "__main__":
    main()
