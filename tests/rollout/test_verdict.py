from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace

from mainstay.capability.keeping import CanaryStage, Guards
from mainstay.rollout.judging import Judge, begin, fold
from mainstay.rollout.judging_types import Arm, Evidence, Judgement, Standing
from mainstay.rollout.sequential_differences import Sums, counted
from mainstay.rollout.verdict import verdict
from rollout.simulated import Version, made_arm, made_evidence, roll_out

GOOD = Version()
STAGE = CanaryStage(guards=Guards(quality=None))


def _told(judge: Judge, canary: Version, *, n: int, percent: float, step: int = 0, seed: int = 0) -> Judge:
    return fold(judge, made_evidence(np.random.default_rng(seed), n, percent, step, canary, GOOD))


def _standing(judgement: Judgement, guard: str) -> Standing:
    return next(each for each in judgement.guards if each.guard == guard)


def test_nothing_known_is_no_verdict() -> None:
    said = verdict(begin(CanaryStage(), quality="share", output_fields=["score"]), step=0, hours=0)
    assert (said.ruling, said.reason, said.why) == (
        "keep_collecting",
        "too_few_decisions",
        "0 of 500 decisions in this step",
    )
    assert {each.state for each in said.guards} == {"no_evidence"}
    assert [each.guard for each in said.guards] == ["errors", "fallback", "review", "latency", "quality", "output"]
    assert said.more == 500


def test_a_step_is_passed_with_the_minimum_and_production_is_reached_with_proof_only() -> None:
    judge = _told(begin(STAGE), GOOD, n=11_000, percent=5.0)
    said = verdict(judge, step=0, hours=1)
    assert (said.ruling, said.reason) == ("promote", "minimum_reached")
    assert _standing(said, "errors").state == "open"
    last = replace(STAGE, steps=(5.0,))
    same = fold(begin(last), made_evidence(np.random.default_rng(0), 11_000, 5.0, 0, GOOD, GOOD))
    said = verdict(same, step=0, hours=1)
    assert (said.ruling, said.reason) == ("keep_collecting", "not_yet_shown")
    assert said.why.startswith("not yet shown: errors ")
    assert said.more is not None
    more = _told(same, GOOD, n=20 * (said.more + 1_000), percent=5.0, seed=1)
    said = verdict(more, step=0, hours=1)
    assert (said.ruling, said.reason) == ("promote", "not_worse")
    assert said.why == "every guard is kept: errors, fallback, review, latency"


def test_a_canary_that_fails_at_once_goes_back_at_once() -> None:
    broken = Version(errors=1.0)
    judge = _told(begin(STAGE), broken, n=400, percent=5.0)
    said = verdict(judge, step=0, hours=0.01)
    assert said.decisions < 30
    assert (said.ruling, said.reason) == ("roll_back", "harm")
    assert [each.guard for each in said.guards if each.state == "harmful"] == ["errors"]
    assert said.why.startswith("errors 100.00 % against ")
    assert said.harm >= said.needed == 100


def test_a_step_that_lasts_too_long_is_given_up_and_says_what_is_missing() -> None:
    said = verdict(_told(begin(STAGE), GOOD, n=2_000, percent=5.0), step=0, hours=336)
    assert (said.ruling, said.reason) == ("roll_back", "waited_too_long")
    assert said.why == f"336 hours in this step, {said.decisions} of 500 decisions in this step"
    assert not any(each.state == "harmful" for each in said.guards)
    last = _told(begin(STAGE), GOOD, n=1_200, percent=50.0, step=2)
    said = verdict(last, step=2, hours=400)
    assert said.reason == "waited_too_long"
    assert "not yet shown: errors" in said.why


def test_what_looks_worse_than_tolerated_keeps_the_step_collecting() -> None:
    arm, other = Arm(decisions=520, errors=11), Arm(decisions=9_480, errors=95)
    said = verdict(fold(begin(STAGE), Evidence(canary=arm, production=other)), step=0, hours=1)
    assert (said.ruling, said.reason) == ("keep_collecting", "in_doubt")
    assert said.why.startswith("in doubt: errors 2.12 % against 1.00 %, a difference of 1.11 points (")
    assert _standing(said, "errors").more is not None


def test_labels_are_waited_for_where_they_are_asked_for() -> None:
    stage = CanaryStage(min_labels=300, guards=Guards(quality=0.05))
    version = Version(labelled=0.2)
    judge = begin(stage, quality="share")
    judge = fold(judge, made_evidence(np.random.default_rng(0), 4_000, 25.0, 0, version, version))
    said = verdict(judge, step=0, hours=1)
    assert (said.ruling, said.reason) == ("keep_collecting", "too_few_labels")
    assert said.why == f"{said.labels} of 300 labels"
    assert _standing(said, "quality").required
    without = begin(CanaryStage(), quality="share")
    without = fold(without, made_evidence(np.random.default_rng(0), 4_000, 25.0, 0, version, version))
    assert verdict(without, step=0, hours=1).ruling == "promote"
    assert not _standing(verdict(without, step=0, hours=1), "quality").required


def test_labels_of_weeks_ago_take_a_version_back_from_production() -> None:
    judge = begin(CanaryStage(), quality="share")
    for step, percent in enumerate((5.0, 25.0, 50.0)):
        judge = _told(judge, replace_labels(GOOD), n=20_000, percent=percent, step=step)
    said = verdict(judge, step=2, hours=1)
    assert said.ruling == "promote"
    rng = np.random.default_rng(9)
    for step, n1, n0 in ((0, 900, 15_000), (1, 4_000, 12_000)):
        labels = [counted(n, int(rng.binomial(n, rate))) for n, rate in ((n1, 0.15), (n0, 0.10))]
        judge = fold(judge, Evidence(step=step, canary=Arm(quality=labels[0]), production=Arm(quality=labels[1])))
    said = verdict(judge, step=2, hours=900, settled=True)
    assert (said.ruling, said.reason) == ("roll_back", "harm")
    assert "quality: loss 0.1" in said.why


def replace_labels(version: Version) -> Version:
    """The version before any label arrived."""
    return Version(**{**version.__dict__, "labelled": 0.0})


def test_in_production_nothing_else_happens() -> None:
    said = verdict(_told(begin(STAGE), GOOD, n=5_000, percent=50.0, step=2), step=2, hours=9_000, settled=True)
    assert (said.ruling, said.reason, said.more) == ("keep_collecting", "watching", None)


def test_surely_worse_and_surely_within_the_tolerance_stays() -> None:
    n = 4_000_000
    canary, production = (Arm(decisions=n, errors=int(n * rate)) for rate in (0.012, 0.010))
    said = verdict(fold(begin(STAGE), Evidence(step=2, canary=canary, production=production)), step=2, hours=1)
    errors = _standing(said, "errors")
    assert errors.harm > 1e6
    assert errors.state == "kept"
    assert said.ruling != "roll_back"
    assert said.harm < 1


def test_a_harm_that_only_the_last_step_brings_is_seen_past_all_the_good_before() -> None:
    judge = begin(STAGE)
    for step, percent in ((0, 5.0), (1, 25.0)):
        judge = _told(judge, GOOD, n=100_000, percent=percent, step=step)
    overloaded = Version(errors=0.04)
    judge = _told(judge, overloaded, n=6_000, percent=50.0, step=2, seed=1)
    assert (_standing(verdict(judge, step=2, hours=1), "errors").difference or 1) < 0.01
    assert verdict(judge, step=2, hours=1).reason == "harm"


def test_a_canary_that_harms_one_segment_only_is_caught() -> None:
    segments = [f"carrier={n}" for n in range(10)]
    canary = Version(segments={**dict.fromkeys(segments, 0.01), "carrier=3": 0.25})
    production = Version(segments=dict.fromkeys(segments, 0.01))
    said, decisions, _ = roll_out(begin(STAGE, segments=segments), canary, production, seed=4, most=20)
    assert said.reason == "harm"
    assert said.why.startswith("errors of carrier=3 ")
    assert [each.segment for each in said.segments if each.state == "harmful"] == ["carrier=3"]
    assert decisions <= 12_000


def test_a_segment_in_doubt_holds_the_step() -> None:
    rng = np.random.default_rng(0)
    judge = begin(STAGE, segments=[f"carrier={n}" for n in range(20)])
    good = made_evidence(rng, 12_000, 5.0, 0, GOOD, GOOD)
    bad = Arm(decisions=60, errors=8)
    judge = fold(judge, replace(good, segments={"carrier=3": (bad, made_arm(rng, 1_000, GOOD))}))
    said = verdict(judge, step=0, hours=1)
    assert (said.reason, [(each.segment, each.state) for each in said.segments]) == (
        "in_doubt",
        [("carrier=3", "in_doubt")],
    )


def test_outputs_that_went_elsewhere_roll_back() -> None:
    canary = Version(outputs=(0.4, 0.2, 0.2, 0.1, 0.1))
    said, decisions, _ = roll_out(begin(STAGE, output_fields=["score"]), canary, GOOD, seed=1)
    assert said.reason == "harm"
    assert said.why.startswith("output score at a distance of 0.")
    assert decisions <= 15_000


def test_a_cost_that_rises_rolls_back_and_one_that_does_not_is_shown() -> None:
    stage = CanaryStage(guards=Guards(cost=0.5, quality=None))
    rng = np.random.default_rng(2)
    for factor, expected in ((2.0, "harm"), (1.0, "not_worse")):
        judge, said = begin(stage), verdict(begin(stage), step=2, hours=0)
        for _ in range(12):
            arms = []
            for f in (factor, 1.0):
                costs = f * rng.exponential(1.0, 500)
                arms.append(made_cost(made_arm(rng, 500, GOOD), costs))
            judge = fold(judge, Evidence(step=2, canary=arms[0], production=arms[1]))
            said = verdict(judge, step=2, hours=0)
            if said.reason == "harm":
                break
        assert said.reason == expected


def made_cost(arm: Arm, costs: np.ndarray) -> Arm:
    """An arm whose decisions cost something."""
    return replace(arm, cost=Sums(len(costs), float(costs.sum()), float((costs**2).sum())))


@pytest.mark.parametrize(("canary", "reason"), [(GOOD, "not_worse"), (Version(errors=0.05), "harm")])
def test_a_whole_rollout_ends_as_it_should(canary: Version, reason: str) -> None:
    said, _, step = roll_out(begin(STAGE, output_fields=["score"]), canary, GOOD, seed=3)
    assert said.reason == reason
    assert (step == 2) == (reason == "not_worse")
