"""Fitting the out-of-distribution score on reference rows. What it measures: runtime/novelty.py.

From SPLIT_ROWS on, half of the rows shape the score and the other half calibrate it: the p-values are then valid
whatever the score is (split conformal prediction: Papadopoulos et al. 2002, "Inductive confidence machines for
regression"). With fewer, every row does both: it is scored by a fit that has not seen it, fold by fold, and what serves
is fitted on all rows (Vovk 2015, "Cross-conformal predictors"). That is valid up to the difference between a fit on
nine tenths of the rows and one on all of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
from msgspec import structs

from mainstay.catalog.marginals import LEVEL_CHARACTERS, fit_number, fit_text
from mainstay.errors import Misuse
from mainstay.runtime.novelty import (
    CHUNK_ROWS,
    FARTHEST,
    NEAR_GROUPS,
    STRIDE,
    VIEWS,
    Scale,
    Viewer,
    Views,
    encode_profile,
    keys_of,
    number_reader,
    scores_of,
    view_nats,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from mainstay.catalog.marginals import Number, Text
    from mainstay.runtime.novelty import Level
    from mainstay.runtime.types import Feature, Row

    Floats: TypeAlias = NDArray[np.float64]
    Indices: TypeAlias = NDArray[np.intp]

FOLDS: Final = 10
FEWEST_ROWS: Final = 20
SPLIT_ROWS: Final = 2_000
MOST_ROWS: Final = 20_000  # more are sampled
MOST_COORDINATES: Final = 256  # numbers that take part in `shape` and `near`, the first ones
MOST_AXES: Final = 64
SAMPLED_ROWS: Final = 512
MOST_LEVELS: Final = 4_096  # of all text fields together
MOST_PAIR_FIELDS: Final = 64  # fields looked at for pairs, texts first
MOST_PAIRS: Final = 48
PAIR_DEVIATIONS: Final = 3.0  # of chance, that a pair's dependence must exceed
SWEEPS: Final = 6  # of backfitting
PRIOR_ROWS: Final = 1.0  # that a level's mean is drawn to the common one by
RIDGE: Final = 1e-3  # of the mean variance, added to every direction
SCALE_KNOTS: Final = 64  # of each view
BEYOND_NATS: Final = 30.0  # that a view can add beyond the strangest reference row


def fewest_rows(false_alarms: float) -> int:
    """How many reference rows a profile for this share of false alarms needs: with fewer no p-value is that small."""
    return max(FEWEST_ROWS, math.ceil(round(1 / false_alarms, 6)) - 1)


def fit_profile(
    rows: Sequence[Row],
    fields: Sequence[str],
    features: Sequence[Feature],
    *,
    false_alarms: float = 0.01,
    seed: int = 0,
) -> bytes:
    """The profile's file. `fields` names the values of a row, `features` those that are scored.

    The same rows make the same bytes (under the same numpy on the same kind of processor). Values of text fields that
    two rows share stand in it. Raises Misuse when there are too few rows for `false_alarms`, or nothing to score.
    """
    needed = fewest_rows(false_alarms)
    if len(rows) < needed:
        raise Misuse(
            f"expected at least {needed} reference rows for false alarms of {false_alarms:g}, found {len(rows)}",
            hint="Add reference rows, or declare a larger reference.false_alarms.",
        )
    if not features:
        raise Misuse("expected a number, integer, boolean or text field to score, found none among the inputs")
    random = np.random.default_rng(seed)
    order = random.permutation(len(rows))[:MOST_ROWS]
    table = _read([rows[i] for i in order.tolist()], fields, features)
    shaping = np.arange(len(order)) < (len(order) // 2 if len(order) >= SPLIT_ROWS else len(order))
    fitted, scale = _cross_fit(table.where(shaping), seed)
    if not shaping.all():
        nats = view_nats(scale, fitted.views_of(table.where(~shaping)))
        scale = structs.replace(scale, scores=np.sort(scores_of(nats)))
    known = [[table.levels[j][code] for code in text.codes] for j, text in enumerate(fitted.texts)]
    numbers = [feature.name for feature in features if feature.kind != "string"]
    texts = [feature.name for feature in features if feature.kind == "string"]
    return encode_profile(numbers, texts, known, fitted.views, scale)


def _cross_fit(table: _Table, seed: int) -> tuple[_Fitted, Scale]:
    """Fitted on all rows; with the scale and the scores of the rows by fits that have not seen them.

    Which pairs are looked at is decided once: were it decided fold by fold, scores of different folds, and of the
    final fit, would not be of the same thing.
    """
    size = len(table.numbers)
    fold = np.arange(size) % FOLDS  # the rows are in random order
    fitted = _fit(table, size, seed)
    views, scores = np.empty((size, len(VIEWS))), np.empty(size)
    for k in range(FOLDS):
        views[fold == k] = _fit(table.where(fold != k), size, seed, fitted.pairs).views_of(table.where(fold == k))
    for k in range(FOLDS):
        scores[fold == k] = scores_of(view_nats(_fit_scale(views[fold != k]), views[fold == k]))
    return fitted, structs.replace(_fit_scale(views), scores=np.sort(scores))


@dataclass(frozen=True, slots=True)
class _Table:
    """Reference rows: numbers (n, d) with NaN where missing, texts (n, c) as places in `levels`."""

    numbers: Floats
    codes: Indices
    levels: list[list[Level]]  # of each text field, in the order of first sight
    nameable: list[NDArray[np.bool_]]  # whether the profile may hold that value

    def where(self, chosen: NDArray[np.bool_]) -> _Table:
        return _Table(self.numbers[chosen], self.codes[chosen], self.levels, self.nameable)


@dataclass(frozen=True, slots=True)
class _Fitted:
    views: Views
    texts: list[Text]

    @property
    def pairs(self) -> Indices:
        """(p, 2)"""
        return self.views.pair_fields.T

    def views_of(self, table: _Table) -> Floats:
        """(n, 5)"""
        ids = _level_ids(table, self.texts)
        viewer = Viewer(self.views)
        parts = [slice(start, start + CHUNK_ROWS) for start in range(0, len(ids), CHUNK_ROWS)]
        return np.concatenate([viewer.views(table.numbers[part], ids[part]) for part in parts])


def _read(rows: Sequence[Row], fields: Sequence[str], features: Sequence[Feature]) -> _Table:
    places = {name: place for place, name in enumerate(fields)}
    numbers = [places[feature.name] for feature in features if feature.kind != "string"]
    texts = [places[feature.name] for feature in features if feature.kind == "string"]
    codes = np.empty((len(rows), len(texts)), np.intp)
    levels: list[list[Level]] = []
    for j, place in enumerate(texts):
        ids: dict[Level, int] = {}
        found = (row[place] if isinstance(row[place], str) else None for row in rows)
        codes[:, j] = [ids.setdefault(value, len(ids)) for value in found]
        levels.append(list(ids))
    nameable = [np.array([_nameable(level) for level in known], np.bool_) for known in levels]
    values = number_reader(numbers, len(fields))(rows)
    return _Table(np.clip(values, -FARTHEST, FARTHEST), codes, levels, nameable)


def _nameable(level: Level) -> bool:
    """Short, and without the halves of surrogate pairs, which no UTF-8 has."""
    return level is None or (len(level) <= LEVEL_CHARACTERS and not any("\ud800" <= char <= "\udfff" for char in level))


def _level_ids(table: _Table, texts: list[Text]) -> Indices:
    """The codes as the level ids of a fit."""
    ids = np.empty(table.codes.shape, np.intp)
    first = 0
    for j, text in enumerate(texts):
        lookup = np.full(len(table.levels[j]), first + len(text.codes), np.intp)
        lookup[text.codes] = first + np.arange(len(text.codes))
        ids[:, j] = lookup[table.codes[:, j]]
        first += len(text.codes) + 1
    return ids


def _fit(table: _Table, nominal: int, seed: int, pairs: Indices | None = None) -> _Fitted:
    """Everything but the scale; `nominal` is explained in marginals.py. `pairs` (p, 2) are chosen when not given."""
    numbers = [fit_number(column, j, nominal) for j, column in enumerate(table.numbers.T)]
    most_levels = MOST_LEVELS // max(1, table.codes.shape[1])
    texts = [fit_text(column, table.nameable[j], nominal, most_levels) for j, column in enumerate(table.codes.T)]
    views = _marginal_views(numbers, texts)
    ids = _level_ids(table, texts)
    viewer = Viewer(views)
    coordinates = viewer.coordinates(table.numbers)
    if coordinates.shape[1]:
        views = _with_coordinates(views, coordinates, ids, texts, seed)
    bins = viewer.bins(table.numbers, ids)
    widths = [max(found) + 1 for found in (*(each.bins for each in numbers), *(each.bins for each in texts))]
    if pairs is None:
        pairs = _choose_pairs(bins, widths, len(numbers))
    return _Fitted(_with_pairs(views, bins, widths, pairs, nominal), texts)


def _marginal_views(numbers: list[Number], texts: list[Text]) -> Views:
    """What the fields say one by one; nothing yet of several together."""
    used = min(len(numbers), MOST_COORDINATES)
    indicators = [j for j, number in enumerate(numbers[:used]) if number.sometimes_missing]
    levels = sum(len(text.nats) for text in texts)
    width = used + len(indicators)
    segments = [(0.0, 0.0, 0.0, 0.0), *(segment for number in numbers for segment in number.segments)]
    return Views(
        location=np.array([number.location for number in numbers], np.float64),
        inverse_scale=np.array([number.inverse_scale for number in numbers], np.float64),
        boundaries=np.array([boundary for number in numbers for boundary in number.boundaries], np.float64),
        segments=np.ascontiguousarray(np.array(segments, np.float64).T),
        bins=np.array([0, *(number_bin for number in numbers for number_bin in number.bins)], np.intp),
        indicators=np.array(indicators, np.intp),
        level_nats=np.array([nats for text in texts for nats in text.nats], np.float64),
        level_bins=np.array([level_bin for text in texts for level_bin in text.bins], np.intp),
        level_means=np.zeros((levels, width)),
        centre=np.zeros(width),
        axes=np.zeros((width, 0)),
        axis_weights=np.zeros(0),
        rest_weight=np.zeros(1),
        sampled=np.zeros((width, NEAR_GROUPS)),
        sampled_squares=np.zeros(NEAR_GROUPS),
        pair_fields=np.zeros((2, 0), np.intp),
        pair_widths=np.zeros(0, np.intp),
        pair_starts=np.zeros(0, np.intp),
        pair_nats=np.zeros(0),
    )


def _with_coordinates(views: Views, coordinates: Floats, ids: Indices, texts: list[Text], seed: int) -> Views:
    """With `shape` and `near`. Coordinates are (n, w)."""
    centre = coordinates.mean(0)
    means, residual = _level_means(coordinates - centre, ids, texts)
    axes, axis_weights, rest_weight = _principal(residual)
    count = len(coordinates)
    chosen = np.random.default_rng(seed).permutation(count)[: min(count, SAMPLED_ROWS) // NEAR_GROUPS * NEAR_GROUPS]
    sampled = coordinates[chosen]
    return structs.replace(
        views,
        level_means=means,
        centre=centre,
        axes=axes,
        axis_weights=axis_weights,
        rest_weight=np.array([rest_weight]),
        sampled=np.ascontiguousarray(-2 * sampled.T),
        sampled_squares=(sampled**2).sum(1),
    )


def _level_means(centred: Floats, ids: Indices, texts: list[Text]) -> tuple[Floats, Floats]:
    """What each level adds to the coordinates (L, w), and what is left of them: ridge regression by backfitting."""
    sizes = [len(text.nats) for text in texts]
    means = np.zeros((sum(sizes), centred.shape[1]))
    residual = centred.copy()
    rows_with = np.bincount(ids.ravel(), minlength=len(means)) + PRIOR_ROWS
    ends = np.cumsum(sizes)
    for _ in range(SWEEPS if len(texts) > 1 else 1):
        for j, (start, end) in enumerate(zip(ends - sizes, ends, strict=True)):
            mine = ids[:, j]
            residual += means[mine]
            totals = np.array([np.bincount(mine - start, column, end - start) for column in residual.T]).T
            means[start:end] = totals / rows_with[start:end, None]
            means[end - 1] = 0  # rare values have nothing in common
            residual -= means[mine]
    return means, residual


def _principal(residual: Floats) -> tuple[Floats, Floats, float]:
    """Axes, the weight of each, and that of all other directions, for the squared Mahalanobis distance.

    The covariance is shrunk (Ledoit, Wolf 2004, "A well-conditioned estimator for large-dimensional covariance
    matrices"). Directions beyond the first MOST_AXES share their mean variance (Tipping, Bishop 1999, "Probabilistic
    principal component analysis").
    """
    count, width = residual.shape
    covariance = residual.T @ residual / count
    level = float(np.trace(covariance)) / width
    squares = residual**2
    noise = float(((squares.T @ squares) / count - covariance**2).sum()) / count
    distance = float(((covariance - level * np.eye(width)) ** 2).sum())
    shrinkage = min(1.0, noise / distance) if distance > 0 else 1.0
    floor = shrinkage * level + RIDGE * max(level, RIDGE)
    variances, axes = np.linalg.eigh((1 - shrinkage) * covariance)
    variances = np.maximum(variances[::-1], 0) + floor
    kept = min(width, MOST_AXES)
    rest = 1 / float(variances[kept:].mean()) if kept < width else 0.0
    return np.ascontiguousarray(axes[:, ::-1][:, :kept]), 1 / variances[:kept] - rest, rest


def _choose_pairs(bins: Indices, widths: list[int], numbers: int) -> Indices:
    """Of the pairs that depend on each other beyond chance, those that do most, by the G-test: (p, 2)."""
    fields = [*range(numbers, len(widths)), *range(numbers)][:MOST_PAIR_FIELDS]
    found = []
    for first, second in combinations(sorted(fields), 2):
        observed, expected = _tables(bins, widths, first, second)
        seen = observed > 0
        dependence = 2 * float((observed[seen] * np.log(observed[seen] / expected[seen])).sum())
        freedom = (widths[first] - 1) * (widths[second] - 1)
        excess = dependence - freedom - PAIR_DEVIATIONS * math.sqrt(2 * freedom)
        if excess > 0:
            found.append((-excess, first, second))
    chosen = [(first, second) for _, first, second in sorted(found)[:MOST_PAIRS]]
    return np.array(chosen, np.intp).reshape(-1, 2)


def _tables(bins: Indices, widths: list[int], first: int, second: int) -> tuple[Floats, Floats]:
    """How many rows have each two bins, and how many would if the fields had nothing to do with each other."""
    shape = widths[first], widths[second]
    cells = np.bincount(bins[:, first] * shape[1] + bins[:, second], minlength=shape[0] * shape[1])
    observed = cells.reshape(shape).astype(np.float64)
    return observed, np.outer(observed.sum(1), observed.sum(0)) / len(bins)


def _with_pairs(views: Views, bins: Indices, widths: list[int], pairs: Indices, nominal: int) -> Views:
    """With the tables of `pairs`: the logarithm of expected over observed rows, half a row added to both."""
    weight = nominal / len(bins)
    tables = []
    for first, second in pairs.tolist():
        observed, expected = _tables(bins, widths, first, second)
        tables.append(np.log((weight * expected + 0.5) / (weight * observed + 0.5)).ravel())
    return structs.replace(
        views,
        pair_fields=np.ascontiguousarray(pairs.T),
        pair_widths=np.array([widths[second] for second in pairs[:, 1].tolist()], np.intp),
        pair_starts=np.cumsum([0, *map(len, tables)])[:-1].astype(np.intp),
        pair_nats=np.concatenate([np.zeros(0), *tables]),
    )


def _fit_scale(views: Floats) -> Scale:
    """From the views (n, 5) of reference rows, each by a fit that has not seen the row. Its scores are left empty."""
    middle = np.median(views, 0)
    outer = np.quantile(views, 0.99, axis=0) - middle
    inverse_spread = 1 / np.maximum(outer, 1e-3 * np.maximum(1, np.abs(middle)))
    knots: list[float] = []
    nats: list[float] = []
    for j, keys in enumerate(keys_of((views - middle) * inverse_spread).T):
        values, counts = np.unique(keys, return_counts=True)
        at_least = len(keys) - np.cumsum(counts) + counts
        own = -np.log(at_least / len(keys))
        places = np.searchsorted(own, np.linspace(0, own[-1], SCALE_KNOTS)).clip(0, len(own) - 1)
        chosen = np.unique(np.append(places, len(own) - 1))
        knots += [*(STRIDE * j + values[chosen]), STRIDE * j + 1]
        nats += [*own[chosen], own[-1] + BEYOND_NATS]
    return Scale(
        middle=middle,
        inverse_spread=inverse_spread,
        knots=np.maximum.accumulate(knots),
        knot_nats=np.array(nats),
        scores=np.zeros(0),
    )
