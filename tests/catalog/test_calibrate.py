from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from mainstay.catalog.calibrate import (
    calibration_error,
    fit_calibration,
    isotonic_points,
    right_answers,
    sigmoid_points,
)
from mainstay.errors import Misuse
from mainstay.monitoring.performance import expected_calibration_error
from mainstay.runtime.calibration import Calibrator

confidences = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]))
answers = st.lists(st.tuples(confidences, st.booleans()), min_size=1, max_size=120)


def split(pairs: list[tuple[float, bool]]) -> tuple[Any, Any]:
    return np.array([said for said, _ in pairs]), np.array([truth for _, truth in pairs])


def overconfident(count: int, seed: int) -> tuple[Any, Any]:
    """Answers that are right less often than stated: the logit of the truth is 0.4 of the logit stated."""
    random = np.random.default_rng(seed)
    said = random.uniform(0.5, 1, count)
    truth = random.random(count) < 1 / (1 + ((1 - said) / said) ** 0.4)
    return said, truth


def stepped(count: int, seed: int) -> tuple[Any, Any]:
    """Answers that are right with one of two probabilities, which no sigmoid follows."""
    random = np.random.default_rng(seed)
    said = random.uniform(0, 1, count)
    return said, random.random(count) < np.where(said < 0.8, 0.3, 0.9)


# scikit-learn takes values for one that differ by less than a float's precision.
@given(st.lists(st.tuples(st.integers(0, 1_000).map(lambda k: k / 1_000), st.booleans()), min_size=1, max_size=120))
def test_pooling_gives_what_sklearn_gives(pairs: list[tuple[float, bool]]) -> None:
    said, truth = split(pairs)
    ours = np.interp(said, *isotonic_points(said, truth))
    theirs = IsotonicRegression(out_of_bounds="clip").fit(said, truth).predict(said)
    assert ours == pytest.approx(theirs, abs=1e-9)


@given(answers, st.lists(st.floats(0, 1), min_size=120, max_size=120))
def test_no_other_monotone_function_is_nearer_to_the_truth(
    pairs: list[tuple[float, bool]], heights: list[float]
) -> None:
    said, truth = split(pairs)
    fitted = np.interp(said, *isotonic_points(said, truth))
    values, place = np.unique(said, return_inverse=True)
    rival = np.sort(heights[: len(values)])[place]
    assert ((fitted - truth) ** 2).sum() <= ((rival - truth) ** 2).sum() + 1e-9


@given(answers)
def test_the_sigmoid_rises_and_stays_a_probability(pairs: list[tuple[float, bool]]) -> None:
    stated, calibrated = sigmoid_points(*split(pairs))
    assert (np.diff(stated) > 0).all()
    assert (np.diff(calibrated) >= 0).all()
    assert ((calibrated >= 0) & (calibrated <= 1)).all()


def test_the_sigmoid_is_the_one_that_logistic_regression_finds() -> None:
    said, truth = overconfident(3_000, 1)
    hits, misses = truth.sum(), (~truth).sum()
    logits = np.log(said / (1 - said))[:, None]
    targets = np.array([1 / (misses + 2), (hits + 1) / (hits + 2)])[truth.astype(int)]
    # A target between 0 and 1 is a row of each class with that weight.
    doubled = np.concatenate([logits, logits])
    classes = np.repeat([1, 0], len(said))
    model = LogisticRegression(C=1e12, tol=1e-10).fit(doubled, classes, np.concatenate([targets, 1 - targets]))
    theirs = model.predict_proba(logits)[:, 1]
    assert np.interp(said, *sigmoid_points(said, truth)) == pytest.approx(theirs, abs=1e-4)


@settings(deadline=None)
@given(answers)
def test_a_calibration_is_monotone_for_any_rows(pairs: list[tuple[float, bool]]) -> None:
    made = fit_calibration(*split(pairs))
    assert (np.diff(made.stated) > 0).all()
    assert (np.diff(made.calibrated) >= 0).all()
    assert min(made.calibrated) >= 0
    assert max(made.calibrated) <= 1
    assert made.rows == len(pairs)
    assert 0 <= made.error_before <= 1
    assert 0 <= made.error_after <= 1
    assert made == fit_calibration(*split(pairs))


@given(answers)
def test_the_error_is_the_one_that_monitoring_computes(pairs: list[tuple[float, bool]]) -> None:
    said, truth = split(pairs)
    theirs = expected_calibration_error(truth, said)
    assert theirs is not None
    assert calibration_error(said, truth) == pytest.approx(theirs.value, abs=1e-12)


def test_overconfidence_is_taken_away_and_the_sigmoid_fits_it_best() -> None:
    made = fit_calibration(*overconfident(4_000, 2))
    assert made.method == "sigmoid"
    assert made.error_before > 0.08
    assert made.error_after < 0.02
    said, truth = overconfident(4_000, 3)
    calibrated = np.array(Calibrator(made)(said.tolist()), np.float64)
    assert calibration_error(calibrated, truth) < 0.03


def test_a_step_is_followed_by_isotonic_regression() -> None:
    made = fit_calibration(*stepped(4_000, 2))
    assert made.method == "isotonic"
    assert made.error_after < made.error_before
    low, high = Calibrator(made)([0.4, 0.95])
    assert low == pytest.approx(0.3, abs=0.08)
    assert high == pytest.approx(0.9, abs=0.05)


def test_what_is_calibrated_already_is_left_nearly_alone() -> None:
    random = np.random.default_rng(4)
    said = random.uniform(0, 1, 4_000)
    made = fit_calibration(said, random.random(4_000) < said)
    assert made.error_after < 0.02
    for stated, calibrated in zip([0.1, 0.5, 0.9], Calibrator(made)([0.1, 0.5, 0.9]), strict=True):
        assert calibrated == pytest.approx(stated, abs=0.05)


@pytest.mark.parametrize(
    ("right", "wrong"), [(49, 0), (20, 20), (200, 9), (9, 200)], ids=["49 rows", "40 rows", "9 wrong", "9 right"]
)
def test_too_few_rows_leave_the_confidence_as_it_is(right: int, wrong: int) -> None:
    said = np.linspace(0, 1, right + wrong)
    made = fit_calibration(said, np.repeat([False, True], [wrong, right]))
    assert (made.method, made.stated, made.calibrated) == ("identity", (0.0, 1.0), (0.0, 1.0))
    assert made.error_after == made.error_before


def test_rows_without_a_confidence_are_left_out() -> None:
    said, truth = overconfident(500, 5)
    made = fit_calibration([*said, np.nan, np.nan], [*truth, True, False])
    assert made == fit_calibration(said, truth)


@pytest.mark.parametrize(
    ("stated", "right", "message"),
    [
        ([], [], "found none"),
        ([np.nan], [True], "found none"),
        ([0.5], [True, False], "one outcome per confidence"),
        ([1.5], [True], "from 0 to 1"),
        ([-0.1], [True], "from 0 to 1"),
    ],
)
def test_what_cannot_be_calibrated_on_is_refused(stated: list[float], right: list[bool], message: str) -> None:
    with pytest.raises(Misuse, match=message):
        fit_calibration(stated, right)


@pytest.mark.parametrize(
    ("classes", "chosen", "labels", "right"),
    [
        ((0, 1), [0, 1, 1], [False, True, False], [True, True, False]),
        ((False, True), [True, False], [1, 1], [True, False]),
        ((0, 1), [np.int64(1), np.bool_(0)], [1.0, 0], [True, True]),
        (("no", "yes"), ["yes", "no"], ["yes", "maybe"], [True, False]),
        ((1, 2, 3), [3, 2], [3, 4], [True, False]),
    ],
)
def test_an_answer_is_right_when_it_is_the_label(
    classes: tuple[Any, ...], chosen: list[Any], labels: list[Any], right: list[bool]
) -> None:
    assert right_answers(classes, chosen, labels).tolist() == right


@pytest.mark.parametrize(("classes", "label"), [((0, 1), "1"), (("a", "b"), 1), ((0, 1), None), (("a",), None)])
def test_labels_of_another_kind_than_the_classes_are_refused(classes: tuple[Any, ...], label: Any) -> None:
    with pytest.raises(Misuse, match=r"expected labels like the model's classes .* in row 1"):
        right_answers(classes, [classes[0], classes[0]], [classes[0], label])


def test_answers_and_labels_come_in_pairs() -> None:
    with pytest.raises(Misuse, match="2 answers and 1 labels"):
        right_answers((0, 1), [0, 1], [0])
