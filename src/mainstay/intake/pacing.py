"""When a source is run again: as declared, later after every failure, and never before it asked to be.

Also the words between the process that says which source is run and those that run one.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from random import uniform
from typing import TYPE_CHECKING, Final

from msgspec import Struct
from msgspec.structs import replace

from mainstay.intake.state import Counts, Holding, State, noted, passed
from mainstay.intake.types import Finding

if TYPE_CHECKING:
    from mainstay.capability.sources import Source

FIRST_PAUSE_SECONDS: Final = 5.0
LONGEST_PAUSE_SECONDS: Final = 900.0
LONGEST_RETRY_AFTER_SECONDS: Final = 86_400.0  # a source that asks for more is asked again after a day


class Order(Struct, frozen=True):
    """Run this source."""

    capability: str
    source: str


class Ran(Struct, frozen=True, kw_only=True):
    """What came of a run."""

    capability: str
    source: str
    landed: int = 0  # items
    taken: int = 0  # items
    counts: Counts = Counts()  # of the rows of this run
    failed: str | None = None  # the code of what went wrong
    detail: str = ""  # and the same for people
    held: Holding | None = None
    again_in_seconds: float = 0.0  # when the next run is due


class Said(Struct, frozen=True):
    """What a working process says: a sign of life, or with `ended` that an order was followed, and what came of it."""

    life: str = ""
    ended: bool = False
    ran: Ran | None = None  # None: there was no such source any more, or somebody else was running it


def after_run(state: State, source: Source, now: datetime, pause_seconds: float) -> State:
    """The state behind a run in which nothing went wrong."""
    state = replace(state, failures=0, next_run_at=now + timedelta(seconds=pause_seconds))
    return _silence(passed(state, "run", now), source, now)


def after_failure(
    state: State, source: Source, problem: Finding, now: datetime, retry_after_seconds: float | None = None
) -> State:
    """The state behind a run that failed. The pause doubles, and is never the same for all that failed at once."""
    longest = min(FIRST_PAUSE_SECONDS * 2 ** min(state.failures, 20), LONGEST_PAUSE_SECONDS)
    asked = min(retry_after_seconds or 0.0, LONGEST_RETRY_AFTER_SECONDS)
    pause = max(longest * uniform(0.5, 1.0), asked)  # noqa: S311 - it spreads calls, and keeps no secret
    state = replace(state, failures=state.failures + 1, next_run_at=now + timedelta(seconds=pause))
    state = noted(passed(state, "run", now, but=[problem]), [problem], now, until="run")
    return _silence(state, source, now)


def due_in_seconds(state: State, source: Source, now: datetime) -> float:
    """Until the next run. A clock that was set back holds no source up for longer than it would ever wait."""
    if state.next_run_at is None:
        return 0.0
    longest = max(source.every_seconds, LONGEST_RETRY_AFTER_SECONDS if state.failures else 0.0)
    return min(max(0.0, (state.next_run_at - now).total_seconds()), longest)


def _silence(state: State, source: Source, now: datetime) -> State:
    """Whether nothing has come for too long."""
    if source.expected_within_seconds is None:
        return passed(state, "arrival", now)
    if state.last_arrival_at is not None and state.last_arrival_at > now:  # a clock was ahead, and was set back
        state = replace(state, last_arrival_at=now)
    last = state.last_arrival_at or state.began_at
    silent = (now - last).total_seconds()
    if silent <= source.expected_within_seconds:
        return passed(state, "arrival", now)
    since = "the last arrival" if state.last_arrival_at else "it was first asked"
    detail = f"nothing came for {silent:,.0f} s since {since}; expected within {source.expected_within_seconds:g} s"
    return noted(state, [Finding(code="late_feed", detail=detail)], now, until="arrival")
