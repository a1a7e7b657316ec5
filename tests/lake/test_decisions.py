from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lake.ledgers import DIGESTS, content, expected_sequences, exporter, sequences
from ledger.samples import Writer, seal
from mainstay.errors import Failed
from mainstay.lake import decisions
from mainstay.lake.decision_rows import DAY, DECISIONS, SCHEMAS
from mainstay.lake.decisions import EXPORTS, Exporter, lag
from mainstay.lake.lagging import Lag
from mainstay.lake.lake import Lake
from mainstay.ledger.archives import Gone, save_archives
from mainstay.ledger.log import Log

if TYPE_CHECKING:
    from pathlib import Path


class World:
    """A ledger that grows, and a lake."""

    def __init__(self, directory: Path) -> None:
        self.ledger = directory / "ledger"
        self.lake = Lake(directory / "lake")
        self.grown = 0

    def grow(self, count: int, capability: str = "late-arrival") -> None:
        """Seal some entries more: of five, two are decisions, and one each an outcome, a change and of a shadow."""
        writer = Writer(self.ledger)
        shadow = {"kind": "shadow", "decision_id": "d", "outcome": "fallback"}
        kinds: list[dict[str, Any]] = [{}, {"kind": "outcome"}, {}, {"kind": "change", "action": "x"}, shadow]
        for place in range(count):
            fields = kinds[(self.grown + place) % 5]
            named = {} if "action" in fields else {"capability": capability}
            body = {"key": f"K-{place}", "decision_id": None, "outcome": 1, "observed_at": None, "output": {"n": place}}
            writer.append(1, body=body, **fields, **named)
        writer.segment.close()
        self.grown += count
        seal(self.ledger)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_every_sealed_decision_outcome_and_shadow_has_one_row_and_the_next_step_goes_on_behind(world: World) -> None:
    world.grow(10)
    done = exporter(world.ledger, world.lake).catch_up()
    assert done == (0, 10, 4, 2, 2, 0)
    assert sequences(world.lake) == expected_sequences(world.ledger)
    assert exporter(world.ledger, world.lake).catch_up() == (10, 10, 0, 0, 0, 0)
    world.grow(7, "other")
    assert exporter(world.ledger, world.lake).catch_up() == (10, 17, 3, 2, 1, 0)
    assert sequences(world.lake) == expected_sequences(world.ledger)
    assert sorted(content(world.lake)) == [
        "decisions/late-arrival",
        "decisions/other",
        "outcomes/late-arrival",
        "outcomes/other",
        "shadows/late-arrival",
        "shadows/other",
    ]


def test_rows_say_what_the_log_says(world: World) -> None:
    world.grow(20)
    exporter(world.ledger, world.lake).catch_up()
    log = Log(world.ledger)
    for row in content(world.lake)["decisions/late-arrival"]:
        entry = log.entry(row["sequence"])
        leaf, body = msgspec.json.decode(entry.leaf), msgspec.json.decode(entry.body)
        assert row["id"] == leaf["id"]
        assert row["leaf_hash"] == log.leaf_hash_at(row["sequence"]).hex()
        assert msgspec.json.decode(row["output"]) == body["output"]


@settings(max_examples=20)
@given(
    batches=st.lists(st.tuples(st.integers(1, 6), st.sampled_from(["late-arrival", "other"])), min_size=1, max_size=4),
    limits=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    deaths=st.lists(st.integers(0, 3), max_size=6),
)
def test_wherever_it_dies_between_commits_each_row_is_there_once(
    tmp_path_factory: pytest.TempPathFactory,
    batches: list[tuple[int, str]],
    limits: list[int],
    deaths: list[int],
) -> None:
    world = World(tmp_path_factory.mktemp("world"))

    class Killed(BaseException):
        pass

    with pytest.MonkeyPatch.context() as patch:
        real, left = decisions.Exporter._append, [0]

        def append(*arguments: Any) -> int:
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            return real(*arguments)

        patch.setattr(decisions.Exporter, "_append", append)
        for place, (count, capability) in enumerate(batches):
            world.grow(count, capability)
            left[0] = deaths.pop() if deaths else 0
            with contextlib.suppress(Killed):
                exporter(world.ledger, world.lake).step(limits[place % len(limits)])
    exporter(world.ledger, world.lake).catch_up()
    assert sequences(world.lake) == expected_sequences(world.ledger)


def test_two_exporters_with_other_batches_double_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.grow(12)
    ours = exporter(world.ledger, world.lake)
    ours.step(4)
    real = decisions.Exporter._read

    def slow(self: decisions.Exporter, first: int, last: int) -> object:
        batch = real(self, first, last)
        monkeypatch.setattr(decisions.Exporter, "_read", real)
        exporter(world.ledger, world.lake).step(6)  # the other one is quicker, and goes further
        return batch

    monkeypatch.setattr(decisions.Exporter, "_read", slow)
    with pytest.raises(Failed, match="expected ledger at 4"):
        ours.step(8)
    ours.catch_up()
    assert sequences(world.lake) == expected_sequences(world.ledger)


def test_steps_are_bounded_by_entries_and_by_bytes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.grow(10)
    assert exporter(world.ledger, world.lake).step(3)[:2] == (0, 3)
    monkeypatch.setattr(decisions, "BATCH_BYTES", 1)
    assert exporter(world.ledger, world.lake).step()[:2] == (3, 4)
    stops = iter([False, False, True])
    assert exporter(world.ledger, world.lake).catch_up(lambda: next(stops)).last == 7


def test_the_lag_is_what_the_tables_have_not_seen(world: World) -> None:
    assert lag(world.lake, world.ledger) == Lag(0, 0, 0.0)
    world.grow(10)
    found = lag(world.lake, world.ledger)
    assert found[:2] == (10, 0)
    assert found.seconds > 0
    exporter(world.ledger, world.lake).step(4)
    assert lag(world.lake, world.ledger)[:2] == (10, 4)
    exporter(world.ledger, world.lake).catch_up()
    assert lag(world.lake, world.ledger) == Lag(10, 10, 0.0)
    table = world.lake.table(EXPORTS).frame().sort("first").collect()
    assert table.select("first", "last", "decisions", "outcomes", "shadows").rows() == [
        (0, 4, 2, 1, 0),
        (4, 10, 2, 1, 2),
    ]


def test_a_lake_of_another_log_is_refused(world: World, tmp_path: Path) -> None:
    world.grow(6)
    exporter(world.ledger, world.lake).catch_up()
    other = World(tmp_path / "other")
    with pytest.raises(Failed, match="a log that is not this one"):
        exporter(other.ledger, world.lake).step()
    other.grow(8)
    with pytest.raises(Failed, match="move the tables exports"):
        exporter(other.ledger, world.lake).step()
    assert sequences(world.lake) == expected_sequences(world.ledger)


def test_entries_that_left_with_an_archive_are_passed_over(world: World) -> None:
    world.grow(10)
    gone = Gone(sequence=9, at="2026-01-01T00:00:00.000000Z", first=0, size=4, place="elsewhere")
    save_archives(world.ledger, [gone])
    exporter(world.ledger, world.lake).catch_up()
    assert sequences(world.lake) == [sequence for sequence in expected_sequences(world.ledger) if sequence >= 4]
    assert lag(world.lake, world.ledger) == Lag(10, 10, 0.0)


def test_an_empty_ledger_is_nothing_to_export(world: World) -> None:
    assert exporter(world.ledger, world.lake).catch_up() == (0, 0, 0, 0, 0, 0)


def test_a_capability_whose_name_no_table_can_have_is_told_and_passed_over(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.grow(4, "../escape")
    world.grow(4)
    exporter(world.ledger, world.lake).catch_up()
    assert "not exported: 2 rows of a capability called '../escape'" in caplog.text
    assert sequences(world.lake) == [4, 5, 6, 7]


def test_a_table_that_another_engine_made_shorter_is_not_filled_again(world: World) -> None:
    world.grow(8)
    exporter(world.ledger, world.lake).catch_up()
    table = world.lake.table("decisions/late-arrival")
    table.delta().delete("sequence = 0")
    world.grow(4)
    exporter(world.ledger, world.lake).catch_up()
    assert 0 not in sequences(world.lake)
    assert table.frame().select(pl.len()).collect().item() == 4


def test_a_table_that_an_older_release_made_gets_the_columns_it_lacks(world: World) -> None:
    newer = {"seconds", "call_size", *(name for name in SCHEMAS[DECISIONS] if name.startswith("source_"))}
    older = pl.Schema({name: kind for name, kind in SCHEMAS[DECISIONS].items() if name not in newer})
    world.lake.create("decisions/late-arrival", older, partition_by=[DAY])
    world.grow(4)
    exporter(world.ledger, world.lake).catch_up()
    assert {*world.lake.table("decisions/late-arrival").schema} == {*SCHEMAS[DECISIONS]}
    assert sequences(world.lake) == expected_sequences(world.ledger)


def test_whoever_asks_is_told_what_was_appended_and_of_nothing_twice(world: World) -> None:
    world.grow(8)
    told: list[tuple[str, int]] = []
    made = Exporter(world.lake, world.ledger, DIGESTS, lambda table, rows: told.append((table.name, rows)))
    made.catch_up()
    made.catch_up()
    assert sorted(told) == [("decisions/late-arrival", 4), ("outcomes/late-arrival", 2), ("shadows/late-arrival", 1)]
