"""A process with a job of three steps, for tests that kill it: `python jobs.py WORKSPACE COUNTS [KILLED-AT]`.

Each step appends a line to the file COUNTS before and behind what it does, and `KILLED-AT` names such a line: the
process ends there as by kill -9.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from mainstay.state.database import open_database
from mainstay.state.durable import Jobs, job, step
from mainstay.state.lease import Lease
from mainstay.workspace import open_workspace

STEPS = ("snapshot", "train", "judge")


def pass_by(place: str) -> None:
    with Path(sys.argv[2]).open("a", encoding="utf-8") as file:
        file.write(place + "\n")
        file.flush()
        os.fsync(file.fileno())
    if len(sys.argv) > 3 and sys.argv[3] == place:
        os.kill(os.getpid(), signal.SIGKILL)


@step
def do(name: str, value: int) -> dict[str, int]:
    pass_by(f"{name}-before")
    made = {"value": value + 1}
    pass_by(f"{name}-behind")
    return made


@job
def run(value: int) -> int:
    pass_by("begun")
    for name in STEPS:
        value = do(name, value)["value"]
        if name == "train":
            pass_by("between")
    pass_by("end")
    return value


def main() -> None:
    workspace = open_workspace(Path(sys.argv[1]))
    with open_database(workspace) as database:
        lease = Lease(database, 0.5)
        until = time.monotonic() + 30
        while not lease.take():
            assert time.monotonic() < until
            time.sleep(0.05)
        with Jobs(database, lease) as jobs:
            jobs.start("job-1", run, 39)
            until = time.monotonic() + 30
            while (found := jobs.find("job-1")) is None or found.state in {"waiting", "running"}:
                assert time.monotonic() < until
                lease.renew()
                time.sleep(0.02)
            sys.stdout.write(f"{found.state} {found.result} epoch {lease.epoch}\n")


if __name__ == "__main__":
    main()
