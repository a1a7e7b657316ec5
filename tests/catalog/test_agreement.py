from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from mainstay.catalog.agreement import check_agreement, round_up
from mainstay.catalog.conversion import Answered, Reply
from mainstay.catalog.types import Conversion
from mainstay.errors import Failed
from mainstay.runtime.types import ModelOutput


def reply(original: Answered, *roles: Any) -> Reply:
    return Reply(
        inputs=(),
        outputs=tuple(ModelOutput(name=role, role=role) for role in roles),
        classes=(),
        original=original,
        original_rounded=original,
        has_integer_choice=False,
        notes=(),
    )


def test_the_largest_difference_of_any_output_counts() -> None:
    asked = reply(Answered(labels=["no", "yes"], probabilities=[[0.75, 0.25], [0.25, 0.75]]), "label", "probabilities")
    tensors = {
        "label": np.array(["no", "yes"], object),
        "probabilities": np.array([[0.75, 0.25], [0.25 + 2**-9, 0.75 - 2**-9]], np.float32),
    }
    assert check_agreement(asked, tensors, 2, 0.01) == Conversion(tolerance=0.01, max_difference=0.002, rows=2)
    with pytest.raises(Failed, match=r"probabilities of sample row 2 differ by 0\.002, expected at most 0\.001"):
        check_agreement(asked, tensors, 2, 0.001)
    tensors["label"][0] = "yes"
    with pytest.raises(Failed, match="labels of sample row 1 differ by 1"):
        check_agreement(asked, tensors, 2, 0.01)


@pytest.mark.parametrize(("ours", "theirs", "whose"), [(math.nan, 1.0, "converted model"), (1.0, None, "original")])
def test_what_is_not_finite_agrees_with_nothing(ours: float, theirs: float | None, whose: str) -> None:
    asked = reply(Answered(values=[0.5, theirs]), "value")
    with pytest.raises(Failed, match=f"values of sample row 2: the {whose} gives no finite number"):
        check_agreement(asked, {"value": np.array([[0.5], [ours]])}, 2, 0.1)


def test_another_number_of_rows_agrees_with_nothing() -> None:
    with pytest.raises(Failed, match="expected values for 2 rows"):
        check_agreement(reply(Answered(values=[0.5]), "value"), {"value": np.zeros((2, 1))}, 2, 0.1)
    with pytest.raises(Failed, match="expected 2 labels, found 0 of the original"):
        check_agreement(reply(Answered(), "label"), {"label": np.zeros(2, np.int64)}, 2, 0.1)


@pytest.mark.parametrize(
    ("size", "expected"), [(0.0, 0.0), (2.4e-7, 3e-7), (3e-7, 3e-7), (9.9e-6, 1e-5), (1.0, 1.0), (0.011, 0.02)]
)
def test_a_difference_is_rounded_up_to_one_digit(size: float, expected: float) -> None:
    assert round_up(size) == pytest.approx(expected, rel=1e-12)
