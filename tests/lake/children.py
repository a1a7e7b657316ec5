"""What tests kill: `python children.py WHAT LEDGER LAKE STEPS`. It says `ready`, and begins with the next line."""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import polars as pl

from mainstay.lake import snapshots, taking
from mainstay.lake.conditions import Within
from mainstay.lake.decisions import Exporter
from mainstay.lake.lake import Lake
from mainstay.ledger.index_key import KeyDigests

if TYPE_CHECKING:
    from collections.abc import Callable


def export(ledger: Path, lake: Lake, entries: int) -> None:
    """Export the whole ledger, a few entries in a step."""
    exporter = Exporter(lake, ledger, KeyDigests(b"k" * 32))
    while (done := exporter.step(entries)).last > done.first:
        pass


def append(_: Path, lake: Lake, steps: int, writer: str = "w") -> None:
    """Append the rows of steps 1 to `steps`, ten in each, to the table `t`; another of this name may be at it too."""
    table = lake.create("t", pl.Schema({"n": pl.Int64(), "by": pl.Int64()}))
    for step in range(1, steps + 1):
        rows = pl.DataFrame({"n": range(step * 10, step * 10 + 10), "by": [os.getpid()] * 10})
        table.append(rows, writer=writer, position=step, metadata={"after": step})


def append_alone(_: Path, lake: Lake, steps: int) -> None:
    """The same under a name that nobody else has."""
    append(_, lake, steps, f"w-{os.getpid()}")


def take(_: Path, lake: Lake, rows: int) -> None:
    """Take a snapshot, in parts of so many rows."""
    setattr(taking, "PART_ROWS", rows)  # noqa: B010 - smaller, so that there are many moments to die in
    taking.take(lake, "killed", "t")


def erase(_: Path, lake: Lake, last: int) -> None:
    """Erase the rows below `last`, ten at a time, from the table `t` and its snapshots."""
    for first in range(0, last, 10):
        snapshots.erase(lake, "t", Within("n", first, first + 10))


def keep(_: Path, lake: Lake, times: int) -> None:
    """Join and remove files of the table `t`, again and again."""
    table = lake.create("t", pl.Schema({"n": pl.Int64(), "by": pl.Int64()}))
    for _again in range(times):
        table.compact()
        table.vacuum(timedelta())


WORK: Final[dict[str, Callable[[Path, Lake, int], None]]] = {
    "export": export,
    "append": append,
    "append_alone": append_alone,
    "take": take,
    "erase": erase,
    "keep": keep,
}

if __name__ == "__main__":
    what, ledger_dir, place, steps = sys.argv[1:]
    opened = Lake(place)
    opened.names()  # everything is loaded now
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    WORK[what](Path(ledger_dir), opened, int(steps))
