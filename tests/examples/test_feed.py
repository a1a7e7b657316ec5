"""What the feed of the example serves, over its own server."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE_SECONDS = 60.0  # files are read when it begins
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "flights"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    spec = spec_from_file_location("flights_feed", EXAMPLE / "feed.py")
    assert spec is not None
    assert spec.loader is not None
    feed = module_from_spec(spec)
    sys.path.insert(0, str(EXAMPLE))  # where it finds the traffic
    try:
        spec.loader.exec_module(feed)
    finally:
        sys.path.pop(0)
    with feed.Server(0) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def asked(url: str, path: str) -> Any:
    return httpx.get(f"{url}{path}", timeout=PATIENCE_SECONDS).raise_for_status().json()


def test_nothing_is_published_before_it_begins_and_then_file_after_file(url: str) -> None:
    assert asked(url, "/departures") == {"file": None, "departures": [], "next": None}
    httpx.post(f"{url}/begin", timeout=PATIENCE_SECONDS).raise_for_status()
    names, after = [], 0
    while True:
        found = asked(url, f"/departures?after={after}")
        names.append(found["file"][5:10])
        assert {each["published"] for each in found["departures"]} == {after + 1}
        if found["next"] is None:
            break
        after = found["next"]
    assert len(names) == 60
    assert names[32:35] == ["03-06", "03-07", "03-05"], "a file comes late"
    assert [name for name in names if names.count(name) == 2] == ["03-09", "03-09"]
    assert asked(url, "/truth")["flights"] == 53_785


def test_a_trouble_is_as_it_is_said_and_can_be_mended(url: str) -> None:
    httpx.post(f"{url}/begin", timeout=PATIENCE_SECONDS).raise_for_status()
    renamed = asked(url, "/departures?since=47")
    assert all("distance" not in each and each["distance_mi"] > 0 for each in renamed["departures"])
    httpx.post(f"{url}/mend/renamed", timeout=PATIENCE_SECONDS).raise_for_status()
    mended = asked(url, "/departures?since=60")
    assert mended["file"] == renamed["file"]
    assert [each["distance"] for each in mended["departures"]] == [
        each["distance_mi"] for each in renamed["departures"]
    ]
    assert asked(url, "/truth")["flights"] == 53_785


def test_what_it_does_not_know_it_says(url: str) -> None:
    assert httpx.get(f"{url}/departures?since=x").status_code == 404
    assert httpx.post(f"{url}/mend/nothing").status_code == 404
