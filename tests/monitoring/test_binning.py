from __future__ import annotations

from itertools import pairwise

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.errors import Misuse
from mainstay.monitoring.binning import Column, Numbers, Values, make_bins, p_value_column
from mainstay.monitoring.histograms import count

NUMBERS = st.one_of(st.floats(allow_nan=True, allow_infinity=True), st.sampled_from([0.0, 1.0, -1.0]), st.none())


def bins_of(values: pl.Series) -> Numbers | Values:
    (column,) = make_bins(values.alias("x").to_frame())
    return column.bins


def counts_of(values: pl.Series, bins: Numbers | Values) -> list[int]:
    return list(count(values.alias("x").to_frame(), [Column("x", bins)])["x"].counts)


def test_numbers_are_cut_into_bins_of_equal_mass() -> None:
    values = pl.Series(np.random.default_rng(0).standard_normal(32_000))
    bins = bins_of(values)
    counts = counts_of(values, bins)
    assert len(counts) == 35  # 32, what lies below all, above all, and the missing
    assert counts[0] == counts[-2] == counts[-1] == 0
    assert set(counts[1:-2]) == {1_000}


def test_a_frequent_value_has_a_bin_of_its_own() -> None:
    random = np.random.default_rng(0)
    values = pl.Series(np.where(random.random(10_000) < 0.6, 0.0, random.exponential(size=10_000)))
    bins = bins_of(values)
    assert isinstance(bins, Numbers)
    assert bins.points == (0.0,)
    place = bins.labels().index("= 0")
    assert counts_of(values, bins)[place] == (values == 0).sum()


def test_a_point_is_found_again_among_narrower_floats() -> None:
    for point in (0.1, 0.7, -0.1, -0.7):
        values = pl.Series([point] * 500 + list(np.linspace(1, 2, 500)))
        bins = bins_of(values)
        place = bins.labels().index(f"= {point}")
        assert counts_of(values, bins)[place] == counts_of(values.cast(pl.Float32), bins)[place] == 500


def test_whole_numbers_with_few_values_have_a_bin_for_each() -> None:
    values = pl.Series([1, 2, 2, 3, 7, None])
    bins = bins_of(values)
    assert isinstance(bins, Numbers)
    assert bins.points == (1.0, 2.0, 3.0, 7.0)
    assert dict(zip(bins.labels(), counts_of(values, bins), strict=True)) == {
        "below 1": 0,
        "= 1": 1,
        "= 2": 2,
        "= 3": 1,
        "4 to 7": 0,
        "= 7": 1,
        "above 8": 0,
        "missing": 1,
    }


@given(st.lists(NUMBERS, min_size=1, max_size=200))
def test_edges_ascend_and_every_number_has_a_label(values: list[float | None]) -> None:
    bins = bins_of(pl.Series(values, dtype=pl.Float64))
    assert isinstance(bins, Numbers)
    assert all(low < high for low, high in pairwise(bins.edges))
    assert len(bins.labels()) == bins.size
    assert msgspec.json.decode(msgspec.json.encode(bins), type=Numbers | Values) == bins


@given(st.lists(st.integers(-(2**53), 2**53), min_size=1, max_size=200))
def test_whole_numbers_keep_to_themselves(values: list[int]) -> None:
    bins = bins_of(pl.Series(values, dtype=pl.Int64))
    counts = counts_of(pl.Series(values, dtype=pl.Int64), bins)
    assert isinstance(bins, Numbers)
    if len(bins.points) == len(set(values)):
        assert sorted(filter(None, counts)) == sorted(np.unique(values, return_counts=True)[1].tolist())


def test_texts_have_their_frequent_values_the_rest_and_what_is_missing() -> None:
    values = pl.Series(["b"] * 30 + ["a"] * 40 + [None] * 5)
    bins = bins_of(values)
    assert bins == Values(("a", "b"))
    assert counts_of(pl.Series(["a", "c", None, "b", "b"]), bins) == [1, 2, 1, 1]


def test_values_that_had_to_be_chosen_are_chosen_from_every_other_row() -> None:
    even = [f"v{i % 300}" for i in range(3_000)]
    odd = ["never chosen"] * 3_000
    bins = bins_of(pl.Series([value for pair in zip(even, odd, strict=True) for value in pair]))
    assert isinstance(bins, Values)
    assert bins.chosen_from_even_rows
    assert len(bins.values) == 64
    assert "never chosen" not in bins.values


def test_long_and_rare_texts_are_not_named() -> None:
    bins = bins_of(pl.Series(["x" * 300] * 100 + [f"id {i}" for i in range(100)]))
    assert isinstance(bins, Values)
    assert bins.values == ()


def test_booleans_and_columns_of_nothing_have_bins() -> None:
    assert bins_of(pl.Series([None, True])) == Values(("false", "true"))
    assert bins_of(pl.Series([None, None])) == Values(())
    assert bins_of(pl.Series([None], dtype=pl.Float64)) == Numbers(())
    assert counts_of(pl.Series([None, 1.0]), Numbers(())) == [1, 1]


def test_times_and_lists_have_no_bins() -> None:
    frame = pl.DataFrame({"t": pl.Series([0]).cast(pl.Datetime), "l": [[1]], "x": [1.0]})
    assert [column.name for column in make_bins(frame)] == ["x"]


def test_without_rows_there_are_no_bins() -> None:
    with pytest.raises(Misuse, match="found none"):
        make_bins(pl.DataFrame({"x": []}))


def test_the_same_rows_make_the_same_bins() -> None:
    random = np.random.default_rng(3)
    frame = pl.DataFrame({"x": random.normal(size=500), "c": random.choice(list("abc"), 500)})
    assert make_bins(frame) == make_bins(frame)
    assert make_bins(frame.select("c").reverse()) == make_bins(frame.select("c"))


@pytest.mark.parametrize("edges", [(1.0, 1.0), (2.0, 1.0), (float("nan"),), (float("inf"),)])
def test_edges_that_are_none_are_refused(edges: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Numbers(edges)


def test_p_values_have_fine_bins_where_they_are_small() -> None:
    column = p_value_column("novelty")
    assert column.ordered
    assert count(pl.DataFrame({"novelty": [0.0005, 0.009, 0.95]}), [column])["novelty"].rows == 3
