"""What each step of a decision costs, one at a time, in one process: medians in microseconds a decision.

python bench/steps.py [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from fixture import CAPABILITY, Fixture, make_fixture

from mainstay.authority.cases import AnswerCase
from mainstay.authority.keys import load_key_ring
from mainstay.catalog.releases import read_current
from mainstay.catalog.versions import open_version
from mainstay.decision.plan import compile_release
from mainstay.decision.record import Stamp, Took, Verdict
from mainstay.decision.runner import load_graph
from mainstay.decision.types import DecideRequest
from mainstay.ledger.journal import Place
from mainstay.ledger.wal import Segment
from mainstay.runtime.lane import run_rows
from mainstay.signing import load_verifier

if TYPE_CHECKING:
    from collections.abc import Callable

GROUP = 32  # decisions that share a batch and a group
ROUNDS = 300
REPEATS = 7


def microseconds(step: Callable[[], Any], per: int = 1) -> float:
    """The median over repeats of the time of one call, divided by `per` decisions."""
    took = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        for _ in range(ROUNDS):
            step()
        took.append((time.perf_counter() - begun) / ROUNDS / per * 1e6)
    return statistics.median(took)


def measure(fixture: Fixture, directory: Path) -> dict[str, float]:
    """Microseconds a decision, by step."""
    workspace = fixture.workspace
    verifier = load_verifier(workspace.keys)
    plan = compile_release(workspace, read_current(workspace.releases, CAPABILITY, verifier)).production
    model = load_graph(open_version(workspace.versions, plan.digest), plan.declared)
    assert plan.novelty is not None
    assert plan.calibrator is not None
    ring = load_key_ring(workspace.access, verifier)
    body = json.dumps({"input": fixture.rows[0], "key": "case-17"}).encode()
    decode_call = msgspec.json.Decoder(DecideRequest).decode
    request = decode_call(body)
    row = plan.values(plan.decode(request.input))
    segment = Segment(directory)
    output = msgspec.json.encode(plan.make_output(0.75, True))  # noqa: FBT003 - the output's second field
    verdict = Verdict("answered", output, b"0.75")

    def record(count: int) -> bytes:
        stamp = Stamp(Place(segment, 0), count)
        made = [
            plan.recorder.record(stamp, b"00000000", b"null", request.input, verdict, Took(0.001)) for _ in range(count)
        ]
        return b"".join(each.framed for each in made)

    framed = record(GROUP)
    rows = [row] * GROUP
    novelty, calibrate, authority = plan.novelty, plan.calibrator, plan.authority
    cases = [AnswerCase(row, output, 0.75, 0.5, plan.digest, canary=False)] * GROUP
    broken = bytes(request.input).replace(b'"mean_radius"', b'"mean_radios"')
    return {
        "identify: look a key up by its hash (then cached)": microseconds(lambda: ring.identify(fixture.token)),
        "read the call": microseconds(lambda: decode_call(body)),
        "validate: 30 fields with bounds": microseconds(lambda: plan.decode(request.input)),
        "validate and take the values": microseconds(lambda: plan.values(plan.decode(request.input))),
        "(list every violation of a broken record)": microseconds(lambda: plan.violations(broken)),
        "run: one row": microseconds(lambda: run_rows(model, [row])),
        f"run: {GROUP} rows": microseconds(lambda: run_rows(model, [row] * GROUP), GROUP),
        "guard: the output against its contract": microseconds(lambda: plan.check_output(output)),
        f"guard: how strange the input is, {GROUP} rows": microseconds(lambda: novelty.p_values(rows), GROUP),
        f"guard: calibrated confidence, {GROUP} rows": microseconds(lambda: calibrate([0.75] * GROUP), GROUP),
        f"guard: a policy about the answer, {GROUP} rows": microseconds(lambda: authority.outside(cases), GROUP),
        f"record: leaf, body, answer, {GROUP} at once": microseconds(lambda: record(GROUP), GROUP),
        f"write and fdatasync, {GROUP} at once (wall)": microseconds(lambda: segment.append([framed], GROUP), GROUP),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        steps = measure(make_fixture(Path(directory) / "workspace"), Path(directory) / "wal")
    if given.json:
        print(json.dumps(steps))
        return
    for name, value in steps.items():
        print(f"{value:8.2f} us  {name}")


if __name__ == "__main__":
    main()
