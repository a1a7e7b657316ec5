"""No alarm on ledgers of processes that were killed anywhere; `bench/attacks.py` makes a hundred of them."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest

from ledger.honest_ledgers import examine_by_forks, examine_by_service, make_by_forks, make_by_service

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.acceptance


@pytest.mark.parametrize("seed", range(5))
def test_writers_sealers_and_commands_killed_at_any_moment_leave_a_ledger_that_verifies(
    tmp_path: Path, seed: int
) -> None:
    make_by_forks(tmp_path / "ledger", Random(seed), seconds=0.8)
    before, after = examine_by_forks(tmp_path / "ledger")
    assert before.ok, before.findings
    assert after.ok, after.findings
    assert (after.unsealed, after.torn, after.killed) == (0, [], 0)
    assert after.size == before.size + before.unsealed


def test_a_service_killed_process_by_process_leaves_a_ledger_that_verifies(tmp_path: Path) -> None:
    before, after = examine_by_service(make_by_service(tmp_path / "w", Random(5), seconds=2.0))
    assert before.ok, before.findings
    assert after.ok, after.findings
    assert (after.unsealed, after.torn) == (0, [])
    assert after.size == before.size + before.unsealed
