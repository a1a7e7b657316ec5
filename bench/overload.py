"""Twice as many calls as a governed server can answer: does the latency of those it answers stay bounded?

The server has one core, the load the other. Its capacity is the most that it answers a second to callers that wait for
their answers, over several numbers of them. Then calls come at that rate, and at twice that rate, whether or not
earlier ones are answered, and are timed from when they were due. Rounds in turn, because the speed of a machine drifts.

    python bench/overload.py [FOLDER] [--rounds 3] [--seconds 4] [--connections 512]
                             [--patience-ms MS] [--json]

FOLDER is a capability that is ready to be registered; without it, the model of bench/decisions.py is served.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from fixture import Fixture, make_fixture, start_worker
from load import drive, request_bytes
from open_loop import offer, quantile_ms
from tree import adopt_orphans, end_tree

from mainstay.cli.init import create_workspace
from mainstay.cli.versions import record_promotion, record_registration
from mainstay.server.supervisor import free_port

if TYPE_CHECKING:
    from collections.abc import Sequence

    from open_loop import Offered

SERVER_CORE, LOAD_CORE = 0, 1
WAITING_CALLERS = (1, 4, 16, 64, 128)  # that capacity is looked for with
REQUESTS = 64  # different rows, sent in turn
GOAL = 2.0  # p99 of answered calls at twice the capacity, in that at capacity


@dataclass(frozen=True)
class Served:
    """A workspace with one capability promoted, and calls of it."""

    fixture: Fixture
    requests: list[bytes]


@dataclass(frozen=True)
class Level:
    """One rate offered for a while. Latencies are those of answered calls unless they say otherwise."""

    offered_per_second: float
    answered_per_second: float
    refused_per_second: float  # 429 and 503
    other: int  # answers of any other status
    given_up: int  # found no free connection for as long as callers have patience
    unsent: int  # were still waiting for one at the end
    failed: int
    late_percent: float  # sent late by the generator itself
    p50_ms: float  # from when they were due
    p99_ms: float
    sent_p99_ms: float  # from when they were sent
    refused_p99_ms: float | None  # of refusals, from when they were sent; None when there were none


@dataclass(frozen=True)
class Round:
    """One server, at its capacity and at twice that."""

    capacity_per_second: float
    at_capacity: Level
    at_twice: Level

    @property
    def ratio(self) -> float:
        """Of the p99 of answered calls, from when they were due."""
        return self.at_twice.p99_ms / self.at_capacity.p99_ms

    @property
    def sent_ratio(self) -> float:
        """The same from when they were sent: without the time that they waited for a free connection."""
        return self.at_twice.sent_p99_ms / self.at_capacity.sent_p99_ms


def serve_decisions(directory: Path) -> Served:
    """The model of bench/decisions.py."""
    fixture = make_fixture(directory)
    return Served(fixture, _requests(fixture, fixture.decisions_path))


def serve_folder(folder: Path, directory: Path) -> Served:
    """A capability folder, registered and promoted in a workspace of its own. Its samples are the calls."""
    workspace, _, token = create_workspace(directory, "bench.example.com/overload")
    declared = yaml.safe_load((folder / "capability.yaml").read_text("utf-8"))
    name = declared["name"]
    own = workspace.capabilities / name
    shutil.copytree(folder, own)
    with (own / declared["samples"]).open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in islice((line for line in lines if line.strip()), REQUESTS)]
    version = record_registration(workspace, own, "made by this benchmark").version
    record_promotion(workspace, name, version, "benchmark")
    fixture = Fixture(workspace, token, rows)
    return Served(fixture, _requests(fixture, f"/v1/capabilities/{name}/decisions"))


def _requests(fixture: Fixture, path: str) -> list[bytes]:
    bodies = (json.dumps({"input": row}).encode() for row in fixture.rows[:REQUESTS])
    return [request_bytes(path, body, fixture.token) for body in bodies]


def capacity_per_second(address: tuple[str, int], request: bytes, seconds: float) -> float:
    """The most answers of status 200 a second, over closed loops of more and more callers."""
    best = 0.0
    for callers in WAITING_CALLERS:
        load = drive(address, request, connections=callers, seconds=seconds)
        # The last answers came after the end, one to each caller.
        answered = load.statuses.get(200, 0) * (1 - callers / max(callers, load.answered))
        best = max(best, answered / load.seconds)
    return best


def measure(served: Served, given: argparse.Namespace) -> Round:
    """A server of its own: its capacity, then that rate, then twice that."""
    port = free_port("127.0.0.1")
    address = ("127.0.0.1", port)
    process = start_worker(served.fixture, port, core=SERVER_CORE)
    try:
        drive(address, served.requests[0], connections=16, seconds=0.5)
        capacity = capacity_per_second(address, served.requests[0], max(1.0, given.seconds / 4))
        if not capacity:
            raise SystemExit("error: expected answers of status 200, found none; does `mainstay validate` pass?")
        levels = [
            level(
                offer(
                    address,
                    served.requests,
                    per_second=rate,
                    seconds=given.seconds,
                    connections=given.connections,
                    patience_seconds=given.patience_ms / 1000,
                )
            )
            for rate in (capacity, 2 * capacity)
        ]
    finally:
        end_tree(process)
    return Round(capacity, *levels)


def level(offered: Offered) -> Level:
    """What a run comes to. SystemExit when nothing was answered: there is nothing to compare."""
    answered = len(offered.answered_since_due)
    if not answered:
        raise SystemExit(f"error: expected answers at {offered.per_second:,.0f}/s, found {offered.statuses}")
    refused = offered.statuses.get(429, 0) + offered.statuses.get(503, 0)
    return Level(
        offered_per_second=offered.per_second,
        answered_per_second=answered / offered.seconds,
        refused_per_second=refused / offered.seconds,
        other=sum(offered.statuses.values()) - answered - refused,
        given_up=offered.given_up,
        unsent=offered.unsent,
        failed=offered.failed,
        late_percent=100 * offered.late / max(1, offered.sent),
        p50_ms=quantile_ms(offered.answered_since_due, 0.5),
        p99_ms=quantile_ms(offered.answered_since_due, 0.99),
        sent_p99_ms=quantile_ms(offered.answered_since_sent, 0.99),
        refused_p99_ms=quantile_ms(offered.refused_since_sent, 0.99) if offered.refused_since_sent else None,
    )


def main() -> int:
    given = _arguments()
    adopt_orphans()
    rounds: list[Round] = []
    with tempfile.TemporaryDirectory() as directory:
        workspace = Path(directory) / "workspace"
        served = serve_decisions(workspace) if given.folder is None else serve_folder(given.folder, workspace)
        os.sched_setaffinity(0, {LOAD_CORE})
        for number in range(given.rounds):
            rounds.append(measure(served, given))
            print(f"-- round {number + 1} of {given.rounds}: {rounds[-1].ratio:.2f} x", file=sys.stderr, flush=True)
    ratio = statistics.median(each.ratio for each in rounds)
    sent_ratio = statistics.median(each.sent_ratio for each in rounds)
    if given.json:
        figures = {"ratio": ratio, "sent_ratio": sent_ratio, "goal": GOAL, "rounds": [asdict(each) for each in rounds]}
        print(json.dumps(figures))
    else:
        print(table(rounds))
        print(f"\np99 of answered calls at twice the capacity, over that at capacity; medians; goal: under {GOAL:g}:")
        print(f"{ratio:.2f} from when they were due, {sent_ratio:.2f} from when they were sent")
    return 0


def table(rounds: Sequence[Round]) -> str:
    """Markdown: every level of every round."""
    lines = [
        "| offered/s | answered/s | refused/s | p50, p99 ms since due | sent | of refusals | given up, unsent | late |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for each in rounds:
        for name, at in (("1 x", each.at_capacity), ("2 x", each.at_twice)):
            counts = (("failed", at.failed), ("other", at.other))
            trouble = "".join(f", {count} {what}" for what, count in counts if count)
            cells = [
                f"{name} {at.offered_per_second:,.0f}",
                f"{at.answered_per_second:,.0f}",
                f"{at.refused_per_second:,.0f}{trouble}",
                f"{at.p50_ms:.1f}, {at.p99_ms:.1f}",
                f"{at.sent_p99_ms:.1f}",
                "" if at.refused_p99_ms is None else f"{at.refused_p99_ms:.1f}",
                f"{at.given_up:,}, {at.unsent:,}",
                f"{at.late_percent:.1f} %",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="a capability folder")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of load at each rate")
    parser.add_argument("--connections", type=int, default=512, help="the most calls under way at once")
    parser.add_argument(
        "--patience-ms", type=float, default=math.inf, help="a call that finds no free connection so long is given up"
    )
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
