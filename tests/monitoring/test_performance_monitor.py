from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal

import msgspec
import numpy as np
import polars as pl
import pytest

from mainstay.capability.keeping import Metric
from mainstay.errors import Misuse
from mainstay.monitoring.estimation import estimate, fit_estimator
from mainstay.monitoring.intervals import Estimate, mean, wilson
from mainstay.monitoring.performance import roc_auc
from mainstay.monitoring.performance_monitor import (
    MetricWindow,
    MonitorState,
    PerformanceMonitor,
    PerformanceReference,
    learn_reference,
    rate_for,
)
from shared_data import shared_data

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
SAID = ("prediction", "predicted_probability")
ACCURACY = Metric(name="accuracy")


def window(place: int, estimate: Estimate | None, labels: int, *, mature: bool = True) -> MetricWindow:
    begin = START + place * HOUR
    return MetricWindow(start=begin, end=begin + HOUR, estimate=estimate, labels=labels, mature=mature)


def accuracies(rates: np.ndarray[tuple[int], np.dtype[np.float64]], n: int, seed: int) -> list[MetricWindow]:
    right = np.random.default_rng(seed).binomial(n, rates)
    return [window(i, wilson(int(hits), n), n) for i, hits in enumerate(right)]


def test_looking_ten_thousand_times_gives_no_more_false_alarms_than_stated() -> None:
    rate, windows, monitors = 0.01, 200, 50
    alarms = 0
    for seed in range(monitors):
        made = accuracies(np.full(30 + windows, 0.9), 200, seed)
        monitor = PerformanceMonitor(ACCURACY, learn_reference("accuracy", made[:30]), rate=rate)
        alarms += sum(monitor.look(one).state == "degraded" for one in made[30:])
    # At most 1 % of 10,000 looks; Poisson, 99.9 %.
    assert alarms <= rate * windows * monitors + 3.1 * (rate * windows * monitors) ** 0.5


def test_windows_that_differ_among_each_other_give_no_more_false_alarms_than_stated() -> None:
    rate, windows, monitors = 0.01, 150, 40
    alarms = 0
    for seed in range(monitors):
        rates = np.clip(np.random.default_rng(1_000 + seed).normal(0.85, 0.03, 30 + windows), 0, 1)
        made = accuracies(rates, 500, seed)
        monitor = PerformanceMonitor(ACCURACY, learn_reference("accuracy", made[:30]), rate=rate)
        alarms += sum(monitor.look(one).state == "degraded" for one in made[30:])
    assert alarms <= rate * windows * monitors + 3.1 * (rate * windows * monitors) ** 0.5


@pytest.mark.parametrize(("drop", "most_windows"), [(0.02, 40), (0.05, 10), (0.2, 2)])
def test_a_drop_is_found_and_its_beginning_with_it(drop: float, most_windows: int) -> None:
    delays, beginnings = [], []
    for seed in range(20):
        made = accuracies(np.r_[np.full(60, 0.9), np.full(100, 0.9 - drop)], 500, seed)
        monitor = PerformanceMonitor(ACCURACY, learn_reference("accuracy", made[:30]), rate=0.005)
        verdicts = [monitor.look(one) for one in made[30:]]
        first = next(i for i, verdict in enumerate(verdicts) if i >= 30 and verdict.state == "degraded")
        delays.append(first - 29)
        evidence = verdicts[first].retrain
        assert evidence is not None
        beginnings.append(abs((evidence.since - START) / HOUR - 60))
        assert evidence.evidence >= evidence.needed == 200
    assert np.median(delays) <= most_windows
    assert np.median(beginnings) <= 8


def test_the_evidence_says_how_much_was_lost() -> None:
    made = accuracies(np.r_[np.full(60, 0.9), np.full(40, 0.8)], 1_000, 1)
    monitor = PerformanceMonitor(ACCURACY, learn_reference("accuracy", made[:50]))
    verdict = next(verdict for verdict in map(monitor.look, made[50:]) if verdict.retrain)
    assert verdict.retrain is not None
    assert verdict.retrain.loss.low < 0.1 < verdict.retrain.loss.high
    assert "worse since 2026-01-03 12:00" in verdict.why


def test_a_declared_bound_is_what_counts() -> None:
    monitor = PerformanceMonitor(Metric(name="mae", at_most=10.0))
    rng = np.random.default_rng(3)
    states = [monitor.look(window(i, mean(rng.exponential(9.0, 200)), 200)).state for i in range(100)]
    assert "degraded" not in states
    later = [monitor.look(window(100 + i, mean(rng.exponential(14.0, 200)), 200)).state for i in range(10)]
    assert "degraded" in later


@pytest.mark.parametrize("shift", [-1.0, 1.0])
def test_bias_is_bad_on_both_sides(shift: float) -> None:
    rng = np.random.default_rng(4)
    calm = [window(i, mean(rng.normal(0.1, 3.0, 200)), 200) for i in range(20)]
    monitor = PerformanceMonitor(Metric(name="bias"), learn_reference("bias", calm))
    states = [monitor.look(window(20 + i, mean(rng.normal(0.1 + shift, 3.0, 200)), 200)).state for i in range(20)]
    assert "degraded" in states


def test_an_immature_window_is_unknown_and_may_be_shown_again() -> None:
    monitor = PerformanceMonitor(Metric(name="accuracy", at_least=0.5))
    young = monitor.look(window(0, wilson(90, 100), 100, mature=False))
    assert young.state == "unknown"
    assert young.why == "not enough of its labels have come yet"
    few = monitor.look(window(0, wilson(9, 10), 10))
    assert few.why == "expected at least 50 labels to say anything, found 10"
    assert monitor.look(window(0, None, 100)).why == "the labels do not allow to compute it"
    assert monitor.look(window(0, wilson(90, 100), 100)).state == "fine"
    with pytest.raises(Misuse, match="each is judged once"):
        monitor.look(window(0, wilson(90, 100), 100))


def test_worse_by_what_chance_explains_is_unknown_and_not_fine() -> None:
    monitor = PerformanceMonitor(Metric(name="accuracy", at_least=0.9))
    verdict = monitor.look(window(0, wilson(84, 100), 100))
    assert (verdict.state, verdict.retrain) == ("unknown", None)
    assert "chance may be why" in verdict.why


def test_a_monitor_goes_on_from_its_state_as_if_it_had_not_stopped() -> None:
    made = accuracies(np.r_[np.full(40, 0.9), np.full(20, 0.87)], 400, 5)
    reference = learn_reference("accuracy", made[:20])
    one = PerformanceMonitor(ACCURACY, reference)
    verdicts = [one.look(each) for each in made[20:]]
    state = MonitorState()
    again = []
    for each in made[20:]:
        monitor = PerformanceMonitor(ACCURACY, reference, state=state)
        again.append(monitor.look(each))
        state = msgspec.json.decode(msgspec.json.encode(monitor.state), type=MonitorState)
    assert again == verdicts


def test_the_rate_is_shared_among_metrics() -> None:
    assert rate_for(0.5, 24.0) == pytest.approx(0.5 * 24 / 730.5)
    assert rate_for(0.5, 24.0, metrics=4) == pytest.approx(0.125 * 24 / 730.5)


def test_a_monitor_needs_something_to_hold_against() -> None:
    with pytest.raises(Misuse, match="expected a declared bound of `accuracy`, or a reference"):
        PerformanceMonitor(ACCURACY)
    with pytest.raises(Misuse, match="at least 3 windows with 50 labels each, found 2"):
        learn_reference("accuracy", accuracies(np.full(2, 0.9), 100, 0))


def read_census() -> tuple[pl.DataFrame, pl.DataFrame]:
    folder = shared_data("streams")
    later = pl.read_csv(folder / "acs_employment_ma_analysis.csv")
    truth = pl.read_csv(folder / "acs_employment_ma_analysis_target.csv")
    return pl.read_csv(folder / "acs_employment_ma_reference.csv"), later.join(truth, on="id")


NAMES: tuple[Literal["accuracy", "roc_auc"], ...] = ("accuracy", "roc_auc")


def test_on_the_census_stream_where_nothing_degraded_there_is_no_alarm_about_a_year() -> None:
    reference, later = read_census()
    years = [part for _, part in later.group_by(["year"], maintain_order=True)]
    for name in NAMES:
        known = learn_reference(name, measured(name, list(reference.iter_slices(5_000))))
        monitor = PerformanceMonitor(Metric(name=name), known, rate=0.01)
        assert "degraded" not in [monitor.look(one).state for one in measured(name, years)]


def test_alarms_about_a_few_thousand_harder_cases_say_that_the_cases_explain_them() -> None:
    reference, later = read_census()
    fields = [name for name in reference.columns if name not in ("id", "year", "employed", *SAID)]
    said, scores = (reference[name].to_numpy() for name in SAID)
    estimator = fit_estimator(reference["employed"].to_numpy() == 1, scores, said == 1, reference.select(fields))
    known = learn_reference("accuracy", measured("accuracy", list(reference.iter_slices(5_000))))
    monitor = PerformanceMonitor(ACCURACY, known, rate=0.01)
    chunks = list(later.iter_slices(5_000))
    verdicts = []
    for one, chunk in zip(measured("accuracy", chunks), chunks, strict=True):
        scores, said = chunk[SAID[1]].to_numpy(), chunk[SAID[0]].to_numpy() == 1
        (expected,) = estimate(estimator, scores, said, chunk.select(fields), ["accuracy"])
        given = Estimate(expected.value, expected.low, expected.high)
        verdicts.append(monitor.look(msgspec.structs.replace(one, expected=given)))
    degraded = [verdict for verdict in verdicts if verdict.state == "degraded"]
    assert len(degraded) <= 2
    assert all(verdict.explained and "as these inputs let expect" in verdict.why for verdict in degraded)


def measured(name: str, chunks: list[pl.DataFrame]) -> list[MetricWindow]:
    found = []
    for place, chunk in enumerate(chunks):
        truth = chunk["employed"].to_numpy() == 1
        if name == "accuracy":
            given = wilson(int((truth == (chunk["prediction"].to_numpy() == 1)).sum()), len(chunk))
        else:
            given = roc_auc(truth, chunk["predicted_probability"].to_numpy())
        found.append(window(place, given, len(chunk)))
    return found


def test_a_reference_knows_how_much_windows_differ() -> None:
    rates = np.random.default_rng(0).normal(0.8, 0.04, 200)
    reference = learn_reference("accuracy", accuracies(rates, 1_000, 0))
    assert isinstance(reference, PerformanceReference)
    assert reference.deviation == pytest.approx(0.04, abs=0.008)
    assert reference.low < 0.8 < reference.high
