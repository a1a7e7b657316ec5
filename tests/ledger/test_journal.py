from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from queue import SimpleQueue
from threading import Event
from typing import TYPE_CHECKING

import pytest

from mainstay.ledger.journal import Journal, Unrecordable
from mainstay.ledger.wal import End, SegmentReader, frame_entry, segments

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SALT = bytes(16)


class Loop:
    """The owner's thread of a journal: what it is asked to run waits here until the test runs it."""

    def __init__(self) -> None:
        self.waiting: SimpleQueue[Callable[[], None]] = SimpleQueue()

    def wake(self, run: Callable[[], None]) -> None:
        self.waiting.put(run)

    def turn(self) -> None:
        self.waiting.get(timeout=10)()

    def until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            self.turn()


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def journal(tmp_path: Path, loop: Loop) -> Iterator[Journal]:
    journal = Journal(tmp_path, loop.wake)
    yield journal
    journal.close()


def submit(journal: Journal, *leaves: bytes) -> list[OSError | None]:
    """Submit leaves as one piece of work; the list gets the result when it is known."""
    results: list[OSError | None] = []
    place = journal.next_place()
    journal.submit(place, b"".join(frame_entry(leaf, SALT, b"{}") for leaf in leaves), len(leaves), results.append)
    return results


def recorded(journal: Journal, loop: Loop, leaf: bytes) -> OSError | None:
    """Submit one leaf and wait for what came of it."""
    results = submit(journal, leaf)
    loop.until(lambda: bool(results))
    return results[0]


def read_leaves(directory: Path) -> list[bytes]:
    found = []
    for path in segments(directory):
        for group in SegmentReader(path).groups():
            found += [entry.leaf for entry in group.entries]
    return found


def test_what_was_submitted_is_on_disk_when_its_owner_is_called_back(
    journal: Journal, loop: Loop, tmp_path: Path
) -> None:
    results = submit(journal, b"first", b"second")
    loop.until(lambda: bool(results))
    assert results == [None]
    assert read_leaves(tmp_path) == [b"first", b"second"]


def test_what_waits_while_a_group_is_written_makes_one_group(journal: Journal, loop: Loop) -> None:
    results = [submit(journal, b"%d" % number) for number in range(200)]
    loop.until(lambda: all(results))
    assert journal.records == 200
    assert journal.syncs < 200
    assert journal.outstanding == 0


def test_ids_count_up_within_a_segment(journal: Journal, loop: Loop) -> None:
    counters = []
    for _ in range(3):
        counters.append(journal.next_place().counter)
        submit(journal, b"one", b"two")
    loop.until(lambda: journal.outstanding == 0)
    assert counters == [0, 2, 4]


def test_a_long_segment_is_closed_and_a_new_one_begun(tmp_path: Path, loop: Loop) -> None:
    journal = Journal(tmp_path, loop.wake, segment_bytes=200)
    names = set()
    for number in range(30):
        names.add(journal.next_place().segment.name)
        assert recorded(journal, loop, b"leaf %02d" % number) is None
    journal.close()
    assert len(names) > 3
    assert sorted(read_leaves(tmp_path)) == [b"leaf %02d" % number for number in range(30)]
    readers = [SegmentReader(path) for path in segments(tmp_path)]
    for reader in readers:
        list(reader.groups())
    assert {reader.end for reader in readers} == {End.CLOSED}


def test_the_owner_is_told_when_nothing_is_left_to_write(tmp_path: Path, loop: Loop) -> None:
    idle: list[int] = []
    made = Journal(tmp_path, loop.wake, on_idle=lambda: idle.append(made.outstanding))
    assert recorded(made, loop, b"leaf") is None
    made.close()
    assert idle == [0]


def test_closing_writes_what_was_submitted(tmp_path: Path, loop: Loop) -> None:
    journal = Journal(tmp_path, loop.wake)
    for number in range(50):
        submit(journal, b"leaf %02d" % number)
    journal.close()
    assert len(read_leaves(tmp_path)) == 50


FULL_DISK = """
    import resource, signal, sys
    from pathlib import Path
    from queue import SimpleQueue
    from mainstay.ledger.journal import Journal, Unrecordable
    from mainstay.ledger.wal import frame_entry

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    waiting = SimpleQueue()
    journal = Journal(Path(sys.argv[1]), waiting.put)

    def record(leaf):
        results = []
        place = journal.next_place()
        journal.submit(place, frame_entry(leaf, bytes(16), bytes(1000)), 1, results.append)
        while not results:
            waiting.get(timeout=10)()
        return results[0]

    assert record(b"before") is None
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, resource.RLIM_INFINITY))
    error = record(b"lost")
    assert isinstance(error, OSError), error
    assert not journal.healthy
    try:
        journal.next_place()
    except Unrecordable:
        pass
    else:
        raise AssertionError("allocated on a full disk")
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    while not journal.healthy:
        waiting.get(timeout=10)()
    assert record(b"after") is None
    journal.close()
"""


@pytest.mark.acceptance
def test_a_full_disk_fails_what_waits_and_recording_goes_on_when_there_is_room(tmp_path: Path) -> None:
    """The limit on file size stands for the disk: a write past it fails half way, as on a full disk."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FULL_DISK), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert read_leaves(tmp_path) == [b"before", b"after"]


def test_nothing_can_be_reserved_after_a_failure(tmp_path: Path, loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path, loop.wake)

    def fail(_descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", fail)
        patched.setattr(os, "fsync", fail)
        results = submit(journal, b"leaf")
        loop.until(lambda: bool(results))
        assert isinstance(results[0], OSError)
        with pytest.raises(Unrecordable):
            journal.next_place()
        assert journal.failures == 1
    loop.until(lambda: journal.healthy)
    results = submit(journal, b"after")
    loop.until(lambda: bool(results))
    assert results == [None]
    journal.close()


def test_a_disk_that_does_not_answer_is_not_waited_for_without_end(
    tmp_path: Path, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = Event()
    written = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: (answers.wait(20), written(descriptor))[1])
    monkeypatch.setattr("mainstay.ledger.journal.WAITING_BYTES", 1000)
    journal = Journal(tmp_path, loop.wake)
    results = [submit(journal, bytes(600)) for _ in range(2)]
    with pytest.raises(Unrecordable, match="too slow"):
        journal.next_place()
    answers.set()
    loop.until(lambda: all(results))
    assert recorded(journal, loop, b"after") is None
    journal.close()


def test_what_no_reader_would_take_is_refused_at_once(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mainstay.ledger.journal.MAX_GROUP_BYTES", (16 << 20) + 100)
    with pytest.raises(ValueError, match="at most 100 bytes"):
        journal.submit(journal.next_place(), bytes(101), 1, lambda _error: None)


def test_a_killed_process_leaves_every_acknowledged_record(tmp_path: Path) -> None:
    program = """
        import sys
        from pathlib import Path
        from queue import SimpleQueue
        from mainstay.ledger.journal import Journal
        from mainstay.ledger.wal import frame_entry

        waiting = SimpleQueue()
        journal = Journal(Path(sys.argv[1]), waiting.put)
        number = 0
        while True:
            results = []
            leaf = b"%d" % number
            journal.submit(journal.next_place(), frame_entry(leaf, bytes(16), b"{}"), 1, results.append)
            while not results:
                waiting.get()()
            sys.stdout.write(f"{number}\\n")
            sys.stdout.flush()
            number += 1
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program), str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    acknowledged = [process.stdout.readline().strip() for _ in range(100)]
    process.send_signal(signal.SIGKILL)
    acknowledged += [line.strip() for line in process.stdout.read().splitlines()]
    process.wait()
    process.stdout.close()
    found = read_leaves(tmp_path)
    assert found[: len(acknowledged)] == acknowledged
    assert len(found) - len(acknowledged) <= 1
