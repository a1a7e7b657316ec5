from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl
import pytest

import tiny
from batch.online import read_records, unsealed
from mainstay.authority.keys import list_keys, revoke_key
from mainstay.batch.batches import Asked, run_batch
from mainstay.batch.state import Memory, folder_of
from mainstay.cli.evidence import explain_entry, explanation_lines
from mainstay.cli.versions import record_promotion
from mainstay.errors import Damaged, Misuse
from mainstay.signing import load_signing_key

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.batch.types import Summary
    from mainstay.workspace import Workspace

Served = tuple["Workspace", str]


@pytest.fixture
def served(tmp_path: Path) -> Served:
    return tiny.make_served(tmp_path / "w")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "rows.parquet"
    pl.DataFrame({"a": [0.5, 200.0, -0.5], "b": [0.5, 0.5, 1.0], "id": ["k1", "k2", "k3"]}).write_parquet(path)
    return path


def run(served: Served, source: Path, output: Path, **asked: Any) -> tuple[Summary, bool]:
    workspace, token = served
    return run_batch(workspace, Asked(tiny.NAME, str(source), output, **asked), token)


def test_what_is_finished_is_not_done_again(served: Served, table: Path, tmp_path: Path) -> None:
    first, worked = run(served, table, tmp_path / "out", key="id")
    assert worked
    assert (first.rows, first.outcomes, first.reasons) == (3, {"answered": 2, "refused": 1}, {"contract_violation": 1})
    again, worked = run(served, table, tmp_path / "out", key="id")
    assert not worked
    assert again == first
    assert len(read_records(served[0].ledger)) == 3


def test_the_output_has_the_decision_its_row_and_its_receipt(served: Served, table: Path, tmp_path: Path) -> None:
    run(served, table, tmp_path / "out.jsonl", key="id")
    rows = [msgspec.json.decode(line) for line in (tmp_path / "out.jsonl").read_bytes().splitlines()]
    entries = {entry.leaf_hash.hex(): entry for entry in unsealed(served[0].ledger)}
    assert [row["mainstay_key"] for row in rows] == ["k1", "k2", "k3"]
    assert [row["yes"] for row in rows] == [True, None, True]
    assert [[each["code"] for each in row["mainstay_reasons"]] for row in rows] == [[], ["contract_violation"], []]
    for row in rows:
        leaf = msgspec.json.decode(entries[row["mainstay_leaf"]].leaf)
        assert (leaf["id"], leaf["outcome"]) == (row["mainstay_decision_id"], row["mainstay_outcome"])


def test_a_changed_input_is_refused_and_decided_anew_when_that_is_said(
    served: Served, table: Path, tmp_path: Path
) -> None:
    run(served, table, tmp_path / "out")
    pl.DataFrame({"a": [1.0], "b": [1.0]}).write_parquet(table)
    with pytest.raises(Misuse, match=r"holds the decisions of another run.*\n.*the input: rows\.parquet"):
        run(served, table, tmp_path / "out")
    summary, worked = run(served, table, tmp_path / "out", new=True)
    assert worked
    assert summary.rows == pl.read_parquet(tmp_path / "out").height == 1


def test_a_changed_release_is_refused(served: Served, table: Path, tmp_path: Path) -> None:
    summary, _ = run(served, table, tmp_path / "out")
    record_promotion(served[0], tiny.NAME, summary.version, "once more")
    with pytest.raises(Misuse, match="the release: 1 then, 2 now"):
        run(served, table, tmp_path / "out")


def test_what_others_made_is_never_overwritten(served: Served, table: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious.txt").write_text("mine")
    (tmp_path / "out.parquet").write_text("mine")
    for name in ("out", "out.parquet"):
        with pytest.raises(Misuse):
            run(served, table, tmp_path / name, new=True)
    assert (tmp_path / "out.parquet").read_text() == (tmp_path / "out" / "precious.txt").read_text() == "mine"
    assert read_records(served[0].ledger) == []


def test_a_step_whose_line_was_cut_is_forgotten(served: Served, table: Path, tmp_path: Path) -> None:
    run(served, table, tmp_path / "out")
    memory = Memory(folder_of(served[0].data, tiny.NAME, str(tmp_path / "out")))
    path = memory.folder / "steps.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:50])
    assert len(memory.steps()) == 1
    assert path.read_bytes() == whole
    path.write_bytes(b"nothing of ours\n")
    with pytest.raises(Damaged, match="expected a step in each line"):
        memory.steps()


def test_an_output_that_was_removed_in_the_middle_is_told(served: Served, table: Path, tmp_path: Path) -> None:
    run(served, table, tmp_path / "out")
    memory = Memory(folder_of(served[0].data, tiny.NAME, str(tmp_path / "out")))
    (memory.folder / "finished.json").unlink()
    (tmp_path / "out" / "part-000000.parquet").unlink()
    with pytest.raises(Damaged, match="expected the 3 decisions of step 0, found no file"):
        run(served, table, tmp_path / "out")


def test_a_key_that_may_not_decide_decides_nothing(served: Served, table: Path, tmp_path: Path) -> None:
    workspace, token = served
    (key,) = list_keys(workspace.access, load_signing_key(workspace.keys, None).verifier)
    with pytest.raises(Misuse, match="expected an API key that is known"):
        run_batch(workspace, Asked(tiny.NAME, str(table), tmp_path / "out"), token[:-1] + "!")
    revoke_key(workspace.access, load_signing_key(workspace.keys, None), key.id)
    with pytest.raises(Misuse, match="expected an API key that is known"):
        run(served, table, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_explanation_says_where_the_row_stood(served: Served, table: Path, tmp_path: Path) -> None:
    summary, _ = run(served, table, tmp_path / "out", key="id")
    entry = unsealed(served[0].ledger)[1]
    told = explanation_lines(explain_entry(served[0], msgspec.json.decode(entry.leaf)["id"]))
    assert f"from         rows.parquet, row 2, in batch {summary.batch}" in told


def test_csv_is_decided_as_what_its_cells_mean_and_a_row_that_is_none_is_refused(
    served: Served, tmp_path: Path
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('a,b,note\n0.5,0.25,"x, y"\nseven,1,\n1,2,3,4\n1,,\n')
    summary, _ = run(served, path, tmp_path / "out")
    rows = pl.read_parquet(tmp_path / "out")
    assert rows["mainstay_row"].to_list() == [1, 2, 3, 4]
    assert rows["mainstay_outcome"].to_list() == ["answered", "refused", "refused", "refused"]
    records = sorted(read_records(served[0].ledger), key=lambda each: each.source["row"])
    assert [each.recorded.reasons for each in records] == [
        (),
        ("contract_violation",),
        ("malformed_input",),
        ("output_invalid",),  # the model gives nothing where `b` is missing
    ]
    assert msgspec.json.decode(records[1].input)["a"] == "seven"
    assert summary.rows == 4


def test_an_empty_table_makes_an_empty_output(served: Served, tmp_path: Path) -> None:
    pl.DataFrame(schema={"a": pl.Float64, "b": pl.Float64}).write_parquet(tmp_path / "none.parquet")
    for name in ("out", "out.parquet", "out.jsonl"):
        summary, _ = run(served, tmp_path / "none.parquet", tmp_path / name)
        assert (summary.rows, summary.finished) == (0, True)
    assert pl.read_parquet(tmp_path / "out.parquet").height == 0
    assert (tmp_path / "out").is_dir()


def test_a_column_that_json_has_no_form_for_is_refused(served: Served, tmp_path: Path) -> None:
    pl.DataFrame({"a": [b"x"]}).write_parquet(tmp_path / "x.parquet")
    with pytest.raises(Misuse, match="expected columns of values that JSON has, found 'a' of Binary"):
        run(served, tmp_path / "x.parquet", tmp_path / "out")
