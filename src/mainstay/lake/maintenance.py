"""Keeping tables in shape: small files joined, old rows dropped, old files removed, long logs shortened.

`maintain` is one step of a job. It compares what is with what should be and does what is missing, so that it may be
killed anywhere, made again at any time, and run in two places.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from mainstay.errors import Misuse
from mainstay.lake.commits import Superseded
from mainstay.lake.conditions import Within
from mainstay.lake.decision_rows import DAY, INTAKE_DAY
from mainstay.lake.snapshots import PREFIX
from mainstay.lake.tables import MAX_KEEP, TARGET_FILE_BYTES, TRIMMED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mainstay.lake.lake import Lake
    from mainstay.lake.tables import Table

TRIM_EVERY: Final = timedelta(days=1)


class Policy(NamedTuple):
    """What should be."""

    keep_versions: timedelta = timedelta(days=7)  # how long older versions can be read
    keep_rows: timedelta | None = None  # of tables by the day; None: for ever
    file_bytes: int = TARGET_FILE_BYTES  # smaller files are joined up to this


class Maintained(NamedTuple):
    """What was done to a table."""

    table: str
    joined: int  # small files
    dropped: int  # rows
    removed: int  # files
    problem: str  # what kept it from being done; empty when nothing did


def maintain(lake: Lake, policy: Policy, now: datetime) -> Iterator[Maintained]:
    """Bring every table to what the policy asks for, one after the other; a table's problem does not stop the others.

    Raises Misuse when the policy is none, and Failed when the storage does not answer for the list of tables.
    """
    if not timedelta() <= policy.keep_versions <= MAX_KEEP:
        raise Misuse(f"expected versions to be kept for 0 to {MAX_KEEP.days} days, found {policy.keep_versions}")
    for name in lake.names():
        try:
            yield _maintain(lake.table(name), policy, now)
        except Superseded as error:  # somebody rewrites the table at this moment; the next step finds what is left
            yield Maintained(name, 0, 0, 0, error.message)


def _maintain(table: Table, policy: Policy, now: datetime) -> Maintained:
    if table.name.startswith(PREFIX):  # never changes, but a take that was killed leaves files
        return Maintained(table.name, 0, 0, table.vacuum(policy.keep_versions), "")
    dropped = 0
    day = next((each for each in table.partition_by if each in {DAY, INTAKE_DAY}), None)
    if policy.keep_rows is not None and day is not None:
        dropped = table.retain(Within(day, None, (now - policy.keep_rows).astimezone(UTC).date()))
    joined = table.compact(policy.file_bytes)
    removed = table.vacuum(policy.keep_versions)
    trimmed = table.refresh().properties.get(TRIMMED)
    if trimmed is None or now - datetime.fromisoformat(trimmed) >= TRIM_EVERY:
        table.trim(now)
    return Maintained(table.name, joined, dropped, removed, "")
