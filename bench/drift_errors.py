"""How often a window is called drifted: where nothing drifted, and where something did; beside other tools.

    python bench/drift_errors.py [--times 400] [--peers] [--peer-times 400] [--only grid|beside]
                                 [--kind NAME]... [--rows N]... [--effect SIZE]... [--json]

`grid`: each cell is the share of windows with p < 0.01, a column at a time, and beside it that of those called *drift*
(a distance of at least 0.05 too, the default of `smallest_drift`); then the mean distance. What is drawn, of numbers,
texts and six streams whose rows depend on each other, says drift_draws.py.

`beside` (with `--peers`): every tool is given the same rows, windows of up to 100,000 and a reference of ten times as
many; the peers have their defaults, and alibi-detect three levels. *Best* is the peer that finds most of those whose
false alarms in the same kind and size do not refute 1 % (95 %, one-sided).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from drift import HERE, PEERS
from drift_draws import HARDEST, KINDS, counts, effects, judge, rows
from drift_table import VALUES
from environments import python_of
from scipy.stats import binom

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mainstay.monitoring.drift import Comparison

LEVEL: Final = 0.01
SMALLEST: Final = 0.05
WINDOWS: Final = (1_000, 10_000, 100_000, 1_000_000)
PEER_WINDOWS: Final = (1_000, 10_000, 100_000)
MOST_DRAWN_ROWS: Final = 4_000_000  # of the windows of a cell that peers are given
MOST_STREAM_ROWS: Final = 10_000  # whose rows are drawn one by one
LONG_KINDS: Final = frozenset({"numbers", "texts", "days"})  # of which long windows are drawn too
PEER_KINDS: Final = LONG_KINDS | {"autocorrelated", "hours"}


class Cell(NamedTuple):
    """Shares of windows, 0..1, and the mean distance."""

    kind: str
    rows: int
    effect: float  # standard deviations, or total variation distance of texts
    significant: float
    drift: float
    distance: float


class Beside(NamedTuple):
    """A cell of which every tool had the same rows."""

    cell: Cell
    times: int
    peers: dict[str, float]
    best: str | None  # of the peers whose false alarms do not refute the level; where there is a change


@dataclass(frozen=True)
class Chosen:
    """What is drawn; empty: everything but the hardest."""

    kinds: frozenset[str]
    rows: frozenset[int]
    effects: frozenset[float]

    def cells(self, windows: Sequence[int]) -> Iterator[tuple[int, list[str]]]:
        """The kinds of each window's size."""
        for size in (each for each in windows if each in self.rows or not self.rows):
            wanted = [each for each in (*KINDS, HARDEST) if each in (self.kinds or KINDS)]
            yield size, [each for each in wanted if size <= MOST_STREAM_ROWS or each in LONG_KINDS]


def grid(times: int, chosen: Chosen) -> Iterator[Cell]:
    for size, kinds in chosen.cells(WINDOWS):
        for kind in kinds:
            for effect in (each for each in effects(kind) if each in chosen.effects or not chosen.effects):
                random = np.random.default_rng([size, round(1_000 * effect)])
                draw = counts(kind, effect, size)
                yield _cell(kind, size, effect, [draw(random) for _ in range(times)])


def beside(times: int, chosen: Chosen) -> Iterator[Beside]:
    for size, kinds in chosen.cells(PEER_WINDOWS):
        with tempfile.TemporaryDirectory(prefix="mainstay-drift-errors-") as name:
            many = min(times, MOST_DRAWN_ROWS // size)
            ours = {kind: _drawn(kind, size, many, Path(name)) for kind in kinds if kind in PEER_KINDS}
            flagged = {peer: _flagged(peer, name) for peer in PEERS}
        for kind, found in ours.items():
            shares = {level: each for peer in flagged.values() for level, each in peer[kind].items()}
            honest = [level for level, each in shares.items() if each[0] <= binom.ppf(0.95, many, LEVEL) / many]
            for place, cell in enumerate(found):
                peers = {level: each[place] for level, each in shares.items()}
                best = max(honest, key=peers.__getitem__, default=None) if cell.effect else None
                yield Beside(cell, many, peers, best)


def _drawn(kind: str, size: int, times: int, folder: Path) -> list[Cell]:
    """Rows are written for the peers, and Mainstay judges them."""
    drawn = rows(kind, size, times)
    np.savez(folder / f"{kind}.npz", reference=drawn.reference, windows=drawn.windows, values=VALUES)
    return [
        _cell(kind, size, effect, [judge(kind, *pair) for pair in zip(drawn.reference, windows, strict=True)])
        for effect, windows in zip(effects(kind), drawn.windows, strict=True)
    ]


def _flagged(peer: str, folder: str) -> dict[str, dict[str, list[float]]]:
    """By kind, and by the tool's level, the share of windows that it flags, for each effect."""
    command = [str(python_of(f"drift-{peer}")), str(HERE / "drift_peers.py"), peer, "errors", folder]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, dict[str, list[float]]] = json.loads(done.stdout.splitlines()[-1])
    return found


def _cell(kind: str, size: int, effect: float, found: Sequence[Comparison]) -> Cell:
    significant = [each.p_value is not None and each.p_value < LEVEL for each in found]
    distances = [each.distance.value if each.distance else 0.0 for each in found]
    drift = [sure and distance >= SMALLEST for sure, distance in zip(significant, distances, strict=True)]
    return Cell(kind, size, effect, *(float(np.mean(each)) for each in (significant, drift, distances)))


def show_grid(times: int, chosen: Chosen) -> Iterator[dict[str, Any]]:
    print(f"{'%':15}{'rows':>11}{'effect':>8}{'p < .01':>9}{'drift':>7}{'distance':>10}")
    for cell in grid(times, chosen):
        print(_line(cell), flush=True)
        yield cell._asdict()


def _line(cell: Cell) -> str:
    shares = f"{100 * cell.significant:9.1f}{100 * cell.drift:7.1f}{cell.distance:10.4f}"
    return f"{cell.kind:15}{cell.rows:11,}{cell.effect:8.2f}{shares}"


def show_beside(times: int, chosen: Chosen) -> Iterator[dict[str, Any]]:
    heads: list[str] = []
    below = 0
    for each in beside(times, chosen):
        if not heads:
            heads = list(each.peers)
            names = "".join(f"{name:>13}" for name in heads)
            print(
                f"\nthe same rows\n{'%':15}{'rows':>11}{'effect':>8}{'p < .01':>9}{'drift':>7}{'distance':>10}{names}"
            )
        shares = "".join(f"{100 * each.peers[name]:13.1f}" for name in heads)
        worse = each.best is not None and each.peers[each.best] > each.cell.significant
        below += worse
        print(f"{_line(each.cell)}{shares}  {'below ' if worse else ''}{each.best or ''}", flush=True)
        yield {**each._asdict(), **each.cell._asdict()}
    print(f"cells in which the best peer of those finds more: {below}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=400, help="windows drawn for each cell of the grid")
    parser.add_argument("--kind", choices=(*KINDS, HARDEST), action="append", default=[], help="only these")
    parser.add_argument("--rows", type=int, choices=WINDOWS, action="append", default=[], help="of windows: only these")
    parser.add_argument("--effect", type=float, action="append", default=[], help="only these, in the grid")
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--peer-times", type=int, default=400, help="of up to 4,000,000 rows together")
    parser.add_argument("--only", choices=("grid", "beside"))
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    chosen = Chosen(frozenset(given.kind), frozenset(given.rows), frozenset(given.effect))
    found: dict[str, Any] = {}
    with redirect_stdout(sys.stderr) if given.json else nullcontext():
        if given.only != "beside":
            found["grid"] = list(show_grid(given.times, chosen))
        if given.peers or given.only == "beside":
            found["beside"] = list(show_beside(given.peer_times, chosen))
    if given.json:
        print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
