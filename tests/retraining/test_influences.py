"""What each case contributes to a metric."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest

from mainstay.capability.keeping import METRICS, Metric
from mainstay.monitoring.metrics import measure
from mainstay.retraining.cases import Cases, block
from mainstay.retraining.influences import influence
from mainstay.retraining.rows import as_objects

if TYPE_CHECKING:
    from mainstay.capability.keeping import LabelKind, MetricName

N = 240
EACH = [(kind, metric) for kind, names in METRICS.items() for metric in names]
ITEMS = np.array(list("abcdefgh"))


def played(kind: LabelKind, seed: int = 0, n: int = N) -> Cases:
    """Cases of which what was said is right now and then."""
    random = np.random.default_rng(seed)
    hidden = random.normal(size=n)
    said = hidden + random.normal(size=n)
    match kind:
        case "binary":
            return Cases(hidden > 0.5, said > 0.4, np.round(1 / (1 + np.exp(-said)), 2))
        case "classes":
            names = np.array(["x", "y", "z"])
            return Cases(names[np.digitize(hidden, (0, 1))], names[np.digitize(said, (0, 1))].astype(object), None)
        case "number":
            return Cases(hidden, said, None)
        case "ranking":
            order = hidden[:, None] + random.normal(size=(n, len(ITEMS)))
            liked = as_objects([ITEMS[row > 1.5].tolist() for row in order])
            offered = as_objects([ITEMS[np.argsort(-row)].tolist() for row in order + random.normal(size=order.shape)])
            return Cases(liked, offered, None)


def value(metric: MetricName, cases: Cases, top: int = 3) -> float:
    found = influence(metric, cases, block(np.arange(len(cases.truth))), top)
    assert found is not None
    return found.value


@pytest.mark.parametrize(("kind", "metric"), EACH)
def test_every_metric_has_the_value_that_monitors_show(kind: LabelKind, metric: MetricName) -> None:
    cases = played(kind)
    columns: dict[str, Any] = {"truth": list(cases.truth), "prediction": list(cases.predicted())}
    frame = pl.DataFrame(columns).with_columns(score=pl.lit(None) if cases.score is None else pl.Series(cases.score))
    shown = measure(Metric(name=metric, top=3), kind, frame).estimate
    assert shown is not None
    assert value(metric, cases) == pytest.approx(shown.value)


@pytest.mark.parametrize(("kind", "metric"), EACH)
def test_contributions_add_up_to_nothing_and_shares_to_one(kind: LabelKind, metric: MetricName) -> None:
    found = influence(metric, played(kind), block(np.arange(N) // 6), 3)
    assert found is not None
    if metric != "calibration_error":
        assert found.parts.sum() == pytest.approx(0, abs=1e-12)
    assert found.rests_on
    for shares in found.rests_on:
        assert shares.shape == (N,)
        assert shares.sum() == pytest.approx(1)
        assert shares.min() >= 0
    assert 0 <= found.step < 0.2


@pytest.mark.parametrize(("kind", "metric"), [each for each in EACH if each[1] != "calibration_error"])
def test_a_case_contributes_what_the_metric_loses_without_it(kind: LabelKind, metric: MetricName) -> None:
    cases = played(kind)
    found = influence(metric, cases, block(np.arange(N)), 3)
    assert found is not None
    for case in range(0, N, 7):
        left = value(metric, cases.taken(np.arange(N) != case))
        assert found.value - left == pytest.approx(found.parts[case], rel=0.05, abs=12 / N**2)


def test_the_room_for_chance_in_a_calibration_error_grows_with_what_days_share() -> None:
    random = np.random.default_rng(0)
    days = np.repeat(np.arange(30), 40)
    rate = np.clip(0.5 + 0.3 * random.normal(size=30)[days], 0, 1)
    cases = Cases(random.random(1_200) < rate, None, random.choice([0.3, 0.5, 0.7], 1_200))
    alone, by_day = (influence("calibration_error", cases, block(each), 10) for each in (np.arange(1_200), days))
    assert alone is not None
    assert by_day is not None
    assert by_day.value == alone.value
    assert by_day.below + by_day.above > 1.5 * (alone.below + alone.above)


def test_lists_for_which_nothing_was_relevant_are_left_out() -> None:
    cases = played("ranking")
    empty = np.array([not each for each in cases.truth])
    assert 0 < empty.sum() < N
    found = influence("ndcg", cases, block(np.arange(N)), 3)
    assert found is not None
    assert not found.parts[empty].any()
    assert not found.rests_on[0][empty].any()
    assert found.value == pytest.approx(value("ndcg", cases.taken(~empty)))
    assert influence("ndcg", cases.taken(empty), block(np.arange(int(empty.sum()))), 3) is None
