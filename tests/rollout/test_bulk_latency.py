"""The latency of a canary where many decisions are asked for in one call, with keys that always go the same way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import numpy as np
import polars as pl
import pytest

from mainstay.capability.keeping import CanaryStage, Cost, Guards
from mainstay.decision.routing import Router
from mainstay.monitoring.layouts import Watched
from mainstay.rollout.counting import ALONE_SHARE, ARM, FEWEST_SAMPLED, Yardstick, count_arms, yardstick
from mainstay.rollout.judging import begin, fold
from mainstay.rollout.judging_types import Evidence
from mainstay.rollout.verdict import verdict
from rollout.simulated import surely_below

if TYPE_CHECKING:
    from mainstay.rollout.judging_types import Judgement

Order: TypeAlias = Literal["at once", "canary last"]

PERCENT: Final = 5.0
CALLS, SIZE, LOOKS, RUNS = 20, 100, 8, 60  # calls for several, and decisions in each, beside as many calls for one
ROW_SECONDS: Final = 0.001
GUARDS = Guards(errors=None, fallback=None, review=None, latency=0.02, output=None, quality=None, cost=0.0005)
COST: Final = Cost(per_second=1.0)
WATCHED: Final = Watched(pl.Schema(), pl.Schema(), (), frozenset(), frozenset(), pl.Schema())
_KEYS: Final = [f'"UA-{number}"'.encode() for number in range(5_000)]
_ROUTER: Final = Router("bulk", PERCENT)
_TO_CANARY: Final = np.array([_ROUTER.to_canary(key) for key in _KEYS])


def traffic(random: np.random.Generator, order: Order, slower: float = 1.0, *, canary: bool = True) -> pl.DataFrame:
    """Decisions; `slower` is how much longer the canary's model takes."""
    arm = _TO_CANARY[random.integers(0, len(_KEYS), 2 * CALLS * SIZE)] & canary
    call = np.repeat(np.arange(CALLS), SIZE)
    bulk = arm[: CALLS * SIZE]
    rows = np.stack([np.bincount(call[bulk == mine], minlength=CALLS) for mine in (False, True)])
    pace = ROW_SECONDS * random.lognormal(0, 0.3, (2, CALLS)) * np.array([[1.0], [slower]])
    took = rows * pace  # each version's part of a call runs as one
    if order == "canary last":
        took[1] += took[0]
    single = arm[CALLS * SIZE :]
    own = ROW_SECONDS * random.lognormal(0, 0.3, len(single)) * np.where(single, slower, 1.0)
    return pl.DataFrame(
        {
            ARM: arm,
            "seconds": np.concatenate([took[bulk.astype(int), call], own]),
            "call_size": pl.Series([SIZE] * (CALLS * SIZE) + [None] * len(single), dtype=pl.Int64),
        }
    ).with_columns(
        pl.lit("answered").alias("outcome"),
        pl.lit([], pl.List(pl.String)).alias("reasons"),
        pl.lit(None, pl.String).alias("input"),
        pl.lit(None, pl.String).alias("output"),
    )


def judged(seed: int, order: Order, slower: float = 1.0) -> tuple[Judgement, list[float]]:
    """What is said of a canary after several looks, or once it is harmful; and how the means of all times compare."""
    random = np.random.default_rng(seed)
    known = yardstick(traffic(random, order, canary=False), WATCHED)
    judge = begin(CanaryStage(steps=(PERCENT,), guards=GUARDS, min_decisions=1))
    said, biased = verdict(judge, step=0, hours=1.0), list[float]()
    while said.reason != "harm" and len(biased) < LOOKS:
        rows = traffic(random, order, slower)
        arms = count_arms(rows, known, WATCHED, COST)
        judge = fold(judge, Evidence(step=0, canary=arms[True], production=arms[False]))
        mean = dict(rows.group_by(ARM).agg(pl.col("seconds").mean()).iter_rows())
        biased.append(mean[True] - mean[False])
        said = verdict(judge, step=0, hours=1.0)
    return said, biased


@pytest.mark.parametrize("order", ["at once", "canary last"])
def test_neither_version_is_favoured_by_how_many_share_a_call(order: Order) -> None:
    found = [judged(seed, order) for seed in range(RUNS)]
    harmful = sum(said.reason == "harm" for said, _ in found)
    assert surely_below(harmful, RUNS) < 0.08
    for name, bound in (("latency", 0.003), ("cost", 0.0001)):
        apart = [each.difference for said, _ in found for each in said.guards if each.guard == name]
        differences = np.array([each for each in apart if each is not None])
        assert len(differences) == RUNS
        assert abs(differences.mean()) < bound
        assert abs(differences.mean()) < 4 * differences.std() / np.sqrt(RUNS), "nothing but chance is left"
    seen = float(np.mean([each for _, biased in found for each in biased]))
    favoured = seen > ROW_SECONDS if order == "canary last" else seen < -10 * ROW_SECONDS
    assert favoured, "all times together favour one of them"


def test_a_model_that_is_slower_is_found_though_its_few_of_each_call_are_done_sooner() -> None:
    found = [judged(1_000 + seed, "at once", slower=2.0) for seed in range(RUNS // 2)]
    assert all(said.reason == "harm" for said, _ in found)
    assert {each.guard for said, _ in found for each in said.guards if each.state == "harmful"} <= {"latency", "cost"}


def test_where_next_to_no_call_is_for_one_there_is_no_latency_to_compare() -> None:
    random = np.random.default_rng(3)
    rows = traffic(random, "at once", canary=False)
    bulk = rows.filter(pl.col("call_size").is_not_null())
    single = rows.filter(pl.col("call_size").is_null())
    assert yardstick(bulk, WATCHED).slow_seconds is None
    few = round(ALONE_SHARE * bulk.height) - 1
    assert few > FEWEST_SAMPLED
    assert yardstick(pl.concat([bulk, single.head(few)]), WATCHED).slow_seconds is None
    enough = yardstick(pl.concat([bulk, single.head(2 * few)]), WATCHED)
    assert enough.slow_seconds == pytest.approx(single.head(2 * few)["seconds"].quantile(0.99, "higher"))


def test_what_shares_a_call_is_not_timed() -> None:
    rows = traffic(np.random.default_rng(4), "at once")
    for arm in count_arms(rows, Yardstick(slow_seconds=0.0), WATCHED, COST).values():
        assert arm.slow == arm.decisions - arm.untimed > 0
        assert arm.untimed > 0
