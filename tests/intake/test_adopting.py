from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from mainstay.capability.sources import Push, Source
from mainstay.intake import adopting
from mainstay.intake.adopting import PushFetcher
from mainstay.intake.fetching import Unavailable, open_fetcher
from mainstay.intake.landing import Landing, landing_of
from mainstay.intake.pushing import PUSHED, Inbox, call_digest, read_events
from mainstay.ledger.wal import HEADER_BYTES, segments
from mainstay.workspace import Settings, Workspace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mainstay.intake.landing import Item


class Worker:
    """One worker's inbox."""

    def __init__(self, data: Path) -> None:
        self.runner = asyncio.Runner()
        self.inbox = Inbox(self.runner.get_loop(), data, "lending", "orders")

    def push(self, *ids: int, key: str | None = None) -> None:
        events = read_events(json.dumps([{"id": number} for number in ids]).encode(), lines=False)
        self.runner.run(self.inbox.take(events, call_digest(b"caller", key, events)))

    def close(self) -> None:
        self.inbox.close()
        self.runner.close()


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[list[Worker]]:
    made = [Worker(tmp_path), Worker(tmp_path)]
    yield made
    for worker in made:
        worker.close()


class Adopter:
    """What fetches from the source, and where it would go on."""

    def __init__(self, data: Path) -> None:
        self.landing = landing_of(data, "lending", "orders")
        self.folder = self.landing.folder.parent / PUSHED
        self.cursor: Any = None
        self.fetcher = self.open()

    def open(self) -> PushFetcher:
        """Another process."""
        self.fetcher = PushFetcher("POST somewhere", self.landing)
        return self.fetcher

    def step(self) -> Item | None:
        item = self.fetcher.step(self.cursor)
        if item is not None:
            self.cursor = json.loads(json.dumps(item.cursor))
        return item

    def ids(self) -> list[int]:
        lines = [line for item in self.landing.waiting() for line in self.landing.path(item).read_bytes().splitlines()]
        return [json.loads(line)["id"] for line in lines]


@pytest.fixture
def adopter(tmp_path: Path) -> Adopter:
    return Adopter(tmp_path)


def test_nothing_pushed_is_nothing_new(adopter: Adopter) -> None:
    assert adopter.step() is None
    assert adopter.landing.waiting() == []


def test_what_live_workers_took_is_one_item_and_each_event_comes_once(workers: list[Worker], adopter: Adopter) -> None:
    workers[0].push(1, 2)
    workers[1].push(3)
    item = adopter.step()
    assert item is not None
    assert (item.number, item.kind, item.origin) == (1, "jsonl", "POST somewhere")
    assert sorted(adopter.ids()) == [1, 2, 3]
    assert adopter.step() is None
    workers[1].push(4)
    adopter.open()
    assert adopter.step() is not None
    assert adopter.step() is None
    assert sorted(adopter.ids()) == [1, 2, 3, 4]


def test_a_segment_is_deleted_when_its_worker_is_gone_and_all_of_it_landed(tmp_path: Path, adopter: Adopter) -> None:
    worker = Worker(tmp_path)
    worker.push(1)
    adopter.step()
    adopter.step()
    assert len(segments(adopter.folder)) == 1
    worker.push(2)
    worker.close()
    adopter.step()
    assert len(segments(adopter.folder)) == 1  # a kill may come before the cursor is written down elsewhere
    assert adopter.step() is None
    assert segments(adopter.folder) == []
    other = Worker(tmp_path)
    other.push(3)
    item = adopter.step()
    other.close()
    assert item is not None
    assert item.cursor["adoption"] == 3
    assert len(item.cursor["segments"]) == 1
    assert adopter.ids() == [1, 2, 3]


def test_a_call_under_a_key_lands_once_whichever_workers_took_it(workers: list[Worker], adopter: Adopter) -> None:
    workers[0].push(1, key="a")
    workers[1].push(1, key="a")
    adopter.step()
    workers[1].push(1, key="a")
    assert adopter.step() is None
    workers[0].push(1, key="a")
    workers[0].push(2, key="a")  # the same key for another call
    workers[0].push(1, key="b")
    workers[0].push(1)
    adopter.open()
    adopter.step()
    assert sorted(adopter.ids()) == [1, 1, 1, 2]


def test_a_segment_of_calls_that_all_came_before_is_deleted(tmp_path: Path, adopter: Adopter) -> None:
    for _ in range(2):
        worker = Worker(tmp_path)
        worker.push(1, key="a")
        worker.close()
        adopter.step()
    assert adopter.step() is None
    assert segments(adopter.folder) == []
    assert adopter.ids() == [1]


def test_an_item_is_bounded(workers: list[Worker], adopter: Adopter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adopting, "ITEM_BYTES", 25)  # of 10 bytes an event
    for number in range(10):
        workers[number % 2].push(number)
    while adopter.step() is not None:
        pass
    assert sorted(adopter.ids()) == list(range(10))
    assert {item.bytes for item in adopter.landing.waiting()} == {30, 10} | {30}


def test_a_torn_end_is_left_out(tmp_path: Path, adopter: Adopter) -> None:
    worker = Worker(tmp_path)
    worker.push(1)
    (path,) = segments(adopter.folder)
    size = path.stat().st_size
    worker.push(2, 3)
    worker.close()
    os.truncate(path, size + 40)  # as a kill within a write leaves it: nobody was told of 2 and 3
    while adopter.step() is not None:
        pass
    assert adopter.ids() == [1]
    assert segments(adopter.folder) == []


@pytest.mark.parametrize("more", [False, True])
def test_a_segment_that_does_not_hold_is_kept_aside_and_told_of(tmp_path: Path, adopter: Adopter, more: bool) -> None:
    worker = Worker(tmp_path)
    worker.push(1)
    (path,) = segments(adopter.folder)
    at = path.stat().st_size + 50
    worker.push(2)
    worker.push(3)
    worker.close()
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    adopter.step()
    assert adopter.ids() == [1]
    if more:
        other = Worker(tmp_path)
        other.push(4)
        other.close()
        item = adopter.step()
        assert item is not None
        assert [noticed.code for noticed in item.noticed] == ["push_damaged"]
    else:
        with pytest.raises(Unavailable, match="push_damaged"):
            adopter.step()
    assert path.with_suffix(".damaged").read_bytes() == content
    assert adopter.step() is None


def test_a_segment_without_a_header_is_kept_aside(tmp_path: Path, adopter: Adopter) -> None:
    worker = Worker(tmp_path)
    (path,) = segments(adopter.folder)
    worker.close()
    os.truncate(path, HEADER_BYTES - 1)
    with pytest.raises(Unavailable, match="push_damaged"):
        adopter.step()


def test_a_disk_that_takes_no_item_loses_no_event_and_no_key(
    workers: list[Worker], adopter: Adopter, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers[0].push(1, key="a")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Landing, "place", full)
        with pytest.raises(OSError, match="No space"):
            adopter.step()
    workers[0].push(2, key="b")
    adopter.step()
    assert adopter.ids() == [1, 2]


def test_what_was_never_born_is_swept(adopter: Adopter) -> None:
    adopter.folder.mkdir(parents=True)
    old, young = adopter.folder / "0123456789.new", adopter.folder / "0123456780.new"
    old.touch()
    young.touch()
    os.utime(old, (0, 0))
    adopter.step()
    assert (old.exists(), young.exists()) == (False, True)


@pytest.mark.parametrize("cursor", [{"files": []}, 7])
def test_a_cursor_of_another_kind_of_source_is_no_cursor(workers: list[Worker], adopter: Adopter, cursor: Any) -> None:
    workers[0].push(1)
    adopter.cursor = cursor
    adopter.step()
    assert adopter.ids() == [1]


def test_it_is_opened_by_its_kind(tmp_path: Path, workers: list[Worker]) -> None:
    workers[0].push(1)
    workspace = Workspace(tmp_path, Settings(log="tests.example.com/push"))
    landing = landing_of(tmp_path, "lending", "orders")
    fetcher = open_fetcher(workspace, "lending", Source(name="orders", push=Push()), landing)
    item = fetcher.step(None)
    assert item is not None
    assert item.origin == "POST /v1/capabilities/lending/sources/orders/events"
