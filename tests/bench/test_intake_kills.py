"""What bench/intake_kills.py says: processes that take data in are killed, and every record is in one table once."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType

pytestmark = pytest.mark.acceptance

KILLS = 15


@pytest.fixture
def intake(program: Callable[[str], ModuleType]) -> ModuleType:
    return program("intake_kills")


def test_killed_at_random_moments_every_record_of_files_and_of_an_api_is_in_one_table_once(
    intake: ModuleType, tmp_path: Path
) -> None:
    seed = random.SystemRandom().randrange(2**32)
    found = intake.kill(tmp_path, KILLS, seed=seed, quiet=True)
    assert found["kills"] == KILLS
    assert found["left_unfinished"] > 0, "nothing was proved"
    assert (found["lost"], found["doubled"], found["misplaced"]) == (0, 0, 0), f"{found}, with the seed {seed}"
    assert found["late"] > 0


def test_a_record_that_is_lost_doubled_or_in_the_wrong_table_would_be_told(intake: ModuleType, tmp_path: Path) -> None:
    with intake.prepared(tmp_path, 1) as world:
        world.grow()
        world.finish()
        assert {world.judge()[name] for name in ("lost", "doubled", "misplaced")} == {0}
        number = next(iter(world.rest.good))
        record = world.rest.good.pop(number)
        assert world.judge()["misplaced"] == 1
        world.rest.bad.add(number)
        assert (world.judge()["lost"], world.judge()["misplaced"]) == (1, 1)
        world.rest.bad.remove(number)
        world.rest.good[number] = record
        table = intake.open_lake(world.workspace).table(intake.intake_table(intake.NAME, intake.REST))
        table.append(table.frame().head(1).collect(), writer="another", position=1)
        assert world.judge()["doubled"] == 1
