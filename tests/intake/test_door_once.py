"""Any items, cut short anywhere, any number of times: each record is accepted, quarantined or known, once."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import polars as pl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from intake import doors
from intake.door_children import moments
from intake.doors import Feed, source
from mainstay.contract import tables_sifting
from mainstay.intake import door_rows
from mainstay.intake.types import ITEM, RAW, ROW

if TYPE_CHECKING:
    import pytest

    from mainstay.intake.landing import Item, Kind

RECORDS = st.fixed_dictionaries(
    {"id": st.integers(-1, 6), "amount": st.sampled_from([None, 1.0, 600.0, 2_000.0])},
)
ITEMS = st.lists(
    st.tuples(st.sampled_from(["jsonl", "csv", "parquet"]), st.lists(RECORDS, max_size=7)), min_size=1, max_size=3
)
CUTS = st.lists(st.tuples(st.integers(1, 9), st.sampled_from(["1000", "500"])), max_size=5)


class Cut(BaseException):
    """As if the process were killed."""


def written(kind: Kind, records: list[dict[str, Any]]) -> bytes:
    frame = pl.DataFrame(records, schema={"id": pl.Int64(), "amount": pl.Float64()})
    if kind == "parquet":
        buffer = BytesIO()
        frame.write_parquet(buffer)
        return buffer.getvalue()
    return frame.write_csv().encode() if kind == "csv" else frame.write_ndjson().encode()


def lived(feed: Feed, cut_at: int, limit: str) -> None:
    """Take all that waits, but for what a cut prevents."""

    def cut(moment: int) -> None:
        if moment == cut_at:
            raise Cut

    before = moments(cut)
    try:
        for item in feed.landing.waiting():
            feed.take(item, doors.CONTRACT.replace("1000", limit))
            feed.landing.drop(item)
    except Cut:
        pass
    finally:
        for owner, name, work in before:
            setattr(owner, name, work)


def test_each_record_is_taken_once_whatever_is_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door_rows, "PART_ROWS", 3)
    monkeypatch.setattr(tables_sifting, "MAX_ROWS", 2)

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(ITEMS, CUTS, st.sampled_from(["free", "ignore", "quarantine", "correct"]))
    def check(items: list[tuple[Kind, list[dict[str, Any]]]], cuts: list[tuple[int, str]], keyed: Any) -> None:
        with TemporaryDirectory() as name:
            declared = source() if keyed == "free" else source(key=("id",), repeated=keyed)
            feed = Feed(Path(name), declared)
            for number, (kind, records) in enumerate(items):
                feed.land(written(kind, records), kind, cursor=number)
            for cut_at, limit in cuts:
                lived(feed, cut_at, limit if keyed == "free" else "1000")
            lived(feed, 0, "1000")
            assert feed.landing.waiting() == []
            assert_once(feed, items, keyed)

    check()


def test_a_refused_item_is_in_quarantine_once_whatever_is_cut_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door_rows, "PART_ROWS", 3)
    monkeypatch.setattr(tables_sifting, "MAX_ROWS", 2)
    records = [{"id": number, "amount": 5_000.0 if number == 4 else 1.0} for number in range(8)]
    cuts = 0
    for cut_at in range(1, 100):
        feed = Feed(tmp_path / str(cut_at))
        item = feed.land(written("jsonl", records), "jsonl", cursor=7)
        cuts += refused(feed, item, cut_at)
        refused(feed, item, 0)
        assert feed.accepted().height == 0
        found = feed.quarantined().select(ROW, "mainstay_reason").rows()
        assert found == [(row, "rules" if row == 5 else "refused") for row in range(1, 9)]
        assert (feed.door().reached, feed.door().cursor) == (1, 7)
        if cuts < cut_at:
            break
    assert cuts > 10


def test_what_was_let_in_before_an_item_was_refused_stays_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door_rows, "PART_ROWS", 3)
    monkeypatch.setattr(tables_sifting, "MAX_ROWS", 2)
    records = [{"id": number - (number == 1) * 2, "amount": 1.0} for number in range(8)]  # the second is bad
    for cut_at in range(3, 8):
        feed = Feed(tmp_path / str(cut_at))
        item = feed.land(written("jsonl", records), "jsonl")
        lived(feed, cut_at, "1000")
        before = [] if feed.lake.find("intake/shop/orders") is None else feed.accepted()[ROW].to_list()
        refused(feed, item, 0)
        assert feed.accepted()[ROW].to_list() == before
        assert sorted([*before, *feed.quarantined()[ROW].to_list()]) == list(range(1, 9))


def refused(feed: Feed, item: Item, cut_at: int) -> bool:
    """Refuse an item; whether that was cut short."""

    def cut(moment: int) -> None:
        if moment == cut_at:
            raise Cut

    before = moments(cut)
    try:
        feed.door().take(item, feed.landing.path(item), refused="in kilometres")
    except Cut:
        return True
    finally:
        for owner, name, work in before:
            setattr(owner, name, work)
    return False


def assert_once(feed: Feed, items: list[tuple[Kind, list[dict[str, Any]]]], keyed: str) -> None:
    accepted, quarantined = feed.accepted(), feed.quarantined()
    places = [row for frame in (accepted, quarantined) for row in frame.select(ITEM, ROW).rows()]
    assert len(set(places)) == len(places)
    came = {(i, j): each for i, (_, records) in enumerate(items, 1) for j, each in enumerate(records, 1)}
    assert set(places) <= set(came)
    for item, row, id_, amount in accepted.select(ITEM, ROW, "id", "amount").rows():
        assert came[item, row] == {"id": id_, "amount": amount}
    for item, row, raw in quarantined.select(ITEM, ROW, RAW).rows():
        if raw.startswith(b"{"):
            assert {"id": None, "amount": None, **json.loads(raw)} == came[item, row]
    missing = set(came) - set(places)
    if keyed == "free":
        assert not missing
        return
    # What is missing was known: it, or with `ignore` another content of its key, stands in the table before it.
    for place in missing:
        record = came[place]
        earlier = [
            {"id": id_, "amount": amount}
            for item, row, id_, amount in accepted.select(ITEM, ROW, "id", "amount").rows()
            if (item, row) < place and id_ == record["id"]
        ]
        assert earlier if keyed == "ignore" else record in earlier
