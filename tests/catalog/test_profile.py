from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainstay.catalog.profile import MOST_ROWS, SPLIT_ROWS, fewest_rows, fit_profile
from mainstay.errors import Misuse
from mainstay.runtime.novelty import Novelty, Profile
from mainstay.runtime.types import Feature, Row

if TYPE_CHECKING:
    from mainstay.runtime.tensors import Column

FIELDS = ("a", "b", "c", "d", "e")
FEATURES = [
    Feature("a", "number", nullable=False),
    Feature("b", "integer", nullable=True),
    Feature("c", "string", nullable=True),
    Feature("d", "boolean", nullable=False),
    Feature("e", "number", nullable=True),
]


def table(count: int, seed: int) -> list[Row]:
    random = np.random.default_rng(seed)
    a = random.normal(size=count)
    return [
        (
            float(x),
            None if random.random() < 0.1 else int(random.poisson(2)),
            str(random.choice(["x", "y", "z", f"once {random.integers(10**9)}"], p=[0.6, 0.3, 0.08, 0.02])),
            bool(random.random() < 0.7),
            float(x + np.exp(random.normal())),
        )
        for x in a.tolist()
    ]


def share_flagged(reference: int, rate: float, runs: int, fresh: int = 400) -> float:
    flagged = 0
    for run in range(runs):
        rows = table(reference + fresh, 1_000 * reference + run)
        made = Novelty.load(fit_profile(rows[:reference], FIELDS, FEATURES, false_alarms=0.05), FIELDS)
        flagged += sum(value <= rate for value in made.p_values(rows[reference:]))
    return flagged / (runs * fresh)


@pytest.mark.parametrize(("reference", "runs"), [(60, 30), (250, 15), (SPLIT_ROWS, 6)])
@pytest.mark.parametrize("rate", [0.05, 0.2])
def test_ordinary_rows_are_flagged_no_more_often_than_stated(reference: int, runs: int, rate: float) -> None:
    """Within four standard deviations: those of the fresh rows, and of the calibration, which a run's rows share."""
    deviation = math.sqrt(rate * (1 - rate) * (1 / (runs * 400) + 1 / (runs * reference / 2)))
    share = share_flagged(reference, rate, runs)
    assert share <= rate + 4 * deviation
    assert share >= rate / 2 - 4 * deviation


def test_the_same_rows_make_the_same_bytes() -> None:
    for count in (200, SPLIT_ROWS):
        rows = table(count, 1)
        assert fit_profile(rows, FIELDS, FEATURES) == fit_profile(list(rows), FIELDS, FEATURES)
    assert fit_profile(table(200, 1), FIELDS, FEATURES) != fit_profile(table(200, 2), FIELDS, FEATURES)


@pytest.mark.parametrize(("rate", "needed"), [(0.01, 99), (0.05, 20), (0.2, 20), (0.001, 999), (1 / 3, 20)])
def test_too_few_rows_for_the_rate_are_refused_with_the_number_needed(rate: float, needed: int) -> None:
    assert fewest_rows(rate) == needed
    with pytest.raises(Misuse, match=f"at least {needed} reference rows .* found {needed - 1}"):
        fit_profile(table(needed - 1, 1), FIELDS, FEATURES, false_alarms=rate)
    made = Novelty.load(fit_profile(table(needed, 1), FIELDS, FEATURES, false_alarms=rate), FIELDS)
    assert made.p_values([(1e9, 10**9, "never", None, -1e9)])[0] <= rate


def test_nothing_to_score_is_refused() -> None:
    with pytest.raises(Misuse, match="found none among the inputs"):
        fit_profile(table(200, 1), FIELDS, [])


def test_a_profile_stays_small_however_many_rows_it_is_fitted_on() -> None:
    random = np.random.default_rng(1)
    rows = [(x, f"{k:06}") for x, k in zip(random.normal(size=MOST_ROWS + 1).tolist(), range(MOST_ROWS), strict=False)]
    rows += rows[: len(rows) // 2]
    features = [Feature("a", "number", nullable=False), Feature("c", "string", nullable=False)]
    content = fit_profile(rows, ("a", "c"), features)
    assert len(content) < 500_000


def test_texts_seen_once_or_too_long_are_not_kept_in_the_profile() -> None:
    rows: list[Row] = [("common",), ("other",)] * 100
    rows += [("private",), ("y" * 300,), ("y" * 300,), ("\ud800",), ("\ud800",)]
    content = fit_profile(rows, ["c"], [Feature("c", "string", nullable=False)])
    [text] = msgspec.msgpack.decode(content, type=Profile).texts
    assert set(text.known) == {"common", "other"}


values: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=10**300, max_value=10**400),
    st.floats(),
    st.sampled_from([0.0, 1.0, 5e-324, 1e-323, 1e-300, 1e-200, 2e-160, 1e-100, 1.7e308]),
    st.text(),
    st.text(alphabet=st.characters(categories=["Cs"]), max_size=2),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(values, values, values, values, values), min_size=1, max_size=6), st.integers(0, 99))
def test_whatever_the_reference_rows_hold_they_can_be_fitted(rows: list[Row], seed: int) -> None:
    random = np.random.default_rng(seed)
    reference = [rows[i] for i in random.integers(0, len(rows), 30).tolist()]
    content = fit_profile(reference, FIELDS, FEATURES, false_alarms=0.05)
    made = Novelty.load(content, FIELDS)
    assert all(0 < value <= 1 for value in made.p_values([*reference, *table(20, seed)]))
    assert content == fit_profile(reference, FIELDS, FEATURES, false_alarms=0.05)


@pytest.mark.parametrize("kinds", [1, 2], ids=["numbers", "both kinds"])
def test_wide_tables_can_be_fitted(kinds: int) -> None:
    width = 280
    random = np.random.default_rng(width)
    names = [f"x{i}" for i in range(width)]
    features = [Feature(name, "number" if i % kinds == 0 else "string", nullable=False) for i, name in enumerate(names)]
    rows = [
        tuple(float(v) if feature.kind == "number" else str(v > 0) for v, feature in zip(line, features, strict=True))
        for line in random.normal(size=(25, width)).tolist()
    ]
    made = Novelty.load(fit_profile(rows, names, features, false_alarms=0.05), names)
    assert len(made.p_values(rows)) == 25


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 1_100), st.integers(0, 99))
def test_columns_have_the_p_values_that_their_rows_have(count: int, seed: int) -> None:
    made = Novelty.load(fit_profile(table(200, 1), FIELDS, FEATURES, false_alarms=0.05), FIELDS)
    rows = [
        (row[0], row[1], None if place % 5 == 0 else row[2], row[3], math.inf if place % 9 == 0 else row[4])
        for place, row in enumerate(table(count, seed))
    ]
    a, b, c, d, e = (list(each) for each in zip(*rows, strict=True))
    columns: dict[str, Column] = {
        "a": np.array(a),
        "b": np.array([math.nan if value is None else value for value in b]),
        "c": c,
        "d": np.array(d),
        "e": np.array(e),
    }
    assert made.p_values_of_columns(columns) == made.p_values(rows)
