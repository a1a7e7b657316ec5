from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.intake.landing import landing_of
from mainstay.intake.pushing import (
    ADOPTED_FILE,
    MAX_EVENTS,
    PUSHED,
    BrokenEvents,
    Full,
    Inbox,
    call_digest,
    read_events,
    waiting_bytes,
)
from mainstay.ledger.wal import HEADER_BYTES, SegmentReader, segments

if TYPE_CHECKING:
    from pathlib import Path

scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=9)
events = st.lists(st.dictionaries(st.text(max_size=4), scalars, max_size=3), max_size=5)


@given(events, st.sampled_from([None, 2]))
def test_events_are_taken_as_they_came_however_they_are_written(items: list[Any], indent: int | None) -> None:
    written = json.dumps(items, indent=indent).encode()
    found = read_events(written, lines=False)
    assert found.number == len(items)
    assert [json.loads(line) for line in found.lines.splitlines()] == items
    lined = "".join(json.dumps(item) + "\r\n" for item in items).encode()
    assert read_events(lined, lines=True) == read_events(json.dumps(items).encode(), lines=False)
    if items:
        assert read_events(json.dumps(items[0], indent=indent).encode(), lines=False).number == 1


def test_the_bytes_of_an_event_are_its_own() -> None:
    body = b'[ {"id": 12345678901234567890123, "price": 1.10,\n "a": "\\u00e9"} ,{ }]'
    assert read_events(body, lines=False).lines == (
        b'{"id": 12345678901234567890123, "price": 1.10,  "a": "\\u00e9"}\n{ }\n'
    )


@pytest.mark.parametrize(
    ("body", "lines"),
    [
        (b"", False),
        (b"7", False),
        (b"null", False),
        (b"[7]", False),
        (b'[{"a": 1}, [{}]]', False),
        (b'[{"a": 1}', False),
        (b'{"a": 1} {"a": 2}', False),
        (b'{"a": "\xff"}', False),
        (b"[" * 100_000, False),
        (b'{"a": ' * 100_000, True),
        (b'{"a": 1}\n\n{"a": 2}\n', True),
        (b'{"a": 1}\n{"a"', True),
        (b"\n", True),
        (b"[{}]\n", True),
        (b"[" + b"{}," * MAX_EVENTS + b"{}]", False),
        (b"{}\n" * (MAX_EVENTS + 1), True),
    ],
)
def test_a_call_with_anything_but_objects_is_refused_whole(body: bytes, lines: bool) -> None:
    with pytest.raises(BrokenEvents):
        read_events(body, lines=lines)


def test_as_many_events_as_are_allowed_are_taken() -> None:
    assert read_events(b"{}\n" * MAX_EVENTS, lines=True).number == MAX_EVENTS
    assert read_events(b"", lines=True).number == 0
    assert read_events(b" [] ", lines=False).number == 0


def test_a_call_is_known_by_who_sends_what_under_which_key() -> None:
    one, other = (read_events(json.dumps({"id": number}).encode(), lines=False) for number in (1, 2))
    assert call_digest(b"ab", None, one) == b""
    digests = {
        call_digest(principal, key, found)
        for principal in (b"a", b"ab")
        for key in ("k", "bk")
        for found in (one, other)
    }
    assert len(digests) == 8
    assert {len(digest) for digest in digests} == {16}


async def push(data: Path, *bodies: bytes, most_bytes: int = 1 << 30) -> None:
    inbox = Inbox(asyncio.get_running_loop(), data, "lending", "orders")
    try:
        for body in bodies:
            found = read_events(body, lines=False)
            await inbox.check_room(most_bytes, len(body))
            await inbox.take(found, b"")
        assert not inbox.pending
    finally:
        inbox.close()


def read_back(folder: Path) -> list[bytes]:
    return [
        entry.body for path in segments(folder) for group in SegmentReader(path).groups() for entry in group.entries
    ]


def test_what_is_taken_is_on_disk_call_by_call(tmp_path: Path) -> None:
    asyncio.run(push(tmp_path, b'{"id": 1}', b'[{"id": 2}, {"id": 3}]'))
    home = landing_of(tmp_path, "lending", "orders").folder.parent
    assert read_back(home / PUSHED) == [b'{"id": 1}\n', b'{"id": 2}\n{"id": 3}\n']


def test_what_waits_is_bounded_over_all_workers(tmp_path: Path) -> None:
    body = json.dumps({"note": "x" * 5_000}).encode()
    asyncio.run(push(tmp_path, body, body, most_bytes=12_000))
    with pytest.raises(Full, match="12000"):
        asyncio.run(push(tmp_path, body, most_bytes=12_000))


def test_a_worker_counts_what_it_takes_between_two_looks(tmp_path: Path) -> None:
    body = json.dumps({"note": "x" * 5_000}).encode()
    with pytest.raises(Full):
        asyncio.run(push(tmp_path, body, body, body, most_bytes=12_000))


def test_what_is_in_items_waits_there_and_what_is_in_the_table_waits_no_more(tmp_path: Path) -> None:
    landing = landing_of(tmp_path, "lending", "orders")
    assert waiting_bytes(landing.folder) == 0
    asyncio.run(push(tmp_path, json.dumps({"note": "x" * 5_000}).encode()))
    (path,) = segments(landing.folder.parent / PUSHED)
    size = path.stat().st_size
    assert waiting_bytes(landing.folder) == size
    adopted = landing.folder.parent / ADOPTED_FILE
    adopted.write_bytes(msgspec.json.encode({path.stem: size - 100, "gone": 5}))
    assert waiting_bytes(landing.folder) == 100
    with landing.begin("jsonl") as draft:
        draft.file.write(b"x" * 70)
        draft.file.flush()
        assert waiting_bytes(landing.folder) == 100
        item = draft.land(origin="a test")
    assert waiting_bytes(landing.folder) == 170
    landing.drop(item)
    adopted.write_bytes(b"{")
    assert waiting_bytes(landing.folder) == size > HEADER_BYTES
