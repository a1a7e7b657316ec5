from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from lineage.emitted import events_in
from mainstay.lineage import sinks
from mainstay.lineage.sinks import Account, EventFile, Queue, State

if TYPE_CHECKING:
    from pathlib import Path


def event(number: int, *, size: int = 0) -> bytes:
    return b'{"eventType":"START","n":%d,"fill":"%b"}' % (number, b"x" * size)


def test_events_stand_in_a_file_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "new" / "events.jsonl"
    for number in range(3):
        EventFile(path).take(event(number))
    assert [each["n"] for each in events_in(path)] == [0, 1, 2]
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("left", [1, 5, 20])
def test_what_a_killed_process_left_of_a_line_is_cut_off(left: int, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    EventFile(path).take(event(1))
    with path.open("ab") as file:
        file.write(event(2)[:left])
    EventFile(path).take(event(3))
    assert [each["n"] for each in events_in(path)] == [1, 3]


def test_a_file_that_is_somebody_elses_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("one\ntwo, without an end")
    EventFile(path).take(event(1))
    assert path.read_bytes() == b"one\ntwo, without an end\n" + event(1) + b"\n"


def test_a_full_file_is_put_aside_and_the_newest_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "MAX_FILE_BYTES", 100)
    monkeypatch.setattr(sinks, "KEPT_FILES", 3)
    path = tmp_path / "events.jsonl"
    for number in range(11):
        EventFile(path).take(event(number, size=20))
    aside = sorted(each.name for each in tmp_path.glob("events-*"))
    assert aside == ["events-000003.jsonl", "events-000004.jsonl", "events-000005.jsonl"]
    kept = [each["n"] for name in aside for each in events_in(tmp_path / name)]
    assert kept + [each["n"] for each in events_in(path)] == list(range(4, 11))


def test_a_queue_gives_the_oldest_first_and_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "MAX_WAITING", 3)
    queue = Queue(tmp_path / "waiting")
    assert queue.oldest() is None
    for number in range(3):
        queue.take(event(number))
    with pytest.raises(OSError, match="3 events wait already"):
        queue.take(event(3))
    assert queue.length == 3
    for number in range(3):
        found = queue.oldest()
        assert found is not None
        assert found.content == event(number)
        found.path.unlink()
    assert queue.length == 0


def test_leftovers_of_a_killed_writer_are_no_events(tmp_path: Path) -> None:
    queue = Queue(tmp_path)
    (tmp_path / f".1-{os.getpid()}.json.5.tmp").write_bytes(b"{")
    assert queue.oldest() is None


def test_the_account_survives_and_may_be_lost(tmp_path: Path) -> None:
    account = Account(tmp_path)
    assert account.read() == State()
    account.add(lost=2, problem="no answer")
    Account(tmp_path).add(lost=1, problem="")
    assert Account(tmp_path).read() == State(3, "")
    (tmp_path / "state.json").write_bytes(b"{")
    assert account.read() == State()
