from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mainstay.errors import Misuse
from mainstay.monitoring.binning import Column, Values
from mainstay.monitoring.drift import Comparison, Sample, compare, judge
from mainstay.monitoring.histograms import Histogram, Moments
from monitoring.drift_counts import (
    CATEGORY,
    EDGES,
    NUMBER,
    compared,
    counted,
    independent,
    number_shares,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

# --- what holds whatever the counts are ---------------------------------------------------------------------------


@st.composite
def samples(draw: st.DrawFn) -> NDArray[np.int64]:
    units = draw(st.integers(1, 12))
    return draw(arrays.arrays(np.int64, (units, NUMBER.bins.size), elements=st.integers(0, 50)))


@settings(max_examples=30)
@given(samples(), samples(), st.booleans())
def test_p_values_and_effects_lie_where_they_belong(
    one: NDArray[np.int64], two: NDArray[np.int64], ordered: bool
) -> None:
    column = NUMBER if ordered else Column("c", Values(tuple(map(str, range(NUMBER.bins.size - 2)))))
    found = compare(column, Sample(one), Sample(two))
    if min(one.sum(), two.sum()) < 50:
        assert found.p_value is None
        assert found.distance is None
        return
    assert found.p_value is not None
    assert found.distance is not None
    assert 0 <= found.p_value <= 1
    assert 0 <= found.distance.low <= found.distance.value <= found.distance.high <= 1
    assert msgspec.json.decode(msgspec.json.encode(found), type=Comparison) == found


@settings(max_examples=30)
@given(samples())
def test_a_window_that_is_the_reference_is_no_drift(counts: NDArray[np.int64]) -> None:
    found = compare(NUMBER, Sample(counts), Sample(counts))
    (verdict,) = judge([found], level=0.5, smallest=0.01)
    assert verdict.verdict in {"steady", "open", "unknown"}
    assert found.p_value in {None, 1.0}
    assert found.distance is None or found.distance.value == 0
    assert found.bins == ()


@settings(max_examples=30)
@given(samples(), st.permutations(range(6)))
def test_the_order_of_categories_does_not_matter(counts: NDArray[np.int64], order: list[int]) -> None:
    column = Column("c", Values(tuple("abcdef")))
    one, two = counts[:, :8], counts[:, 8:16]
    moved = [*order, 6, 7]
    first = compare(column, Sample(one), Sample(two))
    second = compare(column, Sample(one[:, moved]), Sample(two[:, moved]))
    assert (first.p_value is None) == (second.p_value is None)
    if first.p_value is not None and second.p_value is not None:
        assert first.p_value == pytest.approx(second.p_value, rel=1e-6, abs=1e-12)
        assert first.distance is not None
        assert second.distance is not None
        assert first.distance.value == pytest.approx(second.distance.value, abs=1e-9)


def test_too_few_rows_are_unknown_and_in_no_family() -> None:
    random = np.random.default_rng(0)
    reference, window = independent(random, number_shares(), 24_000), independent(random, number_shares(2.0), 480)
    few = compare(NUMBER, reference, window, min_rows=500)
    surely = compare(NUMBER, reference, window)
    assert few.p_value is None
    assert [each.verdict for each in judge([few, surely], level=0.01, smallest=0.05)] == ["unknown", "drift"]


def test_counts_of_other_bins_are_refused() -> None:
    with pytest.raises(Misuse, match="expected counts of the 35 bins of x, found 4"):
        compare(NUMBER, Sample(np.ones((2, 35), np.int64)), Sample(np.ones((2, 4), np.int64)))
    with pytest.raises(Misuse, match="at least one histogram"):
        Sample.of([])


# --- effects ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1_000, 20_000])
@pytest.mark.parametrize("shift", [0.0, 0.1, 0.5])
def test_the_distance_is_right_on_average_and_its_interval_covers_it(rows: int, shift: float) -> None:
    random = np.random.default_rng(8)
    truth = float(np.abs(number_shares(shift) - number_shares()).sum()) / 2
    found = compared(
        lambda _: (independent(random, number_shares(), 20_000), independent(random, number_shares(shift), rows)), 60
    )
    distances = [each.distance for each in found if each.distance is not None]
    assert abs(np.mean([each.value for each in distances]) - truth) < 0.015 * np.sqrt(1_000 / rows)
    assert np.mean([each.low <= truth <= each.high for each in distances]) >= 0.95


def test_the_shift_of_the_mean_is_in_standard_deviations_with_an_interval() -> None:
    random = np.random.default_rng(9)
    covered = 0
    for _ in range(100):
        before, now = random.normal(5, 2, 4_800), random.normal(5.4, 2, 2_400)
        samples = [
            Sample(counted((values - 5) / 2).counts, Moments(len(values), values.mean(), values.var() * len(values)))
            for values in (before, now)
        ]
        shift = compare(NUMBER, *samples).shift
        assert shift is not None
        covered += shift.low <= 0.2 <= shift.high
    assert covered >= 90


def test_a_shift_of_what_never_varies_has_no_size() -> None:
    counts = np.zeros((1, 35), np.int64)
    counts[0, 3] = 100
    constant = Sample(counts, Moments(100, 1.0, 0.0))
    assert compare(NUMBER, constant, constant).shift is None


def test_the_bins_behind_a_distance_are_named() -> None:
    before = Histogram((50, 50, 0, 0, 0, 0, 0, 0, 0, 0))
    now = Histogram((100, 0, 0, 0, 0, 0, 0, 0, 0, 0))
    found = compare(CATEGORY, Sample.of([before]), Sample.of([now]))
    assert [(each.bin, each.reference_share, each.window_share, each.of_distance) for each in found.bins] == [
        ("a", 0.5, 1.0, 0.5),
        ("b", 0.5, 0.0, 0.5),
    ]
    assert found.noise_from == "rows"


def test_what_is_missing_counts_for_the_shape_and_not_for_the_shift() -> None:
    random = np.random.default_rng(10)
    shares = number_shares()
    gaps = np.append(shares[:-1] * 0.8, 0.2)
    found = compare(NUMBER, independent(random, shares, 50_000), independent(random, gaps, 10_000))
    assert found.p_shape is not None
    assert found.p_shift is not None
    assert found.p_shape < 1e-9
    assert found.p_shift > 1e-3
    assert found.bins[0].bin == "missing"


# --- verdicts -----------------------------------------------------------------------------------------------------


def test_a_drift_is_both_sure_and_large() -> None:
    random = np.random.default_rng(11)
    reference = independent(random, number_shares(), 240_000)
    windows = {
        "drift": independent(random, number_shares(0.3), 24_000),
        "minor": independent(random, number_shares(0.05), 240_000),
        "steady": independent(random, number_shares(), 240_000),
        "open": independent(random, number_shares(), 480),
        "unknown": independent(random, number_shares(), 24),
    }
    found = judge([compare(NUMBER, reference, window) for window in windows.values()], level=0.01, smallest=0.05)
    assert [each.verdict for each in found] == list(windows)
    assert [(each.significant, each.material) for each in found[:2]] == [(True, True), (True, False)]


def test_the_edges_of_the_known_number_are_its_bins() -> None:
    assert len(EDGES) + 2 == NUMBER.bins.size == len(number_shares())
