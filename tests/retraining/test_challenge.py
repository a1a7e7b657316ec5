"""When a challenger is better, and when it is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mainstay.capability.keeping import Retraining
from mainstay.retraining.challenge import MIN_ROWS, OTHERS, Challenge, judge
from mainstay.retraining.paired import Cases

N = 3_000
DECLARED = Retraining(train="train.py:train")


def played(skills: tuple[float, float], *, hurt: str = "", seed: int = 0, n: int = N, **changes: Any) -> Challenge:
    """A champion and a challenger of these skills; on the segment `hurt` the challenger says the contrary."""
    random = np.random.default_rng(seed)
    hidden = random.normal(size=n)
    truth = random.random(n) < 1 / (1 + np.exp(-2 * hidden))
    segment = random.choice(["a", "b", "c", "rare"], n, p=[0.5, 0.3, 0.18, 0.02])
    shared = random.normal(size=n)
    scores = [1 / (1 + np.exp(-(skill * hidden + shared))) for skill in skills]
    scores[1] = np.where(segment == hurt, 1 - scores[1], scores[1])
    one, two = (Cases(truth, None, score) for score in scores)
    declared = Retraining(train="train.py:train", **changes)
    days = np.arange(n) // (n // 30)
    return judge(declared, "roc_auc", one, two, blocks=days, segments={"part": segment.tolist()})


def test_one_that_is_better_everywhere_is_better() -> None:
    found = played((0.5, 2.0))
    assert (found.verdict, found.blocks) == ("better", 30)
    assert found.better is not None
    assert found.better.low > 0
    assert {(each.value, each.verdict) for each in found.segments} >= {("a", "holds"), ("b", "holds"), ("c", "holds")}
    assert "no segment loses" in found.why


def test_one_that_is_only_a_little_better_than_asked_is_not() -> None:
    assert played((0.5, 2.0), margin=0.5).verdict == "not_better"


@pytest.mark.parametrize("skills", [(1.0, 1.0), (2.0, 0.5)])
def test_one_that_is_alike_or_worse_is_not(skills: tuple[float, float]) -> None:
    assert played(skills).verdict == "not_better"


def test_alike_ones_are_called_better_as_seldom_as_the_interval_says() -> None:
    better = 0
    for seed in range(300):
        random = np.random.default_rng(seed)
        truth = random.random(400) < 0.5
        one, two = (Cases(truth, None, random.random(400)) for _ in range(2))
        better += judge(DECLARED, "brier", one, two, blocks=np.arange(400), segments={}).verdict == "better"
    assert better <= 16, "2.5 % of 300 are 7.5, and 16 or more would come once in 200 times"


def test_one_that_loses_on_a_segment_is_refused_and_told_where() -> None:
    found = played((0.2, 3.0), hurt="c")
    assert found.verdict == "not_better"
    assert "loses on part=c" in found.why
    assert found.better is not None
    assert found.better.low > 0, "over all it is better"


def test_rare_segments_are_looked_at_together() -> None:
    rest = [each for each in played((0.5, 2.0)).segments if each.value == OTHERS]
    assert len(rest) == 1
    assert rest[0].rows < 100
    assert rest[0].verdict == "unknown"


def test_too_few_rows_say_nothing() -> None:
    found = played((0.5, 2.0), n=MIN_ROWS - 50)
    assert found.verdict == "unknown"
    assert f"at least {MIN_ROWS}" in found.why


def test_one_that_leaves_rows_without_an_answer_is_not_better() -> None:
    random = np.random.default_rng(0)
    truth = random.random(N) < 0.5
    champion = Cases(truth, None, np.where(truth, 0.6, 0.4))
    scores = np.where(truth, 0.9, 0.1)
    scores[::20] = np.nan
    found = judge(DECLARED, "brier", champion, Cases(truth, None, scores), blocks=np.arange(N), segments={})
    assert found.verdict == "not_better"
    assert "no answer for 5.0%" in found.why
    assert found.rows == N - N // 20


def test_classes_that_were_not_given_are_no_answers() -> None:
    truth = np.array(["x", "y"] * 200)
    said = truth.astype(object)
    said[0] = None
    found = judge(
        DECLARED, "accuracy", Cases(truth, said, None), Cases(truth, truth, None), blocks=np.arange(400), segments={}
    )
    assert found.unanswered[0] == pytest.approx(1 / 400)
    assert found.rows == 399
