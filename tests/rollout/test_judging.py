from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainstay.capability.keeping import CanaryStage, Guards
from mainstay.errors import Misuse
from mainstay.rollout.judging import MOST_SEGMENTS, Judge, begin, fold, guarded
from mainstay.rollout.judging_types import Arm, Evidence
from mainstay.rollout.sequential_differences import Sums
from mainstay.rollout.verdict import verdict
from rollout.simulated import Version, made_arm, made_evidence

STAGE = CanaryStage()


def _judge() -> Judge:
    return begin(STAGE, quality="share", output_fields=["score"], segments=["carrier=AA", "carrier=UA"])


@given(seed=st.integers(0, 1_000), told=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 300)), max_size=6))
@settings(max_examples=20, deadline=None)
def test_a_restart_from_what_was_stored_goes_on_as_if_nothing_had_been(seed: int, told: list[tuple[int, int]]) -> None:
    version = Version(labelled=0.5, segments={"carrier=AA": 0.02})
    rng = np.random.default_rng(seed)
    portions = [made_evidence(rng, n, 25.0, step, version, version) for step, n in told]
    through, stored = _judge(), msgspec.json.encode(_judge())
    for portion in portions:
        through = fold(through, portion)
        fold(msgspec.json.decode(stored, type=Judge), portion)  # killed before it was stored
        stored = msgspec.json.encode(fold(msgspec.json.decode(stored, type=Judge), portion))
    again = msgspec.json.decode(stored, type=Judge)
    assert again == through
    assert verdict(again, step=1, hours=5) == verdict(through, step=1, hours=5)


def test_folding_leaves_the_judge_it_was_given_alone() -> None:
    before = _judge()
    kept = msgspec.json.encode(before)
    after = fold(before, Evidence(canary=Arm(decisions=20), production=Arm(decisions=300)))
    assert msgspec.json.encode(before) == kept
    assert after.decisions == {0: 20}


def test_memory_does_not_grow_with_what_was_folded() -> None:
    rng, version = np.random.default_rng(1), Version()
    judge = begin(STAGE, quality="share", output_fields=["score"])
    sizes = []
    for _ in range(200):
        judge = fold(judge, made_evidence(rng, 1_000, 5.0, 0, version, version))
        sizes.append(len(msgspec.json.encode(judge)))
    assert max(sizes) < 8_000
    assert sizes[-1] < 1.1 * sizes[20]


def test_only_what_is_declared_is_guarded() -> None:
    assert guarded(begin(STAGE).plan) == ("errors", "fallback", "review", "latency")
    stage = CanaryStage(guards=Guards(errors=None, fallback=0.1, review=None, latency=None, output=None, cost=1.0))
    plan = begin(stage, quality="share", output_fields=["score"]).plan
    assert guarded(plan) == ("fallback", "quality", "cost")
    assert plan.outputs == ()


def test_segments_nobody_named_are_left_out() -> None:
    arm = made_arm(np.random.default_rng(0), 100, Version())
    judge = fold(_judge(), Evidence(segments={"carrier=ZZ": (arm, arm), "carrier=AA": (arm, arm)}))
    assert set(judge.segments) == {"carrier=AA", "carrier=UA"}
    assert judge.segments["carrier=AA"]["errors"].cohorts[0].canary.n == 100
    assert set(judge.segments["carrier=UA"]) == {"errors", "fallback", "review", "latency", "quality"}


def test_losses_are_told_on_their_own_scale() -> None:
    judge = begin(STAGE, quality="mean", losses=(-2.0, 8.0))
    arm = Arm(quality=Sums(20, 60.0, 300.0))  # a mean of 3, half of the way from -2 to 8
    judge = fold(judge, Evidence(canary=arm, production=arm))
    assert judge.guards["quality"].cohorts[0].canary.mean == pytest.approx(0.5)
    quality = next(each for each in verdict(judge, step=0, hours=0).guards if each.guard == "quality")
    assert (quality.canary, quality.difference, quality.tolerance) == pytest.approx((3.0, 0.0, 0.01))


def test_what_cannot_be_judged_is_refused() -> None:
    with pytest.raises(Misuse, match="losses: expected the lowest and the highest, found 1 and 1"):
        begin(STAGE, losses=(1.0, 1.0))
    with pytest.raises(Misuse, match=f"expected at most {MOST_SEGMENTS} segments, each once, found 101"):
        begin(STAGE, segments=[f"carrier={n}" for n in range(101)])
    with pytest.raises(Misuse, match="each once, found 2"):
        begin(STAGE, segments=["carrier=AA", "carrier=AA"])
    with pytest.raises(Misuse, match="expected evidence of a step from 0 to 2, found 3"):
        fold(_judge(), Evidence(step=3))
    with pytest.raises(Misuse, match="expected a step from 0 to 2, found 3"):
        verdict(_judge(), step=3, hours=0)
    with pytest.raises(Misuse, match=r"canary: expected sums of values within 0\.\.1, found n=5, 6, 6"):
        fold(_judge(), Evidence(canary=Arm(decisions=5, errors=6)))
