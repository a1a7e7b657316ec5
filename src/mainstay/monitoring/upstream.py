"""What changed around a capability, with its time: releases, and what its sources noticed.

Where windows are counted by the time of the data (`monitoring.time`), a release has two times: when it was published,
and what the data of the first decisions under it were about. The second is known to the step, by the windows.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final, TypeAlias

import polars as pl

from mainstay.documents import shorten
from mainstay.intake.findings import CODES
from mainstay.intake.state import states
from mainstay.monitoring.findings import Change
from mainstay.monitoring.windows import SERVICE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mainstay.capability.keeping import Monitoring
    from mainstay.catalog.types import Release
    from mainstay.lake.tables import Table
    from mainstay.workspace import Workspace

Steps: TypeAlias = "dict[tuple[str, str], list[datetime]]"
"""The begins of the steps in which decisions were made, in order, by version and stage."""

TELLING: Final = frozenset(  # of what a source notices: what may show in the columns of decisions
    {
        *("type_changed", "column_new", "column_missing", "unit_changed", "schema_breaking", "file_rejected"),
        *("rows_quarantined", "bad_share", "file_changed", "late_feed", "cursor_backwards"),
    }
)
FORM: Final = frozenset({"type_changed", "column_missing", "unit_changed", "schema_breaking"})
_CHARACTERS: Final = 200


def steps_of_versions(table: Table) -> Steps:
    """From the windows of a capability. Raises Failed when the storage does not answer."""
    rows = (
        table.frame()
        .filter(pl.col("kind") == SERVICE)
        .group_by("version", "stage")
        .agg(pl.col("step").unique().sort())
        .collect()
    )
    return {(version, stage): steps for version, stage, steps in rows.iter_rows()}


def changes_of(
    workspace: Workspace, capability: str, releases: Sequence[Release], monitoring: Monitoring, table: Table | None
) -> tuple[Change, ...]:
    """Every release, and every telling finding of a source that is still remembered, by time.

    `releases` are all of the capability, oldest first, and `table` its windows. Raises Failed when the storage does not
    answer.
    """
    steps = {} if monitoring.time is None or table is None else steps_of_versions(table)
    found = [
        Change(
            at=at,
            what="release",
            subject=f"release {release.number}",
            text=shorten(release.reason, _CHARACTERS),
        )
        for release, at in zip(releases, times_of(releases, steps), strict=True)
    ]
    for owner, source, state in states(workspace.data):
        if owner != capability:
            continue
        for each in state.found:
            if each.code in TELLING:
                text = each.detail or CODES[each.code].text
                found.append(
                    Change(
                        at=each.since,
                        what="upstream",
                        subject=f"{owner}/{source}",
                        text=f"{each.code}: {shorten(text, _CHARACTERS)}",
                        item=each.item,
                        columns=() if each.field is None or each.code not in FORM else (each.field,),
                    )
                )
    return tuple(sorted(found, key=lambda change: change.at))


def times_of(releases: Sequence[Release], steps: Mapping[tuple[str, str], list[datetime]]) -> list[datetime]:
    """When each release changed who decides: in the time of the data, as far as `steps` tells; else its publication.

    It is the first step in which its version, or its canary, decided, and none before that of the release before it. A
    version that comes back decided earlier, too: its first step behind the release before counts. Where a canary ends
    and nothing begins, it is the last step of that canary, unless it comes back.
    """
    found: list[datetime] = []
    seen: set[tuple[str, str]] = set()
    last: datetime | None = None
    before: set[tuple[str, str]] = set()
    places = [_places(release) for release in releases]
    for number, (release, now) in enumerate(zip(releases, places, strict=True)):
        new, gone = now - before, before - now
        if new:
            known = [at for place in new for at in steps.get(place, ()) if _is_behind(at, last, again=place in seen)]
            at = min(known, default=None)
        else:
            gone -= set().union(*places[number:])
            at = max((steps[place][-1] for place in gone if place in steps), default=None)
        found.append(datetime.fromisoformat(release.published_at) if at is None else at)
        last, before = at or last, now
        seen |= now
    return found


def _places(release: Release) -> set[tuple[str, str]]:
    """Who decides under a release: versions, and at which stage."""
    canary = set() if release.canary is None else {(release.canary.version, "canary")}
    return {(release.version, "production"), *canary}


def _is_behind(at: datetime, last: datetime | None, *, again: bool) -> bool:
    return last is None or at > last or (at == last and not again)
