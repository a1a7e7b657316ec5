from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
import pytest
from scipy.stats import betabinom, binom, false_discovery_control

from mainstay.errors import Misuse
from mainstay.monitoring.maturity import Cohort, MaturityCurve, judge_cohorts, learn_curve

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = 86_400.0
Floats = np.ndarray[tuple[int], np.dtype[np.float64]]


def watch(rng: np.random.Generator, n: int, *, days: float = 30.0, ever: float = 0.9) -> tuple[Floats, Floats, Floats]:
    """Delays as they will be (NaN: never), as seen now, and ages, of decisions over `days`."""
    ages = rng.uniform(0, days, n) * DAY
    delays = np.where(rng.random(n) < ever, rng.exponential(3 * DAY, n), np.nan)
    return delays, np.where(delays <= ages, delays, np.nan), ages


def test_the_curve_is_that_of_kaplan_and_meier_by_hand() -> None:
    # 30 labels at 1, a decision of age 1.5, 20 labels at 2, 9 waited for until 3.
    delays = np.r_[np.full(30, 1.0), np.nan, np.full(20, 2.0), np.full(9, np.nan)]
    ages = np.r_[np.full(30, 3.0), 1.5, np.full(20, 3.0), np.full(9, 3.0)]
    curve = learn_curve(delays, ages)
    assert curve.seconds == (1.0, 2.0)
    assert curve.shares == pytest.approx((0.5, 1 - 0.5 * 9 / 29))
    variance = 0.5**2 * (30 / (60 * 30))
    assert curve.deviations[0] == pytest.approx(variance**0.5)
    assert [curve.share_at(seconds) for seconds in (0.9, 1.0, 1.9, 99.0)] == pytest.approx(
        [0, 0.5, 0.5, curve.shares[1]]
    )
    assert (curve.decisions, curve.labels, curve.horizon_seconds) == (60, 50, 3.0)


def test_decisions_too_young_do_not_bend_the_curve() -> None:
    _, seen, ages = watch(np.random.default_rng(0), 20_000)
    curve = learn_curve(seen, ages)
    for days in (1, 3, 6, 12):
        assert curve.share_at(days * DAY) == pytest.approx(0.9 * (1 - np.exp(-days / 3)), abs=0.015)
    # What a plain share of labelled decisions would say is far off.
    assert np.mean(~np.isnan(seen)) < 0.83
    assert len(curve.seconds) <= 512
    assert curve.age_of(0.95) == pytest.approx(-np.log(0.05) * 3 * DAY, rel=0.1)
    assert msgspec.json.decode(msgspec.json.encode(curve), type=MaturityCurve) == curve


def test_the_interval_of_the_curve_holds_its_level() -> None:
    real = 0.9 * (1 - np.exp(-1))
    held = []
    for seed in range(200):
        _, seen, ages = watch(np.random.default_rng(seed), 300)
        interval = learn_curve(seen, ages).interval_at(3 * DAY)
        held.append(interval.low <= real <= interval.high)
    assert np.mean(held) >= 0.905


def cohorts_of(
    rng: np.random.Generator, curve: MaturityCurve, *, spread: float = 0.0, broken: int = -1, n: int = 800
) -> list[Cohort]:
    """30 cohorts of a day each; in one, half of the labels are lost. Shares vary among cohorts by `spread`."""
    found = []
    for day in range(30):
        ages = (30 - day - rng.random(n)) * DAY
        shares = np.clip(curve.shares_at(ages) * (1 + spread * rng.standard_normal()), 0, 1)
        labelled = rng.random(n) < shares * (0.5 if day == broken else 1.0)
        start, expected = START + timedelta(days=day), float(curve.shares_at(ages).mean())
        found.append(Cohort(start=start, decisions=n, labels=int(labelled.sum()), expected_share=expected))
    return found


def curve_of(seed: int = 0) -> MaturityCurve:
    _, seen, ages = watch(np.random.default_rng(seed), 40_000)
    return learn_curve(seen, ages)


@pytest.mark.parametrize("spread", [0.0, 0.08])
def test_labels_that_only_differ_by_chance_are_hardly_ever_missing(spread: float) -> None:
    """At a false discovery rate of 1 %, at most that share of passes has any, however much cohorts differ."""
    curve, passes = curve_of(), 50
    wrong = 0
    for seed in range(passes):
        verdicts = judge_cohorts(cohorts_of(np.random.default_rng(seed), curve, spread=spread), curve)
        wrong += any(verdict.missing for verdict in verdicts)
    assert wrong <= 4  # of 50 at 1 %: more with a chance of 0.02 %


@pytest.mark.parametrize("spread", [0.0, 0.08])
def test_a_cohort_that_lost_half_its_labels_is_found_and_no_longer_judged(spread: float) -> None:
    curve, found = curve_of(), []
    for seed in range(15):
        verdicts = judge_cohorts(cohorts_of(np.random.default_rng(seed), curve, spread=spread, broken=10), curve)
        found.append(verdicts[10].missing and not verdicts[10].mature)
        assert not verdicts[10].missing or verdicts[10].why.startswith("labels are missing: ")
    assert np.mean(found) >= 0.8


def test_cohorts_are_mature_when_nearly_all_that_ever_comes_is_there() -> None:
    curve = curve_of()
    verdicts = judge_cohorts(cohorts_of(np.random.default_rng(1), curve), curve)
    ripe = [verdict.mature for verdict in verdicts]
    # 95 % of what comes has come after 9 days; the youngest cohort is the last.
    assert ripe == [True] * sum(ripe) + [False] * (30 - sum(ripe))
    assert 18 <= sum(ripe) <= 22
    assert verdicts[-1].why.startswith("too young: ")


def test_declared_days_say_when_a_cohort_is_mature() -> None:
    curve = curve_of()
    cohorts = cohorts_of(np.random.default_rng(1), curve)
    ages = [(29 - day) * DAY for day in range(30)]
    verdicts = judge_cohorts(cohorts, curve, expected_days=20, ages_seconds=ages)
    assert [verdict.mature for verdict in verdicts] == [True] * 10 + [False] * 20


def test_a_cohort_without_decisions_says_nothing() -> None:
    curve = curve_of()
    empty = Cohort(start=START, decisions=0, labels=0, expected_share=0.0)
    (verdict,) = judge_cohorts([empty], curve)
    assert (verdict.mature, verdict.missing, verdict.p) == (False, False, 1.0)
    assert judge_cohorts([], curve) == []


def test_too_few_labels_make_no_curve() -> None:
    with pytest.raises(Misuse, match="at least 30 labels to learn from when they come, found 1"):
        learn_curve(np.array([1.0, np.nan]), np.array([2.0, 2.0]))
    with pytest.raises(Misuse, match="at least 0 seconds"):
        learn_curve(np.full(40, -1.0), np.full(40, 2.0))


@pytest.mark.parametrize(("labels", "decisions"), [(0, 40), (174, 200), (880, 1_000), (89_900, 100_000)])
def test_the_chance_of_so_few_labels_is_that_of_other_tables(labels: int, decisions: int) -> None:
    share, curve = 0.9, curve_of()
    this = Cohort(start=START, decisions=decisions, labels=labels, expected_share=share)
    alike = [Cohort(start=START, decisions=200, labels=180, expected_share=share)] * 9
    verdicts = judge_cohorts([this, *alike], curve)
    assert verdicts[0].p == pytest.approx(binom.cdf(labels, decisions, share), abs=1e-12)
    adjusted = false_discovery_control([each.p for each in verdicts])
    assert [each.missing for each in verdicts] == [bool(each <= 0.01) for each in adjusted]

    unlike = [Cohort(start=START, decisions=200, labels=180 + each, expected_share=share) for each in range(-16, 17, 4)]
    strength = 200 * share * (1 - share) / np.median([each * each for each in range(-16, 17, 4)]) * 0.455
    p = judge_cohorts([this, *unlike], curve)[0].p
    correlation = (1 / strength - 1) / 199
    held = betabinom.cdf(labels, decisions, share * (1 / correlation - 1), (1 - share) * (1 / correlation - 1))
    assert p == pytest.approx(held, rel=0.02, abs=1e-12)
