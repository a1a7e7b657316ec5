"""2013 out of New York as live traffic: flights close their doors, and later land."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from datetime import datetime  # noqa: TC003 -- a dataclass shows its field types at run time
from functools import cache
from pathlib import Path
from types import ModuleType  # noqa: TC003
from typing import TYPE_CHECKING
from zlib import crc32

import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Iterator

CAPABILITY = Path(__file__).resolve().parent / "capabilities" / "late-arrival"
MONTH = 4
ATLANTIC_STANDARD_HOURS = (
    -4
)  # the table of airports lacks those of Puerto Rico and the Virgin Islands; all four are here
SUMMER = (pd.Timestamp("2013-03-10 07:00", tz="UTC"), pd.Timestamp("2013-11-03 06:00", tz="UTC"))  # in New York
DAY = pd.Timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Departure:
    """A flight to decide about. A cancelled one stands here too, as it was scheduled, with `dep_delay` None."""

    key: str  # date, carrier, flight number and origin, such as "2013-04-01-UA-1545-EWR"
    input: dict[str, str | int | float | None]  # the contract's `departure`
    at: datetime  # scheduled departure, UTC


@dataclass(frozen=True, slots=True)
class Landing:
    """What became of a flight."""

    key: str
    outcome: dict[str, bool | int]  # the contract's `arrival`
    at: datetime  # when it landed, UTC


def _load(path: Path) -> ModuleType:
    """The pilot's own module, so that traffic and training read one and the same data."""
    spec = importlib.util.spec_from_file_location("late_arrival_flights", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_pilot = _load(CAPABILITY / "flights.py")


def departures() -> Iterator[Departure]:
    """Every flight of April in order of scheduled departure, then key: 28,330."""
    return departures_of(MONTH)


def departures_of(month: int, every: int = 1) -> Iterator[Departure]:
    """The flights of a month, in the same order; with `every`, about one in so many, chosen by their keys."""
    flights = _flights_of(month, every)
    for key, record, at in zip(flights["key"], _pilot.input_records(flights), flights["scheduled"], strict=True):
        yield Departure(key, {"scheduled_at": f"{at:%Y-%m-%dT%H:%M:%SZ}", **record}, at.to_pydatetime())


def landings() -> Iterator[Landing]:
    """Every landing of those flights in order of time, then key. Flights cancelled or diverted have none: 27,564."""
    return landings_of(MONTH)


def landings_of(month: int, every: int = 1) -> Iterator[Landing]:
    """The landings of the same flights of a month, in the same order."""
    arrived = _flights_of(month, every).dropna(subset=["arr_delay"])
    arrived = arrived.assign(landed=_landed(arrived)).sort_values(["landed", "key"])
    for key, delay, at in zip(arrived["key"], arrived["arr_delay"], arrived["landed"], strict=True):
        yield Landing(key, {"late": delay > _pilot.LATE_MINUTES, "arr_delay": int(delay)}, at.to_pydatetime())


@cache
def _year() -> pd.DataFrame:
    year: pd.DataFrame = _pilot.read_flights()
    return year


@cache
def _flights_of(month: int, every: int = 1) -> pd.DataFrame:
    flights = _year()[_year()["month"] == month]
    scheduled = pd.to_datetime(flights["time_hour"], utc=True) + pd.to_timedelta(flights["minute"], unit="min")
    flights = flights.assign(key=_keys(flights), scheduled=scheduled)
    if every > 1:
        flights = flights[[crc32(key.encode()) % every == 0 for key in flights["key"]]]
    return flights.sort_values(["scheduled", "key"], ignore_index=True)


def _keys(flights: pd.DataFrame) -> pd.Series[str]:
    """A key per flight. Raises ValueError when two flights share one: outcomes could not be told apart."""
    dates = pd.to_datetime(flights[["year", "month", "day"]]).dt.strftime("%Y-%m-%d")
    keys = dates + "-" + flights["carrier"] + "-" + flights["flight"].astype(str) + "-" + flights["origin"]
    twice = keys[keys.duplicated()]
    if len(twice):
        raise ValueError(f"expected one flight per date, carrier, number and origin, found {twice.iloc[0]} twice")
    return keys


def _landed(flights: pd.DataFrame) -> pd.Series[pd.Timestamp]:
    """When each flight landed: the first time after its minutes in the air that a clock there showed `arr_time`.

    The first, because the table has the clock without the date, and many flights land on the next day.
    """
    minutes = flights["arr_time"] // 100 * 60 + flights["arr_time"] % 100
    clock = pd.to_timedelta(minutes, unit="min") - _offsets(flights)  # as a clock in UTC shows it
    in_the_air = pd.to_timedelta(flights["dep_delay"] + flights["air_time"], unit="min")
    earliest = flights["scheduled"] + in_the_air
    landed: pd.Series[pd.Timestamp] = earliest + (clock - (earliest - earliest.dt.normalize())) % DAY
    return landed


def _offsets(flights: pd.DataFrame) -> pd.Series[pd.Timedelta]:
    """What a clock at each destination is ahead of UTC; in summer those that keep summer time ("A") are an hour more.

    All change their clocks in the same night, which is taken to be that of New York for all.
    """
    airports: pd.DataFrame = _pilot.read_table("airports.csv").set_index("faa")
    known = flights["dest"].isin(airports.index)
    standard = flights["dest"].map(airports["tz"]).where(known, ATLANTIC_STANDARD_HOURS)
    keeps_summer = flights["dest"].map(airports["dst"]) == "A"
    hours = standard + (keeps_summer & flights["scheduled"].between(*SUMMER, inclusive="left"))
    return pd.to_timedelta(hours, unit="h")
