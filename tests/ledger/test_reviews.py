from __future__ import annotations

import os
import random
import signal
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import tiny
from decision.waiting import OUTSIDE, POLICY, PROPOSED, UNSURE, Desk
from ledger.samples import Writer, fork, reap
from mainstay.errors import Misuse
from mainstay.ledger.change import Change, record_change
from mainstay.ledger.entry import Entry
from mainstay.ledger.index import Index
from mainstay.ledger.log import Log
from mainstay.ledger.review_entries import RESOLVED, ReviewReason, read_resolution, read_waiting
from mainstay.ledger.reviews import ReviewQueue
from mainstay.ledger.state import load_state
from mainstay.ledger.verify import verify_ledger
from mainstay.signing import load_verifier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mainstay.ledger.review_entries import Resolution

YES = msgspec.Raw(b'{"probability":0.7,"yes":true}')


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path / "w")
    yield desk
    desk.segment.abandon()


def decide(desk: Desk, decision_id: str, **options: Any) -> Resolution:
    review = desk.queue.find(decision_id)
    return desk.queue.record(review, "accepted", YES, reason="looked at it", principal="os:ops", **options)


def nothing(_: Desk) -> None:
    """Everything stays in the write-ahead segments."""


def seal(desk: Desk) -> None:
    desk.seal()


def seal_and_index(desk: Desk) -> None:
    desk.seal()
    desk.index()


everywhere = pytest.mark.parametrize("move", [nothing, seal, seal_and_index])


@everywhere
def test_what_waits_is_listed_oldest_first_wherever_it_stands(desk: Desk, move: Callable[[Desk], None]) -> None:
    ids = [desk.leave(OUTSIDE, UNSURE, key="UA-1"), desk.leave(outcome="answered"), desk.leave(capability="other")]
    move(desk)
    ids.append(desk.leave())
    found = desk.queue.waiting()
    assert [each.id for each in found.reviews] == [ids[0], ids[2], ids[3]]
    assert found.total == 3
    first = found.reviews[0]
    assert (first.capability, first.key, first.policy) == (tiny.NAME, "UA-1", POLICY)
    assert first.reasons == tuple(ReviewReason(each.code, each.detail) for each in (OUTSIDE, UNSURE))
    assert desk.listed(tiny.NAME) == [ids[0], ids[3]]
    assert desk.listed("other") == [ids[2]]
    assert desk.queue.waiting("unknown") == ([], 0)


@everywhere
def test_a_resolution_takes_a_decision_off_the_queue_at_once(desk: Desk, move: Callable[[Desk], None]) -> None:
    ids = [desk.leave() for _ in range(3)]
    move(desk)
    made = decide(desk, ids[1])
    assert (made.verdict, made.output, made.principal, made.revises) == ("accepted", PROPOSED, "os:ops", None)
    assert desk.queue.waiting(limit=2) == ([desk.queue.waiting().reviews[0], desk.queue.waiting().reviews[1]], 2)
    assert desk.listed() == [ids[0], ids[2]]
    move(desk)
    assert desk.listed(tiny.NAME) == [ids[0], ids[2]]
    assert desk.queue.waiting(tiny.NAME).total == 2
    assert desk.queue.find(ids[1]).resolutions == (made,)
    assert desk.queue.find(ids[1].upper()).resolutions == (made,)
    assert desk.queue.find(ids[0]).resolutions == ()


@everywhere
def test_the_second_resolution_is_refused_unless_it_revises_the_first(desk: Desk, move: Callable[[Desk], None]) -> None:
    decision = desk.leave()
    first = decide(desk, decision)
    move(desk)
    with pytest.raises(Misuse, match="was resolved already: accepted by os:ops") as caught:
        decide(desk, decision)
    assert "--again" in caught.value.hint
    second = decide(desk, decision, again=True)
    move(desk)
    assert second.revises == first.id
    assert desk.queue.resolutions(decision) == (first, second)


def test_the_revision_counts_though_the_clock_was_set_back(desk: Desk) -> None:
    decision = desk.leave()
    first = decide(desk, decision)
    details = {"capability": tiny.NAME, "verdict": "rejected", "output": None, "revises": first.id}
    writer = Writer(desk.workspace.ledger)  # its entries are of the first of January
    body = {"reason": "again", "details": details}
    writer.append(kind="change", body=body, action=RESOLVED, subject=decision)
    writer.segment.close()
    assert [each.verdict for each in desk.queue.resolutions(decision)] == ["accepted", "rejected"]


def test_a_resolution_that_is_sealed_before_its_decision_is_indexed_counts(desk: Desk) -> None:
    """Segments are sealed in the order of their last change, whatever was written first."""
    decision, other = desk.leave(), desk.leave()
    decide(desk, decision)
    later = time.time_ns() + 10**9
    os.utime(desk.segment.path, ns=(later, later))
    seal_and_index(desk)
    log = Log(desk.workspace.ledger)
    kinds = [msgspec.json.decode(leaf)["kind"] for leaf in log.leaves(0, log.size)]
    assert kinds[-3:] == ["change", "decision", "decision"]
    assert desk.listed() == [other]
    assert len(desk.queue.resolutions(decision)) == 1


def test_what_is_sealed_and_not_in_the_checkpoint_yet_is_not_missed(desk: Desk) -> None:
    """A sealer that is killed between its state and its checkpoint leaves both as they are here."""
    desk.leave()
    desk.seal()
    note = Log(desk.workspace.ledger).note()
    assert note is not None
    decision = desk.leave()
    segments = {path: path.read_bytes() for path in (desk.workspace.ledger / "wal").glob("*.wal")}
    decide(desk, decision)
    segments |= {path: path.read_bytes() for path in (desk.workspace.ledger / "wal").glob("*.wal")}
    desk.seal()
    (desk.workspace.ledger / "checkpoint").write_bytes(note)
    for path, content in segments.items():
        if not path.exists():
            path.write_bytes(content)
    assert decision not in desk.listed()
    with pytest.raises(Misuse, match="resolved already"):
        decide(desk, decision)


def test_what_the_log_holds_is_not_read_from_the_segment_again(desk: Desk) -> None:
    decision = desk.leave()
    desk.seal()
    state = load_state(desk.workspace.ledger)
    assert state is not None
    progress = state.segments[desk.segment.name]
    with desk.segment.path.open("r+b") as file:  # were it read, it would be found damaged, and what follows not found
        file.seek(progress.offset - 1)
        file.write(b"\x00")
    fresh = desk.leave()
    assert desk.listed() == [decision, fresh]


def test_the_index_is_the_same_made_anew(desk: Desk) -> None:
    ids = [desk.leave(capability="other" if place % 3 else tiny.NAME) for place in range(12)]
    for place in (1, 4, 7):
        decide(desk, ids[place])
        seal_and_index(desk)
    decide(desk, ids[4], again=True)
    seal_and_index(desk)
    before = desk.queue.waiting(), desk.queue.resolutions(ids[4])
    for path in desk.workspace.ledger.glob("index.db*"):
        path.unlink()
    assert (desk.queue.waiting(), desk.queue.resolutions(ids[4])) == before
    with Index(desk.workspace.ledger) as index:
        assert index.count_waiting() == 9
        assert index.count_waiting(tiny.NAME) == 4
        assert [each.id for each in index.waiting(limit=2)] == [ids[0], ids[2]]
        assert index.find_waiting(ids[1]) is None
        assert len(index.resolutions_of(ids[4])) == 2


def test_the_head_of_a_long_queue_is_found_without_reading_it(desk: Desk) -> None:
    with Index(desk.workspace.ledger) as index:
        for name in (None, tiny.NAME):
            asked: list[str] = []
            index._database.set_trace_callback(asked.append)
            index.waiting(name, limit=1)
            index._database.set_trace_callback(None)
            plan = index._database.execute("EXPLAIN QUERY PLAN " + asked[0]).fetchall()
            assert "TEMP B-TREE" not in str(plan)
            assert "INDEX waiting_by_" in str(plan)


def test_only_a_decision_that_was_left_to_a_person_can_be_found(desk: Desk) -> None:
    answered = desk.leave(outcome="answered")
    change = record_change(
        desk.workspace.ledger, Change(action="key.created", subject="x", principal="os:ops", reason="r", details=None)
    )
    for entry_id in (answered, change):
        with pytest.raises(Misuse, match="no decision that was left to a person"):
            desk.queue.find(entry_id)
    for entry_id in ("no id", "01990c2a-5b1e-7a3f-8c21-55e000000007"):
        with pytest.raises(Misuse, match="no entry"):
            desk.queue.find(entry_id)


def test_an_erased_body_leaves_the_codes_and_who_resolved_it(desk: Desk) -> None:
    decision = desk.leave(OUTSIDE)
    decide(desk, decision)
    desk.seal()
    log = Log(desk.workspace.ledger)
    entries = list(log.entries(0, log.size))
    erased = [Entry(each.leaf, each.salt, b"") for each in entries]
    waiting = [found for found in map(read_waiting, erased) if found is not None]
    resolved = [found for found in map(read_resolution, erased) if found is not None]
    assert [(each.id, each.key, each.reasons) for each in waiting] == [
        (decision, None, (ReviewReason("outside_authority"),))
    ]
    assert [(subject, each.principal, each.verdict) for subject, each in resolved] == [(decision, "os:ops", None)]


def test_of_several_who_resolve_at_once_one_wins(desk: Desk) -> None:
    ids = [desk.leave() for _ in range(6)]

    def resolve_all(person: int) -> None:
        queue = ReviewQueue(desk.workspace)
        for decision in random.Random(person).sample(ids, len(ids)):
            try:
                queue.record(queue.find(decision), "rejected", None, reason="r", principal=f"os:person-{person}")
            except Misuse:
                continue

    children = [fork(lambda person=person: resolve_all(person)) for person in range(4)]  # type: ignore[misc]  # a lambda with a default
    while any(os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None for child in children):
        seal_and_index(desk)
    assert all(reap(child) for child in children)
    assert [len(desk.queue.resolutions(each)) for each in ids] == [1] * 6
    seal_and_index(desk)
    assert [len(desk.queue.resolutions(each)) for each in ids] == [1] * 6
    assert desk.queue.waiting() == ([], 0)


def test_whoever_is_killed_has_recorded_it_or_has_not(desk: Desk) -> None:
    ids = [desk.leave() for _ in range(60)]

    def resolve_all() -> None:
        for decision in ids:
            if not desk.queue.resolutions(decision):
                decide(desk, decision)

    killed = 0
    for attempt in range(12):
        child = fork(resolve_all)
        time.sleep(0.005 + random.Random(attempt).random() * 0.08)
        os.kill(child, signal.SIGKILL)
        killed += not reap(child)
        if attempt % 3 == 0:
            seal_and_index(desk)
    assert killed
    resolve_all()
    desk.segment.close()
    seal_and_index(desk)
    assert [len(desk.queue.resolutions(each)) for each in ids] == [1] * 60
    assert desk.queue.waiting() == ([], 0)
    assert verify_ledger(desk.workspace.ledger, load_verifier(desk.workspace.keys)).ok
    desk.segment = type(desk.segment)(desk.workspace.ledger / "wal")
