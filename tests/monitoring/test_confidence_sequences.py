from __future__ import annotations

import numpy as np
import pytest

from mainstay.errors import Misuse
from mainstay.monitoring.confidence_sequences import ChangeDetector, MeanSequence, find_change


def test_the_interval_holds_at_all_looks_together() -> None:
    """Intervals of one look would leave out the truth at some of 200 looks in most of the runs."""
    rng = np.random.default_rng(0)
    missed = missed_once = 0
    for _ in range(100):
        running = MeanSequence()
        wrong = wrong_once = False
        for hits in rng.binomial(100, 0.8, 200):
            share = hits / 100
            running = running.add(share, (share * (1 - share) / 100) ** 0.5, 100)
            interval = running.interval(tightest_at=16 * 5_000)
            assert interval is not None
            wrong |= not interval.low <= 0.8 <= interval.high
            wrong_once |= abs(interval.value - 0.8) > 1.96 * running.variance**0.5 / running.weight
        missed += wrong
        missed_once += wrong_once
    assert missed <= 11  # of 100 at 5 %: more with a chance of 0.4 %
    assert missed_once > 30


def test_windows_weigh_as_many_rows_as_they_have() -> None:
    running = MeanSequence().add(0.5, 0.1, 100).add(0.8, 0.1, 200)
    interval = running.interval()
    assert interval is not None
    assert interval.value == pytest.approx(0.7)
    assert interval.low < 0.7 < interval.high


def test_nothing_seen_has_no_interval_and_certain_windows_have_none_around() -> None:
    assert MeanSequence().interval() is None
    interval = MeanSequence().add(0.5, 0.0, 10).interval()
    assert interval is not None
    assert interval.low == interval.high == 0.5
    with pytest.raises(Misuse, match="expected rows above 0"):
        MeanSequence().add(0.5, 0.1, 0)


def test_false_alarms_come_no_more_often_than_stated() -> None:
    rng = np.random.default_rng(1)
    alarms, looks, rate = 0, 20_000, 0.01
    detector = ChangeDetector()
    for z in rng.standard_normal(looks):
        detector = detector.add(float(z))
        if detector.evidence >= 1 / rate:
            alarms, detector = alarms + 1, ChangeDetector()
    assert 0 < alarms <= looks * rate


@pytest.mark.parametrize(("size", "most"), [(0.5, 60), (1.0, 16), (3.0, 3), (10.0, 1)])
def test_a_change_is_found_the_sooner_the_larger_it_is(size: float, most: int) -> None:
    rng = np.random.default_rng(2)
    waits = []
    for _ in range(100):
        detector, wait = ChangeDetector(), 0
        while detector.evidence < 200:
            detector, wait = detector.add(size + rng.standard_normal()), wait + 1
        waits.append(wait)
    assert np.mean(waits) <= most


def test_evidence_neither_overflows_nor_is_lost() -> None:
    detector = ChangeDetector()
    for _ in range(50):
        detector = detector.add(1e6)
    assert np.isfinite(detector.evidence)
    for _ in range(50):
        detector = detector.add(-1e6)
    assert detector.evidence == pytest.approx(0.0, abs=1e-9)


def test_the_beginning_of_a_change_is_where_the_windows_turn() -> None:
    assert find_change([0.0, -1.0, 0.1, 3.0, 2.5, 3.5]) == 3
    assert find_change([5.0]) == 0
    assert find_change([]) == 0
