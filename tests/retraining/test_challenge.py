"""When a challenger is better, and when it is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mainstay.capability.keeping import METRICS, Retraining
from mainstay.retraining.cases import Cases
from mainstay.retraining.challenge import MIN_ROWS, OTHERS, Challenge, judge
from mainstay.retraining.rows import as_objects

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


def test_where_nothing_was_yes_it_says_that_it_cannot_decide() -> None:
    truth, said = np.zeros(400, dtype=np.bool_), np.arange(400) % 3 == 0
    champion, challenger = Cases(truth, said, said * 0.5), Cases(truth, ~said, said * 0.4)
    for metric in METRICS["binary"]:
        found = judge(DECLARED, metric, champion, challenger, blocks=np.arange(400), segments={"s": ["x"] * 400})
        if metric in ("accuracy", "brier", "log_loss", "precision"):
            assert found.verdict != "unknown"
            continue
        assert found.verdict == "unknown"
        assert found.why == ("it cannot be decided: expected at least 10 rows of each kind, found 0 that were yes")
        assert [each.verdict for each in found.segments] == ["unknown"]


def test_what_varies_on_one_day_alone_cannot_decide() -> None:
    truth = np.arange(600) < 20
    said = np.random.default_rng(0).random(600) < 0.5
    one, two = (Cases(truth, each, None) for each in (said, truth))
    found = judge(DECLARED, "recall", one, two, blocks=np.arange(600) // 20, segments={})
    assert (found.verdict, found.better) == ("unknown", None)
    assert "no value, or no interval" in found.why


def ranked(skill: float, seed: int = 0, n: int = 600) -> Cases:
    """Lists of four of six; one in five has nothing that was relevant."""
    random = np.random.default_rng(seed)
    worth, items = random.normal(size=(n, 6)), np.array(list("abcdef"))
    liked = [items[row > 0.8].tolist() if i % 5 else [] for i, row in enumerate(worth)]
    order = np.argsort(-(skill * worth + np.random.default_rng(seed + 1).normal(size=(n, 6))))
    return Cases(as_objects(liked), as_objects(items[order[:, :4]].tolist()), None)


def test_lists_are_judged_by_those_in_which_something_was_relevant() -> None:
    champion, challenger = ranked(0.3), ranked(2.0)
    lists = sum(1 for each in champion.truth if each)
    parts = {"part": ["a", "b"] * 300}
    for metric in METRICS["ranking"]:
        for top in (1, 3):
            found = judge(DECLARED, metric, champion, challenger, blocks=np.arange(600) // 20, segments=parts, top=top)
            assert found.verdict == "better", found.why
            assert (found.rows, found.blocks, found.top) == (lists, 30, top)
            assert {each.verdict for each in found.segments} == {"holds"}
        assert judge(DECLARED, metric, challenger, champion, blocks=np.arange(600), segments={}).verdict == "not_better"
    few = champion.taken(np.arange(600) < 300)
    assert judge(DECLARED, "ndcg", few, few, blocks=np.arange(300), segments={}).verdict == "unknown"


def test_a_list_that_was_not_offered_is_no_answer() -> None:
    champion, challenger = ranked(0.3), ranked(2.0)
    said = challenger.predicted().copy()
    said[::10] = None
    silent = Cases(challenger.truth, said, None)
    found = judge(DECLARED, "ndcg", champion, silent, blocks=np.arange(600), segments={})
    assert found.verdict == "not_better"
    assert "no answer for 10.0%" in found.why


def test_f1_that_is_lost_on_a_segment_is_told() -> None:
    random = np.random.default_rng(0)
    truth, part = random.random(N) < 0.3, random.choice(["a", "b"], N, p=[0.8, 0.2])
    wrong = random.random((2, N)) < np.array([[0.3], [0.1]])
    wrong[1] |= (part == "b") & (random.random(N) < 0.5)
    one, two = (Cases(truth, truth ^ each, None) for each in wrong)
    found = judge(DECLARED, "f1", one, two, blocks=np.arange(N) // 100, segments={"part": part.tolist()})
    assert found.verdict == "not_better"
    assert "loses on part=b" in found.why
    assert found.better is not None
    assert found.better.low > 0


def test_classes_that_were_not_given_are_no_answers() -> None:
    truth = np.array(["x", "y"] * 200)
    said = truth.astype(object)
    said[0] = None
    found = judge(
        DECLARED, "accuracy", Cases(truth, said, None), Cases(truth, truth, None), blocks=np.arange(400), segments={}
    )
    assert found.unanswered[0] == pytest.approx(1 / 400)
    assert found.rows == 399
