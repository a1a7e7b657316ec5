from __future__ import annotations

from datetime import UTC, date, datetime

import polars as pl
import pytest

from mainstay.errors import Misuse
from mainstay.lake.conditions import AllOf, NoneOf, OneOf, Within
from mainstay.lake.where import parse_where

SCHEMA = pl.Schema(
    {"n": pl.Int32(), "who": pl.String(), "day": pl.Date(), "at": pl.Datetime("us", "UTC"), "x": pl.Float64()}
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("n=1", OneOf("n", (1,))),
        ("n = -4, 5", OneOf("n", (-4, 5))),
        ("who!=K-1,K-2", NoneOf("who", ("K-1", "K-2"))),
        ("who=a=b", OneOf("who", ("a=b",))),
        ("day>=2026-03-01", Within("day", date(2026, 3, 1), None)),
        ("day<2026-04-01", Within("day", None, date(2026, 4, 1))),
        ("at>=2026-03-01T12:00:00Z", Within("at", datetime(2026, 3, 1, 12, tzinfo=UTC), None)),
        ("at<2026-03-01T12:00:00", Within("at", None, datetime(2026, 3, 1, 12, tzinfo=UTC))),
    ],
)
def test_a_condition_is_read_by_the_type_of_its_column(text: str, expected: object) -> None:
    assert parse_where([text], SCHEMA) == expected


def test_several_conditions_hold_together_and_none_means_all_rows() -> None:
    both = parse_where(["n>=1", "n<4"], SCHEMA)
    assert both == AllOf((Within("n", 1, None), Within("n", None, 4)))
    frame = pl.DataFrame({"n": range(6)})
    assert both is not None
    assert frame.filter(both.expr())["n"].to_list() == [1, 2, 3]
    assert parse_where([], SCHEMA) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n", "expected a condition such as"),
        ("n>1", "expected a condition such as"),
        ("m=1", "no column m"),
        ("n=one", "expected a whole number, found 'one'"),
        ("day=yesterday", "expected a date such as"),
        ("at=noon", "expected an instant such as"),
        ("x=0.5", "x is Float64: expected a column of"),
    ],
)
def test_what_is_no_condition_is_told(text: str, message: str) -> None:
    with pytest.raises(Misuse, match=message):
        parse_where([text], SCHEMA)


def test_conditions_are_few() -> None:
    with pytest.raises(Misuse, match="at most 32 conditions, found 33"):
        parse_where(["n=1"] * 33, SCHEMA)
