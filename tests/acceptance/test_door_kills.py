"""Whatever is killed at the door, each record is in one of the tables, once."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest

from intake import door_children
from intake.doors import Feed
from mainstay.intake.types import ITEM, ROW

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.acceptance

CHILD = Path(door_children.__file__)
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
MOST_LIVES = 60


def landed(home: Path) -> Feed:
    """Three items: Parquet in several parts, JSON lines, and CSV that repeats some of the first."""
    feed = Feed(home)
    buffer = BytesIO()
    frame = pl.DataFrame({"id": range(8), "amount": [1.0, 600.0, 2_000.0, 4.0, 5.0, 700.0, 9_000.0, 1.0]})
    frame.write_parquet(buffer)
    feed.land(buffer.getvalue(), "parquet", cursor=1)
    feed.land_records({"id": 20}, {"id": -20}, {"id": 21, "amount": 600}, cursor=2)
    feed.land(b"id,amount\n0,1.0\n30,5\n-30,5\n3,4.0\n31\n", "csv", cursor=3)
    return feed


def placed(feed: Feed) -> list[tuple[int, int]]:
    frames = (feed.accepted(), feed.quarantined())
    return sorted(row for frame in frames for row in frame.select(ITEM, ROW).rows())


ALL = [*((1, row) for row in range(1, 9)), *((2, row) for row in range(1, 4)), *((3, row) for row in range(1, 6))]
REPEATS = [(3, 1), (3, 4)]


def live(home: Path, die_at: int, limit: str, keyed: str) -> int:
    command = [sys.executable, str(CHILD), str(home), str(die_at), limit, keyed]
    return subprocess.run(command, env=ENVIRONMENT, check=False, timeout=60).returncode


@pytest.mark.parametrize(("keyed", "step"), [("keyed", 6), ("free", 5)])
def test_a_door_that_is_killed_at_every_commit_and_between_takes_each_record_once(
    tmp_path: Path, keyed: str, step: int
) -> None:
    feed = landed(tmp_path)
    # Without keys the contract changes with every life: what was bad may be good now, and the other way round.
    limits: Iterator[str] = itertools.cycle(["1000"] if keyed == "keyed" else ["1000", "500"])
    ends = [-signal.SIGKILL]
    while ends[-1] == -signal.SIGKILL and len(ends) < MOST_LIVES:
        ends.append(live(tmp_path, step, next(limits), keyed))
    assert ends[-1] == 0
    assert len(ends) > 3, "it was killed several times"
    expected = [row for row in ALL if row not in REPEATS] if keyed == "keyed" else ALL
    assert placed(feed) == expected
    assert (feed.door().reached, feed.door().cursor, feed.landing.waiting()) == (3, 3, [])


def test_a_door_that_is_killed_at_any_time_takes_each_record_once(tmp_path: Path) -> None:
    feed = landed(tmp_path)
    chosen = random.Random(5)
    for _ in range(8):
        command = [sys.executable, str(CHILD), str(tmp_path), "0", "1000", "keyed"]
        with subprocess.Popen(command, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            assert child.stdin is not None
            child.stdout.readline()
            child.stdin.write(b"\n")
            child.stdin.flush()
            time.sleep(chosen.uniform(0, 0.4))
            child.kill()
    assert live(tmp_path, 1_000_000, "1000", "keyed") == 0
    assert placed(feed) == [row for row in ALL if row not in REPEATS]
