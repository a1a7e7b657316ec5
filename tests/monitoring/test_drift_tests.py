from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.monitoring.drift_noise import Noise, noise_of
from mainstay.monitoring.drift_tests import excess, together, two_of
from monitoring.drift_counts import category_shares, independent

SHARES = st.floats(0, 1)


@given(SHARES, st.lists(SHARES, max_size=3), SHARES)
def test_a_p_value_lies_between_that_of_rows_and_the_largest(
    by_rows: float, by_units: list[float], doubted: float
) -> None:
    largest = max([by_rows, *by_units])
    found = together(by_rows, by_units, doubted)
    assert by_rows <= found <= largest + 1e-12
    assert found >= doubted * largest - 1e-12
    assert together(by_rows, by_units, 0.0) == by_rows
    assert together(by_rows, by_units, 1.0) == pytest.approx(largest)


@pytest.mark.parametrize("units", [8, 24])
def test_few_units_do_not_make_chi_square_seem_more_restless_than_it_is(units: int) -> None:
    random = np.random.default_rng(units)
    variances = []
    for _ in range(200):
        reference, window = (
            independent(random, category_shares(), rows, units).counts[:, :8] for rows in (96_000, 9_600)
        )
        noises = [noise for noise in map(noise_of, (reference, window)) if noise is not None]
        pooled = [Noise(each.parts, 2 * (units - 1)) for each in noises]
        found = excess(two_of(reference.sum(0).astype(float), window.sum(0).astype(float)), pooled)
        variances.append(found.variance / found.mean**2)
    # 2 (k - 1) of a mean of k - 1, and a little that estimates can be above it but not below
    assert 2 / 7 <= np.mean(variances) <= 2 / 7 * (1.25 if units > 8 else 1.6)
