"""Bounds of numbers: those of the quantity where it is known, else what lies beyond the extremes of the sample.

The next row of the same source exceeds the largest of n with a probability of about 1/n, so extremes are no bounds. The
excesses over a high threshold are about generalised Pareto (Pickands 1975); its shape and scale are estimated by
probability-weighted moments (Hosking and Wallis 1987), and the bound is what is exceeded once in so many rows. A shape
below zero, an end of the tail, is never believed from so few values: it is taken as zero.
"""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import numpy as np
import polars as pl

from mainstay.contract.inference_evidence import confidence_of, is_enough, is_rising
from mainstay.contract.inference_names import MONEY, NEVER_NEGATIVE, domain_of, has_word

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mainstay.contract.inference_evidence import Evidence

    Floats: TypeAlias = NDArray[np.float64]

FEWEST_EXCESSES: Final = 10
HEAVIEST_SHAPE: Final = 0.9
FARTHEST: Final = 1_000.0  # times the span of the sample; a bound beyond means nothing
MOST_BEYOND: Final = 1e-3  # of later rows, that a bound from earlier ones may refuse
FEWEST_BEYOND: Final = 2  # rows that are no sign of anything
SIGNIFICANT: Final = 2  # digits of the span that a bound is rounded to
ZEROS: Final = 5  # so many values of zero, and none below, make it a floor
CENTS_DRAWS: Final = 1_000
CENTS_DISTINCT: Final = 50

_WHOLE: Final = 2**53  # doubles hold every integer below it


class Range(NamedTuple):
    """What is declared of numbers; None where nothing is."""

    minimum: float | int | None
    maximum: float | int | None
    confidence: float
    words: str


def infer_range(values: pl.Series, evidence: Evidence, *, share: float) -> Range | None:
    """The bounds of a column of numbers, which a share of new rows may exceed on either side; None where too few rows
    speak for any.
    """
    present = values.drop_nulls()
    whole = values.dtype == pl.Int64
    if evidence.distinct < 2:
        return None
    lowest, highest = float(present.min()), float(present.max())  # type: ignore[arg-type]  # numbers, and there are some
    seen = f"{_plain(lowest, whole=whole)} to {_plain(highest, whole=whole)} seen"
    known = domain_of(values.name, lowest, highest, whole=whole)
    sure = confidence_of(evidence.draws)
    if known is not None:
        words = f"{seen}, taken for {known.what} by its name"
        return Range(_number(known.minimum, whole), _number(known.maximum, whole), sure, words)
    if not is_enough(evidence.draws):
        return None
    if evidence.is_closed and not evidence.seen_once:
        words = f"{seen}, {evidence.distinct} different values and none only once: no room left beyond"
        return Range(_plain(lowest, whole=whole), _plain(highest, whole=whole), sure, words)
    numbers = present.cast(pl.Float64).to_numpy()
    grid = _grid(highest - lowest, whole=whole)
    above = None if is_rising(present) or _moves(numbers, share) else upper_bound(numbers, share)
    below = None if is_rising(-present) or _moves(-numbers, share) else upper_bound(-numbers, share)
    maximum = None if above is None else _round(above, grid, ROUND_CEILING, whole)
    minimum = None if below is None else _round(-below, grid, ROUND_FLOOR, whole)
    if minimum is not None and minimum < 0 and _never_negative(numbers, values.name):
        minimum = 0 if whole else 0.0
    missing = [side for side, bound in (("lowest", minimum), ("highest", maximum)) if bound is None]
    words = f"{seen}, room left beyond" if len(missing) < 2 else seen
    if missing:
        words += f"; no bound where the {' and the '.join(missing)} value still moves"
    return Range(minimum, maximum, sure, words)


def upper_bound(values: Floats, share: float) -> float | None:
    """What is exceeded by a `share` of values like these; None where the tail is too heavy to say."""
    ordered = np.sort(values)
    count = len(ordered)
    tail = min(count // 4, max(FEWEST_EXCESSES, round(1.5 * math.sqrt(count))))
    highest, span = float(ordered[-1]), float(ordered[-1] - ordered[0])
    excesses = ordered[-tail:] - ordered[-tail - 1]
    mean = float(excesses.mean())
    if not mean > 0:
        return highest  # so many values stand at the end that there is nothing beyond it
    weights = 1 - (np.arange(1, tail + 1) - 0.35) / tail  # of the chance to be exceeded
    moment = float((weights * excesses).mean())
    shape = max(0.0, 2 - mean / (mean - 2 * moment)) if mean > 2 * moment else 0.0
    if shape >= HEAVIEST_SHAPE:
        return None
    scale = mean * (1 - shape)
    times = tail / (count * share)  # rarer than the threshold by so much
    beyond = scale * math.log(times) if shape == 0 else scale / shape * (times**shape - 1)
    bound = max(highest, float(ordered[-tail - 1]) + beyond)
    return bound if math.isfinite(bound) and bound - highest <= FARTHEST * span else None


def _moves(values: Floats, share: float) -> bool:
    """Whether a bound from the earlier half of the rows would have refused some of the later ones."""
    half = len(values) // 2
    bound = upper_bound(values[:half], share)
    beyond = 0 if bound is None else int((values[half:] > bound).sum())
    return beyond > max(MOST_BEYOND * (len(values) - half), FEWEST_BEYOND)


def infer_cents(values: pl.Series, evidence: Evidence) -> float | None:
    """0.01 for a column that is called after money and holds whole cents, and not only whole units; else None."""
    present = values.drop_nulls()
    if not has_word(values.name, MONEY) or evidence.draws < CENTS_DRAWS or evidence.distinct < CENTS_DISTINCT:
        return None
    shown = present.unique().to_list()
    cents = [Decimal(repr(each)) % Decimal("0.01") == 0 for each in shown]
    tenths = [Decimal(repr(each)) % Decimal("0.1") == 0 for each in shown]
    return 0.01 if all(cents) and sum(tenths) < 0.5 * len(tenths) else None


def _never_negative(numbers: Floats, name: str) -> bool:
    """Whether zero is where the scale of numbers that are not negative begins."""
    if numbers.min() < 0:
        return False
    if has_word(name, NEVER_NEGATIVE) or int((numbers == 0).sum()) >= ZEROS:
        return True
    return bool(numbers.min() > 0) and abs(_skewness(np.log(numbers))) < _skewness(numbers)


def _skewness(numbers: Floats) -> float:
    spread = float(numbers.std())
    return float((((numbers - numbers.mean()) / spread) ** 3).mean()) if spread > 0 else 0.0


def _grid(span: float, *, whole: bool) -> Decimal:
    exponent = math.floor(math.log10(span)) - SIGNIFICANT + 1
    return Decimal(1).scaleb(max(0, exponent) if whole else exponent)


def _round(bound: float, grid: Decimal, direction: str, whole: bool) -> float | int | None:
    steps = (Decimal(bound) / grid).to_integral_value(direction)
    made = steps * grid
    if whole:
        return int(made) if abs(made) < _WHOLE else None
    return float(made)


def _plain(value: float, *, whole: bool) -> float | int:
    return int(value) if whole else value


def _number(value: float, whole: bool) -> Any:
    return int(value) if whole else float(value)
