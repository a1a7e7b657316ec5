from __future__ import annotations

from typing import TYPE_CHECKING

from ledger.samples import Writer, seal
from mainstay.ledger.change import Change, record_change
from mainstay.ledger.log import Log
from mainstay.ledger.recent import find_change

if TYPE_CHECKING:
    from pathlib import Path


def record(ledger: Path, mark: str, action: str = "rows.moved") -> str:
    change = Change(action=action, subject="s", principal="os:ops", reason="r", details={"mark": mark})
    return record_change(ledger, change)


def test_a_change_is_found_by_its_mark_sealed_or_not(tmp_path: Path) -> None:
    first = record(tmp_path, "one")
    record(tmp_path, "two", action="rows.kept")
    assert find_change(tmp_path, "rows.moved", "one", since=0) == first
    seal(tmp_path)
    assert Log(tmp_path).size == 2
    assert find_change(tmp_path, "rows.moved", "one", since=0) == first
    third = record(tmp_path, "three")
    assert find_change(tmp_path, "rows.moved", "three", since=2) == third


def test_what_was_recorded_for_another_or_before_is_not_it(tmp_path: Path) -> None:
    record(tmp_path, "one")
    record(tmp_path, "two", action="rows.kept")
    seal(tmp_path)
    assert find_change(tmp_path, "rows.moved", "two", since=0) is None
    assert find_change(tmp_path, "rows.moved", "three", since=0) is None
    assert find_change(tmp_path, "rows.moved", "one", since=2) is None


def test_a_decision_that_holds_the_mark_is_no_change(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.append(3, body={"key": "k", "input": {"mark": "one", "x": '"action":"rows.moved"'}})
    writer.segment.close()
    assert find_change(tmp_path, "rows.moved", "one", since=0) is None
