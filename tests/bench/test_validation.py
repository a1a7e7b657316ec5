"""The programs that measure validation measure what they say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType

    Program = Callable[[str], ModuleType]


def test_exactly_the_rows_that_were_spoiled_are_found(program: Program, tmp_path: Path) -> None:
    table = program("validation_table")
    table.make(tmp_path, 30_000)
    for unique in (False, True):
        table.check(tmp_path, unique=unique)
        table.verify(tmp_path, with_reasons=True)


def test_a_validator_that_lets_a_bad_row_pass_is_found_out(program: Program, tmp_path: Path) -> None:
    table = program("validation_table")
    table.make(tmp_path, 5_000)
    pl.read_parquet(tmp_path / "table.parquet").write_parquet(tmp_path / "clean.parquet")
    with pytest.raises(SystemExit, match="expected 4995 clean rows, found 5000"):
        table.verify(tmp_path, with_reasons=False)


def test_both_executions_of_a_contract_agree_on_random_records(program: Program) -> None:
    counts = program("validation_agreement").agree(8_000, seed=1)
    assert counts["records"] == 8_000
    assert 0 < counts["bad records"] < 8_000
