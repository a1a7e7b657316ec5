from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING

import pytest

from ledger.samples import Writer, fork, make_entry, reap, seal, write_segment
from mainstay.errors import Damaged
from mainstay.ledger.entry import format_id, parse_id
from mainstay.ledger.find import append_change, find_entry
from mainstay.ledger.wal import End, SegmentReader, is_live, segments

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.ledger.entry import Entry


def test_an_entry_is_found_before_and_after_it_is_sealed(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    ids = []
    for _ in range(3):
        ids.append(writer.next_id())
        writer.append(1)
    for expected in (None, 2):
        found = find_entry(tmp_path, ids[2])
        assert found is not None
        assert (found.entry, found.sequence) == (writer.entries[2], expected)
        seal(tmp_path)
    writer.segment.close()
    seal(tmp_path)
    found = find_entry(tmp_path, ids[0].upper())
    assert found is not None
    assert found.sequence == 0


def test_what_is_not_there_is_none(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.append(1)
    assert find_entry(tmp_path, "no id") is None
    assert find_entry(tmp_path, format_id("0123456789", 0, 0)) is None
    assert find_entry(tmp_path, writer.next_id()) is None
    writer.segment.abandon()


def test_an_entry_is_found_while_it_is_being_sealed(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    ids = []
    for _ in range(300):
        ids.append(writer.next_id())
        writer.append(1)
    writer.segment.close()
    child = fork(lambda: seal(tmp_path))
    sequences = set()
    for _ in range(20):
        for place in (0, 150, 299):
            found = find_entry(tmp_path, ids[place])
            assert found is not None
            assert found.entry == writer.entries[place]
            sequences.add(found.sequence)
    assert reap(child)
    assert find_entry(tmp_path, ids[299]) is not None


def test_a_change_is_recorded_durably_in_a_closed_segment_of_its_own(tmp_path: Path) -> None:
    made: list[Entry] = []

    def make(entry_id: str) -> Entry:
        made.append(make_entry(entry_id, "change", {"reason": "because", "details": None}, action="key.created"))
        return made[-1]

    entry_id = append_change(tmp_path, make)
    (path,) = segments(tmp_path / "wal")
    assert not is_live(path)
    reader = SegmentReader(path)
    assert [group.entries for group in reader.groups()] == [made]
    assert reader.end is End.CLOSED
    parsed = parse_id(entry_id)
    assert parsed is not None
    assert (parsed.segment, parsed.counter) == (path.stem, 0)
    found = find_entry(tmp_path, entry_id)
    assert found is not None
    assert found.entry == made[0]


def test_an_entry_that_was_changed_is_not_handed_out(tmp_path: Path) -> None:
    entries = write_segment(tmp_path, 300)
    seal(tmp_path)
    wanted = json.loads(entries[7].leaf)["id"]
    assert find_entry(tmp_path, wanted) == (entries[7], 7)
    for name, part in (("tile/entries/000", entries[7].leaf), ("bodies/000", entries[7].body)):
        path = tmp_path / name
        content = path.read_bytes()
        changed = bytearray(content)
        changed[content.index(part) + len(part) - 3] ^= 1
        path.write_bytes(changed)
        with pytest.raises(Damaged, match="entry 7 was changed"):
            find_entry(tmp_path, wanted)
        path.write_bytes(content)
    assert find_entry(tmp_path, wanted) is not None


def test_an_index_that_leads_astray_is_seen(tmp_path: Path) -> None:
    entries = write_segment(tmp_path, 20)
    seal(tmp_path)
    wanted = json.loads(entries[7].leaf)["id"]
    assert find_entry(tmp_path, wanted) is not None
    database = sqlite3.connect(tmp_path / "index.db")
    with database:
        database.execute("UPDATE runs SET first_sequence = first_sequence + 1")
        database.execute("UPDATE decisions SET id = ? WHERE sequence = 8", (wanted,))
    database.close()
    with pytest.raises(Damaged, match="as the index says, found another"):
        find_entry(tmp_path, wanted)
