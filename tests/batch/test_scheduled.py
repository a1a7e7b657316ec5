from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

import tiny
from batch.online import read_records, unsealed
from mainstay.batch.batches import Asked, run_batch
from mainstay.batch.scheduled import Schedule, run_scheduled, table_name
from mainstay.decision.record import SCHEDULE
from mainstay.errors import Misuse
from mainstay.intake.types import DOOR_WRITER
from mainstay.lake.decision_rows import BATCH_LEAF
from mainstay.lake.decisions import Exporter
from mainstay.lake.exporting import open_digests
from mainstay.lake.lake import open_lake
from mainstay.lake.maintenance import Policy, maintain
from mainstay.ledger.entry import parse_id, read_id
from mainstay.ledger.eraser import record_request
from mainstay.ledger.erasure_entries import Rule, Wish
from mainstay.ledger.log import Log
from mainstay.ledger.sealer import Sealer
from mainstay.signing import load_signing_key

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.workspace import Workspace

SOURCES: dict[str, Any] = {
    "sources": [
        {"name": "orders", "files": {"folder": "incoming"}, "late": "re-decide", "event_time": "at", "key": ["note"]}
    ],
    "batches": [{"name": "nightly", "source": "orders", "key": "note", "every_seconds": 3600}],
}
TABLE = f"intake/{tiny.NAME}/orders"


@pytest.fixture
def served(tmp_path: Path) -> tuple[Workspace, str]:
    contract = tiny.CONTRACT | {"schema": [_with_time(tiny.CONTRACT["schema"][0]), *tiny.CONTRACT["schema"][1:]]}
    return tiny.make_served(tmp_path / "w", contract=contract, **SOURCES)


def _with_time(described: dict[str, Any]) -> dict[str, Any]:
    return described | {"properties": [*described["properties"], {"name": "at", "logicalType": "timestamp"}]}


def take_in(workspace: Workspace, item: int, rows: list[tuple[int, float, str]]) -> None:
    """Rows of an item, as the door puts them into the table: number, `a`, key."""
    lake = open_lake(workspace)
    day = datetime(2026, 3, 1, tzinfo=UTC)
    frame = pl.DataFrame(
        {
            "a": [a for _, a, _ in rows],
            "b": [0.5] * len(rows),
            "note": [key for _, _, key in rows],
            "mainstay_item": [item] * len(rows),
            "mainstay_row": [number for number, _, _ in rows],
            "mainstay_late": pl.Series([None] * len(rows), dtype=pl.String),
            "mainstay_day": [day.date()] * len(rows),
        }
    )
    table = lake.find(TABLE) or lake.create(TABLE, frame.schema, partition_by=["mainstay_day"])
    table.append(frame, writer=DOOR_WRITER, position=(item << 32) | rows[-1][0])


def decided(workspace: Workspace) -> list[tuple[int, int, str]]:
    """What stands in the batch's table: item, row, outcome."""
    table = open_lake(workspace).table(table_name(tiny.NAME, "nightly"))
    rows = table.frame().sort("mainstay_item", "mainstay_row").collect()
    return list(rows.select("mainstay_item", "mainstay_row", "mainstay_outcome").iter_rows())


def test_each_time_what_came_since_is_decided(served: tuple[Workspace, str]) -> None:
    workspace, _ = served
    take_in(workspace, 1, [(1, 0.5, "k1"), (2, 0.25, "k2"), (4, 1.0, "k4")])
    first = run_scheduled(workspace, tiny.NAME, "nightly")
    assert first is not None
    assert first.rows == 3
    assert run_scheduled(workspace, tiny.NAME, "nightly") is None
    take_in(workspace, 3, [(2, 500.0, "k5")])
    second = run_scheduled(workspace, tiny.NAME, "nightly")
    assert second is not None
    assert second.rows == 1
    assert decided(workspace) == [
        (1, 1, "answered"),
        (1, 2, "answered"),
        (1, 4, "answered"),
        (3, 2, "refused"),
    ]
    records = read_records(workspace.ledger)
    assert [each.source for each in records] == [
        {"batch": batch, "table": TABLE, "item": item, "row": row}
        for batch, item, row in ((first.batch, 1, 1), (first.batch, 1, 2), (first.batch, 1, 4), (second.batch, 3, 2))
    ]
    assert [each.key for each in records] == ["k1", "k2", "k4", "k5"]


def test_a_row_that_came_late_has_its_decision_made_again(served: tuple[Workspace, str]) -> None:
    workspace, _ = served
    take_in(workspace, 1, [(1, 0.5, "k1")])
    run_scheduled(workspace, tiny.NAME, "nightly")
    take_in(workspace, 2, [(1, -0.5, "k1")])
    run_scheduled(workspace, tiny.NAME, "nightly")
    assert [(each.key, each.source["item"]) for each in read_records(workspace.ledger)] == [("k1", 1), ("k1", 2)]


def test_the_schedule_makes_what_is_due_and_no_more(
    served: tuple[Workspace, str], caplog: pytest.LogCaptureFixture
) -> None:
    workspace, _ = served
    schedule = Schedule(workspace)
    schedule.run_due(1_000.0, lambda: False)
    assert "has taken nothing in yet" in caplog.text
    take_in(workspace, 1, [(1, 0.5, "k1")])
    schedule.run_due(1_010.0, lambda: False)
    assert open_lake(workspace).find(table_name(tiny.NAME, "nightly")) is None
    schedule.run_due(1_030.0, lambda: False)
    take_in(workspace, 2, [(1, 0.5, "k2")])
    schedule.run_due(1_040.0, lambda: False)
    assert len(decided(workspace)) == 1
    schedule.run_due(1_030.0 + 3_600, lambda: False)
    assert len(decided(workspace)) == 2
    assert {entry.source["item"] for entry in read_records(workspace.ledger)} == {1, 2}


def test_a_batch_that_nobody_declared_is_refused_by_name(served: tuple[Workspace, str]) -> None:
    with pytest.raises(Misuse, match="expected one of its scheduled batches, found 'weekly'"):
        run_scheduled(served[0], tiny.NAME, "weekly")


def test_a_table_of_the_lake_is_decided_as_of_a_version_and_since_another(
    served: tuple[Workspace, str], tmp_path: Path
) -> None:
    workspace, token = served
    take_in(workspace, 1, [(1, 0.5, "k1"), (2, 0.25, "k2")])
    first = open_lake(workspace).table(TABLE).version
    take_in(workspace, 2, [(1, 0.5, "k3")])
    second = open_lake(workspace).table(TABLE).version
    take_in(workspace, 3, [(1, 0.5, "k4")])
    rows = {}
    for name, version, since in (("old", first, None), ("new", second, first), ("all", None, None)):
        asked = Asked(tiny.NAME, f"lake:{TABLE}", tmp_path / name, key="note", version=version, since=since)
        run_batch(workspace, asked, token)
        rows[name] = pl.read_parquet(tmp_path / name)["mainstay_key"].to_list()
    assert rows == {"old": ["k1", "k2"], "new": ["k3"], "all": ["k1", "k2", "k3", "k4"]}


def test_a_table_that_was_only_compacted_is_the_same_input_and_one_with_more_rows_is_not(
    served: tuple[Workspace, str], tmp_path: Path
) -> None:
    workspace, token = served
    for item in range(1, 4):
        take_in(workspace, item, [(1, 0.5, f"k{item}")])
    asked = Asked(tiny.NAME, f"lake:{TABLE}", tmp_path / "out.parquet", key="note")
    summary, was_made = run_batch(workspace, asked, token)
    assert was_made
    table = open_lake(workspace).table(TABLE)
    before = table.version
    table.compact()
    assert table.refresh().version > before
    assert run_batch(workspace, asked, token) == (summary, False)
    take_in(workspace, 4, [(1, 0.5, "k4")])
    with pytest.raises(Misuse, match="the input: intake/tiny/orders"):
        run_batch(workspace, asked, token)


def test_the_principal_of_a_scheduled_decision_is_the_schedule(served: tuple[Workspace, str]) -> None:
    workspace, _ = served
    take_in(workspace, 1, [(1, 0.5, "k1")])
    summary = run_scheduled(workspace, tiny.NAME, "nightly")
    assert summary is not None
    (entry,) = unsealed(workspace.ledger)
    assert f'"principal":"{SCHEDULE}"'.encode() in entry.leaf


def batch_rows(workspace: Workspace) -> pl.DataFrame:
    table = open_lake(workspace).table(table_name(tiny.NAME, "nightly"))
    return table.frame().sort("mainstay_item", "mainstay_row", nulls_last=True).collect()


def seal(workspace: Workspace) -> None:
    with Sealer(workspace.ledger, load_signing_key(workspace.keys, None), workspace.settings.log) as sealer:
        sealer.seal_once()


def seal_and_export(workspace: Workspace) -> int:
    """Bring what is recorded to the tables of decisions; the rows that erasures emptied."""
    seal(workspace)
    return Exporter(open_lake(workspace), workspace.ledger, open_digests(workspace)).catch_up().blanked


def texts_below(folder: Path) -> list[str]:
    """Every text in every file of tables, be it in a version of one or not."""
    frames = [
        pl.read_parquet(path, hive_partitioning=False)
        for path in folder.rglob("*.parquet")
        if "_delta_log" not in path.parts
    ]
    assert frames
    return [text for frame in frames for column in frame.select(pl.col(pl.String)) for text in column.drop_nulls()]


def erase(workspace: Workspace, wish: Wish) -> int:
    record_request(workspace.ledger, wish, principal="control", reason="asked for")
    return seal_and_export(workspace)


@pytest.mark.parametrize("exported_before", [True, False])
def test_what_the_ledger_was_asked_to_erase_is_in_no_batch_and_no_file(
    served: tuple[Workspace, str], exported_before: bool
) -> None:
    workspace, _ = served
    take_in(workspace, 1, [(1, 0.5, "k1"), (2, 0.25, "k2"), (3, 0.5, "k1")])
    run_scheduled(workspace, tiny.NAME, "nightly")
    before = batch_rows(workspace)
    digests = [open_digests(workspace).of(key).hex() for key in ("k1", "k2", "k1")]
    assert before["mainstay_key"].to_list() == digests
    seal(workspace)
    if exported_before:
        seal_and_export(workspace)
    ids = [read_id(leaf) for leaf in Log(workspace.ledger).leaves(0, Log(workspace.ledger).size)]
    meant = [parse_id(before["mainstay_decision_id"][place]) for place in (0, 2)]
    runs = tuple((place, place + 1) for place, entry_id in enumerate(ids) if entry_id in meant)
    wish = Wish(capability=tiny.NAME, key=None, decision=None, up_to=len(ids), entries=runs)
    assert erase(workspace, wish) >= 2
    after = batch_rows(workspace)
    left = after.filter(pl.col("mainstay_key").is_null())
    assert sorted(left["mainstay_decision_id"]) == sorted(before["mainstay_decision_id"].gather([0, 2]))
    for name in left.columns:
        assert (left[name].null_count() == left.height) is (name not in BATCH_LEAF), name
    assert after.filter(pl.col("mainstay_item") == 1).equals(before[1:2])
    assert not any(digests[0] in text for text in texts_below(workspace.data / "lake" / "batches"))
    assert run_scheduled(workspace, tiny.NAME, "nightly") is None


def test_a_rule_of_retention_empties_the_rows_of_batches_that_are_as_old(served: tuple[Workspace, str]) -> None:
    workspace, _ = served
    take_in(workspace, 1, [(1, 0.5, "k1"), (2, 0.25, "k2")])
    run_scheduled(workspace, tiny.NAME, "nightly")
    seal_and_export(workspace)
    later = batch_rows(workspace)["mainstay_at"].max()
    assert isinstance(later, datetime)
    take_in(workspace, 2, [(1, 0.5, "k3")])
    run_scheduled(workspace, tiny.NAME, "nightly")
    seal_and_export(workspace)
    size = Log(workspace.ledger).size
    before = (later + timedelta(microseconds=1)).isoformat(timespec="microseconds").replace("+00:00", "Z")
    rule = Rule(capability=tiny.NAME, since="", before=before, first=0, last=size)
    wish = Wish(capability=tiny.NAME, key=None, decision=None, up_to=size, entries=(), rule=rule)
    assert erase(workspace, wish) >= 2
    assert batch_rows(workspace)["mainstay_item"].to_list() == [2, None, None]


def test_rows_of_a_batch_go_when_the_lake_keeps_rows_no_longer(served: tuple[Workspace, str]) -> None:
    workspace, _ = served
    take_in(workspace, 1, [(1, 0.5, "k1")])
    run_scheduled(workspace, tiny.NAME, "nightly")
    rows = batch_rows(workspace)
    assert rows["mainstay_day"].to_list() == [each.date() for each in rows["mainstay_at"]]
    policy = Policy(keep_rows=timedelta(days=30))
    for days, height in ((29, 1), (32, 0)):
        list(maintain(open_lake(workspace), policy, datetime.now(UTC) + timedelta(days=days)))
        assert batch_rows(workspace).height == height
    assert run_scheduled(workspace, tiny.NAME, "nightly") is None  # how far it has come is remembered
