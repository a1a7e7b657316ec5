from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.monitoring.plots import (
    MOST_LEVELS,
    Bar,
    Bin,
    Bound,
    Event,
    Point,
    Series,
    histogram,
    lines,
    named_levels,
    reliability,
    ticks,
)

HOUR = 3_600.0


def parsed(figure: str) -> ET.Element:
    return ET.fromstring(figure)  # noqa: S314 - made here


def texts(figure: str) -> list[str]:
    return ["".join(each.itertext()) for each in parsed(figure).iter("text")]


def test_every_plot_says_in_words_what_it_draws_and_hostile_words_stay_words() -> None:
    plots = [
        lines("<b>a & b</b>", 'say "x" < y', [Series("s<1>", [Point(0, 1), Point(HOUR, 2)])]),
        histogram("<b>a & b</b>", 'say "x" < y', [Bar("<script>", 0.2, 0.3)]),
        reliability("<b>a & b</b>", 'say "x" < y', [Bin(0.5, 0.4, 0.3, 0.5, 10)]),
    ]
    for plot in plots:
        figure = parsed(plot)
        svg = figure.find("svg")
        assert svg is not None
        assert svg.get("role") == "img"
        ids = (svg.get("aria-labelledby") or "").split()
        told = {each.get("id"): each.text for each in svg if each.tag in {"title", "desc"}}
        assert [told[each] for each in ids] == ["<b>a & b</b>", 'say "x" < y']
        assert "<script" not in plot


def test_nothing_is_drawn_of_nothing() -> None:
    assert lines("t", "s", [Series("a", [])]) == ""
    assert histogram("t", "s", []) == ""
    assert reliability("t", "s", []) == ""


@given(
    st.lists(st.floats(-1e12, 1e12), min_size=1, max_size=30),
    st.lists(st.floats(0, 4e9), min_size=30, max_size=30),
    st.booleans(),
)
def test_every_mark_lies_within_the_picture(values: list[float], at: list[float], percent: bool) -> None:
    points = [Point(when, value, value - 1, value + 1) for when, value in zip(sorted(at), values, strict=False)]
    plot = lines("t", "s", [Series("a", points)], events=[Event(at[0], "x")], bound=Bound(0, "b"), percent=percent)
    for mark in parsed(plot).iter("circle"):
        assert 0 <= float(mark.get("cx", "-1")) <= 640
        assert 0 <= float(mark.get("cy", "-1")) <= 220
    assert "nan" not in plot
    assert "inf" not in re.sub(r"info|infin", "", plot)


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9))
def test_ticks_are_round_few_and_within(low: float, reach: float) -> None:
    found = ticks(low, low + reach)
    assert len(found) <= 12
    slack = reach * 1e-3 + abs(low) * 1e-9
    assert all(low - slack <= each <= low + reach + slack for each in found)


def test_an_axis_of_ages_begins_at_zero() -> None:
    assert "0" in texts(lines("t", "s", [Series("a", [Point(0, 0), Point(0.5, 1)])], over="days", percent=True))
    assert not any(
        each.startswith("-") for each in texts(lines("t", "s", [Series("a", [Point(0, 5), Point(0, 9)])], over="days"))
    )


def test_rare_texts_become_one_bar_and_no_share_is_lost() -> None:
    bars = [Bar(f"v{place}", 1 / 40, 1 / 40) for place in range(40)]
    found = named_levels(bars)
    assert len(found) == MOST_LEVELS + 1
    assert sum(bar.window for bar in found) == pytest.approx(1)


def test_words_of_events_that_stand_close_are_set_apart_or_left_to_the_line() -> None:
    events = [Event(HOUR * 10 + place, f"release {place}") for place in range(6)]
    plot = lines("t", "s", [Series("a", [Point(0, 1), Point(HOUR * 20, 2)])], events=events)
    words = [each for each in parsed(plot).iter("text") if each.get("class") == "event-said"]
    assert len({(each.get("x"), each.get("y")) for each in words}) == len(words) == 3
    assert len([each for each in parsed(plot).iter("path") if each.get("class") == "event"]) == 6
