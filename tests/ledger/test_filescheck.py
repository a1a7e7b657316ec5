from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from ledger.samples import check, seal, write_segment
from mainstay.ledger import reading
from mainstay.ledger.wal import segments

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    write_segment(tmp_path, 300)
    seal(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "name",
    ["notes", "wal/notes", "wal/0123456789", "tile/notes", "tile/8", "tile/0/x01", "tile/0/x001/x002.p", "bodies/x1"],
)
def test_folders_that_nobody_knows_are_found_and_not_entered(ledger: Path, name: str) -> None:
    (ledger / name / "deeper").mkdir(parents=True)
    (ledger / name / "deeper" / "file").write_bytes(b"")
    assert [finding.file for finding in check(ledger).findings] == [name]


@pytest.mark.parametrize("name", ["notes", "wal/0123456789.wal", "tile/0/500", "tile/0/000.p/7", "bodies/500"])
@pytest.mark.parametrize("kind", ["link", "pipe", "socket"])
def test_what_is_no_regular_file_is_found(ledger: Path, name: str, kind: str) -> None:
    path = ledger / name
    path.parent.mkdir(exist_ok=True)
    if kind == "link":
        path.symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        os.mknod(path, 0o140644)
    assert [finding.file for finding in check(ledger).findings] == [name]


@pytest.mark.parametrize("name", ["tile", "bodies", "wal"])
def test_a_folder_of_the_ledger_must_be_one(ledger: Path, tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / name
    (ledger / name).rename(elsewhere)
    (ledger / name).symlink_to(elsewhere)
    assert name in {finding.file for finding in check(ledger).findings}


def test_a_folder_with_too_many_names_is_found(ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_NAMES", 10)
    for number in range(20):
        (ledger / "wal" / f"{number:010x}.new").write_bytes(b"")
    (finding,) = check(ledger).findings
    assert (finding.file, "expected at most 10 names" in finding.what) == ("wal", True)


def test_what_a_sealer_leaves_when_it_is_killed_is_counted(ledger: Path) -> None:
    for name in (".checkpoint.17.tmp", ".sealer.json.17.tmp", "wal/0123456789.new", "tile/entries/002", "bodies/003"):
        (ledger / name).write_bytes(b"left")
    report = check(ledger)
    assert (report.ok, report.unreferenced) == (True, 5)
    (ledger / "wal" / "0123456789.new").write_bytes(b"more than the header of a segment")
    assert not check(ledger).ok


def test_a_lock_file_holds_nothing(ledger: Path) -> None:
    (ledger / "sealer.lock").write_bytes(b"hidden")
    assert [finding.file for finding in check(ledger).findings] == ["sealer.lock"]


def test_a_partial_tile_beside_its_full_one_must_be_its_beginning(ledger: Path) -> None:
    """A sealer that was killed before it deleted it left it there; whoever has an older checkpoint may read it."""
    write_segment(ledger, 300)
    partial = ledger / "tile" / "0" / "001.p" / "44"
    content = partial.read_bytes()
    seal(ledger)
    assert not partial.exists()
    partial.parent.mkdir()
    partial.write_bytes(content)
    assert check(ledger).ok
    partial.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert [finding.file for finding in check(ledger).findings] == ["tile/0/001.p/44"]


def test_what_the_sealer_set_aside_is_found_until_somebody_moved_it_away(tmp_path: Path) -> None:
    write_segment(tmp_path, 6, group=2)
    (path,) = segments(tmp_path / "wal")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    seal(tmp_path)
    (finding,) = check(tmp_path).findings
    assert (finding.file, "entries from it are missing" in finding.what) == (f"wal/damaged/{path.name}", True)
    (tmp_path / "wal" / "damaged" / path.name).unlink()
    assert not check(tmp_path).ok  # the state still knows that it was not sealed to its end
    seal(tmp_path)
    assert check(tmp_path).ok
