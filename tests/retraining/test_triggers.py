"""What asks for retraining, and what must not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from mainstay.capability.keeping import Retraining, Trigger
from mainstay.monitoring.findings import Cause, Finding, Standing
from mainstay.retraining.triggers import Barred, Past, Wish, look

if TYPE_CHECKING:
    from mainstay.monitoring.findings import Kind

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DECLARED = Retraining(train="train.py:train", cooldown_days=7)


def standing(code: str, kind: Kind, *, resolved: bool = False) -> Standing:
    finding = Finding(
        code=code,
        severity="warning",
        capability="tiny",
        text=f"{code} of something",
        window_from=NOW - timedelta(days=1),
        window_to=NOW,
        rows=1_000,
        cause=Cause(kind=kind, why="because"),
    )
    return Standing(
        id=f"{code}-{kind}",
        finding=finding,
        since=NOW,
        first_seen=NOW,
        last_seen=NOW,
        passes=1,
        resolved=NOW if resolved else None,
    )


def seen(*standings: Standing, past: Past | None = None, **triggers: Any) -> Wish | Barred | None:
    declared = Retraining(train="train.py:train", cooldown_days=7, triggers=Trigger(**triggers))
    return look(declared, standings, past or Past(), NOW)


@pytest.mark.parametrize("code", ["quality_below", "quality_fell", "business_missed"])
@pytest.mark.parametrize("kind", ["world_changed", "model_wrong", "unclear"])
def test_a_metric_that_is_surely_worse_asks(code: str, kind: Kind) -> None:
    found = seen(standing(code, kind))
    assert isinstance(found, Wish)
    assert found == Wish("performance", f"{code} of something", (f"{code}-{kind}",))
    assert seen(standing(code, kind), performance=False, drift_with_harm=False) is None


@pytest.mark.parametrize("kind", ["traffic_mix", "service"])
def test_what_is_not_the_models_does_not_ask(kind: Kind) -> None:
    assert seen(standing("quality_below", kind), standing("input_drift", kind)) is None


def test_drift_asks_with_harm_only() -> None:
    drift, estimate = standing("input_drift", "world_changed"), standing("estimate_below", "world_changed")
    assert seen(drift) is None
    assert seen(estimate) is None
    found = seen(drift, estimate)
    assert isinstance(found, Wish)
    assert found.cause == "drift_with_harm"
    assert set(found.findings) == {drift.id, estimate.id}
    assert seen(drift, estimate, drift_with_harm=False) is None


def test_broken_data_bar_what_would_ask() -> None:
    spike = standing("contract_violations", "data_broken")
    found = seen(standing("quality_below", "world_changed"), spike)
    assert isinstance(found, Barred)
    assert found.findings == (spike.id,)
    assert found.wish.cause == "performance"
    assert seen(spike) is None, "and ask for nothing themselves"
    assert isinstance(
        seen(standing("quality_below", "world_changed"), standing(spike.finding.code, "data_broken", resolved=True)),
        Wish,
    )
    assert isinstance(seen(spike, past=Past(last_ended=NOW - timedelta(days=31)), every_days=30), Barred)


def test_what_is_over_does_not_ask() -> None:
    assert seen(standing("quality_below", "world_changed", resolved=True)) is None


def test_nothing_asks_before_the_cool_down_is_over() -> None:
    worse = standing("quality_below", "world_changed")
    assert seen(worse, past=Past(last_ended=NOW - timedelta(days=6))) is None
    assert isinstance(seen(worse, past=Past(last_ended=NOW - timedelta(days=7))), Wish)


def test_the_calendar_asks_since_the_last_run_or_the_first_release() -> None:
    assert seen(every_days=30) is None, "it was never in production"
    for past in (Past(first_release=NOW - timedelta(days=30)), Past(last_ended=NOW - timedelta(days=30))):
        found = seen(past=past, every_days=30)
        assert isinstance(found, Wish)
        assert found.cause == "schedule"
    recent = Past(first_release=NOW - timedelta(days=90), last_ended=NOW - timedelta(days=29))
    assert seen(past=recent, every_days=30) is None
