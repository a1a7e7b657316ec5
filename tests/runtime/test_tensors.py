from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.runtime.tensors import build_feeder
from mainstay.runtime.types import ModelInput

FIELDS = ("a", "b", "c")


def test_one_matrix_of_all_fields_has_their_order() -> None:
    feed = build_feeder([ModelInput(name="x", kind="float", fields=FIELDS)], FIELDS)
    tensor = feed([(1, 2.5, True), (4, None, False)])["x"]
    assert tensor.dtype == np.float32
    assert tensor[0].tolist() == [1, 2.5, 1]
    assert tensor[1, 0] == 4
    assert math.isnan(tensor[1, 1])


def test_a_matrix_takes_the_fields_it_names_in_the_order_it_names_them() -> None:
    feed = build_feeder([ModelInput(name="x", kind="double", fields=("c", "a"))], FIELDS)
    assert feed([(1, 2, 3), (4, 5, 6)])["x"].tolist() == [[3, 1], [6, 4]]


def test_a_column_of_its_own_is_a_tensor_of_one_column() -> None:
    inputs = [
        ModelInput(name="a", kind="string", fields=("a",)),
        ModelInput(name="b", kind="int64", fields=("b",)),
        ModelInput(name="c", kind="float", fields=("c",)),
    ]
    feed = build_feeder(inputs, FIELDS)([("x", 1, 0.5), (None, 2, None)])
    assert feed["a"].tolist() == [["x"], [""]]
    assert (feed["b"].dtype, feed["b"].tolist()) == (np.int64, [[1], [2]])
    assert feed["c"].shape == (2, 1)
    assert math.isnan(feed["c"][1, 0])


def test_a_missing_integer_is_an_error_not_a_number() -> None:
    feed = build_feeder([ModelInput(name="b", kind="int64", fields=("b",))], FIELDS)
    with pytest.raises(TypeError):
        feed([(None, None, None)])


def test_a_field_that_the_input_does_not_have_is_named() -> None:
    with pytest.raises(ValueError, match="fields that the input does not have: d, e"):
        build_feeder([ModelInput(name="x", kind="float", fields=("e", "a", "d"))], FIELDS)


@given(rows=st.lists(st.tuples(*[st.none() | st.floats(-1024, 1024, width=32)] * 3), min_size=1, max_size=20))
def test_separate_columns_and_one_matrix_hold_the_same(rows: list[tuple[float | None, ...]]) -> None:
    matrix = build_feeder([ModelInput(name="x", kind="float", fields=FIELDS)], FIELDS)(rows)["x"]
    columns = build_feeder([ModelInput(name=name, kind="float", fields=(name,)) for name in FIELDS], FIELDS)(rows)
    np.testing.assert_array_equal(matrix, np.hstack([columns[name] for name in FIELDS]))
