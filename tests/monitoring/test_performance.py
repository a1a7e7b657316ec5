from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, brier_score_loss, precision_score, recall_score, roc_auc_score

from mainstay.capability.types import Promise
from mainstay.errors import Misuse
from mainstay.monitoring.intervals import Estimate, wilson
from mainstay.monitoring.performance import (
    at_threshold,
    brier_score,
    expected_calibration_error,
    judge,
    reliability,
    roc_auc,
)

Sample = tuple[NDArray[np.bool_], NDArray[np.float64]]


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    """Labels and scores, with many ties."""
    n = draw(st.integers(1, 60))
    labels = draw(arrays.arrays(np.bool_, n))
    scores = draw(arrays.arrays(np.float64, n, elements=st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0])))
    return labels, scores


def binormal(rng: np.random.Generator, n: int, shift: float) -> Sample:
    """Half of each class; the area is Phi(shift / sqrt 2), and a logistic keeps scores within 0..1."""
    labels = np.arange(n) % 2 == 0
    return labels, 1 / (1 + np.exp(-(rng.standard_normal(n) + shift * labels)))


def calibrated(rng: np.random.Generator, n: int) -> Sample:
    scores = rng.beta(1, 3, n)
    return rng.random(n) < scores, scores


# --- area under the ROC curve -------------------------------------------------------------------------------------


@given(samples())
def test_the_area_is_that_of_scikit_learn(sample: Sample) -> None:
    labels, scores = sample
    assume(0 < labels.sum() < len(labels))
    estimate = roc_auc(labels, scores)
    assert estimate is not None
    assert estimate.value == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1


@given(samples())
def test_swapping_the_classes_mirrors_the_area_and_its_interval(sample: Sample) -> None:
    labels, scores = sample
    assume(0 < labels.sum() < len(labels))
    one, other = roc_auc(labels, scores), roc_auc(~labels, scores)
    assert one is not None
    assert other is not None
    assert (other.value, other.low, other.high) == pytest.approx((1 - one.value, 1 - one.high, 1 - one.low), abs=1e-9)


@given(samples())
def test_the_variance_is_that_of_delongs_definition(sample: Sample) -> None:
    labels, scores = sample
    positives, negatives = scores[labels], scores[~labels]
    assume(len(positives) > 1 and len(negatives) > 1)
    kernel = (positives[:, None] > negatives) + 0.5 * (positives[:, None] == negatives)
    area = kernel.mean()
    variance = kernel.mean(axis=1).var(ddof=1) / len(positives) + kernel.mean(axis=0).var(ddof=1) / len(negatives)
    assume(variance > 1e-12)
    estimate = roc_auc(labels, scores)
    assert estimate is not None
    half_width = 1.959963984540054 * math.sqrt(variance) / (area * (1 - area))
    assert math.log(estimate.high / (1 - estimate.high)) - math.log(area / (1 - area)) == pytest.approx(half_width)


@pytest.mark.parametrize("shift", [0.5, 2.2])
def test_the_interval_of_the_area_contains_the_truth_as_often_as_it_says(shift: float) -> None:
    rng, truth = np.random.default_rng(7), 0.5 * (1 + math.erf(shift / 2))
    inside = 0
    for _ in range(1000):
        estimate = roc_auc(*binormal(rng, 200, shift))
        assert estimate is not None
        inside += estimate.low <= truth <= estimate.high
    assert 0.93 <= inside / 1000 <= 0.97


def test_without_both_classes_there_is_no_area() -> None:
    assert roc_auc([True, True], [0.1, 0.2]) is None
    assert roc_auc([], []) is None


def test_a_single_case_of_a_class_says_nothing() -> None:
    assert roc_auc([True, False, False], [0.9, 0.1, 0.2]) == Estimate(1.0, 0.0, 1.0)


def test_a_perfect_order_of_few_cases_is_not_taken_for_certain() -> None:
    labels, scores = [False] * 10 + [True] * 10, list(np.linspace(0, 1, 20))
    perfect, inverted = roc_auc(labels, scores), roc_auc(labels, scores[::-1])
    assert perfect is not None
    assert inverted is not None
    assert perfect == Estimate(1.0, perfect.low, 1.0)
    assert perfect.low == pytest.approx(0.025 ** (1 / 10))
    assert inverted == Estimate(0.0, 0.0, inverted.high)
    assert inverted.high == pytest.approx(1 - 0.025 ** (1 / 10))


def test_a_model_that_always_says_the_same_has_half_the_area_and_no_certainty() -> None:
    estimate = roc_auc([False] * 50 + [True] * 50, [0.3] * 100)
    assert estimate is not None
    assert estimate.value == 0.5
    assert estimate.low < 0.35
    assert estimate.high > 0.65


# --- calibration --------------------------------------------------------------------------------------------------


@given(samples(), st.integers(1, 20), st.randoms(use_true_random=False))
def test_calibration_does_not_depend_on_the_order_of_rows(sample: Sample, bins: int, random: Any) -> None:
    labels, scores = sample
    order = list(range(len(labels)))
    random.shuffle(order)
    one, other = (expected_calibration_error(x, y, bins) for x, y in ((labels, scores), (labels[order], scores[order])))
    assert one is not None
    assert other is not None
    assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high))
    assert 0 <= one.low <= one.value <= one.high <= 1


def test_chance_is_taken_out_of_the_calibration_error() -> None:
    rng = np.random.default_rng(3)
    plain, debiased = [], []
    for _ in range(100):
        labels, scores = calibrated(rng, 1500)
        table = reliability(labels, scores)
        plain.append(sum(row.n * abs(row.mean_score - row.rate.value) for row in table) / 1500)
        estimate = expected_calibration_error(labels, scores)
        assert estimate is not None
        debiased.append(estimate.value)
    assert np.mean(debiased) < 0.75 * np.mean(plain)


@pytest.mark.parametrize("offset", [0.0, 0.01, 0.05, 0.2])
def test_the_interval_of_the_calibration_error_contains_the_truth_at_least_as_often_as_it_says(offset: float) -> None:
    rng, inside = np.random.default_rng(11), 0
    for _ in range(400):
        labels, scores = calibrated(rng, 2000)
        estimate = expected_calibration_error(labels, np.minimum(1, scores * (1 - 2 * offset) + offset))
        # The error said is |E[truth] - score| = |2 scores - 1| offset, of one sign within nearly every bin.
        truth = offset * float(np.mean(np.abs(1 - 2 * scores)))
        assert estimate is not None
        inside += estimate.low - 1e-3 * offset <= truth <= estimate.high + 1e-3 * offset
    assert inside / 400 >= 0.94


def test_a_promise_kept_is_told_apart_from_one_broken_by_a_tenth() -> None:
    labels, scores = calibrated(np.random.default_rng(5), 20_000)
    good, bad = (expected_calibration_error(labels, np.minimum(1, scores + shift)) for shift in (0, 0.1))
    assert good is not None
    assert bad is not None
    assert good.high < 0.02
    assert bad.low > 0.08


@given(samples(), st.integers(1, 20))
def test_the_reliability_table_holds_every_row_once_and_splits_no_ties(sample: Sample, bins: int) -> None:
    labels, scores = sample
    table = reliability(labels, scores, bins)
    assert sum(row.n for row in table) == len(labels)
    assert len(table) <= bins
    assert sum(row.n * row.mean_score for row in table) == pytest.approx(scores.sum())
    assert sum(row.n * row.rate.value for row in table) == pytest.approx(labels.sum())
    for left, right in pairwise(table):
        assert left.highest_score < right.lowest_score


def test_bins_of_distinct_scores_have_equal_mass() -> None:
    labels, scores = calibrated(np.random.default_rng(0), 1000)
    assert {row.n for row in reliability(labels, scores, 15)} <= {66, 67}


def test_no_rows_have_no_calibration() -> None:
    assert expected_calibration_error([], []) is None
    assert brier_score([], []) is None
    assert reliability([], []) == []


# --- shares -------------------------------------------------------------------------------------------------------


@given(samples())
def test_the_brier_score_is_that_of_scikit_learn(sample: Sample) -> None:
    labels, scores = sample
    estimate = brier_score(labels, scores)
    assert estimate is not None
    assert estimate.value == pytest.approx(brier_score_loss(labels, scores, pos_label=True), abs=1e-12)
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1


@given(samples(), st.sampled_from([0.0, 0.25, 0.3, 0.5, 1.0]))
def test_accuracy_precision_and_recall_are_those_of_scikit_learn(sample: Sample, threshold: float) -> None:
    labels, scores = sample
    chosen, found = scores >= threshold, at_threshold(labels, scores, threshold)
    assert found.accuracy is not None
    assert found.accuracy.value == pytest.approx(accuracy_score(labels, chosen))
    assert (found.precision is None) == (not chosen.any())
    if found.precision is not None:
        assert found.precision.value == pytest.approx(precision_score(labels, chosen, zero_division=0))
    assert (found.recall is None) == (not labels.any())
    if found.recall is not None:
        assert found.recall.value == pytest.approx(recall_score(labels, chosen, zero_division=0))


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_bounds_solve_the_score_equation(shares: tuple[int, int]) -> None:
    successes, n = shares
    estimate = wilson(successes, n)
    assert estimate is not None
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    for bound in (estimate.low, estimate.high):
        if 0 < bound < 1:
            assert abs(estimate.value - bound) == pytest.approx(1.959964 * math.sqrt(bound * (1 - bound) / n), rel=1e-5)


def test_a_share_of_nothing_is_unknown() -> None:
    assert wilson(0, 0) is None
    with pytest.raises(Misuse, match="expected successes from 0 to 3, found 4"):
        wilson(4, 3)


# --- verdicts -----------------------------------------------------------------------------------------------------

PROMISE = Promise(roc_auc=0.9, calibration_error=0.05, positive="late", score="probability")


def verdicts(promise: Promise, sample: Sample) -> dict[str, str]:
    return {verdict.name: verdict.verdict for verdict in judge(promise, list(sample[0]), list(sample[1]))}


def test_a_promise_clearly_kept_passes() -> None:
    rng = np.random.default_rng(1)
    assert verdicts(Promise(roc_auc=0.9), binormal(rng, 4000, 2.5)) == {"roc_auc": "pass"}
    assert verdicts(Promise(calibration_error=0.05), calibrated(rng, 4000)) == {"calibration_error": "pass"}


def test_a_promise_clearly_broken_fails() -> None:
    labels, scores = binormal(np.random.default_rng(1), 4000, 0.5)
    assert verdicts(PROMISE, (labels, scores)) == {"roc_auc": "fail", "calibration_error": "fail"}


def test_an_estimate_short_of_the_promise_by_no_more_than_chance_is_unknown() -> None:
    labels, scores = binormal(np.random.default_rng(1), 4000, 2.0)
    area = roc_auc(labels, scores)
    assert area is not None
    (verdict,) = judge(Promise(roc_auc=area.value + 0.001), list(labels), list(scores))
    assert verdict.verdict == "unknown"
    assert verdict.why == "the estimate breaks the promise, but its interval still contains it"


def test_a_promise_kept_on_too_few_labels_is_unknown() -> None:
    (verdict,) = judge(Promise(roc_auc=0.5), [True] * 99 + [False] * 500, [0.9] * 99 + [0.1] * 500)
    assert verdict.verdict == "unknown"
    assert verdict.why == "expected at least 100 labels of each class to pass, found 99 true and 500 false"


def test_no_labels_at_all_are_unknown() -> None:
    for verdict in judge(PROMISE, [None] * 1000, [0.2] * 1000):
        assert (verdict.verdict, verdict.observed, verdict.n) == ("unknown", None, 0)


def test_a_handful_of_labels_neither_passes_nor_fails() -> None:
    assert verdicts(PROMISE, binormal(np.random.default_rng(0), 18, -3)) == {
        "roc_auc": "unknown",
        "calibration_error": "unknown",
    }


def test_decisions_without_a_label_do_not_count() -> None:
    labels, scores = calibrated(np.random.default_rng(2), 2000)
    with_gaps = [bool(label) if index % 2 else None for index, label in enumerate(labels)]
    found = judge(PROMISE, with_gaps, list(scores))
    assert found == judge(PROMISE, [bool(label) for label in labels[1::2]], list(scores[1::2]))
    assert {verdict.n for verdict in found} == {1000}


def test_nothing_promised_gives_no_verdict() -> None:
    assert judge(Promise(), [True, False], [0.5, 0.5]) == []


@pytest.mark.parametrize("sample_n", [60, 1000])
def test_a_promise_kept_exactly_at_its_bound_fails_no_more_often_than_stated(sample_n: int) -> None:
    rng, truth = np.random.default_rng(23), 0.5 * (1 + math.erf(0.75))
    failed = sum(
        verdicts(Promise(roc_auc=truth), binormal(rng, sample_n, 1.5))["roc_auc"] == "fail" for _ in range(800)
    )
    assert failed / 800 <= 0.04  # 2.5 % and three standard errors of this simulation


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("score", [math.nan, 1.5, -0.1, math.inf, None, "high"])
def test_a_score_that_is_no_probability_is_refused(score: Any) -> None:
    with pytest.raises(Misuse, match="expected every score to be a number from 0 to 1"):
        judge(PROMISE, [None, True], [0.5, score])


@pytest.mark.parametrize("label", [math.nan, 2, "true"])
def test_a_label_that_is_neither_true_nor_false_is_refused(label: Any) -> None:
    with pytest.raises(Misuse, match="expected every label to be true or false"):
        judge(PROMISE, [True, label], [0.5, 0.5])


def test_labels_and_scores_of_different_lengths_are_refused() -> None:
    with pytest.raises(Misuse, match="expected one score per label, found 1 labels and 2 scores"):
        judge(PROMISE, [True], [0.5, 0.5])
    with pytest.raises(Misuse, match="expected one score per label"):
        roc_auc([True], [0.5, 0.5])


def test_bins_and_levels_out_of_range_are_refused() -> None:
    with pytest.raises(Misuse, match="expected at least 1 bin"):
        expected_calibration_error([True], [0.5], 0)
    with pytest.raises(Misuse, match="expected a level between 0 and 1"):
        wilson(1, 2, level=1.0)
    with pytest.raises(Misuse, match="one dimension"):
        roc_auc([[True]], [[0.5]])
