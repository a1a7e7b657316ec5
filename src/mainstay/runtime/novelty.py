"""How strange a row is beside the reference rows: the out-of-distribution score. ADR 0011 says why it is made so.

Strangeness is counted in nats: minus the logarithm of how often ordinary rows are at least that odd. A row is looked at
from five sides, a batch of rows at a time:

*sum*    over the fields, how far out in its tail each value lies (as ECOD: Li et al. 2022, "ECOD: unsupervised outlier
         detection using empirical cumulative distribution functions")
*most*   the strangest single field: far out, never seen, or missing where nothing was ever missing
*shape*  Mahalanobis distance of the numbers, less what the row's texts explain of them
*near*   distance of the numbers to the nearest of some sampled rows (Sugiyama, Borgwardt 2013, "Rapid distance-based
         outlier detection via sampling")
*pairs*  pairs of values that are seen together less often than each of them alone would let expect

Each side is measured by its own distribution over reference rows; the inverse of its p-value is averaged over the sides
(Wilson 2019, "The harmonic mean p-value"), so that one loud side is enough. What comes out is compared with the same
number for reference rows, which makes a conformal p-value of it (Vovk, Gammerman, Shafer 2005; for outliers: Bates et
al. 2023, "Testing for outliers with conformal p-values").
"""

from __future__ import annotations

import math
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import msgspec
import numpy as np
from msgspec import Struct

from mainstay.errors import NOT_READ, Damaged

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from mainstay.runtime.tensors import Columns
    from mainstay.runtime.types import Row

    Floats: TypeAlias = NDArray[np.float64]
    Indices: TypeAlias = NDArray[np.intp]
    Bools: TypeAlias = NDArray[np.bool_]

PROFILE_FORMAT: Final = "mainstay-profile/1"
VIEWS: Final = ("sum", "most", "shape", "near", "pairs")
Level: TypeAlias = str | None

STRIDE: Final = 3.0  # keys of field j lie around 3 j: values less than 1 away,
EDGE: Final = 1.25  # what is missing beyond this, at
MISSING: Final = 1.5
FARTHEST: Final = 1e150  # values beyond are taken for this, so that nothing computed from them overflows
MOST_NATS: Final = 1e6  # of one field
MOST_Z: Final = 10.0  # of a coordinate, either way: what is farther out is seen by `sum` and `most`
NEAR_GROUPS: Final = 2  # groups of sampled rows; the distances to the nearest of each are averaged
CHUNK_ROWS: Final = 512  # scored at a time, which bounds memory
TIE: Final = 1e-9  # scores that differ by this share are equal: a row's last bits depend on the rows beside it
NOTABLE_NATS: Final = math.log(100)  # a field this strange is among the reasons
MOST_REASONS: Final = 5

_SIDES: Final = STRIDE * np.arange(len(VIEWS))
_CLIP: Final = "clip"  # indices are right by construction; numpy then skips its buffered check of them


class Packed(Struct, frozen=True):
    """An array: its values in C order, little-endian."""

    dtype: Literal["<f8", "<i8"]
    shape: tuple[int, ...]
    data: bytes


class TextField(Struct, frozen=True):
    """A text field and the values of it that are known one by one; all others share one more level."""

    name: str
    known: tuple[Level, ...]


class Profile(Struct, frozen=True, kw_only=True):
    """The file of a fitted profile, as MessagePack."""

    format: Literal["mainstay-profile/1"]
    numbers: tuple[str, ...]  # numbers, integers, booleans
    texts: tuple[TextField, ...]
    arrays: dict[str, Packed]  # by the names of `Views` and `Scale`


class Views(Struct, frozen=True, kw_only=True):
    """What the five views need.

    d numbers, c texts, S segments, L levels, p pairs; w coordinates: the numbers that take part in `shape` and `near`,
    then whether each of `indicators` is missing; r principal axes; m sampled rows.
    """

    location: Floats  # (d,) a value's place is (value - location) * inverse_scale
    inverse_scale: Floats  # (d,)
    boundaries: Floats  # (S,) where segments begin, as keys
    segments: Floats  # (4, S + 1) of a place: its coordinate is row 0 * place + row 1, its nats row 2 * place + row 3
    bins: Indices  # (S + 1,) the bin of a value in its field
    indicators: Indices  # (i,) numbers
    level_nats: Floats  # (L,) level ids run on from field to field
    level_bins: Indices  # (L,)
    level_means: Floats  # (L, w) what a level adds to the coordinates
    centre: Floats  # (w,)
    axes: Floats  # (w, r)
    axis_weights: Floats  # (r,)
    rest_weight: Floats  # (1,) of the squared distance from the centre along all axes, kept or not
    sampled: Floats  # (w, m) times -2
    sampled_squares: Floats  # (m,) squared lengths
    pair_fields: Indices  # (2, p) numbers first, then texts
    pair_widths: Indices  # (p,) bins of the second field
    pair_starts: Indices  # (p,) of the pair's table in `pair_nats`
    pair_nats: Floats  # all tables, by rows, end to end


class Scale(Struct, frozen=True, kw_only=True):
    """What turns five views into one score, and a score into a p-value."""

    middle: Floats  # (5,) of each view
    inverse_spread: Floats  # (5,)
    knots: Floats  # (k,) keys of views, ascending
    knot_nats: Floats  # (k,)
    scores: Floats  # (n,) of the reference rows, ascending


class Novelty:
    """The score of a version. Belongs to one thread at a time."""

    def __init__(
        self,
        read: Callable[[Sequence[Row]], tuple[Floats, Indices]],
        columns: Callable[[Columns, slice], tuple[Floats, Indices]],
        names: Sequence[str],
        views: Views,
        scale: Scale,
    ) -> None:
        self._read = read
        self._columns = columns
        self._names = tuple(names)
        self._viewer = Viewer(views)
        self._scale = scale

    @classmethod
    def load(cls, content: bytes, fields: Sequence[str]) -> Novelty:
        """From a profile's file; `fields` names the values of a row. Raises Damaged."""
        try:
            profile = msgspec.msgpack.decode(content, type=Profile)
        except NOT_READ as error:
            raise Damaged(f"expected a {PROFILE_FORMAT} document, found: {error}") from None
        names = [*profile.numbers, *(text.name for text in profile.texts)]
        absent = sorted(set(names) - set(fields))
        if absent:
            raise Damaged(f"the profile is of fields that the input does not have: {', '.join(absent)}")
        views, scale = _unpack(profile)
        places = {name: place for place, name in enumerate(fields)}
        numbers = number_reader([places[name] for name in profile.numbers], len(fields))
        texts = text_reader([places[text.name] for text in profile.texts], [text.known for text in profile.texts])
        columns = column_reader(profile.numbers, profile.texts)
        return cls(lambda rows: (numbers(rows), texts(rows)), columns, names, views, scale)

    @property
    def calibration_rows(self) -> int:
        """How many rows the p-values are counted among."""
        return len(self._scale.scores)

    def p_values(self, rows: Sequence[Row]) -> list[float]:
        """For each row, the share of reference rows, itself counted as one, that are at least as strange.

        Above 0, at most 1. Of rows like the reference rows, at most a share `a` gets a value of `a` or less.
        """
        return self._counted(self._scores(rows))

    def p_values_of_columns(self, columns: Columns) -> list[float]:
        """The same for rows that are given as columns. Raises TypeError where a column is of another kind."""
        if not self._names:
            return []
        count = len(columns[self._names[0]])
        spans = [slice(start, start + CHUNK_ROWS) for start in range(0, count, CHUNK_ROWS)]
        parts = [self._scores_of(*self._columns(columns, span)) for span in spans]
        return self._counted(np.concatenate(parts) if parts else np.empty(0))

    def _counted(self, scores: Floats) -> list[float]:
        reference = self._scale.scores
        below = reference.searchsorted(scores * (1 - TIE))
        counted: list[float] = ((len(reference) + 1 - below) / (len(reference) + 1)).tolist()
        return counted

    def _scores_of(self, numbers: Floats, levels: Indices) -> Floats:
        return scores_of(view_nats(self._scale, self._viewer.views(numbers, levels)))

    def scores(self, rows: Sequence[Row]) -> list[float]:
        """For each row a number that orders rows by strangeness, also those beyond every reference row."""
        found: list[float] = self._scores(rows).tolist()
        return found

    def _scores(self, rows: Sequence[Row]) -> Floats:
        if len(rows) > CHUNK_ROWS:
            chunks = (rows[start : start + CHUNK_ROWS] for start in range(0, len(rows), CHUNK_ROWS))
            return np.concatenate([self._scores(chunk) for chunk in chunks])
        if not rows:
            return np.empty(0)
        return self._scores_of(*self._read(rows))

    def explain(self, row: Row) -> list[tuple[str, float]]:
        """Why the row is strange, in nats: its strangest fields, and `joint` when it is their combination.

        The strangest first; a field is named when at most one ordinary value in a hundred is as strange. Never empty.
        """
        numbers, texts = self._read([row])
        by_field = self._viewer.field_nats(numbers, texts)[0].tolist()
        reasons = [(name, nats) for name, nats in zip(self._names, by_field, strict=True) if nats >= NOTABLE_NATS]
        by_view = view_nats(self._scale, self._viewer.views(numbers, texts))[0].tolist()
        joint = max(by_view[2:])
        if not reasons or joint >= NOTABLE_NATS:
            reasons.append(("joint", joint))
        return sorted(reasons, key=itemgetter(1), reverse=True)[:MOST_REASONS]


class Viewer:
    """The five views of encoded rows: numbers (n, d) with NaN where missing, and level ids (n, c)."""

    def __init__(self, views: Views) -> None:
        self._of = views
        self._offsets = STRIDE * np.arange(len(views.location))
        self._missing_keys = self._offsets + MISSING
        self._slopes, self._starts, self._nat_slopes, self._nat_starts = views.segments
        self._used = len(views.centre) - len(views.indicators)  # numbers among the coordinates
        self._by_groups = (-1, NEAR_GROUPS, len(views.sampled_squares) // NEAR_GROUPS)

    def views(self, numbers: Floats, levels: Indices) -> Floats:
        """(n, 5)"""
        of = self._of
        segments, places, missing = self._place(numbers)
        nats = self._nats(segments, places, levels)
        seen = np.zeros((len(numbers), len(VIEWS)))
        nats.sum(1, out=seen[:, 0])
        nats.max(1, out=seen[:, 1])
        if len(of.centre):
            coordinates = self._coordinates(segments, places, missing)
            self._shape(coordinates, levels, seen[:, 2])
            self._near(coordinates, seen[:, 3])
        if len(of.pair_widths):
            bins = of.bins.take(segments, mode=_CLIP)
            if levels.shape[1]:
                bins = np.concatenate([bins, of.level_bins.take(levels, mode=_CLIP)], 1)
            cells = bins.take(of.pair_fields[0], 1, mode=_CLIP)
            cells *= of.pair_widths
            cells += of.pair_starts
            cells += bins.take(of.pair_fields[1], 1, mode=_CLIP)
            of.pair_nats.take(cells, mode=_CLIP).sum(1, out=seen[:, 4])
        return seen

    def field_nats(self, numbers: Floats, levels: Indices) -> Floats:
        """(n, d + c) how strange each value is for its field."""
        segments, places, _ = self._place(numbers)
        return self._nats(segments, places, levels)

    def coordinates(self, numbers: Floats) -> Floats:
        """(n, w) the numbers on the scale of `shape` and `near`, and what is missing."""
        return self._coordinates(*self._place(numbers))

    def bins(self, numbers: Floats, levels: Indices) -> Indices:
        """(n, d + c) the bin of each value in its field."""
        segments, _, _ = self._place(numbers)
        found = [self._of.bins.take(segments, mode=_CLIP), self._of.level_bins.take(levels, mode=_CLIP)]
        return np.concatenate(found, 1)

    def _place(self, numbers: Floats) -> tuple[Indices, Floats, Bools | None]:
        """Segments and places of the numbers, and which of them are missing, if any is."""
        values = np.minimum(numbers, FARTHEST)
        np.maximum(values, -FARTHEST, out=values)
        values -= self._of.location
        values *= self._of.inverse_scale
        keys = keys_of(values)
        keys += self._offsets
        missing = np.isnan(values)
        if missing.any():
            np.copyto(keys, self._missing_keys, where=missing)
            values[missing] = 0
            return self._of.boundaries.searchsorted(keys, "right"), values, missing
        return self._of.boundaries.searchsorted(keys, "right"), values, None

    def _nats(self, segments: Indices, places: Floats, levels: Indices) -> Floats:
        nats: Floats = self._nat_slopes.take(segments, mode=_CLIP)
        nats *= places
        nats += self._nat_starts.take(segments, mode=_CLIP)
        np.minimum(nats, MOST_NATS, out=nats)
        if levels.shape[1]:
            return np.concatenate([nats, self._of.level_nats.take(levels, mode=_CLIP)], 1)
        return nats

    def _coordinates(self, segments: Indices, places: Floats, missing: Bools | None) -> Floats:
        if self._used < segments.shape[1]:
            segments, places = segments[:, : self._used], places[:, : self._used]
        found: Floats = self._slopes.take(segments, mode=_CLIP)
        found *= places
        found += self._starts.take(segments, mode=_CLIP)
        np.minimum(found, MOST_Z, out=found)
        np.maximum(found, -MOST_Z, out=found)
        indicators = self._of.indicators
        if not len(indicators):
            return found
        absent = np.zeros((len(found), len(indicators))) if missing is None else missing.take(indicators, 1, mode=_CLIP)
        return np.concatenate([found, absent], 1)

    def _shape(self, coordinates: Floats, levels: Indices, out: Floats) -> None:
        of = self._of
        centred = coordinates - of.centre
        if levels.shape[1]:
            centred -= of.level_means.take(levels, 0, mode=_CLIP).sum(1)
        along = centred @ of.axes
        along *= along
        along *= of.axis_weights
        np.add.reduce(along, 1, out=out)
        if of.rest_weight[0]:
            out += of.rest_weight[0] * np.add.reduce(centred * centred, 1)

    def _near(self, coordinates: Floats, out: Floats) -> None:
        distances = coordinates @ self._of.sampled
        distances += self._of.sampled_squares
        nearest = distances.reshape(self._by_groups).min(2)
        nearest.mean(1, out=out)
        out += np.add.reduce(coordinates * coordinates, 1)


def keys_of(places: Floats) -> Floats:
    """Places in order, but between -1 and 1. NaN stays NaN."""
    keys: Floats = places / (np.abs(places) + 1)
    return keys


def view_nats(scale: Scale, views: Floats) -> Floats:
    """(n, 5) views on the scale that they share."""
    keys = keys_of((views - scale.middle) * scale.inverse_spread)
    keys += _SIDES
    nats: Floats = np.interp(keys, scale.knots, scale.knot_nats)
    return nats


def scores_of(nats: Floats) -> Floats:
    """(n,) of (n, 5) nats: the sum of the inverse p-values. Finite, since nats end with the knots."""
    scores: Floats = np.exp(nats).sum(1)
    return scores


def number_reader(places: Sequence[int], width: int) -> Callable[[Sequence[Row]], Floats]:
    """A function from rows of `width` values to those at `places`, (n, d): None is NaN, what is no number infinite."""
    if not places:
        return lambda rows: np.empty((len(rows), 0))
    pick: Callable[[Row], Row]
    if list(places) == list(range(width)):
        pick = tuple
    elif len(places) == 1:
        only = places[0]
        pick = lambda row: (row[only],)  # noqa: E731 - three ways to say one thing
    else:
        pick = itemgetter(*places)

    def read(rows: Sequence[Row]) -> Floats:
        picked = rows if pick is tuple else [pick(row) for row in rows]
        try:
            return np.array(picked, np.float64)
        except (TypeError, ValueError, OverflowError):  # text, or an integer too large for a float
            return np.array([[_number(value) for value in row] for row in picked], np.float64)

    return read


def _number(value: Any) -> float:
    if value is None:
        return math.nan
    if not isinstance(value, int | float):
        return math.inf
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def text_reader(places: Sequence[int], known: Sequence[Sequence[Level]]) -> Callable[[Sequence[Row]], Indices]:
    """A function from rows to level ids, (n, c), of the values at `places`; ids run on from field to field."""
    if not places:
        return lambda rows: np.empty((len(rows), 0), np.intp)
    finders = []
    first = 0
    for place, levels in zip(places, known, strict=True):
        ids = {level: first + rank for rank, level in enumerate(levels)}
        first += len(levels) + 1
        finders.append((place, ids.get, first - 1))

    def read(rows: Sequence[Row]) -> Indices:
        try:
            found = [[find(row[place], other) for row in rows] for place, find, other in finders]
        except TypeError:  # a value that cannot be looked up
            found = [[_level(row[place], find, other) for row in rows] for place, find, other in finders]
        return np.array(found, np.intp).T

    return read


def column_reader(
    numbers: Sequence[str], texts: Sequence[TextField]
) -> Callable[[Columns, slice], tuple[Floats, Indices]]:
    """A function from columns, and which rows of them, to what `number_reader` and `text_reader` give together."""
    finders = []
    first = 0
    for text in texts:
        ids = {level: first + rank for rank, level in enumerate(text.known)}
        first += len(text.known) + 1
        finders.append((text.name, ids.get, first - 1))

    def read(columns: Columns, span: slice) -> tuple[Floats, Indices]:
        count = len(range(*span.indices(len(columns[numbers[0] if numbers else texts[0].name]))))
        found, levels = np.empty((count, len(numbers))), np.empty((count, len(texts)), np.intp)
        for place, name in enumerate(numbers):
            values = columns[name]
            if isinstance(values, list):
                raise TypeError(f"expected numbers of {name}, found texts")
            found[:, place] = values[span]
        for place, (name, find, other) in enumerate(finders):
            given = columns[name]
            if not isinstance(given, list):
                raise TypeError(f"expected texts of {name}, found numbers")
            levels[:, place] = [find(value, other) for value in given[span]]
        return found, levels

    return read


def _level(value: Any, find: Callable[[Level, int], int], other: int) -> int:
    return find(value, other) if value is None or isinstance(value, str) else other


def encode_profile(
    numbers: Sequence[str], texts: Sequence[str], known: Sequence[Sequence[Level]], views: Views, scale: Scale
) -> bytes:
    """The file of a profile; the same parts make the same bytes."""
    arrays = {**msgspec.structs.asdict(views), **msgspec.structs.asdict(scale)}
    profile = Profile(
        format=PROFILE_FORMAT,
        numbers=tuple(numbers),
        texts=tuple(TextField(name, tuple(levels)) for name, levels in zip(texts, known, strict=True)),
        arrays={name: _pack(array) for name, array in arrays.items()},
    )
    return msgspec.msgpack.encode(profile)


def _pack(array: NDArray[Any]) -> Packed:
    dtype: Literal["<f8", "<i8"] = "<f8" if array.dtype.kind == "f" else "<i8"
    return Packed(dtype, array.shape, np.ascontiguousarray(array, np.dtype(dtype)).tobytes())


# Every array's dimensions by letter; the same letter is the same length throughout, and T is S + 1.
_SHAPES: Final = {
    "location": "d",
    "inverse_scale": "d",
    "boundaries": "S",
    "segments": "4T",
    "bins": "T",
    "indicators": "i",
    "level_nats": "L",
    "level_bins": "L",
    "level_means": "Lw",
    "centre": "w",
    "axes": "wr",
    "axis_weights": "r",
    "rest_weight": "1",
    "sampled": "wm",
    "sampled_squares": "m",
    "pair_fields": "2p",
    "pair_widths": "p",
    "pair_starts": "p",
    "pair_nats": "P",
    "middle": "5",
    "inverse_spread": "5",
    "knots": "k",
    "knot_nats": "k",
    "scores": "n",
}
_WHOLE: Final = frozenset({"bins", "indicators", "level_bins", "pair_fields", "pair_widths", "pair_starts"})


def _unpack(profile: Profile) -> tuple[Views, Scale]:
    """The arrays, each of its type, and of shapes that fit each other. Raises Damaged."""
    if profile.arrays.keys() != _SHAPES.keys():
        wrong = sorted(profile.arrays.keys() ^ _SHAPES.keys())
        raise Damaged(f"expected the arrays of {PROFILE_FORMAT}, found too many or too few: {', '.join(wrong)}")
    levels = sum(len(text.known) + 1 for text in profile.texts)
    sizes = {**{digit: int(digit) for digit in "1245"}, "d": len(profile.numbers), "L": levels}
    arrays: dict[str, NDArray[Any]] = {}
    for name, letters in _SHAPES.items():
        array = arrays[name] = _array(name, profile.arrays[name])
        expected = tuple(sizes.setdefault(letter, size) for letter, size in zip(letters, array.shape, strict=False))
        if len(letters) != array.ndim or expected != array.shape:
            raise Damaged(f"profile: expected the array {name} in shape {expected}, found {array.shape}")
    used = sizes["w"] - sizes["i"]
    groups_fit = sizes["m"] % NEAR_GROUPS == 0 and (sizes["m"] > 0 or sizes["w"] == 0)
    if (
        sizes["T"] != sizes["S"] + 1
        or not 0 <= used <= sizes["d"]
        or not groups_fit
        or not sizes["n"] * sizes["k"]
        or not sizes["d"] + sizes["L"]
        or (sizes["p"] and not sizes["P"])
    ):
        raise Damaged(f"profile: expected arrays of sizes that fit each other, found {sizes}")
    views = Views(**{name: arrays[name] for name in Views.__struct_fields__})
    return views, Scale(**{name: arrays[name] for name in Scale.__struct_fields__})


def _array(name: str, packed: Packed) -> NDArray[Any]:
    wanted = "<i8" if name in _WHOLE else "<f8"
    size = math.prod(packed.shape)
    if packed.dtype != wanted or any(length < 0 for length in packed.shape) or len(packed.data) != 8 * size:
        found = f"{packed.dtype} in shape {packed.shape} and {len(packed.data)} bytes"
        raise Damaged(
            f"profile: expected the array {name} as {wanted} with as many bytes as its shape says, found {found}"
        )
    array = np.frombuffer(packed.data, packed.dtype).reshape(packed.shape)
    if wanted == "<f8" and not np.isfinite(array).all():
        raise Damaged(f"profile: expected finite numbers in the array {name}, found others")
    return array.astype(np.intp if wanted == "<i8" else np.float64)
