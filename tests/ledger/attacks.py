"""Attacks on a ledger, each drawn from a seeded generator, and for each what verifying must name first.

An attacker may change any file of the ledger and compute every hash and checksum again, but has not the key of the log,
unless the attack says that it was stolen. What no verification could tell is not here: `test_attacks.py` shows it.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, NamedTuple

from ledger.attack_places import Planted, is_right
from ledger.attack_tools import Target
from ledger.attacks_on_files import FILE_ATTACKS
from ledger.attacks_on_records import RECORD_ATTACKS
from ledger.attacks_on_segments import SEGMENT_ATTACKS
from ledger.real_ledgers import copy_ledger
from ledger.samples import KEY
from mainstay.ledger.verify import verify_ledger

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from random import Random

    from ledger.real_ledgers import RealLedger
    from mainstay.ledger.findings import Finding

Attack = "Callable[[RealLedger, Target, Random], Planted | None]"

ATTACKS: dict[str, Callable[[RealLedger, Target, Random], Planted | None]] = {
    **FILE_ATTACKS,
    **RECORD_ATTACKS,
    **SEGMENT_ATTACKS,
}
"""By name. Each changes the target and says what is right to name first; None where it does not apply."""


class Tried(NamedTuple):
    """One attack and what verifying said."""

    attack: str
    found: bool
    right: bool  # whether the first place it named is a right one
    planted: Planted
    findings: tuple[Finding, ...]


def try_attack(ledger: RealLedger, attack: str, rng: Random, scratch: Path) -> Tried | None:
    """Attack a copy of a ledger and verify it; None where the attack does not apply to this ledger."""
    copy = copy_ledger(ledger.path, scratch / "attacked")
    try:
        planted = ATTACKS[attack](ledger, Target(copy), rng)
        if planted is None:
            return None
        report = verify_ledger(copy, KEY.verifier, kept_checkpoint=planted.kept)
        right = bool(report.findings) and is_right(report.findings[0], planted)
        return Tried(attack, not report.ok, right, planted, tuple(report.findings[:3]))
    finally:
        shutil.rmtree(copy)
