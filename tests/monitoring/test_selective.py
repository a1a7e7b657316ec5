from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from mainstay.errors import Misuse
from mainstay.monitoring.selective import Cell, SelectiveMean, correct_counts


def draw(rng: np.random.Generator, n: int, *, reviewed: float = 0.9) -> tuple[pl.DataFrame, pl.Series, float]:
    """Decisions of which the unsure are reviewed; reviewed ones are labelled nearly always, the others by score."""
    score = rng.random(n)
    outcome = np.where(np.abs(score - 0.5) < 0.2, "review", "answered")
    right = rng.random(n) < 0.5 + np.abs(score - 0.5)
    propensity = np.where(outcome == "review", reviewed, 0.1 + 0.4 * (score > 0.5))
    labelled = rng.random(n) < propensity
    frame = pl.DataFrame({"outcome": outcome, "score": score})
    values = pl.Series([bool(v) if known else None for v, known in zip(right, labelled, strict=True)], dtype=pl.Boolean)
    return frame, values, float(right.mean())


def cells_of(frame: pl.DataFrame, values: pl.Series) -> list[Cell]:
    """The cells of rows, by their outcome and twentieths of the score."""
    score = (pl.col("score") * 20).floor() / 20
    rows = frame.with_columns(score, values.cast(pl.Float64).alias("value"))
    groups = rows.group_by("outcome", "score").agg(
        pl.len().alias("decisions"), pl.col("value").count().alias("labels"), pl.col("value").sum().alias("yes")
    )
    return [Cell(o, s, n, labels, round(yes)) for o, s, n, labels, yes in groups.sort("outcome", "score").iter_rows()]


def corrected(seed: int, n: int = 2_000, **options: float) -> tuple[SelectiveMean, float]:
    frame, values, truth = draw(np.random.default_rng(seed), n, **options)
    return correct_counts(cells_of(frame, values)), truth


def test_the_correction_holds_its_level_where_the_naive_value_does_not() -> None:
    held, naive = [], []
    for seed in range(120):
        found, truth = corrected(seed)
        held.append(found.low <= truth <= found.high)
        assert found.naive is not None
        naive.append(found.naive.low <= truth <= found.naive.high)
        assert found.identified
        assert found.decisions == 2_000
        assert found.value == found.least == found.most
    assert 0.9 <= np.mean(held) <= 0.99
    assert np.mean(naive) < 0.3


def test_a_kind_of_decision_without_any_label_leaves_an_interval_that_holds_the_truth() -> None:
    held = []
    for seed in range(80):
        found, truth = corrected(seed, reviewed=0.0)
        assert (found.identified, found.value) == (False, None)
        assert found.unknown_share == pytest.approx(0.4, abs=0.05)
        assert found.most - found.least == pytest.approx(found.unknown_share)
        held.append(found.low <= truth <= found.high)
    assert np.mean(held) >= 0.9


def test_bounds_cannot_be_missed_even_where_the_unlabelled_are_all_wrong() -> None:
    found = correct_counts([Cell("answered", 0.25, 500, 500, 500), Cell("refused", 0.75, 500, 0, 0)])
    assert found.least <= 0.5
    assert found.low <= 0.5
    assert found.most == pytest.approx(1.0)
    assert found.naive is not None
    assert found.naive.value == 1.0
    assert [(one.outcome, one.labels, one.mean) for one in found.strata] == [
        ("answered", 500, 1.0),
        ("refused", 0, None),
    ]


def test_with_a_label_for_every_decision_nothing_is_corrected() -> None:
    found = correct_counts([Cell("answered", 0.1, 3, 3, 2), Cell("answered", None, 1, 1, 0)])
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))


def test_cells_that_cannot_be_are_refused() -> None:
    for cells in ([], [Cell("answered", 0.5, 3, 4, 1)], [Cell("answered", 0.5, 0, 0, 0)]):
        with pytest.raises(Misuse, match="no more labels than decisions"):
            correct_counts(cells)
