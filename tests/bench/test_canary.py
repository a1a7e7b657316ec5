from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.stats import norm

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType


@pytest.fixture
def canary(program: Callable[[str], ModuleType]) -> ModuleType:
    return program("canary")


def test_a_z_test_of_the_fixed_sample_has_the_power_it_is_compared_at(canary: ModuleType) -> None:
    n = round(canary.fixed_sample(0.10, 0.15, 0.25, 0.01))
    rng = np.random.default_rng(0)
    x1, x0 = rng.binomial(n // 4, 0.15, 4_000), rng.binomial(n - n // 4, 0.10, 4_000)
    found = [canary._z(np.array([[n // 4, a], [n - n // 4, b]]), 1) for a, b in zip(x1, x0, strict=True)]
    assert np.mean(np.array(found) > norm.ppf(0.99)) == pytest.approx(0.9, abs=0.02)


def test_a_race_catches_what_is_worse_and_keeps_what_is_not(canary: ModuleType) -> None:
    worse, alike = canary.race(0.1, 0.2, 0.5, 0.05, 30), canary.race(0.1, 0.1, 0.5, 0.05, 30)
    assert np.isfinite(worse.caught).all()
    assert not np.isfinite(alike.caught).any()
    assert np.isfinite(alike.kept).all()


def test_fewer_cases_find_a_larger_loss(canary: ModuleType) -> None:
    needed = [row["cases, mean"] for row in canary.pairs(10)]
    assert needed == sorted(needed, reverse=True)


def test_the_judge_is_asked_at_every_look_and_the_z_test_beside_it(canary: ModuleType) -> None:
    harmed, ever, last, _ = canary._same_version(1, 6, drifting=True)
    assert harmed in {True, False}
    assert len(ever) == len(last) == len(canary.NAIVE)
    assert all(a or not b for a, b in zip(ever, last, strict=True))
