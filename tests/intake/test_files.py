"""Files of a folder: each once, when it is whole, whatever its times say and however it came there."""

from __future__ import annotations

import gzip
import os
import socket
import threading
import time
from typing import TYPE_CHECKING

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from intake.folders import Feed
from mainstay.capability.sources import Source
from mainstay.errors import Damaged, Misuse
from mainstay.intake.fetching import Unavailable, open_fetcher
from mainstay.intake.files import SETTLING_FILE, FilesFetcher

if TYPE_CHECKING:
    from pathlib import Path

CSV = b"id,note\n1,a\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "incoming"
    made.mkdir()
    return made


@pytest.fixture
def feed(tmp_path: Path, folder: Path) -> Feed:
    return Feed(tmp_path, str(folder))


def put(folder: Path, name: str, content: bytes = CSV, *, age: float = 100.0) -> Path:
    path = folder / name
    path.write_bytes(content)
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_each_file_is_taken_once_the_oldest_first(feed: Feed, folder: Path) -> None:
    assert feed.step() is None
    put(folder, "b.csv", b"id\n1\n", age=300)
    put(folder, "a.jsonl", b'{"id": 1}\n', age=200)
    pl.DataFrame({"id": [1]}).write_parquet(folder / "c.PARQUET")
    assert feed.take() == ["b.csv", "a.jsonl", "c.PARQUET"]
    assert [item.kind for item in feed.items] == ["csv", "jsonl", "parquet"]
    assert feed.content(0) == b"id\n1\n"
    assert feed.items[0].origin == f"{folder}/b.csv"
    assert feed.step() is None


def test_a_file_that_is_put_in_place_with_an_old_time_is_taken(feed: Feed, folder: Path) -> None:
    put(folder, "new.csv", age=0)
    assert feed.take() == ["new.csv"]
    put(folder, "old.csv", age=1e9)
    put(folder, "new-too.csv", age=1e9)
    put(folder, "at-the-same-time.csv", age=1e9)
    assert sorted(feed.take()) == ["at-the-same-time.csv", "new-too.csv", "old.csv"]
    assert feed.step() is None


def test_what_was_taken_is_known_after_a_restart_and_when_files_leave(feed: Feed, folder: Path) -> None:
    names = [f"{n}.csv" for n in range(10)]
    for name in names:
        put(folder, name)
    assert sorted(feed.take()) == names
    for name in names[:5]:
        (folder / name).unlink()
    feed.fetcher = feed.open()
    assert feed.step() is None
    put(folder, "more.csv")
    assert feed.take() == ["more.csv"]
    same = put(folder, names[0])
    assert feed.take() == []  # it came back, with another time
    assert same.exists()
    assert [code for code, _ in feed.told()] == ["file_changed"]


def test_the_folder_may_be_relative_to_the_workspace(tmp_path: Path, folder: Path) -> None:
    put(folder, "a.csv")
    feed = Feed(tmp_path, "../incoming")
    assert feed.take() == ["a.csv"]
    assert feed.items[0].origin == "../incoming/a.csv"


def test_only_names_that_fit_are_looked_at(tmp_path: Path, folder: Path) -> None:
    for name in ("orders-1.csv", "orders-2.CSV", ".orders-3.csv", "other.csv"):
        put(folder, name)
    (folder / "orders-4.csv").mkdir()
    put(folder / "orders-4.csv", "orders-5.csv")
    feed = Feed(tmp_path, str(folder), pattern="orders-*")
    assert sorted(feed.take()) == ["orders-1.csv", "orders-2.CSV"]
    assert feed.told() == []


def test_a_file_still_being_written_is_left_until_it_has_settled(tmp_path: Path, folder: Path) -> None:
    feed = Feed(tmp_path, str(folder), settle_seconds=0.4)
    with (folder / "a.csv").open("wb") as file:
        for _ in range(4):
            file.write(b"id,note\n")
            file.flush()
            assert feed.step() is None
            time.sleep(0.1)
    deadline = time.monotonic() + 5
    while not feed.take():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert feed.content() == b"id,note\n" * 4


def test_a_time_in_the_future_holds_a_file_up_only_until_it_was_seen_to_be_still(tmp_path: Path, folder: Path) -> None:
    feed = Feed(tmp_path, str(folder), settle_seconds=0.3)
    put(folder, "a.csv", age=-1e6)
    assert feed.step() is None
    feed.fetcher = feed.open()  # it is known after a restart
    time.sleep(0.35)
    put(folder, "a.csv", b"id\n1\n2\n", age=-1e6 - 5)
    assert feed.step() is None
    time.sleep(0.35)
    assert feed.take() == ["a.csv"]
    assert (feed.landing.folder.parent / SETTLING_FILE).exists()
    at_once = Feed(tmp_path / "other", str(folder))
    assert at_once.take() == ["a.csv"]


def test_a_file_that_changes_after_it_was_taken_is_told_of_once(feed: Feed, folder: Path) -> None:
    put(folder, "a.csv")
    assert feed.take() == ["a.csv"]
    feed.told()
    put(folder, "a.csv", CSV + b"2,b\n", age=50)
    assert feed.take() == []
    assert feed.told() == [("file_changed", "a.csv: it was taken, and has changed since")]
    assert feed.step() is None
    put(folder, "a.csv", CSV + b"3,b\n", age=40)
    put(folder, "b.csv", age=30)
    assert feed.take() == ["b.csv"]
    assert [code for code, _ in feed.told()] == ["file_changed"]


def test_where_the_source_has_a_key_a_changed_file_is_taken_again(tmp_path: Path, folder: Path) -> None:
    feed = Feed(tmp_path, str(folder), key=("id",))
    put(folder, "a.csv")
    feed.take()
    put(folder, "a.csv", CSV + b"2,b\n", age=50)
    assert feed.take() == ["a.csv"]
    assert feed.content() == CSV + b"2,b\n"
    assert [code for code, _ in feed.told()] == ["file_changed"]
    assert feed.step() is None


def test_what_is_taken_does_not_change_any_more(feed: Feed, folder: Path) -> None:
    path = put(folder, "a.csv")
    feed.take()
    with path.open("r+b") as file:
        file.write(b"XX")
    assert feed.content() == CSV


def test_a_file_that_changes_while_it_is_copied_does_not_land(
    feed: Feed, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(folder, "a.csv", b"id\n" + b"1\n" * 100_000)
    copy = os.copy_file_range
    changes: list[int] = []

    def meanwhile(source: int, target: int, count: int) -> int:
        done = copy(source, target, min(count, 1000))
        if not changes:
            changes.append(path.write_bytes(b"id\n" + b"2\n" * 100_000))
        return done

    monkeypatch.setattr(os, "copy_file_range", meanwhile)
    assert feed.step() is None
    assert feed.landing.waiting() == []
    monkeypatch.undo()
    assert feed.take() == ["a.csv"]
    assert b"1" not in feed.content()


def test_a_file_that_shrinks_or_goes_while_it_is_copied_does_not_land(
    feed: Feed, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(folder, "a.csv", b"id\n" + b"1\n" * 100_000)

    def no_kernel_copy(source: int, target: int, count: int) -> int:
        os.truncate(path, 10)
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "copy_file_range", no_kernel_copy)
    assert feed.step() is None
    listed = feed.fetcher._list

    def gone(known: object) -> object:
        found = listed(known)  # type: ignore[arg-type]  # as it was called
        path.unlink(missing_ok=True)
        return found

    monkeypatch.setattr(feed.fetcher, "_list", gone)
    assert feed.step() is None
    assert feed.landing.waiting() == []


def test_where_the_kernel_cannot_copy_it_is_copied_here(
    feed: Feed, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_kernel_copy(source: int, target: int, count: int) -> int:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "copy_file_range", no_kernel_copy)
    content = b"id\n" + b"1\n" * 2_000_000
    put(folder, "a.csv", content)
    feed.take()
    assert feed.content() == content


@pytest.mark.parametrize(
    ("name", "content", "code", "words"),
    [
        ("a.csv", b"", "not_whole", "it is empty"),
        ("a.jsonl", b'{"id": 1}\n{"id', "not_whole", "no whole JSON"),
        ("a.csv", b"id,note\n1,a\n2", "not_whole", "not as many cells"),
        ("a.csv", b'id,note\n1,"half', "not_whole", "not as many cells"),
        ("a.csv", b"id,no", "not_whole", "not as many cells"),
        ("a.parquet", b"PAR1 and then nothing", "not_whole", "before its footer"),
        ("a.parquet", b"PAR1\xff\xff\x00\x00PAR1", "not_whole", "before its footer"),
        ("a.parquet", b"<html>", "file_rejected", "no Parquet file"),
        ("a.csv.gz", gzip.compress(CSV * 100, mtime=0)[:-9], "not_whole", "ends before its end"),
        ("a.csv.gz", b"no gzip", "file_rejected", "no gzip file"),
        ("a.csv.zst", b"x", "file_rejected", "compression cannot be read"),
        ("a.txt", CSV, "file_rejected", "declare `format`"),
        ("a.jsonl", b'{"id": 1}\n' * 200, "too_large", "`max_file_bytes`=1000"),
        ("a.csv.gz", gzip.compress(CSV * 200, mtime=0), "too_large", "unpacked"),
    ],
)
def test_a_file_that_cannot_be_taken_is_told_of_once_and_tried_again_when_it_changed(
    tmp_path: Path, folder: Path, name: str, content: bytes, code: str, words: str
) -> None:
    feed = Feed(tmp_path, str(folder), max_file_bytes=1000)
    put(folder, name, content)
    put(folder, "other.csv")
    assert feed.take() == ["other.csv"]
    ((told, detail),) = feed.told()
    assert told == code
    assert detail.startswith(f"{name}: ")
    assert words in detail
    feed.fetcher = feed.open()
    assert feed.step() is None
    if name in {"a.csv", "a.jsonl"}:
        put(folder, name, CSV if name == "a.csv" else b'{"id": 1}\n', age=10)
        assert feed.take() == [name]
        assert feed.told() == []


@pytest.mark.parametrize("content", [b"id,note\n1,a", b'id,note\r\n1,"a, b"', b"id;note\n1;a", b"id\n1"])
def test_a_last_line_without_a_break_is_whole_when_its_cells_are(feed: Feed, folder: Path, content: bytes) -> None:
    put(folder, "a.csv", content)
    put(folder, "b.jsonl", b'{"id": 1}')
    assert sorted(feed.take()) == ["a.csv", "b.jsonl"]


def test_gzip_is_unpacked(feed: Feed, folder: Path) -> None:
    put(folder, "a.csv.gz", gzip.compress(CSV) + gzip.compress(b"2,b\n"))
    feed.take()
    assert feed.items[0].kind == "csv"
    assert feed.content() == CSV + b"2,b\n"


def test_the_declared_format_and_delimiter_count(tmp_path: Path, folder: Path) -> None:
    feed = Feed(tmp_path, str(folder), format="csv", delimiter=";")
    put(folder, "export.txt", b"a,b;c\n1;2")
    assert feed.take() == ["export.txt"]
    assert (feed.items[0].kind, feed.items[0].delimiter) == ("csv", ";")


def test_what_is_no_file_is_refused(feed: Feed, folder: Path, tmp_path: Path) -> None:
    secret = put(tmp_path, "secret.csv")
    (folder / "link.csv").symlink_to(secret)
    (folder / "loop.csv").symlink_to(folder / "loop.csv")
    (folder / "inside.csv").symlink_to(put(folder, "real.csv"))
    os.mkfifo(folder / "pipe.csv")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "socket.csv"))
        assert feed.take() == ["real.csv"]
    told = sorted(detail.partition(":")[0] for _, detail in feed.told())
    assert told == ["inside.csv", "link.csv", "loop.csv", "pipe.csv", "socket.csv"]
    assert feed.step() is None


def test_a_file_that_may_not_be_read_is_taken_when_it_may(
    feed: Feed, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(folder, "a.csv")
    really = os.open

    def refuse(name: object, *rest: int, **more: int) -> int:  # whoever tests may read everything
        if name == path:
            raise PermissionError(13, "Permission denied")
        return really(name, *rest, **more)  # type: ignore[arg-type]  # as it was called

    monkeypatch.setattr(os, "open", refuse)
    assert feed.take() == []
    assert feed.told() == [("file_rejected", "a.csv: it cannot be read: Permission denied")]
    assert feed.step() is None
    monkeypatch.undo()
    path.chmod(0o640)
    assert feed.take() == ["a.csv"]


def test_names_that_are_no_text_are_taken_and_shown_escaped(feed: Feed, folder: Path) -> None:
    for name in (b"caf\xe9.csv", b"two\nlines.csv", "über.csv".encode()):
        (folder / os.fsdecode(name)).write_bytes(CSV)
    assert sorted(feed.take()) == ["caf\\xe9.csv", "two\\nlines.csv", "über.csv"]
    assert feed.step() is None


def test_a_folder_that_is_not_there_is_down(tmp_path: Path) -> None:
    feed = Feed(tmp_path, "nowhere")
    with pytest.raises(Unavailable, match="source_down: the folder nowhere: No such file"):
        feed.step()


def test_names_in_order_are_taken_in_order_and_only_the_last_is_remembered(tmp_path: Path, folder: Path) -> None:
    feed = Feed(tmp_path, str(folder), in_order=True)
    for n in (3, 1, 2):
        put(folder, f"2026-03-0{n}.csv", age=n)
    assert feed.take() == ["2026-03-01.csv", "2026-03-02.csv", "2026-03-03.csv"]
    assert feed.cursor == {"last": "2026-03-03.csv", "known": ""}
    put(folder, "2026-02-28.csv")
    put(folder, "2026-03-04.csv", b"")
    put(folder, "2026-03-05.csv")
    for _ in range(2):
        with pytest.raises(Unavailable, match=r"not_whole: 2026-03-04\.csv: it is empty"):
            feed.step()
    put(folder, "2026-03-04.csv")
    assert feed.take() == ["2026-03-04.csv", "2026-03-05.csv"]
    (folder / os.fsdecode(b"2026-03-06\xff.csv")).write_bytes(CSV)
    with pytest.raises(Unavailable, match="no UTF-8"):
        feed.step()


def test_names_in_order_wait_for_one_that_has_not_settled(tmp_path: Path, folder: Path) -> None:
    feed = Feed(tmp_path, str(folder), in_order=True, settle_seconds=50)
    put(folder, "1.csv", age=1)
    put(folder, "2.csv")
    assert feed.step() is None
    put(folder, "1.csv")
    assert feed.take() == ["1.csv", "2.csv"]


def test_more_files_than_are_remembered_stop_the_source_until_some_have_left(
    feed: Feed, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mainstay.intake.files_known.MAX_KNOWN", 5)
    for n in range(6):
        put(folder, f"{n}.csv", age=100 - n)
    with pytest.raises(Unavailable, match="folder_full"):
        feed.take()
    assert len(feed.items) == 6
    for n in range(3):
        (folder / f"{n}.csv").unlink()
    put(folder, "new.csv")
    assert feed.take() == ["new.csv"]
    assert feed.step() is None


def test_many_files_that_cannot_be_taken_are_told_of_in_several_items(feed: Feed, folder: Path) -> None:
    for n in range(50):
        put(folder, f"{n}.txt")
    assert feed.take() == []
    assert len(feed.items) > 1
    assert len(feed.told()) == 50


def test_what_is_no_source_of_files_is_refused(tmp_path: Path, feed: Feed) -> None:
    assert isinstance(open_fetcher(feed.workspace, "late-arrival", feed.source, feed.landing), FilesFetcher)
    with pytest.raises(Misuse, match="expected one of kind files"):
        FilesFetcher(feed.workspace, "late-arrival", Source(name="x"), feed.landing)
    with pytest.raises(Misuse, match="expected a path, or s3://"):
        Feed(tmp_path / "other", "gs://bucket/folder")
    for cursor in ({"page": 1}, {"known": "AAAA"}, {"known": "?"}):
        with pytest.raises(Damaged):
            feed.fetcher.step(cursor)


def test_writers_that_rename_into_place_lose_and_double_nothing(tmp_path: Path, folder: Path) -> None:
    feed = Feed(tmp_path, str(folder), settle_seconds=0.0)
    ids = iter(range(10_000))

    def write(who: int) -> None:
        for n in range(40):
            hidden = folder / f".{who}-{n}.csv"
            hidden.write_bytes(b"id\n" + b"".join(b"%d\n" % next(ids) for _ in range(5)))
            os.utime(hidden, (1_000_000 - n,) * 2)
            hidden.rename(folder / f"{who}-{n}.csv")

    writers = [threading.Thread(target=write, args=(who,)) for who in range(2)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        feed.take()
    feed.take()
    landed = [int(line) for n in range(len(feed.items)) for line in feed.content(n).split()[1:]]
    assert sorted(landed) == list(range(400))


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rounds=st.lists(
        st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 3), st.booleans()), max_size=5), max_size=5
    )
)
def test_whatever_comes_and_goes_each_name_is_taken_once(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[list[tuple[str, int, bool]]]
) -> None:
    root = tmp_path_factory.mktemp("once")
    folder = root / "incoming"
    folder.mkdir()
    feed = Feed(root, str(folder))
    seen: set[str] = set()
    taken: list[str] = []
    for changes in rounds:
        for name, age, leaves in changes:
            if leaves:
                (folder / name).unlink(missing_ok=True)
            else:
                put(folder, f"{name}.csv", age=age * 1000)
                seen.add(f"{name}.csv")
        taken += feed.take()
        feed.fetcher = feed.open()
    assert sorted(taken) == sorted(seen)
