from __future__ import annotations

import numpy as np
import pytest

from mainstay.capability.types import OutputField
from mainstay.runtime.outputs import build_mapper
from mainstay.runtime.types import ModelOutput

PROBABILITIES = [ModelOutput(name="p", role="probabilities")]
TWO_ROWS = {"p": np.array([[0.25, 0.75], [0.5, 0.5]], np.float32)}


def test_a_probability_and_a_threshold_are_of_the_named_class() -> None:
    mapping = {"score": OutputField(take="probability", of_class=0), "yes": OutputField(take="threshold", at=0.5)}
    given = build_mapper(PROBABILITIES, [0, 1], mapping)(TWO_ROWS)
    assert given.columns == [[0.25, 0.5], [True, True]]
    assert given.confidence == [0.75, 0.5]


def test_a_label_is_the_most_probable_class() -> None:
    mapper = build_mapper(PROBABILITIES, ["no", "yes"], {"label": OutputField(take="label")})
    assert mapper(TWO_ROWS).columns == [["yes", "no"]]


def test_a_value_has_no_confidence() -> None:
    mapper = build_mapper([ModelOutput(name="v", role="value")], [], {"minutes": OutputField(take="value")})
    given = mapper({"v": np.array([[1.5], [2.5]], np.float32)})
    assert given.columns == [[1.5, 2.5]]
    assert given.confidence is None


def test_a_class_that_the_model_does_not_know_is_refused_with_those_it_knows() -> None:
    with pytest.raises(ValueError, match=r"output\.score is of class 'maybe', expected one of .*: 'no', 'yes'"):
        build_mapper(PROBABILITIES, ["no", "yes"], {"score": OutputField(take="probability", of_class="maybe")})


def test_true_is_not_the_class_one() -> None:
    with pytest.raises(ValueError, match="is of class True"):
        build_mapper(PROBABILITIES, [0, 1], {"score": OutputField(take="probability", of_class=True)})


def test_a_model_without_probabilities_gives_none() -> None:
    with pytest.raises(ValueError, match="expected a model that gives probabilities, found label"):
        build_mapper([ModelOutput(name="l", role="label")], [], {"score": OutputField(take="probability")})
