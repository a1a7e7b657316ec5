from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainstay.catalog.marginals import Number, fit_number, fit_text
from mainstay.runtime.novelty import STRIDE

FIELD = 2


def at(number: Number, values: list[float]) -> list[tuple[float, float]]:
    """Coordinate and nats of each value, looked up as the score does."""
    places = (np.array(values) - number.location) * number.inverse_scale
    keys = places / (np.abs(places) + 1) + STRIDE * FIELD
    segments = [number.segments[i - 1] for i in np.searchsorted(number.boundaries, keys, "right").tolist()]
    lines = zip(segments, places.tolist(), strict=True)
    return [(each.slope * x + each.start, each.nat_slope * x + each.nat_start) for each, x in lines]


def nats(number: Number, *values: float) -> list[float]:
    return [found for _, found in at(number, list(values))]


@pytest.mark.parametrize("width", [5e-324, 1e-323, 1e-310, 1e-300, 1e-200, 2e-160, 1e-101, 1e-99])
def test_values_apart_by_next_to_nothing_have_tails_all_the_same(width: float) -> None:
    found = [0.0] * 20 + [width] * 5 + [-width] * 5
    number = fit_number(np.array(found), FIELD, len(found))
    inside, *outside = nats(number, 0.0, 1e150, -1e150, 1.0, -1.0)
    assert all(math.isfinite(each) and each >= inside for each in outside)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6) | st.integers(-5, 5).map(float), min_size=2, max_size=200))
def test_the_coordinate_rises_with_the_value_and_boundaries_ascend(found: list[float]) -> None:
    number = fit_number(np.array(found), FIELD, len(found))
    assert (np.diff(number.boundaries) >= 0).all()
    assert len(number.segments) == len(number.boundaries) == len(number.bins)
    ordered = np.unique(found)
    probes = np.unique(np.concatenate([ordered, (ordered[:-1] + ordered[1:]) / 2, [ordered[0] - 1, ordered[-1] + 1]]))
    coordinates = [coordinate for coordinate, _ in at(number, probes.tolist())]
    assert (np.diff(coordinates) >= -1e-5).all()


def test_nats_are_those_of_the_share_at_least_as_far_out() -> None:
    values = np.random.default_rng(1).normal(size=10_000)
    number = fit_number(values, FIELD, len(values))
    for value in np.quantile(values, [0.01, 0.05, 0.2, 0.8, 0.95, 0.99]).tolist():
        share = 2 * min((values <= value).mean(), (values >= value).mean())
        assert nats(number, value) == [pytest.approx(-math.log(share), abs=0.2)]


def test_nats_grow_beyond_the_outermost_value_as_fast_as_the_tail_falls() -> None:
    random = np.random.default_rng(1)
    light = fit_number(random.uniform(0, 1, 1_000), FIELD, 1_000)
    heavy = fit_number(np.exp(2 * random.normal(size=1_000)), FIELD, 1_000)
    edge, far = nats(light, 1.001, 1.5)
    assert edge == pytest.approx(math.log(1_001), abs=0.1)
    assert far > edge + 5
    edge, far = nats(heavy, 2_000.0, 2_000.5)
    assert far < edge + 0.1


def test_a_value_that_occurs_often_is_ordinary_and_its_neighbours_are_not() -> None:
    number = fit_number(np.repeat([1.0, 2.0, 4.0], 100), FIELD, 300)
    assert max(nats(number, 1, 2, 4)) < 1
    assert min(nats(number, 0.999, 1.001, 1.5, 3, 3.999, 4.001)) > math.log(300)


def test_a_field_that_is_always_missing_finds_any_value_strange() -> None:
    number = fit_number(np.full(200, np.nan), FIELD, 200)
    assert nats(number, 0.0) == [pytest.approx(math.log(200 / 0.02))]
    assert number.segments[-1].nat_start == 0
    assert not number.sometimes_missing


def test_texts_are_as_strange_as_what_is_no_more_frequent() -> None:
    codes = np.repeat([0, 1, 2], [90, 8, 2])
    text = fit_text(codes, np.array([True, True, True]), 100, 10)
    assert text.codes == [0, 1, 2]
    assert np.exp(-np.array(text.nats[:3])) == pytest.approx([1, 0.1, 0.02])
    assert text.nats[3] > math.log(100)


def test_where_new_texts_are_usual_another_one_is_not_strange() -> None:
    codes = np.concatenate([np.repeat([0], 50), np.arange(1, 51)])
    text = fit_text(codes, np.ones(51, np.bool_), 100, 10)
    assert text.codes == [0]
    assert text.nats[1] < 1


def test_no_more_levels_are_kept_than_asked_for() -> None:
    text = fit_text(np.repeat(np.arange(20), 5), np.ones(20, np.bool_), 100, 4)
    assert len(text.codes) == 4
    assert len(text.nats) == len(text.bins) == 5
