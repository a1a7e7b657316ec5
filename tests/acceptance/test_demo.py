from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.acceptance

FLIGHTS = 2_000


def run_demo(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mainstay.cli.main", "demo", "--directory", str(directory), "--port", "0", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)


def test_the_whole_story_holds(tmp_path: Path) -> None:
    done = run_demo(tmp_path / "demo", "--flights", str(FLIGHTS), "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["ok"]
    assert facts["conversion"]["max_difference"] <= facts["conversion"]["tolerance"]
    replay = facts["replay"]
    assert replay["decisions"] == FLIGHTS
    outcomes = {(outcome, reason): count for outcome, reason, count in replay["by_outcome"]}
    assert outcomes["answered", ""] > 0.9 * FLIGHTS
    assert outcomes["refused", "contract_violation"] > 0
    assert sum(outcomes.values()) == FLIGHTS
    assert facts["acknowledged"]["decisions"] == FLIGHTS
    assert facts["acknowledged"]["missing"] == facts["acknowledged"]["doubled"] == 0
    assert {verdict["name"] for verdict in facts["promise"]["verdicts"]} == {"roc_auc", "calibration_error"}
    assert facts["ledger"]["ok"]
    assert facts["ledger"]["tampering_found"]
    assert facts["explained"]["outcomes"]
    for told in ("0.934", "SIGKILL", "One decision, explained"):
        assert told in done.stderr
    again = run_demo(tmp_path / "demo", "--flights", "200")
    assert again.returncode == 0, again.stderr


def test_a_directory_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    precious = tmp_path / "precious.txt"
    precious.write_text("mine")
    done = run_demo(tmp_path)
    assert done.returncode == 2
    assert "was not made by this demo" in done.stderr
    assert precious.read_text() == "mine"
