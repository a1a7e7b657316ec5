from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest

from ledger.persons import NAME, Persons
from mainstay.ledger import bodies as bodies_module
from mainstay.ledger.eraser import LOCK_FILE
from mainstay.ledger.erasure import erasure_of
from mainstay.ledger.erasure_entries import REQUESTED, read_receipt, read_request
from mainstay.ledger.index import Index
from mainstay.ledger.retention import Retention, instant, midnight
from mainstay.locks import locked

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from mainstay.ledger.erasure_entries import Receipt, Request

TODAY = datetime(2026, 6, 30, 15, 0, tzinfo=UTC)


class Declared:
    """What capabilities declare; remembers what it was told to forget."""

    def __init__(self, **days: int) -> None:
        self.kept = {name.replace("_", "-"): count for name, count in days.items()}
        self.forgotten: list[tuple[str, datetime]] = []

    def days(self) -> Mapping[str, int]:
        return self.kept

    def forget(self, capability: str, before: datetime) -> None:
        self.forgotten.append((capability, before))


@pytest.fixture
def persons(tmp_path: Path) -> Iterator[Persons]:
    persons = Persons(tmp_path / "w")
    yield persons
    persons.writer.segment.abandon()


def ago(days: float) -> str:
    return instant(TODAY - timedelta(days=days))


def keep(persons: Persons, declared: Declared, *, days_later: int = 0) -> None:
    """A day of a control process: everything that is due goes."""
    now = TODAY + timedelta(days=days_later)
    persons.leave_segment()
    while True:
        persons.turns()
        with Index(persons.ledger) as index:
            if not Retention(persons.workspace, index, declared).ask(now):
                return


def requests(persons: Persons) -> list[tuple[Request, Receipt]]:
    log = persons.log
    found = []
    with Index(persons.ledger) as index:
        for sequence, leaf in enumerate(log.leaves(0, log.size)):
            if REQUESTED.encode() in leaf:
                request = read_request(log.entry(sequence), sequence)
                answered = index.erasures.receipt_of(sequence)
                assert request is not None
                assert answered is not None
                receipt = read_receipt(log.entry(answered), answered)
                assert receipt is not None
                found.append((request, receipt))
    return found


def empty(persons: Persons) -> list[int]:
    return [place for place, body in enumerate(persons.bodies()) if not body]


def begin_of(persons: Persons) -> int:
    """The first entry that is about a person."""
    leaves = persons.log.leaves(0, persons.log.size)
    return next(place for place, leaf in enumerate(leaves) if b'"kind":"decision"' in leaf)


def test_bodies_go_when_they_are_old_enough_and_not_before(persons: Persons) -> None:
    for days in (40, 31, 30.5, 30, 29, 1):
        persons.decide("K-1", at=ago(days))
        persons.report("K-1", at=ago(days))
    keep(persons, Declared(late_arrival=30))
    begin = begin_of(persons)
    assert empty(persons) == list(range(begin, begin + 4)), "of the day thirty days ago, all is still kept"
    ((request, receipt),) = requests(persons)
    assert request.principal == "retention"
    assert request.reason == f"{NAME} keeps bodies for 30 days"
    assert request.wish.rule is not None
    assert request.wish.rule.before == instant(midnight(TODAY) - timedelta(days=30))
    assert receipt.done.bodies == 4
    report = persons.verify()
    assert report.ok, report.findings
    assert report.erased == 4


def test_a_receipt_is_as_small_however_many_bodies_go(persons: Persons) -> None:
    for place in range(1_500):
        persons.decide(f"K-{place}", at=ago(50), capability=NAME if place % 3 else "another")
    keep(persons, Declared(late_arrival=30))
    ((request, receipt),) = requests(persons)
    assert receipt.done.bodies == 1_000
    assert len(persons.log.entry(request.sequence).body) < 500
    assert len(persons.log.entry(receipt.sequence).body) < 300
    assert persons.verify().erased == 1_000


def test_a_day_costs_what_is_due_on_it(persons: Persons, monkeypatch: pytest.MonkeyPatch) -> None:
    for day in range(60):
        for _ in range(100):
            persons.decide("K-1", at=ago(60 - day))
    declared = Declared(late_arrival=30)
    keep(persons, declared)
    looked_at: list[int] = []

    def watched(module: str) -> None:
        read = bodies_module.read_bundle

        def read_bundle(root: Path, number: int, size: int, capability: str | None) -> object:
            looked_at.append(number)
            return read(root, number, size, capability)

        monkeypatch.setattr(f"mainstay.ledger.{module}.read_bundle", read_bundle)

    watched("eraser")
    watched("retention")
    keep(persons, declared, days_later=1)
    assert [receipt.done.bodies for _, receipt in requests(persons)] == [3_000, 100]
    assert len(looked_at) <= 3, "a hundred decisions stand in two bundles of twenty-four"
    looked_at.clear()
    keep(persons, declared, days_later=1)
    assert looked_at == []


def test_a_decision_that_waits_for_a_person_is_kept_until_it_is_resolved(persons: Persons) -> None:
    waiting = persons.decide("K-1", outcome="review", at=ago(50))
    persons.decide("K-2", outcome="review", at=ago(50))
    persons.decide("K-3", at=ago(50))
    declared = Declared(late_arrival=30)
    keep(persons, declared)
    begin = begin_of(persons)
    assert empty(persons) == [begin + 2]
    assert persons.verify().ok
    persons.resolve(waiting, "K-1", at=ago(20))
    keep(persons, declared)
    assert empty(persons) == [begin, begin + 2]
    keep(persons, declared, days_later=15)
    resolution = next(
        place for place, leaf in enumerate(persons.log.leaves(0, persons.log.size)) if b"review.resolved" in leaf
    )
    assert empty(persons) == [begin, begin + 2, resolution]
    found = [(request.wish.rule is None, receipt.done.bodies) for request, receipt in requests(persons)]
    assert (False, 1) in found
    assert sum(count for _, count in found) == 3
    report = persons.verify()
    assert report.ok, report.findings
    with Index(persons.ledger) as index:
        index.catch_up(persons.log)
        assert len(index.decisions_by_key(NAME, "K-2")) == 1
        assert index.decisions_by_key(NAME, "K-1") == []
        (still,) = index.waiting(limit=10)
        assert still.key == "K-2"


def test_what_is_sealed_late_goes_late(persons: Persons) -> None:
    persons.decide("K-1", at=ago(50))
    declared = Declared(late_arrival=30)
    keep(persons, declared)
    persons.decide("K-2", at=ago(60))
    persons.report("K-2", at=ago(45))
    keep(persons, declared)
    last = requests(persons)[-1]
    assert last[0].wish.rule is None
    assert last[1].done.bodies == 2
    assert persons.files_with("secret of 2.") == []
    report = persons.verify()
    assert report.ok, report.findings


def test_what_a_person_asked_for_does_not_count_for_the_rule(persons: Persons) -> None:
    for place in range(20):
        persons.decide(f"K-{place % 4}", at=ago(50 if place < 16 else 20))
    persons.erase("K-1")
    declared = Declared(late_arrival=30)
    keep(persons, declared)
    persons.erase("K-2")
    assert [receipt.done.bodies for _, receipt in requests(persons)] == [5, 12, 1]
    report = persons.verify()
    assert report.ok, report.findings


def test_a_waiting_decision_that_its_person_has_erased_does_not_count_either(persons: Persons) -> None:
    for place in range(8):
        persons.decide(f"K-{place % 4}", at=ago(50), outcome="review" if place == 1 else "answered")
    keep(persons, Declared(late_arrival=30))
    persons.erase("K-1")
    assert [receipt.done.bodies for _, receipt in requests(persons)] == [7, 1]
    report = persons.verify()
    assert report.ok, report.findings


def test_other_capabilities_keep_their_bodies_and_each_has_its_own_days(persons: Persons) -> None:
    for place in range(30):
        name = (NAME, "another", "third")[place % 3]
        persons.decide(f"K-{place}", at=ago(50 - place), capability=name)
    keep(persons, Declared(late_arrival=30, another=40))
    kept = [
        msgspec.json.decode(each.leaf)["capability"]
        for each in persons.log.entries(0, persons.log.size)
        if each.salt and b"decision" in each.leaf
    ]
    assert kept.count("third") == 10
    assert kept.count("another") == 10 - 3
    assert kept.count(NAME) == 10 - 7
    assert persons.verify().ok


def test_shorter_and_longer_days_are_followed(persons: Persons) -> None:
    for days in range(60, 0, -1):
        persons.decide(f"K-{days}", at=ago(days))
    for kept, gone in ((50, 10), (20, 40), (55, 40), (10, 50)):
        keep(persons, Declared(late_arrival=kept))
        assert len(empty(persons)) == gone
        assert persons.verify().ok


def test_memory_beside_the_ledger_is_let_go_of_when_all_is_done(persons: Persons) -> None:
    persons.decide("K-1", at=ago(50))
    declared = Declared(late_arrival=30)
    keep(persons, declared)
    assert declared.forgotten[-1] == (NAME, midnight(TODAY) - timedelta(days=30))


def test_it_is_said_of_an_entry_that_retention_took_its_body(persons: Persons) -> None:
    persons.decide("K-1", at=ago(50))
    persons.decide("K-2", at=ago(50), outcome="review")
    keep(persons, Declared(late_arrival=30))
    begin = begin_of(persons)
    found = erasure_of(persons.ledger, begin)
    assert found is not None
    assert found.request.principal == "retention"
    assert found.receipt is not None
    assert erasure_of(persons.ledger, begin + 1) is None, "it waits for a person, and was kept"


def test_bodies_that_are_back_after_a_rule_are_found(persons: Persons) -> None:
    for place in range(600):
        persons.decide(f"K-{place}", at=ago(50))
    persons.leave_segment()
    persons.seal()
    kept = (persons.ledger / "bodies" / "001").read_bytes()
    keep(persons, Declared(late_arrival=30))
    (persons.ledger / "bodies" / "001").write_bytes(kept)
    (finding,) = persons.verify().findings
    assert "expected 600 bodies of late-arrival" in finding.what
    assert "found 344 gone" in finding.what


def test_an_empty_body_that_no_rule_covers_is_found(persons: Persons) -> None:
    for days in (50, 10):
        persons.decide("K-1", at=ago(days))
    keep(persons, Declared(late_arrival=30))
    (gone,) = empty(persons)
    path = persons.ledger / "bodies" / "000"
    content = path.read_bytes()
    body = persons.log.entry(gone + 1)
    path.write_bytes(content.replace((16 + len(body.body)).to_bytes(4, "big") + body.salt + body.body, bytes(4)))
    (finding,) = persons.verify().findings
    assert finding.sequence == gone + 1


def test_an_index_made_anew_has_nothing_of_what_a_rule_took(persons: Persons) -> None:
    for place in range(40):
        persons.decide(f"K-{place}", at=ago(50 - place), outcome="review" if place % 9 == 0 else "answered")
        persons.report(f"K-{place}", at=ago(50 - place))
    declared = Declared(late_arrival=30)
    keep(persons, declared)
    in_parts = persons.index_content()
    with Index(persons.ledger) as index:
        index.begin_again()
    assert persons.index_content() == in_parts
    keep(persons, declared)
    assert persons.verify().ok


def test_retention_waits_while_somebody_asks(persons: Persons) -> None:
    persons.decide("K-1", at=ago(50))
    persons.leave_segment()
    persons.seal()
    with Index(persons.ledger) as index:
        retention = Retention(persons.workspace, index, Declared(late_arrival=30))
        with locked(persons.workspace.data / LOCK_FILE):
            assert not retention.ask(TODAY)
        assert retention.ask(TODAY)
