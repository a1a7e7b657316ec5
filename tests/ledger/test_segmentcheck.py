from __future__ import annotations

import os
import time
from threading import Timer
from typing import TYPE_CHECKING

from ledger.samples import KEY, ORIGIN, Writer, check, write_segment
from mainstay.ledger.sealer import Sealer
from mainstay.ledger.wal import SegmentReader, segments

if TYPE_CHECKING:
    from pathlib import Path


def last_group(path: Path) -> int:
    """Where the last group of a segment begins that has entries."""
    ends = [group.end for group in SegmentReader(path).groups()]
    return ends[-2]


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:  # the writer holds this very file
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def test_a_changed_last_group_of_a_dead_writer_is_found_and_kept_by_the_sealer(tmp_path: Path) -> None:
    write_segment(tmp_path, 6, group=2, close=False)
    (path,) = segments(tmp_path / "wal")
    begin = last_group(path)
    flip(path, path.stat().st_size - 1)
    report = check(tmp_path)
    (finding,) = report.findings
    assert (finding.file, finding.offset) == (f"wal/{path.name}", begin)
    assert "it was changed, or the power failed" in finding.what
    assert (report.unsealed, report.torn) == (4, [])
    with Sealer(tmp_path, KEY, ORIGIN) as sealer:
        sealed = sealer.seal_once()
    assert (sealed.entries, [place.offset for place in sealed.damaged]) == (4, [begin])
    report = check(tmp_path)
    (finding,) = report.findings
    assert (finding.file, finding.offset) == (f"wal/damaged/{path.name}", begin)
    assert "the power failed before anybody was told" in finding.what


def test_a_changed_last_group_of_a_writer_that_lives_is_found(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    for _ in range(3):
        writer.append(2)
    path = writer.segment.path
    flip(path, path.stat().st_size - 1)
    (finding,) = check(tmp_path).findings
    assert finding.file == f"wal/{path.name}"
    with Sealer(tmp_path, KEY, ORIGIN) as sealer:
        assert (sealed := sealer.seal_once()).entries == 4
        assert sealed.damaged == ()  # its writer may be writing it just now
    writer.segment.abandon()


def test_a_group_that_is_whole_in_a_moment_is_no_alarm(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    for _ in range(3):
        writer.append(2)
    path = writer.segment.path
    at = path.stat().st_size - 1
    flip(path, at)
    Timer(0.1, flip, (path, at)).start()
    assert check(tmp_path).ok
    writer.segment.abandon()


def test_a_group_that_is_being_written_is_no_alarm_and_costs_no_time(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    for _ in range(3):
        writer.append(2)
    os.truncate(writer.segment.path, writer.segment.path.stat().st_size - 5)
    begun = time.monotonic()
    report = check(tmp_path)
    assert (report.ok, report.unsealed, report.torn, report.killed) == (True, 4, [], 0)
    assert time.monotonic() - begun < 0.4
    writer.segment.abandon()
    assert len(check(tmp_path).torn) == 1


def test_the_ends_of_segments_are_told_apart(tmp_path: Path) -> None:
    write_segment(tmp_path, 4, group=2)
    write_segment(tmp_path, 4, group=2, close=False)
    torn = write_segment(tmp_path, 4, group=2, close=False)
    assert len(torn) == 4
    path = segments(tmp_path / "wal")[-1]
    os.truncate(path, path.stat().st_size - 1)
    report = check(tmp_path)
    assert (report.ok, report.unsealed, len(report.torn), report.killed) == (True, 10, 1, 2)
