"""The rates a canary's verdicts promise, for whole rollouts with all guards, asked after every batch."""

from __future__ import annotations

import numpy as np
import pytest

from mainstay.capability.keeping import CanaryStage, Guards
from mainstay.rollout.judging import Judge, begin, fold
from mainstay.rollout.verdict import verdict
from rollout.simulated import Version, made_evidence, roll_out, surely_below

pytestmark = pytest.mark.acceptance

GOOD = Version()
RUNS = 130
STAGE = CanaryStage(false_rollbacks=0.05)


def _judge(stage: CanaryStage = STAGE, segments: tuple[str, ...] = ()) -> Judge:
    return begin(stage, quality="share", output_fields=["score"], segments=segments)


def test_a_version_as_good_is_rolled_back_for_harm_in_at_most_the_stated_share_of_rollouts() -> None:
    rng = np.random.default_rng(11)
    harmed = 0
    for _ in range(RUNS):
        judge = _judge(segments=("carrier=AA",))
        for number in range(24):  # on and on, whatever was said; errors come and go with the hour
            now = Version(errors=0.005 + 0.1 * (number % 8 == 7), segments={"carrier=AA": 0.1})
            step = number // 8
            judge = fold(judge, made_evidence(rng, 500, STAGE.steps[step], step, now, now))
            if verdict(judge, step=step, hours=0).reason == "harm":
                harmed += 1
                break
    assert surely_below(harmed, RUNS) <= STAGE.false_rollbacks


@pytest.mark.parametrize(
    ("harmful", "stage"),
    [
        (Version(errors=0.02), STAGE),
        (Version(review=0.15), STAGE),
        (Version(wrong=0.15), CanaryStage(false_rollbacks=0.05, min_labels=500, guards=Guards(quality=0.05))),
    ],
)
def test_a_version_worse_by_the_tolerance_gets_into_production_in_at_most_the_stated_share(
    harmful: Version, stage: CanaryStage
) -> None:
    ends = [roll_out(_judge(stage), harmful, GOOD, seed=seed, most=30)[0] for seed in range(RUNS)]
    promoted = sum(end.reason == "not_worse" for end in ends)
    assert surely_below(promoted, RUNS) <= stage.false_rollbacks
    assert sum(end.reason == "harm" for end in ends) >= RUNS * 0.5


def test_most_versions_as_good_get_into_production_and_harmful_ones_are_rolled_back_soon() -> None:
    good = [roll_out(_judge(), GOOD, GOOD, seed=seed) for seed in range(40)]
    assert sum(end.reason == "not_worse" for end, _, _ in good) >= 38
    assert np.mean([decisions for _, decisions, _ in good]) <= 40_000
    bad = [roll_out(_judge(), Version(errors=0.06), GOOD, seed=seed) for seed in range(40)]
    assert all(end.reason == "harm" for end, _, _ in bad)
    assert np.mean([decisions for _, decisions, _ in bad]) <= 9_000
