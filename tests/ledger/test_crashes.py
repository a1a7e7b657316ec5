"""The sealer is killed everywhere; every acknowledged entry must be in the log, once, and the ledger must verify."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from typing import TYPE_CHECKING

import pytest

from ledger.samples import KEY, ORIGIN, Writer, check, fork, reap, seal, sealed_leaves, write_segment
from mainstay.ledger import sealer as sealer_module
from mainstay.ledger.index import Index
from mainstay.ledger.log import Log
from mainstay.ledger.sealer import Sealer
from mainstay.ledger.wal import segments

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}


def die_at(step: int) -> None:
    """From now on, end this process in front of its `step`th change to the file system."""
    left = step

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        flags = arguments[2] if event == "open" else 0
        if event in CHANGES or (isinstance(flags, int) and flags & os.O_CREAT):
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def kill_everywhere(run: Callable[[], object], prepare: Callable[[], None], examine: Callable[[], None]) -> int:
    """Run in children that are killed in front of one change after the other, until one ends by itself."""
    step = 0
    while True:
        prepare()

        def run_and_die(step: int = step) -> None:
            die_at(step)
            run()

        ended = reap(fork(run_and_die))
        examine()
        if ended:
            return step
        step += 1


def test_a_sealer_killed_in_front_of_any_change_to_the_disk_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealer_module, "BATCH_ENTRIES", 250)
    begun, ledger = tmp_path / "begun", tmp_path / "ledger"
    entries = write_segment(begun, 130)
    seal(begun)
    entries += write_segment(begun, 330, group=40) + write_segment(begun, 60, close=False)
    torn = write_segment(begun, 4, group=2, close=False)
    path = segments(begun / "wal")[-1]
    os.truncate(path, path.stat().st_size - 3)
    expected = sorted(entry.leaf for entry in entries + torn[:2])

    def prepare() -> None:
        shutil.rmtree(ledger, ignore_errors=True)
        shutil.copytree(begun, ledger)

    def examine() -> None:
        report = check(ledger)
        assert report.ok, report.findings
        assert report.size + report.unsealed >= len(expected)
        seal(ledger)
        assert sorted(sealed_leaves(ledger)) == expected
        report = check(ledger)
        assert report.ok, report.findings
        assert (report.unsealed, report.unreferenced, report.torn) == (0, 0, [])

    steps = kill_everywhere(lambda: seal(ledger), prepare, examine)
    assert steps > 40


def test_the_first_seal_of_all_may_be_killed_anywhere(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    written: list[bytes] = []

    def prepare() -> None:
        shutil.rmtree(ledger, ignore_errors=True)
        written[:] = [entry.leaf for entry in write_segment(ledger, 3)]

    def examine() -> None:
        assert check(ledger).ok
        seal(ledger)
        assert sealed_leaves(ledger) == written
        assert check(ledger).ok

    assert kill_everywhere(lambda: seal(ledger), prepare, examine) > 10


@pytest.mark.parametrize("before", [0, 10, 255, 256, 400])
def test_upper_tiles_that_a_killed_pass_left_behind_do_not_survive_it(
    tmp_path: Path, before: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pass after it seals other entries in the same places, and passes over the width the old tile had."""
    if before:
        write_segment(tmp_path, before)
    seal(tmp_path)
    written = write_segment(tmp_path, 300)

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patched:
        patched.setattr("mainstay.ledger.writer.save_state", die)
        assert not reap(fork(lambda: seal(tmp_path)))
    older = segments(tmp_path / "wal")
    first = write_segment(tmp_path, 900)
    for path in older:
        os.utime(path, (2**32, 2**32))  # read last now
    seal(tmp_path)
    leaves = sealed_leaves(tmp_path)[before:]
    assert leaves == [entry.leaf for entry in (*first, *written)]
    report = check(tmp_path)
    assert report.ok, report.findings


@pytest.mark.acceptance
def test_sealers_killed_at_random_moments_under_load_lose_and_double_nothing(tmp_path: Path) -> None:
    rng = random.Random(20130401)
    writers = [Writer(tmp_path), Writer(tmp_path)]
    entries = []
    killed = 0
    deadline = time.monotonic() + 8

    def seal_on() -> None:
        with Sealer(tmp_path, KEY, ORIGIN) as sealer:
            while True:
                sealer.seal_once()

    while killed < 150 and time.monotonic() < deadline:
        child = fork(seal_on)
        until = time.monotonic() + rng.random() * 0.03
        while time.monotonic() < until:
            writer = rng.choice(writers)
            writer.append(rng.randrange(1, 40))
            if rng.random() < 0.1:
                entries += writer.entries
                (writer.segment.close if rng.random() < 0.5 else writer.segment.abandon)()
                writers[writers.index(writer)] = Writer(tmp_path)
        os.kill(child, signal.SIGKILL)
        assert not reap(child)
        killed += 1
        if killed % 10 == 0:
            report = check(tmp_path)
            assert report.ok, report.findings
    for writer in writers:
        entries += writer.entries
        writer.segment.abandon()
    seal(tmp_path)
    assert sorted(sealed_leaves(tmp_path)) == sorted(entry.leaf for entry in entries)
    report = check(tmp_path)
    assert report.ok, report.findings
    assert killed > 20


def test_an_indexer_killed_at_any_moment_counts_every_entry_once(tmp_path: Path) -> None:
    write_segment(tmp_path, 9_000, group=500)
    seal(tmp_path)
    rng = random.Random(7)

    def catch_up() -> None:
        with Index(tmp_path) as index:
            index.catch_up(Log(tmp_path))

    while True:
        child = fork(catch_up)
        time.sleep(rng.random() * 0.06)
        os.kill(child, signal.SIGKILL)
        if reap(child):
            break
        with Index(tmp_path) as index:
            assert sum(index.counts("late-arrival").decisions.values()) == index.size
            if index.size == 9_000:
                break
    with Index(tmp_path) as index:
        index.catch_up(Log(tmp_path))
        assert index.counts("late-arrival").decisions == {"answered": 9_000}
        assert len(list(index.joined("late-arrival"))) == 9_000
