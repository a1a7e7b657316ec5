"""Plots as inline SVG, for reports that are one file: no script, colours that follow the page's light or dark.

Each plot is a figure with a title and a sentence that says the same in words, for who does not see it. Colours are
classes of the style sheet `STYLE`, so that a plot prints well and needs nothing from elsewhere. A mark tells its values
when it is pointed at.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias
from zlib import crc32

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

Tone: TypeAlias = Literal["main", "other", "third", "quiet"]
"""`main`: what the plot is about. `other`, `third`: beside it. `quiet`: what it is compared with."""

WIDTH: Final = 640
HEIGHT: Final = 220
MOST_POINTS: Final = 2_000  # of one series; more are too many for a page, and are thinned
MOST_LEVELS: Final = 12  # bars of texts that are named; the rest is one bar

_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 14, 34
_LABEL_PIXELS: Final = 6.4  # of a character, on the average
_EVENT_CHARACTERS: Final = 28

STYLE: Final = """\
:root{color-scheme:light dark;--page:#fcfcfb;--panel:#f4f3f0;--ink:#1b1b19;--soft:#5d5c57;--line:#dedcd5;\
--main:#2a6fc9;--other:#b3541e;--third:#2f7d4f;--quiet:#8d8b83;--good:#26734a;--warn:#8a5a00;--bad:#b3261e;\
--good-back:#e2f1e8;--warn-back:#fbeed3;--bad-back:#fbe4e1}
@media(prefers-color-scheme:dark){:root{--page:#191918;--panel:#232321;--ink:#f2f1ec;--soft:#b5b3aa;--line:#3a3935;\
--main:#6ea8f0;--other:#e8935c;--third:#6cc08d;--quiet:#8f8d85;--good:#7fd0a2;--warn:#eebf62;--bad:#f58f86;\
--good-back:#1d3327;--warn-back:#3a2f16;--bad-back:#43211e}}
@media print{:root{color-scheme:light;--page:#fff;--panel:#f4f3f0;--ink:#000;--soft:#444;--line:#ccc;--main:#1d5aa8;\
--other:#94420f;--third:#20653c;--quiet:#777;--good:#1d5f3b;--warn:#6f4800;--bad:#96170f;--good-back:#e2f1e8;\
--warn-back:#fbeed3;--bad-back:#fbe4e1}}
figure.plot{margin:1rem 0;break-inside:avoid}
figure.plot figcaption{font-weight:600;margin-bottom:.15rem}
figure.plot .said{color:var(--soft);font-size:.85rem;margin:.1rem 0 .3rem}
figure.plot svg{display:block;width:100%;max-width:44rem;height:auto;overflow:visible;font:11px system-ui,sans-serif}
svg text{fill:var(--soft)}svg .grid{stroke:var(--line);stroke-width:1}svg .axis{stroke:var(--quiet);stroke-width:1}
svg .bound{stroke:var(--bad);stroke-width:1.5;stroke-dasharray:5 4}svg .bound-said{fill:var(--bad)}
svg .event{stroke:var(--soft);stroke-width:1;stroke-dasharray:2 3}svg .event-said{fill:var(--ink)}
svg .line{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}svg .dashed{stroke-dasharray:6 4}
svg .band{opacity:.18;stroke:none}svg .bar{stroke:none}svg .whisker{stroke-width:1.5}
svg .stroke-main{stroke:var(--main)}svg .stroke-other{stroke:var(--other)}svg .stroke-third{stroke:var(--third)}
svg .stroke-quiet{stroke:var(--quiet)}svg .fill-main{fill:var(--main)}svg .fill-other{fill:var(--other)}
svg .fill-third{fill:var(--third)}svg .fill-quiet{fill:var(--quiet)}svg .hit{fill:transparent}
.legend{display:flex;flex-wrap:wrap;gap:.2rem 1.1rem;font-size:.8rem;color:var(--soft);margin:.1rem 0 .2rem;padding:0}
.legend li{list-style:none;display:flex;align-items:center;gap:.4rem}
.legend i{width:1.1rem;height:.55rem;border-radius:2px;display:inline-block}
.legend .main{background:var(--main)}.legend .other{background:var(--other)}.legend .third{background:var(--third)}
.legend .quiet{background:var(--quiet)}
@media print{*{-webkit-print-color-adjust:exact;print-color-adjust:exact}}
"""


class Point(NamedTuple):
    """A value, and the interval it lies in where one is known."""

    at: float  # an instant in seconds since 1970, or any other number of the horizontal axis
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Series:
    """Points in their order, and what they are called."""

    label: str
    points: Sequence[Point]
    tone: Tone = "main"
    dashed: bool = False  # an estimate, or a plan


class Event(NamedTuple):
    """Something that happened at a time."""

    at: float
    label: str


class Bound(NamedTuple):
    """What a value has to keep to."""

    value: float
    label: str


class Bar(NamedTuple):
    """A bin: its share in what is compared with, and in what is looked at."""

    label: str
    reference: float
    window: float


class Bin(NamedTuple):
    """A bin of a reliability diagram."""

    stated: float
    found: float
    low: float
    high: float
    rows: int


@dataclass(frozen=True, slots=True)
class _Scale:
    """From values to pixels."""

    low: float
    high: float
    begin: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.begin + min(1.0, max(0.0, share)) * (self.end - self.begin)


def instants(points: Iterable[tuple[datetime, float]]) -> list[Point]:
    """Points at instants."""
    return [Point(at.timestamp(), value) for at, value in points]


def lines(
    title: str,
    said: str,
    series: Sequence[Series],
    *,
    events: Sequence[Event] = (),
    bound: Bound | None = None,
    over: Literal["time", "days"] = "time",
    percent: bool = False,
) -> str:
    """Series over time (or over days of age), with their intervals as bands, events and a bound. Empty without points.

    The vertical axis begins where the values do.
    """
    shown = [each for each in series if each.points]
    if not shown:
        return ""
    points = [point for each in shown for point in each.points]
    first, last = min(p.at for p in points), max(p.at for p in points)
    low, high = _apart(first, last, 60.0) if over == "time" else (0.0, max(1.0, last))
    x = _Scale(low, high, _LEFT, WIDTH - _RIGHT)
    found = [v for p in points for v in (p.value, p.low, p.high) if v is not None and math.isfinite(v)]
    found += [] if bound is None else [bound.value]
    y = _vertical(found, from_zero=False, percent=percent)
    parts = [_grid(y, percent=percent), _time_axis(x) if over == "time" else _day_axis(x)]
    parts += _events(events, x)
    for each in shown:
        parts += _series(each, x, y, over, percent=percent)
    if bound is not None:
        parts.append(_bound(bound, y))
    return _figure(title, said, parts, [(each.label, each.tone) for each in shown] if len(shown) > 1 else [])


def histogram(title: str, said: str, bars: Sequence[Bar], *, names: tuple[str, str] = ("reference", "window")) -> str:
    """The shares of bins, of what is compared with and of a window side by side. Empty without bars."""
    if not bars:
        return ""
    y = _vertical([share for bar in bars for share in (bar.reference, bar.window)], from_zero=True, percent=True)
    slot = (WIDTH - _LEFT - _RIGHT) / len(bars)
    width = min(26.0, slot * 0.38)
    parts = [_grid(y, percent=True)]
    every = max(1, math.ceil(len(bars) * max(len(bar.label) for bar in bars) * _LABEL_PIXELS / (WIDTH - _LEFT)))
    for place, bar in enumerate(bars):
        middle = _LEFT + slot * (place + 0.5)
        told = f"{bar.label}: {names[0]} {bar.reference:.1%}, {names[1]} {bar.window:.1%}"
        parts.append(_column(middle - width - 0.5, width, y, bar.reference, "quiet", told))
        parts.append(_column(middle + 0.5, width, y, bar.window, "main", told))
        if place % every == 0:
            parts.append(_text(middle, HEIGHT - _BOTTOM + 15, _cut(bar.label, int(slot * every / 5.2)), "middle"))
    return _figure(title, said, parts, [(names[0], "quiet"), (names[1], "main")])


def reliability(title: str, said: str, bins: Sequence[Bin]) -> str:
    """What was stated against what came true, with intervals and the diagonal where they are the same."""
    if not bins:
        return ""
    x = _Scale(0.0, 1.0, _LEFT, WIDTH - _RIGHT)
    y = _Scale(0.0, 1.0, HEIGHT - _BOTTOM, _TOP)
    parts = [_grid(y, percent=True)]
    parts += [_text(x(t), HEIGHT - _BOTTOM + 15, f"{t:.0%}", "middle") for t in (0.0, 0.25, 0.5, 0.75, 1.0)]
    parts.append(f'<path class="line dashed stroke-quiet" d="M{x(0):.1f} {y(0):.1f}L{x(1):.1f} {y(1):.1f}"/>')
    most = max(each.rows for each in bins)
    for each in bins:
        at = x(each.stated)
        told = (
            f"stated {each.stated:.1%}, true {each.found:.1%}, interval {each.low:.1%} to {each.high:.1%},"
            f" {each.rows:,} rows"
        )
        parts.append(
            f'<path class="whisker stroke-main" d="M{at:.1f} {y(each.low):.1f}L{at:.1f} {y(each.high):.1f}"/>'
            f'<circle class="fill-main" cx="{at:.1f}" cy="{y(each.found):.1f}"'
            f' r="{3 + 3 * math.sqrt(each.rows / most):.1f}"><title>{escape(told)}</title></circle>'
        )
    return _figure(title, said, parts, [("what came true", "main"), ("as stated", "quiet")])


def named_levels(bars: Sequence[Bar]) -> list[Bar]:
    """At most MOST_LEVELS bars of texts, the largest first, and what is left as one."""
    ranked = sorted(bars, key=lambda bar: -max(bar.reference, bar.window))
    rest = ranked[MOST_LEVELS:]
    if not rest:
        return ranked
    other = Bar("all others", sum(bar.reference for bar in rest), sum(bar.window for bar in rest))
    return [*ranked[:MOST_LEVELS], other]


# The parts of a plot.


def _figure(title: str, said: str, parts: Iterable[str], legend: Sequence[tuple[str, Tone]]) -> str:
    number = f"{crc32(f'{title} {said}'.encode()):08x}"
    told = "".join(f'<li><i class="{tone}"></i>{escape(label)}</li>' for label, tone in legend)
    return (
        f'<figure class="plot"><figcaption>{escape(title)}</figcaption><p class="said">{escape(said)}</p>'
        + (f'<ul class="legend">{told}</ul>' if told else "")
        + f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="p{number}t p{number}d">'
        f'<title id="p{number}t">{escape(title)}</title><desc id="p{number}d">{escape(said)}</desc>'
        + "".join(parts)
        + "</svg></figure>"
    )


def _vertical(values: Sequence[float], *, from_zero: bool, percent: bool) -> _Scale:
    low, high = min(values, default=0.0), max(values, default=1.0)
    if from_zero:
        low = min(0.0, low)
    low, high = _apart(low, high, 0.02 if percent else max(1e-9, abs(high) * 0.02))
    reach = (high - low) * 0.06
    bottom = low if from_zero and low == 0 else low - reach
    top = high + reach
    if percent and low >= 0 and high <= 1:
        bottom, top = max(0.0, bottom), min(1.0, top)
    return _Scale(bottom, top, HEIGHT - _BOTTOM, _TOP)


def _apart(low: float, high: float, least: float) -> tuple[float, float]:
    """The same bounds, or others around them when they are too close together to draw between."""
    if high - low >= least:
        return low, high
    middle = (low + high) / 2
    return middle - least / 2, middle + least / 2


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers within the bounds, in steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * each for each in (1, 2, 5, 10) if power * each >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _grid(y: _Scale, *, percent: bool) -> str:
    parts = []
    for tick in ticks(y.low, y.high):
        at = y(tick)
        parts.append(f'<path class="grid" d="M{_LEFT} {at:.1f}H{WIDTH - _RIGHT}"/>')
        parts.append(_text(_LEFT - 6, at + 4, _number(tick, y.high - y.low, percent=percent), "end"))
    parts.append(f'<path class="axis" d="M{_LEFT} {HEIGHT - _BOTTOM}H{WIDTH - _RIGHT}"/>')
    return "".join(parts)


def _number(value: float, reach: float, *, percent: bool) -> str:
    if percent:
        return f"{value:.0%}" if reach >= 0.05 else f"{value:.1%}" if reach >= 0.005 else f"{value:.2%}"
    if value and (abs(value) >= 100_000 or abs(value) < 0.001):
        return f"{value:.2g}"
    digits = max(0, min(6, 1 - math.floor(math.log10(reach))))
    return f"{value:,.{digits}f}"


def _time_axis(x: _Scale) -> str:
    seconds = x.high - x.low
    hours = seconds / 3_600
    step, form = next(
        (
            (hours_apart * 3_600, form)
            for hours_apart, form in (
                (0.25, "%H:%M"), (1, "%H:%M"), (3, "%H:%M"), (6, "%d %b %H:%M"), (24, "%d %b"), (48, "%d %b"),
                (168, "%d %b"), (336, "%d %b"), (730.5, "%b %Y"), (2_191.5, "%b %Y"),
            )
            if hours / hours_apart <= (5 if " %H" in form else 8)
        ),
        (8_766 * 3_600, "%Y"),
    )  # fmt: skip
    first = math.ceil(x.low / step) * step
    parts = []
    at = first
    while at <= x.high:
        said = datetime.fromtimestamp(at, UTC).strftime(form)
        parts.append(_text(x(at), HEIGHT - _BOTTOM + 15, said.lstrip("0") if form == "%d %b" else said, "middle"))
        at += step
    return "".join(parts) + _text(WIDTH - _RIGHT, HEIGHT - 2, "UTC", "end")


def _day_axis(x: _Scale) -> str:
    marks = "".join(_text(x(tick), HEIGHT - _BOTTOM + 15, f"{tick:g}", "middle") for tick in ticks(x.low, x.high, 8))
    return marks + _text(WIDTH - _RIGHT, HEIGHT - 2, "days", "end")


def _events(events: Sequence[Event], x: _Scale) -> list[str]:
    """Dashed lines with a word, which are set one below the other where they stand close."""
    parts: list[str] = []
    free = [-math.inf] * 3  # up to where each row of words is taken
    for event in sorted(events):
        if not x.low <= event.at <= x.high:
            continue
        at = x(event.at)
        word = _cut(event.label, _EVENT_CHARACTERS)
        needed = len(word) * _LABEL_PIXELS
        ends = at + 4 + needed <= WIDTH - _RIGHT
        left = at + 4 if ends else at - 4 - needed
        row = next((place for place, taken in enumerate(free) if taken <= left), None)
        told = f"<title>{escape(event.label)}, {_instant(event.at)}</title>"
        parts.append(f'<path class="event" d="M{at:.1f} {_TOP}V{HEIGHT - _BOTTOM}">{told}</path>')
        if row is not None:
            free[row] = left + needed + 6
            parts.append(
                _text(at + 4 if ends else at - 4, _TOP + 9 + 13 * row, word, "start" if ends else "end", "event-said")
            )
    return parts


def _series(each: Series, x: _Scale, y: _Scale, over: str, *, percent: bool) -> list[str]:
    points = _thinned([point for point in each.points if math.isfinite(point.value)])
    parts = []
    banded = [p for p in points if p.low is not None and p.high is not None]
    if len(banded) > 1:
        above = [f"{x(p.at):.1f} {y(p.high if p.high is not None else p.value):.1f}" for p in banded]
        below = [f"{x(p.at):.1f} {y(p.low if p.low is not None else p.value):.1f}" for p in reversed(banded)]
        parts.append(f'<path class="band fill-{each.tone}" d="M{"L".join([*above, *below])}Z"/>')
    path = "L".join(f"{x(p.at):.1f} {y(p.value):.1f}" for p in points)
    dashed = " dashed" if each.dashed else ""
    parts.append(f'<path class="line{dashed} stroke-{each.tone}" d="M{path}"/>')
    if len(points) <= 1:
        parts += [f'<circle class="fill-{each.tone}" cx="{x(p.at):.1f}" cy="{y(p.value):.1f}" r="4"/>' for p in points]
    if len(points) <= 200:  # more are too close to be pointed at
        where: Callable[[float], str] = _instant if over == "time" else lambda at: f"day {at:g}"
        for p in points:
            value = _number(p.value, y.high - y.low, percent=percent)
            told = f"{each.label}, {where(p.at)}: {value}"
            at = f'cx="{x(p.at):.1f}" cy="{y(p.value):.1f}"'
            parts.append(f'<circle class="hit" {at} r="7"><title>{escape(told)}</title></circle>')
    return parts


def _thinned(points: Sequence[Point]) -> list[Point]:
    every = max(1, math.ceil(len(points) / MOST_POINTS))
    return [*points[:-1:every], points[-1]] if every > 1 else list(points)


def _bound(bound: Bound, y: _Scale) -> str:
    at = y(bound.value)
    said = _text(WIDTH - _RIGHT, at - 4 if at > _TOP + 12 else at + 12, bound.label, "end", "bound-said")
    return f'<path class="bound" d="M{_LEFT} {at:.1f}H{WIDTH - _RIGHT}"/>{said}'


def _column(left: float, width: float, y: _Scale, share: float, tone: Tone, told: str) -> str:
    top = y(share)
    return (
        f'<rect class="bar fill-{tone}" x="{left:.1f}" y="{top:.1f}" width="{width:.1f}"'
        f' height="{max(0.0, y.begin - top):.1f}" rx="1.5"><title>{escape(told)}</title></rect>'
    )


def _text(x: float, y: float, text: str, anchor: str, kind: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text{named} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _cut(text: str, most: int) -> str:
    return text if len(text) <= max(2, most) else text[: max(1, most - 1)] + "…"


def _instant(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
