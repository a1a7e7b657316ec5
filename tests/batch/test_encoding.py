from __future__ import annotations

from datetime import date
from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from mainstay.batch.encoding import _one_by_one, encode_rows

SHORT = st.text(max_size=6)
TRICKY = st.sampled_from(['"x1":null,', ',"x1":null}', '{"x0":null}', "\\", '"', ",", "}", "\x00\x1f\x7f\u2028"])
COLUMNS: dict[Any, st.SearchStrategy[Any]] = {
    pl.Float64: st.floats(allow_nan=False, allow_infinity=False),
    pl.Float32: st.floats(allow_nan=False, allow_infinity=False, width=32),
    pl.Int64: st.integers(-(2**63), 2**63 - 1),
    pl.UInt8: st.integers(0, 255),
    pl.Boolean: st.booleans(),
    pl.String: SHORT | TRICKY,
    pl.Date: st.dates(date(1, 1, 1)),
    pl.Null: st.none(),
}


@st.composite
def frames(draw: st.DrawFn) -> pl.DataFrame:
    rows = draw(st.integers(0, 8))
    kinds = draw(st.lists(st.sampled_from(list(COLUMNS)), min_size=1, max_size=5))
    values = [draw(st.lists(st.none() | COLUMNS[kind], min_size=rows, max_size=rows)) for kind in kinds]
    return pl.DataFrame(
        [pl.Series(f"x{i}", each, dtype=kind) for i, (kind, each) in enumerate(zip(kinds, values, strict=True))]
    )


@settings(max_examples=300, deadline=None)
@given(frame=frames())
def test_what_the_engine_writes_is_what_is_written_value_by_value(frame: pl.DataFrame) -> None:
    assert encode_rows(frame, {}) == _one_by_one(frame, {})


def test_names_that_json_would_escape_are_written_value_by_value() -> None:
    frame = pl.DataFrame({'a"b': [1, None], "é": ["x", None]})
    assert encode_rows(frame, {}) == ['{"a\\"b":1,"é":"x"}'.encode(), b"{}"]
