from __future__ import annotations

import pytest

from mainstay.decision.plan import record_seconds


@pytest.mark.parametrize(
    ("allowed_seconds", "kept_seconds"), [(0.001, 0.0001), (0.1, 0.01), (0.2, 0.02), (1.0, 0.02), (600.0, 0.02)]
)
def test_a_little_of_the_time_is_kept_to_record_a_fallback(allowed_seconds: float, kept_seconds: float) -> None:
    assert record_seconds(allowed_seconds) == pytest.approx(kept_seconds)
