from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
import polars as pl
import pytest

from mainstay.capability.words import Owner
from mainstay.cli.init import create_workspace
from mainstay.contract.types import Contract
from mainstay.intake.declared import InForce
from mainstay.intake.standing import Standing, Word
from mainstay.intake.state import Counts, Found, Holding, state_of
from mainstay.intake.types import ARRIVED_AT, DAY, REASON, intake_table, quarantine_table
from mainstay.lake.lake import open_lake
from mainstay.monitoring.service_feeds import Feed, feed_findings, feeds_of
from mainstay.monitoring.service_objectives import Tally
from monitoring.levels import NOW, declared
from tiny import CONTRACT

if TYPE_CHECKING:
    from pathlib import Path

SINCE = NOW - timedelta(hours=24)


def standing(state: Word = "well", *, held: Holding | None = None, findings: tuple[Found, ...] = ()) -> Standing:
    return Standing(
        capability="desk",
        source="orders",
        kind="push",
        owner=Owner(team="The desk", contact="desk@example.com"),
        state=state,
        contract="tiny@1.0.0",
        version=None,
        last_run_at=None,
        next_run_at=None,
        last_success_at=None,
        last_arrival_at=NOW,
        watermark=None,
        counts=Counts(),
        waiting_items=0,
        waiting_bytes=0,
        failures=2 if state == "failing" else 0,
        held=held,
        findings=findings,
    )


def feed(state: Word = "well", bad: int = 0, rows: int = 1_000, *, held: Holding | None = None) -> Feed:
    lasting = (Found(code="late_feed", detail="nothing came for 3 h", since=SINCE, last=NOW, until="arrival"),)
    return Feed(
        standing=standing(state, held=held, findings=lasting if state == "late" else ()),
        expected_within_seconds=7_200,
        rows=rows,
        bad_rows=bad,
        bad_share=Tally(bad, rows).estimate(),
        max_bad_share=0.1,
    )


def told(each: Feed) -> list[tuple[str, str]]:
    return [(found.severity, found.text) for found in feed_findings([each], SINCE, NOW)]


def test_a_feed_that_is_well_is_no_finding() -> None:
    assert told(feed()) == []
    assert told(feed("new")) == []
    assert told(feed(bad=4, rows=8)) == []  # a handful
    assert told(feed(bad=55)) == []  # more than half of what holds it, and not surely


@pytest.mark.parametrize("fallback", [True, False])
def test_a_held_feed_is_as_bad_as_what_it_does_to_decisions(fallback: bool) -> None:
    held = Holding(code="bad_share", reason="12 % are bad", since=NOW, item=4, fallback=fallback)
    assert told(feed("held", held=held)) == [
        ("critical" if fallback else "warning", "source orders: held since 2026-03-29 12:00 UTC")
    ]


def test_silence_failures_and_bad_rows_are_told() -> None:
    assert told(feed("late")) == [("warning", "source orders: nothing came for longer than declared")]
    assert told(feed("failing")) == [("warning", "source orders: the last 2 runs failed")]
    assert told(feed(bad=80)) == [("warning", "source orders: 80 of 1,000 rows broke the contract (8.0%)")]
    (found,) = feed_findings([feed(bad=80)], SINCE, NOW)
    assert (found.code, found.cause.kind, found.required) == ("feed_troubled", "data_broken", 0.1)


def test_the_rows_of_the_window_are_counted_and_no_others(tmp_path: Path) -> None:
    workspace, _, _ = create_workspace(tmp_path / "w", "tests.example.com/feeds")
    lake = open_lake(workspace)
    schema = {DAY: pl.Date(), ARRIVED_AT: pl.Datetime("us", "UTC")}
    taken = lake.create(intake_table("desk", "orders"), pl.Schema(schema), partition_by=[DAY])
    aside = lake.create(
        quarantine_table("desk", "orders"), pl.Schema({**schema, REASON: pl.String()}), partition_by=[DAY]
    )
    in_time = [SINCE, NOW - timedelta(hours=1)]
    times = [SINCE - timedelta(seconds=1), *in_time, NOW]
    taken.append(arrivals(times), writer="door", position=0)
    reasons = ["rules", "rules", "late", "unreadable"]
    aside.append(arrivals(times).with_columns(pl.Series(REASON, reasons)), writer="door", position=0)
    in_force = InForce(declared(), msgspec.convert(CONTRACT, Contract), None)
    (found,) = feeds_of(workspace, lake, in_force, SINCE, NOW)
    assert (found.rows, found.bad_rows, found.standing.state) == (3, 1, "new")
    state_of(workspace.data, "desk", "orders").update(last_run_at=NOW, failures=3)
    (found,) = feeds_of(workspace, lake, in_force, NOW, NOW + timedelta(hours=1))
    assert (found.rows, found.bad_rows, found.standing.state) == (2, 1, "failing")


def arrivals(times: list[datetime]) -> pl.DataFrame:
    return pl.DataFrame({DAY: [each.date() for each in times], ARRIVED_AT: times})
