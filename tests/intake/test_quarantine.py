from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from intake.held import SOURCE, arrival, broken, held_row, hold, let_in, make_workspace, many
from mainstay.errors import Misuse
from mainstay.intake import quarantine as module
from mainstay.intake.landing import landing_of
from mainstay.intake.quarantine import Chosen, Day, Quarantine, sources_with_quarantine
from mainstay.intake.quarantine_settling import Settler
from mainstay.intake.types import ITEM, ROW
from mainstay.lake.lake import open_lake
from tiny import NAME

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.intake.quarantine_settling import Done, Outcome
    from mainstay.lake.lake import Lake
    from mainstay.workspace import Workspace

EVERYTHING = Chosen()


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return make_workspace(tmp_path / "w")


@pytest.fixture
def lake(workspace: Workspace) -> Lake:
    return open_lake(workspace)


def settle(workspace: Workspace, how: Outcome, chosen: Chosen) -> Done | None:
    settler = Settler(workspace, open_lake(workspace), NAME, SOURCE)
    return settler.settle(how, chosen, reason="mended", by="os:ops")


def places(lake: Lake, chosen: Chosen = EVERYTHING) -> list[tuple[int, int]]:
    found = Quarantine(lake, NAME, SOURCE)
    return [place for rows in found.chunks(chosen, [ITEM, ROW]) for place in rows.iter_rows()]


def test_open_rows_are_grouped_by_what_they_break(lake: Lake) -> None:
    hold(lake, many(3, 10))
    hold(lake, [held_row(4, 1, b"{", reason="late")])
    found = Quarantine(lake, NAME, SOURCE).groups(EVERYTHING)
    assert found.rows == 31
    assert [(each.field, each.rule, each.reason, each.rows, each.items) for each in found.groups] == [
        ("a", "required", "rules", 30, 3),
        ("b", "type", "rules", 9, 3),
        ("$", "late", "late", 1, 1),
    ]
    first = found.groups[0]
    assert (first.oldest, first.newest, first.contract) == (arrival(1), arrival(3), "tiny@1.0.0")
    assert first.examples == ((1, 1), (1, 2), (1, 3))
    assert found.uncounted == 0


def test_items_of_an_array_count_together_and_a_row_once(lake: Lake) -> None:
    hold(lake, [held_row(1, 1, {}, broken("lines[0].sku", "type"), broken("lines[7].sku", "type"))])
    (group,) = Quarantine(lake, NAME, SOURCE).groups(EVERYTHING).groups
    assert (group.field, group.rows) == ("lines[].sku", 1)
    assert places(lake, Chosen(rules=(("lines[].sku", "type"),))) == [(1, 1)]


def test_an_item_in_several_chunks_is_one_item(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_ROWS", 3)
    hold(lake, many(2, 10))
    found = Quarantine(lake, NAME, SOURCE).groups(EVERYTHING)
    assert [(each.field, each.rows, each.items) for each in found.groups] == [("a", 20, 2), ("b", 6, 2)]
    assert places(lake) == [(item, row) for item in (1, 2) for row in range(1, 11)]


def test_groups_beyond_a_bound_are_counted_together(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_GROUPS", 2)
    hold(lake, [held_row(1, row, {}, broken(f"made-up-{row}", "unknown-field")) for row in range(1, 6)])
    found = Quarantine(lake, NAME, SOURCE).groups(EVERYTHING)
    assert (len(found.groups), found.uncounted, found.rows) == (2, 3, 5)


def test_rows_are_chosen_by_rule_item_and_place(lake: Lake) -> None:
    hold(lake, many(2, 4))
    assert places(lake, Chosen(rules=(("b", "type"),))) == [(1, 3), (2, 3)]
    assert places(lake, Chosen(items=(2,))) == [(2, row) for row in range(1, 5)]
    assert places(lake, Chosen(rows=((1, 2), (2, 4), (2, 99)))) == [(1, 2), (2, 4)]
    assert places(lake, Chosen(rules=(("b", "type"),), items=(1,))) == [(1, 3)]
    assert places(lake, Chosen(rules=(("b", "required"),))) == []


def test_a_settled_row_is_open_no_more(workspace: Workspace, lake: Lake) -> None:
    hold(lake, many(3, 4))
    done = settle(workspace, "discarded", Chosen(rules=(("b", "type"),)))
    assert done is not None
    assert (done.rows, done.items, done.skipped) == (3, (), 0)
    assert [place for place in places(lake) if place[1] == 3] == []
    found = Quarantine(lake, NAME, SOURCE)
    assert found.open_rows() == 9
    assert found.days() == [Day(arrival(1).date(), 8, 2), Day(arrival(3).date(), 4, 1)]
    fate = found.fate(1, 3)
    assert fate is not None
    assert (fate.how, fate.by, fate.reason, fate.into_item, fate.entry) == (
        "discarded",
        "os:ops",
        "mended",
        None,
        done.entry,
    )
    assert found.fate(1, 2) is None


def test_days_that_are_done_with_are_not_read(workspace: Workspace, lake: Lake) -> None:
    hold(lake, many(4, 2))
    assert settle(workspace, "discarded", Chosen(items=(1, 2))) is not None
    for file in (workspace.data / "lake" / "quarantine" / NAME / SOURCE).rglob("*2026-03-01*/*.parquet"):
        file.unlink()
    assert places(lake) == [(3, 1), (3, 2), (4, 1), (4, 2)]


def test_a_replay_is_one_item_with_the_bytes_as_they_came(workspace: Workspace, lake: Lake) -> None:
    hold(lake, many(2, 3), reached=7)
    done = settle(workspace, "replayed", EVERYTHING)
    assert done is not None
    landing = landing_of(workspace.data, NAME, SOURCE)
    (item,) = landing.waiting()
    assert (item.number, item.kind, item.cursor) == (8, "jsonl", {"after": 7})
    assert item.origin == "replay of 6 held rows, 1:1 to 2:3"
    lines = landing.path(item).read_bytes().splitlines()
    assert lines[0] == b'{"who": "K-1", "b": "x"}'
    assert item.bytes == len(landing.path(item).read_bytes())
    assert done.items == (8,)
    found = Quarantine(lake, NAME, SOURCE)
    fate = found.fate(2, 1)
    assert fate is not None
    assert (fate.how, fate.into_item, fate.into_row, fate.verdict) == ("replayed", 8, 4, None)
    assert settle(workspace, "replayed", EVERYTHING) is None
    assert len(landing.waiting()) == 1


def test_a_replayed_row_is_known_by_where_it_came_first(workspace: Workspace, lake: Lake) -> None:
    hold(lake, many(1, 2))
    assert settle(workspace, "replayed", Chosen(rows=((1, 2),))) is not None
    hold(lake, [held_row(2, 1, {}, broken("a", "required"))])
    assert settle(workspace, "replayed", Chosen(items=(2,))) is not None
    let_in(lake, [("K-2", 1.0, 3, 1)])
    found = Quarantine(lake, NAME, SOURCE)
    assert found.first_of(3, 1) == (1, 2)
    assert found.first_of(1, 2) is None
    assert [fate.verdict for fate in (found.fate(1, 2), found.fate(2, 1)) if fate] == ["held", "accepted"]


def test_rows_of_csv_are_replayed_under_the_header_they_came_with(workspace: Workspace, lake: Lake) -> None:
    one, other = '[",","id","the, name"]', '[";","name","id"]'
    hold(
        lake,
        [
            held_row(1, 1, b'1,"a\nb"\r\n', broken("id", "type"), kind="csv", header=one),
            held_row(1, 2, b'2,"never closed', broken("$", "malformed"), kind="csv", header=one, reason="unreadable"),
            held_row(1, 3, b'3,"never closed', broken("$", "malformed"), kind="csv", header=one),
            held_row(1, 4, b"4,d", broken("id", "type"), kind="csv", header=one),
            held_row(2, 1, b"e;5", broken("id", "type"), kind="csv", header=other),
        ],
    )
    done = settle(workspace, "replayed", EVERYTHING)
    assert done is not None
    assert (done.rows, done.skipped, done.items) == (3, 2, (3, 4))
    landing = landing_of(workspace.data, NAME, SOURCE)
    first, second = landing.waiting()
    assert (first.delimiter, second.delimiter) == (",", ";")
    assert landing.path(first).read_bytes() == b'id,"the, name"\n1,"a\nb"\n4,d\n'
    assert landing.path(second).read_bytes() == b"name;id\ne;5\n"
    assert places(lake) == [(1, 2), (1, 3)]
    fate = Quarantine(lake, NAME, SOURCE).fate(2, 1)
    assert fate is not None
    assert (fate.into_item, fate.into_row) == (4, 1)


def test_what_was_never_held_is_named_with_what_was(lake: Lake) -> None:
    hold(lake, many(1, 1))
    assert sources_with_quarantine(lake) == [(NAME, SOURCE)]
    with pytest.raises(Misuse, match="tiny other: expected a source of which rows are held") as raised:
        Quarantine(lake, NAME, "other")
    assert raised.value.hint == "There are: tiny feed."
    with pytest.raises(Misuse, match="expected a held row 1:2"):
        Quarantine(lake, NAME, SOURCE).row(1, 2)
