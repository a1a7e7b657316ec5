from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lake.lakes import parquet_with
from lake.ledgers import content, expected_sequences, exporter, sequences, texts
from ledger.persons import NAME, Persons
from mainstay.lake.lake import Lake
from mainstay.lake.snapshots import open_snapshot
from mainstay.lake.taking import take
from mainstay.ledger.eraser import record_request
from mainstay.ledger.erasure_entries import Rule, Wish

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def persons(tmp_path: Path) -> Iterator[Persons]:
    persons = Persons(tmp_path / "w")
    yield persons
    persons.writer.segment.abandon()


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


def seal(persons: Persons) -> None:
    persons.leave_segment()
    persons.seal()


def anew(persons: Persons, directory: Path) -> dict[str, object]:
    """What the tables say that are made from the log as it is now."""
    lake = Lake(directory)
    exporter(persons.ledger, lake).catch_up()
    return {**content(lake)}


def test_a_person_who_was_erased_is_in_no_row_and_no_file(persons: Persons, lake: Lake, tmp_path: Path) -> None:
    persons.fill()
    seal(persons)
    exporter(persons.ledger, lake).catch_up()
    assert parquet_with(tmp_path / "lake", "secret of 3.")
    persons.request("K-3")
    persons.seal()
    done = exporter(persons.ledger, lake).catch_up()
    assert done.blanked > 0
    assert parquet_with(tmp_path / "lake", "secret of 3.") == []
    assert not any("secret of 3." in text for text in texts(lake))
    persons.fill(20)  # decided after the request, which is not about them
    seal(persons)
    exporter(persons.ledger, lake).catch_up()
    assert any("secret of 3." in text for text in texts(lake))
    assert sequences(lake) == expected_sequences(persons.ledger)


@pytest.mark.parametrize("step", [9, 1_000])
def test_a_table_that_grew_says_the_same_as_one_made_anew(
    persons: Persons, lake: Lake, tmp_path: Path, step: int
) -> None:
    persons.fill()
    seal(persons)
    exporter(persons.ledger, lake).step(step)
    persons.erase("K-3")
    persons.fill()
    persons.erase(decision_id=persons.decide("K-4"))
    persons.erase("K-5")
    persons.fill(10)
    seal(persons)
    while exporter(persons.ledger, lake).step(step).last < persons.log.size:
        pass
    assert content(lake) == anew(persons, tmp_path / "anew")
    persons.turns()
    exporter(persons.ledger, lake).catch_up()
    assert content(lake) == anew(persons, tmp_path / "again")


@pytest.mark.parametrize("step", [20, 1_000])
def test_a_rule_of_retention_empties_old_rows_but_not_what_waits_for_a_person(
    persons: Persons, lake: Lake, tmp_path: Path, step: int
) -> None:
    persons.fill(40, at="2026-01-01T00:00:00.000000Z")
    persons.fill(40, at="2026-02-01T00:00:00.000000Z")
    persons.fill(8, at="2026-01-01T00:00:00.000000Z", capability="other")
    seal(persons)
    exporter(persons.ledger, lake).step(step)
    rule = Rule(capability=NAME, since="", before="2026-01-15T00:00:00.000000Z", first=0, last=persons.log.size)
    wish = Wish(capability=NAME, key=None, decision=None, up_to=persons.log.size, entries=(), rule=rule)
    record_request(persons.ledger, wish, principal="control", reason="retention")
    persons.leave_segment()
    persons.seal()
    while exporter(persons.ledger, lake).step(step).last < persons.log.size:
        pass
    rows = content(lake)[f"decisions/{NAME}"]
    full = {row["sequence"] for row in rows if row["input"] is not None}
    waiting = {row["sequence"] for row in rows if row["outcome"] == "review" and row["sequence"] in full}
    assert full - waiting == {row["sequence"] for row in rows if row["at"].month == 2 and row["outcome"] != "review"}
    assert any(row["at"].month == 1 for row in rows if row["sequence"] in waiting)
    assert all(row["input"] is not None for row in content(lake)["decisions/other"])
    persons.turns()
    assert persons.verify().ok
    assert content(lake) == anew(persons, tmp_path / "anew")


def test_a_request_that_was_met_twice_changes_nothing_more(persons: Persons, lake: Lake) -> None:
    persons.fill()
    seal(persons)
    exporter(persons.ledger, lake).catch_up()
    persons.request("K-3")
    persons.seal()

    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patch:  # after the tables were seen to, and before that is said
        patch.setattr("mainstay.lake.decisions.Exporter._say", killed)
        with pytest.raises(Killed):
            exporter(persons.ledger, lake).step()
    before = content(lake)
    assert exporter(persons.ledger, lake).step().blanked == 0
    assert content(lake) == before
    assert not any("secret of 3." in text for text in texts(lake))


def test_snapshots_of_decisions_lose_what_the_ledger_was_asked_to_erase(persons: Persons, lake: Lake) -> None:
    persons.fill()
    seal(persons)
    exporter(persons.ledger, lake).catch_up()
    take(lake, "training", f"decisions/{NAME}")
    persons.request("K-3")
    persons.seal()
    exporter(persons.ledger, lake).catch_up()
    snapshot = open_snapshot(lake, "training")
    assert snapshot.losses
    snapshot.verify()
    assert not any("secret of 3." in (text or "") for text in snapshot.frame().collect()["input"])
