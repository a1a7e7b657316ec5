"""The same hours of earlier days: what a window is compared with to see what is new, rather than what is different.

A copy of a window is what was counted in the same hours some days or weeks earlier. It has the same rhythm of day and
night, so that the rhythm is no drift and no noise. All times are UTC; a change of the clocks moves people by an hour.
"""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import numpy as np

from mainstay.errors import Misuse
from mainstay.monitoring.drift import Sample

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

DAY: Final = timedelta(days=1)
WEEK: Final = timedelta(days=7)
ENOUGH_WEEKS: Final = 8  # from which on copies are of the same weekday
ENOUGH_DAYS: Final = 7  # from which on they are of the days before
MOST_COPIES: Final = 28


def copies(starts: Sequence[datetime], step: timedelta, since: datetime) -> list[list[datetime]]:
    """The starts of the steps of earlier windows of the same hours, the latest window first; none when there are few.

    `starts` of the window's steps, in order, each of which lasts `step`; `since`: when counting began. Copies are weeks
    apart once eight weeks are there, and days apart before that; neither the window nor two copies share a step.
    """
    if not starts:
        raise Misuse("expected the steps of a window, found none")
    length = starts[-1] + step - starts[0]
    for lag, enough in ((WEEK, ENOUGH_WEEKS), (DAY, ENOUGH_DAYS)):
        apart = _apart(length, lag)
        many = min(MOST_COPIES, (starts[0] - since) // apart)
        if many >= enough:
            return [[start - apart * back for start in starts] for back in range(1, many + 1)]
    return []


def days_apart(length: timedelta) -> timedelta:
    """How far copies of a window of this length are apart, while there are too few weeks."""
    return _apart(length, DAY)


def _apart(length: timedelta, lag: timedelta) -> timedelta:
    return lag * math.ceil(length / lag)


def baseline(past: Sequence[Sample]) -> Sample:
    """Earlier windows as a reference, each of them a unit. Raises Misuse when there is none."""
    if not past:
        raise Misuse("expected earlier windows, found none")
    moments = [each.moments for each in past]
    total = None
    if all(each is not None for each in moments):
        first, *rest = (each for each in moments if each is not None)
        total = sum(rest, first)
    return Sample(np.stack([each.total for each in past]), total)
