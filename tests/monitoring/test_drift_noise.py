from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import chi2_contingency

from mainstay.monitoring.drift_noise import LEAST_DOUBT, doubt, unrest
from mainstay.monitoring.drift_tests import normal_scores
from monitoring.drift_counts import autocorrelated, category_shares, counted, independent, number_shares

UNITS = 24


def _deviations(chi_square: float, freedom: int) -> float:
    return float(((chi_square / freedom) ** (1 / 3) - (1 - 2 / (9 * freedom))) / math.sqrt(2 / (9 * freedom)))


def test_unrest_is_chi_square_between_units_of_both_samples_or_of_one() -> None:
    random = np.random.default_rng(0)
    one, two = (independent(random, category_shares(), rows).counts[:, :8].astype(float) for rows in (2_400, 9_600))
    found = [chi2_contingency(each) for each in (one, two)]
    both = _deviations(sum(each.statistic for each in found), sum(each.dof for each in found))
    alone = [_deviations(each.statistic, each.dof) for each in found]
    assert unrest(one, two) == pytest.approx(max(both, *alone))
    empty = np.zeros((3, 8))
    assert unrest(np.concatenate([one, empty]), two) == pytest.approx(unrest(one, two))  # units without rows


def test_what_never_varies_and_what_has_too_few_units_shows_nothing() -> None:
    constant = np.zeros((UNITS, 4))
    constant[:, 1] = 10
    assert unrest(constant, constant) == 0
    assert unrest(constant, constant, np.array([-1.0, 0.0, 1.0, 2.0])) == 0
    assert unrest(constant[:5], constant) == math.inf
    assert doubt([math.inf, 0.0]) == 1
    assert doubt([-3.0]) == LEAST_DOUBT


@pytest.mark.parametrize(("correlation", "trusted"), [(0.0, (0.4, 1.0)), (0.2, (0.0, 0.5)), (0.5, (0.0, 0.02))])
def test_rows_are_doubted_as_soon_as_they_hang_together(correlation: float, trusted: tuple[float, float]) -> None:
    random = np.random.default_rng(1)
    shares = number_shares()
    kept = shares > 0
    scores = np.zeros(len(shares))
    scores[kept] = normal_scores(shares[kept])
    doubts = []
    for _ in range(100):
        samples = [counted(autocorrelated(random, rows, correlation)).counts.astype(float) for rows in (10_000, 1_000)]
        doubts.append(doubt([unrest(*samples), unrest(samples[0], samples[1], scores)]))
    low, high = trusted
    assert low <= np.mean([each == LEAST_DOUBT for each in doubts]) <= high
    assert low > 0 or np.mean([each == 1 for each in doubts]) > 0.2


def test_a_shuffled_reference_does_not_hide_how_rows_of_a_window_hang_together() -> None:
    random = np.random.default_rng(2)
    doubts = []
    for _ in range(20):
        reference, window = independent(random, number_shares(), 10_000), counted(autocorrelated(random, 1_000))
        doubts.append(doubt([unrest(reference.counts.astype(float), window.counts.astype(float))]))
    assert min(doubts) == 1
