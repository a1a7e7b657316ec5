"""Sends April to December 2013 as live traffic, as far as it is told to: decisions when doors close, outcomes later.

    MAINSTAY_API_KEY=ms_... python examples/flights/year.py --url http://127.0.0.1:8321 --kept answers.jsonl --every 3

Standard input has a line of JSON for each stretch: `{"until": "2013-04-05"}` sends every flight scheduled before that
day and not sent yet, in calls of many, then every landing before it. `"kilometres": true` sends the distances of the
stretch in kilometres, as a feed does whose unit somebody changed. Standard output answers each with what came of it,
and `--kept` gets a line for every flight: what was sent, what was decided by which version, and how it landed.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import os
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traffic import Departure, Landing, departures_of, landings_of

from mainstay.client.client import Client
from mainstay.client.types import Item, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import TextIO

    from mainstay.client.types import Decision

CAPABILITY = "late-arrival"
MONTHS = range(4, 13)
FLIGHTS_A_CALL = 100
OUTCOMES_A_CALL = 500
CONNECTIONS = 4  # the kernel deals them out to the workers
RETRIES = 8  # of a call that was told to come back
KM_PER_MILE = 1.609344


class Year:
    """The events of the year in order, and what became of those that were sent."""

    def __init__(self, clients: Sequence[Client], every: int, kept: TextIO) -> None:
        self._clients = clients
        self._pool = ThreadPoolExecutor(len(clients))
        self._kept = kept
        departures: Iterator[Departure | Landing]
        departures = itertools.chain.from_iterable(departures_of(month, every) for month in MONTHS)
        landings = itertools.chain.from_iterable(landings_of(month, every) for month in MONTHS)
        self._events = heapq.merge(departures, landings, key=lambda event: event.at)
        self._next: Departure | Landing | None = next(self._events, None)

    def send(self, until: datetime, *, kilometres: bool) -> dict[str, Any]:
        """Everything before an instant: the departures, and then the landings."""
        events = list(self._before(until))
        flights = [event for event in events if isinstance(event, Departure)]
        landed = [event for event in events if isinstance(event, Landing)]
        items = [Item(_kilometres(each.input) if kilometres else each.input, each.key) for each in flights]
        decided = self._decide(items)
        for flight, item, decision in zip(flights, items, decided, strict=True):
            self._keep(flight, item, decision)
        self._report(landed)
        for landing in landed:
            self._kept.write(json.dumps({"key": landing.key, "late": landing.outcome["late"]}) + "\n")
        self._kept.flush()
        by = Counter((each.version, each.stage, each.outcome) for each in decided)
        return {
            "until": until.isoformat(),
            "decisions": len(decided),
            "outcomes": len(landed),
            "by": [[*key, count] for key, count in by.most_common()],
            "ended": self._next is None,
        }

    def _before(self, until: datetime) -> Iterator[Departure | Landing]:
        while self._next is not None and self._next.at < until:
            yield self._next
            self._next = next(self._events, None)

    def _decide(self, items: list[Item]) -> list[Decision]:
        parts = [items[start : start + FLIGHTS_A_CALL] for start in range(0, len(items), FLIGHTS_A_CALL)]
        clients = itertools.cycle(self._clients)
        calls = [self._pool.submit(next(clients).decide_many, CAPABILITY, part) for part in parts]
        return [decision for call in calls for decision in call.result()]

    def _report(self, landed: list[Landing]) -> None:
        reports = [Outcome(key=each.key, outcome=dict(each.outcome), observed_at=each.at) for each in landed]
        for start in range(0, len(reports), OUTCOMES_A_CALL):
            self._clients[0].report(CAPABILITY, reports[start : start + OUTCOMES_A_CALL])

    def _keep(self, flight: Departure, item: Item, decision: Decision) -> None:
        line = {
            "key": flight.key,
            "at": flight.at.isoformat(),
            "input": flight.input,
            "sent": item.input if item.input is not flight.input else None,
            "version": decision.version,
            "stage": decision.stage,
            "outcome": decision.outcome,
            "reason": decision.reasons[0].code if decision.reasons else None,
            "output": decision.output,
        }
        self._kept.write(json.dumps(line) + "\n")


def _kilometres(record: dict[str, str | int | float | None]) -> dict[str, Any]:
    miles = record["distance"]
    assert isinstance(miles, int)
    return {**record, "distance": round(miles * KM_PER_MILE)}


def main() -> None:
    parser = argparse.ArgumentParser(description="Send April to December 2013 as live traffic.")
    parser.add_argument("--url", required=True)
    parser.add_argument("--every", type=int, default=1, help="about one flight in so many, by their keys")
    parser.add_argument("--kept", type=Path, required=True, help="a file for what was sent and what came of it")
    given = parser.parse_args()
    token = os.environ.get("MAINSTAY_API_KEY", "")
    if not token:
        sys.exit("no API key: expected one in MAINSTAY_API_KEY")
    clients = [Client(given.url, token, timeout_seconds=60.0, retries=RETRIES) for _ in range(CONNECTIONS)]
    with given.kept.open("w") as kept:
        year = Year(clients, given.every, kept)
        print(json.dumps({"ready": True}), flush=True)
        for line in sys.stdin:
            asked = json.loads(line)
            until = datetime.fromisoformat(asked["until"]).replace(tzinfo=UTC)
            print(json.dumps(year.send(until, kilometres=asked.get("kilometres", False))), flush=True)


if __name__ == "__main__":
    main()
