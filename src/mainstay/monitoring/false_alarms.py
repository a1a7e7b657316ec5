"""How sure an alarm has to be, so that no more false ones come in a month than were declared.

In a pass all comparisons, of every column, segment, version and baseline of a capability, are one family. Benjamini &
Yekutieli (2001), "The control of the false discovery rate in multiple testing under dependency", holds whatever the
comparisons have to do with each other, and columns of one table do. At level a the share of false ones among what is
found is at most a on average, and where nothing has drifted the pass finds anything with a chance of at most a.

Over time the level of a pass is its share of the month by the clock. The expected number of passes that find something
where nothing has drifted is then at most the declared one, however often passes are made, whatever their windows share
(the mean of a sum is the sum of the means). Procedures of online testing (LORD, SAFFRON) earn more where passes find
much, but want p-values that do not depend on each other over time, and windows that overlap do.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

import numpy as np

from mainstay.errors import Misuse

if TYPE_CHECKING:
    from collections.abc import Sequence

MONTH: Final = timedelta(days=30)
MOST_AT_ONCE: Final = timedelta(days=1)  # that a pass is given the share of, however long ago the last one was


def level_of_pass(false_alarms_per_month: float, since_last: timedelta) -> float:
    """The level of a pass made so long after the last one; at most 0.5. Raises Misuse where no time has passed."""
    if since_last <= timedelta(0) or false_alarms_per_month <= 0:
        raise Misuse("expected time since the last pass, and a rate of false alarms above 0")
    return min(0.5, false_alarms_per_month * (min(since_last, MOST_AT_ONCE) / MONTH))


def discoveries(p_values: Sequence[float | None], level: float) -> list[bool]:
    """Which hypotheses of a family are rejected at a false discovery rate of `level`, whatever their dependence.

    None is a hypothesis that cannot be judged: it is in no family.

    >>> discoveries([0.001, 0.4, None, 0.004], 0.05)
    [True, False, False, True]
    """
    judged = np.array([i for i, p in enumerate(p_values) if p is not None], np.intp)
    found = np.zeros(len(p_values), np.bool_)
    if len(judged):
        values = np.array([p for p in p_values if p is not None])
        order = np.argsort(values, kind="stable")
        ranks = np.arange(1, len(values) + 1)
        bounds = level * ranks / (len(values) * float((1 / ranks).sum()))
        below = np.flatnonzero(values[order] <= bounds)
        if len(below):
            found[judged[order[: below[-1] + 1]]] = True
    return [bool(each) for each in found]
