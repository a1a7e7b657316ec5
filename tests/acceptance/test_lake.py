"""The lake as real processes make it: killed everywhere, in a folder and in a bucket, read by other engines."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import duckdb
import polars as pl
import pytest

import lake.children
from lake.lakes import BUCKET, DAY, make_table, numbers, parquet_with, rows, s3_lake, s3_server
from lake.ledgers import content, expected_sequences, exporter, sequences, texts
from ledger.persons import NAME, Persons
from ledger.samples import Writer, seal
from mainstay.lake import snapshots
from mainstay.lake.conditions import OneOf, Within
from mainstay.lake.decisions import lag
from mainstay.lake.lake import Lake, open_lake
from mainstay.lake.maintenance import Policy, maintain
from mainstay.lake.snapshots import open_snapshot
from mainstay.lake.taking import take
from mainstay.lake.upkeep import EXPORTING, keep_exported

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from mainstay.lake.tables import Table

pytestmark = pytest.mark.acceptance

KILLS = 20
NOW = datetime(DAY.year, DAY.month, DAY.day, tzinfo=UTC) + timedelta(days=3)
CHILD = Path(lake.children.__file__)


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with s3_server(tmp_path_factory.mktemp("s3")) as environment:
        yield environment


def begin(what: str, ledger: Path, place: str, steps: int, **environment: str) -> subprocess.Popen[bytes]:
    """A child that has begun to work."""
    process = prepare(what, ledger, place, steps, **environment)
    release(process)
    return process


def prepare(what: str, ledger: Path, place: str, steps: int, **environment: str) -> subprocess.Popen[bytes]:
    """A child that will begin to work when it is told."""
    paths = os.pathsep.join(path for path in sys.path if path)
    process = subprocess.Popen(
        [sys.executable, str(CHILD), what, str(ledger), place, str(steps)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **environment, "PYTHONPATH": paths},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def release(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.write(b"go\n")
    process.stdin.flush()


def end(process: subprocess.Popen[bytes], number: signal.Signals | None = None) -> int:
    if number is not None:
        process.send_signal(number)
    with process:
        return process.wait(60)


def wait_until(true: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.1)


def grow(ledger: Path, count: int, capability: str) -> None:
    writer = Writer(ledger)
    writer.append(count, capability=capability, body={"key": "k", "input": {"a": 1}, "output": {"b": 2}})
    writer.append(count // 4, kind="outcome", capability=capability, body={"key": "k", "outcome": 1})
    writer.segment.close()
    seal(ledger)


def test_an_exporter_killed_at_random_moments_loses_and_doubles_nothing(tmp_path: Path) -> None:
    ledger, place = tmp_path / "ledger", tmp_path / "lake"
    rng = random.Random(5)
    for capability in ("a", "b", "a", "c"):
        grow(ledger, 400, capability)
    killed = 0
    for _ in range(KILLS):
        process = begin("export", ledger, str(place), 20)
        time.sleep(rng.uniform(0, 0.25))
        killed += end(process, signal.SIGKILL) == -signal.SIGKILL
        found = sequences(Lake(place))
        assert found == sorted(set(found))
        assert set(found) <= set(expected_sequences(ledger))
    assert killed > KILLS // 2
    assert end(begin("export", ledger, str(place), 1_000)) == 0
    assert sequences(Lake(place)) == expected_sequences(ledger)
    whole = exporter(ledger, Lake(tmp_path / "anew"))
    whole.catch_up()
    assert content(Lake(place)) == content(Lake(tmp_path / "anew"))


def test_writers_and_takers_killed_at_random_moments_leave_whole_tables(tmp_path: Path) -> None:
    rng = random.Random(6)
    place = str(tmp_path / "lake")
    for _ in range(6):
        process = begin("append", tmp_path, place, 400)
        time.sleep(rng.uniform(0, 0.3))
        end(process, signal.SIGKILL)
        table = Lake(place).find("t")
        if table is not None:
            assert numbers(table) == list(range(10, 10 + table.rows))
            assert table.rows == 10 * (table.position("w") or 0)
    assert end(begin("append", tmp_path, place, 60)) == 0
    table = Lake(place).table("t")
    assert numbers(table) == list(range(10, 10 + table.rows))
    for _ in range(4):
        process = begin("take", tmp_path, place, 20)
        time.sleep(rng.uniform(0, 0.3))
        end(process, signal.SIGKILL)
    taken = take(Lake(place), "killed", "t")
    assert taken.taken.rows == table.rows
    assert sorted(taken.frame().collect()["n"]) == numbers(table)


def test_files_are_joined_and_removed_beside_a_writer_who_notices_nothing(tmp_path: Path) -> None:
    place = str(tmp_path / "lake")
    assert end(begin("append", tmp_path, place, 3)) == 0
    processes = [prepare("append", tmp_path, place, 60), prepare("keep", tmp_path, place, 25)]
    for process in processes:
        release(process)
    assert [end(process) for process in processes] == [0, 0]
    table = Lake(place).table("t")
    assert numbers(table) == list(range(10, 610))
    assert table.cursor("w") == {"after": 60}


def test_an_erasure_killed_at_random_moments_is_made_again_and_leaves_nothing(tmp_path: Path) -> None:
    rng = random.Random(8)
    place = str(tmp_path / "lake")
    assert end(begin("append", tmp_path, place, 30)) == 0
    take(Lake(place), "killed", "t")
    for _ in range(4):
        process = begin("erase", tmp_path, place, 200)
        time.sleep(rng.uniform(0, 0.5))
        end(process, signal.SIGKILL)
    assert end(begin("erase", tmp_path, place, 200)) == 0
    assert numbers(Lake(place).table("t")) == list(range(200, 310))
    files = [pl.read_parquet(path) for path in (tmp_path / "lake").rglob("part-*.parquet")]
    assert {n for rows in files if "n" in rows.columns for n in rows["n"]} == set(range(200, 310))
    snapshot = open_snapshot(Lake(place), "killed")
    snapshot.verify()
    assert snapshot.losses[-1].rows == 110


def at_once(what: str, environment: dict[str, str], folder: str, steps: int) -> Lake:
    """A bucket's lake, after three writers have worked on one table at once."""
    processes = [prepare(what, Path(), f"s3://{BUCKET}/{folder}", steps, **environment) for _ in range(3)]
    for process in processes:
        release(process)
    assert [end(process) for process in processes] == [0, 0, 0]
    return s3_lake(environment, folder)


def test_writers_of_one_name_at_once_in_a_bucket_write_each_step_once(bucket: dict[str, str]) -> None:
    """Nothing but the store keeps them apart: it lets nobody put a commit where one stands."""
    table = at_once("append", bucket, "one-name", 12).table("t")
    assert numbers(table) == list(range(10, 130))
    assert (table.position("w"), table.cursor("w")) == (12, {"after": 12})
    assert not table.is_surely_newest()  # to see that would take a request


def test_writers_of_several_names_at_once_in_a_bucket_lose_nothing(bucket: dict[str, str]) -> None:
    table = at_once("append_alone", bucket, "several-names", 8).table("t")
    assert numbers(table) == sorted(3 * list(range(10, 90)))
    names = list(table.history(1)[0].writers)
    assert len(names) == 3
    assert [(table.position(name), table.cursor(name)) for name in names] == 3 * [(8, {"after": 8})]
    deltas = [table.delta(version=version) for version in range(table.version + 1)]
    positions = [[delta.transaction_version(name) for name in names] for delta in deltas]
    moved = [writer for old, new in pairwise(positions) for writer in range(3) if old[writer] != new[writer]]
    assert sum(one != other for one, other in pairwise(moved)) > 2  # they did work at once


def test_an_exporter_to_a_bucket_killed_at_random_moments_loses_and_doubles_nothing(
    bucket: dict[str, str], tmp_path: Path
) -> None:
    ledger, place = tmp_path / "ledger", f"s3://{BUCKET}/export"
    rng = random.Random(7)
    grow(ledger, 200, "a")
    grow(ledger, 200, "b")
    for _ in range(4):
        process = begin("export", ledger, place, 50, **bucket)
        time.sleep(rng.uniform(0.1, 1))
        end(process, signal.SIGKILL)
    exported = s3_lake(bucket, "export")
    exporter(ledger, exported).catch_up()
    assert sequences(exported) == expected_sequences(ledger)
    assert lag(exported, ledger).exported == len(expected_sequences(ledger))


def answers(table: Table) -> dict[str, list[tuple[object, ...]]]:
    """The same question, asked of every engine."""
    delta = table.delta()
    batches = delta.scan(columns=["who", "n"])  # named in the query
    query = "SELECT who, count(*), sum(n)::BIGINT FROM {} GROUP BY who ORDER BY who"
    with duckdb.connect() as connection:
        found = {"DuckDB by Arrow": connection.sql(query.format("batches")).fetchall()}
        if not delta.table_uri.startswith("s3:"):  # there it needs an extension that is fetched
            files = f"read_parquet({delta.file_uris()}, hive_partitioning = true)"
            found["DuckDB by files"] = connection.sql(query.format(files)).fetchall()
    by_who = [pl.len(), pl.col("n").sum()]
    found["Polars"] = table.frame().group_by("who").agg(by_who).sort("who").collect().rows()
    del batches
    return found


def polars_by_itself(place: str, environment: Mapping[str, str]) -> int:
    options = {**environment, "AWS_ALLOW_HTTP": "true"} if environment else None
    return pl.scan_delta(place, storage_options=options).collect().height


@pytest.mark.parametrize("where", ["folder", "bucket"])
def test_other_engines_read_what_is_there_through_its_whole_life(
    where: str, bucket: dict[str, str], tmp_path: Path
) -> None:
    opened = Lake(tmp_path / "lake") if where == "folder" else s3_lake(bucket, "engines")
    table = make_table(opened, "intake/flights/feed", count=40)

    def check() -> None:
        found = answers(table)
        expected = found.pop("Polars")
        assert len(found) == (2 if where == "folder" else 1)
        assert all(each == expected for each in found.values())
        uri = opened.location.uri(table.name)
        assert polars_by_itself(uri, bucket if where == "bucket" else {}) == len(numbers(table))

    check()
    taken = take(opened, "march", table.name, where=Within("n", 0, 30))
    table.evolve(pl.Schema({"more": pl.String()}))
    check()
    snapshots.erase(opened, table.name, OneOf("who", ("K-3",)))
    check()
    done = list(maintain(opened, Policy(timedelta(), timedelta(days=1)), NOW))
    assert [each.problem for each in done] == ["", ""]
    check()
    assert numbers(table) == [n for n in range(20, 40) if n % 5 != 3]
    again = open_snapshot(opened, "march")
    again.verify()
    assert (again.taken.sha256, len(again.frame().collect())) == (taken.taken.sha256, 24)
    assert opened.names() == ["intake/flights/feed", "snapshots/march"]
    assert table.append(rows(40, 50), writer="w", position=50, previous=40).made


def exporting(*, of: int | None = None) -> list[int]:
    """The exporting processes that a process has begun, in any of its threads."""
    tasks = Path(f"/proc/{of or os.getpid()}/task").iterdir()
    children = [child for task in tasks for child in of_kernel(task / "children").split()]
    return [int(each) for each in children if EXPORTING in of_kernel(Path(f"/proc/{each}/cmdline"))]


def of_kernel(path: Path) -> str:
    """What the kernel says of a thread or a process; nothing when it has ended meanwhile."""
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_the_control_process_keeps_the_lake_up_with_the_ledger_whatever_dies(tmp_path: Path) -> None:
    persons = Persons(tmp_path / "w")
    workspace = persons.workspace.with_settings({"lake_interval_seconds": 0.05}, str)
    settings_file = workspace.root / "mainstay.toml"
    settings_file.write_text(settings_file.read_text() + "lake_interval_seconds = 0.05\n")
    stop = Event()
    thread = keep_exported(workspace, stop)
    assert thread is not None
    try:
        opened = open_lake(workspace)
        persons.fill(20)
        persons.leave_segment()
        persons.seal()
        wait_until(lambda: lag(opened, workspace.ledger)[:2] == (persons.log.size, persons.log.size))
        (first,) = exporting()
        os.kill(first, signal.SIGKILL)
        persons.request("K-3")
        persons.seal()
        wait_until(lambda: lag(opened, workspace.ledger)[:2] == (persons.log.size, persons.log.size))
        assert exporting() not in ([], [first])
        assert sequences(opened) == expected_sequences(workspace.ledger)
        assert not any("secret of 3." in text for text in texts(opened))
        assert parquet_with(workspace.data / "lake", "secret of 3.") == []
    finally:
        stop.set()
        thread.join(20)
        persons.writer.segment.abandon()
    assert exporting() == []


PARENT = """
import sys
from pathlib import Path
from threading import Event
from mainstay.lake.upkeep import keep_exported
from mainstay.workspace import open_workspace
heavy = {"polars", "deltalake"} & set(sys.modules)
print("heavy", sorted(heavy), flush=True)
keep_exported(open_workspace(Path(sys.argv[1])), Event()).join()
"""


def test_the_exporting_process_ends_with_whoever_began_it_and_loads_nothing_there(tmp_path: Path) -> None:
    persons = Persons(tmp_path / "w")
    persons.writer.segment.abandon()
    settings_file = persons.workspace.root / "mainstay.toml"
    settings_file.write_text(settings_file.read_text() + "lake_interval_seconds = 0.05\n")
    command = [sys.executable, "-c", PARENT, str(persons.workspace.root)]
    paths = os.pathsep.join(path for path in sys.path if path)
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": paths}) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"heavy []\n"
        wait_until(lambda: len(exporting(of=parent.pid)) == 1)
        (child,) = exporting(of=parent.pid)
        parent.kill()
    # When it has ended and nobody has asked how, the kernel still has a line of it.
    wait_until(lambda: of_kernel(Path(f"/proc/{child}/cmdline")) == "")


def test_where_the_settings_want_no_lake_nothing_is_begun(tmp_path: Path) -> None:
    persons = Persons(tmp_path / "w")
    persons.writer.segment.abandon()
    assert keep_exported(persons.workspace.with_settings({"lake_interval_seconds": 0}, str), Event()) is None
    assert NAME not in open_lake(persons.workspace).names()
