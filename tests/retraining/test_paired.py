"""Two versions on the same cases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn import metrics

from mainstay.errors import Misuse
from mainstay.retraining.paired import LOSSES, Cases, MetricName, compare

if TYPE_CHECKING:
    from collections.abc import Callable

OTHERS: dict[str, Callable[[Cases], float]] = {
    "accuracy": lambda cases: metrics.accuracy_score(cases.truth, cases.prediction),
    "roc_auc": lambda cases: metrics.roc_auc_score(cases.truth, cases.score),
    "brier": lambda cases: metrics.brier_score_loss(cases.truth, cases.score),
    "log_loss": lambda cases: metrics.log_loss(cases.truth, cases.score),
    "precision": lambda cases: metrics.precision_score(cases.truth, cases.prediction),
    "recall": lambda cases: metrics.recall_score(cases.truth, cases.prediction),
}


def drawn(seed: int, n: int = 400, skill: float = 1.0) -> Cases:
    """Cases of which the score tells something; those of one seed have the same truth whatever the skill."""
    random = np.random.default_rng(seed)
    hidden = random.normal(size=n)
    truth = random.random(n) < 1 / (1 + np.exp(-2 * hidden))
    score = 1 / (1 + np.exp(-(skill * hidden + random.normal(size=n))))
    return Cases(truth, score >= 0.5, score)


def measured(seed: int, n: int = 400, noise: float = 1.0) -> Cases:
    random = np.random.default_rng(seed)
    truth = random.normal(size=n)
    return Cases(truth, truth + noise * random.normal(size=n), None)


@pytest.mark.parametrize("metric", sorted(OTHERS))
def test_values_are_those_of_another_implementation(metric: MetricName) -> None:
    one, two = drawn(1), drawn(1, skill=3.0)
    found = compare(metric, one, two, np.arange(400), level=0.95)
    assert found is not None
    assert found.champion == pytest.approx(OTHERS[metric](one), abs=1e-9)
    assert found.challenger == pytest.approx(OTHERS[metric](two), abs=1e-9)
    sign = -1 if metric in LOSSES else 1
    assert found.better.value == pytest.approx(sign * (found.challenger - found.champion))


def test_errors_of_numbers_are_those_of_another_implementation() -> None:
    one, two = measured(1), measured(1, noise=0.5)
    for metric, other in (("mae", metrics.mean_absolute_error), ("rmse", metrics.root_mean_squared_error)):
        found = compare(metric, one, two, np.arange(400), level=0.95)  # type: ignore[arg-type]  # a name of the list
        assert found is not None
        assert found.champion == pytest.approx(other(one.truth, one.prediction))
        assert found.better.low > 0, "less noise is surely better"


@given(st.integers(0, 10_000), st.sampled_from(sorted(OTHERS)))
def test_exchanging_the_versions_turns_the_difference_round(seed: int, metric: MetricName) -> None:
    one, two = drawn(seed, 60), drawn(seed, 60, skill=2.0)
    blocks = np.arange(60) // 3
    there, back = compare(metric, one, two, blocks, level=0.9), compare(metric, two, one, blocks, level=0.9)
    if there is None or back is None:
        assert there is back
        return
    assert there.better.value == pytest.approx(-back.better.value)
    assert there.better.low == pytest.approx(-back.better.high)


@pytest.mark.parametrize("metric", sorted({*get_args(MetricName)} - {"mae", "rmse"}))
def test_the_interval_holds_the_truth_as_often_as_it_says(metric: MetricName) -> None:
    """Of two versions that are alike in the long run, the difference is 0."""
    missed = 0
    for seed in range(400):
        random = np.random.default_rng(seed)
        hidden = random.normal(size=300)
        truth = random.random(300) < 1 / (1 + np.exp(-2 * hidden))
        scores = [1 / (1 + np.exp(-(hidden + random.normal(size=300)))) for _ in range(2)]
        one, two = (Cases(truth, score >= 0.5, score) for score in scores)
        found = compare(metric, one, two, np.arange(300), level=0.95)
        assert found is not None
        missed += not found.better.low <= 0 <= found.better.high
    assert binomtest(missed, 400, 0.05).pvalue > 0.001, missed


def test_cases_of_one_day_are_not_taken_for_independent() -> None:
    """Errors that a whole day shares make the interval as wide as the days allow, and no narrower."""
    missed = naive = 0
    for seed in range(300):
        random = np.random.default_rng(seed)
        days = np.repeat(np.arange(30), 50)
        truth = np.zeros(1_500)
        one, two = (random.normal(size=30)[days] + random.normal(size=1_500) for _ in range(2))
        first, second = Cases(truth, one, None), Cases(truth, two, None)
        by_day, alone = (compare("mae", first, second, each, level=0.95) for each in (days, np.arange(1_500)))
        assert by_day is not None
        assert alone is not None
        missed += not by_day.better.low <= 0 <= by_day.better.high
        naive += not alone.better.low <= 0 <= alone.better.high
    assert binomtest(missed, 300, 0.05).pvalue > 0.001, missed
    assert naive > 2 * missed, "which is what the blocks are for"


def test_a_metric_without_a_value_makes_no_difference() -> None:
    truth, never = np.zeros(50, dtype=bool), np.zeros(50, dtype=bool)
    cases = Cases(truth, never, np.zeros(50))
    for metric in ("roc_auc", "precision", "recall"):
        assert compare(metric, cases, cases, np.arange(50), level=0.95) is None


@pytest.mark.parametrize(("metric", "lacks"), [("accuracy", "labels.prediction"), ("brier", "labels.score")])
def test_what_a_metric_needs_is_asked_for(metric: Any, lacks: str) -> None:
    cases = Cases(np.ones(3, dtype=bool), None, None)
    with pytest.raises(Misuse, match=lacks):
        compare(metric, cases, cases, np.arange(3), level=0.95)
