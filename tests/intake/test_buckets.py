"""Files of a bucket, over a local S3 server."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Any

import obstore
import pytest
from obstore.store import S3Store

from intake.folders import Feed
from lake.lakes import BUCKET, s3_server
from mainstay.errors import Misuse
from mainstay.intake.buckets import Bucket, open_bucket
from mainstay.intake.fetching import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CSV = b"id,note\n1,a\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with s3_server(tmp_path_factory.mktemp("s3")) as environment:
        yield environment


@pytest.fixture
def store(server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> S3Store:
    for name, value in server.items():
        monkeypatch.setenv(name, value)
    config: Any = {name.lower(): value for name, value in server.items()}
    made = S3Store(BUCKET, config=config, client_options={"allow_http": True})
    everything = [meta["path"] for chunk in obstore.list(made) for meta in chunk]
    if everything:
        obstore.delete(made, everything)
    return made


@pytest.fixture
def feed(tmp_path: Path, store: S3Store) -> Feed:
    return Feed(tmp_path, f"s3://{BUCKET}/feeds/orders")


def put(store: S3Store, name: str, content: bytes = CSV) -> None:
    obstore.put(store, f"feeds/orders/{name}", content)


def test_each_object_is_taken_once(feed: Feed, store: S3Store) -> None:
    assert feed.step() is None
    for name in ("b.csv", "a.jsonl", "é x%20.csv", ".hidden.csv", "below/c.csv"):
        put(store, name, b'{"id": 1}\n' if name == "a.jsonl" else CSV)
    obstore.put(store, "feeds/orders-too.csv", CSV)
    assert sorted(feed.take()) == ["a.jsonl", "b.csv", "é x%20.csv"]
    assert feed.items[0].origin.startswith(f"s3://{BUCKET}/feeds/orders/")
    assert {feed.content(n) for n in range(3)} == {CSV, b'{"id": 1}\n'}
    feed.fetcher = feed.open()
    assert feed.step() is None
    put(store, "d.csv")
    assert feed.take() == ["d.csv"]


def test_an_object_that_changes_is_told_of(feed: Feed, store: S3Store) -> None:
    put(store, "a.csv")
    feed.take()
    feed.told()
    put(store, "a.csv")  # the same again
    assert feed.step() is None
    put(store, "a.csv", CSV + b"2,b\n")
    assert feed.take() == []
    assert [code for code, _ in feed.told()] == ["file_changed"]


def test_an_object_that_changes_between_list_and_read_does_not_land(
    feed: Feed, store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, "a.csv")
    put(store, "b.csv")
    listed = Bucket._listed

    def then_change(self: Bucket, after: str | None) -> Any:
        found = list(listed(self, after))
        put(store, "a.csv", CSV + b"2,b\n")
        obstore.delete(store, "feeds/orders/b.csv")
        return found

    monkeypatch.setattr(Bucket, "_listed", then_change)
    assert feed.step() is None
    assert feed.landing.waiting() == []
    monkeypatch.undo()


def test_names_in_order_are_asked_for_from_the_last_on(
    tmp_path: Path, store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = Feed(tmp_path, f"s3://{BUCKET}/feeds/orders/", in_order=True)
    for n in range(1, 4):
        put(store, f"0{n}.csv")
    assert feed.take() == ["01.csv", "02.csv", "03.csv"]
    listed = []
    really = Bucket._listed

    def counted(self: Bucket, after: str | None) -> Any:
        found = list(really(self, after))
        listed.append([meta["path"].rpartition("/")[2] for meta in found])
        return found

    monkeypatch.setattr(Bucket, "_listed", counted)
    put(store, "00.csv")
    put(store, "04.csv")
    assert feed.take() == ["04.csv"]
    assert listed == [["04.csv"], []]


def test_gzip_is_unpacked_and_what_is_not_whole_is_refused(feed: Feed, store: S3Store) -> None:
    content = b"id\n" + b"1234567\n" * 500_000
    put(store, "a.csv.gz", gzip.compress(content))
    put(store, "b.csv", content)
    put(store, "c.csv.gz", gzip.compress(content)[:-20])
    put(store, "d.parquet", b"PAR1")
    assert sorted(feed.take()) == ["a.csv.gz", "b.csv"]
    assert feed.content(0) == content
    assert feed.content(1) == content
    assert sorted(code for code, _ in feed.told()) == ["not_whole", "not_whole"]


def test_a_store_that_does_not_answer_is_down(
    feed: Feed, store: S3Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    absent = Feed(tmp_path / "absent", "s3://absent-bucket/x")
    with pytest.raises(Unavailable, match="source_down: s3://absent-bucket/x") as raised:
        absent.step()
    assert "Error" not in raised.value.detail
    monkeypatch.setattr("mainstay.intake.buckets._RETRIES", {"max_retries": 0})
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(Unavailable, match="source_down"):
        Feed(tmp_path / "other", f"s3://{BUCKET}/x").step()


def test_keys_stand_in_the_environment_alone() -> None:
    for place in ("s3://key:secret@bucket/x", "s3:///x"):
        with pytest.raises(Misuse, match=r"expected s3://BUCKET/FOLDER"):
            open_bucket(place, {})
    with pytest.raises(Misuse, match=r"AWS_\* variables") as raised:
        open_bucket("s3://bucket/x", {"AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "s3cret"})
    assert "s3cret" not in str(raised.value)
