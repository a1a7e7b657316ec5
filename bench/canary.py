"""What a canary's verdicts get wrong, what they find, and with how many decisions.

Four tables, each from simulated rollouts with known rates:

1. *The same version* in both arms, with all guards, looked at after every batch, once under steady base rates and once
   under rates that drift and jump. How often the canary is rolled back for harm, by the judge that production uses, and
   beside it a z-test for two proportions over all decisions so far, repeated at every look, as is often done.
2. *What is found*: decisions until a harm is caught, one of six guards, at several shares of the traffic; beside it the
   sample that a z-test of the same level and 90 % power would need if it were looked at once, its size known before.
   Below, for the shadow stage, the same from cases that both versions decided.
3. *What is let through*: how often a version that is worse by a part of the tolerance is promoted or rolled back.
4. *What proof takes*: decisions until a version as good is shown to be within the tolerance.

    python bench/canary.py [--runs 1000] [--looks 60] [--processes 2] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import math
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from scipy.stats import beta, norm

from mainstay.capability.keeping import CanaryStage, Guards
from mainstay.rollout.judging import begin, fold
from mainstay.rollout.judging_types import Arm, Evidence
from mainstay.rollout.sequential import BETS, bernstein, growth, mixed
from mainstay.rollout.sequential_differences import counted
from mainstay.rollout.sequential_pairs import Pairs, higher_than
from mainstay.rollout.verdict import verdict

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]
    Row: TypeAlias = dict[str, Any]

LEVEL: Final = 0.01  # false_rollbacks
GUARDS: Final = 6  # that share it
STAGE: Final = CanaryStage(guards=Guards(quality=0.01))
BATCH: Final = 1_000
LABELS_LATE_BY: Final = 5  # batches
OUTPUTS: Final = np.array([1, 2, 4, 8, 16, 16, 8, 4, 2, 1]) / 62
RATES: Final = {"errors": 0.01, "fallback": 0.03, "review": 0.10, "slow": 0.01, "wrong": 0.10}
NAIVE: Final = ("errors", "fallback", "review", "slow", "wrong")


def main() -> None:
    """Measure and print all tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1_000)
    parser.add_argument("--looks", type=int, default=60)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = {
        "same version, steady": same_version(options.runs, options.looks, options.processes, drifting=False),
        "same version, drifting": same_version(options.runs, options.looks, options.processes, drifting=True),
        "found": harms(min(options.runs, 500)),
        "pairs": pairs(min(options.runs, 300)),
        "let_through": let_through(options.runs),
        "proof": proof(min(options.runs, 500)),
    }
    for title, rows in found.items():
        _print(title, rows)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


def same_version(runs: int, looks: int, processes: int, *, drifting: bool) -> list[Row]:
    """How often a version that is the same as production is rolled back for harm, ever, and by a repeated z-test."""
    with ProcessPoolExecutor(processes) as pool:
        ended = list(pool.map(partial(_same_version, looks=looks, drifting=drifting), range(runs), chunksize=10))
    judge = sum(end[0] for end in ended)
    rows: list[Row] = [_rate("the judge, all guards", judge, runs)]
    rows += [
        _rate(f"z-test at every look: {name}", sum(end[1][i] for end in ended), runs) for i, name in enumerate(NAIVE)
    ]
    rows.append(_rate("z-test at every look: any of the five", sum(any(end[1]) for end in ended), runs))
    rows.append(_rate("z-test at the last look only: any of the five", sum(any(end[2]) for end in ended), runs))
    promoted = sum(end[3] for end in ended)
    return [*rows, _rate("ready for production at the last look", promoted, runs)]


def _same_version(seed: int, looks: int, *, drifting: bool) -> tuple[bool, list[bool], list[bool], bool]:
    rng = np.random.default_rng(seed)
    judge = begin(STAGE, quality="share", output_fields=["score"])
    late: list[tuple[int, Arm, Arm]] = []
    totals = np.zeros((2, len(NAIVE) + 1))
    harmed, ever, now, said = False, [False] * len(NAIVE), [False] * len(NAIVE), None
    for look in range(looks):
        step = min(2, 3 * look // looks)
        worse = 1.0
        if drifting:  # with the time of day, and an incident a day
            worse = 1 + 0.5 * math.sin(look / 9) + 3 * (look % 24 == 23)
        n1 = int(rng.binomial(BATCH, STAGE.steps[step] / 100))
        counts = [_counts(rng, n, worse) for n in (n1, BATCH - n1)]
        totals += np.array(
            [[n, *(each[name] for name in NAIVE)] for n, each in zip((n1, BATCH - n1), counts, strict=True)]
        )
        arms = [_arm(rng, n, each) for n, each in zip((n1, BATCH - n1), counts, strict=True)]
        judge = fold(judge, Evidence(step=step, canary=arms[0], production=arms[1]))
        labels = [Arm(quality=counted(arm.decisions, each["wrong"])) for arm, each in zip(arms, counts, strict=True)]
        late.append((step, labels[0], labels[1]))
        if len(late) > LABELS_LATE_BY:
            then, canary, production = late.pop(0)
            judge = fold(judge, Evidence(step=then, canary=canary, production=production))
        said = verdict(judge, step=step, hours=0)
        harmed = harmed or said.reason == "harm"
        now = [_z(totals, i + 1) > norm.ppf(1 - LEVEL) for i in range(len(NAIVE))]
        ever = [a or b for a, b in zip(ever, now, strict=True)]
    return harmed, ever, now, said is not None and said.reason == "not_worse"


def _counts(rng: np.random.Generator, n: int, worse: float) -> dict[str, int]:
    return {name: int(rng.binomial(n, min(1.0, rate * worse))) for name, rate in RATES.items()}


def _arm(rng: np.random.Generator, n: int, counts: dict[str, int]) -> Arm:
    return Arm(
        decisions=n,
        errors=counts["errors"],
        fallback=counts["fallback"],
        review=counts["review"],
        slow=counts["slow"],
        outputs={"score": tuple(int(count) for count in rng.multinomial(n, OUTPUTS))},
    )


def _z(totals: Floats, column: int) -> float:
    """The z of two proportions, pooled, as everybody computes it."""
    (n1, x1), (n0, x0) = ((row[0], row[column]) for row in totals)
    pooled = (x1 + x0) / (n1 + n0)
    error = math.sqrt(max(pooled * (1 - pooled), 1e-12) * (1 / n1 + 1 / n0)) if n1 and n0 else math.inf
    return float((x1 / n1 - x0 / n0) / error) if n1 and n0 else 0.0


def _rate(what: str, bad: int, runs: int) -> Row:
    highest = 1.0 if bad == runs else float(beta.ppf(0.99, bad + 1, runs - bad))
    return {"what": what, "runs": runs, "share": bad / runs, "surely below (99 %)": round(highest, 4)}


class Race:
    """Many canaries at once, of one share of bad decisions, until they are caught or shown to be kept."""

    def __init__(self, runs: int, tolerance: float) -> None:
        """All at the beginning."""
        self.tolerance = tolerance
        self.bets = np.zeros((runs, len(BETS)))
        self.gained, self.weight, self.variance = (np.zeros(runs) for _ in range(3))
        self.hits, self.n = np.full(runs, 0.5), 50.0
        self.caught, self.kept = np.full(runs, np.inf), np.full(runs, np.inf)
        self.decisions = 0

    def look(self, n1: Floats, x1: Floats, n0: Floats, x0: Floats) -> None:
        """Fold a batch, and see who is caught or kept now."""
        n, centre = n1 + n0, self.hits / self.n
        self.bets += growth(n1, x1, n0, x0, centre=centre)
        h = n1 * n0 / n
        self.gained += h * (x1 / n1 - x0 / n0)
        self.weight += h
        up, down = (1 - centre) ** 2, centre**2
        self.variance += (n0 / n) ** 2 * (x1 * up + (n1 - x1) * down) + (n1 / n) ** 2 * (x0 * up + (n0 - x0) * down)
        self.hits, self.n = self.hits + x1 + x0, self.n + float(n[0])
        self.decisions += int(n[0])
        within = bernstein(self.tolerance * self.weight - self.gained, self.variance) >= -math.log(LEVEL)
        worse = mixed(self.bets) >= math.log(GUARDS * 2 / LEVEL)
        open_ = np.isinf(self.caught) & np.isinf(self.kept)
        worse &= open_ & ~within & (self.gained >= self.weight * self.tolerance / 2)
        self.caught[worse] = self.decisions
        self.kept[open_ & within] = self.decisions

    @property
    def over(self) -> bool:
        """Whether all have ended."""
        return bool((np.isfinite(self.caught) | np.isfinite(self.kept)).all())


def race(p0: float, p1: float, share: float, tolerance: float, runs: int, *, seed: int = 0) -> Race:
    """Canaries run until all have ended, or 20 times the fixed sample has been seen."""
    rng = np.random.default_rng(seed)
    gap = max(abs(p1 - p0), abs(tolerance - (p1 - p0)))
    scale = fixed_sample(p0, p0 + gap, share, LEVEL / GUARDS)
    batch = max(40, round(scale / 50))
    running = Race(runs, tolerance)
    while not running.over and running.decisions < 20 * scale:
        n1 = np.clip(rng.binomial(batch, share, runs), 1, batch - 1).astype(float)
        n0 = batch - n1
        x1, x0 = rng.binomial(n1.astype(int), p1), rng.binomial(n0.astype(int), p0)
        running.look(n1, x1.astype(float), n0, x0.astype(float))
    return running


def fixed_sample(p0: float, p1: float, share: float, level: float, power: float = 0.9) -> float:
    """Decisions of both arms that a one-sided z-test for two proportions needs, looked at once."""
    pooled = share * p1 + (1 - share) * p0
    under_null = math.sqrt(pooled * (1 - pooled) * (1 / share + 1 / (1 - share)))
    under_harm = math.sqrt(p1 * (1 - p1) / share + p0 * (1 - p0) / (1 - share))
    return float(((norm.ppf(1 - level) * under_null + norm.ppf(power) * under_harm) / (p1 - p0)) ** 2)


def harms(runs: int) -> list[Row]:
    """Decisions until a harm is caught."""
    rows = []
    effects = [("accuracy 90 % to 89 %", 0.10, 0.11), ("accuracy 90 % to 88 %", 0.10, 0.12)]
    effects += [
        ("accuracy 90 % to 85 %", 0.10, 0.15),
        ("errors 1 % to 2 %", 0.01, 0.02),
        ("errors 1 % to 5 %", 0.01, 0.05),
    ]
    for what, p0, p1 in effects:
        for share in (0.05, 0.25, 0.5):
            running = race(p0, p1, share, 0.01, runs)
            caught = running.caught[np.isfinite(running.caught)]
            once = fixed_sample(p0, p1, share, LEVEL / GUARDS)
            rows.append(
                {
                    "what": what,
                    "share": share,
                    "caught": len(caught) / runs,
                    "decisions, mean": round(float(caught.mean())),
                    "of the canary": round(float(caught.mean()) * share),
                    "90 % by": round(float(np.quantile(running.caught, 0.9, method="higher"))),
                    "z-test once, 90 % power": round(once),
                    "price": round(float(caught.mean()) / once, 2),
                }
            )
    return rows


def pairs(runs: int) -> list[Row]:
    """Cases that both versions decided, of which a part is decided otherwise, until a loss of accuracy is found."""
    rng = np.random.default_rng(0)
    rows = []
    for points, worse, better in ((1, 0.030, 0.020), (2, 0.035, 0.015), (5, 0.060, 0.010)):
        needed = []
        for _ in range(runs):
            state, step = Pairs(), max(10, 200 // points**2)
            while higher_than(state) < math.log(1 / LEVEL):
                up, down, _ = rng.multinomial(step, [worse, better, 1 - worse - better])
                state = Pairs(state.cases + step, state.worse + int(up), state.better + int(down))
            needed.append(state.cases)
        rows.append(
            {
                "what": f"accuracy {points} points lower, {100 * (worse + better):g} % decided otherwise",
                "cases, mean": round(float(np.mean(needed))),
                "90 % by": round(float(np.quantile(needed, 0.9))),
            }
        )
    return rows


def let_through(runs: int) -> list[Row]:
    """What becomes of versions that are worse by a part of the tolerance: errors, 1 % before, tolerance 1 point."""
    rows = []
    for part in (0.0, 0.25, 0.5, 0.75, 1.0, 1.5):
        running = race(0.01, 0.01 + 0.01 * part, 0.5, 0.01, runs, seed=1)
        caught, kept = np.isfinite(running.caught), np.isfinite(running.kept)
        ended = np.minimum(running.caught, running.kept)
        rows.append(
            {
                "worse by": f"{part:g} x the tolerance",
                "rolled back": float(caught.mean()),
                "shown to be kept": float(kept.mean()),
                "still open": float((~caught & ~kept).mean()),
                "decisions, mean": round(float(ended[np.isfinite(ended)].mean())),
            }
        )
    return rows


def proof(runs: int) -> list[Row]:
    """Decisions until a version as good is shown to be within the tolerance."""
    rows = []
    for base, tolerance in ((0.001, 0.01), (0.01, 0.01), (0.03, 0.02), (0.10, 0.05), (0.10, 0.03), (0.10, 0.01)):
        for share in (0.05, 0.5):
            running = race(base, base, share, tolerance, runs, seed=2)
            kept = running.kept[np.isfinite(running.kept)]
            rows.append(
                {
                    "base rate": base,
                    "tolerance": tolerance,
                    "share": share,
                    "shown": len(kept) / runs,
                    "decisions, mean": round(float(kept.mean())),
                    "of the canary": round(float(kept.mean()) * share),
                    "90 % by": round(float(np.quantile(running.kept, 0.9, method="higher"))),
                }
            )
    return rows


def _print(title: str, rows: list[Row]) -> None:
    names = list(rows[0])
    print(f"\n{title.replace('_', ' ')}\n", flush=True)
    print(f"| {' | '.join(names)} |")
    print("|" + "---|" * len(names))
    for row in rows:
        print(
            "| "
            + " | ".join(
                f"{v:,}" if isinstance(v, int) else f"{v:g}" if isinstance(v, float) else str(v) for v in row.values()
            )
            + " |"
        )


if __name__ == "__main__":
    main()
