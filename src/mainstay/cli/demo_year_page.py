"""The year as one HTML file that needs nothing else."""

from __future__ import annotations

from datetime import UTC, datetime, time
from html import escape
from typing import TYPE_CHECKING, Final

from mainstay.monitoring.plots import STYLE, Bound, Event, Point, Series, lines

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import date

    from mainstay.cli.demo_year_quality import Week
    from mainstay.cli.demo_year_report import Ending
    from mainstay.monitoring.plots import Tone

_PAGE: Final = """\
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:56rem;margin:0 auto;padding:1.5rem 1.25rem 4rem}h1{font-size:1.6rem;margin:.2rem 0}
h2{font-size:1.2rem;margin:2.2rem 0 .4rem;border-bottom:1px solid var(--line);padding-bottom:.2rem;break-after:avoid}
p{margin:.35rem 0}.soft{color:var(--soft)}.wide{overflow-x:auto}
.numbers{display:flex;flex-wrap:wrap;gap:.8rem;margin:1rem 0}
.numbers div{flex:1 1 14rem;background:var(--panel);border:1px solid var(--line);border-radius:.4rem;padding:.7rem 1rem}
.numbers b{display:block;font-size:1.5rem}
table{border-collapse:collapse;width:100%;font-size:.9rem;margin:.5rem 0}
th{text-align:left;color:var(--soft);font-weight:600}
th,td{padding:.3rem .9rem .3rem 0;border-bottom:1px solid var(--line);vertical-align:top}
td.n,th.n{text-align:right;white-space:nowrap}td.day{white-space:nowrap}
.good{color:var(--good)}.bad{color:var(--bad)}
@media print{main{max-width:none;padding:0}body{font-size:11pt}}
"""
_TONES: Final[tuple[Tone, ...]] = ("quiet", "main", "other", "third")
PROMISED_AUC: Final = 0.9  # `monitoring.metrics` of the capability


def page_of(ending: Ending, name: Callable[[str], str]) -> str:
    """The whole page; `name` says what a version is called."""
    title = "Late arrivals out of New York, April to December 2013"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}{_PAGE}</style></head><body><main>"
        f"<header><h1>{title}</h1>"
        f'<p class="soft">{ending.flights:,} flights, decided when their doors closed and measured when they had'
        " landed. <i>With</i> is what was decided under Mainstay. <i>Without</i> is the first version alone all year,"
        " the broken one left in production for a month, run over the very same flights.</p></header>"
        f"{_numbers(ending)}{_plots(ending, name)}{_worth(ending)}{_moments(ending)}"
        '<p class="soft">Dollars are those of the capability: 180 for a late flight that nobody was warned of, 40 for'
        " a warning in vain. The first version warned from a chance of 50 % on; those after it warn from 18 % on, as"
        " these costs ask. Bands are 95 % intervals. All days are UTC.</p>"
        "</main></body></html>\n"
    )


def _numbers(ending: Ending) -> str:
    (value, low, high), (other, other_low, other_high) = ending.auc, ending.auc_without
    saved = ending.usd_without - ending.usd
    told = (
        (f"{value:.3f}", f"area under the ROC curve [{low:.3f}, {high:.3f}]"),
        (f"{other:.3f}", f"without [{other_low:.3f}, {other_high:.3f}]"),
        (f"{saved:,.0f} USD", f"saved: {ending.usd:,.0f} with, {ending.usd_without:,.0f} without"),
    )
    return f'<div class="numbers">{"".join(f"<div><b>{one}</b>{what}</div>" for one, what in told)}</div>'


def _plots(ending: Ending, name: Callable[[str], str]) -> str:
    events = [Event(_at(each.day), each.what) for each in ending.moments if each.is_turn]
    quality = lines(
        "Quality, week by week",
        "The area under the ROC curve of each week's flights, with 95 % intervals, and what happened.",
        [
            Series("with", [_area(each) for each in ending.weeks], "main"),
            Series("without", [_area(each) for each in ending.weeks_without], "other"),
        ],
        events=events,
        bound=Bound(PROMISED_AUC, "declared"),
    )
    cost = lines(
        "What a flight cost, week by week",
        "Missed connections and needless rebookings for each flight, in dollars.",
        [
            Series("with", [Point(_at(each.begin), each.usd) for each in ending.weeks], "main"),
            Series("without", [Point(_at(each.begin), each.usd) for each in ending.weeks_without], "other"),
        ],
    )
    return f"<h2>How good it was</h2>{quality}{cost}<h2>Who decided</h2>{_shares(ending, name)}"


def _shares(ending: Ending, name: Callable[[str], str]) -> str:
    versions = list(dict.fromkeys(version for _, counts in ending.decided for version in counts))
    series = []
    for place, version in enumerate(versions):
        points = [Point(_at(day), counts.get(version, 0) / sum(counts.values())) for day, counts in ending.decided]
        series.append(Series(name(version), points, _TONES[place % len(_TONES)]))
    said = "The share of each week's flights that each version decided: canaries first, then all of it."
    return lines("Versions, week by week", said, series, percent=True)


def _worth(ending: Ending) -> str:
    rows = "".join(
        f'<tr><td>{escape(each.what)}</td><td class="n">{each.flights:,}</td><td class="n">{each.usd:,.0f}</td>'
        f'<td>{escape(each.otherwise)}</td><td class="n">{each.otherwise_usd:,.0f}</td>'
        f'<td class="n {"good" if each.gained_usd >= 0 else "bad"}">{each.gained_usd:+,.0f}</td></tr>'
        for each in ending.worth
    )
    heads = (("what", ""), ("flights", "n"), ("USD", "n"), ("instead of", ""), ("USD", "n"), ("gained", "n"))
    return f"<h2>What each event cost</h2>{_table(heads, rows)}"


def _moments(ending: Ending) -> str:
    rows = "".join(
        f'<tr><td class="day">{each.day:%d %B}</td><td>{escape(each.what)}</td></tr>' for each in ending.moments
    )
    return f"<h2>What happened</h2>{_table((('day', ''), ('what', '')), rows)}"


def _table(heads: Sequence[tuple[str, str]], rows: str) -> str:
    head = "".join(f'<th scope="col" class="{kind}">{what}</th>' for what, kind in heads)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _area(week: Week) -> Point:
    return Point(_at(week.begin), week.auc, week.low, week.high)


def _at(day: date) -> float:
    return datetime.combine(day, time(), UTC).timestamp()
