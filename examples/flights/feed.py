"""Serves two months out of New York as daily files over HTTP, as real feeds are: late, twice, renamed, in other units.

    python examples/flights/feed.py --port 8399

`GET /departures?since=N` gives the first file that was published after number N, as `{"file": "2013-02-01.json",
"departures": [{...}, ...], "next": M}`; every departure says in `published` the number of its file, and `after=M` asks
for the one behind. `next` is null with the last. Nothing is published before `POST /begin`. What is wrong with a file
stands in TROUBLE; `POST /mend/NAME` publishes the file of that trouble once more, as it should have been. `GET /truth`
says what a table must hold that lost and doubled nothing. Standard output tells what was served.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import parse_qs, urlsplit

from traffic import Departure, departures_of

if TYPE_CHECKING:
    from collections.abc import Iterable

MONTHS: Final = (2, 3)  # of 2013
KM_PER_MILE: Final = 1.609344

Record = dict[str, Any]


class Trouble(NamedTuple):
    """One thing that is wrong with a day's file, or with when it comes."""

    name: str
    day: str
    what: str


LATE: Final = Trouble("late-file", "2013-03-05", "the file comes two days after it was due")
TWICE: Final = Trouble("twice", "2013-03-09", "the same file comes twice")
NEW_CARRIER: Final = Trouble("new-carrier", "2013-03-13", "an airline that nobody has seen")
RENAMED: Final = Trouble("renamed", "2013-03-19", "`distance` is called `distance_mi`")
KILOMETRES: Final = Trouble("kilometres", "2013-03-25", "distances are in kilometres")
TROUBLE: Final = (LATE, TWICE, NEW_CARRIER, RENAMED, KILOMETRES)

_NEW_AIRLINE: Final = "ZW"  # flew nothing out of New York in 2013
_TAKEN_OVER: Final = "EV"  # whose first flights of the day it flies
_TAKEN_OVER_FLIGHTS: Final = 40
_LATE_DAYS: Final = 2


class Published(NamedTuple):
    """A file as it is served."""

    name: str
    records: list[Record]


def publish() -> list[Published]:
    """The files in the order in which they come, with their trouble."""
    days = _days()
    order = list(days)
    due = order.index(LATE.day)
    order.insert(due + _LATE_DAYS, order.pop(due))
    order.insert(order.index(TWICE.day) + 1, TWICE.day)
    published = []
    for day in order:
        records = [_troubled(day, i, record) for i, record in enumerate(days[day])]
        published.append(Published(f"{day}.json", records))
    return published


def mended(name: str) -> Published:
    """The file of a trouble as it should have been. Raises ValueError when there is no such trouble."""
    (trouble,) = (each for each in TROUBLE if each.name == name)
    return Published(f"{trouble.day}.json", _days()[trouble.day])


def _days() -> dict[str, list[Record]]:
    """Every departure as the contract's `flight`, by day as a calendar in New York has it, in order."""
    days: dict[str, list[Record]] = {}
    for month in MONTHS:
        for flight in departures_of(month):
            days.setdefault(flight.key[:10], []).append(_record(flight))
    return dict(sorted(days.items()))


def _record(flight: Departure) -> Record:
    return {"flight": flight.key, **flight.input}


def _troubled(day: str, i: int, record: Record) -> Record:
    if day == RENAMED.day:
        return {("distance_mi" if name == "distance" else name): value for name, value in record.items()}
    if day == KILOMETRES.day:
        return {**record, "distance": round(record["distance"] * KM_PER_MILE)}
    if day == NEW_CARRIER.day and record["carrier"] == _TAKEN_OVER and i % 3 == 0:
        return {**record, "carrier": _NEW_AIRLINE, "flight": record["flight"].replace(_TAKEN_OVER, _NEW_AIRLINE)}
    return record


def digest(flights: Iterable[tuple[str, str, int]]) -> str:
    """SHA-256 over the lines `flight carrier distance` in order: equal where the tables are."""
    lines = sorted(f"{flight} {carrier} {miles}\n" for flight, carrier, miles in flights)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def truth(files: list[Published]) -> Record:
    """What is true of the flights of these files: the last word on each, leaving out what is only a wrong unit."""
    flights = {
        record["flight"]: (record["flight"], record["carrier"], record["distance"])
        for name, records in files
        if name not in {f"{RENAMED.day}.json", f"{KILOMETRES.day}.json"}
        for record in records
    }
    for each in (RENAMED, KILOMETRES):
        flights |= {
            record["flight"]: (record["flight"], record["carrier"], record["distance"])
            for record in mended(each.name).records
        }
    return {"flights": len(flights), "digest": digest(flights.values())}


class Feed:
    """What is published, and grows when a trouble is mended."""

    def __init__(self) -> None:
        self._files: list[Published] = []
        self._lock = Lock()

    def begin(self) -> None:
        """Publish the months."""
        files = publish()
        with self._lock:
            self._files = files

    def truth(self) -> Record:
        """What a table of all that is published must hold."""
        with self._lock:
            return truth(self._files)

    def after(self, number: int) -> Record:
        """The first file published after this one, as it is served; numbers are from 1."""
        with self._lock:
            published = len(self._files)
            if number >= published:
                return {"file": None, "departures": [], "next": None}
            name, records = self._files[number]
        served = [{**record, "published": number + 1} for record in records]
        return {"file": name, "departures": served, "next": number + 1 if number + 1 < published else None}

    def mend(self, name: str) -> None:
        """Publish a file again, right this time."""
        with self._lock:
            self._files.append(mended(name))


class Server(ThreadingHTTPServer):
    """The feed over HTTP."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        self.feed = Feed()
        super().__init__(("127.0.0.1", port), Handler)


class Handler(BaseHTTPRequestHandler):
    """Answers one call."""

    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        if address.path == "/truth":
            self._answer(200, self.server.feed.truth())
            return
        asked = [value for name in ("since", "after") for value in parse_qs(address.query).get(name, [])]
        if address.path != "/departures" or not all(value.isdecimal() for value in asked):
            self._answer(404, {"error": "expected /departures?since=N&after=M"})
            return
        found = self.server.feed.after(max(map(int, asked), default=0))
        print(json.dumps({"served": found["file"]}), flush=True)
        self._answer(200, found)

    def do_POST(self) -> None:
        if self.path == "/begin":
            self.server.feed.begin()
            self._answer(200, {"published": True})
            return
        try:
            self.server.feed.mend(self.path.removeprefix("/mend/"))
        except ValueError:
            self._answer(404, {"error": f"expected /mend/ and one of {', '.join(each.name for each in TROUBLE)}"})
            return
        self._answer(200, {"mended": True})

    def _answer(self, status: int, body: Record) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Standard output tells it."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve flights as daily files, with trouble.")
    parser.add_argument("--port", type=int, default=8399)
    with Server(parser.parse_args().port) as server:
        print(json.dumps({"ready": server.server_address[1]}), flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            sys.exit(130)


if __name__ == "__main__":
    main()
