from __future__ import annotations

from decimal import Decimal

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.errors import Misuse
from mainstay.lake.schemas import differences, fit, holds, storable

WHOLE: list[pl.DataType] = [pl.Int8(), pl.Int16(), pl.Int32(), pl.Int64()]
TABLE = pl.Schema({"day": pl.Date(), "n": pl.Int32(), "x": pl.Float64(), "who": pl.String()})


def test_types_become_those_that_a_table_holds() -> None:
    given_types = pl.Schema(
        {
            "a": pl.UInt8(),
            "b": pl.UInt32(),
            "c": pl.Datetime("ns"),
            "d": pl.Datetime("ms", "Europe/Berlin"),
            "e": pl.Categorical(),
            "f": pl.List(pl.UInt16()),
            "g": pl.Array(pl.Int64(), 3),
            "h": pl.Struct({"x": pl.UInt8()}),
            "i": pl.Decimal(38, 2),
            "j": pl.Enum(["x"]),
        }
    )
    assert storable(given_types) == pl.Schema(
        {
            "a": pl.Int16(),
            "b": pl.Int64(),
            "c": pl.Datetime("us"),
            "d": pl.Datetime("us", "UTC"),
            "e": pl.String(),
            "f": pl.List(pl.Int32()),
            "g": pl.List(pl.Int64()),
            "h": pl.Struct({"x": pl.Int16()}),
            "i": pl.Decimal(38, 2),
            "j": pl.String(),
        }
    )


def test_everything_that_cannot_be_stored_is_told_at_once() -> None:
    columns = {"t": pl.Time(), "u": pl.UInt64(), "a b": pl.Int8(), "Day": pl.Date(), "day": pl.Date(), "n": pl.Null()}
    with pytest.raises(Misuse) as caught:
        storable(pl.Schema({**columns, "l": pl.List(pl.Duration("us")), "s": pl.Struct({"t": pl.Time()})}))
    text = str(caught.value)
    for part in (
        "t: Time",
        "u: UInt64",
        "'a b'",
        "day: another column is called Day",
        "n: Null",
        "l: List",
        "s: Struct",
    ):
        assert part in text
    with pytest.raises(Misuse, match="found 0"):
        storable(pl.Schema({}))


@given(st.sampled_from(WHOLE), st.sampled_from(WHOLE))
def test_a_wider_integer_holds_every_narrower_one(wide: pl.DataType, narrow: pl.DataType) -> None:
    assert holds(wide, narrow) == (WHOLE.index(wide) >= WHOLE.index(narrow))


@pytest.mark.parametrize(
    ("wide", "narrow", "expected"),
    [
        (pl.Float64(), pl.Float32(), True),
        (pl.Float64(), pl.Int32(), True),
        (pl.Float64(), pl.Int64(), False),
        (pl.Float32(), pl.Int32(), False),
        (pl.Decimal(10, 2), pl.Decimal(8, 2), True),
        (pl.Decimal(10, 4), pl.Decimal(8, 2), True),
        (pl.Decimal(10, 4), pl.Decimal(9, 2), False),
        (pl.Decimal(10, 2), pl.Decimal(10, 4), False),
        (pl.String(), pl.Int8(), False),
        (pl.Int64(), pl.Boolean(), False),
        (pl.List(pl.Int64()), pl.List(pl.Int32()), False),
    ],
)
def test_a_type_holds_another_only_when_no_value_changes(
    wide: pl.DataType, narrow: pl.DataType, *, expected: bool
) -> None:
    assert holds(wide, narrow) is expected


def test_changes_are_told_apart() -> None:
    wanted = pl.Schema({"n": pl.Int64(), "x": pl.Float32(), "who": pl.Int64(), "new": pl.String(), "WHO2": pl.Date()})
    changes = differences(TABLE, wanted)
    assert changes.added == {"new": pl.String(), "WHO2": pl.Date()}
    assert changes.widened == {"n": pl.Int64()}
    assert changes.refused == ["who: the table has String, found Int64, and neither holds the other's values"]
    assert differences(TABLE, pl.Schema({"N": pl.Int32()})).refused  # the same name in another case


def test_a_batch_is_fitted_in_order_and_type_and_what_it_lacks_is_null() -> None:
    batch = pl.DataFrame({"who": ["a"], "n": pl.Series([1], dtype=pl.Int8), "x": [None]})
    fitted = fit(batch, TABLE, "t")
    assert fitted.schema == TABLE
    assert fitted.row(0) == (None, 1, None, "a")
    assert fit(pl.DataFrame(), TABLE, "t").schema == TABLE


def test_a_batch_that_does_not_fit_is_refused_with_everything_wrong_with_it() -> None:
    batch = pl.DataFrame({"whom": ["a"], "n": [1], "who": [2], "x": [Decimal(1)]})
    with pytest.raises(Misuse) as caught:
        fit(batch, TABLE, "intake/x")
    text = str(caught.value)
    for part in (
        "whom: the table has no such column; did you mean who?",
        "n: the table has Int32, found Int64",
        "who: the table has String, found Int64",
        "x: the table has Float64, found Decimal",
        "Nothing was written",
    ):
        assert part in text
