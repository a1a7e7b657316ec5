"""Batches that are killed: every row has exactly one record and one row of output in the end."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

import tiny
from mainstay.decision.replay import Replayer
from mainstay.intake.types import DOOR_WRITER
from mainstay.lake.lake import open_lake
from mainstay.ledger.find import find_entry
from mainstay.ledger.log import Log
from mainstay.ledger.sealer import Sealer
from mainstay.ledger.verify import verify_ledger
from mainstay.ledger.wal import SegmentReader, segments
from mainstay.signing import load_signing_key, load_verifier

if TYPE_CHECKING:
    from mainstay.workspace import Workspace

pytestmark = pytest.mark.acceptance

ROWS = 120_000
KILLS = 6


def begin(workspace: Workspace, token: str, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "mainstay.cli.main", "batch", tiny.NAME, *arguments]
    command += ["--workspace", str(workspace.root), "--json"]
    environment = {**os.environ, "MAINSTAY_API_KEY": token}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)


def steps(workspace: Workspace) -> int:
    return sum(path.read_bytes().count(b"\n") for path in workspace.data.glob("batch/*/steps.jsonl"))


def kill_somewhere(process: subprocess.Popen[bytes], workspace: Workspace, chance: random.Random) -> bool:
    """Kill it some steps and some moments further; whether it was still there."""
    wanted, deadline = steps(workspace) + chance.randint(0, 2), time.monotonic() + 60
    while steps(workspace) < wanted and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(chance.random() * 0.1)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.returncode == -signal.SIGKILL


def recorded(workspace: Workspace) -> list[tuple[int, str]]:
    """Row and id of every decision, sealed or not; a segment may still hold what is sealed already."""
    log = Log(workspace.ledger)
    entries = list(log.entries(0, log.size)) if log.size else []
    entries += [
        entry
        for path in segments(workspace.ledger / "wal")
        for group in SegmentReader(path).groups()
        for entry in group.entries
    ]
    found = [(json.loads(each.leaf), each.body) for each in entries]
    decisions = [(json.loads(body)["source"]["row"], leaf["id"]) for leaf, body in found if leaf["kind"] == "decision"]
    return list(dict.fromkeys(decisions))


def seal(workspace: Workspace) -> None:
    with Sealer(workspace.ledger, load_signing_key(workspace.keys, None), workspace.settings.log) as sealer:
        sealer.seal_once()


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "rows.parquet"
    numbers = range(ROWS)
    a = [None if i % 5_003 == 0 else 200.0 if i % 1_009 == 0 else i % 7 - 3.0 for i in numbers]
    frame = pl.DataFrame({"a": a, "b": [i % 11 / 4 for i in numbers], "id": [f"case-{i}" for i in numbers]})
    frame.write_parquet(path)
    return path


@pytest.mark.parametrize("output", ["decided", "decided.parquet", "decided.jsonl"])
def test_a_batch_that_is_killed_anywhere_decides_every_row_once(output: str, table: Path, tmp_path: Path) -> None:
    workspace, token = tiny.make_served(tmp_path / "w")
    chance = random.Random(output)
    command = (str(table), str(tmp_path / output), "--key", "id")
    kills = 0
    for turn in range(KILLS):
        kills += kill_somewhere(begin(workspace, token, *command), workspace, chance)
        if turn % 3 == 1:
            seal(workspace)  # what a step left is then found in the log
    process = begin(workspace, token, *command)
    told, complaint = process.communicate(timeout=120)
    assert process.returncode == 0, complaint.decode()
    summary = json.loads(told)
    assert kills >= KILLS // 2
    assert (summary["rows"], summary["finished"]) == (ROWS, True)
    seal(workspace)
    records = recorded(workspace)
    assert Counter(row for row, _ in records) == Counter(range(1, ROWS + 1))
    place = tmp_path / output
    rows = pl.read_ndjson(place) if place.suffix == ".jsonl" else pl.read_parquet(place)
    assert rows["mainstay_row"].to_list() == list(range(1, ROWS + 1))
    assert dict(records) == dict(zip(rows["mainstay_row"], rows["mainstay_decision_id"], strict=True))
    assert summary["outcomes"] == dict(Counter(rows["mainstay_outcome"].to_list()).most_common())
    assert verify_ledger(workspace.ledger, load_verifier(workspace.keys), origin=workspace.settings.log).ok
    with Replayer(workspace) as replayer:
        ids = rows["mainstay_decision_id"].sample(200, seed=1).to_list()
        found = [find_entry(workspace.ledger, each) for each in ids]
        assert {each.verdict for each in replayer.replay([each.entry for each in found if each is not None])} == {
            "same"
        }


def test_a_batch_that_is_stopped_says_so_and_goes_on(table: Path, tmp_path: Path) -> None:
    workspace, token = tiny.make_served(tmp_path / "w")
    command = (str(table), str(tmp_path / "decided"))
    process = begin(workspace, token, *command)
    while steps(workspace) < 2:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    again = begin(workspace, token, *command)
    told, _ = again.communicate(timeout=120)
    assert json.loads(told)["rows"] == ROWS
    assert len(recorded(workspace)) == ROWS


def test_processes_beside_it_decide_the_same_and_one_that_is_killed_is_made_up_for(table: Path, tmp_path: Path) -> None:
    workspace, token = tiny.make_served(tmp_path / "w")
    plain, beside = tmp_path / "plain", tmp_path / "beside"
    begin(workspace, token, str(table), str(plain)).communicate(timeout=120)
    process = begin(workspace, token, str(table), str(beside), "--workers", "2")
    before = steps(workspace)
    while steps(workspace) < before + 2:
        time.sleep(0.01)
    workers = _workers_of(process.pid)
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    _, complaint = process.communicate(timeout=120)
    assert process.returncode == 0, complaint.decode()
    ours = ["mainstay_decision_id", "mainstay_leaf"]
    one, other = (pl.read_parquet(path).drop(ours) for path in (plain, beside))
    assert one.equals(other)
    assert len(recorded(workspace)) == 2 * ROWS


def _workers_of(pid: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            text = status.read_text()
            command = (status.parent / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if f"PPid:\t{pid}\n" in text and b"spawn_main" in command:
            found.append(int(status.parent.name))
    return found


ITEMS = 3
ITEM_ROWS = 30_000
TABLE = f"intake/{tiny.NAME}/orders"
DECLARED: dict[str, Any] = {
    "sources": [{"name": "orders", "files": {"folder": "incoming"}}],
    "batches": [{"name": "nightly", "source": "orders", "every_seconds": 3600}],
}


def take_in(workspace: Workspace, item: int, rows: int) -> None:
    """An item as the door puts it into the table; every seventh of its rows went elsewhere."""
    numbers = [number for number in range(1, rows + 1) if number % 7]
    frame = pl.DataFrame(
        {
            "a": [number % 5 - 2.0 for number in numbers],
            "b": [0.5] * len(numbers),
            "mainstay_item": [item] * len(numbers),
            "mainstay_row": numbers,
        }
    )
    lake = open_lake(workspace)
    table = lake.find(TABLE) or lake.create(TABLE, frame.schema)
    table.append(frame, writer=DOOR_WRITER, position=(item << 32) | numbers[-1])


def test_a_scheduled_batch_that_is_killed_anywhere_decides_every_row_once(tmp_path: Path) -> None:
    workspace, token = tiny.make_served(tmp_path / "w", **DECLARED)
    chance = random.Random(7)
    kills = 0
    for item in range(1, ITEMS + 1):
        take_in(workspace, item, ITEM_ROWS)
        for _ in range(2):
            kills += kill_somewhere(begin(workspace, token, "--scheduled", "nightly"), workspace, chance)
        seal(workspace)
    process = begin(workspace, token, "--scheduled", "nightly")
    _, complaint = process.communicate(timeout=120)
    assert process.returncode == 0, complaint.decode()
    assert kills >= ITEMS
    wanted = open_lake(workspace).table(TABLE).frame().select("mainstay_item", "mainstay_row").collect()
    found = open_lake(workspace).table(f"batches/{tiny.NAME}/nightly").frame().collect()
    order = ["mainstay_item", "mainstay_row"]
    assert found.select(order).sort(order).equals(wanted.sort(order))
    assert Counter(entry_id for _, entry_id in recorded(workspace)) == Counter(found["mainstay_decision_id"])


def test_the_process_of_the_schedule_makes_what_is_due_and_ends_with_its_input(tmp_path: Path) -> None:
    workspace, _ = tiny.make_served(tmp_path / "w", **DECLARED)
    take_in(workspace, 1, 100)
    command = [sys.executable, "-m", "mainstay.batch.scheduled", str(workspace.root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        deadline = time.monotonic() + 60
        while not recorded(workspace) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.stdin.close()
        assert process.wait(30) == 0
    assert len(recorded(workspace)) == 86


def test_the_control_process_makes_what_is_due(tmp_path: Path) -> None:
    workspace, _ = tiny.make_served(tmp_path / "w", **DECLARED)
    take_in(workspace, 1, 100)
    command = [sys.executable, "-m", "mainstay.cli.main", "control", "--workspace", str(workspace.root)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while not recorded(workspace) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.terminate()
        assert process.wait(30) == 0
    assert len(recorded(workspace)) == 86
