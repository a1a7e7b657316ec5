"""The end of the year: what happened, what it cost, and how it would have been without; also as a page."""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING, Final

import msgspec
import polars as pl

from mainstay.cli.common import columns
from mainstay.cli.demo_season import Moment
from mainstay.cli.demo_year_page import page_of
from mainstay.cli.demo_year_quality import Flights, Week, auc, between, both, joined, total_usd, weeks
from mainstay.files import write_atomic

if TYPE_CHECKING:
    from mainstay.cli.demo_season import Season

PAGE: Final = "year.html"
LEFT_DAYS: Final = 30  # that a broken version would have been left in production
BEGIN, END = date(2013, 4, 1), date(2014, 1, 1)


class Worth(msgspec.Struct, frozen=True, kw_only=True):
    """What something was worth: dollars over flights as they were decided, and as they would have been."""

    what: str
    flights: int
    usd: float
    otherwise: str  # instead of what
    otherwise_usd: float

    @property
    def gained_usd(self) -> float:
        """Below 0: what it cost."""
        return self.otherwise_usd - self.usd


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """The year in numbers, all measured on the same flights."""

    flights: int
    auc: tuple[float, float, float]
    auc_without: tuple[float, float, float]
    usd: float
    usd_without: float
    weeks: tuple[Week, ...]
    weeks_without: tuple[Week, ...]
    decided: tuple[tuple[date, dict[str, int]], ...]  # each week, by which version
    worth: tuple[Worth, ...]
    moments: tuple[Moment, ...]


def report(season: Season) -> None:
    """Work out what the year was worth, tell it, and write the page."""
    story = season.story
    story.title("The year")
    with story.working("running the other versions over the same flights"):
        ending = _worked_out(season)
    story.facts["year"]["ending"] = msgspec.to_builtins(ending)
    for line in _months(ending):
        story.say(line)
    story.say("")
    for line in _worths(ending):
        story.say(line)
    story.say("")
    saved = ending.usd_without - ending.usd
    story.say(
        f"area under the ROC curve {_interval(ending.auc)}; without Mainstay's interventions"
        f" {_interval(ending.auc_without)}, over the same {ending.flights:,} flights"
    )
    story.say(f"missed connections and needless rebookings: {ending.usd:,.0f} USD, without {ending.usd_without:,.0f}")
    story.expect(saved > 0, f"a year that is better with than without, found {saved:,.0f} USD saved")
    page = season.scene.workspace.root / PAGE
    write_atomic(page, page_of(ending, season.name).encode(), mode=0o644)
    story.facts["year"]["page"] = str(page)
    story.say(f"with plots: {page}")


def _worked_out(season: Season) -> Ending:
    flights = Flights(season.scene.workspace, season.year.kept)
    first, mistake = season.versions["without weather"], season.versions["in quarters"]
    began = next(each.day for each in season.moments if each.what.startswith("in quarters: canary"))
    left = began + timedelta(days=LEFT_DAYS)
    alone = flights.by(first, sent=True)
    without = joined([(BEGIN, began, alone), (began, left, flights.by(mistake, sent=True)), (left, END, alone)])
    decided, without = both(flights.decided(), without)
    whole, whole_without = auc(decided), auc(without)
    assert whole is not None, "a year has flights that were late, and others"
    assert whole_without is not None, "the same flights"
    return Ending(
        flights=decided.height,
        auc=whole,
        auc_without=whole_without,
        usd=total_usd(decided),
        usd_without=total_usd(without),
        weeks=tuple(weeks(decided)),
        weeks_without=tuple(weeks(without)),
        decided=tuple(_by_week(flights.frame)),
        worth=tuple(_worth(season, flights, began, left)),
        moments=tuple(season.moments),
    )


def _worth(season: Season, flights: Flights, began: date, left: date) -> list[Worth]:
    """What each thing that happened was worth."""
    first, weather, mistake = (season.versions[name] for name in ("without weather", "with weather", "in quarters"))
    found = [
        _of(flights, "with weather, decided by it", pl.col("version") == weather, "without weather", flights.by(first)),
        _of(
            flights,
            "in quarters, while it was a canary",
            pl.col("version") == mistake,
            "whoever was in production",
            flights.by(season.beside_mistake),
        ),
    ]
    month = between(began, left)
    found.append(
        _of(flights, f"{LEFT_DAYS} days with the rollback", month, "in quarters, left there", flights.by(mistake))
    )
    retrained = season.versions.get("fitted in August")
    if retrained is not None:
        own = pl.col("version") == retrained
        found.append(_of(flights, "fitted in August, decided by it", own, "with weather", flights.by(weather)))
    broken = pl.col("sent") != pl.col("input")
    found.append(
        _of(flights, "kilometres, until they were mended", broken, "miles", flights.by(season.in_production()))
    )
    return found


def _of(flights: Flights, what: str, which: pl.Expr, otherwise: str, other: pl.DataFrame) -> Worth:
    chosen = flights.frame.select(which.alias("chosen"))["chosen"]
    decided, instead = both(flights.decided().filter(chosen), other.filter(chosen))
    return Worth(
        what=what,
        flights=decided.height,
        usd=total_usd(decided),
        otherwise=otherwise,
        otherwise_usd=total_usd(instead),
    )


def _by_week(frame: pl.DataFrame) -> list[tuple[date, dict[str, int]]]:
    found = []
    begin = BEGIN
    while begin < END:
        own = frame.filter(between(begin, begin + timedelta(days=7)))
        if own.height:
            found.append((begin, dict(own["version"].value_counts().iter_rows())))
        begin += timedelta(days=7)
    return found


def _months(ending: Ending) -> list[str]:
    """A line for each month, and what happened in it."""
    rows = [["", "AREA", "WITHOUT", "USD A FLIGHT", "WITHOUT", "WHAT HAPPENED"]]
    for month in range(4, 13):
        own = [each for each in ending.weeks if each.begin.month == month]
        other = [each for each in ending.weeks_without if each.begin.month == month]
        happened = list(dict.fromkeys(each.what for each in ending.moments if each.day.month == month))
        rows.append(
            [
                f"{date(2013, month, 1):%b}",
                _mean([each.auc for each in own], 3),
                _mean([each.auc for each in other], 3),
                _mean([each.usd for each in own], 2),
                _mean([each.usd for each in other], 2),
                happened[0] if happened else "",
            ]
        )
        rows += [["", "", "", "", "", each] for each in happened[1:]]
    return columns(rows)


def _worths(ending: Ending) -> list[str]:
    rows = [["WHAT", "FLIGHTS", "USD", "INSTEAD OF", "USD", "GAINED"]]
    rows += [
        [
            each.what,
            f"{each.flights:,}",
            f"{each.usd:,.0f}",
            each.otherwise,
            f"{each.otherwise_usd:,.0f}",
            f"{each.gained_usd:+,.0f}",
        ]
        for each in ending.worth
    ]
    return columns(rows)


def _mean(values: list[float], digits: int) -> str:
    return f"{sum(values) / len(values):.{digits}f}" if values else "-"


def _interval(found: tuple[float, float, float]) -> str:
    value, low, high = found
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"
