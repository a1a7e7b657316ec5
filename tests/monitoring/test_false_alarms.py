from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from mainstay.errors import Misuse
from mainstay.monitoring.false_alarms import discoveries, level_of_pass

DAY = timedelta(days=1)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.floats(0.001, 0.5))
def test_discoveries_are_those_of_scipy(p_values: list[float], level: float) -> None:
    adjusted = false_discovery_control(p_values, method="by")
    unsure = np.isclose(adjusted, level, rtol=1e-9)
    found = np.array(discoveries(p_values, level))
    assert np.array_equal(found[~unsure], (adjusted <= level)[~unsure])


def test_what_cannot_be_judged_is_in_no_family() -> None:
    assert discoveries([], 0.1) == []
    assert discoveries([None, None], 0.1) == [False, False]
    assert discoveries([0.09, None, None, None], 0.1) == [True, False, False, False]


def test_passes_share_the_month_by_the_clock() -> None:
    hourly = level_of_pass(0.6, timedelta(hours=1))
    assert level_of_pass(0.6, DAY) == pytest.approx(24 * hourly) == pytest.approx(0.02)
    assert level_of_pass(0.6, 10 * DAY) == level_of_pass(0.6, DAY)
    assert level_of_pass(30, DAY) == 0.5
    with pytest.raises(Misuse):
        level_of_pass(0.5, timedelta(0))
