"""Ledgers made by real processes that are killed with SIGKILL at random moments. Nothing is wrong with any of them."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random
from threading import Event, Thread
from typing import TYPE_CHECKING

import httpx

import tiny
from ledger.real_ledgers import CAPABILITY, SERVED, change
from ledger.samples import KEY, ORIGIN, check, fork, reap
from mainstay.decision.record import DecisionRecorder, Stamp, Took, Verdict
from mainstay.ledger import sealer as sealer_module
from mainstay.ledger.index import Index
from mainstay.ledger.journal import Journal
from mainstay.ledger.log import Log
from mainstay.ledger.sealer import Sealer
from mainstay.ledger.verify import Report, verify_ledger
from mainstay.server.supervisor import running_state
from mainstay.signing import load_signing_key, load_verifier

if TYPE_CHECKING:
    from collections.abc import Callable

SEGMENT_BYTES = 200_000  # so that segments are closed and followed by others within a fraction of a second
SEALED_AT_ONCE = 300  # entries; a pass has several steps then, between which it may be killed


def write_without_end(ledger: Path, seed: int) -> None:
    """A worker: the journal with its thread, several groups of decisions under way, for ever."""
    asyncio.run(_write(ledger, Random(seed)))


async def _write(ledger: Path, rng: Random) -> None:
    loop = asyncio.get_running_loop()
    journal = Journal(ledger / "wal", loop.call_soon_threadsafe, segment_bytes=SEGMENT_BYTES)
    recorder = DecisionRecorder(SERVED, ORIGIN)
    while True:
        count = rng.randrange(1, 40)
        place = journal.next_place()
        stamp, verdict = Stamp(place, count), Verdict("answered", b'{"late":true}', b"0.9")
        note = b'"%b"' % (b"x" * rng.randrange(800))
        framed = b"".join(
            recorder.record(stamp, b"desk", b"null", note, verdict, Took(0.001)).framed for _ in range(count)
        )
        done: asyncio.Future[None] = loop.create_future()
        journal.submit(place, framed, count, partial(_recorded, done))
        if rng.random() < 0.7:
            await done
        await asyncio.sleep(rng.random() * 0.002)


def _recorded(done: asyncio.Future[None], error: OSError | None) -> None:
    assert error is None
    done.set_result(None)


def seal_without_end(ledger: Path) -> None:
    """A control process: seal and index, for ever."""
    logging.getLogger("mainstay.ledger").setLevel(logging.CRITICAL)  # torn tails are what is made here
    sealer_module.BATCH_ENTRIES = SEALED_AT_ONCE
    with Sealer(ledger, KEY, ORIGIN) as sealer, Index(ledger) as index:
        while True:
            sealer.seal_once()
            index.catch_up(Log(ledger))


def change_without_end(ledger: Path) -> None:
    """Commands, one after the other, each with a segment of its own."""
    number = 0
    while True:
        number += 1
        change(ledger, "release.published", f"{CAPABILITY}/{number}", {"version": SERVED.version})


def make_by_forks(ledger: Path, rng: Random, *, seconds: float) -> None:
    """Two workers, a sealer and somebody at the command line, each killed and begun again, and at last all killed."""
    roles: list[Callable[[], None]] = [
        lambda: write_without_end(ledger, rng.randrange(1 << 30)),
        lambda: write_without_end(ledger, rng.randrange(1 << 30)),
        lambda: seal_without_end(ledger),
        lambda: change_without_end(ledger),
    ]
    running = [fork(role) for role in roles]
    deadline = time.monotonic() + seconds
    try:
        while time.monotonic() < deadline:
            time.sleep(rng.random() * seconds / 4)
            which = rng.choice([0, 1, 2, 2, 2, 3])
            _kill(running[which])
            running[which] = fork(roles[which])
    finally:
        rng.shuffle(running)
        for child in running:
            _kill(child)


def _kill(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    assert not reap(child)


def examine_by_forks(ledger: Path) -> list[Report]:
    """What verifying says before anything is recovered, and after a pass of the sealer."""
    before = check(ledger)
    logging.getLogger("mainstay.ledger").setLevel(logging.CRITICAL)
    try:
        with Sealer(ledger, KEY, ORIGIN) as sealer:
            sealer.seal_once()
    finally:
        logging.getLogger("mainstay.ledger").setLevel(logging.NOTSET)
    return [before, check(ledger)]


def make_by_service(directory: Path, rng: Random, *, seconds: float) -> Path:
    """`mainstay up` under load; its processes are killed one by one, and at last all of them. The workspace."""
    workspace, token = tiny.make_served(directory)
    with tiny.up(workspace, token, workers=2, seal_interval_seconds=0.02) as service:
        stop = Event()
        callers = [Thread(target=_call, args=(service, stop)) for _ in range(4)]
        for caller in callers:
            caller.start()
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            time.sleep(rng.random() * seconds / 3)
            children = _children(service)  # none, where those killed last are not started again yet
            with suppress(ProcessLookupError):
                if children:
                    os.kill(rng.choice(children), signal.SIGKILL)
        everybody = [service.process.pid, *_children(service)]
        for process in everybody:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        stop.set()
        for caller in callers:
            caller.join()
        service.process.wait()
        _wait_until_gone(everybody[1:])
    return workspace.root


def _children(service: tiny.Up) -> list[int]:
    processes = (running_state(service.workspace) or {}).get("processes")
    assert isinstance(processes, dict)
    return [number for number in processes.values() if isinstance(number, int)]


def _call(service: tiny.Up, stop: Event) -> None:
    while not stop.is_set():
        with suppress(httpx.HTTPError), httpx.Client(headers=service.headers, timeout=5) as client:
            while not stop.is_set():
                client.post(service.decisions_url, json={"input": {"a": 1.0, "b": 2.0}})


def _wait_until_gone(processes: list[int]) -> None:
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{number}").exists() for number in processes):
        assert time.monotonic() < deadline, "processes killed are still there"
        time.sleep(0.01)


def examine_by_service(workspace: Path) -> list[Report]:
    """As `examine_by_forks`, for the ledger of a workspace."""
    ledger, keys = workspace / ".mainstay" / "ledger", workspace / ".mainstay" / "keys"
    verifier = load_verifier(keys)
    before = verify_ledger(ledger, verifier)
    with Sealer(ledger, load_signing_key(keys, None), verifier.name) as sealer:
        sealer.seal_once()
    return [before, verify_ledger(ledger, verifier)]
