from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from intake.held import SOURCE, arrival, broken, held_row, hold, let_in, make_workspace
from mainstay.intake.adopting import PushFetcher
from mainstay.intake.erasing import ACTION, SourceErasure
from mainstay.intake.erasing_match import Sought, looked_up, value_test
from mainstay.intake.landing import landing_of
from mainstay.intake.pushing import PUSHED, Inbox, read_events
from mainstay.intake.quarantine import Chosen, Quarantine
from mainstay.intake.quarantine_settling import Settler
from mainstay.intake.types import ITEM, ROW, intake_table, quarantine_table, settled_table
from mainstay.lake.lake import open_lake
from mainstay.lake.snapshots import open_snapshot
from mainstay.lake.taking import take
from mainstay.ledger.find import find_entry
from tiny import NAME

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.intake.erasing import Gone
    from mainstay.intake.landing import Kind, Landing
    from mainstay.lake.lake import Lake
    from mainstay.workspace import Workspace

KNOWN = frozenset({"who", "a"})
PERSON = Sought((("who", "K-3"),))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return make_workspace(tmp_path / "w")


@pytest.fixture
def lake(workspace: Workspace) -> Lake:
    return open_lake(workspace)


def erase(workspace: Workspace, sought: Sought = PERSON) -> Gone | None:
    desk = SourceErasure(workspace, open_lake(workspace), NAME, SOURCE)
    return desk.carry_out(sought, KNOWN, reason="request 118", by="os:dpo")


def landing(workspace: Workspace) -> Landing:
    return landing_of(workspace.data, NAME, SOURCE)


def put(workspace: Workspace, content: bytes, kind: Kind = "jsonl", delimiter: str | None = None) -> Path:
    """An item that waits; its file."""
    with landing(workspace).begin(kind) as draft:
        draft.file.write(content)
        return landing(workspace).path(draft.land(origin="a test", cursor=1, delimiter=delimiter))


def files_with(folder: Path, text: str) -> list[str]:
    """The files below a folder in which a text stands, Parquet files by what is in them."""
    found = []
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        if path.suffix == ".parquet":
            frame = pl.read_parquet(path, hive_partitioning=False)
            content = "".join(str(frame.select(pl.col(pl.String, pl.Binary)).rows())).encode()
        else:
            content = path.read_bytes()
        if text.encode() in content:
            found.append(str(path.relative_to(folder)))
    return found


def test_rows_of_a_person_go_from_every_table_and_file(workspace: Workspace, lake: Lake) -> None:
    let_in(lake, [("K-3", 1.0, 1, 1), ("K-4", 2.0, 1, 2), ("K-3", 3.0, 2, 1)])
    take(lake, "march", intake_table(NAME, SOURCE))
    hold(lake, [held_row(1, row, {"who": f"K-{row}"}, broken("a", "required")) for row in range(3, 6)])
    assert Settler(workspace, lake, NAME, SOURCE).settle("discarded", Chosen(rows=((1, 3),)), reason="r", by="o")
    waiting = put(workspace, b'{"who": "K-2"}\n{"who": "K-3", "a": 1}\n{"who": "K-33"}\n')
    gone = erase(workspace)
    assert gone is not None
    assert (gone.accepted, gone.held, gone.waiting, gone.rejected) == (2, 1, 1, 0)
    assert files_with(workspace.data, "K-3") == [str(waiting.relative_to(workspace.data))]  # of K-33
    assert waiting.read_bytes() == b'{"who": "K-2"}\n{"who": "K-33"}\n'
    assert landing(workspace).waiting()[0].bytes == len(waiting.read_bytes())
    assert lake.table(intake_table(NAME, SOURCE)).frame().collect()["who"].to_list() == ["K-4"]
    assert lake.table(settled_table(NAME, SOURCE)).rows == 0
    assert Quarantine(lake, NAME, SOURCE).open_rows() == 2
    assert open_snapshot(lake, "march").losses[-1].rows == 1
    assert erase(workspace) is None


def test_the_receipt_says_who_why_and_how_many_and_names_nobody(workspace: Workspace, lake: Lake) -> None:
    let_in(lake, [("K-3", 1.0, 1, 1)])
    gone = erase(workspace)
    assert gone is not None
    found = find_entry(workspace.ledger, gone.receipt)
    assert found is not None
    leaf, body = json.loads(found.entry.leaf), json.loads(found.entry.body)
    assert (leaf["action"], leaf["subject"], leaf["principal"]) == (ACTION, NAME, "os:dpo")
    assert body["reason"] == "request 118"
    details = body["details"]
    assert (details["source"], details["accepted"], details["held"], details["waiting"]) == (SOURCE, 1, 0, 0)
    assert details["fields"]["who"].startswith("pseudonym:")
    assert b"K-3" not in found.entry.body


def test_a_receipt_counts_what_went_before_somebody_was_killed(
    workspace: Workspace, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_in(lake, [("K-3", 1.0, 1, 1), ("K-4", 2.0, 1, 2)])
    put(workspace, b'{"who": "K-3"}\n')

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SourceErasure, "_erase_orphans", die)
        with pytest.raises(KeyboardInterrupt):
            erase(workspace)
    found = SourceErasure(workspace, lake, NAME, SOURCE).find(PERSON, KNOWN)
    assert (found.records, found.under_way) == (0, True)
    let_in(lake, [("K-3", 5.0, 7, 1)])
    gone = erase(workspace)
    assert gone is not None
    assert (gone.accepted, gone.held, gone.waiting) == (2, 0, 1)
    assert not list(landing(workspace).folder.parent.glob("erasing-*"))
    assert erase(workspace) is None


def test_nested_fields_and_those_the_contract_does_not_know_are_found(workspace: Workspace, lake: Lake) -> None:
    let_in(lake, [("K-1", 1.0, 1, 1)], extra='{"customer":{"id":77}}')
    let_in(lake, [("K-1", 1.0, 2, 1)], extra='{"customer":{"id":78}}')
    hold(lake, [held_row(3, 1, {"customer": {"id": "77"}}), held_row(3, 2, {"customer": 77})])
    gone = erase(workspace, Sought((("customer.id", "77"),)))
    assert gone is not None
    assert (gone.accepted, gone.held) == (1, 1)
    assert lake.table(intake_table(NAME, SOURCE)).frame().collect()[ITEM].to_list() == [2]
    assert lake.table(quarantine_table(NAME, SOURCE)).frame().collect()[ROW].to_list() == [2]


def test_every_field_that_is_named_must_have_its_value(workspace: Workspace, lake: Lake) -> None:
    let_in(lake, [("K-3", 1.0, 1, 1), ("K-3", 2.0, 1, 2), ("K-4", 1.0, 1, 3)])
    gone = erase(workspace, Sought((("who", "K-3"), ("a", "1"))))
    assert gone is not None
    assert gone.accepted == 1
    assert sorted(lake.table(intake_table(NAME, SOURCE)).frame().collect()[ROW]) == [2, 3]


def test_held_rows_of_other_fields_are_told_and_unreadable_ones_go(workspace: Workspace, lake: Lake) -> None:
    rows = [
        held_row(1, 1, {"person": "K-3", "a": 1}),
        held_row(1, 2, b'{"who": "K-3", ', reason="unreadable"),
        held_row(1, 3, b'{"who": "K-34", ', reason="unreadable"),
        held_row(1, 4, b"K-3;1", kind="csv", header='[";","who","a"]'),
        held_row(1, 5, b'{"who": "\\u004b-3"}'),
    ]
    hold(lake, rows)
    found = SourceErasure(workspace, lake, NAME, SOURCE).find(PERSON, KNOWN)
    assert sorted(found.held[ROW]) == [2, 4, 5]
    assert found.elsewhere == {"person": 1}


def test_records_of_waiting_csv_go_and_the_others_stay_as_they_came(workspace: Workspace) -> None:
    path = put(workspace, b'\xef\xbb\xbfwho,a\r\n"K-3",1\r\nK-4,"x\ny"\r\n"K-3 never closed,2\nK-5,3', "csv")
    gone = erase(workspace)
    assert gone is not None
    assert gone.waiting == 2
    assert path.read_bytes() == b'\xef\xbb\xbfwho,a\r\nK-4,"x\ny"\r\nK-5,3'


def test_rows_of_waiting_parquet_go(workspace: Workspace) -> None:
    path = put(workspace, b"", "parquet")
    pl.DataFrame({"who": ["K-3", "K-4"], "n": [1, 2]}).write_parquet(path)
    gone = erase(workspace)
    assert gone is not None
    assert gone.waiting == 1
    assert pl.read_parquet(path).rows() == [("K-4", 2)]
    assert landing(workspace).waiting()[0].bytes == path.stat().st_size


@pytest.mark.parametrize(
    ("kind", "content", "left"),
    [
        ("jsonl", b'{"who": "K-3"}\n{"who": "K-4"}\n', b'{}\n{"who": "K-4"}\n'),
        ("csv", b"who,a\nK-3,1\nK-4,2\n", b"who,a\n,\nK-4,2\n"),
    ],
)
def test_an_item_that_the_door_is_in_the_middle_of_keeps_its_row_numbers(
    workspace: Workspace, lake: Lake, kind: Kind, content: bytes, left: bytes
) -> None:
    path = put(workspace, content, kind)
    table = let_in(lake, [("K-9", 1.0, 0, 1)])
    table.append(table.frame().collect().clear(), writer="door", position=1 << 32 | 1)
    gone = erase(workspace)
    assert gone is not None
    assert path.read_bytes() == left


def test_lines_of_rejected_files_go(workspace: Workspace) -> None:
    rejected = landing(workspace).folder.parent / "rejected"
    rejected.mkdir(parents=True)
    (rejected / "000000000001.csv").write_bytes(b"<html>\nK-3 and K-4\nK-4\n")
    (rejected / "000000000002.parquet").write_bytes(b"PAR")
    found = SourceErasure(workspace, open_lake(workspace), NAME, SOURCE).find(PERSON, KNOWN)
    assert (found.rejected, found.unread) == (1, (str(rejected / "000000000002.parquet"),))
    gone = erase(workspace)
    assert gone is not None
    assert (rejected / "000000000001.csv").read_bytes() == b"<html>\nK-4\n"


def test_a_value_is_the_same_as_text_and_as_a_number() -> None:
    same: list[Any] = [77, 77.0, "77", " 77 "]
    others: list[Any] = [7, 770, "077", True, None, [77], {"id": 77}]
    sought = Sought((("id", "77"),))
    assert [sought.is_in({"id": value}) for value in [*same, *others]] == [True] * len(same) + [False] * len(others)
    assert Sought((("flag", "true"),)).is_in({"flag": True})
    assert looked_up({"a.b": 1, "a": {"b": 2}}, "a.b") == 1
    assert looked_up({"a": {"b": 2}}, "a.b") == 2
    assert looked_up({"a": 1}, "a.b") is None


def test_a_column_is_tested_as_a_record_is() -> None:
    columns = {
        "text": pl.Series(["77", " 77", "7", None]),
        "whole": pl.Series([77, 77, 7, None]),
        "half": pl.Series([77.0, 77.0, 77.5, None]),
        "day": pl.Series(["2026-03-01"]).str.to_date(),
        "list": pl.Series([[77]]),
    }
    for name, expected in (("text", [True, True, False, False]), ("whole", [True, True, False, False])):
        test = value_test(pl.col(name), columns[name].dtype, "77")
        assert test is not None
        assert pl.DataFrame({name: columns[name]}).select(test).to_series().to_list() == expected
    test = value_test(pl.col("half"), columns["half"].dtype, "77.5")
    assert test is not None
    assert pl.DataFrame({"half": columns["half"]}).select(test).to_series().to_list() == [False, False, True, False]
    test = value_test(pl.col("day"), columns["day"].dtype, arrival(1).date().isoformat())
    assert test is not None
    assert pl.DataFrame({"day": columns["day"]}).select(test).item()
    assert value_test(pl.col("list"), columns["list"].dtype, "77") is None
    test = value_test(pl.col("whole"), columns["whole"].dtype, "K-3")
    assert test is not None
    assert not pl.DataFrame({"whole": columns["whole"]}).select(test).to_series().any()


def test_what_was_pushed_and_is_in_no_item_yet_goes_from_the_files_of_workers(workspace: Workspace) -> None:
    with asyncio.Runner() as runner:
        inbox = Inbox(runner.get_loop(), workspace.data, NAME, SOURCE)
        try:
            other = read_events(b'{"who": "K-4", "a": 1.0}', lines=False)
            for events in (read_events(b'{"who": "K-3", "a": 1.0}', lines=False), other):
                runner.run(inbox.take(events, b""))
            home = landing(workspace).folder.parent
            assert len(files_with(home, "K-3")) == 1
            gone = runner.run(asyncio.to_thread(erase, workspace))  # beside a worker that lives
            assert gone is not None
            assert gone.waiting == 1
            assert files_with(home, "K-3") == []
            (item,) = landing(workspace).waiting()
            assert landing(workspace).path(item).read_bytes() == b'{"who": "K-4", "a": 1.0}\n'
            runner.run(inbox.take(other, b""))  # the worker goes on
            following = PushFetcher("POST", landing(workspace)).step(item.cursor)
            assert following is not None
            assert landing(workspace).path(following).read_bytes() == b'{"who": "K-4", "a": 1.0}\n'
        finally:
            inbox.close()


def test_a_damaged_file_of_pushed_events_is_named_to_be_looked_at(workspace: Workspace) -> None:
    folder = landing(workspace).folder.parent / PUSHED
    folder.mkdir(parents=True)
    (folder / "one.damaged").write_bytes(b"K-3")
    found = SourceErasure(workspace, open_lake(workspace), NAME, SOURCE).find(PERSON, KNOWN)
    assert found.unread == (str(folder / "one.damaged"),)
