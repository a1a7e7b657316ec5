"""The share of bad rows that stops a feed."""

from __future__ import annotations

import itertools
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intake.facts import part
from mainstay.capability.sources import Files, Source
from mainstay.intake.thresholds import FEW, BadShare, Stretch, bad_share_of, past_rows
from mainstay.intake.types import ITEM, REASON, ROW, intake_table, quarantine_table
from mainstay.lake.lake import Lake

if TYPE_CHECKING:
    from pathlib import Path

GOOD = Stretch(1, 1, 1_000, np.empty(0, dtype=np.int64))


def stretch(item: int, rows: int, *bad: int) -> Stretch:
    return Stretch(item, 1, rows, np.array(bad, dtype=np.int64))


def test_a_share_above_the_limit_stops_the_feed_and_says_where() -> None:
    judge = BadShare(0.05, 1_000, [GOOD])
    assert judge(part(2, rows=50, bad=tuple(range(1, 51)))) is None  # exactly 5 %
    held = judge(part(3, rows=1, bad=(1,)))
    assert held is not None
    assert held.code == "bad_share"
    assert held.fallback
    assert held.reason == "5.1 % of the last 1,000 rows are bad (51), and 5 % may be; seen at row 1 of item 3"


def test_what_was_held_does_not_count_when_it_comes_again() -> None:
    judge = BadShare(0.05, 1_000, [GOOD])
    burst = part(2, rows=60, bad=tuple(range(1, 61)))
    assert judge(burst) == judge(burst) is not None
    assert judge(part(2, rows=60)) is None  # the contract was mended meanwhile


def test_a_part_that_is_made_again_counts_once() -> None:
    judge = BadShare(0.05, 1_000, [GOOD])
    for _ in range(3):
        assert judge(part(2, rows=40, bad=tuple(range(1, 41)))) is None


def test_a_burst_inside_a_huge_part_stops_it_though_the_part_as_a_whole_is_good() -> None:
    judge = BadShare(0.05, 1_000)
    held = judge(part(1, rows=1_000_000, bad=tuple(range(500_001, 500_101))))
    assert held is not None
    assert "10 % of the last 1,000 rows" in held.reason
    assert BadShare(0.05, 1_000)(part(1, rows=1_000_000, bad=tuple(range(1, 1_000_000, 100)))) is None


def test_many_tiny_items_are_one_feed() -> None:
    judge = BadShare(0.05, 1_000, [GOOD])
    held = [judge(part(2 + number, rows=1, bad=(1,) if number % 10 == 0 else ())) for number in range(600)]
    assert [number for number, each in enumerate(held) if each is not None][0] == 500  # noqa: RUF015 - reads better


def test_a_handful_of_first_rows_stops_nothing_and_a_bad_first_file_does() -> None:
    few = tuple(range(1, FEW))
    assert BadShare(0.05, 1_000)(part(rows=len(few), bad=few)) is None
    all_bad = tuple(range(1, 41))
    held = BadShare(0.05, 1_000)(part(rows=40, bad=all_bad))
    assert held is not None
    assert held.reason.startswith("100 % of the last 20 rows are bad (20), and 5 % may be; seen at row 20")


def test_first_rows_that_chance_may_give_stop_nothing() -> None:
    spread = tuple(range(1, 300, 14))  # 22 of 300, where 15 are allowed on average
    assert BadShare(0.05, 1_000)(part(rows=300, bad=spread)) is None


def test_no_bad_row_is_allowed_at_a_limit_of_0_and_any_at_1() -> None:
    assert BadShare(0.0, 1_000)(part(rows=5, bad=(3,))) is not None
    assert BadShare(1.0, 10)(part(rows=500, bad=tuple(range(1, 501)))) is None


def test_a_limit_that_no_float_holds_is_taken_as_it_is_written() -> None:
    past = [stretch(1, 100)]
    assert BadShare(0.29, 100, past)(part(2, rows=100, bad=tuple(range(1, 30)))) is None
    assert BadShare(0.29, 100, past)(part(2, rows=100, bad=tuple(range(1, 31)))) is not None


def test_released_items_pass_and_do_not_count() -> None:
    judge = BadShare(0.05, 1_000, [GOOD, stretch(2, 60, *range(1, 51))], released_to=3)
    assert judge(part(3, rows=100, bad=tuple(range(1, 101)))) is None
    assert judge(part(4, rows=FEW, bad=(1, 2, 3))) is None
    assert judge(part(5, rows=100, bad=tuple(range(1, 101)))) is not None


def test_a_rejected_file_is_no_row() -> None:
    assert BadShare(0.0, 1_000)(part(rows=1, bad=(1,), rejected=True)) is None


@given(
    st.lists(st.lists(st.booleans(), max_size=40), max_size=8),
    st.lists(st.booleans(), min_size=1, max_size=60),
    st.integers(1, 30),
    st.sampled_from([0.0, 0.05, 0.1, 0.29, 0.5, 0.9]),
)
def test_the_window_is_that_of_counting_row_by_row(
    before: list[list[bool]], rows: list[bool], window: int, limit: float
) -> None:
    """Once the window is full, which FEW bad rows before that cannot change."""
    filler = [False] * window
    flat = [*filler, *(bad for item in before for bad in item), *rows]
    past = [stretch(1, window)]
    for number, item in enumerate(before, 2):
        if item:
            past.append(stretch(number, len(item), *(place for place, bad in enumerate(item, 1) if bad)))
    bad = tuple(place for place, is_bad in enumerate(rows, 1) if is_bad)
    held = BadShare(limit, window, past)(part(100, rows=len(rows), bad=bad))
    first = len(flat) - len(rows)
    over = [
        end
        for end in range(first + 1, len(flat) + 1)
        if flat[end - 1] and Fraction(sum(flat[end - window : end]), window) > Fraction(repr(limit))
    ]
    assert (held is not None) == bool(over)


@given(st.lists(st.booleans(), min_size=1, max_size=300), st.lists(st.integers(1, 299), max_size=5))
def test_it_does_not_matter_how_rows_are_cut_into_parts_and_items(rows: list[bool], cuts: list[int]) -> None:
    bad = tuple(place for place, is_bad in enumerate(rows, 1) if is_bad)
    whole = BadShare(0.3, 50)(part(rows=len(rows), bad=bad))
    judge, held = BadShare(0.3, 50), False
    bounds = sorted({0, len(rows), *(cut for cut in cuts if cut < len(rows))})
    for number, (begin, end) in enumerate(itertools.pairwise(bounds), 1):
        inside = tuple(place - begin for place in bad if begin < place <= end)
        held = held or judge(part(number, rows=end - begin, bad=inside)) is not None
    assert held == (whole is not None)


# From the tables.


def lake_with(folder: Path, taken: list[tuple[int, list[int], list[int], list[int]]]) -> Lake:
    """A lake with the rows of items: accepted, broken, and late ones."""
    lake = Lake(folder)
    accepted = lake.create(intake_table("tiny", "feed"), pl.Schema({ITEM: pl.Int64(), ROW: pl.Int64()}))
    put_aside = lake.create(
        quarantine_table("tiny", "feed"), pl.Schema({ITEM: pl.Int64(), ROW: pl.Int64(), REASON: pl.String()})
    )
    good_rows = [(item, row) for item, good, _, _ in taken for row in good]
    bad_rows = [(item, row, "rules") for item, _, broken, _ in taken for row in broken]
    bad_rows += [(item, row, "late") for item, _, _, late in taken for row in late]
    position = taken[-1][0] << 32
    put_aside.append(pl.DataFrame(bad_rows, schema=put_aside.schema, orient="row"), writer="door", position=position)
    accepted.append(pl.DataFrame(good_rows, schema=accepted.schema, orient="row"), writer="door", position=position)
    return lake


def test_the_window_is_found_again_in_the_tables(tmp_path: Path) -> None:
    lake = lake_with(tmp_path, [(1, [1, 2, 4], [3], []), (2, [], [1, 2], [3]), (7, [2], [1], [])])
    found = [(each.item, each.rows, each.bad.tolist()) for each in past_rows(lake, "tiny", "feed", 1_000)]
    assert found == [(1, 4, [3]), (2, 3, [1, 2]), (7, 2, [1])]


def test_of_the_tables_no_more_items_are_read_than_the_window_needs(tmp_path: Path) -> None:
    lake = lake_with(tmp_path, [(item, [1], [], []) for item in range(1, 41)])
    assert [each.item for each in past_rows(lake, "tiny", "feed", 3)] == [37, 38, 39, 40]
    assert len(past_rows(lake, "tiny", "feed", 5)) == 16
    assert len(past_rows(lake, "tiny", "feed", 1_000)) == 40


@pytest.mark.parametrize("first_row", [1, 3])
def test_of_a_part_that_is_made_again_what_the_tables_have_already_does_not_count(
    first_row: int, tmp_path: Path
) -> None:
    lake = lake_with(tmp_path, [(1, list(range(1, 101)), [], []), (2, [1, 2], [3, 4, 5], [])])
    source = Source(name="feed", files=Files(folder="in"), max_bad_share=0.03, bad_share_rows=100)
    judge = bad_share_of(lake, "tiny", source)
    bad = tuple(row for row in (3, 4, 5) if row >= first_row)
    assert judge(part(2, first_row=first_row, rows=6 - first_row, bad=bad)) is None


def test_a_source_that_has_no_tables_yet_has_no_past(tmp_path: Path) -> None:
    assert past_rows(Lake(tmp_path), "tiny", "feed", 10) == []
