"""Two versions on the same cases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn import metrics

from mainstay.capability.keeping import METRICS
from mainstay.errors import Misuse
from mainstay.retraining.cases import Cases
from mainstay.retraining.paired import LOSSES, compare, lacking

if TYPE_CHECKING:
    from collections.abc import Callable

    from mainstay.capability.keeping import MetricName

OTHERS: dict[MetricName, Callable[[Cases], float]] = {
    "accuracy": lambda cases: metrics.accuracy_score(cases.truth, cases.prediction),
    "roc_auc": lambda cases: metrics.roc_auc_score(cases.truth, cases.score),
    "brier": lambda cases: metrics.brier_score_loss(cases.truth, cases.score),
    "log_loss": lambda cases: metrics.log_loss(cases.truth, cases.score),
    "precision": lambda cases: metrics.precision_score(cases.truth, cases.prediction),
    "recall": lambda cases: metrics.recall_score(cases.truth, cases.prediction),
    "f1": lambda cases: metrics.f1_score(cases.truth, cases.prediction),
    "balanced_accuracy": lambda cases: metrics.balanced_accuracy_score(cases.truth, cases.prediction),
    "average_precision": lambda cases: metrics.average_precision_score(cases.truth, cases.score),
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


@pytest.mark.parametrize("metric", sorted({*METRICS["binary"]} - {"calibration_error"}))
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
    for metric in ("roc_auc", "precision", "recall", "f1", "average_precision", "balanced_accuracy"):
        assert compare(metric, cases, cases, np.arange(50), level=0.95) is None
    number = Cases(np.ones(50), np.zeros(50), None)
    assert compare("r2", number, number, np.arange(50), level=0.95) is None, "the truth never varies"


def test_what_lies_on_one_day_has_no_interval() -> None:
    """Of recall that are the true cases: other days say nothing of it, however many there are."""
    one, two = drawn(1, 600), drawn(1, 600, skill=3.0)
    days = np.arange(600) // 20
    assert compare("recall", one, two, days, level=0.95) is not None
    truth = one.truth & (days == 3)
    assert truth.sum() > 5
    only = [Cases(truth, each.prediction, each.score) for each in (one, two)]
    for metric in ("recall", "average_precision", "roc_auc", "balanced_accuracy"):
        assert compare(metric, only[0], only[1], days, level=0.95) is None
    assert compare("accuracy", only[0], only[1], days, level=0.95) is not None


def test_days_that_have_most_of_what_counts_are_not_taken_for_many() -> None:
    """The same cases in the same number of blocks: where few blocks have most, less is known."""
    one, two = drawn(1, 1_200), drawn(1, 1_200, skill=3.0)
    even, uneven = np.arange(1_200) // 60, np.minimum(np.arange(1_200) // 5, 19)
    widths = []
    for days in (even, uneven):
        found = compare("f1", one, two, days, level=0.95)
        assert found is None or found.blocks == 20
        widths.append(np.inf if found is None else found.better.high - found.better.low)
    assert widths[1] > 2 * widths[0]


def test_few_cases_that_happen_to_agree_are_no_proof() -> None:
    """The versions differ in four cases of a thousand, all for one of them: a coin does that once in 16 times."""
    truth = np.arange(1_000) % 2 == 0
    one, two = truth.copy(), truth.copy()
    one[:4] = ~truth[:4]
    for metric in ("accuracy", "f1", "recall", "precision", "balanced_accuracy"):
        found = compare(metric, Cases(truth, one, None), Cases(truth, two, None), np.arange(1_000), level=0.95)
        assert found is not None
        assert found.better.value > 0
        assert found.better.low < 0, metric
    one[:14] = ~truth[:14]
    found = compare("f1", Cases(truth, one, None), Cases(truth, two, None), np.arange(1_000), level=0.95)
    assert found is not None
    assert found.better.low > 0


def test_a_bias_is_better_the_nearer_it_is_to_nothing() -> None:
    random = np.random.default_rng(0)
    truth, noise = random.normal(size=2_000), random.normal(size=(2, 2_000))
    high, low = Cases(truth, truth + 0.4 + noise[0], None), Cases(truth, truth - 0.1 + noise[1], None)
    found = compare("bias", high, low, np.arange(2_000), level=0.95)
    assert found is not None
    assert found.champion == pytest.approx(0.4, abs=0.1)
    assert found.challenger == pytest.approx(-0.1, abs=0.1)
    assert found.better.value == pytest.approx(abs(found.champion) - abs(found.challenger))
    assert 0 < found.better.low < 0.3 < found.better.high


@pytest.mark.parametrize(
    ("metric", "told"),
    [
        ("f1", "found 9 that were yes"),
        ("recall", "found 9 that were yes"),
        ("average_precision", "found 9 that were yes"),
        ("calibration_error", "found 9 that were yes"),
        ("precision", "found 3 that the challenger says yes to"),
        ("accuracy", ""),
        ("brier", ""),
    ],
)
def test_too_few_cases_of_a_class_are_told(metric: MetricName, told: str) -> None:
    truth, said = np.arange(300) < 9, np.arange(300) < 12
    champion, challenger = (
        Cases(truth, each, np.where(each, 0.5, 0.0)) for each in (said, said & (np.arange(300) > 8))
    )
    assert lacking(metric, champion, challenger).partition(", ")[2] == told
    assert lacking("roc_auc", Cases(~truth, said, np.where(said, 0.5, 0.0)), challenger).endswith(
        "found 9 that were no"
    )


@pytest.mark.parametrize(("metric", "lacks"), [("accuracy", "labels.prediction"), ("brier", "labels.score")])
def test_what_a_metric_needs_is_asked_for(metric: Any, lacks: str) -> None:
    cases = Cases(np.ones(3, dtype=bool), None, None)
    with pytest.raises(Misuse, match=lacks):
        compare(metric, cases, cases, np.arange(3), level=0.95)
