"""Kills workers with SIGKILL under load, again and again, and looks for every acknowledged decision in the ledger.

python bench/kills.py [--kills 200] [--workers 2] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from fixture import Fixture, make_fixture
from load import drive, request_bytes

from mainstay.ledger.index import Index
from mainstay.ledger.log import Log
from mainstay.ledger.verify import verify_ledger
from mainstay.server.supervisor import free_port, running_state, wait_until_ready
from mainstay.signing import load_verifier

CONNECTIONS = 64
GAP_SECONDS = (0.3, 1.5)  # between kills, drawn at random


def kill_workers(fixture: Fixture, kills: int, *, quiet: bool) -> int:
    """Kill a random worker `kills` times; how many were killed."""
    killed: set[int] = set()
    while len(killed) < kills:
        time.sleep(random.uniform(*GAP_SECONDS))
        state = running_state(fixture.workspace) or {}
        processes = state.get("processes")
        assert isinstance(processes, dict)
        workers = [number for name, number in processes.items() if name.startswith("worker") and number not in killed]
        if not workers:
            continue
        chosen = random.choice(workers)
        try:
            os.kill(chosen, signal.SIGKILL)
        except ProcessLookupError:
            continue
        killed.add(chosen)
        if not quiet and len(killed) % 20 == 0:
            print(f"{len(killed)} kills")
    return len(killed)


def places_of(fixture: Fixture, acknowledged: list[str]) -> list[int | None]:
    """Where each decision stands in the sealed log."""
    with Index(fixture.workspace.ledger) as index:
        index.catch_up(Log(fixture.workspace.ledger))
        return [index.find(each) for each in acknowledged]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        fixture = make_fixture(Path(directory) / "workspace")
        port = free_port("127.0.0.1")
        command = [sys.executable, "-m", "mainstay.cli.main", "up", "--workspace", str(fixture.workspace.root)]
        command += ["--port", str(port), "--workers", str(given.workers)]
        service = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until_ready(f"http://127.0.0.1:{port}", 30)
        body = json.dumps({"input": fixture.rows[0]}).encode()
        request = request_bytes(fixture.decisions_path, body, fixture.token)
        acknowledged: list[str] = []
        statuses: dict[int, int] = {}
        done = threading.Event()
        broken = 0

        def load() -> None:
            nonlocal broken
            while not done.is_set():
                part = drive(("127.0.0.1", port), request, connections=CONNECTIONS, seconds=1.0, keep_bodies=True)
                broken += part.failed
                for status, count in part.statuses.items():
                    statuses[status] = statuses.get(status, 0) + count
                acknowledged.extend(json.loads(each)["decision_id"] for each in part.bodies if b'"decision_id"' in each)

        loader = threading.Thread(target=load)
        loader.start()
        killed = kill_workers(fixture, given.kills, quiet=given.json)
        done.set()
        loader.join()
        service.terminate()
        service.wait()
        places = places_of(fixture, acknowledged)
        report = verify_ledger(fixture.workspace.ledger, load_verifier(fixture.workspace.keys))
    found = [place for place in places if place is not None]
    summary = {
        "kills": killed,
        "acknowledged": len(acknowledged),
        "lost": len(places) - len(found),
        "doubled": len(found) - len(set(found)),
        "broken_connections": broken,
        "statuses": statuses,
        "ledger_entries": report.size,
        "ledger_verifies": report.ok,
    }
    if given.json:
        print(json.dumps(summary))
    else:
        for name, value in summary.items():
            print(f"{name:20} {value}")
    sys.exit(0 if report.ok and not summary["lost"] and not summary["doubled"] else 1)


if __name__ == "__main__":
    main()
