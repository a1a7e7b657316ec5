from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainstay.errors import Misuse
from mainstay.monitoring.binning import Column, Numbers, Values, make_bins
from mainstay.monitoring.histograms import (
    BLOCK_ROWS,
    Histogram,
    Moments,
    Tally,
    count,
    count_parquet,
    merge,
    stack,
)

if TYPE_CHECKING:
    from pathlib import Path

COLUMNS = (
    Column("x", Numbers((-1.0, 0.0, 0.5, 2.0), centre=0.2)),
    Column("k", Numbers((1.0, 2.0, 3.0), points=(1.0, 2.0), whole=True)),
    Column("c", Values(("a", "b"))),
    Column("f", Values(("false", "true"))),
)


@st.composite
def frames(draw: st.DrawFn) -> pl.DataFrame:
    def column(values: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(st.none() | values, min_size=n, max_size=n))

    n = draw(st.integers(0, 40))
    values = st.floats(-3, 3) | st.sampled_from([-1.0, 0.0, 0.5, 2.0, float("nan"), float("inf"), -float("inf")])
    return pl.DataFrame(
        {
            "x": pl.Series(column(values), dtype=pl.Float64),
            "k": pl.Series(column(st.integers(-1, 5)), dtype=pl.Int32),
            "c": pl.Series(column(st.sampled_from(["a", "b", "z", ""])), dtype=pl.String),
            "f": pl.Series(column(st.booleans()), dtype=pl.Boolean),
        }
    )


def slowly(values: list[Any], bins: Numbers | Values) -> list[int]:
    """The counts, one value after the other."""
    counts = [0] * bins.size
    for value in values:
        if value is None or value != value:  # noqa: PLR0124 - NaN alone differs from itself
            place = bins.size - 1
        elif isinstance(bins, Numbers):
            place = sum(edge <= value for edge in bins.edges)
        else:
            named = [str(value).lower() if isinstance(value, bool) else value]
            place = bins.values.index(named[0]) if named[0] in bins.values else len(bins.values)
        counts[place] += 1
    return counts


def near(one: Histogram, other: Histogram) -> bool:
    if one.moments is None or other.moments is None:
        return one == other
    return one.counts == other.counts and (
        one.moments.n == other.moments.n
        and np.allclose(one.moments.mean, other.moments.mean, atol=1e-9)
        and np.allclose(one.moments.m2, other.moments.m2, atol=1e-9)
    )


@settings(max_examples=30)
@given(frames())
def test_every_value_is_counted_once_and_in_its_bin(frame: pl.DataFrame) -> None:
    found = count(frame, COLUMNS)
    for column in COLUMNS:
        assert list(found[column.name].counts) == slowly(frame[column.name].to_list(), column.bins)


@settings(max_examples=15)
@given(frames(), frames(), frames())
def test_counts_add_up_in_any_order(one: pl.DataFrame, two: pl.DataFrame, three: pl.DataFrame) -> None:
    whole = count(pl.concat([one, two, three]), COLUMNS)
    parts = [count(each, COLUMNS) for each in (three, one, two)]
    for name, histogram in whole.items():
        assert near(merge(part[name] for part in parts), histogram)
        assert near(parts[0][name] + (parts[1][name] + parts[2][name]), histogram)


@settings(max_examples=15)
@given(frames(), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(frame: pl.DataFrame, random: Any) -> None:
    order = list(range(frame.height))
    random.shuffle(order)
    shuffled = count(frame[order], COLUMNS)
    assert all(near(shuffled[name], histogram) for name, histogram in count(frame, COLUMNS).items())


@settings(max_examples=15)
@given(frames(), st.data())
def test_groups_are_counted_as_if_each_were_alone(frame: pl.DataFrame, data: st.DataObject) -> None:
    n = frame.height
    groups = [
        np.array(data.draw(st.lists(st.integers(-1, size - 1), min_size=n, max_size=n)), np.intp) for size in (3, 2)
    ]
    tally = Tally(COLUMNS, (3, 2))
    tally.add(frame, groups)
    for grouping, size in enumerate((3, 2)):
        for group, found in enumerate(tally.result(grouping)):
            alone = count(frame.filter(pl.Series(groups[grouping] == group, dtype=pl.Boolean)), COLUMNS)
            assert all(near(found[name], histogram) for name, histogram in alone.items()), (size, group)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50))
def test_moments_are_those_of_numpy(values: list[float]) -> None:
    moments = count(pl.DataFrame({"x": values}), COLUMNS[:1])["x"].moments
    assert moments is not None
    assert moments.n == len(values)
    assert np.isclose(moments.mean, np.mean(values), atol=1e-6)
    assert np.isclose(moments.m2, np.var(values) * len(values), rtol=1e-6, atol=1e-3)


def test_moments_of_enormous_values_stay_finite() -> None:
    moments = count(pl.DataFrame({"x": [1e300, -1e300, 1.0, float("inf")]}), COLUMNS[:1])["x"].moments
    assert moments is not None
    assert moments.n == 3
    assert np.isfinite([moments.mean, moments.m2]).all()


def test_narrow_floats_are_counted_as_the_same_numbers_are_wide() -> None:
    random = np.random.default_rng(0)
    narrow = pl.DataFrame({"x": random.normal(size=3 * BLOCK_ROWS).astype(np.float32)})
    edges = sorted({*random.normal(size=20).tolist(), *narrow["x"].head(20).cast(pl.Float64).to_list()})
    columns = [Column("x", Numbers(tuple(edges)))]
    assert count(narrow, columns)["x"].counts == count(narrow.cast(pl.Float64), columns)["x"].counts


def test_files_of_any_length_are_counted_some_rows_at_a_time(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    frame = pl.DataFrame({f"x{i}": random.normal(size=70_000) for i in range(10)}).with_columns(
        c=pl.Series(random.choice(["a", "b"], 70_000))
    )
    columns = make_bins(frame.head(1_000))
    frame.write_parquet(tmp_path / "one.parquet", row_group_size=9_000)
    whole = count(frame, columns)
    assert all(near(found, whole[name]) for name, found in count_parquet(tmp_path / "one.parquet", columns).items())
    twice = count_parquet([tmp_path / "one.parquet"] * 2, columns)
    assert all(near(twice[name], found + found) for name, found in whole.items())


def test_histograms_are_stored_as_json() -> None:
    found = count(pl.DataFrame({"x": [0.1, None, 7.0]}), COLUMNS[:1])["x"]
    assert msgspec.json.decode(msgspec.json.encode(found), type=Histogram) == found
    assert Moments() + Moments(2, 1.0, 2.0) == Moments(2, 1.0, 2.0)


def test_what_does_not_fit_is_refused() -> None:
    frame = pl.DataFrame({"x": ["text"], "k": [1], "c": [1], "f": [True]})
    with pytest.raises(Misuse, match="expected numbers in the column x"):
        count(frame, COLUMNS)
    with pytest.raises(Misuse, match="expected texts or booleans in the column c"):
        count(frame, COLUMNS[2:])
    with pytest.raises(Misuse, match="none called y"):
        count(frame, [Column("y", Values(()))])
    with pytest.raises(Misuse, match="same bins"):
        Histogram((1, 2)) + Histogram((1, 2, 3))
    with pytest.raises(Misuse, match="same bins"):
        stack([Histogram((1, 2)), Histogram((1, 2, 3))])
    with pytest.raises(Misuse, match="found none"):
        Tally(COLUMNS, (3,)).add(frame)
