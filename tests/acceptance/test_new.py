"""Five pilots of different kinds come to production with nothing but the questions answered; see bench/new.py."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

import drafts
from mainstay.capability.load import load_capability
from mainstay.documents import OPEN_QUESTION
from mainstay.errors import InvalidDocument
from shared_data import shared_data

if TYPE_CHECKING:
    from types import ModuleType

pytestmark = pytest.mark.acceptance

BENCH = Path(__file__).resolve().parents[2] / "bench"
PROGRAM = "new"
NEEDS = {
    "flights": None,
    "acs": ("streams", "acs_employment_ma_reference.csv"),
    "elec2": ("streams", "elec2.csv"),
    "breast-cancer": None,
    "hospital": ("dirty", "hospital", "clean.csv"),
}
KILLS = 8
LONGEST_SECONDS = 2.5  # before a draft is killed


@pytest.fixture(scope="module")
def bench() -> Any:
    """The programs of bench/ are scripts that import each other by name."""
    sys.path.insert(0, str(BENCH))
    try:
        yield import_module(PROGRAM)
    finally:
        sys.path.remove(str(BENCH))


@pytest.mark.parametrize("name", NEEDS)
def test_a_pilot_serves_after_only_its_questions_are_answered(bench: ModuleType, name: str, tmp_path: Path) -> None:
    needed = NEEDS[name]
    if needed is not None:
        shared_data(*needed)
    pilot = bench.PILOTS[name](tmp_path)
    found = bench.run_pilot(pilot, tmp_path / "workspace")
    assert found.fresh > 100
    assert found.answered + found.refused == found.fresh
    assert found.wrong == 0, found
    assert found.refused_share < 0.01, found.reasons


def test_a_draft_that_is_killed_leaves_no_folder_or_a_whole_one(tmp_path: Path) -> None:
    model, data = drafts.write_graph(tmp_path / "model.onnx"), drafts.write_sample(tmp_path / "sample.csv")
    target = tmp_path / "place" / "drafted"
    words = ["new", "drafted", "--model", str(model), "--data", str(data), "--output", str(target)]
    command = [sys.executable, "-m", "mainstay.cli.main", *words]
    dice = Random(0)
    for _ in range(KILLS):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path)
        try:
            process.wait(dice.uniform(0.2, LONGEST_SECONDS))
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        if target.exists():
            assert_whole(target)
            target.rename(tmp_path / f"whole-{process.pid}")
    assert subprocess.run(command, capture_output=True, check=False, cwd=tmp_path, timeout=60).returncode == 0
    assert_whole(target)
    assert [path.name for path in target.parent.iterdir()] == ["drafted"]


def assert_whole(folder: Path) -> None:
    """Nothing but questions is wrong with it."""
    with pytest.raises(InvalidDocument) as caught:
        load_capability(folder)
    assert {each.found for each in caught.value.problems} == {OPEN_QUESTION}
    drafts.answer(caught.value.problems)
    load_capability(folder)
