"""Contracts inferred from clean rows alone, held against tables that others made dirty."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shared_data import shared_data

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

pytestmark = pytest.mark.acceptance


@pytest.fixture
def dirty(program: Callable[[str], ModuleType]) -> ModuleType:
    shared_data("dirty")
    return program("dirty")


@pytest.mark.parametrize(("table", "least"), [("hospital", 0.88), ("beers", 0.985)])
def test_a_clean_half_finds_the_dirt_of_the_other_and_wrongs_hardly_a_clean_row(
    dirty: ModuleType, table: str, least: float
) -> None:
    half, public, strange, whole, *_ = dirty.catch(table, 2)
    assert half.cells.f1 > least
    assert half.cells.precision > 0.99
    assert half.refused < 0.01
    assert public.cells.f1 >= half.cells.f1
    assert whole.cells.f1 >= half.cells.f1 - 0.01
    assert strange.rows.precision > 0.9


def test_what_is_caught_is_counted_by_hand(dirty: ModuleType) -> None:
    found = dirty.score({(0, "a"), (1, "b"), (2, "c")}, {(0, "a"), (5, "e")})
    assert (found.precision, found.recall) == (1 / 3, 0.5)
    assert found.f1 == pytest.approx(0.4)
    assert dirty.score(set(), {1}).f1 == 0


def test_a_clean_table_is_let_through_and_made_errors_are_caught(dirty: ModuleType) -> None:
    kept = dirty.keep("planes")
    assert kept.refused < 0.01
    assert kept.caught["decimal"] > 0.9
    assert kept.caught["swapped"] > 0.8
    assert set(kept.caught) == {"typo", "swapped", "unit", "decimal", "missing"}
