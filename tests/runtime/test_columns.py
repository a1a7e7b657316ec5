"""Columns are what rows are: for the tensors of a graph, and for the out-of-distribution score."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.contract.types import Property, SchemaObject
from mainstay.contract.validator import compile_object
from mainstay.ledger.wal import frame_entries, frame_entry
from mainstay.runtime.tensors import build_column_feeder, build_feeder
from mainstay.runtime.types import ModelInput

if TYPE_CHECKING:
    from mainstay.runtime.tensors import Column

FIELDS = ("real", "whole", "flag", "word")
REALS = st.none() | st.floats(allow_nan=False)
WHOLES = st.integers(-(2**63), 2**63 - 1)
ROWS = st.lists(st.tuples(REALS, WHOLES, st.booleans(), st.none() | st.text(max_size=3)), min_size=1, max_size=6)


def columns_of(rows: list[tuple[Any, ...]]) -> dict[str, Column]:
    real, whole, flag, word = (list(each) for each in zip(*rows, strict=True))
    return {
        "real": np.array([math.nan if value is None else value for value in real], np.float64),
        "whole": np.array(whole, np.int64),
        "flag": np.array(flag, np.bool_),
        "word": word,
    }


@pytest.mark.filterwarnings("ignore:overflow")
@given(rows=ROWS, kind=st.sampled_from(["float", "double"]))
def test_columns_feed_a_graph_with_the_tensors_that_rows_do(rows: list[tuple[Any, ...]], kind: Any) -> None:
    inputs = [
        ModelInput(name="numbers", kind=kind, fields=("flag", "real", "whole")),
        ModelInput(name="counts", kind="int64", fields=("whole",)),
        ModelInput(name="flags", kind="bool", fields=("flag",)),
        ModelInput(name="words", kind="string", fields=("word",)),
    ]
    by_rows, by_columns = build_feeder(inputs, FIELDS)(rows), build_column_feeder(inputs)(columns_of(rows))
    assert by_rows.keys() == by_columns.keys()
    for name, tensor in by_rows.items():
        assert tensor.dtype == by_columns[name].dtype
        np.testing.assert_array_equal(tensor, by_columns[name])


@pytest.mark.parametrize(
    ("kind", "field"), [("float", "word"), ("int64", "real"), ("bool", "whole"), ("string", "flag")]
)
def test_a_column_of_another_kind_is_refused(kind: Any, field: str) -> None:
    feed = build_column_feeder([ModelInput(name="x", kind=kind, fields=(field,))])
    with pytest.raises(TypeError):
        feed(columns_of([(0.5, 1, True, "x")]))


@given(entries=st.lists(st.tuples(st.binary(max_size=9), st.binary(min_size=16, max_size=16), st.binary(max_size=9))))
def test_entries_framed_together_are_those_framed_one_by_one(entries: list[tuple[bytes, bytes, bytes]]) -> None:
    sealed = [salt + body for _, salt, body in entries]
    assert frame_entries([leaf for leaf, *_ in entries], sealed) == b"".join(frame_entry(*each) for each in entries)


def test_a_leaf_too_long_for_the_log_is_refused_among_others() -> None:
    with pytest.raises(ValueError, match="a leaf has at most"):
        frame_entries([b"x", bytes(1 << 16)], [bytes(16), bytes(16)])


def test_lines_are_decoded_as_each_is_and_one_that_breaks_the_contract_fails_them_all() -> None:
    fields = (Property(name="n", logical_type="number", required=True), Property(name="s", logical_type="string"))
    validator = compile_object(SchemaObject(name="o", properties=fields))
    lines = [b'{"n":1}', b'{"n":2.5,"s":"x"}']
    assert validator.decode_lines(b"\n".join(lines)) == [validator.decode(line) for line in lines]
    with pytest.raises(msgspec.ValidationError):
        validator.decode_lines(b'{"n":1}\n{"s":"x"}')
    with pytest.raises(msgspec.DecodeError):
        validator.decode_lines(b'{"n":1}\n{"n":1,"s":"\xff"}')
