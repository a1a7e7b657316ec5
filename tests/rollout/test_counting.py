from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING

import polars as pl
import pytest

import tiny
from mainstay.capability.keeping import Cost
from mainstay.capability.load import load_capability
from mainstay.lake.decision_rows import DECISIONS, SCHEMAS, SHADOWS
from mainstay.monitoring.layouts import watched_of
from mainstay.rollout.counting import ARM, MOST_KEYS, Keys, compare, count_arms, count_keys, yardstick

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.monitoring.layouts import Watched


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return watched_of(load_capability(tiny.write_folder(tmp_path / "tiny")))


def decision(number: int, outcome: str = "answered", reason: str = "", **changes: object) -> dict[str, object]:
    return {
        "sequence": number,
        "id": f"d{number}",
        "outcome": outcome,
        "reasons": [reason] if reason else [],
        "output": json.dumps({"probability": number / 100, "yes": number >= 50}),
        "seconds": number / 1_000,
        **changes,
    }


def decisions(rows: list[dict[str, object]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=SCHEMAS[DECISIONS])


def test_the_yardstick_is_that_of_answers_before(watched: Watched) -> None:
    found = yardstick(decisions([decision(number) for number in range(100)]), watched)
    assert found.slow_seconds == pytest.approx(0.099)
    assert {each.name for each in found.columns} == {"output.probability", "output.yes"}
    few = yardstick(decisions([decision(1)]), watched)
    assert (few.slow_seconds, few.columns) == (None, ())


def test_an_arm_counts_what_its_version_did(watched: Watched) -> None:
    known = yardstick(decisions([decision(number) for number in range(100)]), watched)
    rows = [
        decision(1),
        decision(2, seconds=5.0),
        decision(3, "fallback", "model_crashed"),
        decision(4, "review", "low_confidence"),
    ]
    counted = decisions(rows).with_columns(pl.lit(value=True).alias(ARM))
    arm = count_arms(counted, known, watched, Cost(per_decision=1.0, per_review=10.0))[True]
    assert (arm.decisions, arm.errors, arm.fallback, arm.review, arm.slow) == (4, 1, 1, 1, 1)
    assert (arm.cost.n, arm.cost.total, arm.cost.squares) == (4, 14.0, 124.0)
    assert {name: sum(counts) for name, counts in arm.outputs.items()} == {"probability": 2, "yes": 2}


def test_shadows_differ_in_their_outcome_or_in_what_is_no_number(watched: Watched) -> None:
    rows = decisions([decision(number) for number in range(40, 60)])
    said = [
        {
            "decision_id": f"d{number}",
            "outcome": "fallback" if number == 45 else "answered",
            "reasons": ["model_error"] if number == 45 else [],
            "output": json.dumps({"probability": number / 100 + 0.02, "yes": number >= 52}),
            "seconds": 0.5,
        }
        for number in range(40, 65)  # the decisions of the last five are not there
    ]
    found = compare(pl.DataFrame(said, schema=SCHEMAS[SHADOWS]), rows, watched)
    assert (found.compared, found.outcomes_differ, found.outputs_differ, found.errors) == (20, 1, 2, 1)
    assert found.disagreement == pytest.approx(0.15)
    assert found.plus(found).compared == 40


def test_keys_that_repeat_are_counted_exactly_or_by_a_sample_of_them() -> None:
    few = count_keys(Keys(), pl.Series(["0a" * 16] * 3 + ["0b" * 16] + [None], dtype=pl.String))
    assert few.decisions_per_key == pytest.approx((9 + 1 + 1) / 5)
    names = [sha256(str(number).encode()).hexdigest()[:32] for number in range(4_000)]
    many = Keys()
    for _ in range(5):
        many = count_keys(many, pl.Series(names))
    assert len(many.seen) <= MOST_KEYS
    assert many.decisions_per_key == pytest.approx(5, rel=0.05)
    assert Keys().decisions_per_key == 1.0
