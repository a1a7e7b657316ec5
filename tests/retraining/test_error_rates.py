"""How often a verdict is wrong: versions that are alike win as seldom as the interval says, and better ones are found.

Of an interval at 95 %, 2.5 % lie wholly above nothing. What is held here is the share of draws, against the number that
a share of 2.5 % would exceed once in a thousand times.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import pytest
from scipy.stats import binom

from mainstay.retraining.cases import Cases
from mainstay.retraining.paired import compare, lacking
from mainstay.retraining.rows import as_objects

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.random import Generator
    from numpy.typing import NDArray

    from mainstay.capability.keeping import MetricName

    Pair: TypeAlias = tuple[Cases, Cases, NDArray[Any]]
    Maker: TypeAlias = Callable[[Generator], Pair]

DRAWS: Final = 300
WRONG: Final = 0.025
ITEMS: Final = np.array(list("abcdef"))
CLASSES: Final = np.array(list("vwxyz"))
COMMON: Final = (0.5, 0.3, 0.15, 0.04, 0.01)  # of 300 rows, three are of the last class


def logistic(values: Any) -> Any:
    return 1 / (1 + np.exp(-values))


def half(values: Any) -> Any:
    return np.full(len(values), 0.5)


def won(metric: MetricName, made: Maker, draws: int = DRAWS) -> tuple[int, int]:
    """How often the challenger won, and of how many draws that could be decided."""
    wins = decided = 0
    for seed in range(draws):
        champion, challenger, days = made(np.random.default_rng(seed))
        if lacking(metric, champion, challenger):
            continue
        found = compare(metric, champion, challenger, days, level=0.95, top=3)
        if found is not None:
            decided += 1
            wins += found.better.low > 0
    return wins, decided


def may_win(draws: int) -> int:
    return int(binom.ppf(0.999, draws, WRONG))


def binary(n: int, *, cut: float = 0.0, differ: float = 1.0, days: int = 0, gain: float = 0.0) -> Maker:
    """A truth that is yes above `cut`, and two versions with errors of their own in a share `differ` of the cases.

    With `days`, cases of a day have much in common: what is true, and how each version is wrong. `gain` is how much
    less the challenger is wrong.
    """

    def made(random: Generator) -> Pair:
        of = np.arange(n) * (days or n) // n
        hidden, shared = random.normal(size=n), random.normal(size=n)
        if days:
            hidden += 0.7 * random.normal(size=days)[of]
        truth = hidden + random.normal(size=n) > cut
        cases = []
        for wrong in (1.0, 1.0 - gain):
            own = random.normal(size=n) * (random.random(n) < differ)
            if days:
                own += 0.7 * random.normal(size=days)[of]
            said = hidden + wrong * (0.7 * shared + own) - cut
            cases.append(Cases(truth, said > 0, logistic(said)))
        return cases[0], cases[1], of

    return made


def classes(n: int, wrong: tuple[float, float] = (0.3, 0.3), common: tuple[float, ...] = COMMON) -> Maker:
    def made(random: Generator) -> Pair:
        truth = random.choice(CLASSES, n, p=common)
        said = [np.where(random.random(n) < share, random.choice(CLASSES, n, p=common), truth) for share in wrong]
        one, two = (Cases(truth, each.astype(object), None) for each in said)
        return one, two, np.arange(n)

    return made


def numbers(n: int, noise: tuple[float, float], bias: tuple[float, float] = (0.0, 0.0)) -> Maker:
    def made(random: Generator) -> Pair:
        truth = random.normal(size=n)
        said = [truth + off + spread * random.normal(size=n) for spread, off in zip(noise, bias, strict=True)]
        return Cases(truth, said[0], None), Cases(truth, said[1], None), np.arange(n)

    return made


def rankings(n: int, skill: tuple[float, float] = (1.0, 1.0), days: int = 0) -> Maker:
    def made(random: Generator) -> Pair:
        of = np.arange(n) * (days or n) // n
        worth = random.normal(size=(n, len(ITEMS)))
        truth = as_objects([ITEMS[row > 0.8].tolist() for row in worth])
        cases = []
        for each in skill:
            noise = random.normal(size=(n, len(ITEMS)))
            if days:
                noise *= np.exp(0.7 * random.normal(size=days))[of, None]
            order = np.argsort(-(each * worth + noise))
            cases.append(Cases(truth, as_objects(ITEMS[order].tolist()), None))
        return cases[0], cases[1], of

    return made


def scored(n: int, champion: Callable[[Any], Any], challenger: Callable[[Any], Any]) -> Maker:
    """Versions that know the log of the odds, and say what they make of it."""

    def made(random: Generator) -> Pair:
        odds = 2 * random.normal(size=n)
        truth = random.random(n) < logistic(odds)
        return Cases(truth, None, champion(odds)), Cases(truth, None, challenger(odds)), np.arange(n)

    return made


ALIKE: tuple[tuple[str, MetricName, Maker], ...] = (
    *(
        (name, metric, made)
        for metric in ("f1", "precision", "recall", "accuracy", "balanced_accuracy", "average_precision", "roc_auc")
        for name, made in (
            ("few rows", binary(200, cut=1.0)),
            ("few that are yes", binary(400, cut=2.4)),
            ("many rows", binary(2_000)),
            ("few on which they differ", binary(1_000, differ=0.02)),
            ("days with much in common", binary(900, cut=1.0, days=30)),
            ("few days", binary(900, cut=2.0, days=12)),
        )
    ),
    *(
        (name, metric, made)
        for metric in ("balanced_accuracy", "macro_f1")
        for name, made in (("classes", classes(500, common=(0.2,) * 5)), ("rare classes", classes(300)))
    ),
    ("numbers", "r2", numbers(300, (1.0, 1.0))),
    ("numbers without bias, one of them noisy", "bias", numbers(300, (5.0, 0.1))),
    ("numbers as far off on either side", "bias", numbers(300, (1.0, 0.3), (0.3, -0.3))),
    ("probabilities that are right, one of them sharp", "calibration_error", scored(600, half, logistic)),
    (
        "probabilities that are as wrong on either side",
        "calibration_error",
        scored(600, lambda odds: logistic(odds) * 0.9, lambda odds: 1 - 0.9 * logistic(-odds)),
    ),
)


@pytest.mark.parametrize(("name", "metric", "made"), ALIKE, ids=[f"{metric}, {name}" for name, metric, _ in ALIKE])
def test_one_that_is_no_better_wins_as_seldom_as_the_interval_says(name: str, metric: MetricName, made: Maker) -> None:
    wins, decided = won(metric, made)
    assert decided > DRAWS // 3, name
    assert wins <= may_win(decided)


@pytest.mark.parametrize("metric", ["ndcg", "hit_rate", "reciprocal_rank"])
@pytest.mark.parametrize("days", [0, 12])
def test_lists_that_are_no_better_win_as_seldom_as_the_interval_says(metric: MetricName, days: int) -> None:
    wins, decided = won(metric, rankings(200, days=days), 120)
    assert decided == 120
    assert wins <= may_win(120)


BETTER: tuple[tuple[MetricName, Maker], ...] = (
    *(
        (metric, binary(1_500, gain=0.7))
        for metric in ("f1", "precision", "recall", "balanced_accuracy", "average_precision")
    ),
    ("f1", binary(1_500, days=30, gain=0.7)),
    ("balanced_accuracy", classes(1_000, (0.3, 0.15), (0.2,) * 5)),
    ("macro_f1", classes(1_000, (0.3, 0.15), (0.2,) * 5)),
    ("r2", numbers(500, (1.0, 0.8))),
    ("bias", numbers(500, (1.0, 1.0), (0.4, -0.05))),
    ("calibration_error", scored(2_000, lambda odds: logistic(3 * odds), logistic)),
    ("ndcg", rankings(300, (0.5, 1.0))),
    ("hit_rate", rankings(300, (0.3, 1.0))),
    ("reciprocal_rank", rankings(300, (0.5, 1.0))),
)


@pytest.mark.parametrize(("metric", "made"), BETTER, ids=[f"{i}, {each[0]}" for i, each in enumerate(BETTER)])
def test_one_that_is_better_wins(metric: MetricName, made: Maker) -> None:
    wins, decided = won(metric, made, 60)
    assert decided == 60
    assert wins >= 54
