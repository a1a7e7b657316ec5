"""Why something changed: broken data, another mix of cases, another world, or a model that is wrong.

What is told apart, and by what:

    data_broken    columns lost their values, or all but one, or seem to come in another unit; calls or rows break
                   the contract; or what arrives upstream changed its form at that time, in a column that drifted
    traffic_mix    the shares of segments changed, and with the mix of before the drift disappears: of the distance of
                   two distributions the part between segments is nearly all
    world_changed  inputs changed within segments; or labels did, while the model is still calibrated or its quality
                   falls everywhere
    model_wrong    outputs changed or quality fell, and inputs did not; or that happened right after a release

The parts of a distance follow Kitagawa (1955), "Components of a difference between two rates", with distributions in
the place of rates: with w and v the shares of segments before and now, and p and q the distributions within them, the
mixture of v and p is what would be seen had only the mix changed. The distance between it and what is seen is the
part within segments.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import numpy as np

from mainstay.intake.unit_change import FACTORS
from mainstay.monitoring.findings import Cause, Part

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime, timedelta

    from numpy.typing import NDArray

    from mainstay.monitoring.findings import Change, Kind

    Counts: TypeAlias = NDArray[np.float64]

MOST_PARTS: Final = 5  # contributors that are told
WITHIN_SHARE: Final = 0.5  # of the distance: what at most is left within segments where only the mix changed
MISSING_JUMP: Final = 0.05  # share of rows more, from which on values are called missing ...
MISSING_SHARE: Final = 0.5  # ... where they make up so much of the distance
CONSTANT_SHARE: Final = 0.999  # of rows in one value
VARIED_SHARE: Final = 0.9  # at most so many rows had the most frequent value before
UNIT_DISTANCE: Final = 0.3  # total variation, below which no unit is suspected
UNIT_MEAN: Final = 0.05  # tolerance of the logarithm of the ratio of the means ...
UNIT_DEVIATION: Final = 0.1  # ... and of the standard deviations
EVERYWHERE: Final = 2 / 3  # share of segments, by rows, in which quality fell: more is everywhere
FEW_REFERENCE: Final = 30  # rows of a segment, below which it has no distribution to compare with

FAHRENHEIT: Final = (1.8, 32.0)


class Moments(NamedTuple):
    """Of the values of a numeric column."""

    rows: float
    mean: float
    deviation: float


class Decomposition(NamedTuple):
    """A distance of two distributions and its parts; each is what exceeds what chance alone would show."""

    total: float
    within: float  # what is left with the shares of segments made the same
    mix: float  # the distance of the shares of segments themselves


@dataclass(frozen=True, kw_only=True, slots=True)
class Shift:
    """A column that drifted in a window, and what its counts tell."""

    name: str  # `input.x`, `output.y`, `confidence`, `novelty`
    distance: float
    within: float | None = None  # None: no segments are declared, or too few rows of them before
    mix: float | None = None
    segments: tuple[Part, ...] = ()  # contributions to the part within
    missing_before: float = 0.0  # shares of rows
    missing_now: float = 0.0
    unknown_before: float = 0.0
    unknown_now: float = 0.0
    is_constant: bool = False  # and was not before
    unit: str = ""  # as what the change of unit is known
    strange_before: float = 0.0  # of novelty: shares of inputs that are stranger than 99 % of the reference rows
    strange_now: float = 0.0

    @property
    def is_input(self) -> bool:
        return self.name.startswith("input.")

    @property
    def is_missing(self) -> bool:
        jump = self.missing_now - self.missing_before
        return jump >= MISSING_JUMP and jump >= MISSING_SHARE * self.distance

    @property
    def broken(self) -> str:
        """How the column looks broken; empty where it does not."""
        if self.is_constant:
            return f"{self.name} has one value only, and varied before"
        if self.unit:
            return f"{self.name} looks like the same numbers in another unit ({self.unit})"
        if self.is_missing:
            return f"{self.name} is missing in {self.missing_now:.0%} of rows, before in {self.missing_before:.0%}"
        return ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fall:
    """A metric that is worse than before, or than declared."""

    metric: str
    loss: float
    segments: tuple[Part, ...] = ()  # where it fell; `share` is that of the rows
    looked_at: int = 0  # segments with enough labels

    @property
    def is_calibration(self) -> bool:
        return self.metric in {"calibration_error", "brier", "log_loss", "bias"}

    @property
    def is_everywhere(self) -> bool:
        """Also where no segments were looked at: nothing says that it is confined."""
        return not self.looked_at or sum(part.share for part in self.segments) >= EVERYWHERE


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """All that is known of a version in a window when a cause is sought."""

    since: datetime  # when the change began: the begin of the first window that shows it
    window: timedelta
    smallest_drift: float
    shifts: tuple[Shift, ...] = ()
    falls: tuple[Fall, ...] = ()
    labels_changed: bool = False  # what turns out to be true is distributed otherwise
    violations: str = ""  # calls that break the contract became more: how many, in words
    feeds: tuple[str, ...] = ()  # sources in trouble, and how
    changes: tuple[Change, ...] = ()


def cause_of(picture: Picture) -> Cause:
    """The likely cause, by the rules above in their order."""
    near = _near(picture)
    kind, why = _judge(picture, near)
    return Cause(kind=kind, why=why, columns=_columns(picture), segments=_segments(picture), changes=near)


def _judge(picture: Picture, near: Sequence[Change]) -> tuple[Kind, str]:
    inputs = [shift for shift in picture.shifts if shift.is_input]
    others = [shift for shift in picture.shifts if not shift.is_input]
    if broken := _broken(picture, near):
        return "data_broken", broken
    release = next((each for each in near if each.what == "release"), None)
    if release is not None and not inputs and (others or picture.falls):
        what = others[0].name if others else picture.falls[0].metric
        return "model_wrong", f"{what} changed with {release.subject}, and the inputs did not"
    if picture.shifts and all(_is_mix(shift, picture.smallest_drift) for shift in picture.shifts):
        return "traffic_mix", "the shares of segments changed; within segments next to nothing did"
    if inputs:
        return "world_changed", _world(inputs, picture)
    return _of_labels(picture, others)


def _of_labels(picture: Picture, others: Sequence[Shift]) -> tuple[Kind, str]:
    """The cause where no input drifted."""
    everywhere = bool(picture.falls) and all(fall.is_everywhere for fall in picture.falls)
    calibrated = not any(fall.is_calibration for fall in picture.falls)
    if picture.labels_changed and not others and (calibrated or everywhere):
        how = "the model is still calibrated" if calibrated else "quality falls everywhere"
        return "world_changed", f"what turns out to be true changed, inputs did not, and {how}"
    if picture.falls:
        where = "everywhere" if everywhere else f"in {_listed(part.name for part in picture.falls[0].segments)}"
        return "model_wrong", f"{picture.falls[0].metric} fell {where}, and the inputs did not change"
    if others:
        return "model_wrong", f"{others[0].name} changed, and the inputs did not"
    return "unclear", "no column drifted, and no metric fell"


def _broken(picture: Picture, near: Sequence[Change]) -> str:
    """What looks broken; empty where nothing does."""
    broken = [said for shift in picture.shifts if shift.is_input and (said := shift.broken)]
    if broken:
        return broken[0] if len(broken) == 1 else f"{broken[0]}; {len(broken) - 1} more columns look broken"
    if picture.violations:
        return picture.violations
    if picture.feeds:
        return picture.feeds[0]
    drifted = {shift.name.removeprefix("input.") for shift in picture.shifts if shift.is_input}
    for change in near:
        if change.what != "release" and drifted.intersection(change.columns):
            return f"{change.subject}: {change.text}, in a column that drifted"
    return ""


def _is_mix(shift: Shift, smallest: float) -> bool:
    if shift.within is None or shift.mix is None:
        return False
    return shift.within < max(smallest, WITHIN_SHARE * shift.distance) and shift.mix > shift.within


def _world(inputs: Sequence[Shift], picture: Picture) -> str:
    names = _listed(shift.name for shift in sorted(inputs, key=lambda each: -each.distance))
    fell = f", and {_listed(fall.metric for fall in picture.falls)} fell" if picture.falls else ""
    return f"{names} changed, within segments too{fell}" if inputs[0].within is not None else f"{names} changed{fell}"


def _near(picture: Picture) -> tuple[Change, ...]:
    """What changed within a window before the change began, or in its first window; the nearest first."""
    first, last = picture.since - picture.window, picture.since + picture.window
    found = [each for each in picture.changes if first <= each.at <= last]
    return tuple(sorted(found, key=lambda each: abs(each.at - picture.since))[:MOST_PARTS])


def _columns(picture: Picture) -> tuple[Part, ...]:
    return _largest(Part(name=each.name, share=each.distance, distance=each.distance) for each in picture.shifts)


def _segments(picture: Picture) -> tuple[Part, ...]:
    found: dict[str, float] = {}
    parts = [part for each in picture.shifts for part in each.segments]
    for part in parts or [part for fall in picture.falls for part in fall.segments]:
        found[part.name] = found.get(part.name, 0.0) + part.share
    return _largest(Part(name=name, share=share) for name, share in found.items())


def _largest(parts: Iterable[Part]) -> tuple[Part, ...]:
    """The largest contributors, with their shares of what all contribute."""
    found = sorted(parts, key=lambda part: -part.share)
    total = sum(part.share for part in found) or 1.0
    return tuple(Part(name=p.name, share=p.share / total, distance=p.distance) for p in found[:MOST_PARTS])


def _listed(names: Iterable[str]) -> str:
    found = list(dict.fromkeys(names))
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return ", ".join(found[:3]) + more


# What counts tell.


def distance(one: Counts, other: Counts) -> float:
    """Total variation distance of two histograms, beyond what chance alone would show on the average."""
    n, m = float(one.sum()), float(other.sum())
    if not n or not m:
        return 0.0
    p, q = one / n, other / m
    pooled = (one + other) / (n + m)
    return _beyond(p, q, pooled * (1 - pooled) * (1 / n + 1 / m))


def decompose(before: Counts, now: Counts) -> Decomposition | None:
    """The parts of a distance; `before` and `now` are counts by segment and bin. None where too little is known.

    A segment without enough rows before has no distribution of its own; what it brings counts as mix.
    """
    n, m = before.sum(1), now.sum(1)
    known = n >= FEW_REFERENCE
    if not n.sum() or not m.sum() or not m[known].sum():
        return None
    total = distance(before.sum(0), now.sum(0))
    mix = distance(n, m)
    shares = m[known] / m[known].sum()
    p = before[known] / n[known, None]
    q = now[known].sum(0) / m[known].sum()
    mixture = shares @ p
    chance = (shares**2) @ (p * (1 - p) / n[known, None]) + mixture * (1 - mixture) / m[known].sum()
    return Decomposition(total, _beyond(mixture, q, chance), mix)


def contributions(before: Counts, now: Counts, names: Sequence[str]) -> tuple[Part, ...]:
    """How much each segment brings to the part within; shares of all segments that are known make at most one."""
    n, m = before.sum(1), now.sum(1)
    total = max(1.0, float(m.sum()))
    parts = [
        Part(name=name, share=float(m[place]) / total * apart, distance=apart)
        for place, name in enumerate(names)
        if n[place] >= FEW_REFERENCE and m[place] and (apart := distance(before[place], now[place])) > 0
    ]
    return tuple(sorted(parts, key=lambda part: -part.share)[:MOST_PARTS])


def _beyond(p: Counts, q: Counts, variances: Counts) -> float:
    """Half the sum of differences, less what normal differences of these variances would have on the average."""
    expected = float(np.sqrt(np.maximum(variances, 0.0)).sum()) * math.sqrt(2 / math.pi) / 2
    return max(0.0, float(np.abs(p - q).sum()) / 2 - expected)


def is_constant(before: Counts, now: Counts) -> bool:
    """Whether all rows with a value lie in one bin now, and did not before; the last bin is that of missing values."""
    one, other = before[:-1].sum(), now[:-1].sum()
    if not one or not other:
        return False
    return bool(now[:-1].max() / other >= CONSTANT_SHARE and before[:-1].max() / one <= VARIED_SHARE)


def unit_change(
    before: Moments, now: Moments, apart: float, fits: Callable[[float, float], bool] = lambda _factor, _shift: True
) -> str:
    """As what a change of unit is known that explains both the mean and the deviation; empty where none does.

    `fits` says whether the whole distribution of before, times a factor and shifted, is that of now.
    """
    if apart < UNIT_DISTANCE or min(before.deviation, now.deviation) <= 0 or min(before.rows, now.rows) < FEW_REFERENCE:
        return ""
    times, beyond = FAHRENHEIT
    known = [(factor, 0.0, words[0]) for factor, words in FACTORS.items()]
    known += [(1 / factor, 0.0, words[1]) for factor, words in FACTORS.items()]
    known += [(times, beyond, "Celsius to Fahrenheit"), (1 / times, -beyond / times, "Fahrenheit to Celsius")]
    fitting = [
        (abs(math.log(now.deviation / before.deviation / factor)), words)
        for factor, shift, words in known
        if _explains(before, now, factor, shift) and fits(factor, shift)
    ]
    return min(fitting)[1] if fitting else ""


def _explains(before: Moments, now: Moments, factor: float, shift: float) -> bool:
    if abs(math.log(now.deviation / before.deviation / factor)) > UNIT_DEVIATION:
        return False
    expected = before.mean * factor + shift
    # Where the mean is about zero, its ratio says nothing: it may lie off by a part of the deviation.
    return abs(now.mean - expected) <= UNIT_MEAN * max(abs(expected), now.deviation)
