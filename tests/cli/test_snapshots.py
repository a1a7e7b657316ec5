from __future__ import annotations

import json
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

import tiny
from ledger.samples import sealed_leaves
from lineage.emitted import emitted, kinds
from mainstay.catalog.versions import load_manifest
from mainstay.cli.common import Common
from mainstay.cli.init import create_workspace
from mainstay.cli.snapshots import export_snapshot, list_snapshots, take_snapshot, verify_snapshot
from mainstay.cli.trials import history
from mainstay.cli.versions import record_promotion, record_registration
from mainstay.errors import Misuse
from mainstay.lake import snapshots
from mainstay.lake.conditions import OneOf
from mainstay.lake.lake import Lake, open_lake
from mainstay.ledger.sealer import Sealer
from mainstay.signing import load_signing_key

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.workspace import Workspace

TABLE = "intake/tiny/feed"
SCHEMA = pl.Schema({"mainstay_day": pl.Date(), "id": pl.Int64(), "a": pl.Float64()})
DAY = date(2026, 3, 1)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = create_workspace(tmp_path / "w", "tests.example.com/snapshots")[0]
    table = open_lake(workspace).create(TABLE, SCHEMA, partition_by=["mainstay_day"])
    for n in range(4):
        rows = {"mainstay_day": [DAY + timedelta(days=n)] * 5, "id": range(5 * n, 5 * n + 5), "a": [0.5] * 5}
        table.append(pl.DataFrame(rows, schema=SCHEMA), writer="w", position=n)
    return workspace


@pytest.fixture
def common(workspace: Workspace) -> Common:
    return Common(workspace=workspace.root, json=True)


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def changes(workspace: Workspace, action: str) -> list[dict[str, Any]]:
    with Sealer(workspace.ledger, load_signing_key(workspace.keys, None), workspace.settings.log) as sealer:
        sealer.seal_once()
    leaves = map(json.loads, sealed_leaves(workspace.ledger))
    return [leaf for leaf in leaves if leaf.get("action") == action]


def test_taking_a_snapshot_is_recorded_once_and_said_as_lineage(
    workspace: Workspace, common: Common, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("mainstay_day>=2026-03-02", "id!=7,8")
    take_snapshot("march", TABLE, where=where, reason="to train on", common=common)
    made = printed(capsys)
    assert (made["name"], made["table"], made["rows"], made["version"]) == ("march", TABLE, 13, 4)
    take_snapshot("march", TABLE, where=where, common=Common(workspace=workspace.root))
    text = capsys.readouterr().out
    assert f"SHA-256 {made['sha256']}" in text
    assert "13 rows of intake/tiny/feed at version 4, where" in text
    (change,) = changes(workspace, "snapshot.taken")
    assert change["subject"] == "march"
    assert kinds(emitted(workspace)) == [("snapshot.march", "START"), ("snapshot.march", "COMPLETE")]


def test_snapshots_are_listed_verified_and_exported(
    workspace: Workspace, common: Common, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    list_snapshots(common=Common(workspace=workspace.root))
    assert capsys.readouterr().out == "there is no snapshot\n"
    take_snapshot("march", TABLE, common=common)
    take_snapshot("early", TABLE, version=2, common=common)
    open_lake(workspace).create("snapshots/begun", SCHEMA)
    capsys.readouterr()
    list_snapshots(common=common)
    listed = printed(capsys)
    assert [(each["name"], each["rows"]) for each in listed["snapshots"]] == [("early", 10), ("march", 20)]
    assert listed["unfinished"] == ["begun"]
    list_snapshots(common=Common(workspace=workspace.root))
    text = capsys.readouterr().out
    assert "begun: begun and never finished" in text
    assert "0 versions" in text
    assert verify_snapshot("march", common=common) == 0
    assert printed(capsys)["ok"] is True
    export_snapshot("march", tmp_path / "out", common=common)
    assert printed(capsys)["files"] == ["part-00000.parquet"]
    assert pl.read_parquet(tmp_path / "out" / "part-00000.parquet").height == 20
    with pytest.raises(Misuse, match="expected one, found none"):
        verify_snapshot("april", common=common)


def test_a_snapshot_that_was_changed_fails_and_one_that_was_erased_from_says_so(
    workspace: Workspace, common: Common, capsys: pytest.CaptureFixture[str]
) -> None:
    take_snapshot("march", TABLE, common=common)
    take_snapshot("april", TABLE, common=common)
    lake = open_lake(workspace)
    snapshots.erase(lake, TABLE, OneOf("id", (3,)))
    lake.table("snapshots/april").retain(OneOf("id", (1, 2)))
    capsys.readouterr()
    assert verify_snapshot(common=common) == 1
    found = {each["snapshot"]: each["holds"] for each in printed(capsys)["snapshots"]}
    assert found == {"april": False, "march": True}
    assert verify_snapshot(common=Common(workspace=workspace.root)) == 1
    text = capsys.readouterr().out
    assert "OK    march\n" in text
    assert "FAIL  snapshot april: expected rows with SHA-256" in text
    list_snapshots(common=Common(workspace=workspace.root))
    assert "19 (1 erased)" in capsys.readouterr().out


def register(workspace: Workspace, snapshot: str) -> Any:
    model = {**tiny.DECLARATION["model"], "trained_on": snapshot}
    return record_registration(workspace, tiny.write_folder(workspace.capabilities / tiny.NAME, model=model), None)


def test_a_version_records_what_it_was_trained_on_and_reads_it_again_with_the_same_bytes(
    workspace: Workspace, common: Common, capsys: pytest.CaptureFixture[str]
) -> None:
    take_snapshot("march", TABLE, common=common)
    made = printed(capsys)
    registered = register(workspace, "march")
    trained_on = load_manifest(workspace.versions, registered.version).trained_on
    assert trained_on is not None
    assert (trained_on.snapshot, trained_on.table, trained_on.table_version) == ("march", TABLE, 4)
    assert (trained_on.rows, trained_on.sha256) == (20, made["sha256"])
    table = open_lake(workspace).table(TABLE)
    table.compact()
    table.evolve(pl.Schema({"more": pl.String()}))
    table.append(pl.DataFrame({"mainstay_day": [DAY], "id": [99], "a": [1.0], "more": ["x"]}), writer="w", position=9)
    table.vacuum(timedelta())
    again = snapshots.open_snapshot(Lake(open_lake(workspace).location.root), "march")
    assert snapshots.digest(again.encoded()) == trained_on.sha256
    assert not register(workspace, "march").created
    record_promotion(workspace, tiny.NAME, registered.version, "trained on March")
    history(tiny.NAME, common=Common(workspace=workspace.root))
    lines = capsys.readouterr().out.splitlines()
    assert "TRAINED ON" in lines[0]
    assert "march" in lines[1]
    list_snapshots(common=common)
    assert printed(capsys)["snapshots"][0]["trained"] == [{"capability": tiny.NAME, "version": registered.version}]


def test_a_version_of_a_snapshot_that_is_not_there_is_refused(workspace: Workspace, common: Common) -> None:
    take_snapshot("march", TABLE, common=common)
    with pytest.raises(Misuse, match=r"model\.trained_on: snapshot april: expected one, found none"):
        register(workspace, "april")
    assert list(workspace.versions.glob("*/manifest.json")) == []


def test_wrong_words_are_told(common: Common) -> None:
    with pytest.raises(Misuse, match="Did you mean id"):
        take_snapshot("march", TABLE, where=("idd=3",), common=common)
    with pytest.raises(Misuse, match="expected a table, found none"):
        take_snapshot("march", "intake/tiny/other", common=common)
