from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainstay.errors import Misuse
from mainstay.lake.conditions import MAX_PARTS, MAX_VALUES, AllOf, AnyOf, NoneOf, OneOf, Within, in_runs, quote
from mainstay.lake.lake import Lake

if TYPE_CHECKING:
    from deltalake import DeltaTable

    from mainstay.lake.conditions import Condition

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
TEXTS = ["", "it's", 'say "x"', "a\\n", "%_", "é☃", "--", "'; DROP", "x\x00y", "K-1", "\n"]
NUMBERS = st.integers(-5, 25)
INSTANTS = st.integers(0, 30).map(lambda n: BEGIN + timedelta(seconds=n, microseconds=n))
DAYS = st.integers(0, 4).map(lambda n: date(2026, 1, 1) + timedelta(days=n))


def table_of_everything() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "num": [*range(20), None],
            "text": [TEXTS[n % len(TEXTS)] for n in range(20)] + [None],
            "at": [BEGIN + timedelta(seconds=n, microseconds=n) for n in range(20)] + [None],
            "day": [date(2026, 1, 1) + timedelta(days=n // 7) for n in range(20)] + [None],
        },
        schema={"num": pl.Int64, "text": pl.String, "at": pl.Datetime("us", "UTC"), "day": pl.Date},
    )


@pytest.fixture(scope="module")
def delta(tmp_path_factory: pytest.TempPathFactory) -> DeltaTable:
    frame = table_of_everything()
    table = Lake(tmp_path_factory.mktemp("lake")).create("all", frame.schema, partition_by=["day"])
    table.append(frame, writer="w", position=1)
    return table.delta()


def conditions() -> st.SearchStrategy[Condition]:
    values: st.SearchStrategy[Condition] = st.one_of(
        st.builds(lambda v: OneOf("text", tuple(v)), st.lists(st.sampled_from(TEXTS), min_size=1)),
        st.builds(lambda v: OneOf("num", tuple(v)), st.lists(NUMBERS, min_size=1)),
        st.builds(lambda v: NoneOf("text", tuple(v)), st.lists(st.sampled_from(TEXTS), min_size=1)),
        st.builds(lambda a, b: Within("num", a, b), NUMBERS, NUMBERS),
        st.builds(lambda a: Within("num", a, None), NUMBERS),
        st.builds(lambda a, b: Within("at", a, b), INSTANTS, INSTANTS),
        st.builds(lambda b: Within("day", None, b), DAYS),
    )
    return st.recursive(
        values,
        lambda part: st.one_of(
            st.builds(lambda parts: AllOf(tuple(parts)), st.lists(part, min_size=1, max_size=3)),
            st.builds(lambda parts: AnyOf(tuple(parts)), st.lists(part, min_size=1, max_size=3)),
        ),
        max_leaves=6,
    )


@settings(max_examples=80)
@given(conditions())
def test_sql_and_expression_mean_the_same_rows(delta: DeltaTable, condition: Condition) -> None:
    by_sql = pl.DataFrame(delta.scan(columns=["num"], predicate=condition.sql()))["num"]
    by_expression = table_of_everything().filter(condition.expr())["num"]
    assert sorted(by_sql.to_list(), key=str) == sorted(by_expression.to_list(), key=str)


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(1, 200)), max_size=120))
def test_runs_of_any_number_and_length_mean_their_numbers(steps: list[tuple[int, int]]) -> None:
    runs, behind = [], 0
    for gap, length in steps:
        runs.append((behind + gap, behind + gap + length))
        behind += gap + length
    wanted = [n for first, last in runs for n in range(first, last)]
    frame = pl.DataFrame({"n": range(behind + 10)})
    found = [n for each in in_runs("n", runs) for n in frame.filter(each.expr())["n"]]
    assert sorted(found) == wanted


def test_many_runs_become_several_small_conditions() -> None:
    found = list(in_runs("n", [(n * 3, n * 3 + 1) for n in range(25_000)]))
    assert len(found) == 3
    assert all(len(each.values) <= MAX_VALUES for each in found if isinstance(each, OneOf))


def test_what_the_engine_could_not_parse_is_refused() -> None:
    with pytest.raises(Misuse, match=r"10,001"):
        OneOf("n", tuple(range(MAX_VALUES + 1)))
    with pytest.raises(Misuse, match="found 0"):
        OneOf("n", ())
    with pytest.raises(Misuse, match="parts"):
        AnyOf((Within("n", 1),) * (MAX_PARTS + 1))
    with pytest.raises(Misuse, match="a bound"):
        Within("n")


def test_an_instant_without_an_offset_is_refused() -> None:
    with pytest.raises(Misuse, match="offset from UTC"):
        quote(datetime(2026, 1, 1))  # noqa: DTZ001 - that is what is refused
