from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.runtime.calibration import Calibrator


@dataclass(frozen=True)
class Line:
    stated: tuple[float, ...]
    calibrated: tuple[float, ...]


@st.composite
def lines(draw: st.DrawFn) -> Line:
    stated = sorted(draw(st.sets(st.floats(0, 1), min_size=1, max_size=20)))
    calibrated = sorted(draw(st.lists(st.floats(0, 1), min_size=len(stated), max_size=len(stated))))
    return Line(tuple(stated), tuple(calibrated))


def test_it_follows_the_line_and_is_level_beyond_its_ends() -> None:
    calibrate = Calibrator(Line((0.2, 0.6, 0.8), (0.1, 0.5, 0.5)))
    assert calibrate([0.0, 0.2, 0.4, 0.7, 1.0]) == pytest.approx([0.1, 0.1, 0.3, 0.5, 0.5])


def test_what_states_no_confidence_gets_none() -> None:
    calibrate = Calibrator(Line((0.0, 1.0), (0.0, 1.0)))
    assert calibrate([None, 0.5, math.nan]) == [None, 0.5, None]
    assert calibrate([]) == []
    assert calibrate([None]) == [None]


@given(lines(), st.lists(st.floats(0, 1), max_size=50))
def test_more_confidence_never_means_less_and_stays_a_probability(line: Line, confidences: list[float]) -> None:
    calibrated = Calibrator(line)(sorted(confidences))
    values = [value for value in calibrated if value is not None]
    assert len(values) == len(confidences)
    assert values == sorted(values)
    assert all(0 <= value <= 1 for value in values)


@given(lines(), st.lists(st.none() | st.floats(0, 1) | st.just(math.nan), max_size=30))
def test_the_confidences_beside_one_do_not_matter(line: Line, confidences: list[float | None]) -> None:
    calibrate = Calibrator(line)
    assert calibrate(confidences) == [calibrate([each])[0] for each in confidences]


def test_the_result_holds_plain_floats() -> None:
    assert all(type(value) is float for value in Calibrator(Line((0.0, 1.0), (0.0, 1.0)))([0.25, 1]))
