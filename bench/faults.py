"""Breaks a service under load, again and again, in every way it should bear, and audits each answer that callers got.

Two workers serve a Python callable in processes of their own, with a fallback ladder and a deadline of 400 ms. Eight
connections call steadily, with keys and inputs of their own whose right answers are known, from a process of their own.
Each kind of fault strikes at random moments. Afterwards every answer is held against what is right, against the ledger
and against its deadline.

    python bench/faults.py [--fault NAME ...] [--times 100] [--out FILE] [--json]
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from faults_audit import Findings, Injection, audit
from faults_caller import Callers
from faults_inject import FAULTS, Fault, Scene, make_keys, small_disk
from faults_machine import Waits
from faults_world import up

WELL_CALLS = 24  # answered in a row, and the service counts as recovered
RECOVER_SECONDS = 30.0
PAUSE_SECONDS = (0.0, 0.5)


def run_campaign(fault: Fault, times: int) -> Findings:
    """Inject a fault so many times into a service under load, and audit what came of it."""
    with ExitStack() as stack:
        outside = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        root = outside / "workspace"
        if fault.small_disk:
            stack.enter_context(small_disk(root))
        injections: list[Injection] = []
        with up(root, outside, in_process=fault.in_process) as world:
            keys = make_keys(world, times) if fault.counts == "key" else []
            scene = Scene(world, Callers(world.port, world.token), keys=keys)
            waits = Waits(world)
            wait_until_well(scene.callers)
            for scene.serial in range(times):
                time.sleep(random.uniform(*PAUSE_SECONDS))
                begun = time.time()
                injections.append(Injection(begun, fault.inject(scene)))
                wait_until_well(scene.callers)
            calls = scene.callers.stop()
            waits.stop()
        found = audit(fault, calls, injections, world, waits)
        if not found.ok:
            found.examples += world.log.read_text("utf-8", "replace").splitlines()[-40:]
    return found


def wait_until_well(callers: Callers) -> None:
    """Wait until calls are answered again, and no call is left from before.

    SystemExit when they are not: there is nothing to go on with.
    """
    time.sleep(0.1)  # what is put into a call is on its way
    begun, ended = time.time(), callers.progress().ended
    while (
        (progress := callers.progress()).well < WELL_CALLS
        or progress.ended < ended + WELL_CALLS
        or progress.oldest < begun
    ):
        if time.time() - begun > RECOVER_SECONDS:
            raise SystemExit(f"error: expected answers again within {RECOVER_SECONDS:g} s, found {progress}")
        time.sleep(0.02)


COLUMNS = (
    "fault | times | calls | answered | fallback | refused | broken | late | latest, ms | wrong | unclear | unrecorded"
    " | doubled | recovery s, median, max"
)


def row(found: Findings) -> str:
    """One line of the table."""
    refused = ", ".join(f"{count} {name}" for name, count in found.refusals.items())
    cells = [
        found.fault,
        f"{found.times}",
        f"{found.calls:,}",
        f"{found.answered:,}",
        f"{found.fallback:,}",
        refused or "0",
        f"{found.broken}",
        f"{found.late}" + (f" ({found.starved} starved)" if found.starved else ""),
        f"{found.worst_overrun_ms:+.0f}",
        f"{found.wrong}",
        f"{found.unclear}",
        f"{found.unrecorded}",
        f"{found.doubled}",
        found.recovery,
    ]
    return f"| {' | '.join(cells)} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fault", nargs="+", choices=list(FAULTS), default=list(FAULTS))
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--out", type=Path, help="a file that has the findings so far after each campaign, as JSON")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    campaigns: list[Findings] = []
    facts = "[]"
    if not given.json:
        print(f"| {COLUMNS} |\n{'|---' * (COLUMNS.count('|') + 1)}|")
    for name in given.fault:
        campaigns.append(run_campaign(FAULTS[name], given.times))
        facts = json.dumps([asdict(each) | {"ok": each.ok} for each in campaigns], indent=1)
        if given.out is not None:
            given.out.write_text(facts)
        if not given.json:
            print(row(campaigns[-1]), flush=True)
            print(*campaigns[-1].examples, sep="\n", file=sys.stderr, flush=True)
    if given.json:
        print(facts)
    return 0 if all(each.ok for each in campaigns) else 1


if __name__ == "__main__":
    sys.exit(main())
