"""Attacks real ledgers a thousand times, and kills the makers of a hundred honest ones: what verifying says.

    python bench/attacks.py [--attacks 1000] [--honest 100] [--seed 2026] [--json]

Every attack is drawn at random, on one of ledgers of different sizes with decisions, outcomes, changes and reviews,
sealed and not yet. *Found* is that verifying fails; *right first* that the first place it names is the one that the
attack says: the file, the entry where one is concerned, the byte where it can be known. An honest ledger is made by
workers, sealers and commands killed with SIGKILL at random moments; verified before anything is recovered, and after.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

sys.path[0] = str(Path(__file__).parents[1] / "tests")  # not this folder, whose `ledger.py` would hide `tests/ledger`

from ledger.attacks import ATTACKS, Tried, try_attack  # noqa: E402 - found only now
from ledger.honest_ledgers import examine_by_forks, examine_by_service, make_by_forks, make_by_service  # noqa: E402
from ledger.real_ledgers import RealLedger, make_ledger  # noqa: E402

SIZES = (2, 40, 200, 255, 400, 700, 1_500, 4_000, 66_000)
LARGE = 10_000  # entries; attacked every fiftieth time, because making such a log anew takes a second
SERVICE_EVERY = 4  # of the honest ledgers, one in so many is that of a whole service
SHOWN = 20


def make_ledgers(root: Path, rng: Random) -> list[RealLedger]:
    """Two ledgers of each size; of one, the sealer was killed before it signed."""
    cases = [(size, unsigned) for size in SIZES for unsigned in (False, True)]
    return [
        make_ledger(root / f"{size}-{unsigned}", rng, size, unsigned=unsigned)
        for size, unsigned in cases
        if not (unsigned and size > LARGE)
    ]


def attack_all(ledgers: list[RealLedger], count: int, rng: Random, scratch: Path, *, quiet: bool) -> list[Tried]:
    """Try `count` attacks, each kind as often as the others."""
    sizes = {id(ledger): ledger.size for ledger in ledgers}
    tried: list[Tried] = []
    names: list[str] = []
    while len(tried) < count:
        if not names:
            names = rng.sample(sorted(ATTACKS), len(ATTACKS))
        wanted_large = len(tried) % 50 == 49
        ledger = rng.choice([each for each in ledgers if (sizes[id(each)] > LARGE) == wanted_large])
        found = try_attack(ledger, names[-1], rng, scratch)
        if found is not None:
            tried.append(found)
            names.pop()
            if not quiet and len(tried) % 100 == 0:
                print(f"{len(tried)} attacks", file=sys.stderr)
    return tried


def examine_honest(root: Path, count: int, rng: Random, *, quiet: bool) -> dict[str, int]:
    """Make and examine `count` honest ledgers; what was counted."""
    counted: Counter[str] = Counter()
    for number in range(count):
        directory = root / f"honest-{number}"
        if number % SERVICE_EVERY == 0:
            reports = examine_by_service(make_by_service(directory, rng, seconds=rng.uniform(0.5, 3)))
        else:
            make_by_forks(directory, rng, seconds=rng.uniform(0.1, 1.5))
            reports = examine_by_forks(directory)
        before, after = reports
        counted["honest ledgers"] += 1
        counted["alarms before recovery"] += not before.ok
        counted["alarms after recovery"] += not after.ok
        counted["entries"] += after.size
        counted["ledgers with a torn tail"] += bool(before.torn)
        counted["ledgers with entries not sealed"] += bool(before.unsealed)
        counted["ledgers with files a killed sealer left"] += bool(before.unreferenced)
        for finding in (*before.findings, *after.findings)[:3]:
            print(f"ALARM: {finding}", file=sys.stderr)
        shutil.rmtree(directory)
        if not quiet and (number + 1) % 10 == 0:
            print(f"{number + 1} honest ledgers", file=sys.stderr)
    return dict(counted)


def table(tried: list[Tried]) -> list[tuple[str, int, int, int]]:
    """Each attack: how often tried, found, and the right place named first."""
    rows = []
    for name in ATTACKS:
        of_kind = [each for each in tried if each.attack == name]
        rows.append((name, len(of_kind), sum(each.found for each in of_kind), sum(each.right for each in of_kind)))
    rows.append(("all", len(tried), sum(each.found for each in tried), sum(each.right for each in tried)))
    return rows


def show_attacks(tried: list[Tried]) -> None:
    """The table, and the first attacks that were not found or not placed rightly."""
    print("| attack | tried | found | right first |\n|---|---|---|---|")
    for name, *counts in table(tried):
        print(f"| {name} | {' | '.join(f'{count:,}' for count in counts)} |")
    for each in [each for each in tried if not (each.found and each.right)][:SHOWN]:
        print(f"\n{each.attack}: expected {each.planted.right[:3]}")
        for finding in each.findings:
            print(f"    found {finding}")
    print(flush=True)


def show_honest(counted: dict[str, int], seconds: float) -> None:
    for name, count in counted.items():
        print(f"{name:40} {count:,}")
    print(f"{'seconds':40} {seconds:.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attacks", type=int, default=1_000)
    parser.add_argument("--honest", type=int, default=100)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    logging.getLogger("mainstay.ledger").setLevel(logging.CRITICAL)  # torn tails are made on purpose
    rng, begun = Random(options.seed), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mainstay-attacks-") as directory:
        root = Path(directory)
        tried: list[Tried] = []
        if options.attacks:
            tried = attack_all(make_ledgers(root, rng), options.attacks, rng, root, quiet=options.json)
            if not options.json:
                show_attacks(tried)
        counted = examine_honest(root, options.honest, rng, quiet=options.json)
    if options.json:
        rows = [dict(zip(("attack", "tried", "found", "right"), row, strict=True)) for row in table(tried)]
        print(json.dumps({"attacks": rows, "honest": counted}))
    else:
        show_honest(counted, time.monotonic() - begun)
    alarms = counted.get("alarms before recovery", 0) + counted.get("alarms after recovery", 0)
    sys.exit(0 if all(each.found and each.right for each in tried) and not alarms else 1)


if __name__ == "__main__":
    main()
