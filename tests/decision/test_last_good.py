from __future__ import annotations

import stat
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mainstay.decision.last_good import MAX_OUTPUT_BYTES, SETS, SLOT_BYTES, WAYS, LastGood

if TYPE_CHECKING:
    from pathlib import Path

HOUR_MS = 3_600_000
OUTPUT = b'{"p":0.25}'
HEAD_BYTES = SLOT_BYTES - MAX_OUTPUT_BYTES


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tiny.table"


def test_the_last_answer_for_a_key_is_given_back_until_it_is_too_old(path: Path) -> None:
    table = LastGood(path, "c")
    table.put(b'"a"', b'{"p":1}', 1_000)
    table.put(b'"a"', b'{"p":2}', 2_000)
    assert table.get(b'"a"', 3_000, 1_000) == b'{"p":2}'
    assert table.get(b'"a"', 3_001, 1_000) is None
    assert table.get(b'"b"', 2_000, HOUR_MS) is None


def test_other_processes_and_later_ones_know_it(path: Path) -> None:
    LastGood(path, "c").put(b"k", b"1", 5)
    assert LastGood(path, "c").get(b"k", 6, HOUR_MS) == b"1"
    first, second = LastGood(path, "c"), LastGood(path, "c")
    second.put(b"k", b"2", 7)
    assert first.get(b"k", 8, HOUR_MS) == b"2"


def test_what_was_answered_under_another_contract_is_not_given(path: Path) -> None:
    LastGood(path, "one").put(b"k", b"1", 5)
    assert LastGood(path, "two").get(b"k", 6, HOUR_MS) is None


def test_an_output_too_long_for_a_slot_is_not_kept(path: Path) -> None:
    table = LastGood(path, "c")
    table.put(b"k", b"x" * MAX_OUTPUT_BYTES, 1)
    assert table.get(b"k", 1, HOUR_MS) == b"x" * MAX_OUTPUT_BYTES
    table.put(b"l", b"x" * (MAX_OUTPUT_BYTES + 1), 1)
    assert table.get(b"l", 1, HOUR_MS) is None


def test_the_table_never_grows_and_the_oldest_of_a_set_gives_way(path: Path) -> None:
    table = LastGood(path, "c")
    for number in range(20_000):
        table.put(b"%d" % number, b"%d" % number, number + 1)
    assert path.stat().st_size == SETS * WAYS * SLOT_BYTES
    found = [table.get(b"%d" % number, 20_001, HOUR_MS) for number in range(20_000)]
    assert all(output in {None, b"%d" % number} for number, output in enumerate(found))
    assert sum(output is not None for output in found[-1_000:]) == 1_000


def test_only_its_owner_may_read_it(path: Path) -> None:
    LastGood(path, "c")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_slot_that_was_damaged_counts_as_absent(path: Path, data: st.DataObject) -> None:
    path.unlink(missing_ok=True)
    table = LastGood(path, "c")
    table.put(b"k", OUTPUT, 77)
    slot = path.read_bytes().find(OUTPUT) - HEAD_BYTES
    place = slot + data.draw(st.integers(0, HEAD_BYTES + len(OUTPUT) - 1))
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0] ^ data.draw(st.integers(1, 255))
        file.seek(place)
        file.write(bytes([byte]))
    assert LastGood(path, "c").get(b"k", 78, HOUR_MS) is None


def hammer(path: Path, writer: int) -> int:
    """Write and read the same few keys as other processes do; how many answers were not one that somebody wrote."""
    table = LastGood(path, "c")
    wrong = 0
    for turn in range(5_000):
        key = b"%d" % (turn % 3)
        table.put(key, b"%b:" % key + b"%d" % writer * 100, turn + 1)
        found = table.get(key, turn + 1, HOUR_MS)
        wrong += found is not None and (not found.startswith(key + b":") or len(set(found[len(key) + 1 :])) != 1)
    return wrong


def test_processes_that_write_the_same_slots_at_once_never_give_a_mixture(path: Path) -> None:
    LastGood(path, "c")
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as pool:
        assert sum(pool.map(hammer, [path] * 3, range(3))) == 0
