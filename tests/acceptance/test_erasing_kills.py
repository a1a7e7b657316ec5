"""Rows of a person go for good and with one receipt, though whoever erases them is killed at any step."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import intake.quarantine_children
from intake.held import SOURCE, broken, held_row, hold, let_in, make_workspace
from intake.quarantine_children import PERSON
from intake.test_erasing import files_with
from mainstay.intake.erasing import ACTION, SourceErasure
from mainstay.intake.landing import landing_of
from mainstay.intake.quarantine import Chosen
from mainstay.intake.quarantine_settling import Settler
from mainstay.intake.types import intake_table, quarantine_table, settled_table
from mainstay.lake.lake import open_lake
from mainstay.lake.snapshots import open_snapshot
from mainstay.lake.taking import take
from mainstay.ledger.state import WAL_FOLDER
from mainstay.ledger.wal import SegmentReader, segments
from mainstay.workspace import open_workspace
from tiny import NAME

pytestmark = pytest.mark.acceptance

CHILD = Path(intake.quarantine_children.__file__)
KILLS = 10


@pytest.fixture(scope="module")
def taken_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with rows of several persons wherever rows can be."""
    workspace = make_workspace(tmp_path_factory.mktemp("taken-in") / "w")
    lake = open_lake(workspace)
    let_in(lake, [("K-3", 1.0, 1, 1), ("K-4", 2.0, 1, 2), ("K-3", 3.0, 2, 1)])
    take(lake, "march", intake_table(NAME, SOURCE))
    hold(lake, [held_row(2, row, {"who": f"K-{row}"}, broken("a", "required")) for row in range(3, 6)])
    settler = Settler(workspace, lake, NAME, SOURCE)
    assert settler.settle("discarded", Chosen(rows=((2, 3), (2, 4))), reason="r", by="os:ops")
    with landing_of(workspace.data, NAME, SOURCE).begin("jsonl") as draft:
        draft.file.write(b'{"who": "K-2"}\n{"who": "K-3"}\n')
        draft.land(origin="a test")
    return workspace.root


def run(root: Path, at: int) -> tuple[int, bytes]:
    paths = os.pathsep.join(path for path in sys.path if path)
    command = [sys.executable, str(CHILD), str(root), "erased", str(at), "request 118"]
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(command, stdout=subprocess.PIPE, env=environment, timeout=120, check=False)
    return done.returncode, done.stdout


def receipts(root: Path) -> list[dict[str, object]]:
    paths = segments(root / ".mainstay" / "ledger" / WAL_FOLDER)
    entries = [entry for path in paths for group in SegmentReader(path).groups() for entry in group.entries]
    return [json.loads(entry.body)["details"] for entry in entries if ACTION.encode() in entry.leaf]


def test_an_erasure_killed_at_any_step_is_made_again_with_one_receipt(taken_in: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    shutil.copytree(taken_in, whole)
    code, said = run(whole, 0)
    assert code == 0
    steps, accepted = map(int, said.split())
    assert accepted == 2
    moments = sorted({1 + number * (steps - 1) // (KILLS - 1) for number in range(KILLS)})

    def kill(at: int) -> Path:
        root = tmp_path / str(at)
        shutil.copytree(taken_in, root)
        code, _ = run(root, at)
        assert code == -signal.SIGKILL
        return root

    with ThreadPoolExecutor(2) as pool:
        for root in pool.map(kill, moments):
            workspace = open_workspace(root)
            lake = open_lake(workspace)
            desk = SourceErasure(workspace, lake, NAME, SOURCE)
            desk.carry_out(PERSON, frozenset({"who"}), reason="again", by="os:night")
            assert desk.carry_out(PERSON, frozenset({"who"}), reason="again", by="os:night") is None
            assert files_with(workspace.data, "K-3") == []
            assert lake.table(intake_table(NAME, SOURCE)).frame().collect()["who"].to_list() == ["K-4"]
            assert lake.table(quarantine_table(NAME, SOURCE)).rows == 2
            assert lake.table(settled_table(NAME, SOURCE)).rows == 1
            snapshot = open_snapshot(lake, "march")
            snapshot.verify()
            assert snapshot.losses[-1].rows == 1
            (receipt,) = receipts(root)
            assert [receipt[name] for name in ("accepted", "held", "waiting")] == [2, 1, 1]
            shutil.rmtree(root)
