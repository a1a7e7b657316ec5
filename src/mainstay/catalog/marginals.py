"""What is ordinary for one field: the part of the out-of-distribution profile that is fitted field by field.

A number's axis is cut into segments, each with two straight lines over it: the coordinate that several fields are
compared on, and the nats of the number itself. A value that occurs often has a segment of its own, so that what lies
between two such values can be stranger than both. Beyond the outermost value, nats grow as the tail of an exponential
distribution would let them, at the mean excess of the outer tenth (Pickands 1975, "Statistical inference using extreme
order statistics").

Rows are `nominal` in number for every count that enters a logarithm, whichever share of them is fitted on; otherwise
the folds of a cross-fit would speak in other units than the fit on all rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import numpy as np

from mainstay.runtime.novelty import EDGE, STRIDE, keys_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]
    Indices: TypeAlias = NDArray[np.intp]

KNOTS: Final = 31  # quantiles that cut a number's axis, at equal steps of the normal score
MOST_ATOMS: Final = 32  # values with a segment of their own
ATOM_ROWS: Final = 3  # that such a value occurs in, at least,
ATOM_SHARE: Final = 0.02  # and of all rows, unless there are at most MOST_ATOMS values
TAIL_SHARE: Final = 0.1  # of the values, to measure how fast the tail falls
TAIL_ROWS: Final = 5  # at least
# Of a tail, in units of the scale. The mean excess is at least a thousandth of the width, and the scale at most the
# width, so only a width that the scale cannot follow, near the smallest doubles, comes below it.
LEAST_TAIL: Final = 1e-4
LINEAR: Final = 0.5  # part of the coordinate that is linear in the value; the rest is its normal score
WINSOR: Final = 0.01  # share at either end that the linear part does not look at
NEVER: Final = 0.02  # of an occurrence: what happened in no row is taken to happen this often
NEW_VALUE: Final = 0.01  # share of rows; new values rarer than this are stranger still
NUMBER_BINS: Final = 8
LEVEL_BINS: Final = 64
LEVEL_CHARACTERS: Final = 256
SAME_PLACE: Final = 1e-9  # knots nearer than this, relatively, are one

_NORMAL: Final = NormalDist()


class Segment(NamedTuple):
    """Lines over one segment: of the coordinate and of the nats, as slope and value at place 0."""

    slope: float
    start: float
    nat_slope: float
    nat_start: float


@dataclass(frozen=True, slots=True)
class Number:
    """A fitted number. Segment i lies between boundaries i and i + 1; the last one, open, is of what is missing."""

    location: float
    inverse_scale: float
    boundaries: list[float]
    segments: list[Segment]
    bins: list[int]
    sometimes_missing: bool


@dataclass(frozen=True, slots=True)
class Text:
    """A fitted text field: the codes known one by one, most frequent first; nats and bins of each, and of the rest."""

    codes: list[int]
    nats: list[float]
    bins: list[int]


def fit_number(values: Floats, field: int, nominal: int) -> Number:
    """`values: (n,) float` with NaN where missing; `field` is the number's place among the numbers."""
    present = np.sort(values[~np.isnan(values)])
    missing = len(values) - len(present)
    missing_nats = _nats(missing / len(values), nominal)
    base = STRIDE * field
    if not len(present):
        anything = Segment(0.0, 0.0, 0.0, _nats(0.0, nominal))
        segments = [anything, Segment(0.0, 0.0, 0.0, missing_nats)]
        return Number(0.0, 1.0, [base - EDGE, base + EDGE], segments, [0, 1], sometimes_missing=False)
    location, inverse_scale = _centre(present)
    known = _Knots.of(present, location, inverse_scale, nominal * len(present) / len(values))
    here = _nats(len(present) / len(values), nominal)
    boundaries, segments, shares = _cut(known, base)
    segments = [segment._replace(nat_start=segment.nat_start + here) for segment in segments]
    raw = np.minimum(np.array(shares) * NUMBER_BINS, NUMBER_BINS - 1).astype(np.intp)
    found, bins = np.unique(raw, return_inverse=True)
    return Number(
        location=location,
        inverse_scale=inverse_scale,
        boundaries=[base - EDGE, *boundaries, base + EDGE],
        segments=[*segments, Segment(0.0, 0.0, 0.0, missing_nats)],
        bins=[*bins.tolist(), len(found)],
        sometimes_missing=missing > 0,
    )


def fit_text(codes: Indices, nameable: NDArray[np.bool_], nominal: int, most_levels: int) -> Text:
    """`codes: (n,) int` say which value each row has; `nameable[code]` whether it may be known by itself.

    Values seen once are not: their share estimates that of values never seen (Good 1953, "The population frequencies of
    species and the estimation of population parameters").
    """
    counts = np.bincount(codes, minlength=len(nameable))
    repeated = np.flatnonzero((counts > 1) & nameable)
    kept = repeated[np.argsort(-counts[repeated], kind="stable")][:most_levels]
    others = len(codes) - int(counts[kept].sum())
    masses = np.append(counts[kept], others) / len(codes)
    nats = [_nats(float(masses[masses <= mass].sum()), nominal) for mass in masses]
    nats[-1] = max(nats[-1], _new_value_nats(others / len(codes), nominal))
    bins = np.minimum(np.arange(len(masses)), LEVEL_BINS - 2)
    bins[-1] = min(len(kept), LEVEL_BINS - 1)
    return Text(kept.tolist(), nats, bins.tolist())


def _nats(share: float, nominal: float) -> float:
    return -math.log(min(1.0, max(share, NEVER / nominal)))


def _new_value_nats(share: float, nominal: float) -> float:
    """Of a value not seen before, where values repeat. What is rare as a number's extreme says little: there is one in
    most tables of many fields. A new name or a half where all were whole says more, so its share counts for less.
    """
    seen = max(share, NEVER / nominal)
    return -math.log(min(1.0, seen * seen / (seen + NEW_VALUE)))


def _centre(present: Floats) -> tuple[float, float]:
    """The median, and one over a width: the quartiles' distance, the deviation, or a thousandth of the only value."""
    low, middle, high = np.quantile(present, [0.25, 0.5, 0.75]).tolist()
    scale = high - low or float(present.std()) or max(abs(middle), 1e-3) * 1e-3
    return middle, 1 / max(scale, 1e-100)


@dataclass(frozen=True, slots=True)
class _Knots:
    """Where a number's axis is cut, k places in ascending order, and what is known there. All (k,)."""

    places: Floats
    coordinates: Floats
    own: NDArray[np.bool_]  # whether the value has a segment of its own
    at_most: Floats  # share of the values at or below the knot
    below: Floats  # share below it
    smallest: float  # the share of half a value
    new_nats: float  # of a value that is not among those seen
    edge_nats: tuple[float, float]  # of a value just outside the lowest and the highest
    tails: tuple[float, float]  # mean excess, in places
    discrete: bool  # whether most values occur repeatedly

    @classmethod
    def of(cls, present: Floats, location: float, inverse_scale: float, nominal: float) -> _Knots:
        """`present: (m,)` ascending; `nominal` of them."""
        size = len(present)
        unique, counts = np.unique(present, return_counts=True)
        reach = _NORMAL.inv_cdf(1 - 0.5 / size)
        ranks = [round((size - 1) * _NORMAL.cdf(z)) for z in np.linspace(-reach, reach, KNOTS)]
        frequent = np.argsort(-counts, kind="stable")[:MOST_ATOMS]
        share = ATOM_SHARE if len(unique) > MOST_ATOMS else 0
        atoms = unique[frequent[counts[frequent] >= max(ATOM_ROWS, share * size)]]
        candidates = np.unique(np.concatenate([present[ranks], present[[0, -1]], atoms]))
        knots = candidates[_apart((candidates - location) * inverse_scale)]
        positions = np.searchsorted(unique, knots)
        up_to = np.concatenate([[0], np.cumsum(counts)])
        at_most, below = up_to[positions + 1] / size, up_to[positions] / size
        own = counts[positions] >= ATOM_ROWS
        own[[0, -1]] = True
        return cls(
            places=(knots - location) * inverse_scale,  # to the last bit as the score computes it
            coordinates=_coordinates(present, knots, (at_most + below) / 2),
            own=own,
            at_most=at_most,
            below=below,
            smallest=0.5 / nominal,
            new_nats=_new_value_nats(float((counts == 1).sum()) / size, nominal),
            edge_nats=(_edge_nats(int(counts[0]), nominal), _edge_nats(int(counts[-1]), nominal)),
            tails=_tails(present, inverse_scale),
            discrete=2 * len(unique) <= size,
        )


def _apart(places: Floats) -> NDArray[np.bool_]:
    """Which of ascending places are not nearly the same as the one before."""
    steps = np.diff(places) > SAME_PLACE * (1 + np.abs(places[1:]))
    return np.concatenate([[True], steps])


def _coordinates(present: Floats, knots: Floats, shares: Floats) -> Floats:
    """Half the normal score, half the value itself: the first straightens tails, the second keeps gaps wide."""
    scores = np.array([_NORMAL.inv_cdf(share) for share in shares.tolist()])
    low, high = np.quantile(present, [WINSOR, 1 - WINSOR])
    kept = np.clip(present, low, high)
    deviation = float(kept.std())
    if not deviation:
        return scores
    linear: Floats = (np.clip(knots, low, high) - kept.mean()) / deviation
    return (1 - LINEAR) * scores + LINEAR * linear


def _edge_nats(rows_at_the_edge: int, nominal: float) -> float:
    """The more often the outermost value occurs, the more it is a bound that nothing crosses."""
    return math.log(nominal + 1) + math.log(min(rows_at_the_edge, 1 / NEVER))


def _tails(present: Floats, inverse_scale: float) -> tuple[float, float]:
    outer = max(TAIL_ROWS, int(TAIL_SHARE * len(present)))
    width = float(present[-1] - present[0])
    if not width:
        return 1.0, 1.0
    low, high = present[:outer], present[-outer:]
    excesses = float(low[-1] - low.mean()), float(high.mean() - high[0])
    below, above = ((excess if excess > 1e-3 * width else width / 10) * inverse_scale for excess in excesses)
    return max(below, LEAST_TAIL), max(above, LEAST_TAIL)


def _cut(known: _Knots, base: float) -> tuple[list[float], list[Segment], list[float]]:
    """Boundaries between the segments of values, the segments, and the share of values below the middle of each."""
    steepest = max(1.0, -_NORMAL.inv_cdf(known.smallest)) if known.smallest < 0.5 else 1.0
    first, last = known.places[[0, -1]].tolist()
    below, above = known.tails
    slope = 1 / (below * steepest)
    segments = [Segment(slope, known.coordinates[0] - slope * first, -1 / below, known.edge_nats[0] + first / below)]
    shares = [0.0]
    boundaries: list[float] = []
    keys = (keys_of(known.places) + base).tolist()
    for i, key in enumerate(keys):
        opens = key
        if known.own[i]:
            boundaries.append(key)
            segments.append(Segment(0.0, known.coordinates[i], 0.0, _two_sided(known.at_most[i], 1 - known.below[i])))
            shares.append((known.at_most[i] + known.below[i]) / 2)
            opens = math.nextafter(key, math.inf)
        boundaries.append(opens)
        if i + 1 < len(keys):
            segments.append(_between(known, i))
            shares.append((known.at_most[i] + known.below[i + 1]) / 2)
    slope = 1 / (above * steepest)
    segments.append(Segment(slope, known.coordinates[-1] - slope * last, 1 / above, known.edge_nats[1] - last / above))
    shares.append(1.0)
    return np.maximum.accumulate(boundaries).tolist(), segments, shares


def _between(known: _Knots, i: int) -> Segment:
    """The segment from knot i to the next, both excluded."""
    begin, end = known.places[i], known.places[i + 1]
    slope = (known.coordinates[i + 1] - known.coordinates[i]) / (end - begin)
    least = known.smallest
    leaving = _two_sided(known.at_most[i], max(1 - known.at_most[i], least))
    arriving = _two_sided(max(known.below[i + 1], least), 1 - known.below[i + 1])
    start = known.coordinates[i] - slope * begin
    inside = known.below[i + 1] - (known.at_most[i] if known.own[i] else known.below[i])
    if inside < least and known.discrete and known.new_nats > max(leaving, arriving):
        return Segment(slope, start, 0.0, known.new_nats)
    nat_slope = (arriving - leaving) / (end - begin)
    return Segment(slope, start, nat_slope, leaving - nat_slope * begin)


def _two_sided(at_most: float, at_least: float) -> float:
    return max(0.0, -math.log(2 * min(at_most, at_least)))
