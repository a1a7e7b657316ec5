"""Canaries made by chance, with known rates, and what a number of bad ends says of their chance."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import beta

from mainstay.rollout.judging import fold
from mainstay.rollout.judging_types import Arm, Evidence
from mainstay.rollout.sequential import BETS, bernstein, growth, mixed
from mainstay.rollout.sequential_differences import counted
from mainstay.rollout.verdict import verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from mainstay.rollout.judging import Judge
    from mainstay.rollout.judging_types import Judgement
    from mainstay.rollout.sequential import Floats


def surely_below(bad: int, runs: int) -> float:
    """What the chance of a bad end is at most, with 99 %: the one-sided bound of Clopper & Pearson (1934)."""
    return 1.0 if bad == runs else float(beta.ppf(0.99, bad + 1, runs - bad))


@dataclass(frozen=True)
class Paths:
    """Highest evidence that each run ever had, looked at after every batch, and decisions until it reached 100."""

    worse: Floats
    kept: Floats
    until_worse: Floats  # decisions of both arms; inf: never
    until_kept: Floats


def run_shares(
    base: Callable[[int], float],
    harm: Callable[[int], float],
    *,
    share: float,
    tolerance: float,
    runs: int = 1_000,
    batch: int = 200,
    batches: int = 150,
    seed: int = 0,
) -> Paths:
    """Many canaries at once, all of a share of bad decisions, by the formulas that `sequential_differences` folds."""
    rng = np.random.default_rng(seed)
    bets = np.zeros((runs, len(BETS)))
    gained, weight, variance, total, n = np.zeros(runs), np.zeros(runs), np.zeros(runs), np.full(runs, 0.5), 50.0
    most = {"worse": np.full(runs, -np.inf), "kept": np.full(runs, -np.inf)}
    until = {"worse": np.full(runs, np.inf), "kept": np.full(runs, np.inf)}
    for number in range(batches):
        n1 = np.clip(rng.binomial(batch, share, runs), 1, batch - 1).astype(float)
        n0 = batch - n1
        x1 = rng.binomial(n1.astype(int), base(number) + harm(number))
        x0 = rng.binomial(n0.astype(int), base(number))
        centre = total / n
        bets += growth(n1, x1, n0, x0, centre=centre)
        h = n1 * n0 / batch
        gained += h * (x1 / n1 - x0 / n0)
        weight += h
        up, down = (1 - centre) ** 2, centre**2
        variance += (n0 / batch) ** 2 * (x1 * up + (n1 - x1) * down) + (n1 / batch) ** 2 * (x0 * up + (n0 - x0) * down)
        total, n = total + x1 + x0, n + batch
        seen = {"worse": mixed(bets), "kept": bernstein(tolerance * weight - gained, variance)}
        for name, value in seen.items():
            most[name] = np.maximum(most[name], value)
            reached = np.isinf(until[name]) & (value >= np.log(100))
            until[name] = np.where(reached, (number + 1.0) * batch, until[name])
    return Paths(most["worse"], most["kept"], until["worse"], until["kept"])


@dataclass(frozen=True, kw_only=True)
class Version:
    """The chances of what a decision comes to."""

    errors: float = 0.01
    fallback: float = 0.03
    review: float = 0.10
    slow: float = 0.01
    wrong: float = 0.10
    outputs: tuple[float, ...] = (0.1, 0.2, 0.4, 0.2, 0.1)
    labelled: float = 1.0
    segments: dict[str, float] = field(default_factory=dict)  # errors in a tenth of the decisions each


def made_arm(rng: np.random.Generator, n: int, version: Version, errors: float | None = None) -> Arm:
    """What n decisions of a version came to."""
    labels = int(rng.binomial(n, version.labelled))
    return Arm(
        decisions=n,
        errors=int(rng.binomial(n, version.errors if errors is None else errors)),
        fallback=int(rng.binomial(n, version.fallback)),
        review=int(rng.binomial(n, version.review)),
        slow=int(rng.binomial(n, version.slow)),
        outputs={"score": tuple(int(count) for count in rng.multinomial(n, version.outputs))},
        quality=counted(labels, int(rng.binomial(labels, version.wrong))),
    )


def made_evidence(
    rng: np.random.Generator, n: int, percent: float, step: int, canary: Version, production: Version
) -> Evidence:
    """A batch of n decisions, of which a share is the canary's."""
    n1 = int(rng.binomial(n, percent / 100))
    segments = {
        name: (
            made_arm(rng, n1 // 10, canary, errors),
            made_arm(rng, (n - n1) // 10, production, production.segments.get(name)),
        )
        for name, errors in canary.segments.items()
    }
    return Evidence(
        step=step,
        canary=made_arm(rng, n1, canary),
        production=made_arm(rng, n - n1, production),
        segments=segments,
    )


def roll_out(
    judge: Judge,
    canary: Version,
    production: Version,
    *,
    seed: int,
    batch: int = 1_000,
    most: int = 60,
    batches_a_day: int = 24,
) -> tuple[Judgement, int, int]:
    """A whole rollout, asked after every batch: the last judgement, decisions taken, and the step it ended in."""
    rng = np.random.default_rng(seed)
    steps = judge.plan.stage.steps
    step, since = 0, 0
    said = verdict(judge, step=0, hours=0)
    for number in range(most):
        judge = fold(judge, made_evidence(rng, batch, steps[step], step, canary, production))
        said = verdict(judge, step=step, hours=24 * (number + 1 - since) / batches_a_day)
        if said.ruling == "promote" and step + 1 < len(steps):
            step, since = step + 1, number + 1
        elif said.ruling != "keep_collecting":
            return said, (number + 1) * batch, step
    return said, most * batch, step
