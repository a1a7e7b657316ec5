"""The out-of-distribution score beside PyOD's ECOD, COPOD and isolation forest; its false alarms; what it costs.

python bench/ood.py [--seeds 5] [--json]

Makes an environment for PyOD beside this one on first use (ood-requirements.txt).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as in a worker; numpy reads it when it is first imported

import numpy as np
import pandas as pd
from ood_tables import Table, departures, features, matrices, names, read_tables, rows
from scipy.stats import rankdata
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import roc_auc_score

from mainstay.catalog.profile import fewest_rows, fit_profile
from mainstay.monitoring.intervals import wilson
from mainstay.runtime.novelty import Novelty
from mainstay.runtime.types import Feature

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HERE = Path(__file__).resolve().parent
OURS = "Mainstay"
METHODS = (OURS, "ECOD", "COPOD", "IForest")
REFERENCE_SHARE = 0.7  # of the ordinary rows; the rest are fresh
RATES = (0.01, 0.05)
MOST_RUNS = 25  # to count false alarms in, each with
RUN_REFERENCE = 12_000  # flights to fit and calibrate on, and
RUN_FRESH = 1_000  # others
BATCH = 23  # rows, as many as share one group at 64 connections
BARE_MICROSECONDS = 33.6  # of CPU, the bare handler of decisions.py


@dataclass(frozen=True)
class Split:
    """One table, cut once."""

    table: Table
    seed: int
    reference: pd.DataFrame
    fresh: pd.DataFrame

    @property
    def truth(self) -> np.ndarray[Any, Any]:
        return np.repeat([0, 1], [len(self.fresh), len(self.table.odd)])


def peers_python() -> Path:
    """The interpreter of PyOD's environment, made when it is not there."""
    home = Path(sys.prefix) / "peers" / "pyod"
    python = home / "bin" / "python"
    done = home / ".installed"
    if not done.exists():
        uv = str(Path(sys.prefix) / "bin" / "uv")
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(home)], check=True)
        wanted = str(HERE / "ood-requirements.txt")
        install = [uv, "pip", "install", "--quiet", "--require-hashes", "--python", str(python), "-r", wanted]
        subprocess.run(install, check=True)
        done.touch()
    return python


def splits(seeds: int) -> Iterator[Split]:
    for table in read_tables():
        for seed in range(seeds):
            order = np.random.default_rng(seed).permutation(len(table.ordinary))
            cut = int(len(order) * REFERENCE_SHARE)
            yield Split(table, seed, table.ordinary.iloc[order[:cut]], table.ordinary.iloc[order[cut:]])


def fit(reference: pd.DataFrame, false_alarms: float) -> Novelty:
    fields = names(reference)
    return Novelty.load(fit_profile(rows(reference), fields, features(reference), false_alarms=false_alarms), fields)


def p_values(novelty: Novelty, frame: pd.DataFrame) -> np.ndarray[Any, Any]:
    return np.array(novelty.p_values(rows(frame)))


def compare(cuts: Sequence[Split]) -> tuple[dict[str, dict[str, float]], dict[str, str], dict[str, tuple[int, int]]]:
    """Mean area under the curve by table and method, the source of each table, and alarms among fresh rows by rate."""
    areas: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    alarms = {f"{rate:g}": (0, 0) for rate in RATES}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for i, cut in enumerate(cuts):
            reference, fresh, odd = matrices(cut.reference, cut.fresh, cut.table.odd)
            np.savez(folder / f"{i:04}.npz", reference=reference, judged=np.concatenate([fresh, odd]), seed=cut.seed)
        subprocess.run([str(peers_python()), str(HERE / "ood_peers.py"), name], check=True)
        for i, cut in enumerate(cuts):
            novelty = fit(cut.reference, max(RATES))
            quiet = p_values(novelty, cut.fresh)
            # The score behind the p-value orders rows beyond the strangest reference row too, as the peers' scores do.
            scores = {OURS: np.array(novelty.scores(rows(pd.concat([cut.fresh, cut.table.odd]))))}
            scores |= dict(np.load(folder / f"{i:04}.scores.npz"))
            for method in METHODS:
                areas[cut.table.name][method].append(float(roc_auc_score(cut.truth, scores[method])))
            for rate in RATES:
                if len(cut.reference) >= fewest_rows(rate):
                    hits, of = alarms[f"{rate:g}"]
                    alarms[f"{rate:g}"] = hits + int((quiet <= rate).sum()), of + len(quiet)
    means = {table: {m: statistics.mean(found) for m, found in by.items()} for table, by in areas.items()}
    return means, {cut.table.name: cut.table.source for cut in cuts}, alarms


def mean_ranks(areas: dict[str, dict[str, float]], sources: dict[str, str]) -> dict[str, dict[str, float]]:
    """Over all tables, and over sources, where tables of one source count together as one."""
    ranks = {name: rankdata([-by[method] for method in METHODS]) for name, by in areas.items()}
    by_source = defaultdict(list)
    for name, found in ranks.items():
        by_source[sources[name]].append(found)
    tables = np.mean(list(ranks.values()), axis=0)
    together = np.mean([np.mean(found, axis=0) for found in by_source.values()], axis=0)
    return {
        "tables": dict(zip(METHODS, tables.tolist(), strict=True)),
        "sources": dict(zip(METHODS, together.tolist(), strict=True)),
    }


def repeated_alarms() -> dict[str, tuple[int, int]]:
    """Alarms over repeated fits, by rate: every flight is in one run at most, to fit on or to be judged.

    Few rows are judged a run: those of one run share its calibration, and would vary together beyond the binomial.
    """
    flights = departures().sample(frac=1, random_state=0)
    found = dict.fromkeys(RATES, 0)
    runs = min(MOST_RUNS, len(flights) // (RUN_REFERENCE + RUN_FRESH))
    for run in range(runs):
        mine = flights[run * (RUN_REFERENCE + RUN_FRESH) : (run + 1) * (RUN_REFERENCE + RUN_FRESH)]
        values = p_values(fit(mine[:RUN_REFERENCE], min(RATES)), mine[RUN_REFERENCE:])
        found = {rate: hits + int((values <= rate).sum()) for rate, hits in found.items()}
    return {f"{rate:g}": (hits, runs * RUN_FRESH) for rate, hits in found.items()}


def cost() -> dict[str, float]:
    """Microseconds of CPU a row, for 30 numbers; medians."""
    data = load_breast_cancer().data
    names = [f"x{i}" for i in range(data.shape[1])]
    table = [tuple(map(float, row)) for row in data]
    novelty = Novelty.load(
        fit_profile(table, names, [Feature(name, "number", nullable=False) for name in names]), names
    )
    return {str(count): _microseconds(novelty, table[:count]) / count for count in (1, BATCH, 64)}


def _microseconds(novelty: Novelty, batch: list[tuple[float, ...]]) -> float:
    took = []
    for _ in range(15):
        begun = time.process_time()
        for _ in range(300):
            novelty.p_values(batch)
        took.append((time.process_time() - begun) / 300 * 1e6)
    return statistics.median(took)


def interval(hits: int, of: int) -> str:
    share = wilson(hits, of)
    assert share is not None
    return f"{share.value:.2%} ({share.low:.2%} to {share.high:.2%}) of {of:,}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    areas, sources, alarms = compare(list(splits(options.seeds)))
    ranks = mean_ranks(areas, sources)
    repeated = repeated_alarms()
    spent = cost()
    if options.json:
        print(
            json.dumps(
                {"auc": areas, "mean_ranks": ranks, "alarms": alarms, "alarms_repeated": repeated, "cpu_us": spent}
            )
        )
        return
    print(f"{'area under the curve':28s}" + "".join(f"{method:>10s}" for method in METHODS))
    for name, by in areas.items():
        print(f"{name:28s}" + "".join(f"{by[method]:10.3f}" for method in METHODS))
    for over, by in ranks.items():
        print(f"{'mean rank over ' + over:28s}" + "".join(f"{by[method]:10.2f}" for method in METHODS))
    for rate, (hits, of) in alarms.items():
        print(f"false alarms at {rate}, tables above: {interval(hits, of)}")
    for rate, (hits, of) in repeated.items():
        print(f"false alarms at {rate}, flights, {RUN_REFERENCE:,} reference rows a run: {interval(hits, of)}")
    for count, microseconds in spent.items():
        print(f"CPU a row, {count} at once: {microseconds:.1f} us ({microseconds / BARE_MICROSECONDS:.2f} of bare)")


if __name__ == "__main__":
    main()
