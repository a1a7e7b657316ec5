"""How the sources of a capability feed it: whether they come in time, and what share of their rows is bad."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl
from msgspec import Struct

from mainstay.intake.standing import Standing, standing_of
from mainstay.intake.types import ARRIVED_AT, DAY, REASON, intake_table, quarantine_table
from mainstay.monitoring.findings import Cause, Finding, Interval, Severity
from mainstay.monitoring.intervals import Estimate  # noqa: TC001 - msgspec reads the types of a struct
from mainstay.monitoring.service_objectives import Tally

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from mainstay.intake.declared import InForce
    from mainstay.lake.lake import Lake
    from mainstay.lake.tables import Table
    from mainstay.workspace import Workspace

_BAD: Final = ("rules", "unreadable")  # of the reasons for which a row is in quarantine
_FEWEST_BAD: Final = 5


class Feed(Struct, frozen=True, kw_only=True):
    """One source over a window."""

    standing: Standing
    expected_within_seconds: float | None  # of silence, as declared
    rows: int  # that came in the window; what repeats known rows leaves no trace
    bad_rows: int  # that broke the contract
    bad_share: Estimate | None  # None without rows
    max_bad_share: float  # above which the source is held

    @property
    def is_bad(self) -> bool:
        """Whether surely more than half of the share that would hold the source is bad."""
        estimate = self.bad_share
        return estimate is not None and self.bad_rows >= _FEWEST_BAD and estimate.low > self.max_bad_share / 2


def feeds_of(workspace: Workspace, lake: Lake, in_force: InForce, since: datetime, until: datetime) -> list[Feed]:
    """Every source that a capability declares. Of the tables, the arrivals of the window's days are read.

    Raises Failed when the storage does not answer, and Damaged when a manifest of a landing is.
    """
    found = []
    for source in in_force.capability.sources:
        name = in_force.capability.name
        taken, aside = lake.find(intake_table(name, source.name)), lake.find(quarantine_table(name, source.name))
        bad = _arrived(aside, since, until, bad_only=True)
        tally = Tally(bad, bad + _arrived(taken, since, until))
        found.append(
            Feed(
                standing=standing_of(workspace, in_force, source),
                expected_within_seconds=source.expected_within_seconds,
                rows=tally.of,
                bad_rows=tally.bad,
                bad_share=tally.estimate(),
                max_bad_share=source.max_bad_share,
            )
        )
    return found


def _arrived(table: Table | None, since: datetime, until: datetime, *, bad_only: bool = False) -> int:
    """How many rows came from `since` to before `until`."""
    if table is None:
        return 0
    came = pl.col(ARRIVED_AT).is_between(since, until, closed="left")
    rows = table.frame().filter(pl.col(DAY).is_between(since.date(), until.date()), came)
    if bad_only:
        rows = rows.filter(pl.col(REASON).is_in(_BAD))
    return int(rows.select(pl.len()).collect().item())


def feed_findings(feeds: Sequence[Feed], since: datetime, until: datetime) -> list[Finding]:
    """What is wrong with sources now; one finding for each, the gravest."""
    return [found for feed in feeds if (found := _finding(feed, since, until)) is not None]


def _finding(feed: Feed, since: datetime, until: datetime) -> Finding | None:
    told = _told(feed)
    if told is None:
        return None
    severity, text, why = told
    standing, share = feed.standing, feed.bad_share
    lag = standing.lag_seconds
    return Finding(
        code="feed_troubled",
        severity=severity,
        capability=standing.capability,
        column=standing.source,
        against="declared",
        text=f"source {standing.source}: {text}",
        observed=None if share is None else Interval(value=share.value, low=share.low, high=share.high),
        required=feed.max_bad_share,
        window_from=since,
        window_to=until,
        rows=feed.rows,
        numbers={
            "bad_rows": feed.bad_rows,
            "failures": standing.failures,
            "waiting_items": standing.waiting_items,
            **({} if lag is None else {"lag_seconds": lag}),
        },
        cause=Cause(kind="data_broken", why=why),
    )


def _told(feed: Feed) -> tuple[Severity, str, str] | None:
    """How bad it is, what it is, and why; None when the feed is well."""
    standing = feed.standing
    lasting = next((each.detail for each in standing.findings if each.lasts), "")
    match standing.state:
        case "held":
            assert standing.held is not None
            severity: Severity = "critical" if standing.held.fallback else "warning"
            return severity, f"held since {standing.held.since:%Y-%m-%d %H:%M} UTC", standing.held.reason
        case "failing":
            runs = "run" if standing.failures == 1 else "runs"
            return "warning", f"the last {standing.failures:,} {runs} failed", lasting or "its last run failed"
        case "late":
            return "warning", "nothing came for longer than declared", lasting
    if feed.is_bad:
        assert feed.bad_share is not None
        text = f"{feed.bad_rows:,} of {feed.rows:,} rows broke the contract ({feed.bad_share.value:.1%})"
        return "warning", text, f"at {feed.max_bad_share:.1%} of the last rows the source is held"
    if standing.state == "troubled":
        return "warning", "a check of what comes fails", lasting
    return None
