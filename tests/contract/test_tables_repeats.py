from __future__ import annotations

import random
from typing import TYPE_CHECKING

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainstay.contract.tables_repeats import find_repeats

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def repeated(keys: Sequence[tuple[int | None, str | None]], piece: int, scratch: Path, budget_bytes: int) -> list[bool]:
    """What is found of these keys, given piece by piece."""
    frame = pl.DataFrame(
        {"k0": [a for a, _ in keys], "k1": [b for _, b in keys]}, schema={"k0": pl.Int64, "k1": pl.String}
    )
    pieces = ([frame.slice(at, piece)] for at in range(0, len(keys), piece))
    repeats = find_repeats(pieces, 1, scratch, budget_bytes)
    return [flag for at in range(0, len(keys), piece) for flag in repeats.take(min(piece, len(keys) - at))[0].to_list()]


def naive(keys: Sequence[tuple[int | None, str | None]]) -> list[bool]:
    seen: set[tuple[int | None, str | None]] = set()
    made = []
    for key in keys:
        made.append(None not in key and key in seen)
        seen.add(key)
    return made


keys = st.lists(
    st.tuples(st.one_of(st.none(), st.integers(0, 5)), st.one_of(st.none(), st.sampled_from(("", "a", "b")))),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(keys, st.integers(1, 9), st.sampled_from((0, 1, 100, 300, 1 << 20)))
def test_in_memory_and_on_disk_the_same_rows_repeat(
    tmp_path_factory: pytest.TempPathFactory, keys: list[tuple[int | None, str | None]], piece: int, budget_bytes: int
) -> None:
    assert repeated(keys, piece, tmp_path_factory.mktemp("spill"), budget_bytes) == naive(keys)


@pytest.mark.parametrize("distinct", [1, 50, 20_000])
def test_few_and_many_distinct_keys_are_found_beyond_the_budget(tmp_path: Path, distinct: int) -> None:
    chance = random.Random(distinct)
    keys = [(chance.randrange(distinct), str(chance.randrange(2))) for _ in range(20_000)]
    assert repeated(keys, 1_000, tmp_path, 40_000) == naive(keys)
    assert len(list(tmp_path.glob("*.arrow"))) > 2


def test_two_keys_are_told_apart_by_themselves_and_not_by_their_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mainstay.contract.tables_repeats._PARTS", 1)  # every key meets every other
    keys = [(n % 700, "x") for n in range(2_000)]
    assert repeated(keys, 100, tmp_path, 2_000) == naive(keys)


def test_several_keys_have_flags_of_their_own(tmp_path: Path) -> None:
    one, other = pl.DataFrame({"k0": [1, 1, 2]}), pl.DataFrame({"k0": [1, 2, 2]})
    repeats = find_repeats([[one, other]], 2, tmp_path, 0)
    assert [each.to_list() for each in repeats.take(2)] == [[False, True], [False, False]]
    assert [each.to_list() for each in repeats.take(1)] == [[False], [True]]
