from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import pytest

from ledger.samples import KEY, ORIGIN, Writer, check, fork, reap, seal, sealed_leaves, write_segment
from mainstay.errors import Damaged, Misuse
from mainstay.ledger import sealer as sealer_module
from mainstay.ledger.log import Log
from mainstay.ledger.sealer import Sealer
from mainstay.ledger.state import load_state
from mainstay.ledger.tiles import ENTRIES, TileName
from mainstay.ledger.wal import UNBORN_SUFFIX, segments

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.ledger.entry import Entry


def leaves_of(entries: list[Entry]) -> list[bytes]:
    return [entry.leaf for entry in entries]


def test_what_is_in_finished_segments_is_sealed_and_the_segments_are_deleted(tmp_path: Path) -> None:
    entries = write_segment(tmp_path, 300) + write_segment(tmp_path, 20, close=False)
    sealed = seal(tmp_path)
    assert (sealed.entries, sealed.size, sealed.finished) == (320, 320, 2)
    assert sealed.torn == sealed.damaged == ()
    assert segments(tmp_path / "wal") == []
    log = Log(tmp_path)
    assert sorted(log.entries(0, log.size)) == sorted(entries)
    assert check(tmp_path).ok


def test_a_live_segment_is_sealed_as_it_grows(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    with Sealer(tmp_path, KEY, ORIGIN) as sealer:
        for _ in range(5):
            writer.append(3)
            sealed = sealer.seal_once()
            assert (sealed.entries, sealed.finished) == (3, 0)
        assert sealer.seal_once().entries == 0
        writer.segment.close()
        sealed = sealer.seal_once()
        assert (sealed.entries, sealed.finished, sealed.size) == (0, 1, 15)
    assert sealed_leaves(tmp_path) == leaves_of(writer.entries)
    assert check(tmp_path).ok


def test_a_pass_without_news_writes_nothing(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.append(3)
    with Sealer(tmp_path, KEY, ORIGIN) as sealer:
        sealer.seal_once()
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
        sealer.seal_once()
        assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    writer.segment.abandon()


def test_the_tail_of_a_live_segment_that_is_being_written_is_read_later(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.append(2)
    path = writer.segment.path
    whole = path.stat().st_size
    writer.append(2)
    content = path.read_bytes()
    os.truncate(path, whole + 30)
    with Sealer(tmp_path, KEY, ORIGIN) as sealer:
        sealed = sealer.seal_once()
        assert (sealed.entries, sealed.finished, sealed.torn) == (2, 0, ())
        path.write_bytes(content)
        assert sealer.seal_once().entries == 2
    writer.segment.abandon()


def test_a_torn_tail_of_a_dead_writer_is_cut_and_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    entries = write_segment(tmp_path, 4, group=2, close=False)
    (path,) = segments(tmp_path / "wal")
    os.truncate(path, path.stat().st_size - 1)
    with caplog.at_level(logging.WARNING, "mainstay.ledger"):
        sealed = seal(tmp_path)
    assert (sealed.entries, sealed.finished) == (2, 1)
    assert [place.segment for place in sealed.torn] == [path.stem]
    assert "torn tail" in caplog.text
    assert sealed_leaves(tmp_path) == leaves_of(entries[:2])
    assert not path.exists()
    assert check(tmp_path).ok


def test_a_damaged_segment_is_sealed_up_to_the_damage_and_kept_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    entries = write_segment(tmp_path, 6, group=2)
    (path,) = segments(tmp_path / "wal")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    with Sealer(tmp_path, KEY, ORIGIN) as sealer:
        sealed = sealer.seal_once()
        assert sealer.seal_once().damaged == ()
    assert (sealed.entries, sealed.finished) == (2, 0)
    assert [place.segment for place in sealed.damaged] == [path.stem]
    assert "damaged segment" in caplog.text
    assert sealed_leaves(tmp_path) == leaves_of(entries[:2])
    assert (tmp_path / "wal" / "damaged" / path.name).read_bytes() == content
    report = check(tmp_path)
    assert [finding.file for finding in report.findings] == [f"wal/damaged/{path.name}"]


def test_damage_in_a_live_segment_stays_where_it_is_until_its_writer_is_gone(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    for _ in range(3):
        writer.append(2)
    path = writer.segment.path
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    with Sealer(tmp_path, KEY, ORIGIN) as sealer:
        for _ in range(2):
            assert len(sealer.seal_once().damaged) == 1
            assert path.exists()
        writer.segment.abandon()
        assert len(sealer.seal_once().damaged) == 1
        assert not path.exists()


def test_a_segment_somebody_else_deleted_is_reported_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    writer = Writer(tmp_path)
    writer.append(2)
    with Sealer(tmp_path, KEY, ORIGIN) as sealer:
        sealer.seal_once()
        writer.segment.path.unlink()
        assert not check(tmp_path).ok
        assert [place.segment for place in sealer.seal_once().damaged] == [writer.segment.name]
        assert sealer.seal_once().damaged == ()
    assert "gone before it was sealed" in caplog.text
    writer.segment.abandon()


def test_a_second_sealer_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    with Sealer(tmp_path, KEY, ORIGIN), pytest.raises(Misuse, match="another process"):
        Sealer(tmp_path, KEY, ORIGIN)
    Sealer(tmp_path, KEY, ORIGIN).close()


def test_the_sealer_of_another_log_or_key_is_refused(tmp_path: Path) -> None:
    seal(tmp_path)
    with pytest.raises(Damaged, match="expected the log"):
        Sealer(tmp_path, KEY, "log.example.com/other")
    assert seal(tmp_path).size == 0


def test_memory_holds_a_batch_and_not_the_backlog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealer_module, "BATCH_ENTRIES", 100)
    entries = write_segment(tmp_path, 1030, group=30)
    assert seal(tmp_path).entries == 1030
    assert sealed_leaves(tmp_path) == leaves_of(entries)
    assert check(tmp_path).ok


def test_partial_tiles_stay_until_their_full_one_is_there(tmp_path: Path) -> None:
    """C2SP tlog-tiles: those of every checkpoint must be served until then."""
    writer = Writer(tmp_path)
    with Sealer(tmp_path, KEY, ORIGIN) as sealer:
        for count in (100, 100):
            writer.append(count)
            sealer.seal_once()
        assert (tmp_path / TileName(ENTRIES, 0, 100).path).exists()
        assert (tmp_path / TileName("tile/0", 0, 100).path).exists()
        writer.append(100)
        sealer.seal_once()
    writer.segment.abandon()
    found = sorted(str(path.relative_to(tmp_path)) for path in (tmp_path / "tile").rglob("*") if path.is_file())
    assert found == [
        "tile/0/000",
        "tile/0/001.p/44",
        "tile/1/000.p/1",
        "tile/entries/000",
        "tile/entries/001.p/44",
    ]


# Recovery from what is not a crash: files restored from a backup, or removed.


def half_sealed(ledger: Path) -> tuple[Writer, bytes, bytes]:
    """A ledger with 500 entries sealed from a live segment, and the state and checkpoint from when it had 300."""
    writer = Writer(ledger)
    for _ in range(6):
        writer.append(50)
    seal(ledger)
    old = (ledger / "sealer.json").read_bytes(), (ledger / "checkpoint").read_bytes()
    for _ in range(4):
        writer.append(50)
    seal(ledger)
    writer.append(50)
    return writer, *old


def check_exactly_once(ledger: Path, writer: Writer) -> None:
    seal(ledger)
    assert sealed_leaves(ledger) == leaves_of(writer.entries)
    report = check(ledger)
    assert report.ok, report.findings
    writer.segment.abandon()


def test_a_checkpoint_older_than_the_state_is_signed_again(tmp_path: Path) -> None:
    writer, _, checkpoint = half_sealed(tmp_path)
    (tmp_path / "checkpoint").write_bytes(checkpoint)
    check_exactly_once(tmp_path, writer)


def test_a_state_older_than_the_checkpoint_seals_nothing_twice(tmp_path: Path) -> None:
    writer, state, _ = half_sealed(tmp_path)
    (tmp_path / "sealer.json").write_bytes(state)
    assert not check(tmp_path).ok
    check_exactly_once(tmp_path, writer)


def test_a_missing_state_is_found_again_from_the_log(tmp_path: Path) -> None:
    writer, _, _ = half_sealed(tmp_path)
    (tmp_path / "sealer.json").unlink()
    assert not check(tmp_path).ok
    check_exactly_once(tmp_path, writer)


@pytest.mark.parametrize("names", [["checkpoint"], ["checkpoint", "sealer.json"]])
def test_without_a_checkpoint_a_log_is_not_continued(tmp_path: Path, names: list[str]) -> None:
    half_sealed(tmp_path)
    for name in names:
        (tmp_path / name).unlink()
    with pytest.raises(Damaged, match="expected"):
        seal(tmp_path)
    assert not check(tmp_path).ok


@pytest.mark.parametrize(
    "name", ["checkpoint", "sealer.json", "tile/0/001.p/244", "tile/entries/001.p/244", "bodies/001"]
)
def test_what_is_not_as_it_was_written_is_not_continued(tmp_path: Path, name: str) -> None:
    half_sealed(tmp_path)
    path = tmp_path / name
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)
    before = (tmp_path / "checkpoint").read_bytes()
    with pytest.raises(Damaged):
        seal(tmp_path)
    assert (tmp_path / "checkpoint").read_bytes() == before


def test_what_a_killed_sealer_left_beyond_the_state_is_removed(tmp_path: Path) -> None:
    entries = write_segment(tmp_path, 300)
    seal(tmp_path)
    stale = [TileName(ENTRIES, 1, 200), TileName(ENTRIES, 1), TileName(ENTRIES, 2), TileName("tile/0", 1)]
    stale += [TileName("tile/1", 0, 3), TileName("tile/0", 2, 7), TileName("tile/2", 0, 1), TileName("bodies", 2)]
    for name in stale:
        path = tmp_path / name.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"stale")
    with (tmp_path / "bodies" / "001").open("ab") as file:
        file.write(b"stale")
    (tmp_path / ".checkpoint.1234.tmp").write_bytes(b"stale")
    unborn = tmp_path / "wal" / ("0123456789" + UNBORN_SUFFIX)
    unborn.touch()
    os.utime(unborn, (0, 0))
    report = check(tmp_path)
    assert report.ok, report.findings
    assert report.unreferenced == len(stale) + 3  # with the bytes behind the last body
    more = write_segment(tmp_path, 5)
    seal(tmp_path)
    assert check(tmp_path).unreferenced == 0
    assert check(tmp_path).ok
    assert sealed_leaves(tmp_path) == leaves_of(entries + more)


def test_a_disk_that_fails_once_is_recovered_from(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    with Sealer(tmp_path, KEY, ORIGIN) as sealer:
        writer.append(300)
        sealer.seal_once()
        folder = tmp_path / "bodies"
        folder.rename(tmp_path / "away")
        folder.touch()  # where a directory must be: as good as a disk that refuses
        writer.append(300)
        for _ in range(2):
            with pytest.raises((OSError, Damaged)):
                sealer.seal_once()
        folder.unlink()
        (tmp_path / "away").rename(folder)
        assert sealer.seal_once().entries == 300
    writer.segment.abandon()
    assert sealed_leaves(tmp_path) == leaves_of(writer.entries)
    assert check(tmp_path).ok


def test_readers_see_a_whole_log_while_it_is_sealed(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    with Sealer(tmp_path, KEY, ORIGIN) as first:
        writer.append(3)
        first.seal_once()

    def seal_on() -> None:
        with Sealer(tmp_path, KEY, ORIGIN) as sealer:
            for _ in range(120):
                writer.append(7)
                sealer.seal_once()
        writer.segment.close()

    child = fork(seal_on)
    sizes = []
    while os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        report = check(tmp_path)
        assert report.ok, report.findings
        sizes.append(report.size)
        log = Log(tmp_path)
        size = log.size
        assert len(list(log.entries(0, size))) == size
    assert reap(child)
    assert len(set(sizes)) > 3
    state = load_state(tmp_path)
    assert state is not None
    assert state.size == 3 + 120 * 7
