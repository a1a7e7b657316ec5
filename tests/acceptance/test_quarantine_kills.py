"""Held rows are replayed and discarded once, though whoever does it is killed at any step, or others do it too."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

import intake.quarantine_children
from intake.held import SOURCE, broken, held_row, hold, many
from mainstay.cli.init import create_workspace
from mainstay.intake.landing import landing_of
from mainstay.intake.quarantine import Chosen, Quarantine
from mainstay.intake.quarantine_settling import ACTIONS, Settler
from mainstay.intake.types import ITEM, ROW, settled_table
from mainstay.lake.lake import open_lake
from mainstay.ledger.log import Log
from mainstay.ledger.sealer import Sealer
from mainstay.ledger.state import WAL_FOLDER
from mainstay.ledger.wal import SegmentReader, segments
from mainstay.signing import load_signing_key
from mainstay.workspace import open_workspace
from tiny import NAME

if TYPE_CHECKING:
    from mainstay.intake.quarantine_settling import Outcome
    from mainstay.workspace import Workspace

pytestmark = pytest.mark.acceptance

CHILD = Path(intake.quarantine_children.__file__)
ROWS = 12


class Landed(NamedTuple):
    """What landed, by item: a line for each row, header lines not among them."""

    lines: dict[int, list[bytes]]

    @property
    def records(self) -> list[bytes]:
        return sorted(line for lines in self.lines.values() for line in lines)


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which rows of two kinds are held, so that a replay makes two items."""
    root = tmp_path_factory.mktemp("held") / "w"
    workspace, _, _ = create_workspace(root, "tests.example.com/kills")
    lake = open_lake(workspace)
    hold(lake, many(2, ROWS // 3), reached=5)
    csv = [
        held_row(3, row, b"%d,x" % row, broken("id", "type"), kind="csv", header='[",","id","name"]')
        for row in range(1, ROWS // 3 + 1)
    ]
    hold(lake, csv, reached=6)
    return root


def run(root: Path, how: str, at: str | int, reason: str = "r") -> subprocess.Popen[bytes]:
    paths = os.pathsep.join(path for path in sys.path if path)
    command = [sys.executable, str(CHILD), str(root), how, str(at), reason]
    environment = {**os.environ, "PYTHONPATH": paths}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)


def end(process: subprocess.Popen[bytes]) -> tuple[int, bytes]:
    said, _ = process.communicate(timeout=120)
    return process.returncode, said


def take(workspace: Workspace, landed: Landed) -> None:
    """What the door does with items: they are read, and they go."""
    landing = landing_of(workspace.data, NAME, SOURCE)
    for item in landing.waiting():
        lines = landing.path(item).read_bytes().splitlines()
        assert item.number not in landed.lines, "an item with a number that another had"
        landed.lines[item.number] = lines[1:] if item.kind == "csv" else lines
        assert item.bytes == landing.path(item).stat().st_size
        assert item.cursor == {"after": 6}
        landing.drop(item)
    landing.sweep(max(landed.lines, default=0))


def recorded(workspace: Workspace, how: Outcome) -> list[dict[str, object]]:
    """The details of changes of this kind, be they sealed or not."""
    log = Log(workspace.ledger)
    entries = list(log.entries(0, log.size))
    for path in segments(workspace.ledger / WAL_FOLDER):
        entries += [entry for group in SegmentReader(path).groups() for entry in group.entries]
    found = {entry.leaf: entry.body for entry in entries if f'"action":"{ACTIONS[how]}"'.encode() in entry.leaf}
    return [json.loads(body)["details"] for body in found.values()]


def held_records(root: Path) -> list[bytes]:
    quarantine = Quarantine(open_lake(open_workspace(root)), NAME, SOURCE)
    return sorted(raw for rows in quarantine.chunks(Chosen(), ["mainstay_raw"]) for raw in rows["mainstay_raw"])


def check(workspace: Workspace, how: Outcome, landed: Landed, expected: list[bytes]) -> None:
    """Every row is settled once and, where it was replayed, landed once, at the place that is said of it."""
    lake = open_lake(workspace)
    quarantine = Quarantine(lake, NAME, SOURCE)
    assert quarantine.open_rows() == 0
    settled = lake.table(settled_table(NAME, SOURCE)).frame().collect()
    assert settled.height == ROWS
    assert settled.select(ITEM, ROW).n_unique() == ROWS
    changes = recorded(workspace, how)
    assert len({each["mark"] for each in changes}) == len(changes) == 1
    assert changes[0]["rows"] == ROWS
    if how == "replayed":
        assert landed.records == expected
        for item, row, into_item, into_row in settled.select(ITEM, ROW, "into_item", "into_row").iter_rows():
            assert landed.lines[into_item][into_row - 1] == quarantine.row(item, row)["mainstay_raw"]
        assert {each["item"] for each in changes[0]["into"]} == set(settled["into_item"])  # type: ignore[attr-defined]  # a list
    else:
        assert landed.records == []
        assert settled["into_item"].null_count() == ROWS
    assert not (workspace.data / "intake" / NAME / SOURCE / "settling").exists()


@pytest.mark.parametrize("how", ["replayed", "discarded"])
def test_whoever_is_killed_at_any_step_the_next_one_finishes_it(held: Path, tmp_path: Path, how: Outcome) -> None:
    expected = held_records(held)
    whole = tmp_path / "whole"
    shutil.copytree(held, whole)
    code, said = end(run(whole, how, 0))
    assert code == 0
    steps = int(said.split()[0])
    assert steps > 10

    def kill(at: int) -> Workspace:
        root = tmp_path / str(at)
        shutil.copytree(held, root)
        code, _ = end(run(root, how, at))
        assert code == -signal.SIGKILL
        return open_workspace(root)

    moments = range(1, steps + 1, 1 if how == "replayed" else 3)  # a discard takes some of the same steps
    with ThreadPoolExecutor(2) as pool:
        for at, workspace in zip(moments, pool.map(kill, moments), strict=True):
            landed = Landed({})
            if at % 2:
                take(workspace, landed)  # the door does not wait for whoever comes next
            if at % 3 == 0:
                with Sealer(workspace.ledger, load_signing_key(workspace.keys, None), "tests.example.com/kills") as one:
                    one.seal_once()
            Settler(workspace, open_lake(workspace), NAME, SOURCE).settle(how, Chosen(), reason="again", by="os:night")
            take(workspace, landed)
            check(workspace, how, landed, expected)
            shutil.rmtree(workspace.root)


def test_two_replays_at_the_same_time_land_each_row_once(held: Path, tmp_path: Path) -> None:
    expected = held_records(held)
    root = tmp_path / "w"
    shutil.copytree(held, root)
    processes = [run(root, "replayed", "wait", f"r{number}") for number in range(3)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.flush()
    said = [end(process) for process in processes]
    assert [code for code, _ in said] == [0, 0, 0]
    assert sorted(int(words.split()[1]) for _, words in said) == [0, 0, ROWS]
    landed = Landed({})
    take(open_workspace(root), landed)
    check(open_workspace(root), "replayed", landed, expected)
