"""What is estimated of counts is what is estimated of rows, and estimates are held against what labels say later."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainstay.capability.keeping import Labels, Metric
from mainstay.monitoring.drifting import Window
from mainstay.monitoring.estimated_quality import Kept, below_finding, estimate_cohort, find_below, track_of
from mainstay.monitoring.estimation import (
    ASSUMPTION,
    Estimator,
    PerformanceEstimate,
    estimate,
    estimate_windows,
    fit_estimator,
)
from mainstay.monitoring.estimation_counts import ScoreCounts, added_scores, count_scores, estimate_counted
from mainstay.monitoring.expected_metrics import BY_SCORE, ESTIMABLE
from mainstay.monitoring.findings import Cause
from mainstay.monitoring.intervals import Estimate
from mainstay.monitoring.layouts import Layout, Reference

BEGIN = datetime(2026, 3, 2, tzinfo=UTC)
LABELS = Labels(kind="binary", truth="yes", score="probability", prediction="yes")


class Drawn(NamedTuple):
    frame: pl.DataFrame  # as `windows.flat`
    truth: np.ndarray[tuple[int], np.dtype[np.bool_]]


def draw(seed: int, rows: int, shift: float = 0.0) -> Drawn:
    rng = np.random.default_rng(seed)
    group = rng.choice(["old", "new"], rows)
    logit = rng.normal(shift, 1.5, rows)
    score = 1 / (1 + np.exp(-logit))
    real = 1 / (1 + np.exp(-logit - (group == "old")))
    frame = pl.DataFrame(
        {
            "at": [BEGIN + timedelta(hours=24 * place / rows) for place in range(rows)],
            "stage": "production",
            "answered": True,
            "input.group": group,
            "output.probability": score,
            "output.yes": score >= 0.5,
        },
        schema_overrides={"at": pl.Datetime("us", "UTC")},
    )
    return Drawn(frame, rng.random(rows) < real)


def arrays(frame: pl.DataFrame) -> tuple[np.ndarray, np.ndarray, pl.DataFrame]:
    return frame["output.probability"].to_numpy(), frame["output.yes"].to_numpy(), frame.select("input.group")


@pytest.fixture(scope="module")
def estimator() -> Estimator:
    drawn = draw(0, 4_000)
    scores, said, inputs = arrays(drawn.frame)
    return fit_estimator(drawn.truth, scores, said, inputs, chunk_rows=400)


@pytest.fixture(scope="module")
def layout(estimator: Estimator) -> Layout:
    nothing = Reference(of="reference rows", rows=0, blocks={}, segments={})
    return Layout(version="v", columns=(), segments={}, inputs=nothing, outputs=nothing, estimator=estimator)


def test_an_estimate_of_added_steps_is_that_of_their_rows(estimator: Estimator, layout: Layout) -> None:
    assert estimator.partition.splits
    rows = draw(1, 3_000, 0.5).frame
    counted = pl.concat([count_scores(part, layout, LABELS, 1.0) for part in rows.iter_slices(700)])
    assert counted["rows"].sum() == 3_000
    found = estimate_counted(estimator, added_scores(counted, estimator), ESTIMABLE)
    for one in estimate(estimator, *arrays(rows), ESTIMABLE):
        mine = found[one.metric]
        near = 1e-3 if one.metric in BY_SCORE else 1e-9
        assert (mine.value, mine.low, mine.high) == pytest.approx((one.value, one.low, one.high), abs=near)
        assert mine.n == one.n
        assert mine.unsupported == pytest.approx(one.unsupported)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=250), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_windows_at_once_are_what_each_is_when_counted_by_itself(
    estimator: Estimator, sizes: list[int], seed: int, threshold: float
) -> None:
    rng, rows = np.random.default_rng(seed), sum(sizes)
    scores, inputs = rng.random(rows), pl.DataFrame({"input.group": rng.choice(["old", "new", "other"], rows)})
    said = np.where(rng.random(rows) < 0.9, scores >= threshold, rng.random(rows) < 0.5)
    leaves, bins = estimator.partition.leaf_of(inputs).astype(np.int64), estimator.score_bins.bin_of(scores)
    places, end = leaves * estimator.table.groups + bins * np.int64(2) + said, 0
    metrics = [metric for metric in ESTIMABLE if metric not in BY_SCORE]
    for size, found in zip(sizes, estimate_windows(estimator, scores, said, inputs, sizes, metrics), strict=True):
        window = slice(end, end + size)
        end += size
        counts = np.bincount(places[window], minlength=len(estimator.table.chances)).astype(np.float64)
        alone = estimate_counted(estimator, ScoreCounts(counts, np.zeros(len(counts))), metrics)
        assert [one.metric for one in found] == list(alone)
        for one in found:
            assert numbers(one) == pytest.approx(numbers(alone[one.metric]), rel=1e-9, abs=1e-12)


def numbers(one: PerformanceEstimate) -> tuple[float, ...]:
    deviations = one.label_deviation, one.calibration_deviation, one.chunk_deviation
    return one.value, one.low, one.high, one.n, one.unsupported, *deviations


def test_what_is_no_answer_or_has_no_score_is_not_counted(layout: Layout) -> None:
    rows = draw(1, 100).frame.with_columns(
        pl.Series("answered", [place >= 10 for place in range(100)]),
        pl.when(pl.int_range(100) < 20).then(None).otherwise("output.probability").alias("output.probability"),
    )
    assert count_scores(rows, layout, LABELS, 1.0)["rows"].sum() == 80
    without = Layout(version="v", columns=(), segments={}, inputs=layout.inputs, outputs=layout.outputs)
    assert count_scores(rows, without, LABELS, 1.0).is_empty()
    assert count_scores(rows.clear(), layout, LABELS, 1.0).is_empty()


def test_a_metric_whose_whole_interval_is_out_of_its_bound_is_told_as_an_estimate(
    estimator: Estimator, layout: Layout
) -> None:
    rows = count_scores(draw(2, 2_000).frame, layout, LABELS, 1.0)
    probably = estimate_cohort(rows, estimator, "accuracy")
    assert probably is not None
    metrics = [
        Metric(name="accuracy", at_least=probably.high + 0.02),
        Metric(name="roc_auc", at_least=0.5),
        Metric(name="brier", at_most=0.01),
        Metric(name="calibration_error", at_most=0.01),
        Metric(name="f1"),
    ]
    below, seen = find_below(rows, estimator, metrics, rate=0.01, fewest=500)
    assert [each.metric.name for each in below] == ["accuracy", "brier"]
    assert seen == {"accuracy", "roc_auc", "brier"}
    assert below[0].estimate.level == pytest.approx(0.98)
    window = Window(BEGIN, BEGIN + timedelta(days=1), timedelta(hours=1))
    finding = below_finding("tiny", "v", below[0], window, Cause(kind="unclear", why="nothing says why"))
    assert finding.code == "estimate_below"
    assert finding.severity == "warning"
    assert ASSUMPTION in finding.text
    assert "probably" in finding.text
    assert find_below(rows, estimator, metrics, rate=0.01, fewest=2_001) == ([], frozenset())


def test_a_bound_that_is_just_kept_is_told_of_at_most_as_often_as_stated(estimator: Estimator, layout: Layout) -> None:
    # What the estimator would say of very many rows is the bound: half of all windows are below it.
    counted = pl.concat([count_scores(draw(seed, 20_000).frame, layout, LABELS, 24.0) for seed in range(100, 110)])
    truth = estimate_cohort(counted, estimator, "accuracy")
    assert truth is not None
    metrics = [Metric(name="accuracy", at_least=truth.value)]
    windows = [count_scores(draw(seed, 300).frame, layout, LABELS, 24.0) for seed in range(200, 500)]
    told = sum(bool(find_below(rows, estimator, metrics, rate=0.05, fewest=100)[0]) for rows in windows)
    assert told <= 300 * 0.05


def test_estimates_are_held_against_what_labels_say(estimator: Estimator, layout: Layout) -> None:
    def kept(seed: int, *, changed: bool) -> Kept:
        drawn = draw(seed, 1_000)
        one = estimate_cohort(count_scores(drawn.frame, layout, LABELS, 24.0), estimator, "accuracy")
        assert one is not None
        right = float((drawn.frame["output.yes"].to_numpy() == drawn.truth).mean()) - 0.2 * changed
        return Kept(start=BEGIN, estimate=one, truth=Estimate(right, right - 0.02, right + 0.02))

    held = track_of([kept(seed, changed=False) for seed in range(20)])
    assert held is not None
    assert held.holds is True
    off = track_of([kept(seed, changed=True) for seed in range(20)])
    assert off is not None
    assert off.holds is False
    assert track_of([]) is None
