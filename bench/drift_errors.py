"""How often a window is called drifted: where nothing drifted, and where something did; beside other tools.

    python bench/drift_errors.py [--times 400] [--peers] [--peer-times 50] [--json]

Each cell is the share of windows with p < 0.01, a column at a time, and beside it that of those called *drift* (a
distance of at least 0.05 too, the default of `smallest_drift`); then the mean distance. Reference: 100,000 rows, or
as many as the window has. Counts of independent rows are drawn from multinomials, which is the same as drawing the rows
and counting them; rows of streams are drawn one by one:

    autocorrelated   an autoregression of first order, correlation 0.9
    hours            each hour has a level of its own (sd 0.3), and levels an autoregression with correlation 0.7
    days             a rhythm of day and night (amplitude 1), days that differ (sd 0.05), against the 14 days before

Peers, with their defaults, are given the rows of independent numbers and texts, up to 100,000.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import numpy as np
from drift import HERE, PEERS, python_of
from drift_table import VALUES
from scipy.signal import lfilter
from scipy.special import ndtr, ndtri

from mainstay.monitoring.binning import Column, Numbers, Values
from mainstay.monitoring.drift import Comparison, Sample, compare
from mainstay.monitoring.earlier import baseline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]
    Draw: TypeAlias = Callable[[np.random.Generator], Comparison]

LEVEL: Final = 0.01
SMALLEST: Final = 0.05
STEPS: Final = 24
WINDOWS: Final = (1_000, 10_000, 100_000, 1_000_000)
SHIFTS: Final = (0.0, 0.02, 0.05, 0.1, 0.2)
MIXES: Final = (0.0, 0.02, 0.05, 0.1)
REFERENCE_ROWS: Final = 100_000
MOST_PEER_ROWS: Final = 100_000
MOST_STREAM_ROWS: Final = 10_000  # whose reference has ten times as many
PAST_DAYS: Final = 14

EDGES: Final = np.array([-4.0, *ndtri(np.arange(1, 32) / 32), 4.0])
NUMBER: Final = Column("x", Numbers(tuple(EDGES.tolist())))
TEXT: Final = Column("c", Values(tuple(VALUES.tolist())))


class Cell(NamedTuple):
    """Shares of windows, 0..1, and the mean distance."""

    kind: str
    rows: int
    effect: float  # standard deviations, or total variation distance of texts
    significant: float
    drift: float
    distance: float


def number_shares(shift: float) -> Floats:
    return np.append(np.diff(ndtr(np.array([-np.inf, *EDGES, np.inf]) - shift)), 0.0)


def text_shares(mixed: float) -> Floats:
    shares = np.array([*[1 / len(VALUES)] * len(VALUES), 0.0, 0.0])
    shares[0] += mixed
    shares[1:5] -= mixed / 4
    return shares


def independent(column: Column, before: Floats, now: Floats, rows: int) -> Draw:
    def draw(random: np.random.Generator) -> Comparison:
        n = max(REFERENCE_ROWS, rows)
        reference, window = (
            Sample(random.multinomial(size // STEPS, shares, STEPS)) for size, shares in ((n, before), (rows, now))
        )
        return compare(column, reference, window)

    return draw


def autocorrelated(shift: float, rows: int) -> Draw:
    def stream(random: np.random.Generator, size: int) -> Floats:
        return _autoregression(random, size, 0.9)

    return lambda random: compare(NUMBER, _counted(stream(random, 10 * rows)), _counted(stream(random, rows) + shift))


def hours(shift: float, rows: int) -> Draw:
    def stream(random: np.random.Generator, many: int) -> Floats:
        level = 0.3 * _autoregression(random, many, 0.7)
        return np.repeat(level, rows // 24) + random.standard_normal(many * (rows // 24))

    return lambda random: compare(NUMBER, _counted(stream(random, 240)), _counted(stream(random, 24) + shift))


def days(shift: float, rows: int) -> Draw:
    def day(random: np.random.Generator, moved: float = 0.0) -> Sample:
        level = np.sin(2 * np.pi * (np.arange(STEPS) + 0.5) / STEPS) + moved + 0.05 * random.standard_normal()
        shares = [number_shares(float(each)) for each in level]
        return Sample(np.array([random.multinomial(rows // STEPS, each) for each in shares]))

    def draw(random: np.random.Generator) -> Comparison:
        past = [day(random) for _ in range(PAST_DAYS)]
        return compare(NUMBER, baseline(past), day(random, shift), past=past)

    return draw


def cells(times: int) -> Iterator[Cell]:
    for rows in WINDOWS:
        for shift in SHIFTS:
            drawn = independent(NUMBER, number_shares(0.0), number_shares(shift), rows)
            yield _cell("numbers", rows, shift, drawn, times)
        for mixed in MIXES:
            yield _cell("texts", rows, mixed, independent(TEXT, text_shares(0.0), text_shares(mixed), rows), times)
        for shift in SHIFTS:
            yield _cell("days", rows, shift, days(shift, rows), times)
        if rows > MOST_STREAM_ROWS:
            continue
        for shift in SHIFTS:
            yield _cell("autocorrelated", rows, shift, autocorrelated(shift, rows), times)
            yield _cell("hours", rows, shift, hours(shift, rows), times)


def peer_cells(peer: str, times: int) -> dict[str, float]:
    """By the name of the cell, the share of windows that a peer flags."""
    with tempfile.TemporaryDirectory(prefix="mainstay-drift-errors-") as name:
        random = np.random.default_rng(1)
        for rows in (size for size in WINDOWS if size <= MOST_PEER_ROWS):
            for shift in SHIFTS:
                reference, windows = random.standard_normal(REFERENCE_ROWS), random.standard_normal((times, rows))
                np.savez(Path(name) / f"numbers {rows} {shift}.npz", reference=reference, windows=windows + shift)
            for mixed in MIXES:
                shares = text_shares(mixed)[: len(VALUES)]
                reference = VALUES[random.integers(0, len(VALUES), REFERENCE_ROWS)]
                windows = VALUES[random.choice(len(VALUES), (times, rows), p=shares)]
                np.savez(Path(name) / f"texts {rows} {mixed}.npz", reference=reference, windows=windows)
        command = [str(python_of(peer)), str(HERE / "drift_peers.py"), peer, "errors", name]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return found


def _cell(kind: str, rows: int, effect: float, draw: Draw, times: int) -> Cell:
    random = np.random.default_rng([rows, round(1_000 * effect)])
    found = [draw(random) for _ in range(times)]
    significant = [each.p_value is not None and each.p_value < LEVEL for each in found]
    distances = [each.distance.value if each.distance else 0.0 for each in found]
    drift = [sure and distance >= SMALLEST for sure, distance in zip(significant, distances, strict=True)]
    return Cell(kind, rows, effect, *(float(np.mean(each)) for each in (significant, drift, distances)))


def _autoregression(random: np.random.Generator, size: int, correlation: float) -> Floats:
    noise = random.standard_normal(size + 200) * np.sqrt(1 - correlation**2)
    return np.asarray(lfilter([1.0], [1.0, -correlation], noise)[200:])


def _counted(values: Floats) -> Sample:
    rows, bins = len(values) // STEPS * STEPS, len(EDGES) + 2
    places = np.arange(rows) * STEPS // rows * bins + np.searchsorted(EDGES, values[:rows], "right")
    return Sample(np.bincount(places, minlength=STEPS * bins).reshape(STEPS, bins))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=400, help="windows drawn for each cell")
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--peer-times", type=int, default=50)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    flagged = {peer: peer_cells(peer, arguments.peer_times) for peer in PEERS} if arguments.peers else {}
    found = []
    if not arguments.json:
        heads = "".join(f"{peer:>11}" for peer in flagged)
        print(f"{'%':15}{'rows':>11}{'effect':>8}{'p < .01':>9}{'drift':>7}{'distance':>10}{heads}")
    for cell in cells(arguments.times):
        name = f"{cell.kind} {cell.rows} {cell.effect}"
        others = {peer: rates[name] for peer, rates in flagged.items() if name in rates}
        found.append({**cell._asdict(), "peers": others})
        if not arguments.json:
            beside = "".join(f"{100 * rate:11.1f}" for rate in others.values())
            shares = f"{100 * cell.significant:9.1f}{100 * cell.drift:7.1f}{cell.distance:10.4f}"
            print(f"{cell.kind:15}{cell.rows:11,}{cell.effect:8.2f}{shares}{beside}", flush=True)
    if arguments.json:
        print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
