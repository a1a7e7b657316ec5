from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
import yaml

import tiny
from catalog.folders import flights_folder
from lineage.emitted import emitted, kinds
from mainstay.catalog.reference_profiles import JOB, SCHEMA, ProfileExporter, profile_of
from mainstay.cli.init import create_workspace
from mainstay.cli.versions import record_registration
from mainstay.errors import Damaged
from mainstay.lake.lake import open_lake
from mainstay.lineage.emitting import Emitter

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.workspace import Workspace

TABLE = f"profiles/{tiny.NAME}"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return create_workspace(tmp_path / "w", "tests.example.com/profiles")[0]


def register(workspace: Workspace, rows: list[dict[str, Any]] | None, **changes: Any) -> str:
    if rows is not None:
        changes["reference"] = {"file": "r.jsonl"}
    folder = tiny.write_folder(workspace.capabilities / tiny.NAME, **changes)
    if rows is not None:
        (folder / "r.jsonl").write_text("\n".join(json.dumps({"input": row}) for row in rows))
    return record_registration(workspace, folder, None).version


def reference(count: int = 200) -> list[dict[str, Any]]:
    return [
        {"a": n % 20, **({} if n % 4 == 0 else {"b": 1.5}), "note": "calm" if n % 2 else f"of person {n}"}
        for n in range(count)
    ]


def export(workspace: Workspace, exporter: ProfileExporter | None = None) -> pl.DataFrame:
    lake = open_lake(workspace)
    (exporter or ProfileExporter())(workspace, lake, Emitter(workspace))
    table = lake.find(TABLE)
    return pl.DataFrame(schema=SCHEMA) if table is None else table.frame().collect()


def test_a_version_with_reference_rows_has_a_row_for_each_column(workspace: Workspace) -> None:
    version = register(workspace, reference())
    found = {row["column"]: row for row in export(workspace).to_dicts()}
    assert set(found) == {"a", "b"}  # what the model takes
    a, b = found["a"], found["b"]
    assert (a["version"], a["kind"], a["rows"], a["missing"]) == (version, "number", 200, 0)
    assert a["edges"][0] == 0
    assert a["edges"][-1] == 19
    assert a["edges"] == sorted(set(a["edges"]))
    assert len(a["shares"]) == len(a["edges"]) - 1
    assert sum(a["shares"]) == pytest.approx(1)
    assert (b["missing"], b["edges"], b["levels"]) == (50, [1.5, 1.5], None)
    assert b["shares"] == [0.75]


def test_each_version_is_there_once_however_often_and_by_whom_it_is_exported(workspace: Workspace) -> None:
    first = register(workspace, reference())
    exporter = ProfileExporter()
    export(workspace, exporter)
    export(workspace, exporter)
    second = register(workspace, reference(160))
    without = register(workspace, None)
    export(workspace, exporter)
    found = export(workspace, ProfileExporter())
    assert found.group_by("version").len().sort("version").rows() == sorted([(first, 2), (second, 2)])
    assert without not in found["version"]
    assert kinds(emitted(workspace)) == [(JOB, "START"), (JOB, "COMPLETE")] * 2


def test_of_a_classified_field_no_value_is_named(workspace: Workspace) -> None:
    contract = copy.deepcopy(tiny.CONTRACT)
    contract["schema"][0]["properties"][1]["classification"] = "restricted"
    register(workspace, reference(), contract=contract)
    found = {row["column"]: row for row in export(workspace).to_dicts()}
    assert found["a"]["edges"] is not None
    assert (found["b"]["edges"], found["b"]["levels"], found["b"]["shares"]) == (None, None, [0.75])


def test_texts_are_named_where_several_rows_share_them(tmp_path: Path, workspace: Workspace) -> None:
    folder = flights_folder(tmp_path / "folder")
    carriers = ["AA"] * 12 + ["UA"] * 8 + [f"only {n}" for n in range(5)]
    rows = [{"carrier": carrier, "month": 1 + n % 12, "dep_delay": n} for n, carrier in enumerate(carriers)]
    declaration = yaml.safe_load((folder / "capability.yaml").read_text())
    declaration["reference"] = {"file": "r.jsonl", "false_alarms": 0.1}
    (folder / "capability.yaml").write_text(json.dumps(declaration))
    (folder / "r.jsonl").write_text("\n".join(json.dumps({"input": row}) for row in rows))
    version = record_registration(workspace, folder, None).version
    found = {row["column"]: row for row in profile_of(workspace, version).to_dicts()}
    assert found["carrier"]["kind"] == "string"
    assert found["carrier"]["levels"] == ["AA", "UA"]
    assert found["carrier"]["shares"] == pytest.approx([12 / 25, 8 / 25, 5 / 25])
    assert found["month"]["kind"] == "integer"


def test_a_version_that_was_changed_is_passed_over_and_the_others_are_exported(
    workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    bad, good = register(workspace, reference()), register(workspace, reference(160))
    path = workspace.versions / bad.removeprefix("sha256:") / "folder" / "r.jsonl"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b"calm", b"wild"))
    with pytest.raises(Damaged):
        profile_of(workspace, bad)
    assert set(export(workspace)["version"]) == {good}
    assert f"no profile of version {bad}" in caplog.text
