from __future__ import annotations

import os
import resource
import shutil
import signal
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger.persons import Persons, secret_of
from ledger.samples import Writer, fork, make_entry, reap, seal, sealed_leaves, write_segment
from mainstay.errors import Damaged
from mainstay.ledger.entry import format_id
from mainstay.ledger.index import Index
from mainstay.ledger.log import Log
from mainstay.ledger.wal import Segment, frame_entry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME = "late-arrival"


class Bench:
    """A ledger with a writer, sealed and indexed at will."""

    def __init__(self, ledger: Path) -> None:
        self.ledger = ledger
        self.writer = Writer(ledger)
        self.index = Index(ledger)

    def decide(self, key: str | None = None, **fields: Any) -> str:
        entry_id = self.writer.next_id()
        self.writer.append(body={"key": key, "output": {"p": 0.25}, "principal": "ops"}, **fields)
        return entry_id

    def report(
        self,
        late: bool,
        *,
        decision_id: str | None = None,
        key: str | None = None,
        at: str | None = None,
        **fields: Any,
    ) -> None:
        body = {"decision_id": decision_id, "key": key, "outcome": {"late": late}, "observed_at": at}
        self.writer.append(kind="outcome", body=body, **fields)

    def joined(self) -> list[tuple[int, bytes | None]]:
        seal(self.ledger)
        self.index.catch_up(Log(self.ledger))
        return [(decision.sequence, outcome and outcome.outcome) for decision, outcome in self.index.joined(NAME)]


@pytest.fixture
def persons(tmp_path: Path) -> Iterator[Persons]:
    persons = Persons(tmp_path / "w")
    yield persons
    persons.writer.segment.abandon()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.index.close()
    bench.writer.segment.abandon()


LATE, ON_TIME = b'{"late":true}', b'{"late":false}'


def test_an_id_is_found_wherever_its_segment_was_interleaved(tmp_path: Path) -> None:
    one, other = Writer(tmp_path), Writer(tmp_path)
    for _ in range(5):
        one.append(3)
        other.append(2)
        seal(tmp_path)
    leaves = sealed_leaves(tmp_path)
    with Index(tmp_path) as index:
        assert index.catch_up(Log(tmp_path)) == index.size == 25
        assert index.catch_up(Log(tmp_path)) == 0
        for writer in (one, other):
            for counter, entry in enumerate(writer.entries):
                sequence = index.find(format_id(writer.segment.name, counter, 1_767_225_600_000 + counter))
                assert sequence is not None
                assert leaves[sequence] == entry.leaf
            assert index.find(format_id(writer.segment.name, len(writer.entries), 1)) is None
            assert index.find(format_id(writer.segment.name, 0, 1)) is None, "another time is another id"
            writer.segment.abandon()
        assert index.find("no id") is None


def test_the_same_segment_bits_drawn_twice_confuse_nothing(tmp_path: Path) -> None:
    ids = []
    for milliseconds in (1_000, 2_000):
        segment = Segment(tmp_path / "wal")
        ids.append([format_id("0123456789", counter, milliseconds + counter) for counter in range(3)])
        segment.append([frame_entry(*make_entry(each)) for each in ids[-1]], 3)
        segment.close()
        seal(tmp_path)
    with Index(tmp_path) as index:
        index.catch_up(Log(tmp_path))
        assert [[index.find(each) for each in group] for group in ids] == [[0, 1, 2], [3, 4, 5]]


def test_what_shadows_would_have_decided_is_found_by_the_decision_and_is_none_itself(bench: Bench) -> None:
    decision_id = bench.decide("UA-1")
    for version in ("sha256:v2", "sha256:v3"):
        bench.writer.append(1, kind="shadow", decision_id=decision_id, version=version, outcome="review", reasons=["x"])
    bench.joined()
    assert bench.index.shadows_of(decision_id) == [1, 2]
    assert bench.index.shadows_of("no id") == []
    assert bench.index.counts(NAME).decisions == {"answered": 1}
    assert bench.index.counts(NAME).reasons == {}
    assert bench.index.count_waiting() == 0
    assert bench.index.capability_of(1) is None


def test_decisions_are_found_by_their_business_key(bench: Bench) -> None:
    for key in ("UA-1", "UA-2", "UA-1", None):
        bench.decide(key)
    bench.decide("UA-1", capability="another")
    bench.joined()
    assert bench.index.decisions_by_key(NAME, "UA-1") == [0, 2]
    assert bench.index.decisions_by_key(NAME, "UA-3") == []
    assert bench.index.decisions_by_key("another", "UA-1") == [4]


def test_an_outcome_joins_by_decision_and_by_key(bench: Bench) -> None:
    first = bench.decide("UA-1")
    bench.decide("UA-2")
    bench.decide()
    bench.report(late=True, decision_id=first)
    bench.report(late=False, key="UA-2")
    assert bench.joined() == [(0, LATE), (1, ON_TIME), (2, None)]
    (by_id,) = bench.index.outcomes_of(first, NAME, "UA-1")
    (by_key,) = bench.index.outcomes_of("another id", NAME, "UA-2")
    assert (by_id.sequence, by_id.decision_id, by_id.key) == (3, first, None)
    assert (by_key.sequence, by_key.decision_id) == (4, None)
    assert by_key.key is not None
    assert b"UA-2" not in by_key.key


def test_an_outcome_that_comes_before_its_decision_waits_for_it(bench: Bench) -> None:
    bench.report(late=True, key="UA-9")
    next_id = format_id(bench.writer.segment.name, 2, 1_767_225_600_002)
    bench.report(late=False, decision_id=next_id)
    assert bench.joined() == []
    assert [row.outcome for row in bench.index.outcomes_of(None, NAME, "UA-9")] == [LATE]
    assert bench.decide() == next_id
    bench.decide("UA-9")
    assert bench.joined() == [(2, ON_TIME), (3, LATE)]


def test_outcomes_of_other_capabilities_do_not_join(bench: Bench) -> None:
    decision = bench.decide("UA-1")
    bench.report(late=True, key="UA-1", capability="another")
    bench.report(late=True, decision_id=decision, capability="another")
    assert bench.joined() == [(0, None)]


def test_a_report_by_decision_does_not_reach_others_with_the_same_key(bench: Bench) -> None:
    first = bench.decide("UA-1")
    bench.decide("UA-1")
    bench.report(late=True, decision_id=first, key="UA-1")
    assert bench.joined() == [(0, LATE), (1, None)]


OBSERVED = [  # in the order of the instants
    "2026-03-01T10:00:00Z",
    "2026-03-01T12:30:00+02:00",
    "2026-03-01T11:00:00.000001Z",
    "2026-03-01T06:00:01-05:00",
    "2026-03-01T11:00:02",
    "2026-03-01T13:00:03+02:00",
]


@given(st.permutations(range(len(OBSERVED))), st.sampled_from(["before", "between", "behind"]))
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_outcome_observed_last_counts_in_whatever_order_they_come(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], decided: str
) -> None:
    bench = Bench(tmp_path_factory.mktemp("ledger"))
    if decided == "before":
        bench.decide("UA-1")
    for count, place in enumerate(order):
        bench.report(late=place == len(OBSERVED) - 1, key="UA-1", at=OBSERVED[place])
        if decided == "between" and count == 2:
            bench.decide("UA-1")
    if decided == "behind":
        bench.decide("UA-1")
    assert [outcome for _, outcome in bench.joined()] == [LATE]
    rows = bench.index.outcomes_of(None, NAME, "UA-1")
    assert [row.observed_at for row in rows] == OBSERVED
    bench.index.close()
    bench.writer.segment.abandon()


def test_of_two_outcomes_observed_at_one_instant_the_one_recorded_last_counts(bench: Bench) -> None:
    bench.decide("UA-1")
    bench.report(late=True, key="UA-1", at="2026-03-01T10:00:00Z")
    bench.report(late=False, key="UA-1", at="2026-03-01T11:00:00+01:00")
    assert bench.joined() == [(0, ON_TIME)]


def test_reading_an_index_again_gives_what_was_indexed_in_parts(bench: Bench) -> None:
    for place in range(40):
        decision = bench.decide(
            f"K-{place % 7}", outcome="answered" if place % 3 else "fallback", reasons=["MODEL_FAILED"]
        )
        bench.report(late=place % 2 == 0, key=f"K-{place % 5}", at=f"2026-03-01T10:00:{place:02d}Z")
        bench.report(late=True, decision_id=decision)
        if place % 9 == 0:
            bench.joined()
    in_parts, counts = bench.joined(), bench.index.counts(NAME)
    copy = bench.ledger.parent / "copy"
    shutil.copytree(bench.ledger, copy, ignore=shutil.ignore_patterns("index.db*"))
    with Index(copy) as index:
        index.catch_up(Log(copy))
        assert [(row.sequence, outcome and outcome.outcome) for row, outcome in index.joined(NAME)] == in_parts
        assert index.counts(NAME) == counts


def test_counts_are_kept_by_outcome_and_reason(bench: Bench) -> None:
    for outcome, reasons in [("answered", []), ("refused", ["A", "B"]), ("refused", ["A"]), ("fallback", ["C"])]:
        bench.decide(outcome=outcome, reasons=reasons)
    bench.report(late=True, key="x")
    bench.decide(capability="another")
    bench.writer.append(kind="change", action="release.published", subject="x")
    bench.joined()
    counts = bench.index.counts(NAME)
    assert counts.decisions == {"answered": 1, "refused": 2, "fallback": 1}
    assert counts.reasons == {"A": 2, "B": 1, "C": 1}
    assert counts.outcomes == 1
    assert bench.index.counts("unknown").decisions == {}


def test_joined_rows_begin_at_an_instant(bench: Bench) -> None:
    for day in (1, 2, 3):
        bench.decide(at=f"2026-03-0{day}T00:00:00.000000Z")
    bench.joined()
    rows = list(bench.index.joined(NAME, datetime(2026, 3, 2, tzinfo=UTC)))
    assert [decision.at[:10] for decision, _ in rows] == ["2026-03-02", "2026-03-03"]
    assert rows[0][0].output == b'{"p":0.25}'


def test_what_mainstay_did_not_write_is_passed_over(tmp_path: Path) -> None:
    segment = Segment(tmp_path / "wal")
    segment.append([frame_entry(b"not JSON", bytes(16), b""), frame_entry(b'{"kind":"decision"}', bytes(16), b"x")], 2)
    segment.close()
    seal(tmp_path)  # so that these come first, whatever the clock of the file system says
    writer = Writer(tmp_path)
    writer.append(body={"key": 5})
    writer.append(kind="outcome", body={"outcome": 1, "observed_at": "yesterday", "key": "k"})
    writer.append(2)
    writer.segment.close()
    seal(tmp_path)
    with Index(tmp_path) as index:
        assert index.catch_up(Log(tmp_path)) == 6
        assert index.counts(NAME).decisions == {"answered": 2}
        (row,) = index.outcomes_of(None, NAME, "k")
        assert row.observed_at == "2026-01-01T00:00:00.000000Z"
        assert index.find(format_id(writer.segment.name, 3, 1_767_225_600_003)) == 5


def test_an_index_of_another_log_is_made_anew(tmp_path: Path) -> None:
    for name, count in (("one", 30), ("two", 40), ("three", 10)):
        write_segment(tmp_path / name, count)
        seal(tmp_path / name)
    with Index(tmp_path / "one") as index:
        index.catch_up(Log(tmp_path / "one"))
    for name, count in (("two", 40), ("three", 10)):
        shutil.copy(tmp_path / "one" / "index.db", tmp_path / name / "index.db")
        with Index(tmp_path / name) as index:
            assert index.catch_up(Log(tmp_path / name)) == count
            assert index.counts(NAME).decisions == {"answered": count}


def test_an_index_of_another_schema_is_made_anew(tmp_path: Path) -> None:
    write_segment(tmp_path, 10)
    seal(tmp_path)
    with Index(tmp_path) as index:
        index.catch_up(Log(tmp_path))
        index._database.execute("PRAGMA user_version = 99")
    with Index(tmp_path) as index:
        assert index.size == 0
        assert index.catch_up(Log(tmp_path)) == 10


def test_a_file_that_is_no_index_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "index.db").write_bytes(b"not a database, and longer than its header would have to be" * 20)
    with pytest.raises(Damaged, match="Delete it"):
        Index(tmp_path)


def test_the_file_is_written_anew_once_for_what_was_erased(persons: Persons) -> None:
    persons.fill(20)
    persons.request("K-3")
    persons.request("K-4")
    persons.seal()
    with Index(persons.ledger) as index:
        statements: list[str] = []
        index._database.set_trace_callback(statements.append)
        assert index.has_traces()
        assert index.leave_nothing_behind()
        assert not index.has_traces()
        assert index.leave_nothing_behind()
        assert statements.count("VACUUM") == 1
    persons.turns()
    with Index(persons.ledger) as index:
        index.begin_again()
        index.catch_up(persons.log)
        assert not index.has_traces(), "it never held what is gone from the log"


def test_nothing_is_said_to_be_gone_while_another_process_is_in_the_way(persons: Persons) -> None:
    persons.fill(20)
    persons.request("K-3")
    persons.seal()
    with Index(persons.ledger) as index, Index(persons.ledger) as other:
        index._database.execute("PRAGMA busy_timeout = 0")
        with other.transaction():
            assert not index.leave_nothing_behind()
            assert index.has_traces()
        other._database.execute("BEGIN")
        assert other.size
        assert not index.leave_nothing_behind(), "the other one still reads what was in the write-ahead log"
        assert not index.has_traces()
        other._database.execute("COMMIT")
        assert index.leave_nothing_behind()
        assert (persons.ledger / "index.db-wal").stat().st_size == 0


def test_a_full_disk_keeps_the_file_as_it_is(persons: Persons) -> None:
    persons.fill(200)
    persons.request("K-3")
    persons.seal()
    before = persons.index_content()

    def fail() -> None:
        with Index(persons.ledger) as index:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
            with pytest.raises(OSError, match="cannot be written anew"):
                index.leave_nothing_behind()

    assert reap(fork(fail))
    assert persons.index_content() == before
    with Index(persons.ledger) as index:
        assert index.has_traces()
        assert index.leave_nothing_behind()


@pytest.mark.parametrize(
    ("step", "traces"), [("VACUUM", True), ("UPDATE position", True), ("PRAGMA wal_checkpoint", False)]
)
def test_whoever_writes_the_file_anew_may_be_killed(persons: Persons, step: str, traces: bool) -> None:
    persons.fill(20)
    persons.request("K-3")
    persons.seal()
    before = {**persons.index_content(), "position": None}

    def die(statement: str) -> None:
        if statement.startswith(step):
            os.kill(os.getpid(), signal.SIGKILL)

    def run() -> None:
        with Index(persons.ledger) as index:
            index._database.set_trace_callback(die)
            index.leave_nothing_behind()

    assert not reap(fork(run)), "it was killed"
    with Index(persons.ledger) as index:
        assert index.has_traces() == traces
        assert index.leave_nothing_behind()
        assert not index.has_traces()
        assert (persons.ledger / "index.db-wal").stat().st_size == 0
    assert {**persons.index_content(), "position": None} == before
    assert secret_of("K-3").encode() not in (persons.ledger / "index.db").read_bytes()


def test_several_processes_catch_up_together(tmp_path: Path) -> None:
    write_segment(tmp_path, 9_000, group=500)
    seal(tmp_path)

    def catch_up() -> None:
        with Index(tmp_path) as index:
            index.catch_up(Log(tmp_path))

    children = [fork(catch_up) for _ in range(3)]
    assert all(reap(child) for child in children)
    with Index(tmp_path) as index:
        assert index.size == 9_000
        assert index.counts(NAME).decisions == {"answered": 9_000}
