from __future__ import annotations

import os
import random
import shutil
from typing import TYPE_CHECKING

import pytest

from ledger.samples import KEY, ORIGIN, Writer, check, make_entry, seal, write_segment
from mainstay.ledger.entry import EntryId, format_id, leaf_hash
from mainstay.ledger.findings import MAX_FINDINGS
from mainstay.ledger.merkle import HASH_BYTES
from mainstay.ledger.note import Checkpoint, sign_checkpoint
from mainstay.ledger.seen import MAX_SUSPECTS, Seen, SeenIds
from mainstay.ledger.tiles import pack_leaf, split_leaves
from mainstay.ledger.verify import verify_ledger
from mainstay.ledger.wal import Segment, SegmentReader, frame_entry, segments
from mainstay.signing import create_signing_key

if TYPE_CHECKING:
    from pathlib import Path

FULL = ["tile/entries/000", "tile/0/000", "bodies/000"]
PARTIAL = ["tile/entries/002.p/138", "tile/0/002.p/138", "tile/1/000.p/2", "bodies/002"]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """650 entries sealed in two passes, and two segments that are not: one closed, one whose writer was killed."""
    ledger = tmp_path_factory.mktemp("pristine")
    write_segment(ledger, 530)
    seal(ledger)
    write_segment(ledger, 120)
    seal(ledger)
    write_segment(ledger, 12, group=4)
    write_segment(ledger, 12, group=4, close=False)
    return ledger


@pytest.fixture
def ledger(pristine: Path, tmp_path: Path) -> Path:
    return shutil.copytree(pristine, tmp_path / "ledger")


def evidence(ledger: Path) -> list[Path]:
    """Every file that is evidence."""
    found = (path for path in sorted(ledger.rglob("*")) if path.is_file())
    return [path for path in found if not path.name.startswith("index.db") and path.name != "sealer.lock"]


def flip(path: Path, offset: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1 << bit
    path.write_bytes(content)


def test_a_ledger_as_it_was_written_verifies(ledger: Path) -> None:
    calls: list[tuple[int, int]] = []
    report = check(ledger, progress=lambda done, total: calls.append((done, total)))
    assert report.ok
    assert report.complete
    assert (report.size, report.unsealed, report.torn, report.unreferenced) == (650, 24, [], 0)
    assert report.kinds == {"decision": 650}
    assert report.checkpoint_at is not None
    assert calls[-1] == (650, 650)
    assert report.lines()[-1] == "the ledger verifies"


def test_an_empty_ledger_and_one_never_sealed_verify(tmp_path: Path) -> None:
    assert check(tmp_path).ok
    write_segment(tmp_path, 3)
    assert (check(tmp_path).ok, check(tmp_path).unsealed) == (True, 3)
    shutil.rmtree(tmp_path / "wal")
    seal(tmp_path)
    assert (check(tmp_path).ok, check(tmp_path).size) == (True, 0)


def last_group(path: Path) -> int:
    """Where the last group of a segment begins that has entries."""
    ends = [group.end for group in SegmentReader(path).groups()]
    return ends[-2]


def test_any_flipped_bit_of_any_evidence_is_found_and_its_file_is_named(ledger: Path) -> None:
    rng = random.Random(2013)
    files = evidence(ledger)
    for _ in range(400):
        path = rng.choice(files)
        offset, bit = rng.randrange(path.stat().st_size), rng.randrange(8)
        flip(path, offset, bit)
        report = check(ledger)
        name = str(path.relative_to(ledger))
        assert name in {finding.file for finding in report.findings}, (name, offset, bit, report.findings)
        flip(path, offset, bit)
    assert check(ledger).ok


def test_bits_all_over_a_small_log_are_checked(tmp_path: Path) -> None:
    write_segment(tmp_path, 1)
    seal(tmp_path)
    for path in evidence(tmp_path):
        if path.parent == tmp_path:  # the checkpoint and the state have this test of their own
            continue
        for at in range(0, path.stat().st_size * 8, 5):
            flip(path, at // 8, at % 8)
            assert str(path.relative_to(tmp_path)) in {finding.file for finding in check(tmp_path).findings}, (path, at)
            flip(path, at // 8, at % 8)


@pytest.mark.parametrize("name", [*FULL, *PARTIAL, "checkpoint", "sealer.json"])
def test_a_missing_or_shortened_file_is_found(ledger: Path, name: str) -> None:
    path = ledger / name
    content = path.read_bytes()
    for damaged in (None, b"", content[:-1], content[: len(content) // 2], content + b"x"):
        path.unlink(missing_ok=True)
        if damaged is not None:
            path.write_bytes(damaged)
        report = check(ledger)
        if damaged == content + b"x" and name == "bodies/002":
            assert report.ok  # a sealer may be appending to it just now
        else:
            assert name in {finding.file for finding in report.findings}, (name, damaged, report.findings)


@pytest.mark.parametrize(("one", "other"), [("entries/000", "entries/001"), ("0/000", "0/001")])
def test_files_in_each_others_place_are_found(ledger: Path, one: str, other: str) -> None:
    first, second = (ledger / "tile" / one), (ledger / "tile" / other)
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    files = {finding.file for finding in check(ledger).findings}
    assert {f"tile/{one}", f"tile/{other}"} <= files


def test_bodies_in_each_others_place_are_found(ledger: Path) -> None:
    first, second = ledger / "bodies" / "000", ledger / "bodies" / "001"
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    assert [finding.sequence for finding in check(ledger).findings] == [0, 256]


def test_entries_in_another_order_are_found(ledger: Path) -> None:
    path = ledger / "tile" / "entries" / "001"
    leaves = split_leaves(path.read_bytes(), 256)
    leaves[7], leaves[9] = leaves[9], leaves[7]
    path.write_bytes(b"".join(map(pack_leaf, leaves)))
    assert [(finding.file, finding.sequence) for finding in check(ledger).findings] == [("tile/entries/001", 256 + 7)]


def test_of_an_entry_and_its_hash_the_wrong_one_is_named(ledger: Path) -> None:
    path = ledger / "tile" / "entries" / "001"
    content = path.read_bytes()
    offset = sum(2 + len(leaf) for leaf in split_leaves(content, 99))
    flip(path, offset + 40)
    (finding,) = check(ledger).findings
    assert (finding.file, finding.sequence, finding.offset) == ("tile/entries/001", 256 + 99, offset)
    path.write_bytes(content)
    flip(ledger / "tile" / "0" / "001", 99 * HASH_BYTES + 5)
    (finding,) = check(ledger).findings
    assert (finding.file, finding.sequence, finding.offset) == ("tile/0/001", 256 + 99, 99 * HASH_BYTES + 5)


def test_an_entry_changed_together_with_its_hash_is_found(ledger: Path) -> None:
    entries, tile = ledger / "tile" / "entries" / "001", ledger / "tile" / "0" / "001"
    flip(entries, 60)
    leaf = split_leaves(entries.read_bytes(), 1)[0]
    tile.write_bytes(leaf_hash(leaf) + tile.read_bytes()[HASH_BYTES:])
    (finding,) = (each for each in check(ledger).findings if each.file.startswith("tile/0"))
    assert "changed alike" in finding.what


def test_a_wrong_hash_at_the_edge_of_an_upper_level_is_named(ledger: Path) -> None:
    flip(ledger / "tile" / "1" / "000.p" / "2", 40)
    (finding,) = check(ledger).findings
    assert (finding.file, finding.offset) == ("tile/1/000.p/2", 40)


def test_a_full_tile_of_an_upper_level_is_checked(tmp_path: Path) -> None:
    write_segment(tmp_path, 66_000, group=2_000)
    seal(tmp_path)
    assert check(tmp_path).ok
    flip(tmp_path / "tile" / "1" / "000", 77 * HASH_BYTES + 3)
    (finding,) = check(tmp_path).findings
    assert (finding.file, finding.offset) == ("tile/1/000", 77 * HASH_BYTES + 3)


def test_several_wrong_places_are_all_named(ledger: Path) -> None:
    flip(ledger / "tile" / "entries" / "000", 30)
    flip(ledger / "tile" / "0" / "001", 30)
    flip(ledger / "bodies" / "001", 700)
    flip(ledger / "bodies" / "002", 0, 6)
    found = {finding.file for finding in check(ledger).findings}
    assert found == {"tile/entries/000", "tile/0/001", "bodies/001", "bodies/002"}


def test_verifying_stops_when_nothing_is_right(ledger: Path) -> None:
    shutil.rmtree(ledger / "tile")
    write_segment(ledger, 9_000, group=500)
    (ledger / "checkpoint").write_bytes(sign_checkpoint(Checkpoint(ORIGIN, 1 << 50, bytes(32)), KEY))
    report = check(ledger)
    assert len(report.findings) == MAX_FINDINGS
    assert not report.complete
    assert "there may be more" in report.lines()[-2]


def test_files_that_nobody_knows_are_found(ledger: Path) -> None:
    for name in ("note.txt", "tile/0/1", "tile/readme", "bodies/0", "wal/readme", "tile/entries/000.p/9"):
        path = ledger / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
        assert name in {finding.file for finding in check(ledger).findings}
        path.unlink()
    (ledger / "bodies" / "000.p").mkdir()
    assert {finding.file for finding in check(ledger).findings} == {"bodies/000.p"}
    (ledger / "bodies" / "000.p").rmdir()
    assert check(ledger).ok


def test_an_earlier_partial_tile_must_be_the_beginning_of_the_present_one(ledger: Path) -> None:
    for name in ("tile/0/002.p/18", "tile/entries/002.p/18"):
        assert (ledger / name).exists()
        flip(ledger / name, 50)
        (finding,) = check(ledger).findings
        assert finding.file == name
        flip(ledger / name, 50)


def test_the_checkpoint_of_another_key_or_log_is_found(ledger: Path, tmp_path: Path) -> None:
    other = create_signing_key(tmp_path / "keys", ORIGIN, None)
    report = verify_ledger(ledger, other.verifier)
    assert [finding.file for finding in report.findings] == ["checkpoint"]
    report = check(ledger, origin="log.example.com/other")
    assert [finding.file for finding in report.findings] == ["checkpoint"]


def test_a_log_must_extend_a_checkpoint_kept_elsewhere(tmp_path: Path) -> None:
    for name in ("true", "forked"):
        write_segment(tmp_path / name, 300)
        seal(tmp_path / name)
    kept = (tmp_path / "true" / "checkpoint").read_bytes()
    write_segment(tmp_path / "true", 300)
    seal(tmp_path / "true")
    assert check(tmp_path / "true", kept_checkpoint=kept).ok
    for size in (200, 300, 400):  # the fork verifies by itself
        report = check(tmp_path / "forked", kept_checkpoint=sign_checkpoint(Checkpoint(ORIGIN, size, bytes(32)), KEY))
        assert [finding.file for finding in report.findings] == ["kept checkpoint"], size
    assert not check(tmp_path / "forked", kept_checkpoint=kept).ok
    assert not check(tmp_path / "true", kept_checkpoint=b"not a note").ok


def test_an_entry_sealed_twice_is_found(ledger: Path) -> None:
    path = segments(ledger / "wal")[0]
    content = path.read_bytes()
    seal(ledger)
    path.write_bytes(content)
    assert check(ledger).ok, "the sealer may have been killed before it deleted it"
    path.unlink()
    write_segment(ledger, 1)
    seal(ledger)
    path.write_bytes(content)  # put back much later, as by a restored backup
    assert {finding.file for finding in check(ledger).findings} == {f"wal/{path.name}"}
    seal(ledger)
    report = check(ledger)
    assert len(report.findings) == 12
    assert all("expected an id of its own" in finding.what for finding in report.findings)


def test_the_same_segment_bits_drawn_twice_are_no_finding(tmp_path: Path) -> None:
    for milliseconds in (1_000, 2_000):
        segment = Segment(tmp_path / "wal")
        ids = [format_id("0123456789", counter, milliseconds) for counter in range(5)]
        segment.append([frame_entry(*make_entry(each)) for each in ids], 5)
        segment.close()
        seal(tmp_path)
    assert check(tmp_path).ok


def test_ids_are_taken_note_of_in_any_order() -> None:
    seen = SeenIds()
    rng = random.Random(3)
    counters = list(range(2_000))
    rng.shuffle(counters)
    assert all(seen.add(b"segment", counter) is not Seen.AGAIN for counter in counters)
    assert all(seen.add(b"segment", counter) is Seen.AGAIN for counter in counters)
    assert seen.add(b"segment", 2_000) is Seen.NEXT
    assert seen.add(b"another", 5) is Seen.ASTRAY
    for place in range(100):
        seen.suspect(EntryId("0123456789", place, 0), "somewhere")
    assert len(seen.suspects) == MAX_SUSPECTS


def test_an_entry_that_is_not_of_mainstay_is_found(tmp_path: Path) -> None:
    segment = Segment(tmp_path / "wal")
    segment.append([frame_entry(b"not a leaf", bytes(16), b"")], 1)
    segment.close()
    assert not check(tmp_path).ok
    seal(tmp_path)
    report = check(tmp_path)
    assert "expected a leaf" in report.findings[0].what
    assert report.findings[0].sequence == 0


def test_a_leaf_in_another_form_is_as_good(tmp_path: Path) -> None:
    segment = Segment(tmp_path / "wal")
    entry = make_entry(format_id(segment.name, 0, 5))
    segment.append([frame_entry(b" " + entry.leaf + b" ", entry.salt, entry.body)], 1)
    segment.close()
    seal(tmp_path)
    report = check(tmp_path)
    assert report.ok
    assert report.kinds == {"decision": 1}


def test_a_segment_that_lost_what_was_sealed_from_it_is_found(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.append(5)
    seal(tmp_path)
    assert check(tmp_path).ok
    path = writer.segment.path
    os.truncate(path, path.stat().st_size - 1)
    (finding,) = check(tmp_path).findings
    assert finding.file == f"wal/{path.name}"
    path.unlink()
    (finding,) = check(tmp_path).findings
    assert finding.file == f"wal/{path.name}"
    writer.segment.abandon()


def test_a_copy_without_write_ahead_segments_is_a_copy_of_the_log(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "ledger")
    writer.append(5)
    seal(tmp_path / "ledger")
    copy = shutil.copytree(tmp_path / "ledger", tmp_path / "copy", ignore=shutil.ignore_patterns("wal"))
    assert check(copy).ok
    writer.segment.abandon()


def test_a_torn_tail_is_reported_and_is_no_finding(ledger: Path) -> None:
    path = segments(ledger / "wal")[1]
    offset = last_group(path)
    os.truncate(path, path.stat().st_size - 7)
    report = check(ledger)
    assert report.ok
    assert [(tail.file, tail.offset) for tail in report.torn] == [(f"wal/{path.name}", offset)]
    assert any("torn tail" in line for line in report.lines())
