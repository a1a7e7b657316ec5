"""Kills during intake: a feed of files and a REST feed are taken in by processes that are killed at random moments.

    python bench/intake_kills.py [--kills 200] [--json]

Both feeds hold rows that break the contract, rows that are late and rows that come again. Every other kill is of one
process that fetches and takes in; the others are of the whole family of processes that `mainstay control` keeps. In the
end every record of the feeds is looked for in the tables: once, in the one where it belongs.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlparse

import polars as pl
import yaml

from mainstay.cli.init import create_workspace
from mainstay.intake.declared import sources_in_force
from mainstay.intake.runs import Means, Run
from mainstay.intake.state import state_of
from mainstay.intake.types import LATE, RAW, intake_table, quarantine_table
from mainstay.lake.lake import open_lake
from mainstay.lineage.emitting import Emitter
from mainstay.signing import load_signing_key
from mainstay.workspace import open_workspace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mainstay.workspace import Workspace

NAME: Final = "late-arrival"
FILES, REST = "months", "api"
ROWS: Final = 40  # of a file, and of a page
STEPS: Final = 4  # files, and pages, that are new before each process begins
FIRST_ID: Final = 1_000_000
BAD, LATE_ROWS, AGAIN = 0.1, 0.1, 0.15  # shares of the rows
BEGINS: Final = datetime(2026, 1, 1, tzinfo=UTC)
LONG_AGO: Final = timedelta(days=900)

CONTRACT: Final[dict[str, Any]] = {
    "apiVersion": "v3.1.0",
    "kind": "DataContract",
    "id": "flights",
    "version": "1.0.0",
    "status": "active",
    "schema": [
        {
            "name": "departure",
            "properties": [
                {"name": "flight", "logicalType": "integer", "required": True},
                {"name": "carrier", "logicalType": "string", "required": True},
                {
                    "name": "delay",
                    "logicalType": "integer",
                    "required": True,
                    "logicalTypeOptions": {"maximum": 3_000},
                },
                {"name": "at", "logicalType": "timestamp", "required": True},
                {"name": "change", "logicalType": "integer", "required": True},
            ],
        },
        {"name": "prediction", "properties": [{"name": "late", "logicalType": "boolean", "required": True}]},
    ],
}
DECLARATION: Final[dict[str, Any]] = {
    "apiVersion": "mainstay/v1",
    "name": NAME,
    "title": "Will it be late?",
    "purpose": "To rebook.",
    "owner": {"team": "Operations", "contact": "ops-control@example.com"},
    "objects": {"input": "departure", "output": "prediction"},
    "model": {"kind": "python", "call": "predict.py:predict"},
    "samples": "samples.jsonl",
}


def sources(url: str) -> list[dict[str, Any]]:
    """Both feeds as they are declared: late rows of the files are kept out, those of the API join."""
    both = {
        "key": ["flight"],
        "event_time": "at",
        "allowed_lateness_seconds": 86_400 * 365,
        "every_seconds": 0.1,
        "max_bad_share": 1.0,
    }
    rest = {
        "url": url,
        "records": "records",
        "cursor_parameter": "since",
        "pages": {"style": "next_url", "path": "next"},
    }
    return [
        {"name": FILES, "files": {"folder": "in", "settle_seconds": 0}, "late": "ignore", **both},
        {"name": REST, "rest": rest, "cursor": "change", "late": "join", **both},
    ]


class Feed:
    """Records with a number of their own each, some of them bad, late, or sent before."""

    def __init__(self, rng: random.Random, *, changes: bool) -> None:
        """With `changes`, a record that comes again says that it was changed."""
        self._changes = changes
        self._change = 0
        self.good: dict[int, dict[str, Any]] = {}
        self.bad: set[int] = set()
        self.late: set[int] = set()
        self.sent = 0
        self._rng = rng
        self._next = FIRST_ID

    def more(self) -> list[dict[str, Any]]:
        """The records of one file, or of one page."""
        found = []
        for _ in range(ROWS):
            known = [number for number in [*self.good][-500:] if number not in self.late]
            again = bool(known) and self._rng.random() < AGAIN
            record = self.good[self._rng.choice(known)] if again else self._new()
            self._change += 1
            found.append({**record, "change": self._change} if self._changes else record)
        self.sent += len(found)
        return found

    def _new(self) -> dict[str, Any]:
        number, self._next = self._next, self._next + 1
        draw = self._rng.random()
        record = {
            "flight": number,
            "carrier": self._rng.choice(["AA", "EV", "MQ"]),
            "delay": self._rng.randint(0, 200),
            "at": (BEGINS + timedelta(seconds=number - FIRST_ID)).isoformat(),
            "change": 0,
        }
        if draw < BAD:
            self.bad.add(number)
            return {**record, "delay": 99_999}
        if draw < BAD + LATE_ROWS and self.sent:  # in the first file nothing is behind anything
            self.late.add(number)
            record["at"] = (BEGINS - LONG_AGO).isoformat()
        self.good[number] = record
        return record


def write_file(folder: Path, number: int, records: list[dict[str, Any]]) -> None:
    """Put a file in place under its name when it is finished: CSV and JSON lines in turn."""
    folder.mkdir(exist_ok=True)
    if number % 2:
        text = "".join(json.dumps(each) + "\n" for each in records)
    else:
        written = io.StringIO()
        writer = csv.DictWriter(written, list(records[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
        text = written.getvalue()
    unfinished = folder.parent / "unfinished"
    unfinished.write_text(text)
    unfinished.rename(folder / f"{number:06}.{'jsonl' if number % 2 else 'csv'}")


class Api:
    """A REST feed: records in the order of their changes, from `since` on, in pages that name the next one."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = {name: values[0] for name, values in parse_qs(urlparse(self.path).query).items()}
                content = json.dumps(api.page(query)).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                try:
                    self.wfile.write(content)
                except OSError:  # who asked was killed
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/flights"
        Thread(target=self._server.serve_forever, daemon=True).start()

    def page(self, query: dict[str, str]) -> dict[str, Any]:
        """One answer."""
        records, since = self.records, int(query.get("since", "0"))
        first = int(query.get("from", "0"))
        asked = [each for each in records if each["change"] >= since]
        more = first + ROWS < len(asked)
        link = f"{self.url}?since={since}&from={first + ROWS}" if more else None
        return {"records": asked[first : first + ROWS], "next": link}

    def close(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()


class Kills:
    """A workspace with both feeds, and the processes that are killed over it."""

    def __init__(self, directory: Path, api: Api, seed: int) -> None:
        self.root = directory / "w"
        self._api = api
        self._rng = random.Random(seed)
        self.files, self.rest = Feed(self._rng, changes=False), Feed(self._rng, changes=True)
        self._written = 0
        workspace, _, _ = create_workspace(self.root, "bench.example.com/intake")
        folder = workspace.capabilities / NAME
        folder.mkdir(parents=True)
        (folder / "contract.odcs.yaml").write_text(json.dumps(CONTRACT))
        (folder / "capability.yaml").write_text(yaml.safe_dump(DECLARATION | {"sources": sources(api.url)}))
        (folder / "predict.py").write_text("def predict(records): ...\n")
        (folder / "samples.jsonl").write_text("{}\n")
        (folder / "authority.cedar").write_text("permit (principal, action, resource);\n")
        self.workspace = workspace

    def grow(self) -> None:
        """More files, and more records behind the API."""
        for _ in range(STEPS):
            write_file(self.root / "in", self._written, self.files.more())
            self._written += 1
            self._api.records += self.rest.more()

    def kill_one(self, *, family: bool) -> bool:
        """Begin to take in, and kill at a random moment; whether there was something to kill."""
        module = ["-m", "mainstay.intake.running"] if family else [__file__, "--take"]
        command = [sys.executable, *module, str(self.root)]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        ) as process:
            assert process.stdout is not None
            if family:
                time.sleep(self._rng.uniform(1.0, 4.0))  # the first second goes by before anything begins
            else:
                process.stdout.readline()
                time.sleep(self._rng.uniform(0.0, 1.5))
            killed = process.poll() is None
            os.killpg(process.pid, signal.SIGKILL) if killed else None
        return killed

    def finish(self) -> None:
        """Take in what is left, unhurried."""
        for _ in range(20):
            ran = take(self.workspace)
            if not any(ran):
                return
        raise RuntimeError("there is always more")

    def judge(self) -> dict[str, int]:
        """What is lost, doubled, or in the wrong table."""
        found: dict[str, int] = {"records": self.files.sent + self.rest.sent, "lost": 0, "doubled": 0, "misplaced": 0}
        for source, feed in ((FILES, self.files), (REST, self.rest)):
            kept_out = feed.bad | (feed.late if source == FILES else set())
            wanted = {intake_table: feed.good.keys() - kept_out, quarantine_table: kept_out}
            for name, numbers in wanted.items():
                there = Counter(numbers_in(self.workspace, name(NAME, source)))
                found["lost"] += len(numbers - there.keys())
                found["doubled"] += sum(there.values()) - len(there)
                found["misplaced"] += len(there.keys() - numbers)
        return found


def numbers_in(workspace: Workspace, table: str) -> list[int]:
    """The number of the record of every row of a table."""
    found = open_lake(workspace).find(table)
    if found is None:
        return []
    if RAW in found.schema:
        raw = found.frame().select(RAW).collect()[RAW].to_list()
        return [int(re.findall(rb"(?<!\d)1\d{6}(?!\d)", each)[0]) for each in raw]
    return found.frame().select("flight").collect()["flight"].to_list()


def late_in(workspace: Workspace, table: str) -> int:
    """How many rows of a table are marked as late."""
    return open_lake(workspace).table(table).frame().filter(pl.col(LATE).is_not_null()).collect().height


def take(workspace: Workspace) -> list[int]:
    """Run both sources once; how many rows of each were taken. Raises RuntimeError when one failed or is held."""
    rows = []
    means = Means(workspace, load_signing_key(workspace.keys, None), Emitter(workspace))
    in_force = sources_in_force(workspace, NAME)
    for source in in_force.capability.sources:
        with state_of(workspace.data, NAME, source.name).running(timeout_seconds=30):
            ran = Run(means, in_force, source).go()
        if ran.failed or ran.held is not None:
            raise RuntimeError(f"{source.name}: {ran.failed or ran.held}: {ran.detail}")
        rows.append(ran.counts.rows)
    return rows


@contextmanager
def prepared(directory: Path, seed: int) -> Iterator[Kills]:
    """The workspace, with its API answering."""
    api = Api()
    try:
        yield Kills(directory, api, seed)
    finally:
        api.close()


def kill(directory: Path, kills: int, *, seed: int, quiet: bool) -> dict[str, int]:
    """Kill so often; what was lost and doubled in the end."""
    with prepared(directory, seed) as world:
        killed = unfinished = 0
        while killed < kills:
            world.grow()
            killed += world.kill_one(family=killed % 2 == 1)
            unfinished += world.judge()["lost"] > 0
            if not quiet and killed % 20 == 0:
                print(f"{killed} kills")
        world.finish()
        late = late_in(world.workspace, intake_table(NAME, REST))
        return {"kills": killed, "left_unfinished": unfinished, **world.judge(), "late": late}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--take", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.take:
        workspace = open_workspace(given.take)
        os.write(1, b"begun\n")
        while True:  # until it is killed
            take(workspace)
    with tempfile.TemporaryDirectory() as directory:
        found = kill(Path(directory), given.kills, seed=given.seed, quiet=given.json)
    if given.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name.replace('_', ' '):16}{value:>12,}")


if __name__ == "__main__":
    main()
