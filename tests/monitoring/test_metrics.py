from __future__ import annotations

import math
from typing import Any, get_args, get_type_hints

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn import metrics as sk

from mainstay.capability.keeping import Metric
from mainstay.errors import Misuse
from mainstay.monitoring.intervals import Estimate, in_unit, mean, mean_of_shares, wilson
from mainstay.monitoring.metrics import KINDS, Kind, Measured, measure

Frame = pl.DataFrame


def labelled(truth: Any, said: Any = None, score: Any = None, **segments: Any) -> Frame:
    n = len(truth)
    columns = {"truth": truth, "prediction": said, "score": score}
    frame = pl.DataFrame({name: [None] * n if values is None else values for name, values in columns.items()})
    return frame.with_columns(**{f"segment.{name}": pl.Series(values) for name, values in segments.items()})


def value(name: str, kind: Kind, frame: Frame, top: int = 10) -> float | None:
    estimate = measure(Metric(name=name, top=top), kind, frame).estimate  # type: ignore[arg-type]  # one of its names
    if estimate is None:
        return None
    assert estimate.low <= estimate.value <= estimate.high
    return estimate.value


def cover(name: str, kind: Kind, frames: list[Frame], truth: float) -> float:
    """The share of intervals that hold the truth."""
    found = [measure(Metric(name=name), kind, frame).estimate for frame in frames]  # type: ignore[arg-type]  # the same
    return float(np.mean([one is not None and one.low <= truth <= one.high for one in found]))


binary = st.integers(2, 60).flatmap(
    lambda n: st.tuples(
        arrays.arrays(np.bool_, n),
        arrays.arrays(np.bool_, n),
        arrays.arrays(np.float64, n, elements=st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0])),
    )
)


@settings(max_examples=25)
@given(binary)
def test_metrics_of_two_classes_are_those_of_scikit_learn(sample: Any) -> None:
    truth, said, score = sample
    assume(0 < truth.sum() < len(truth))
    frame = labelled(truth, said, score)
    assert value("accuracy", "binary", frame) == pytest.approx(sk.accuracy_score(truth, said))
    assert value("recall", "binary", frame) == pytest.approx(sk.recall_score(truth, said))
    assert value("f1", "binary", frame) == pytest.approx(sk.f1_score(truth, said))
    assert value("balanced_accuracy", "binary", frame) == pytest.approx(sk.balanced_accuracy_score(truth, said))
    assert value("roc_auc", "binary", frame) == pytest.approx(sk.roc_auc_score(truth, score))
    assert value("average_precision", "binary", frame) == pytest.approx(sk.average_precision_score(truth, score))
    assert value("brier", "binary", frame) == pytest.approx(sk.brier_score_loss(truth, score))
    assert value("macro_f1", "binary", frame) == pytest.approx(sk.f1_score(truth, said, average="macro"))
    inner = np.clip(score, 0.01, 0.99)
    assert value("log_loss", "binary", labelled(truth, said, inner)) == pytest.approx(sk.log_loss(truth, inner))
    if said.any():
        assert value("precision", "binary", frame) == pytest.approx(sk.precision_score(truth, said))
    else:
        assert value("precision", "binary", frame) is None


@settings(max_examples=25)
@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcd")), min_size=1, max_size=60))
def test_metrics_of_many_classes_are_those_of_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    truth, said = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    frame = labelled(truth, said)
    assert value("accuracy", "classes", frame) == pytest.approx(sk.accuracy_score(truth, said))
    assert value("macro_f1", "classes", frame) == pytest.approx(sk.f1_score(truth, said, average="macro"))
    recalls = sk.recall_score(truth, said, average=None, labels=sorted(set(truth)))
    assert value("balanced_accuracy", "classes", frame) == pytest.approx(np.mean(recalls))


numbers = st.floats(-1e6, 1e6, allow_nan=False).map(lambda x: round(x, 3))


@settings(max_examples=25)
@given(st.lists(st.tuples(numbers, numbers), min_size=3, max_size=60))
def test_metrics_of_numbers_are_those_of_scikit_learn(pairs: list[tuple[float, float]]) -> None:
    truth, said = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    assume(np.std(truth) > 0.1)
    frame = labelled(truth, said)
    assert value("mae", "number", frame) == pytest.approx(sk.mean_absolute_error(truth, said))
    assert value("rmse", "number", frame) == pytest.approx(sk.root_mean_squared_error(truth, said))
    assert value("r2", "number", frame) == pytest.approx(sk.r2_score(truth, said), rel=1e-6)
    assert value("bias", "number", frame) == pytest.approx(np.mean(np.subtract(said, truth)), abs=1e-6)


items = st.integers(0, 8).map(str)


@settings(max_examples=25)
@given(st.lists(st.tuples(st.lists(items, max_size=5), st.lists(items, max_size=8)), max_size=12), st.integers(1, 6))
def test_metrics_of_rankings_are_those_of_their_definitions(lists: list[Any], top: int) -> None:
    truth, said = [pair[0] for pair in lists], [pair[1] for pair in lists]
    dtype = pl.List(pl.String)
    frame = pl.DataFrame(
        {
            "truth": pl.Series(truth, dtype=dtype),
            "prediction": pl.Series(said, dtype=dtype),
            "score": [0.0] * len(lists),
        }
    )
    gains, ranks = [], []
    for wanted, offered in ((set(a), list(dict.fromkeys(b))[:top]) for a, b in lists if a):
        places = [place for place, item in enumerate(offered) if item in wanted]
        best = sum(1 / math.log2(place + 2) for place in range(min(len(wanted), top)))
        gains.append(sum(1 / math.log2(place + 2) for place in places) / best)
        ranks.append(1 / (places[0] + 1) if places else 0.0)
    if not gains:
        assert value("ndcg", "ranking", frame, top) is None
        return
    assert value("ndcg", "ranking", frame, top) == pytest.approx(np.mean(gains))
    assert value("reciprocal_rank", "ranking", frame, top) == pytest.approx(np.mean(ranks))
    assert value("hit_rate", "ranking", frame, top) == pytest.approx(np.mean([rank > 0 for rank in ranks]))


# --- intervals hold their level -----------------------------------------------------------------------------------

RUNS = 150
LOWEST = 0.9  # of 150 runs at 95 %: below it with a chance of 0.7 %


def test_intervals_of_two_classes_hold_their_level() -> None:
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(RUNS):
        score = rng.beta(1.2, 2.5, 250)
        frames.append(labelled(rng.random(250) < score, score > 0.4, score))
    many = rng.beta(1.2, 2.5, 200_000)
    truth = rng.random(len(many)) < many
    whole = labelled(truth, many > 0.4, many)
    for name in ("precision", "recall", "f1", "balanced_accuracy", "average_precision", "log_loss", "macro_f1"):
        real = value(name, "binary", whole)
        assert real is not None
        assert cover(name, "binary", frames, real) >= LOWEST, name


def test_intervals_of_many_classes_hold_their_level() -> None:
    rng = np.random.default_rng(1)
    shares, right = np.array([0.5, 0.3, 0.15, 0.05]), np.array([0.9, 0.7, 0.6, 0.5])

    def draw(n: int) -> Frame:
        truth = rng.choice(4, n, p=shares)
        said = np.where(rng.random(n) < right[truth], truth, rng.integers(0, 4, n))
        return labelled(truth.astype(str), said.astype(str))

    frames, whole = [draw(400) for _ in range(RUNS)], draw(200_000)
    for name in ("macro_f1", "balanced_accuracy"):
        real = value(name, "classes", whole)
        assert real is not None
        assert cover(name, "classes", frames, real) >= LOWEST, name


def test_intervals_of_numbers_hold_their_level() -> None:
    rng = np.random.default_rng(2)

    def draw(n: int) -> Frame:
        truth = rng.gamma(3.0, 2.0, n)
        return labelled(truth, truth + rng.standard_t(8, n) + 0.2)

    frames, whole = [draw(300) for _ in range(RUNS)], draw(200_000)
    for name in ("mae", "rmse", "bias", "r2"):
        real = value(name, "number", whole)
        assert real is not None
        assert cover(name, "number", frames, real) >= LOWEST, name


def test_the_mean_of_independent_shares_holds_its_level() -> None:
    rng = np.random.default_rng(3)
    held = []
    for _ in range(1_000):
        shares = [wilson(int(rng.binomial(n, p)), n) for n, p in ((40, 0.9), (200, 0.5), (15, 0.7))]
        estimate = mean_of_shares([share for share in shares if share])
        held.append(estimate.low <= 0.7 <= estimate.high)
    assert np.mean(held) >= 0.93


def test_values_that_are_all_alike_are_not_taken_for_certain() -> None:
    found = mean(np.zeros(20), lowest=0.0, highest=1.0)
    assert (found.value, found.low) == (0.0, 0.0)
    assert found.high == pytest.approx(1 - 0.025 ** (1 / 20))
    assert in_unit(1.0, 0.1) == Estimate(1.0, 0.0, 1.0)


# --- kinds, and what counts ---------------------------------------------------------------------------------------


def test_a_metric_without_meaning_for_the_labels_is_refused_with_those_that_have_one() -> None:
    with pytest.raises(Misuse, match="expected a metric of labels of kind `number`, found `f1`; there are bias, mae"):
        measure(Metric(name="f1"), "number", labelled([1.0], [1.0]))
    assert set().union(*KINDS.values()) == set(get_args(get_type_hints(Metric)["name"]))


def test_rows_without_a_truth_or_a_prediction_do_not_count() -> None:
    frame = labelled([True, None, False, True], [True, True, None, False], [0.9, 0.9, 0.1, None])
    assert measure(Metric(name="accuracy"), "binary", frame).n == 2
    assert measure(Metric(name="brier"), "binary", frame).n == 2
    assert measure(Metric(name="accuracy"), "binary", frame.clear()) == Measured(metric="accuracy", estimate=None, n=0)
