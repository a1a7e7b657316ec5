from __future__ import annotations

from datetime import UTC, datetime

import polars as pl

from mainstay.capability.keeping import Monitoring
from mainstay.monitoring.event_time import decisions_in_time, instants, outcomes_in_time

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
APRIL = datetime(2013, 4, 1, 10, tzinfo=UTC)


def decisions(*inputs: str | None) -> pl.DataFrame:
    return pl.DataFrame({"input": list(inputs), "at": [NOW] * len(inputs)}, schema_overrides={"input": pl.String})


def test_dates_and_instants_are_read_and_taken_for_utc_where_they_say_no_offset() -> None:
    texts = ["2013-04-01T10:00:00Z", "2013-04-01T12:00:00.000+02:00", "2013-04-01t10:00:00z", "2013-04-01T10:00:00"]
    assert instants(pl.Series(texts)).to_list() == [APRIL] * 4
    assert instants(pl.Series(["2013-04-01"])).to_list() == [APRIL.replace(hour=0)]


def test_what_is_no_instant_is_none() -> None:
    assert instants(pl.Series(["today", "", None, "13"], dtype=pl.String)).to_list() == [None] * 4


def test_a_decision_is_at_its_event_and_one_that_does_not_say_it_at_that_before() -> None:
    monitoring = Monitoring(time="when")
    rows = decisions('{"when":"2013-04-01T10:00:00Z"}', "{}", None, '{"when":"2013-04-01T11:00:00Z"}', "no JSON")
    found = decisions_in_time(rows, monitoring)["at"].to_list()
    assert found == [APRIL, APRIL, APRIL, APRIL.replace(hour=11), APRIL.replace(hour=11)]


def test_where_no_decision_says_it_they_are_when_they_were_made() -> None:
    assert decisions_in_time(decisions("{}", None), Monitoring(time="when"))["at"].to_list() == [NOW, NOW]


def test_nothing_changes_where_no_time_is_declared() -> None:
    rows = decisions('{"when":"2013-04-01T10:00:00Z"}')
    assert decisions_in_time(rows, Monitoring())["at"].to_list() == [NOW]
    outcomes = pl.DataFrame({"at": [NOW], "observed_at": [APRIL]})
    assert outcomes_in_time(outcomes, Monitoring())["at"].to_list() == [NOW]
    assert outcomes_in_time(outcomes, Monitoring(time="when"))["at"].to_list() == [APRIL]
