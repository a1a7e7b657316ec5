from __future__ import annotations

import os
import random
import struct
import time
from typing import TYPE_CHECKING

import pytest

from ledger.samples import Writer, fork, reap, write_segment
from mainstay.ledger.entry import MAX_LEAF_BYTES, SALT_BYTES
from mainstay.ledger.wal import (
    GROUP_HEADER_BYTES,
    HEADER_BYTES,
    MAX_GROUP_BYTES,
    UNBORN_SUFFIX,
    End,
    Segment,
    SegmentReader,
    frame_entry,
    is_live,
    segments,
)

if TYPE_CHECKING:
    from pathlib import Path


def one_segment(directory: Path) -> Path:
    (path,) = segments(directory / "wal")
    return path


def test_what_was_appended_is_read_group_by_group(tmp_path: Path) -> None:
    entries = write_segment(tmp_path, 7, group=3)
    reader = SegmentReader(one_segment(tmp_path))
    groups = list(reader.groups())
    assert [len(group.entries) for group in groups] == [3, 3, 1]
    assert [entry for group in groups for entry in group.entries] == entries
    assert reader.end is End.CLOSED
    assert reader.offset == reader.path.stat().st_size


def test_reading_goes_on_where_it_stopped(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.append(2)
    reader = SegmentReader(writer.segment.path)
    assert len(list(reader.groups())) == 1
    assert reader.end is End.OPEN
    later = writer.append(3)
    assert [group.entries for group in reader.groups()] == [later]
    writer.segment.close()
    later_reader = SegmentReader(reader.path, reader.offset)
    assert list(later_reader.groups()) == []
    assert later_reader.end is End.CLOSED


def test_a_torn_tail_is_recognised_at_every_length_and_cut_at_the_last_whole_group(tmp_path: Path) -> None:
    entries = write_segment(tmp_path, 5, group=2)
    path = one_segment(tmp_path)
    content = path.read_bytes()
    reader = SegmentReader(path)
    ends = [HEADER_BYTES, *(group.end for group in reader.groups())]
    counts = dict(zip(ends, (0, 2, 4, 5), strict=True))
    for length in range(len(content)):
        path.write_bytes(content[:length])
        reader = SegmentReader(path)
        found = [entry for group in reader.groups() for entry in group.entries]
        whole = max((end for end in ends if end <= length), default=0)
        assert found == entries[: counts.get(whole, 0)]
        assert reader.offset == whole
        if length < HEADER_BYTES:  # it got its name only when its header was on disk
            assert reader.end is End.DAMAGED
        else:
            assert reader.end is (End.OPEN if length in ends else End.TORN)


@pytest.mark.parametrize("close", [True, False])
def test_a_last_group_that_is_all_there_and_does_not_hold_is_no_torn_tail(tmp_path: Path, *, close: bool) -> None:
    write_segment(tmp_path, 5, group=2, close=close)
    path = one_segment(tmp_path)
    content = path.read_bytes()
    ends = [group.end for group in SegmentReader(path).groups()]
    last = ends[-1] if close else ends[-2]
    for place in range(last * 8, len(content) * 8):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        reader = SegmentReader(path)
        list(reader.groups())
        assert (reader.end, reader.offset) == (End.BROKEN, last), place


def test_bytes_that_no_beginning_of_a_group_could_have_are_no_torn_tail(tmp_path: Path) -> None:
    write_segment(tmp_path, 4, group=2, close=False)
    path = one_segment(tmp_path)
    content = path.read_bytes()
    last = [group.end for group in SegmentReader(path).groups()][-2]
    sizes_at = last + GROUP_HEADER_BYTES
    for changed in (
        content[:last] + b"MSG2",
        content[: last + 10] + b"\xff",
        content[: last + 12] + b"\xff" * 4 + content[last + 16 : -1],  # more entries than fit
        content[:sizes_at] + b"\x00\x01\x00\x00" + content[sizes_at + 4 : -1],  # a leaf longer than any
        content[: sizes_at + 4] + b"\x0f" + content[sizes_at + 5 : -1],  # a body longer than its group
    ):
        path.write_bytes(changed)
        reader = SegmentReader(path)
        list(reader.groups())
        assert (reader.end, reader.offset) == (End.BROKEN, last), changed[last:]
    path.write_bytes(content + b"M")
    reader = SegmentReader(path)
    list(reader.groups())
    assert (reader.end, reader.offset) == (End.TORN, len(content))


def test_headers_made_to_be_found_do_not_have_a_segment_read_again_and_again(tmp_path: Path) -> None:
    path = tmp_path / "0123456789.wal"
    header = b"MSWAL\x01" + b"0123456789"
    count = 60_000  # each says to be as long as all that follows: reading them all would be 40 GB
    size = HEADER_BYTES + count * GROUP_HEADER_BYTES
    fakes = (
        struct.pack(">4sQIII", b"MSG1", at, 1, size - at - GROUP_HEADER_BYTES, 0)
        for at in range(HEADER_BYTES, size, GROUP_HEADER_BYTES)
    )
    path.write_bytes(header + b"".join(fakes))
    reader = SegmentReader(path)
    begun = time.process_time()
    assert list(reader.groups()) == []
    assert reader.end is End.DAMAGED
    assert time.process_time() - begun < 2


def test_only_regular_files_with_the_name_of_a_segment_are_segments(tmp_path: Path) -> None:
    write_segment(tmp_path, 1)
    (path,) = segments(tmp_path / "wal")
    os.mkfifo(tmp_path / "wal" / "aaaaaaaaaa.wal")
    (tmp_path / "wal" / "bbbbbbbbbb.wal").symlink_to(path)
    (tmp_path / "wal" / "cccccccccc.wal").mkdir()
    (tmp_path / "wal" / "readme.wal").write_bytes(b"")
    assert segments(tmp_path / "wal") == [path]
    for name in ("aaaaaaaaaa", "bbbbbbbbbb"):
        with pytest.raises(OSError):  # noqa: PT011 - of which kind is the system's matter
            list(SegmentReader(tmp_path / "wal" / f"{name}.wal").groups())


def test_any_flipped_byte_before_the_last_group_is_damage(tmp_path: Path) -> None:
    write_segment(tmp_path, 6, group=2)
    path = one_segment(tmp_path)
    content = bytearray(path.read_bytes())
    for offset in range(len(content) - GROUP_HEADER_BYTES):
        content[offset] ^= 1 << offset % 8
        path.write_bytes(content)
        reader = SegmentReader(path)
        list(reader.groups())
        assert reader.end is End.DAMAGED, offset
        assert reader.offset <= offset
        content[offset] ^= 1 << offset % 8


def test_zeros_behind_the_last_whole_group_are_not_what_a_killed_process_leaves(tmp_path: Path) -> None:
    write_segment(tmp_path, 2, close=False)
    path = one_segment(tmp_path)
    whole = path.stat().st_size
    os.truncate(path, whole + 4096)  # as a power cut leaves a file whose length was written before its content
    reader = SegmentReader(path)
    assert len(list(reader.groups())) == 1
    assert (reader.end, reader.offset) == (End.BROKEN, whole)


def test_bytes_behind_the_mark_of_a_good_end_are_damage(tmp_path: Path) -> None:
    write_segment(tmp_path, 2)
    path = one_segment(tmp_path)
    path.write_bytes(path.read_bytes() + b"x")
    reader = SegmentReader(path)
    list(reader.groups())
    assert reader.end is End.DAMAGED


def test_a_segment_under_another_name_is_damage(tmp_path: Path) -> None:
    write_segment(tmp_path, 1)
    path = one_segment(tmp_path).rename(tmp_path / "wal" / "0123456789.wal")
    reader = SegmentReader(path)
    assert list(reader.groups()) == []
    assert reader.end is End.DAMAGED


def test_any_bytes_can_be_read(tmp_path: Path) -> None:
    write_segment(tmp_path, 6, group=2)
    path = one_segment(tmp_path)
    content = path.read_bytes()
    rng = random.Random(5)
    for _ in range(300):
        at, end = sorted(rng.sample(range(len(content)), 2))
        path.write_bytes(content[:at] + rng.randbytes(rng.randrange(40)) + content[end:])
        list(SegmentReader(path).groups())


def test_a_group_that_was_being_written_is_no_damage_because_later_ones_follow_it(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.append(1)
    path = writer.segment.path
    whole = path.read_bytes()
    writer.append(1)
    second = path.read_bytes()
    path.write_bytes(second[:-5])
    reader = SegmentReader(path)
    groups = reader.groups()
    assert next(groups).end == len(whole)
    path.write_bytes(second)  # the writer goes on after the reader has seen how long the file is
    writer.append(1)
    assert list(groups) == []
    assert reader.end is End.TORN


def test_a_segment_is_live_for_as_long_as_its_writer(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()

    def write_and_wait() -> None:
        os.close(write_end)
        segment = Segment(tmp_path)
        segment.append([frame_entry(b"{}", bytes(16), b"")], 1)
        (tmp_path / "ready").touch()
        os.read(read_end, 1)

    child = fork(write_and_wait)
    os.close(read_end)
    while not (tmp_path / "ready").exists():
        os.sched_yield()
    (path,) = segments(tmp_path)
    assert is_live(path)
    os.close(write_end)
    assert reap(child)
    assert not is_live(path)


def test_a_segment_gets_its_name_only_when_it_is_locked(tmp_path: Path) -> None:
    """Else a sealer could take one just being made for one without a writer, and delete it."""
    seen = set()

    def make_many() -> None:
        for _ in range(200):
            Segment(tmp_path).abandon()

    child = fork(make_many)
    while os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        for path in segments(tmp_path):
            if path not in seen:
                seen.add(path)
                assert path.stat().st_size == HEADER_BYTES
    assert reap(child)
    assert not list(tmp_path.glob("*" + UNBORN_SUFFIX))


def test_what_readers_would_refuse_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="65535"):
        frame_entry(bytes(MAX_LEAF_BYTES + 1), bytes(SALT_BYTES), b"")
    segment = Segment(tmp_path)
    block = bytes(1 << 20)
    with pytest.raises(ValueError, match="group"):
        segment.append([block] * (MAX_GROUP_BYTES // len(block) + 1), 1)
    assert segment.path.stat().st_size == HEADER_BYTES
    segment.close()


def test_the_entries_of_a_group_must_fill_it(tmp_path: Path) -> None:
    segment = Segment(tmp_path)
    segment.append([frame_entry(b"{}", bytes(16), b"") + b"more"], 1)
    segment.close()
    reader = SegmentReader(segment.path)
    assert list(reader.groups()) == []
    assert reader.end is End.DAMAGED


def test_segments_are_listed_oldest_first_and_a_missing_folder_has_none(tmp_path: Path) -> None:
    assert segments(tmp_path / "nowhere") == []
    made = []
    for place in range(3):
        segment = Segment(tmp_path)
        segment.close()
        os.utime(segment.path, (place, place))
        made.append(segment.path)
    assert segments(tmp_path) == made
