"""Held rows and the door that holds them: what it left in the tables is sent to it again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
import pytest

from intake.held import SOURCE, declare, make_workspace, take_in
from mainstay.intake.declared import sources_in_force
from mainstay.intake.erasing import SourceErasure
from mainstay.intake.erasing_match import Sought
from mainstay.intake.landing import landing_of
from mainstay.intake.quarantine import Chosen, Quarantine
from mainstay.intake.quarantine_settling import Settler
from mainstay.intake.quarantine_trial import try_again
from mainstay.intake.types import HEADER, ITEM, KIND, ROW, intake_table
from mainstay.lake.lake import open_lake
from tiny import NAME

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.intake.landing import Kind
    from mainstay.intake.quarantine_settling import Done
    from mainstay.workspace import Workspace

EVERYTHING = Chosen()
CONTENT: dict[Kind, bytes] = {
    "jsonl": b'{"a": 1, "who": "x"}\n\n{"a": 150, "who": "y"}\n{"a": 900, "who": "z"}\n{"a": \n',
    "csv": b'who;a;more\r\n"x";1;\r\n"y\r\ny";150;""\r\nz;900;\r\n"never closed;2;\r\nw;7;8;9\r\n',
}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return make_workspace(tmp_path / "w")


def put(workspace: Workspace, content: bytes, kind: Kind) -> None:
    with landing_of(workspace.data, NAME, SOURCE).begin(kind) as draft:
        draft.file.write(content)
        draft.land(origin="a test", cursor={"page": 7})


def put_parquet(workspace: Workspace) -> None:
    with landing_of(workspace.data, NAME, SOURCE).begin("parquet") as draft:
        pl.DataFrame({"a": [1.0, 150.0, 900.0], "who": ["x", "y", "z"]}).write_parquet(draft.path)
        draft.land(origin="a test", cursor={"page": 7})


def held(workspace: Workspace) -> Quarantine:
    return Quarantine(open_lake(workspace), NAME, SOURCE)


def places(workspace: Workspace) -> list[tuple[int, int]]:
    return [place for rows in held(workspace).chunks(EVERYTHING, [ITEM, ROW]) for place in rows.iter_rows()]


def replay(workspace: Workspace, chosen: Chosen = EVERYTHING) -> Done:
    done = Settler(workspace, open_lake(workspace), NAME, SOURCE).settle("replayed", chosen, reason="r", by="os:ops")
    assert done is not None
    return done


def accepted(workspace: Workspace) -> list[tuple[str, float]]:
    table = open_lake(workspace).table(intake_table(NAME, SOURCE))
    return sorted(table.frame().select("who", "a").collect().rows())


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_what_a_new_contract_lets_in_is_in_the_table_once(workspace: Workspace, kind: Kind) -> None:
    put(workspace, CONTENT[kind], kind)
    (taken,) = take_in(workspace)
    bad = 3 if kind == "jsonl" else 4
    assert (taken.accepted, taken.quarantined) == (1, bad)
    declare(workspace, maximum=200)
    trial = try_again(workspace, open_lake(workspace), sources_in_force(workspace, NAME), SOURCE, EVERYTHING)
    done = replay(workspace)
    assert done.skipped == trial.skipped
    assert done.rows == trial.rows - trial.skipped
    (again,) = take_in(workspace)
    assert (again.accepted, again.quarantined) == (trial.accepted, trial.quarantined)
    middle = "y" if kind == "jsonl" else "y\r\ny"
    assert accepted(workspace) == [("x", 1.0), (middle, 150.0)]
    quarantine = held(workspace)
    into = next(
        (fate.into_item, fate.into_row)
        for row in range(1, 6)
        if (fate := quarantine.fate(1, row)) is not None and fate.verdict == "accepted"
    )
    assert into[0] == 2
    assert quarantine.first_of(int(into[0]), int(into[1] or 0)) is not None
    declare(workspace, maximum=1_000)
    replay(workspace, Chosen(rules=(("a", "maximum"),)))
    take_in(workspace)
    assert accepted(workspace) == [("x", 1.0), (middle, 150.0), ("z", 900.0)]
    assert quarantine.first_of(3, 1) in {(1, 3), (1, 4)}  # JSON counts the empty line


def test_rows_of_parquet_come_again_as_json(workspace: Workspace) -> None:
    put_parquet(workspace)
    take_in(workspace)
    assert held(workspace).row(1, 2)[KIND] == "jsonl"
    declare(workspace, maximum=1_000)
    replay(workspace)
    (again,) = take_in(workspace)
    assert (again.accepted, again.quarantined) == (2, 0)
    assert accepted(workspace) == [("x", 1.0), ("y", 150.0), ("z", 900.0)]


def test_bad_rows_are_held_again_and_replayed_again(workspace: Workspace) -> None:
    put(workspace, CONTENT["csv"], "csv")
    take_in(workspace)
    before = places(workspace)
    assert held(workspace).row(1, 2)[HEADER] == '[";","who","a","more"]'
    for _ in range(2):
        done = replay(workspace)
        (again,) = take_in(workspace)
        assert (again.accepted, again.quarantined) == (0, done.rows)
    now = places(workspace)
    assert len(now) == len(before)
    assert {held(workspace).first_of(*place) for place in now if place[0] == 3} <= set(before)


def test_where_the_source_goes_on_is_not_lost_by_a_replay(workspace: Workspace) -> None:
    put(workspace, CONTENT["jsonl"], "jsonl")
    take_in(workspace)
    replay(workspace)
    (item,) = landing_of(workspace.data, NAME, SOURCE).waiting()
    assert item.cursor == {"page": 7}
    take_in(workspace)
    assert open_lake(workspace).table(intake_table(NAME, SOURCE)).cursor("door") is not None
    replay(workspace, Chosen(rules=(("a", "maximum"),)))
    (item,) = landing_of(workspace.data, NAME, SOURCE).waiting()
    assert item.cursor == {"page": 7}


def test_a_file_that_is_none_is_one_row_that_no_replay_mends(workspace: Workspace) -> None:
    put(workspace, b"PAR1", "parquet")
    (taken,) = take_in(workspace)
    assert taken.rejected
    settler = Settler(workspace, open_lake(workspace), NAME, SOURCE)
    assert settler.settle("replayed", EVERYTHING, reason="r", by="os:ops") is None
    done = settler.settle("discarded", EVERYTHING, reason="r", by="os:ops")
    assert done is not None
    assert done.rows == 1


def test_an_erased_person_may_come_again_and_is_taken_in_as_new(workspace: Workspace) -> None:
    put(workspace, CONTENT["jsonl"], "jsonl")
    take_in(workspace)
    desk = SourceErasure(workspace, open_lake(workspace), NAME, SOURCE)
    for who in ("x", "y"):
        gone = desk.carry_out(Sought((("who", who),)), frozenset({"who"}), reason="r", by="os:dpo")
        assert gone is not None
    assert accepted(workspace) == []
    assert places(workspace) == [(1, 4), (1, 5)]
    put(workspace, b'{"a": 1, "who": "x"}\n', "jsonl")
    (taken,) = take_in(workspace)
    assert (taken.accepted, taken.repeated) == (1, 0)
