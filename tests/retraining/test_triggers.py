"""What asks for retraining, and what must not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from mainstay.capability.keeping import Retraining, Trigger
from mainstay.catalog.types import Canary, Release
from mainstay.monitoring.findings import Cause, Finding, Standing
from mainstay.retraining.triggers import Barred, Past, Wish, look

if TYPE_CHECKING:
    from mainstay.monitoring.findings import Kind, Severity

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DECLARED = Retraining(train="train.py:train", cooldown_days=7)
PRODUCTION, CANARY, GONE = (f"sha256:{letter * 64}" for letter in "abc")
RELEASE = Release(
    format="mainstay-release/1",
    capability="tiny",
    number=3,
    stage="production",
    version=PRODUCTION,
    contract=PRODUCTION,
    canary=Canary(version=CANARY, contract=CANARY, percent=5.0),
    published_at="2026-05-01T00:00:00Z",
    published_by="os:ops",
    reason="a trial",
)


def standing(
    code: str, kind: Kind, *, resolved: bool = False, severity: Severity = "warning", **about: str | None
) -> Standing:
    finding = Finding(
        code=code,
        severity=severity,
        capability="tiny",
        text=f"{code} of something",
        window_from=NOW - timedelta(days=1),
        window_to=NOW,
        rows=1_000,
        cause=Cause(kind=kind, why="because"),
        **about,  # type: ignore[arg-type]  # the names of texts
    )
    return Standing(
        id=f"{code}-{kind}-{about.get('version')}",
        finding=finding,
        since=NOW,
        first_seen=NOW,
        last_seen=NOW,
        passes=1,
        resolved=NOW if resolved else None,
    )


def seen(*standings: Standing, past: Past | None = None, **triggers: Any) -> Wish | Barred | None:
    declared = Retraining(train="train.py:train", cooldown_days=7, triggers=Trigger(**triggers))
    return look(declared, standings, past or Past(), NOW, RELEASE)


@pytest.mark.parametrize("code", ["quality_below", "quality_fell"])
@pytest.mark.parametrize("kind", ["world_changed", "model_wrong", "unclear"])
def test_a_metric_that_is_surely_worse_asks(code: str, kind: Kind) -> None:
    worse = standing(code, kind, version=PRODUCTION)
    assert seen(worse) == Wish("performance", f"{code} of something", (worse.id,))
    assert seen(worse, performance=False, drift_with_harm=False) is None


def test_a_number_of_the_business_asks_where_something_drifted_and_not_by_itself() -> None:
    missed = standing("business_missed", "unclear")
    assert seen(missed) is None, "it is made of more than the model"
    drift = standing("input_drift", "world_changed", version=PRODUCTION)
    found = seen(missed, drift)
    assert isinstance(found, Wish)
    assert (found.cause, found.findings) == ("drift_with_harm", (missed.id, drift.id))


@pytest.mark.parametrize("version", [CANARY, GONE])
def test_what_is_found_of_another_version_than_that_in_production_asks_for_nothing(version: str) -> None:
    worse = standing("quality_below", "model_wrong", version=version)
    drift = standing("input_drift", "world_changed", version=version)
    assert seen(worse, drift) is None
    assert seen(standing("input_drift", "world_changed", version=PRODUCTION), worse) is None, "nor is it harm of it"


def test_what_is_broken_bars_as_long_as_it_is_about_the_data_or_about_who_decides() -> None:
    worse = standing("quality_below", "model_wrong", version=PRODUCTION)
    unit = standing("unit_changed", "data_broken", version=GONE, column="input.a")
    assert isinstance(seen(worse, unit), Barred), "the data are broken for every version"
    assert isinstance(seen(worse, standing("quality_below", "data_broken", version=CANARY)), Barred)
    gone = [
        standing("quality_below", "data_broken", version=GONE),
        standing("values_missing", "data_broken", version=GONE, column="output.probability"),
    ]
    assert isinstance(seen(worse, *gone), Wish), "what a version that has left made of them is no matter"


def test_labels_that_are_late_bar_only_where_most_of_them_are() -> None:
    worse = standing("quality_below", "model_wrong", version=PRODUCTION)
    assert isinstance(seen(worse, standing("labels_late", "data_broken", severity="info", version=PRODUCTION)), Wish)
    assert isinstance(seen(worse, standing("labels_late", "data_broken", version=PRODUCTION)), Barred)


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
