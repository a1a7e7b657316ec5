from __future__ import annotations

import os
import random
import shutil
from typing import TYPE_CHECKING

import pytest

from ledger.persons import NAME, Persons, sought
from ledger.test_retention import Declared, ago, keep
from mainstay.errors import Damaged, Failed, Misuse
from mainstay.ledger.archive import Archivist
from mainstay.ledger.archives import Archived, load_archives
from mainstay.ledger.find import find_entry
from mainstay.ledger.index import Index
from mainstay.ledger.log import Log
from mainstay.ledger.state import load_state
from mainstay.ledger.verify import Report, verify_ledger
from mainstay.ledger.wal import segments

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def persons(tmp_path: Path) -> Iterator[Persons]:
    persons = Persons(tmp_path / "w")
    yield persons
    persons.writer.segment.abandon()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "archive"


def archivist(persons: Persons) -> Archivist:
    return Archivist(persons.workspace, persons.key, persons.hand(), "os:ops")


def decide(persons: Persons, count: int) -> list[str]:
    """Decisions about ten persons that nobody waits for, and that are sealed."""
    ids = [persons.decide(f"K-{number % 10}", at=ago(100 - number / 100)) for number in range(count)]
    persons.leave_segment()
    persons.seal()
    return ids


def check(persons: Persons, directory: Path) -> Report:
    return verify_ledger(directory, persons.key.verifier)


def everything_below(directory: Path) -> dict[str, tuple[int, int]]:
    paths = sorted(directory.rglob("*"))
    return {str(path.relative_to(directory)): (path.stat().st_mtime_ns, path.stat().st_size) for path in paths}


def test_an_archive_verifies_alone_and_nothing_is_written_to_it(persons: Persons, place: Path) -> None:
    decide(persons, 700)
    made = archivist(persons).make(place)
    assert (made.departure.first, made.departure.size) == (0, 512)
    copy = place.parent / "copy"
    shutil.copytree(place, copy)
    shutil.rmtree(persons.ledger)
    before = everything_below(copy)
    report = check(persons, copy)
    assert report.ok, report.findings
    assert report.size == 512
    assert report.archive is not None
    assert "an archive of the entries 0 to 511" in report.lines()
    assert everything_below(copy) == before


def test_an_archive_is_a_log_that_the_ledger_extends(persons: Persons, place: Path) -> None:
    decide(persons, 700)
    archivist(persons).make(place)
    decide(persons, 300)
    kept = (place / "checkpoint").read_bytes()
    assert verify_ledger(persons.ledger, persons.key.verifier, kept_checkpoint=kept).ok
    archive = Log(place)
    assert list(archive.leaves(0, 512)) == list(persons.log.leaves(0, 512))
    assert archive.inclusion_proof(3, 512) == persons.log.inclusion_proof(3, 512)


def test_entries_that_leave_leave_their_hashes(persons: Persons, place: Path) -> None:
    ids = decide(persons, 700)
    proof = persons.log.inclusion_proof(600, persons.log.size - 1)
    made = archivist(persons).make(place, remove=True)
    assert made.departure.remove
    assert persons.log.inclusion_proof(600, 701) == proof
    report = persons.verify()
    assert report.ok, report.findings
    assert f"entries 0 to 511 are archived at {place}; their hashes verify" in report.lines()
    assert report.unreferenced == 0
    assert not (persons.ledger / "tile" / "entries" / "000").exists()
    assert not (persons.ledger / "bodies" / "001").exists()
    assert find_entry(persons.ledger, ids[600]) is not None
    with pytest.raises(Archived, match=f"archived at {place}") as caught:
        find_entry(persons.ledger, ids[3])
    assert caught.value.gone.size == 512
    decide(persons, 300)
    assert persons.verify().ok


def test_the_index_goes_on_as_it_was(persons: Persons, place: Path) -> None:
    decide(persons, 700)
    with Index(persons.ledger) as index:
        before = index.counts(NAME), index.decisions_by_key(NAME, "K-3")
        joined = len(list(index.joined(NAME)))
    archivist(persons).make(place, remove=True)
    with Index(persons.ledger) as index:
        index.catch_up(persons.log)
        assert (index.counts(NAME), index.decisions_by_key(NAME, "K-3")) == before
        assert len(list(index.joined(NAME))) == joined


def test_an_index_is_made_anew_from_the_archive_and_never_without(persons: Persons, place: Path) -> None:
    decide(persons, 700)
    archivist(persons).make(place, remove=True)
    in_parts = persons.index_content()
    with Index(persons.ledger) as index:
        index.begin_again()
    assert persons.index_content() == in_parts
    moved = place.with_name("moved")
    place.rename(moved)
    with Index(persons.ledger) as index:
        index.begin_again()
        with pytest.raises(Failed, match="needed to make the index anew") as caught:
            index.catch_up(persons.log)
        assert "reindex --archive" in caught.value.hint
        assert index.size == 0
        index.catch_up(persons.log, [moved])
    assert persons.index_content() == in_parts


def test_what_an_index_takes_from_an_archive_that_was_not_brought_up_to_date_leaves_no_traces(
    persons: Persons, place: Path
) -> None:
    decide(persons, 700)
    archivist(persons).make(place, remove=True)
    persons.erase("K-3")
    in_parts = persons.index_content()
    assert [path for path in place.rglob("*") if path.is_file() and b"secret of 3." in path.read_bytes()]
    with Index(persons.ledger) as index:
        index.begin_again()
        index.catch_up(persons.log)
        assert index.has_traces()
    persons.turns()
    assert persons.index_content() == in_parts
    assert persons.files_with("secret of 3.") == []


@pytest.mark.parametrize("folder", ["bodies", "tile/entries"])
def test_an_index_is_not_made_from_an_archive_that_was_changed(persons: Persons, place: Path, folder: str) -> None:
    decide(persons, 300)
    archivist(persons).make(place, remove=True)
    path = place / folder / "000"
    path.write_bytes(
        path.read_bytes().replace(b"answered", b"Answered", 1).replace(b"secret of 3.", b"secret of 4.", 1)
    )
    with Index(persons.ledger) as index:
        index.begin_again()
        with pytest.raises(Damaged, match="as it left this log"):
            index.catch_up(persons.log)


def test_one_archive_follows_the_other(persons: Persons, place: Path) -> None:
    decide(persons, 700)
    second = place.with_name("second")
    archivist(persons).make(place, entries=300, remove=True)
    decide(persons, 400)
    made = archivist(persons).make(second, remove=True)
    assert (made.departure.first, made.departure.size) == (256, 1_024)
    assert [each.place for each in load_archives(persons.ledger)] == [str(place), str(second)]
    report = check(persons, second)
    assert report.ok, report.findings
    assert "an archive of the entries 256 to 1,023" in report.lines()
    assert persons.verify().ok
    in_parts = persons.index_content()
    with Index(persons.ledger) as index:
        index.begin_again()
    assert persons.index_content() == in_parts


def test_entries_before_a_time_are_archived(persons: Persons, place: Path) -> None:
    decide(persons, 900)  # a hundred a day
    made = archivist(persons).make(place, before=ago(100 - 6))
    assert made.departure.size == 512
    with pytest.raises(Misuse, match="nothing to archive"):
        archivist(persons).make(place.with_name("other"), before=ago(99))


def test_what_is_there_already_is_not_overwritten(persons: Persons, place: Path) -> None:
    decide(persons, 300)
    place.mkdir()
    (place / "notes.txt").write_text("mine")
    with pytest.raises(Misuse, match=r"found notes\.txt"):
        archivist(persons).make(place)
    with pytest.raises(Misuse, match="inside the ledger"):
        archivist(persons).make(persons.ledger / "archive")
    (place / "notes.txt").unlink()
    archivist(persons).make(place)
    with pytest.raises(Misuse, match="whole bundle"):
        archivist(persons).make(place.with_name("other"), entries=200)


def test_an_archive_of_another_log_is_refused(persons: Persons, place: Path, tmp_path: Path) -> None:
    decide(persons, 300)
    archivist(persons).make(place)
    other = Persons(tmp_path / "other")
    decide(other, 300)
    with pytest.raises(Damaged, match="expected a signature"):
        archivist(other).make(place)
    other.writer.segment.abandon()


def test_nothing_leaves_that_waits_for_a_person(persons: Persons, place: Path) -> None:
    decide(persons, 300)
    waiting = persons.decide("K-1", outcome="review")
    decide(persons, 300)
    with pytest.raises(Misuse, match="waits for a person") as caught:
        archivist(persons).make(place, remove=True)
    assert "--entries 256" in caught.value.hint
    assert not place.exists()
    persons.resolve(waiting, "K-1")
    persons.leave_segment()
    archivist(persons).make(place, remove=True)
    assert persons.verify().ok


def test_any_changed_byte_of_an_archive_is_found(persons: Persons, place: Path) -> None:
    decide(persons, 300)
    persons.erase("K-3")
    archivist(persons).make(place)
    rng = random.Random(11)
    files = sorted(path for path in place.rglob("*") if path.is_file())
    assert {path.name for path in files} >= {"checkpoint", "archive.json", "erasures.jsonl"}
    for path in files * 3:
        content = path.read_bytes()
        at = rng.randrange(len(content))
        path.write_bytes(content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :])
        report = check(persons, place)
        assert not report.ok, (path, at)
        path.write_bytes(content)
    for path in files:
        kept = path.read_bytes()
        path.unlink()
        assert not check(persons, place).ok, path
        path.write_bytes(kept)
    assert check(persons, place).ok


def test_entries_that_are_gone_on_nobodys_word_are_found(persons: Persons, place: Path) -> None:
    decide(persons, 700)
    archivist(persons).make(place, entries=300, remove=True)
    file = persons.ledger / "archives.json"
    said = file.read_text()
    file.unlink()
    assert not persons.verify().ok
    for old, new in (('"size": 256', '"size": 512'), (str(place), "/elsewhere"), ('"first": 0', '"first": 1')):
        assert old in said
        file.write_text(said.replace(old, new))
        report = persons.verify()
        assert any(finding.file == "archives.json" for finding in report.findings), (old, report.findings)
    file.write_text(said)
    assert persons.verify().ok


def test_a_hash_of_what_has_left_is_still_checked(persons: Persons, place: Path) -> None:
    decide(persons, 700)
    archivist(persons).make(place, remove=True)
    path = persons.ledger / "tile" / "0" / "001"
    content = bytearray(path.read_bytes())
    content[40] ^= 1
    path.write_bytes(content)
    findings = persons.verify().findings
    assert findings[0].file == "tile/0/001"


# Erased before, while and after.


def test_bodies_that_were_erased_are_empty_in_the_archive_with_proofs_why(persons: Persons, place: Path) -> None:
    decide(persons, 600)
    persons.erase("K-3")
    archivist(persons).make(place)
    report = check(persons, place)
    assert report.ok, report.findings
    assert report.erased == len([body for body in list(Log(place).entries(0, 512)) if not body.salt]) == 51
    lines = (place / "erasures.jsonl").read_bytes().splitlines()
    assert len(lines) == 2
    (place / "erasures.jsonl").write_bytes(lines[0] + b"\n")
    assert "no entry of the log says so" in check(persons, place).findings[0].what


def test_what_is_erased_while_it_is_copied_is_erased_in_the_copy(persons: Persons, place: Path) -> None:
    decide(persons, 600)
    erased = False

    def erase_in_the_middle(done: int, total: int) -> None:
        nonlocal erased
        if not erased and 0 < done < total:
            erased = True
            persons.erase("K-3")

    archivist(persons).make(place, remove=True, progress=erase_in_the_middle)
    assert erased
    assert check(persons, place).ok
    assert not [path for path in place.rglob("*") if path.is_file() and b"secret of 3." in path.read_bytes()]
    assert persons.verify().ok


def test_what_is_erased_later_is_erased_in_the_archive_when_it_is_updated(persons: Persons, place: Path) -> None:
    decide(persons, 600)
    archivist(persons).make(place, remove=True)
    found = persons.desk().find(sought("K-3"))
    assert found.kinds == {"archived": 51, "decision": 9}
    ((_, receipt),) = persons.erase("K-3")
    assert receipt.done.bodies == 9
    assert [(each.place, each.size) for each in receipt.done.archives] == [(str(place), 512)]
    assert persons.verify().ok
    assert check(persons, place).ok
    updated = archivist(persons).update(place)
    assert updated.bodies == 51
    assert updated.report.erased == 51
    assert not [path for path in place.rglob("*") if path.is_file() and b"secret of 3." in path.read_bytes()]
    assert archivist(persons).update(place).bodies == 0
    in_parts = persons.index_content()
    with Index(persons.ledger) as index:
        index.begin_again()
    assert {**persons.index_content(), "kept": None} == {**in_parts, "kept": None}
    with pytest.raises(Misuse, match="expected an archive"):
        archivist(persons).update(place.parent)


def test_retention_reaches_an_archive_that_is_updated(persons: Persons, place: Path) -> None:
    decide(persons, 600)
    archivist(persons).make(place, remove=True)
    keep(persons, Declared(late_arrival=30))
    assert persons.verify().ok
    updated = archivist(persons).update(place)
    assert updated.bodies == 510, "all but the two changes that made the workspace"
    assert updated.report.ok


# Killed, and lost.


def test_a_killed_archivist_is_gone_on_with(persons: Persons, place: Path) -> None:
    decide(persons, 600)

    def stop(_: int, __: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        archivist(persons).make(place, progress=stop)
    assert not check(persons, place).ok
    made = archivist(persons).make(place, remove=True)
    assert archivist(persons).make(place, remove=True).entry == made.entry
    assert archivist(persons).make(place) == made, "they have left already"
    assert persons.verify().ok


def test_a_sealer_that_lost_its_state_seals_nothing_twice(persons: Persons, place: Path) -> None:
    ids = decide(persons, 600)
    persons.decide("K-1")
    persons.flush()
    persons.seal()
    assert segments(persons.ledger / "wal")
    archivist(persons).make(place, remove=True)
    (persons.ledger / "sealer.json").unlink()
    persons.decide("K-2")
    persons.seal()
    state = load_state(persons.ledger)
    assert state is not None
    with Index(persons.ledger) as index:
        assert index.find(ids[-1]) is not None
        assert sum(index.counts(NAME).decisions.values()) == 602
    report = persons.verify()
    assert report.ok, report.findings


def test_entries_leave_only_when_no_segment_holds_them(
    persons: Persons, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mainstay.ledger.steward.WAIT_SECONDS", 0.3)
    for number in range(300):
        persons.decide(f"K-{number}")
    persons.seal()
    with pytest.raises(Failed, match="has not left its segment"):
        archivist(persons).make(place, remove=True)
    assert persons.verify().ok
    assert (persons.ledger / "bodies" / "000").exists()
    persons.leave_segment()
    persons.turns()
    assert not (persons.ledger / "bodies" / "000").exists()
    assert persons.verify().ok


def test_a_place_that_cannot_be_written_down_is_refused(persons: Persons, tmp_path: Path) -> None:
    decide(persons, 300)
    with pytest.raises(Misuse, match="UTF-8"):
        archivist(persons).make(tmp_path / os.fsdecode(b"\xff"))
