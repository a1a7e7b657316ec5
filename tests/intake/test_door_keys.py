from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from intake.doors import Feed, source
from mainstay.intake.lateness import Watermark, current, event_times
from mainstay.intake.types import EVENT_AT, LATE, REASON, VIOLATIONS

if TYPE_CHECKING:
    from pathlib import Path


def record(number: int, amount: float = 1, at: str | None = None) -> dict[str, Any]:
    return {"id": number, "amount": amount, "at": at}


def test_a_record_that_is_the_same_again_is_counted_and_not_kept(tmp_path: Path) -> None:
    feed = Feed(tmp_path, source(key=("id",)))
    feed.take(feed.land_records(record(1), record(2), record(1)))
    taken = feed.take(feed.land_records(record(2), record(3)))
    assert (taken.accepted, taken.repeated, taken.quarantined) == (1, 1, 0)
    assert feed.accepted()["id"].to_list() == [1, 2, 3]
    assert [each.code for each in taken.findings] == ["rows_repeated"]


def test_a_page_that_comes_again_though_the_cursor_went_on_is_told(tmp_path: Path) -> None:
    feed = Feed(tmp_path, source(key=("id",)))
    feed.take(feed.land_records(record(1), record(2), cursor=2))
    same = feed.take(feed.land_records(record(2), cursor=2))
    assert [each.code for each in same.findings] == ["rows_repeated"]
    again = feed.take(feed.land_records(record(1), record(2), cursor=4))
    assert [each.code for each in again.findings] == ["rows_repeated", "repeated_page"]


@pytest.mark.parametrize(
    ("policy", "accepted", "repeated", "quarantined"),
    [("ignore", [1.0, 5.0], 3, 0), ("correct", [1.0, 2.0, 1.0, 5.0], 1, 0), ("quarantine", [1.0, 5.0], 2, 1)],
)
def test_a_known_key_with_other_content_is_taken_as_declared(
    tmp_path: Path, policy: Any, accepted: list[float], repeated: int, quarantined: int
) -> None:
    feed = Feed(tmp_path, source(key=("id",), repeated=policy))
    feed.take(feed.land_records(record(1, 1)))
    taken = feed.take(feed.land_records(record(1, 2), record(1, 1), record(7, 5), record(1, 1)))
    assert (taken.repeated, taken.quarantined) == (repeated, quarantined)
    assert feed.accepted()["amount"].to_list() == accepted
    if quarantined:
        row = feed.quarantined().row(0, named=True)
        assert (row[REASON], row[VIOLATIONS][0]["field"]) == ("repeated", "id")


def test_the_newest_row_of_a_key_is_in_force(tmp_path: Path) -> None:
    feed = Feed(tmp_path, source(key=("id",), repeated="correct"))
    feed.take(feed.land_records(record(1, 1), record(2, 1), record(1, 2)))
    feed.take(feed.land_records(record(1, 3)))
    rows = current(feed.accepted().lazy(), ["id"]).sort("id").collect()
    assert rows.select("id", "amount").rows() == [(1, 3.0), (2, 1.0)]


def test_the_known_keys_are_made_again_from_the_table(tmp_path: Path) -> None:
    feed = Feed(tmp_path, source(key=("id",), repeated="correct"))
    feed.take(feed.land_records(record(1, 1), record(2, 1, "2024-01-01T00:00:00Z"), record(1, 2)))
    for path in (feed.landing.folder.parent / "keys").iterdir():
        path.unlink()
    taken = feed.take(feed.land_records(record(1, 2), record(2, 1, "2024-01-01T00:00:00Z"), record(1, 1)))
    assert (taken.repeated, taken.accepted) == (2, 1)


def test_known_keys_that_are_behind_the_table_are_brought_up(tmp_path: Path) -> None:
    feed = Feed(tmp_path, source(key=("id",)))
    feed.take(feed.land_records(record(1)))
    folder = feed.landing.folder.parent / "keys"
    before = {path: path.read_bytes() for path in folder.iterdir()}
    feed.take(feed.land_records(record(2), record(3)))
    for path in folder.iterdir():
        path.unlink()
    for path, content in before.items():
        path.write_bytes(content)
    assert feed.take(feed.land_records(record(1), record(3), record(2), record(4))).repeated == 3


def test_a_row_without_a_key_is_always_another(tmp_path: Path) -> None:
    feed = Feed(tmp_path, source(key=("note",)))
    taken = feed.take(feed.land_records(record(1), record(1), {"id": 1, "note": "x"}, {"id": 1, "note": "x"}))
    assert (taken.accepted, taken.repeated) == (3, 1)


@pytest.mark.parametrize("policy", ["join", "correct", "re-decide"])
def test_a_late_row_is_flagged_as_declared(tmp_path: Path, policy: Any) -> None:
    feed = Feed(tmp_path, source(event_time="at", allowed_lateness_seconds=3_600, late=policy))
    feed.take(feed.land_records(record(1, at="2024-01-01T00:00:00Z"), record(2, at="2024-01-02T00:00:00Z")))
    times = ["2024-01-01T22:59:59Z", "2024-01-01T23:00:00Z", None, "2024-01-05T00:00:00Z"]
    taken = feed.take(feed.land_records(*(record(number, at=at) for number, at in enumerate(times, 3))))
    assert (taken.accepted, taken.late) == (4, 1)
    assert feed.accepted()[LATE].to_list() == [None, None, policy, None, None, None]
    assert feed.accepted()[EVENT_AT][2] == datetime(2024, 1, 1, 22, 59, 59, tzinfo=UTC)
    assert [each.code for each in taken.findings] == ["late_rows"]


def test_late_rows_that_are_ignored_are_in_quarantine(tmp_path: Path) -> None:
    feed = Feed(tmp_path, source(key=("id",), event_time="at", late="ignore"))
    feed.take(feed.land_records(record(1, at="2024-01-02T00:00:00Z")))
    late = record(2, at="2024-01-01T00:00:00Z")
    taken = feed.take(
        feed.land_records(late, late, record(2, at="2024-01-03T00:00:00Z"), record(1, at="2024-01-02T00:00:00Z"))
    )
    assert (taken.accepted, taken.quarantined, taken.repeated, taken.late) == (1, 1, 2, 1)
    row = feed.quarantined().row(0, named=True)
    assert row[REASON] == "late"
    assert row[VIOLATIONS] == [
        {
            "field": "at",
            "rule": "late",
            "expected": "an event at or after 2024-01-02T00:00:00.000000Z",
            "found": "2024-01-01T00:00:00.000000Z",
        }
    ]


def test_a_row_from_the_future_moves_the_watermark_to_its_arrival_only(tmp_path: Path) -> None:
    feed = Feed(tmp_path, source(event_time="at", allowed_lateness_seconds=60))
    feed.take(feed.land_records(record(1, at="2999-01-01T00:00:00Z")))
    now = datetime.now(UTC)
    taken = feed.take(
        feed.land_records(record(2, at=now.isoformat()), record(3, at=(now - timedelta(hours=1)).isoformat()))
    )
    assert taken.late == 1
    assert feed.accepted()[LATE].to_list() == [None, None, "join"]


def test_a_late_row_that_joins_corrects_nothing() -> None:

    rows = pl.DataFrame(
        {
            "id": [1, 1, 2, 2, None, None, 3],
            "mainstay_item": [1, 2, 1, 2, 1, 2, 9],
            "mainstay_row": [1] * 7,
            LATE: [None, "join", None, "correct", None, None, "join"],
        }
    )
    kept = current(rows.lazy(), ["id"]).collect()
    assert kept.select("id", "mainstay_item").rows() == [(1, 1), (2, 2), (None, 1), (None, 2), (3, 9)]
    assert current(rows.lazy(), []).collect().height == 7


def test_the_first_watermark_is_behind_nothing() -> None:

    mark = Watermark(10)
    assert mark.at is None
    events = event_times(pl.Series([datetime(1, 1, 1)]))  # noqa: DTZ001 - a column without a zone
    assert mark.late(events).to_list() == [False]
    mark.take(events, datetime.now(UTC))
    assert mark.at is None  # ten seconds before the first instant there is none
