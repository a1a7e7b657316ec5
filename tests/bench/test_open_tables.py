"""What bench/open_tables.py says: kills lose and double nothing, and everything it names has a rate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType

pytestmark = pytest.mark.acceptance


@pytest.fixture
def lake(program: Callable[[str], ModuleType]) -> ModuleType:
    return program("open_tables")


def test_killed_exporters_lose_and_double_nothing(lake: ModuleType, tmp_path: Path) -> None:
    found = lake.kill_exporters(tmp_path, 3, quiet=True)
    assert found["entries"] == 600
    assert (found["lost"], found["doubled"]) == (0, 0)


def test_everything_has_a_rate(lake: ModuleType, tmp_path: Path) -> None:
    found = lake.measure(tmp_path, rows=100_000, entries=1_000, commits=3)
    assert found["files_joined"] > 0
    rates = [each for each in found.values() if isinstance(each, dict)]
    assert len(rates) == 4
    assert all(rate > 0 for each in rates for rate in each.values())
