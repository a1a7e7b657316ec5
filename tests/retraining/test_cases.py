"""Cases, and which of them hang together."""

from __future__ import annotations

import numpy as np
import pytest

from mainstay.errors import Misuse
from mainstay.retraining.cases import FEWEST_BLOCKS, Cases, block


def test_cases_of_enough_days_hang_together_by_day() -> None:
    days = np.repeat(np.arange(FEWEST_BLOCKS) + 20_000, 3)
    blocks = block(days)
    assert blocks.count == FEWEST_BLOCKS
    assert blocks.sums(np.ones(len(days))).tolist() == [3.0] * FEWEST_BLOCKS


def test_of_too_few_days_each_case_is_by_itself() -> None:
    blocks = block(np.repeat(np.arange(FEWEST_BLOCKS - 1), 3))
    assert blocks.count == 3 * (FEWEST_BLOCKS - 1)
    values = np.arange(float(blocks.count))
    assert blocks.sums(values).tolist() == values.tolist()
    assert block(np.array([])).count == 0


def test_what_is_chosen_of_cases_stays_in_their_order() -> None:
    cases = Cases(np.array(["x", "y", "z"]), np.array(["x", None, "x"], dtype=object), None)
    taken = cases.taken(np.array([True, False, True]))
    assert (taken.truth.tolist(), taken.predicted().tolist(), taken.score) == (["x", "z"], ["x", "x"], None)
    with pytest.raises(Misuse, match=r"labels\.score"):
        taken.scored()
    with pytest.raises(Misuse, match=r"labels\.prediction"):
        Cases(cases.truth, None, np.zeros(3)).predicted()
