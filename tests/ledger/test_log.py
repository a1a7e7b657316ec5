from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ledger.samples import ORIGIN, seal, write_segment
from mainstay.errors import Damaged, Misuse
from mainstay.ledger.entry import leaf_hash
from mainstay.ledger.log import Log
from mainstay.ledger.merkle import EMPTY_ROOT, verify_consistency, verify_inclusion

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.ledger.entry import Entry


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Entry]]:
    ledger = tmp_path_factory.mktemp("ledger")
    entries = []
    for count in (200, 400, 1):
        entries += write_segment(ledger, count)
        seal(ledger)
    return ledger, entries


def test_entries_are_read_as_they_were_written(sealed: tuple[Path, list[Entry]]) -> None:
    ledger, entries = sealed
    log = Log(ledger)
    assert log.size == 601
    assert [log.entry(sequence) for sequence in (0, 255, 256, 600)] == [entries[at] for at in (0, 255, 256, 600)]
    for first, last in [(0, 601), (0, 0), (255, 257), (256, 512), (511, 601), (600, 601)]:
        assert list(log.entries(first, last)) == entries[first:last]
        assert list(log.leaves(first, last)) == [entry.leaf for entry in entries[first:last]]
    assert log.leaf_hash_at(300) == leaf_hash(entries[300].leaf)


def test_every_proof_verifies_against_the_checkpoint(sealed: tuple[Path, list[Entry]]) -> None:
    ledger, entries = sealed
    log = Log(ledger)
    checkpoint = log.checkpoint()
    assert checkpoint is not None
    assert checkpoint.origin == ORIGIN
    for sequence in range(0, 601, 7):
        proof = log.inclusion_proof(sequence, 601)
        assert verify_inclusion(leaf_hash(entries[sequence].leaf), sequence, 601, proof, checkpoint.root)
    for old in (1, 200, 256, 512, 600, 601):
        node = log.node(old)
        old_root = node(0, 0) if old == 1 else None
        proof = log.consistency_proof(old, 601)
        if old_root is not None:
            assert verify_consistency(old, 601, old_root, checkpoint.root, proof)
    assert log.consistency_proof(0, 601) == []


def test_a_log_extends_each_of_its_earlier_checkpoints(tmp_path: Path) -> None:
    log = Log(tmp_path)
    seal(tmp_path)
    checkpoints = [log.checkpoint()]
    for count in (1, 254, 1, 1, 300):
        write_segment(tmp_path, count)
        seal(tmp_path)
        checkpoints.append(log.checkpoint())
    *earlier, last = checkpoints
    assert last is not None
    for old in earlier:
        assert old is not None
        proof = log.consistency_proof(old.size, last.size)
        assert verify_consistency(old.size, last.size, old.root, last.root, proof)


def test_what_is_not_there_is_misuse(sealed: tuple[Path, list[Entry]]) -> None:
    log = Log(sealed[0])
    for sequence in (-1, 601):
        with pytest.raises(Misuse, match="below 601"):
            log.entry(sequence)
        with pytest.raises(Misuse):
            log.leaf_hash_at(sequence)
        with pytest.raises(Misuse):
            log.inclusion_proof(sequence, 601)
    with pytest.raises(Misuse, match="601 entries"):
        list(log.entries(0, 602))
    with pytest.raises(Misuse):
        log.consistency_proof(5, 602)
    with pytest.raises(Misuse):
        log.consistency_proof(9, 8)


def test_a_ledger_that_was_never_sealed_is_an_empty_log(tmp_path: Path) -> None:
    log = Log(tmp_path)
    assert (log.size, log.checkpoint(), log.note()) == (0, None, None)
    seal(tmp_path)
    checkpoint = log.checkpoint()
    assert checkpoint is not None
    assert (checkpoint.size, checkpoint.root) == (0, EMPTY_ROOT)


@pytest.mark.parametrize("name", ["tile/entries/000.p/5", "bodies/000"])
def test_files_that_are_not_whole_are_damaged(tmp_path: Path, name: str) -> None:
    write_segment(tmp_path, 5)
    seal(tmp_path)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(Damaged, match=name.partition(".")[0]):
        Log(tmp_path).entry(4)
    path.unlink()
    with pytest.raises(Damaged, match="found none"):
        Log(tmp_path).entry(4)
