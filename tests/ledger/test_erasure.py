from __future__ import annotations

import time
from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger.persons import NAME, Persons, sought
from ledger.samples import Writer
from mainstay.errors import Failed, Misuse
from mainstay.ledger import steward as steward_module
from mainstay.ledger.erasure import erasure_of
from mainstay.ledger.erasure_entries import COMPLETED, REQUESTED, read_receipt, read_request, runs_of
from mainstay.ledger.index import Index
from mainstay.ledger.journal import Journal
from mainstay.ledger.tiles import split_bodies
from mainstay.ledger.verify import verify_ledger
from mainstay.ledger.wal import ask_to_leave, segments

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def persons(tmp_path: Path) -> Iterator[Persons]:
    persons = Persons(tmp_path / "w")
    yield persons
    persons.writer.segment.abandon()


def test_the_bodies_of_a_person_go_and_every_proof_still_verifies(persons: Persons) -> None:
    persons.fill(300)
    persons.leave_segment()
    persons.seal()
    before = persons.bodies()
    leaves = list(persons.log.leaves(0, len(before)))
    concerned = [place for place, body in enumerate(before) if b"secret of 3." in body]
    ((request, receipt),) = persons.erase("K-3")
    assert receipt.done.bodies == len(concerned)
    assert request.wish.entries == tuple(runs_of(concerned))
    after = persons.bodies()
    assert list(persons.log.leaves(0, len(before))) == leaves
    assert after[: len(before)] == [b"" if place in concerned else body for place, body in enumerate(before)]
    report = persons.verify()
    assert report.ok, report.findings
    assert report.erased == len(concerned)
    assert f"{len(concerned)} bodies are erased, each on the word of an entry of the log" in report.lines()


def test_nothing_of_the_person_is_left_in_any_file(persons: Persons) -> None:
    persons.fill()
    persons.flush()
    assert persons.files_with("secret of 3.")
    persons.erase("K-3")
    assert persons.files_with("secret of 3.") == []
    assert persons.files_with("K-3") == []
    assert persons.files_with("secret of 4.")


def test_the_index_holds_no_business_key(persons: Persons) -> None:
    persons.fill()
    persons.leave_segment()
    persons.seal()
    with Index(persons.ledger) as index:
        assert len(index.decisions_by_key(NAME, "K-3")) == 4
    for name in ("index.db", "index.db-wal"):
        path = persons.ledger / name
        assert not path.exists() or b"K-3" not in path.read_bytes()
    assert (persons.ledger / "index.key").stat().st_mode & 0o777 == 0o600


def test_an_index_whose_key_is_gone_is_made_anew(persons: Persons) -> None:
    persons.fill()
    persons.leave_segment()
    persons.seal()
    key = (persons.ledger / "index.key").read_bytes()
    (persons.ledger / "index.key").write_bytes(b"short")
    with Index(persons.ledger) as index:
        assert index.size == 0
        index.catch_up(persons.log)
        assert len(index.decisions_by_key(NAME, "K-3")) == 4
    assert (persons.ledger / "index.key").read_bytes() != key


def test_what_is_not_sealed_yet_is_sealed_first(persons: Persons) -> None:
    persons.fill(10)
    desk = persons.desk()
    persons.flush()
    persons.writer.segment.abandon()  # its writer was killed
    persons.hand().settle()
    ((_, receipt),) = desk.carry_out(desk.request(sought("K-3"), "asked"))
    assert receipt.done.bodies == 2
    assert not segments(persons.ledger / "wal")
    assert persons.verify().ok
    persons.writer = Writer(persons.ledger)


def test_decisions_made_after_the_request_stay(persons: Persons) -> None:
    persons.fill(10)
    ids = persons.request("K-3")
    later = persons.decide("K-3")
    persons.flush()
    persons.leave_segment()
    persons.desk().carry_out(ids)
    with Index(persons.ledger) as index:
        (sequence,) = index.decisions_by_key(NAME, "K-3")
        assert index.find(later) == sequence
    assert b"secret of 3." in persons.log.entry(sequence).body
    assert persons.verify().ok


def test_one_decision_is_erased_by_its_id_with_what_names_it(persons: Persons) -> None:
    first = persons.decide("K-1")
    second = persons.decide("K-1", outcome="review")
    persons.report("K-1", decision_id=second.upper())
    persons.resolve(second, "K-1")
    persons.report("K-1", decision_id=first)
    ((request, receipt),) = persons.erase(decision_id=second.upper())
    assert receipt.done.bodies == 3
    assert (request.wish.key, request.wish.decision) == (None, second.upper())
    with Index(persons.ledger) as index:
        begin = index.find(first)
    assert begin is not None
    assert [bool(body) for body in persons.bodies()[begin : begin + 5]] == [True, False, False, False, True]
    assert persons.verify().ok


def test_a_decision_of_another_capability_is_not_erased(persons: Persons) -> None:
    persons.fill(10)
    other = persons.decide("K-3", capability="another")
    persons.leave_segment()
    persons.seal()
    with pytest.raises(Misuse, match=f"no decision of {NAME} has the id"):
        persons.desk().find(sought(None, other))
    with pytest.raises(Misuse, match="no decision of"):
        persons.desk().find(sought(None, "no id"))
    assert len(persons.desk().find(sought("K-3")).sequences) == 2
    every = persons.desk().find(sought("K-3", capability=None))
    assert every.kinds == {"decision": 2, "outcome": 1}


def test_what_was_erased_is_not_erased_again(persons: Persons) -> None:
    ids = persons.fill(20)
    assert persons.erase("K-3")
    size = persons.log.size
    assert persons.erase("K-3") == []
    assert persons.erase(decision_id=ids[3]) == []
    assert persons.log.size == size


def test_the_same_is_asked_for_once_while_it_waits(persons: Persons) -> None:
    ids = persons.fill(20)
    assert len(persons.request("K-3")) == 1
    assert persons.request("K-3") == []
    assert persons.request(decision_id=ids[3]) == []
    persons.turns()
    assert len(persons.receipts()) == 1


def test_a_request_says_who_asked_and_why_and_never_the_key(persons: Persons) -> None:
    persons.fill(20)
    ((request, receipt),) = persons.erase("K-3")
    entry = persons.log.entry(request.sequence)
    assert read_request(entry, request.sequence) == request
    assert b"K-3" not in entry.leaf + entry.body
    assert (request.principal, request.reason, request.wish.key) == ("os:ops", "request 2026-118", "pseudonym:0123")
    assert request.wish.up_to == request.sequence
    answer = persons.log.entry(receipt.sequence)
    assert read_receipt(answer, receipt.sequence) == receipt
    assert msgspec.json.decode(answer.leaf)["subject"] == request.id
    assert read_request(answer, receipt.sequence) is None


def test_many_entries_make_several_requests(persons: Persons, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mainstay.ledger.erasure.MAX_RUNS", 3)
    persons.fill(100)
    carried = persons.erase("K-3")
    assert [len(each.request.wish.entries) for each in carried] == [3] * (len(carried) - 1) + [
        len(carried[-1].request.wish.entries)
    ]
    assert len(carried) > 3
    assert persons.files_with("secret of 3.") == []
    assert persons.verify().ok


def test_it_is_said_of_an_entry_why_its_body_is_gone(persons: Persons) -> None:
    ids = persons.fill(20)
    requested = persons.request("K-3")
    persons.seal()
    with Index(persons.ledger) as index:
        concerned, other = index.find(ids[3]), index.find(ids[4])
    assert concerned is not None
    assert other is not None
    waiting = erasure_of(persons.ledger, concerned)
    assert waiting is not None
    assert (waiting.request.id, waiting.receipt) == (requested[0], None)
    ((_, receipt),) = persons.desk().carry_out(requested)
    done = erasure_of(persons.ledger, concerned)
    assert done is not None
    assert done.receipt == receipt
    assert erasure_of(persons.ledger, other) is None


def test_sealing_goes_on_behind_a_last_bundle_that_lost_bodies(persons: Persons) -> None:
    for _ in range(4):
        persons.fill(75)
        persons.erase("K-3")
        report = persons.verify()
        assert report.ok, report.findings
    persons.fill(600)
    persons.leave_segment()
    persons.seal()
    assert persons.verify().ok


# What an empty body may be, and what not.


def empty_body(persons: Persons, sequence: int) -> None:
    """Do to a body what erasing does, on nobody's word."""
    path = persons.ledger / "bodies" / f"{sequence // 256:03d}"
    count = min(256, persons.log.size - sequence // 256 * 256)
    bodies, _ = split_bodies(path.read_bytes(), count)
    content = [bytes(body) if place != sequence % 256 else b"" for place, body in enumerate(bodies)]
    path.write_bytes(b"".join(len(body).to_bytes(4, "big") + body for body in content))


def test_an_empty_body_without_a_request_is_found_and_named(persons: Persons) -> None:
    persons.fill(300)
    persons.leave_segment()
    persons.seal()
    empty_body(persons, 270)
    (finding,) = persons.verify().findings
    assert (finding.file, finding.sequence) == ("bodies/001", 270)
    assert "no entry of the log says so" in finding.what


def test_an_empty_body_beside_those_of_a_request_is_found(persons: Persons) -> None:
    persons.fill(40)
    ((request, _),) = persons.erase("K-3")
    beside = request.wish.entries[0][1]
    empty_body(persons, beside)
    (finding,) = persons.verify().findings
    assert finding.sequence == beside


@pytest.mark.parametrize("which", [REQUESTED, COMPLETED, "release.published"])
def test_a_change_may_never_be_erased(persons: Persons, which: str) -> None:
    persons.change()
    persons.fill(40)
    persons.erase("K-3")
    leaves = list(persons.log.leaves(0, persons.log.size))
    (sequence,) = [place for place, leaf in enumerate(leaves) if which.encode() in leaf]
    empty_body(persons, sequence)
    findings = {each.sequence: each.what for each in persons.verify().findings}
    assert "that of a change never is" in findings[sequence]


def test_a_request_cannot_name_itself_or_what_comes_after(persons: Persons) -> None:
    persons.fill(10)
    persons.erase("K-3")
    size = persons.log.size
    (sequence,) = [place for place, leaf in enumerate(persons.log.leaves(0, size)) if REQUESTED.encode() in leaf]
    entry = persons.log.entry(sequence)
    body = msgspec.json.decode(entry.body)
    for entries in ([[0, sequence + 1]], [[3, 3]], [[4, 6], [5, 7]], [[-1, 2]], [["a", 2]]):
        body["details"]["entries"] = entries
        assert read_request(entry._replace(body=msgspec.json.encode(body)), sequence) is None


def test_a_body_that_is_back_after_its_receipt_is_found(persons: Persons) -> None:
    persons.fill(300)
    persons.leave_segment()
    persons.seal()
    kept = {path.name: path.read_bytes() for path in (persons.ledger / "bodies").iterdir()}
    ((request, _),) = persons.erase("K-3")
    (persons.ledger / "bodies" / "000").write_bytes(kept["000"])
    (finding,) = persons.verify().findings
    assert (finding.file, finding.sequence) == ("bodies/000", request.wish.entries[0][0])
    assert "a receipt in the log says" in finding.what


def test_all_bodies_that_are_back_are_found_though_none_is_empty(persons: Persons) -> None:
    persons.fill(20)
    persons.leave_segment()
    persons.seal()
    kept = (persons.ledger / "bodies" / "000").read_bytes()
    persons.erase("K-3")
    changed = persons.ledger / "bodies" / "000"
    changed.write_bytes(kept + changed.read_bytes()[-_bytes_of_last(persons, 2) :])
    (finding,) = persons.verify().findings
    assert "a receipt in the log says" in finding.what


def _bytes_of_last(persons: Persons, count: int) -> int:
    size = persons.log.size
    return sum(4 + 16 + len(entry.body) for entry in persons.log.entries(size - count, size))


def test_bodies_that_go_while_the_ledger_is_verified_are_no_finding(persons: Persons) -> None:
    persons.fill(2_000)
    persons.leave_segment()
    persons.seal()
    erased = False

    def erase_in_the_middle(done: int, total: int) -> None:
        nonlocal erased
        if not erased and done < total:
            erased = True
            persons.erase("K-3")
            persons.erase("K-4")

    report = verify_ledger(persons.ledger, persons.key.verifier, progress=erase_in_the_middle)
    assert erased
    assert report.ok, report.findings
    assert persons.verify().ok


# Copies.


def test_a_segment_whose_writer_lives_keeps_the_receipt_back(persons: Persons, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steward_module, "WAIT_SECONDS", 0.3)
    persons.fill(20)
    persons.seal()
    desk = persons.desk()
    requested = desk.request(sought("K-3"), "asked")
    with pytest.raises(Failed, match="has not left its segment") as caught:
        desk.carry_out(requested)
    assert "Nothing need be done again" in caught.value.hint
    assert persons.receipts() == []
    assert persons.verify().ok
    assert persons.files_with("secret of 3.") == [persons.writer.segment.path.name]
    assert persons.writer.segment.is_to_be_left()
    persons.leave_segment()
    persons.turns()
    assert len(persons.receipts()) == 1
    assert persons.files_with("secret of 3.") == []


def test_a_journal_leaves_its_segment_when_it_is_asked_to(persons: Persons) -> None:
    calls: list[object] = []

    def wake(call: object) -> None:
        calls.append(call)
        call()  # type: ignore[operator] # the journal's thread runs it: nobody else touches the journal

    journal = Journal(persons.ledger / "wal", wake)
    try:
        first = journal.next_place()
        time.sleep(0.01)
        ask_to_leave(persons.ledger)
        assert not first.segment.is_to_be_left(), "it holds nothing"
        journal.submit(first, b"", 0, lambda _: None)
        deadline = time.monotonic() + 5
        while journal.next_place().segment is first.segment and time.monotonic() < deadline:
            time.sleep(0.01)
        assert journal.next_place().segment is not first.segment
    finally:
        journal.close()


def test_copies_in_a_damaged_segment_set_aside_are_overwritten(persons: Persons) -> None:
    persons.fill(20)
    persons.seal()  # the writer lives: the segment stays, sealed up to here
    persons.fill(20)
    persons.flush()
    path = persons.writer.segment.path
    persons.writer.segment.abandon()
    content = bytearray(path.read_bytes())
    at = content.rindex(b"secret of 2.")
    content[at] ^= 1
    path.write_bytes(content)
    persons.writer = Writer(persons.ledger)
    persons.seal()
    aside = persons.ledger / "wal" / "damaged" / path.name
    assert b"secret of 3." in aside.read_bytes()
    found = persons.desk().find(sought("K-3"))
    assert found.aside == (f"wal/damaged/{path.name}",)
    ((_, receipt),) = persons.erase("K-3")
    (told,) = receipt.done.aside
    assert (told.file, told.bodies) == (found.aside[0], receipt.done.bodies)
    sealed = aside.read_bytes()[: content.index(b"secret of 2.", len(content) // 2)]
    assert sealed.count(b"secret of 3.") == 0 or told.unread_bytes


# The index.

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("decide"), st.integers(0, 3)),
        st.tuples(st.just("wait"), st.integers(0, 3)),
        st.tuples(st.just("report"), st.integers(0, 3)),
        st.tuples(st.just("report-on"), st.integers(0, 30)),
        st.tuples(st.just("resolve"), st.integers(0, 30)),
        st.tuples(st.just("request"), st.integers(0, 3)),
        st.tuples(st.just("erase"), st.integers(0, 3)),
        st.tuples(st.just("seal"), st.just(0)),
    ),
    max_size=30,
)


@given(STEPS)
@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_index_made_anew_is_what_it_was(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    persons = Persons(tmp_path_factory.mktemp("persons") / "w")
    ids: list[tuple[str, str]] = []
    for step, number in steps:
        key = f"K-{number % 4}"
        decided, of = ids[number % len(ids)] if ids else (None, key)
        if step in {"decide", "wait"}:
            ids.append((persons.decide(key, outcome="review" if step == "wait" else "answered"), key))
        elif step == "report":
            persons.report(key)
        elif step == "report-on" and decided:
            persons.report(of, decision_id=decided)
        elif step == "resolve" and decided:
            persons.resolve(decided, of)
        elif step == "request":
            persons.request(key)
        elif step == "erase":
            persons.erase(key)
        elif step == "seal":
            persons.leave_segment()
            persons.seal()
    persons.turns()
    persons.leave_segment()
    persons.seal()
    persons.turns()
    in_parts = persons.index_content()
    with Index(persons.ledger) as index:
        index.begin_again()
    anew = persons.index_content()
    # A row of `kept` may be older than any body that is left, until retention looks.
    ages = {tuple(row[:2]): row[2] for row in in_parts.pop("kept")}
    assert all(ages[row[:2]] <= row[2] for row in anew.pop("kept"))
    assert anew == in_parts
    assert persons.verify().ok
    persons.writer.segment.abandon()


@given(st.lists(st.integers(0, 60)))
def test_runs_are_what_they_were_made_of(numbers: list[int]) -> None:
    ordered = sorted(numbers)
    runs = list(runs_of(ordered))
    assert [each for first, last in runs for each in range(first, last)] == sorted(set(numbers))
    assert all(one[1] < other[0] for one, other in pairwise(runs))
