"""When releases changed who decides, in the time of the data."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING

from mainstay.catalog.types import Canary, Release
from mainstay.monitoring.upstream import times_of

if TYPE_CHECKING:
    from collections.abc import Sequence

BEGIN = datetime(2025, 1, 1, tzinfo=UTC)  # of the data
PUBLISHED = datetime(2026, 5, 1, tzinfo=UTC)
STEP = timedelta(hours=6)


def releases(*said: tuple[str, str | None]) -> list[Release]:
    """Releases of these versions and canaries, all published within some minutes of another year."""
    return [
        Release(
            format="mainstay-release/1",
            capability="c",
            number=number,
            stage="production",
            version=version,
            contract="",
            canary=None if canary is None else Canary(version=canary, contract="", percent=5.0),
            published_at=(PUBLISHED + number * timedelta(minutes=1)).isoformat(),
            published_by="os:ops",
            reason="for a test",
        )
        for number, (version, canary) in zip(count(1), said, strict=False)
    ]


def steps(*ranges: tuple[int, int]) -> list[datetime]:
    """The begins of steps, by their numbers; the last of each range is among them."""
    return [BEGIN + place * STEP for first, last in ranges for place in range(first, last + 1)]


def told(found: Sequence[datetime]) -> list[int | str]:
    """The numbers of steps, or `published`."""
    return [(at - BEGIN) // STEP if at < PUBLISHED else "published" for at in found]


def test_a_release_is_as_old_as_the_data_that_its_version_decided_first() -> None:
    known = {
        ("one", "production"): steps((0, 20)),
        ("two", "canary"): steps((10, 20)),
        ("two", "production"): steps((20, 40)),
    }
    assert told(times_of(releases(("one", None), ("one", "two"), ("two", None)), known)) == [0, 10, 20]


def test_a_version_that_comes_back_is_not_as_old_as_when_it_came_first() -> None:
    known = {("one", "production"): steps((0, 10), (20, 30)), ("two", "production"): steps((10, 20))}
    assert told(times_of(releases(("one", None), ("two", None), ("one", None)), known)) == [0, 10, 20]


def test_a_canary_that_is_taken_back_ends_with_the_last_of_its_steps() -> None:
    known = {("one", "production"): steps((0, 30)), ("two", "canary"): steps((10, 14))}
    assert told(times_of(releases(("one", None), ("one", "two"), ("one", None)), known)) == [0, 10, 14]
    again = releases(("one", None), ("one", "two"), ("one", None), ("one", "two"))
    known["two", "canary"] = steps((10, 14), (20, 22))
    assert told(times_of(again, known)) == [0, 10, "published", 11], "where the steps do not tell, nothing is made up"


def test_what_the_windows_do_not_know_has_the_time_of_its_publication() -> None:
    wider = releases(("one", None), ("one", "two"), ("one", "two"))
    assert told(times_of(wider, {})) == ["published"] * 3
    known = {("one", "production"): steps((0, 30)), ("two", "canary"): steps((10, 30))}
    assert told(times_of(wider, known)) == [0, 10, "published"], "it changed nothing of who decides"
