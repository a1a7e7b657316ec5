"""Whether the numbers of a column seem to come in another unit than before: kilometres where there were miles.

A unit changes every value by one factor. So what came is held against what came before twice, as it came and divided by
each known factor, by the two-sample test of Kolmogorov and Smirnov (with its asymptotic bound, Smirnov 1948). It is
suspected where the first is beyond chance (OTHER) and the second within it (SAME), and stronger than the source's
own ups and downs: the logarithm of the factor exceeds SWING times the standard deviation of the medians of the items
before, where there are enough. It holds the source where the first is beyond any chance (CERTAIN), both samples have
MANY values, and the ups and downs are known or the factor is at least PLAIN, either way.

The test cannot tell a change of unit from a change of the world by nearly the same factor; what it says is evidence.
The more factors are known the likelier that is, and so only those are here that feeds are known to be changed by.
"""

from __future__ import annotations

from math import exp, log, sqrt
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

FEWEST: Final = 50  # values of either side, below which nothing is said
MANY: Final = 200  # of either side, from which on a suspicion holds
DISTINCT: Final = 20  # different values before; fewer are codes or small counts
OTHER: Final = 1e-4  # the chance of the difference, were nothing changed: below it
CERTAIN: Final = 1e-9  # and below this one, to hold
SAME: Final = 0.01  # the chance of what remains, were the unit changed: at least
SWING: Final = 4.0
PLAIN: Final = 10.0
ITEMS: Final = 3  # from which on their ups and downs are known

FACTORS: Final[dict[float, tuple[str, str]]] = {
    1.609344: ("miles to kilometres", "kilometres to miles"),
    2.20462: ("kilograms to pounds", "pounds to kilograms"),
    2.54: ("inches to centimetres", "centimetres to inches"),
    3.28084: ("metres to feet", "feet to metres"),
    10.0: ("a power of ten", "a power of ten"),
    24.0: ("days to hours", "hours to days"),
    28.3495: ("ounces to grams", "grams to ounces"),
    60.0: ("hours to minutes, or minutes to seconds", "minutes to hours, or seconds to minutes"),
    100.0: ("whole to hundredths, as of a currency, or shares to percent", "hundredths to whole, or percent to shares"),
    1_000.0: ("whole to thousandths, as seconds to milliseconds", "thousandths to whole, as grams to kilograms"),
    1_440.0: ("days to minutes", "minutes to days"),
    3_600.0: ("hours to seconds", "seconds to hours"),
    86_400.0: ("days to seconds", "seconds to days"),
    1_000_000.0: ("whole to millionths, as seconds to microseconds", "millionths to whole"),
}
"""What a value is multiplied by when its unit changes, or divided by; and what that is known as, there and back."""


class UnitChange(NamedTuple):
    """That the unit of a column seems to be another one."""

    factor: float  # what came is so many times what came before
    known_as: str
    before: float  # the medians
    now: float
    values: tuple[int, int]  # how many were held against each other: before, now
    items: int  # of which the medians before are known
    chance_unchanged: float
    chance_changed: float

    @property
    def holds(self) -> bool:
        """Whether that is enough to hold a source."""
        is_plain = abs(log(self.factor)) >= log(PLAIN) * (1 - 1e-9)
        is_sure = self.chance_unchanged < CERTAIN and min(self.values) >= MANY
        return is_sure and (self.items >= ITEMS or is_plain)

    def words(self, *, masked: bool = False) -> str:
        """For people; of a `masked` column without its medians, which may be somebody's values."""
        counts = f"{self.values[1]:,} values against {self.values[0]:,}"
        medians = "" if masked else f" its median is {self.now:.6g}, and was {self.before:.6g};"
        return (
            f"it seems to be {self.factor:.6g} times what it was ({self.known_as}):{medians}"
            f" that it is as before has a chance below {_shown(self.chance_unchanged)}, and once"
            f" divided by {self.factor:.6g} one of {self.chance_changed:.2g} (Kolmogorov-Smirnov, {counts})"
        )


def find_unit_change(before: Any, now: Any, medians: Sequence[float] = ()) -> UnitChange | None:
    """The factor that explains a change, None where there is none or no one factor does.

    `before` and `now` are arrays of finite numbers; `medians` those of the items before, one of each.
    """
    if min(len(before), len(now)) < FEWEST or len(np.unique(before)) < DISTINCT:
        return None
    before, now = np.sort(before), np.sort(now)
    middle, other = float(np.median(before)), float(np.median(now))
    unchanged = chance(before, now)
    if unchanged >= OTHER or not middle or not other or (middle > 0) != (other > 0):
        return None
    swing = _swing(medians)
    found = []
    for factor, words in _ratios():
        if abs(log(factor)) > SWING * swing:
            changed = chance(before, now / factor)
            if changed >= SAME:
                found.append((changed, factor, words))
    if not found:
        return None
    changed, factor, words = max(found)
    return UnitChange(factor, words, middle, other, (len(before), len(now)), len(medians), unchanged, changed)


def chance(one: Any, other: Any) -> float:
    """That two sorted samples of one distribution differ as much as these: at most so, as `2 exp(-2 n D²)`."""
    both = np.concatenate([one, other])
    apart = np.abs(
        np.searchsorted(one, both, side="right") / len(one) - np.searchsorted(other, both, side="right") / len(other)
    )
    size = len(one) * len(other) / (len(one) + len(other))
    return min(1.0, 2 * exp(-2 * size * float(apart.max()) ** 2))


def _ratios() -> list[tuple[float, str]]:
    there = [(factor, words) for factor, (words, _) in FACTORS.items()]
    return [*there, *((1 / factor, words) for factor, (_, words) in FACTORS.items())]


def _swing(medians: Sequence[float]) -> float:
    """The standard deviation of the logarithms of medians that have one; 0 where there are too few."""
    logs = [log(abs(each)) for each in medians if each]
    if len(logs) < ITEMS:
        return 0.0
    mean = sum(logs) / len(logs)
    return sqrt(sum((each - mean) ** 2 for each in logs) / (len(logs) - 1))


def _shown(probability: float) -> str:
    return f"{max(probability, 1e-300):.0e}"
