"""Panels of a Grafana dashboard, as its JSON has them (schema version 42)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Panel: TypeAlias = dict[str, Any]

COLUMNS: Final = 24  # of a dashboard's grid
DATASOURCE: Final[Mapping[str, str]] = {"type": "prometheus", "uid": "${datasource}"}

# Colour says what the name says already; nothing is told by it alone.
OUTCOME_COLOURS: Final = {"answered": "green", "fallback": "orange", "review": "blue", "refused": "red"}


class Query(NamedTuple):
    """A line of a panel, or one for each series that the expression gives."""

    expr: str
    legend: str


class Look(NamedTuple):
    """How the values of a panel are shown."""

    unit: str = "short"
    lowest: float | None = None
    highest: float | None = None
    stacked: bool = False
    thresholds: Sequence[tuple[float, str]] = ()  # from this value on, this colour
    decimals: int | None = None
    colours: Mapping[str, str] = {}  # of series, by their legend


PLAIN: Final = Look()


def series(title: str, queries: Sequence[Query], description: str, look: Look = PLAIN, *, width: int = 12) -> Panel:
    """A panel of lines over time."""
    custom = {
        "drawStyle": "line",
        "lineInterpolation": "linear",
        "lineWidth": 1,
        "fillOpacity": 25 if look.stacked else 0,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if look.stacked else "none", "group": "A"},
        "thresholdsStyle": {"mode": "line" if look.thresholds else "off"},
    }
    options = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return _panel("timeseries", title, queries, description, look, (width, 8), options=options, custom=custom)


def stat(title: str, query: Query, description: str, look: Look = PLAIN, *, width: int = 4) -> Panel:
    """A panel of one number, the newest."""
    options = {
        "reduceOptions": {"values": False, "calcs": ["lastNotNull"], "fields": ""},
        "orientation": "auto",
        "textMode": "auto",
        "colorMode": "value" if look.thresholds else "none",
        "graphMode": "area",
        "justifyMode": "auto",
        "wideLayout": True,
        "showPercentChange": False,
        "percentChangeColorMode": "standard",
    }
    return _panel("stat", title, [query], description, look, (width, 4), options=options, custom=None)


def _panel(  # noqa: PLR0913 - what every panel consists of
    kind: Literal["timeseries", "stat"],
    title: str,
    queries: Sequence[Query],
    description: str,
    look: Look,
    size: tuple[int, int],
    *,
    options: Panel,
    custom: Panel | None,
) -> Panel:
    width, height = size
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": dict(DATASOURCE),
        "gridPos": {"x": 0, "y": 0, "w": width, "h": height},
        "targets": [
            {
                "datasource": dict(DATASOURCE),
                "refId": chr(ord("A") + number),
                "expr": query.expr,
                "legendFormat": query.legend,
                "range": True,
                "instant": False,
            }
            for number, query in enumerate(queries)
        ],
        "fieldConfig": {"defaults": _defaults(look, custom), "overrides": _overrides(look)},
        "options": options,
    }


def _defaults(look: Look, custom: Panel | None) -> Panel:
    steps = [{"value": None, "color": "green"}, *({"value": at, "color": colour} for at, colour in look.thresholds)]
    bounds = {"min": look.lowest, "max": look.highest, "decimals": look.decimals}
    return {
        "unit": look.unit,
        "color": {"mode": "thresholds" if custom is None else "palette-classic"},
        "thresholds": {"mode": "absolute", "steps": steps},
        **{name: value for name, value in bounds.items() if value is not None},
        **({} if custom is None else {"custom": custom}),
    }


def _overrides(look: Look) -> list[Panel]:
    return [
        {
            "matcher": {"id": "byName", "options": name},
            "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}],
        }
        for name, colour in look.colours.items()
    ]


def laid_out(rows: Sequence[tuple[str, Sequence[Panel]]]) -> list[Panel]:
    """The panels of all rows where they stand, each row under its title, each panel with its number."""
    placed: list[Panel] = []
    top = 0
    for title, panels in rows:
        placed.append(
            {
                "type": "row",
                "title": title,
                "collapsed": False,
                "panels": [],
                "gridPos": {"x": 0, "y": top, "w": COLUMNS, "h": 1},
            }
        )
        top += 1
        left = height = 0
        for panel in panels:
            size = panel["gridPos"]
            if left + size["w"] > COLUMNS:
                top, left, height = top + height, 0, 0
            placed.append({**panel, "gridPos": {**size, "x": left, "y": top}})
            left, height = left + size["w"], max(height, size["h"])
        top += height
    return [{"id": number, **panel} for number, panel in enumerate(placed, 1)]
