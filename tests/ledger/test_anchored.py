from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger.samples import KEY, ORIGIN, check, seal, write_segment
from ledger.witnesses import Notary, cosigner, serve
from mainstay.errors import Misuse
from mainstay.ledger.anchored import Against, KeptNote, NoteSource
from mainstay.ledger.anchors import FileAnchor, FileSource, HttpAnchor
from mainstay.ledger.anchors_git import GitAnchor
from mainstay.ledger.findings import MAX_FINDINGS
from mainstay.ledger.log import Log
from mainstay.ledger.merkle import tree_root
from mainstay.ledger.note import (
    Checkpoint,
    add_signatures,
    format_checkpoint,
    parse_checkpoint,
    sign_checkpoint,
    split_note,
)
from mainstay.ledger.sources import open_source
from mainstay.ledger.trust_policy import parse_policy
from mainstay.signing import SigningKey

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from mainstay.ledger.verify import Report

SIZES = (100, 256, 300, 530)


def note_of(ledger: Path, size: int) -> bytes:
    """The checkpoint that a log had when it was of `size` entries."""
    return sign_checkpoint(Checkpoint(ORIGIN, size, tree_root(size, Log(ledger).node(650))), KEY)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    ledger = tmp_path_factory.mktemp("pristine") / "ledger"
    write_segment(ledger, 650)
    seal(ledger)
    return ledger


@pytest.fixture
def ledger(pristine: Path, tmp_path: Path) -> Path:
    """650 entries."""
    return shutil.copytree(pristine, tmp_path / "ledger")


@pytest.fixture
def forked(ledger: Path, tmp_path: Path) -> Path:
    """A log that verifies by itself, and is another from entry 256 on."""
    other = tmp_path / "forked"
    write_segment(other, 650)
    seal(other)
    return other


def kept(ledger: Path, directory: Path, sizes: tuple[int, ...] = SIZES) -> FileAnchor:
    """A directory that keeps checkpoints of these sizes."""
    directory.mkdir()
    anchor = FileAnchor(str(directory), directory)
    for size in sizes:
        note = note_of(ledger, size)
        asyncio.run(anchor.store(parse_checkpoint(split_note(note)[0]), note))
    return anchor


def held(ledger: Path, *sources: object, **options: object) -> Report:
    return check(ledger, against=Against(tuple(sources), **options))  # type: ignore[arg-type]  # they are sources


def test_it_is_said_what_is_anchored_and_what_is_not(ledger: Path, tmp_path: Path) -> None:
    report = held(ledger, kept(ledger, tmp_path / "worm"))
    assert report.ok
    assert report.coverage is not None
    (anchored,) = report.coverage.anchored
    assert (anchored.by, anchored.size, anchored.checkpoints) == (str(tmp_path / "worm"), 530, 4)
    lines = report.lines()
    assert f"entries 0 to 529 are anchored by {tmp_path / 'worm'} at {anchored.at} (4 checkpoints)" in lines
    assert "the newest 120 entries are not anchored yet" in lines
    assert "every entry is anchored" in held(ledger, NoteSource("kept", note_of(ledger, 650))).lines()
    assert "the newest entry is not anchored yet" in held(ledger, NoteSource("kept", note_of(ledger, 649))).lines()


def test_without_anchors_it_is_said_that_nothing_is_anchored(ledger: Path, tmp_path: Path) -> None:
    report = held(ledger)
    assert report.ok
    assert "no entry is anchored" in report.lines()
    (tmp_path / "empty").mkdir()
    assert "there is nothing to anchor yet" in held(tmp_path / "empty").lines()
    assert not any("anchored" in line for line in check(ledger).lines())


def test_a_fork_is_named_with_the_first_anchored_size_that_disagrees(
    ledger: Path, forked: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "worm"
    kept(ledger, directory)
    report = held(forked, FileAnchor("worm", directory))
    (finding,) = report.findings
    assert finding.file == str(directory / "100")
    assert finding.what.startswith("THE LOG FORKS: expected it to extend 100 entries")
    (directory / "100").unlink()
    (directory / "256").unlink()
    agreeing = note_of(forked, 256)
    (directory / "256").write_bytes(agreeing)
    (finding,) = held(forked, FileAnchor("worm", directory)).findings
    assert (finding.file, finding.sequence) == (str(directory / "300"), 256)
    assert finding.what.endswith("the first 256 entries agree, so the first other one is 256 to 299")


def test_each_source_that_disagrees_is_named(ledger: Path, forked: Path, tmp_path: Path) -> None:
    sources = [kept(ledger, tmp_path / name) for name in ("one", "two")]
    report = held(forked, *sources, NoteSource("right", note_of(forked, 300)))
    assert [finding.file for finding in report.findings] == [str(tmp_path / name / "100") for name in ("one", "two")]
    assert report.coverage is not None
    assert [(each.by, each.size) for each in report.coverage.anchored] == [("right", 300)]


def test_a_log_that_lost_its_end_is_found(ledger: Path, tmp_path: Path) -> None:
    short = tmp_path / "short"
    write_segment(short, 300)
    seal(short)
    (finding,) = held(short, NoteSource("kept", note_of(ledger, 530))).findings
    assert finding.what == "expected at least 530 entries in the log, found 300: THE END IS CUT OFF"


def test_a_log_that_is_sealed_and_anchored_while_it_is_verified_is_no_finding(ledger: Path) -> None:
    class Growing:
        name = "growing"
        outside = True

        async def notes(self) -> AsyncIterator[KeptNote]:
            write_segment(ledger, 77)
            seal(ledger)
            yield KeptNote("growing", Log(ledger).note() or b"", None)

    report = held(ledger, Growing())
    assert report.ok, report.findings
    assert report.size == 650
    assert "every entry is anchored" in report.lines()


@pytest.mark.parametrize("changed", ["another key", "another log", "no note", "no checkpoint", "one bit"])
def test_a_kept_checkpoint_that_is_not_of_this_log_is_found(ledger: Path, tmp_path: Path, changed: str) -> None:
    good = note_of(ledger, 300)
    other = SigningKey(ORIGIN, Ed25519PrivateKey.generate())
    notes = {
        "another key": sign_checkpoint(parse_checkpoint(split_note(good)[0]), other),
        "another log": sign_checkpoint(Checkpoint("another.example.com", 5, bytes(32)), KEY),
        "no note": b"what is this\n",
        "no checkpoint": good[:-20],
        "one bit": good.replace(b"300", b"301"),
    }
    (tmp_path / "kept").write_bytes(notes[changed])
    report = held(ledger, FileSource(tmp_path / "kept"))
    assert [finding.file for finding in report.findings] == [str(tmp_path / "kept")]


def test_of_very_many_bad_checkpoints_some_are_named(ledger: Path, tmp_path: Path) -> None:
    for at in range(50):
        (tmp_path / f"kept-{at:02}").write_bytes(b"nonsense")
    shutil.rmtree(tmp_path / "ledger")
    (tmp_path / "worm").mkdir()
    for path in list(tmp_path.glob("kept-*")):
        path.rename(tmp_path / "worm" / path.name)
    write_segment(tmp_path / "ledger", 3)
    seal(tmp_path / "ledger")
    report = held(tmp_path / "ledger", FileAnchor("worm", tmp_path / "worm"))
    assert len(report.findings) == MAX_FINDINGS
    assert not report.complete


def test_what_cannot_be_read_is_a_finding_only_where_it_was_asked_for(ledger: Path, tmp_path: Path) -> None:
    absent = FileAnchor("worm", tmp_path / "absent")
    right = NoteSource("right", note_of(ledger, 300))
    asked = held(ledger, absent, right)
    assert [finding.file for finding in asked.findings] == ["worm"]
    by_default = held(ledger, absent, right, must_be_read=False)
    assert by_default.ok
    assert any(line.startswith("worm could not be asked: expected a directory") for line in by_default.lines())
    assert "the newest 350 entries are not anchored yet" in by_default.lines()


def test_of_a_damaged_tile_it_is_not_said_that_the_log_forks(ledger: Path) -> None:
    note = note_of(ledger, 200)
    path = ledger / "tile" / "0" / "000"
    content = bytearray(path.read_bytes())
    content[77] ^= 1
    path.write_bytes(content)
    report = held(ledger, NoteSource("kept", note))
    assert [finding.file for finding in report.findings] == ["tile/0/000", "kept"]
    assert "FORKS" not in report.findings[1].what


# Witnesses.

W1, W2 = cosigner("w1"), cosigner("w2")
POLICY = parse_policy(
    f"witness north {W1.verifier.vkey}\nwitness south {W2.verifier.vkey}\n".encode()
    + b"group both all north south\nquorum both\n"
)


def cosigned(ledger: Path, size: int, *keys: object, time: int = 1_790_000_000) -> bytes:
    note = note_of(ledger, size)
    return add_signatures(note, [key.cosign(split_note(note)[0], time) for key in keys])  # type: ignore[attr-defined]


def test_a_cosigned_checkpoint_is_anchored_by_its_witnesses(ledger: Path, tmp_path: Path) -> None:
    (tmp_path / "witnessed").write_bytes(cosigned(ledger, 530, W1, W2))
    report = held(ledger, FileSource(tmp_path / "witnessed", outside=False), policy=POLICY, must_be_cosigned=True)
    assert report.ok
    at = "2026-09-21T14:13:20Z"
    assert f"entries 0 to 529 are anchored by witnesses north, south at {at} (1 checkpoint)" in report.lines()


def test_a_file_beside_the_ledger_is_no_anchor_by_itself(ledger: Path, tmp_path: Path) -> None:
    (tmp_path / "witnessed").write_bytes(cosigned(ledger, 530, W1))
    source = FileSource(tmp_path / "witnessed", outside=False)
    report = held(ledger, source, policy=POLICY)
    assert report.ok
    assert "no entry is anchored" in report.lines()
    asked = held(ledger, source, policy=POLICY, must_be_cosigned=True)
    assert [str(finding) for finding in asked.findings] == [
        "policy: expected a checkpoint with the quorum both, found none"
    ]


def test_a_wrong_cosignature_of_a_known_witness_is_found(ledger: Path) -> None:
    wrong = W1.cosign(format_checkpoint(Checkpoint(ORIGIN, 1, bytes(32))), 5)
    note = add_signatures(note_of(ledger, 530), [wrong])
    report = held(ledger, NoteSource("kept", note), policy=POLICY)
    assert [finding.file for finding in report.findings] == ["kept"]


# Sources as a person names them.


def git(*words: str) -> None:
    subprocess.run(["git", *words], check=True)  # noqa: S607 - the caller's git


def test_whatever_keeps_checkpoints_is_a_source(ledger: Path, tmp_path: Path) -> None:
    kept(ledger, tmp_path / "worm")
    (tmp_path / "one").write_bytes(note_of(ledger, 300))
    repository = tmp_path / "c.git"
    git("init", "--quiet", "--bare", str(repository))
    note = note_of(ledger, 400)
    anchor = GitAnchor(f"git+{repository.as_uri()}", tmp_path / "memory.git")
    asyncio.run(anchor.store(parse_checkpoint(split_note(note)[0]), note))
    git("clone", "--quiet", "-b", "checkpoints", str(repository), str(tmp_path / "clone"))
    notary = Notary()
    (tmp_path / "link").symlink_to(tmp_path / "one")
    with serve(notary) as served:
        asyncio.run(
            HttpAnchor(f"{served.url}/c", tmp_path / "sizes").store(parse_checkpoint(split_note(note)[0]), note)
        )
        for text, size in [
            (str(tmp_path / "worm"), 530),
            ((tmp_path / "worm").as_uri(), 530),
            (str(tmp_path / "one"), 300),
            (str(tmp_path / "link"), 300),
            (str(repository), 400),
            (str(tmp_path / "clone"), 400),
            (f"git+{repository.as_uri()}", 400),
            (f"{served.url}/c/400", 400),
            (f"{served.url}/c", 400),
        ]:
            report = held(ledger, open_source(text))
            assert report.ok, (text, report.findings)
            assert report.coverage is not None
            assert report.coverage.size == size, text


def test_what_keeps_nothing_is_told(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="found none"):
        open_source(str(tmp_path / "absent"))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Misuse, match="found none"):
        open_source(str(tmp_path / "pipe"))
