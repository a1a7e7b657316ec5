"""Looking as often as one likes: intervals that hold at all times, and alarms with a stated rate.

Both are for sums of windows: each window comes with its mean and the variance of that, and counts once. They rest on
windows being large enough for their mean to be about normal (some 50 rows), each with chance of its own.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from mainstay.errors import Misuse
from mainstay.monitoring.intervals import LEVEL, Estimate

if TYPE_CHECKING:
    from collections.abc import Sequence

_SIZES: Final = (0.25, 0.5, 1.0, 2.0, 4.0)  # of a change, in standard errors of a window, that alarms are tuned to
_MOST_EVIDENCE: Final = 600.0  # of a logarithm: more cannot be told from certain, and would overflow


class MeanSequence(Struct, frozen=True, kw_only=True):
    """A running mean whose interval holds at all looks together: an asymptotic confidence sequence.

    Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas (2024), "Time-uniform central limit theory and asymptotic confidence
    sequences", theorem 2.2: the normal mixture of Robbins (1970).
    """

    weight: float = 0.0  # rows
    total: float = 0.0
    variance: float = 0.0  # of the total

    def add(self, mean: float, deviation: float, rows: float) -> MeanSequence:
        """With a window of `rows` rows, its mean and the standard error of that."""
        if rows <= 0 or deviation < 0:
            raise Misuse(f"expected rows above 0 and a standard error of at least 0, found {rows} and {deviation}")
        return MeanSequence(
            weight=self.weight + rows,
            total=self.total + rows * mean,
            variance=self.variance + (rows * deviation) ** 2,
        )

    def interval(self, *, level: float = LEVEL, tightest_at: float | None = None) -> Estimate | None:
        """The mean so far. The interval is tightest when the variance of the total is `tightest_at` (None: now).

        It holds at all looks together only where `tightest_at` is fixed beforehand. None without any row.
        """
        if self.weight == 0:
            return None
        middle = self.total / self.weight
        if self.variance == 0:
            return Estimate(middle, middle, middle)
        chance = 1 - level
        tuned = -2 * math.log(chance)
        rho = (tuned + math.log(tuned + 1)) / (tightest_at or self.variance)
        inflated = self.variance * rho + 1
        width = math.sqrt(inflated / rho * math.log(inflated / chance**2)) / self.weight
        return Estimate(middle, middle - width, middle + width)


class ChangeDetector(Struct, frozen=True, kw_only=True):
    """Evidence that something became worse at some time, however often one looks: an e-detector.

    Shin, Ramdas, Rinaldo (2024), "E-detectors: a nonparametric framework for sequential change detection": the sum over
    all beginnings of e-processes that begin there, of the Shiryaev-Roberts kind, mixed over sizes of the change. While
    every window is, given those before it, no worse than the bound, alarms at `evidence >= 1 / rate` come at most once
    in `1 / rate` windows on average. An alarm begins it anew.
    """

    sums: tuple[float, ...] = (0.0,) * len(_SIZES)

    @property
    def evidence(self) -> float:
        return sum(self.sums) / len(_SIZES)

    def add(self, z: float) -> ChangeDetector:
        """With a window that is `z` standard errors beyond the bound, to the bad side."""
        grown = []
        for size, before in zip(_SIZES, self.sums, strict=True):
            factor = math.exp(min(size * z - size * size / 2, _MOST_EVIDENCE))
            grown.append(min((before + 1) * factor, math.exp(_MOST_EVIDENCE)))
        return ChangeDetector(sums=tuple(grown))


def find_change(z: Sequence[float]) -> int:
    """The place from which on the windows are most clearly beyond the bound: the greatest sum over its root length."""
    best, place, total = -math.inf, max(0, len(z) - 1), 0.0
    for length, value in enumerate(reversed(z), start=1):
        total += value
        if total / math.sqrt(length) > best:
            best, place = total / math.sqrt(length), len(z) - length
    return place
