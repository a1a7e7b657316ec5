"""Has a column drifted? Counts of a window against counts of a reference, or of the same hours before.

    bins = make_bins(rows)                              once, from reference rows
    reference = Sample.of(blocks)                       histograms of the reference, block by block, in their order
    window = Sample.of(steps)                           histograms of the window's steps, in their order
    compared = compare(column, reference, window)       effect and p-value
    verdicts = judge(all_compared, level=level_of_pass(...), smallest=0.05)

An effect and its significance are two answers: a window of a million rows makes every triviality significant, and one
of a thousand leaves much that matters open. A drift is both material and significant; one without the other is said.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import numpy as np
from msgspec import Struct

from mainstay.errors import Misuse
from mainstay.monitoring import drift_tests as tests
from mainstay.monitoring.drift_effects import Contribution, Spread, contributions, distance, mean_shift
from mainstay.monitoring.drift_noise import Noise, doubt, noise_between, noise_of, unrest
from mainstay.monitoring.false_alarms import discoveries
from mainstay.monitoring.histograms import Histogram, Moments, merge, stack
from mainstay.monitoring.intervals import Estimate  # noqa: TC001 - msgspec reads the types of a struct

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from mainstay.monitoring.binning import Column

    Noises: TypeAlias = tuple[Noise, ...]  # independent sources, whose covariances add up
    Floats: TypeAlias = NDArray[np.float64]
    Whole: TypeAlias = NDArray[np.int64]

FEWEST_ROWS: Final = 50  # of either sample, to say anything at all
FEWEST_PAST: Final = 7  # whole windows of the past, to learn from how they vary
# How the chance of a false alarm is divided among the questions (Bonferroni, weighted).
HELD_BACK: Final = 0.2  # where rows may be taken for independent: for dependence that is too weak to be seen
RARE_WEIGHT: Final = 0.1  # where anything is rare
SHIFT_WEIGHT: Final = 0.8  # of what is left, for numbers; most drifts are shifts
MANY: Final = 1e9  # degrees of freedom of what is as good as known

NoiseFrom: TypeAlias = Literal["rows", "steps", "reference", "windows"]


@dataclass(frozen=True, slots=True)
class Sample:
    """Counts of one column in the order of time: the blocks of a reference, the steps of a window."""

    counts: Whole  # (units, bins); a unit without rows is no harm
    moments: Moments | None = None  # of all units together, for numbers

    @classmethod
    def of(cls, units: Sequence[Histogram]) -> Sample:
        """Of at least one histogram. Raises Misuse when there is none, or their bins differ."""
        if not units:
            raise Misuse("expected at least one histogram, found none")
        return cls(stack(units), merge(units).moments)

    @property
    def total(self) -> Whole:
        """(bins,)"""
        found: Whole = self.counts.sum(0)
        return found

    @property
    def rows(self) -> int:
        return int(self.counts.sum())


class Comparison(Struct, frozen=True, kw_only=True, gc=False):
    """A window beside a reference. What needs rows is None where there are too few of them."""

    column: str
    rows: int
    reference_rows: int
    p_value: float | None = None  # that nothing has changed: the three below, together
    p_shape: float | None = None
    p_shift: float | None = None  # of numbers
    p_rare: float | None = None  # of what is rare in both together
    distance: Estimate | None = None  # total variation, 0..1, less what chance adds
    shift: Estimate | None = None  # of the mean, in the reference's standard deviations
    design_effect: float | None = None  # by how much the noise is wider than that of independent rows
    noise_from: NoiseFrom | None = None  # what showed the widest noise; rows, as if they were independent
    bins: tuple[Contribution, ...] = ()  # that differ most


class Verdict(Struct, frozen=True, kw_only=True):
    """What a comparison comes to within its pass.

    *drift*    surely changed, and by enough to matter
    *minor*    surely changed, and by less than what matters
    *steady*   no sure change, and the interval of the distance lies below what matters
    *open*     no sure change, but the window is too small or too restless to exclude one that matters
    *unknown*  too few rows to say anything
    """

    verdict: Literal["drift", "minor", "steady", "open", "unknown"]
    significant: bool
    material: bool
    comparison: Comparison


def compare(
    column: Column,
    reference: Sample,
    window: Sample,
    *,
    past: Sequence[Sample] = (),
    min_rows: int = FEWEST_ROWS,
) -> Comparison:
    """The window against the reference.

    `past`: earlier windows of the same hours (`earlier.copies`), each with as many steps as the window. From seven on
    they say how whole windows vary, and what each step's shares are as a rule, so that the rhythm of a day is no noise.
    To compare with the past itself, the reference is these windows' totals (`earlier.baseline`).

    Raises Misuse when the samples are not of the column's bins.
    """
    _check(column, (reference, window, *past))
    rows, reference_rows = window.rows, reference.rows
    if rows < max(min_rows, FEWEST_ROWS) or reference_rows < FEWEST_ROWS:
        return Comparison(column=column.name, rows=rows, reference_rows=reference_rows)
    total, reference_total = window.total, reference.total
    counts = _Counts(reference.counts, window.counts, _of_past(window, past))
    shape = _look(counts, ordered=column.ordered)
    present = _look(counts.without_missing(), ordered=True) if column.ordered and counts.missing else shape
    doubted = 1.0 if counts.past is not None else doubt(_unrests(shape, present if column.ordered else None))
    by_units = [tests.shape_dependent(shape.two, each) for each in shape.excesses]
    p_shape = tests.together(tests.shape_independent(shape.two), by_units, doubted)
    p_shift = shift = None
    if column.ordered:
        p_shift, shift = _shift(present, doubted, reference.moments, window.moments)
    p_rare = _rare(counts, shape.by_bin)
    widest = shape.widest()
    return Comparison(
        column=column.name,
        rows=rows,
        reference_rows=reference_rows,
        p_value=_together(p_shape, p_shift, p_rare, held_back=HELD_BACK if doubted < 1 else 0.0),
        p_shape=p_shape,
        p_shift=p_shift,
        p_rare=p_rare,
        distance=distance(reference_total, total, widest.spread, ordered=column.ordered),
        shift=shift,
        design_effect=widest.design_effect,
        noise_from=widest.noise_from,
        bins=contributions(reference_total, total, column.bins.labels()),
    )


def judge(compared: Sequence[Comparison], *, level: float, smallest: float) -> list[Verdict]:
    """Verdicts on all comparisons of a pass together, in their order.

    `level`: false discovery rate of the pass (`false_alarms.level_of_pass`); `smallest`: the total variation distance
    from which on a drift matters. Verdicts differ when a pass is judged in parts: a family is judged whole.
    """
    found = discoveries([each.p_value for each in compared], level)
    return [_verdict(each, significant, smallest) for each, significant in zip(compared, found, strict=True)]


def _verdict(compared: Comparison, significant: bool, smallest: float) -> Verdict:
    if compared.distance is None:
        return Verdict(verdict="unknown", significant=False, material=False, comparison=compared)
    material = compared.distance.value >= smallest
    verdict: Literal["drift", "minor", "steady", "open"]
    if significant:
        verdict = "drift" if material else "minor"
    else:
        verdict = "steady" if compared.distance.high < smallest else "open"
    return Verdict(verdict=verdict, significant=significant, material=material, comparison=compared)


@dataclass(frozen=True, slots=True)
class _Counts:
    reference: Whole  # (units, k)
    window: Whole  # (steps, k)
    past: Whole | None  # (windows, steps, k)

    @property
    def missing(self) -> bool:
        return bool(self.reference[:, -1].any() or self.window[:, -1].any())

    def without_missing(self) -> _Counts:
        return _Counts(*(None if each is None else _present(each) for each in (self.reference, self.window, self.past)))  # type: ignore[arg-type]  # only the past may be None


@dataclass(frozen=True, slots=True)
class _Widest:
    spread: Spread
    design_effect: float
    noise_from: NoiseFrom


@dataclass(frozen=True, slots=True)
class _Look:
    """Two samples in groups of bins, and every way there is to look at their noise: in groups, and bin by bin."""

    two: tests.Two
    units: tuple[Floats, Floats]  # counts of the reference's and of the window's, (units, groups) each
    noises: list[Noises]
    by_bin: list[Noises]
    excesses: list[tests.Excess]
    noise_from: list[NoiseFrom]
    bins: int

    def widest(self) -> _Widest:
        """The noise that X^2 is to be expected largest under."""
        found = _Widest(Spread(np.empty((0, self.bins)), MANY), 1.0, "rows")
        for seen, by_bin, noise_from in zip(self.excesses, self.by_bin, self.noise_from, strict=True):
            effect = seen.mean / max(1, len(self.two.window) - 1)
            if effect > found.design_effect:
                parts = np.concatenate([each.widened().parts for each in by_bin])
                found = _Widest(Spread(parts, seen.known), effect, noise_from)
        return found


def _look(counts: _Counts, *, ordered: bool) -> _Look:
    groups = tests.groups_of(counts.reference.sum(0), counts.window.sum(0), ordered=ordered)
    gathering = tests.gathering(groups)
    units = (counts.reference @ gathering, counts.window @ gathering)
    two = tests.two_of(units[0].sum(0), units[1].sum(0))
    sources = _noises(counts)
    gathered = [tuple(Noise(each.parts @ gathering, each.freedom) for each in source) for source in sources.values()]
    excesses = [tests.excess(two, source) for source in gathered]
    return _Look(two, units, gathered, list(sources.values()), excesses, list(sources), len(groups))


def _noises(counts: _Counts) -> dict[NoiseFrom, Noises]:
    """The ways to look at the noise of both samples together, as far as there are units enough.

    With a past, its windows say how whole windows vary, and the window's steps how they depart from what is usual; the
    reference is taken to be as restless, row for row. Without one, the noise of both is taken from the units of both,
    and once more from the reference's alone: its blocks last longer than steps as a rule, and so see what varies
    slowly. The wider of two is biased upwards, which makes up for the freedom of both being counted for each.
    """
    n, m = float(counts.reference.sum()), float(counts.window.sum())
    window = noise_of(counts.window, _usual(counts))
    between = None if counts.past is None else noise_between(counts.past.sum(1))
    found: dict[NoiseFrom, Noises] = {}
    if between is not None:
        found["windows"] = (between.scaled(1 + m / n),)
        if window is not None:
            found["steps"] = (window.scaled(1 + m / n),)
        return found
    reference = noise_of(counts.reference)
    if reference is not None and window is not None:
        freedom = reference.freedom + window.freedom
        reference, window = Noise(reference.parts, freedom), Noise(window.parts, freedom)
        found["steps"] = (reference, window)
    elif window is not None:
        found["steps"] = (window.scaled(1 + m / n),)
    if reference is not None:
        found["reference"] = (reference.scaled(1 + n / m),)
    return found


def _usual(counts: _Counts) -> Floats | None:
    """(steps, k) the shares of each step in the past; None where there is no past with the same steps."""
    if counts.past is None or counts.past.shape[1] != counts.window.shape[0]:
        return None
    steps = counts.past.sum(0).astype(np.float64)
    rows = steps.sum(1, keepdims=True)
    overall = steps.sum(0) / steps.sum()
    return np.asarray(np.where(rows > 0, steps / np.maximum(rows, 1), overall))


def _unrests(shape: _Look, present: _Look | None) -> list[float]:
    """Of all groups of bins; of numbers also of the mean score of the values that are there."""
    found = [unrest(*shape.units)]
    if present is not None and min(present.two.reference.sum(), present.two.window.sum()) >= FEWEST_ROWS:
        found.append(unrest(*present.units, tests.normal_scores(present.two.expected)))
    return found


def _shift(
    look: _Look, doubted: float, before: Moments | None, now: Moments | None
) -> tuple[float | None, Estimate | None]:
    """The p-value of a move to one side among the values that are there, and the move of the mean."""
    if min(look.two.reference.sum(), look.two.window.sum()) < FEWEST_ROWS:
        return None, None
    scores = tests.normal_scores(look.two.expected)
    moved = float(look.two.apart @ scores)
    seen = [tests.shift_noise(each, scores) for each in look.noises]
    by_rows = tests.shift_dependent(moved, look.two.unit, MANY)
    p_value = tests.together(by_rows, [tests.shift_dependent(moved, *each) for each in seen], doubted)
    if before is None or now is None:
        return p_value, None
    variance, freedom = max([*seen, (look.two.unit, MANY)])
    return p_value, mean_shift(before, now, variance / look.two.unit, freedom)


def _rare(counts: _Counts, noises: Sequence[Noises]) -> float | None:
    """The p-value of the frequency of what is rare, whose dependence too few rows show; None where nothing is."""
    reference, window = counts.reference.sum(0), counts.window.sum(0)
    expected = tests.expected_rows(reference, window)
    rare = (expected > 0) & (expected < tests.FEWEST_EXPECTED)
    if not rare.any():
        return None
    found, sizes = (int(reference[rare].sum()), int(window[rare].sum())), (int(reference.sum()), int(window.sum()))
    two = tests.two_of(reference.astype(np.float64), window.astype(np.float64))
    ways = [tests.rare_dependent(two, each, rare.astype(np.float64)) for each in noises]
    return max([tests.rare_independent(found, sizes), *ways])


def _together(p_shape: float, p_shift: float | None, p_rare: float | None, *, held_back: float) -> float:
    main = p_shape if p_shift is None else min(p_shape / (1 - SHIFT_WEIGHT), p_shift / SHIFT_WEIGHT)
    lowest = main if p_rare is None else min(main / (1 - RARE_WEIGHT), p_rare / RARE_WEIGHT)
    return min(1.0, lowest / (1 - held_back))


def _present(counts: Whole) -> Whole:
    present = counts.copy()
    present[..., -1] = 0
    return present


def _of_past(window: Sample, past: Sequence[Sample]) -> Whole | None:
    """(windows, steps, k); windows of other steps than this one's are taken as wholes. None when they are too few."""
    if len(past) < FEWEST_PAST:
        return None
    same = all(each.counts.shape == window.counts.shape for each in past)
    return np.stack([each.counts if same else each.total[None] for each in past])


def _check(column: Column, samples: Sequence[Sample]) -> None:
    size = column.bins.size
    wrong = next((each.counts.shape[1] for each in samples if each.counts.shape[1] != size), None)
    if wrong is not None:
        raise Misuse(f"expected counts of the {size} bins of {column.name}, found {wrong}; its bins were made anew?")
