"""How well estimates held: what was estimated without labels against what the labels said later."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct

from mainstay.monitoring.intervals import Estimate, mean, wilson, z_value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mainstay.monitoring.estimation import PerformanceEstimate

_FEWEST_WINDOWS = 8  # to say that estimates are off


class Track(Struct, frozen=True, kw_only=True):
    """What estimates of one metric were worth. Errors are estimate less truth."""

    metric: str
    windows: int  # that have both
    mean_error: Estimate  # Student's interval: one that leaves out 0 says that the assumption does not hold
    mean_absolute_error: float
    covered: Estimate  # share of intervals that held the truth, Wilson interval
    level: float  # that they were made for
    mean_width: float  # from the value to the bound
    better_than_reference: float | None  # share of the reference's error that estimating saved; None: not compared
    holds: bool | None  # whether they may be relied on; None: too few windows to say


def score_estimates(
    estimates: Sequence[PerformanceEstimate | None],
    truths: Sequence[Estimate | None],
    *,
    reference: float | None = None,
) -> Track | None:
    """Estimates of one metric, window by window, against the metric once labels were there.

    None stands for a window that lacks one of them: it is left out. Other than the truth's own interval, which is not
    needed: an estimate's interval is for the value that the labels will show. With `reference`, the value that the
    metric had when the estimator was made, the errors are compared with those of always saying that.

    Estimates *hold* unless their intervals cover significantly less than they say, or they are off to one side by more
    than chance and the finite reference, whose error they share, explain, and more than a quarter of their own width.
    None without any window.
    """
    pairs = [(one, true) for one, true in zip(estimates, truths, strict=True) if one is not None and true is not None]
    if not pairs:
        return None
    said = np.array([one.value for one, _ in pairs])
    was = np.array([true.value for _, true in pairs])
    errors = said - was
    inside = sum(one.low <= true.value <= one.high for one, true in pairs)
    covered = wilson(inside, len(pairs))
    assert covered is not None
    width = float(np.mean([(one.high - one.low) / 2 for one, _ in pairs]))
    level, off = pairs[0][0].level, mean(errors)
    shared = z_value(level) * float(np.mean([one.calibration_deviation for one, _ in pairs]))
    absolute = float(np.abs(errors).mean())
    return Track(
        metric=pairs[0][0].metric,
        windows=len(pairs),
        mean_error=off,
        mean_absolute_error=absolute,
        covered=covered,
        level=level,
        mean_width=width,
        better_than_reference=_saved(absolute, was, reference),
        holds=None if len(pairs) < _FEWEST_WINDOWS else _holds(covered, off, width, shared, level),
    )


def _holds(covered: Estimate, off: Estimate, width: float, shared: float, level: float) -> bool:
    one_sided = abs(off.value) > math.hypot((off.high - off.low) / 2, shared)
    return covered.high >= level and not (one_sided and abs(off.value) > width / 4)


def _saved(absolute: float, was: np.ndarray[tuple[int], np.dtype[np.float64]], reference: float | None) -> float | None:
    if reference is None:
        return None
    still = float(np.abs(was - reference).mean())
    return 1 - absolute / still if still > 0 else -math.inf if absolute > 0 else 0.0
