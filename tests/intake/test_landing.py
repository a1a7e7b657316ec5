from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
import pytest

from mainstay.errors import Damaged, Misuse
from mainstay.intake.landing import Item, Landing, Noticed, landing_of

if TYPE_CHECKING:
    from pathlib import Path


def put(landing: Landing, content: bytes, cursor: object = None) -> Item:
    with landing.begin("jsonl") as draft:
        draft.file.write(content)
        return draft.land(origin="a test", cursor=cursor, noticed=(Noticed("source_slow", "2 s"),))


def test_an_item_is_read_back_as_it_landed(tmp_path: Path) -> None:
    landing = Landing(tmp_path / "landing")
    item = put(landing, b'{"id": 1}\n', {"page": 2})
    (found,) = landing.waiting()
    assert found == item
    assert (found.number, found.kind, found.bytes, found.cursor) == (1, "jsonl", 10, {"page": 2})
    assert landing.path(found).read_bytes() == b'{"id": 1}\n'


def test_a_place_where_nothing_landed_is_empty(tmp_path: Path) -> None:
    landing = Landing(tmp_path / "landing")
    assert landing.waiting() == []
    landing.sweep(reached=9)
    assert not landing.folder.exists()


def test_nothing_remains_of_a_draft_that_does_not_land(tmp_path: Path) -> None:
    def give_up() -> None:
        with Landing(tmp_path).begin("csv") as draft:
            draft.file.write(b"a,b\n")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        give_up()
    assert list(tmp_path.iterdir()) == []


def test_others_may_write_the_file_of_a_draft(tmp_path: Path) -> None:
    landing = Landing(tmp_path)
    with landing.begin("parquet") as draft:
        draft.path.write_bytes(b"PAR1")
        item = draft.land(origin="a test")
    assert landing.path(item).read_bytes() == b"PAR1"
    assert item.bytes == 4


def test_numbers_go_on_after_items_were_dropped_and_from_what_the_tables_have(tmp_path: Path) -> None:
    landing = Landing(tmp_path)
    landing.drop(put(landing, b"1\n"))
    assert put(landing, b"2\n").number == 2
    landing.reserve(reached=40)
    landing.reserve(reached=7)
    assert put(landing, b"3\n").number == 41


def test_a_lost_counter_is_made_again_from_the_items_and_the_tables(tmp_path: Path) -> None:
    landing = Landing(tmp_path)
    put(landing, b"1\n")
    (tmp_path / "next").unlink()
    assert put(landing, b"2\n").number == 2


def test_a_counter_that_is_no_number_is_damage(tmp_path: Path) -> None:
    landing = Landing(tmp_path)
    put(landing, b"1\n")
    (tmp_path / "next").write_bytes(b"many")
    with pytest.raises(Damaged, match="the number of the next item"):
        put(landing, b"2\n")


def test_a_manifest_that_cannot_be_read_is_damage(tmp_path: Path) -> None:
    landing = Landing(tmp_path)
    put(landing, b"1\n")
    (tmp_path / "000000000001.json").write_bytes(b"{")
    with pytest.raises(Damaged, match="the manifest of an item"):
        landing.waiting()


def test_sweeping_removes_what_the_tables_have_and_what_was_never_finished(tmp_path: Path) -> None:
    landing = Landing(tmp_path)
    put(landing, b"1\n")
    kept = put(landing, b"2\n")
    (tmp_path / "000000000003.jsonl").write_bytes(b"without a manifest")
    fresh, old = tmp_path / ".draft-fresh.csv", tmp_path / ".draft-old.csv"
    for path in (fresh, old):
        path.touch()
    os.utime(old, (time.time() - 90_000,) * 2)
    landing.sweep(reached=1)
    assert landing.waiting() == [kept]
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"000000000002.json", "000000000002.jsonl", ".draft-fresh.csv", "next", "landing.lock"}


def test_many_may_land_at_once_and_each_item_has_a_number_of_its_own(tmp_path: Path) -> None:
    landing = Landing(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        items = list(pool.map(lambda i: put(Landing(tmp_path), f"{i}\n".encode()), range(64)))
    assert sorted(item.number for item in items) == list(range(1, 65))
    assert {landing.path(item).read_bytes() for item in landing.waiting()} == {f"{i}\n".encode() for i in range(64)}


def test_the_folder_of_a_source_stays_in_the_data_directory(tmp_path: Path) -> None:
    assert landing_of(tmp_path, "lending", "orders").folder == tmp_path / "intake" / "lending" / "orders" / "landing"
    for capability, source in (("..", "orders"), ("a/b", "orders"), ("lending", "../x")):
        with pytest.raises(Misuse):
            landing_of(tmp_path, capability, source)


LANDS = """
    import sys
    from pathlib import Path
    from mainstay.intake.landing import Landing

    landing = Landing(Path(sys.argv[1]))
    number = int(sys.argv[2])
    print("ready", flush=True)
    while True:
        number += 1
        with landing.begin("jsonl") as draft:
            draft.file.write(b"%d\\n" % number)
            draft.land(origin="a test", cursor=number)
        print(number, flush=True)
"""


@pytest.mark.acceptance
def test_whoever_is_killed_while_landing_leaves_whole_items_in_order(tmp_path: Path) -> None:
    landing = Landing(tmp_path)
    reached = 0
    for round_ in range(12):
        script = [sys.executable, "-c", textwrap.dedent(LANDS), str(tmp_path), str(reached)]
        with subprocess.Popen(script, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(0.003 * (round_ + 1))
            process.send_signal(signal.SIGKILL)
            told = [int(line) for line in process.stdout.read().split("\n") if line]
        items = landing.waiting()
        reached = items[-1].cursor if items else reached
        assert [item.cursor for item in items] == list(range(1, len(items) + 1))
        assert all(landing.path(item).read_bytes() == f"{item.cursor}\n".encode() for item in items)
        assert reached >= max(told, default=0), "what was told to have landed is there"
        landing.sweep(reached=0)


def test_the_number_of_an_item_that_is_gone_is_given_to_no_other(tmp_path: Path) -> None:
    landing = Landing(tmp_path)
    item = put(landing, b"1\n")
    (tmp_path / "next").unlink()  # as when whoever landed it was killed before the counter said so
    landing.drop(item)
    assert put(landing, b"2\n").number == 2


def test_a_prepared_manifest_leaves_its_file_when_its_item_lands(tmp_path: Path) -> None:
    landing = Landing(tmp_path / "landing")
    put(landing, b"1\n")
    data, manifest = tmp_path / "data", tmp_path / "manifest"
    data.write_bytes(b"2\n")
    with landing.numbering() as number:
        made = Item(number=number, kind="jsonl", origin="a test", arrived_at=datetime.now(UTC), bytes=2)
        manifest.write_bytes(msgspec.json.encode(made))
        landing.place_prepared(made, data, manifest)
    assert landing.waiting()[1] == made
    assert landing.path(made).read_bytes() == data.read_bytes() == b"2\n"
    assert not manifest.exists()
    landing.drop(made)
    assert data.read_bytes() == b"2\n"
    assert put(landing, b"3\n").number == 3


def test_an_item_that_is_dropped_while_items_are_listed_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    landing = Landing(tmp_path / "landing")
    first, second = put(landing, b"a"), put(landing, b"b")
    listed = landing._numbers()
    landing.drop(first)
    monkeypatch.setattr(landing, "_numbers", lambda: listed)
    assert landing.waiting() == [second]
