from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from mainstay.monitoring.causes import (
    Fall,
    Moments,
    Picture,
    Shift,
    cause_of,
    contributions,
    decompose,
    distance,
    is_constant,
    unit_change,
)
from mainstay.monitoring.findings import Change, Kind, Part

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

SINCE = datetime(2026, 5, 1, tzinfo=UTC)
DAY = timedelta(days=1)
SMALLEST = 0.05
EDGES = np.linspace(-3, 3, 21)


def picture(**known: Any) -> Picture:
    return Picture(since=SINCE, window=DAY, smallest_drift=SMALLEST, **known)


def change(what: Any = "release", days: float = 0.0, columns: tuple[str, ...] = ()) -> Change:
    return Change(at=SINCE + days * DAY, what=what, subject=f"{what} 7", text="for a test", columns=columns)


def drawn(
    random: np.random.Generator, shares: tuple[float, ...], means: tuple[float, ...], rows: int
) -> NDArray[np.float64]:
    """Counts by segment and bin: normal values about a mean of each segment; the last bin is of the missing."""
    found = []
    for share, mean in zip(shares, means, strict=True):
        values = random.normal(mean, 1, round(rows * share))
        codes = np.searchsorted(EDGES, values)
        found.append(np.bincount(codes, minlength=len(EDGES) + 2))
    return np.array(found, np.float64)


def shift_of(name: str, before: NDArray[np.float64], now: NDArray[np.float64], **known: Any) -> Shift:
    parts = decompose(before, now)
    assert parts is not None
    names = [f"region={place}" for place in range(len(before))]
    return Shift(
        name=name,
        distance=distance(before.sum(0), now.sum(0)),
        within=parts.within,
        mix=parts.mix,
        segments=contributions(before, now, names),
        missing_before=float(before[:, -1].sum() / before.sum()),
        missing_now=float(now[:, -1].sum() / now.sum()),
        is_constant=is_constant(before.sum(0), now.sum(0)),
        **known,
    )


BEFORE = ((0.5, 0.3, 0.2), (0.0, 1.0, 2.0))


def fell(random: np.random.Generator) -> tuple[Fall, ...]:
    """A metric that fell, or none that did."""
    metric = ("accuracy", "roc_auc")[int(random.integers(2))]
    return (Fall(metric=metric, loss=0.05),) if random.random() < 0.5 else ()


def moved_by(random: np.random.Generator, by: float, rows: int) -> NDArray[np.float64]:
    return drawn(random, BEFORE[0], tuple(mean + by for mean in BEFORE[1]), rows)


def broken(random: np.random.Generator, before: NDArray[np.float64], rows: int, strength: float) -> Picture:
    form = random.integers(4)
    if form == 0:
        told = change("upstream", random.uniform(-0.9, 0.9), ("x",))  # another schema, and a column that drifts with it
        return picture(shifts=(shift_of("input.x", before, moved_by(random, strength, rows)),), changes=(told,))
    if form == 1:
        unit = shift_of("input.x", before, moved_by(random, 2, rows), unit="miles to kilometres")
        return picture(shifts=(unit,))
    now = drawn(random, *BEFORE, rows)
    if form == 2:  # values that are missing
        gone = now * random.uniform(0.2, 0.9)
        now -= gone
        now[:, -1] += gone.sum(1)
    else:  # one value only
        total = now.sum(1)
        now[:] = 0
        now[:, 7] = total
    return picture(shifts=(shift_of("input.x", before, now),), falls=fell(random))


def mixed(random: np.random.Generator, before: NDArray[np.float64], rows: int, _: float) -> Picture:
    by = 0.15 + 0.25 * float(random.random())
    shares = (0.5 - by, 0.3, 0.2 + by) if random.random() < 0.5 else (0.5 - by, 0.3 + by, 0.2)
    shown = [shift_of("input.x", before, drawn(random, shares, BEFORE[1], rows))]
    if random.random() < 0.5:  # what the model says moves with it
        was, now = (drawn(random, each, (0.0, 1.5, 2.5), rows) for each in (BEFORE[0], shares))
        shown.append(shift_of("output.p", was, now))
    return picture(shifts=tuple(shown))


def changed(random: np.random.Generator, before: NDArray[np.float64], rows: int, strength: float) -> Picture:
    if random.random() < 0.3:
        return picture(labels_changed=True, falls=fell(random))
    shares = BEFORE[0] if random.random() < 0.5 else (0.45, 0.32, 0.23)
    now = drawn(random, shares, tuple(mean + strength for mean in BEFORE[1]), rows)
    return picture(shifts=(shift_of("input.x", before, now),), falls=fell(random))


def wrong(random: np.random.Generator, before: NDArray[np.float64], rows: int, strength: float) -> Picture:
    form = random.integers(3)
    moved = shift_of("output.p", before, moved_by(random, strength, rows))
    if form == 0:
        return picture(shifts=(moved,), changes=(change(days=random.uniform(-0.9, 0.5)),))
    if form == 1:
        return picture(falls=(Fall(metric="calibration_error", loss=0.05),), shifts=(moved,))
    some = Fall(metric="accuracy", loss=0.05, segments=(Part(name="region=1", share=0.2),), looked_at=3)
    return picture(falls=(some,))


SIMULATED: dict[Kind, Callable[[np.random.Generator, NDArray[np.float64], int, float], Picture]] = {
    "data_broken": broken,
    "traffic_mix": mixed,
    "world_changed": changed,
    "model_wrong": wrong,
}


def simulate(random: np.random.Generator, kind: Kind) -> Picture:
    """A window of one kind, of a size, a strength and a form that differ."""
    strength = float(random.uniform(0.3, 1.0)) * (1 if random.random() < 0.5 else -1)
    rows = int(random.integers(2_000, 20_000))
    return SIMULATED[kind](random, drawn(random, *BEFORE, 10_000), rows, strength)


@pytest.mark.parametrize("kind", list(SIMULATED))
def test_each_kind_of_cause_is_told_from_the_others(kind: Kind) -> None:
    random = np.random.default_rng(7)
    told = Counter(cause_of(simulate(random, kind)).kind for _ in range(150))
    assert told[kind] >= 0.95 * told.total(), told


def test_what_changed_with_the_mix_alone_is_no_distance_within_segments() -> None:
    random = np.random.default_rng(1)
    before = drawn(random, *BEFORE, 20_000)
    now = drawn(random, (0.1, 0.3, 0.6), BEFORE[1], 20_000)
    parts = decompose(before, now)
    assert parts is not None
    assert parts.total > 0.2
    assert parts.within < 0.01
    assert parts.mix == pytest.approx(0.4, abs=0.02)


def test_a_segment_that_nobody_knew_is_mix_and_nothing_is_said_where_no_segment_is_known() -> None:
    before = np.array([[50.0, 50.0, 0.0], [1.0, 0.0, 0.0]])
    now = np.array([[50.0, 50.0, 0.0], [0.0, 100.0, 0.0]])
    parts = decompose(before, now)
    assert parts is not None
    assert parts.within < parts.mix
    assert decompose(np.array([[1.0, 2.0, 0.0]]), np.array([[5.0, 5.0, 0.0]])) is None


def test_the_segments_that_contribute_most_come_first() -> None:
    random = np.random.default_rng(2)
    before = drawn(random, *BEFORE, 20_000)
    now = drawn(random, BEFORE[0], (0.0, 2.0, 2.1), 20_000)
    parts = contributions(before, now, ["north", "south", "west"])
    assert parts[0].name == "south"
    assert parts[0].distance == pytest.approx(0.38, abs=0.05)  # a little less, for what chance may add


def test_a_distance_is_about_zero_where_only_chance_differs() -> None:
    random = np.random.default_rng(3)
    found = [distance(drawn(random, *BEFORE, 5_000).sum(0), drawn(random, *BEFORE, 1_000).sum(0)) for _ in range(100)]
    assert np.mean(found) < 0.01
    assert distance(np.zeros(3), np.ones(3)) == 0


@pytest.mark.parametrize(
    ("now", "known_as"),
    [
        (Moments(500, 16.09, 3.22), "miles to kilometres"),
        (Moments(500, 6.21, 1.24), "kilometres to miles"),
        (Moments(500, 50.0, 3.6), "Celsius to Fahrenheit"),
        (Moments(500, 10_000.0, 2_000.0), "whole to thousandths, as seconds to milliseconds"),
        (Moments(500, 13.0, 2.0), ""),  # all higher, and no wider
        (Moments(500, 10.0, 3.2), ""),  # wider, and about the same
        (Moments(10, 16.09, 3.22), ""),  # too few
    ],
)
def test_a_change_of_unit_explains_both_the_mean_and_the_spread(now: Moments, known_as: str) -> None:
    assert unit_change(Moments(1_000, 10.0, 2.0), now, apart=0.8) == known_as
    assert unit_change(Moments(1_000, 10.0, 2.0), now, apart=0.1) == ""


def test_what_changed_near_the_time_is_told_and_what_did_not_is_not() -> None:
    shift = Shift(name="input.x", distance=0.2)
    far, near = change(days=-30), change("upstream", 0.5)
    cause = cause_of(picture(shifts=(shift,), changes=(far, near)))
    assert cause.changes == (near,)
    assert cause.kind == "world_changed"


def test_violations_and_feeds_are_broken_data_whatever_else_is_seen() -> None:
    shift = Shift(name="input.x", distance=0.2)
    assert cause_of(picture(shifts=(shift,), violations="12 % of calls break the contract")).kind == "data_broken"
    assert cause_of(picture(shifts=(shift,), feeds=("feed x is held",))).kind == "data_broken"


def test_nothing_seen_has_no_cause() -> None:
    assert cause_of(picture()).kind == "unclear"
