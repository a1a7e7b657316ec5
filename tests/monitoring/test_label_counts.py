"""Counts of labels and business metrics, of all decisions and within segments."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
import pytest

from mainstay.capability.keeping import BusinessMetric, Labels, Metric
from mainstay.monitoring.label_counts import business_value, count_business, count_labels, measured_segments
from mainstay.monitoring.windows import frame_of

AT = datetime(2026, 3, 2, tzinfo=UTC)
YES = Labels(kind="binary", truth="yes", score="probability", prediction="yes")


def counted(truth: Any, said: Any, place: list[str]) -> pl.DataFrame:
    """The rows of counts of labelled decisions, within places that are named, and the rest."""
    rows = pl.DataFrame({"truth": truth, "prediction": said, "segment.place": place}).with_columns(
        pl.lit(AT, pl.Datetime("us", "UTC")).alias("at"),
        pl.lit("answered").alias("outcome"),
        pl.lit("v").alias("version"),
        pl.lit("production").alias("stage"),
        pl.lit(0.5).alias("score"),
        pl.lit(0.0).alias("delay_seconds"),
    )
    return frame_of(count_labels(YES, rows, {"place": sorted(set(place))}, 24.0, 1))


def test_segments_hold_together_with_the_declared_level() -> None:
    """Of 20 segments that are all alike, in 95 % of the runs no interval leaves out the truth."""
    rng = np.random.default_rng(4)
    whole = []
    for _ in range(40):
        truth = rng.random(4_000) < 0.5
        said = np.where(rng.random(4_000) < 0.8, truth, ~truth)
        rows = counted(truth, said, rng.integers(0, 20, 4_000).astype(str).tolist())
        found = measured_segments(Metric(name="accuracy"), YES, rows, fewest=50)
        assert {one.compared for one in found} == {20}
        whole.append(all(one.estimate and one.estimate.low <= 0.8 <= one.estimate.high for one in found))
    assert np.mean(whole) >= 0.85


def test_small_segments_are_left_out_and_the_largest_comes_first() -> None:
    rows = counted([True] * 300, [True] * 300, ["b"] * 200 + ["a"] * 70 + ["c"] * 30)
    found = measured_segments(Metric(name="accuracy"), YES, rows, fewest=50)
    assert [(one.segment, one.n) for one in found] == [(("place", "b"), 200), (("place", "a"), 70)]


def decided(*rows: tuple[str, str, str | None]) -> pl.DataFrame:
    frame = pl.DataFrame(rows, schema=dict.fromkeys(("input", "output", "outcome_json"), pl.String), orient="row")
    return frame.with_columns(
        pl.lit(AT, pl.Datetime("us", "UTC")).alias("at"), version=pl.lit("v"), stage=pl.lit("production")
    )


def test_a_business_metric_is_a_mean_with_what_was_left_out() -> None:
    profit = BusinessMetric(
        name="profit", expression="if(output.approve, if(outcome.repaid, .1, -1) * input.amount, 0)", unit="EUR"
    )
    words = {True: "true", False: "false"}
    rows = [
        (f'{{"amount":{i}}}', f'{{"approve":{words[i % 2 == 0]}}}', f'{{"repaid":{words[i % 4 == 0]}}}')
        for i in range(100)
    ]
    frame = decided(*rows, ("{}", "{}", None), ('{"amount":5}', '{"approve":true}', None))
    counts = frame_of(count_business([profit], frame, 24.0, 1, labelled=True))
    found = business_value(counts)
    expected = [0.0 if i % 2 else i * (0.1 if i % 4 == 0 else -1) for i in range(100)]
    assert (found.n, found.left_out) == (100, 2)
    assert found.estimate is not None
    assert found.estimate.value == pytest.approx(sum(expected) / 100)
    assert found.estimate.low < found.estimate.value < found.estimate.high
    back = frame_of(count_business([profit], frame.tail(1), 24.0, -1, labelled=True))
    assert business_value(pl.concat([counts, back])).left_out == 1


def test_a_business_metric_without_any_value_is_unknown_and_counts_the_decisions() -> None:
    nothing = BusinessMetric(name="none", expression="1 / 0")
    found = business_value(frame_of(count_business([nothing], decided(("{}", "{}", None)), 24.0, 1, labelled=False)))
    assert found == (None, 0, 1)
