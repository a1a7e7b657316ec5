"""Every kind of attack once, on ledgers of several sizes; `bench/attacks.py` tries a thousand."""

from __future__ import annotations

import os
from random import Random
from typing import TYPE_CHECKING

import pytest

from ledger.attack_tools import Target, groups_of, join_groups
from ledger.attacks import ATTACKS, try_attack
from ledger.real_ledgers import Worker, copy_ledger, make_ledger, write_some
from ledger.samples import check, seal
from mainstay.ledger.wal import HEADER_BYTES, SegmentReader, segments

if TYPE_CHECKING:
    from pathlib import Path

    from ledger.real_ledgers import RealLedger


@pytest.fixture(scope="module")
def ledgers(tmp_path_factory: pytest.TempPathFactory) -> list[RealLedger]:
    """A tiny one, one of less than a bundle, one of several, and one whose sealer was killed before it signed."""
    rng = Random(1)
    directory = tmp_path_factory.mktemp("ledgers")
    sizes = [(2, False), (90, False), (800, False), (300, True)]
    return [
        make_ledger(directory / str(place), rng, entries, unsigned=unsigned)
        for place, (entries, unsigned) in enumerate(sizes)
    ]


def test_ledgers_that_nobody_attacked_verify(ledgers: list[RealLedger]) -> None:
    for ledger in ledgers:
        report = check(ledger.path, kept_checkpoint=ledger.kept)
        assert report.ok, report.findings
        assert {"decision", "change"} <= report.kinds.keys()
        assert len(report.torn) == 1
        assert report.killed >= 2
        assert check(ledger.earlier).ok
        assert check(ledger.other).ok


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_found_and_its_place_named_first(attack: str, ledgers: list[RealLedger], tmp_path: Path) -> None:
    rng = Random(attack)
    for ledger in rng.sample(ledgers, len(ledgers)):
        tried = try_attack(ledger, attack, rng, tmp_path)
        if tried is not None:
            assert tried.found
            assert tried.right, (tried.planted.right, tried.findings)
            return
    pytest.fail("the attack applies to none of the ledgers")


def test_what_only_receipts_tell_is_counted_and_no_alarm(tmp_path: Path) -> None:
    """No signature covers what is not sealed. Without its end, a segment is as a killed writer leaves it."""
    write_some(tmp_path, Random(2), 60, end="close")
    seal(tmp_path)
    worker = Worker(tmp_path, Random(3))
    for _ in range(3):
        worker.decide(4)
    worker.close()
    (path,) = segments(tmp_path / "wal")
    assert check(tmp_path).killed == 0
    last = [group.end for group in SegmentReader(path).groups()][-2]
    os.truncate(path, last)
    report = check(tmp_path)
    assert (report.ok, report.unsealed, report.killed) == (True, 8, 1)
    assert any("receipts tell" in line for line in report.lines())
    path.unlink()
    assert check(tmp_path).ok


def test_a_segment_made_anew_from_some_point_on_is_told_by_receipts_only(tmp_path: Path) -> None:
    worker = Worker(tmp_path, Random(4))
    worker.decide(3)
    receipts = worker.decide(3)
    worker.die()
    (path,) = segments(tmp_path / "wal")
    groups, _ = groups_of(path)
    path.write_bytes(join_groups(path, [groups[0].entries], closed=False))
    assert check(tmp_path).ok
    assert not any(receipt.encode() in path.read_bytes() for receipt in receipts)


def test_what_nobody_reads_may_change(ledgers: list[RealLedger], tmp_path: Path) -> None:
    """Bytes that a killed sealer leaves are written over by the next pass; the tail of a torn group was never told."""
    target = Target(copy_ledger(ledgers[2].path, tmp_path / "ledger"))
    before = check(target.root)
    bodies = max(target.needed("bodies"))
    target.put(bodies.path, target.get(bodies.path) + b"left behind")
    target.put("tile/entries/900", b"left behind")
    target.put(".checkpoint.17.tmp", b"left behind")
    target.put("wal/0123456789.new", b"MSWAL\x0101")
    report = check(target.root)
    assert report.ok, report.findings
    assert report.unreferenced == before.unreferenced + 4
    (torn,) = report.torn
    content = bytearray(target.get(torn.file))
    if len(content) - torn.offset > HEADER_BYTES * 6:
        content[-1] ^= 1
        target.put(torn.file, bytes(content))
    assert check(target.root).ok
    target.remove("tile/entries/900")  # the next pass removes only what follows the state without a gap
    seal(target.root)
    report = check(target.root)
    assert report.ok, report.findings
    assert report.unreferenced <= 1
