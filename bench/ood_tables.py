"""Tables of ordinary rows and odd ones: from installed packages, and with real errors where such files are at hand."""

from __future__ import annotations

import os
import runpy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn import datasets

from mainstay.runtime.types import Feature, Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).resolve().parent
_PILOT = runpy.run_path(str(HERE.parent / "examples" / "flights" / "capabilities" / "late-arrival" / "flights.py"))
CATEGORIES: list[str] = _PILOT["CATEGORIES"]
FEATURES: list[str] = _PILOT["FEATURES"]
read_flights: Callable[[], pd.DataFrame] = _PILOT["read_flights"]
read_table: Callable[[str], pd.DataFrame] = _PILOT["read_table"]

SHARED = Path(os.environ.get("MAINSTAY_SHARED_DATA", HERE.parents[1] / "shared" / "data"))
FLIGHTS = 8_000
WEATHER = ["origin", "month", "hour", "temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip"]
WEATHER += ["pressure", "visib"]
PLANES = ["year", "type", "manufacturer", "model", "engines", "seats", "speed", "engine"]


@dataclass(frozen=True)
class Table:
    """Rows to learn from and to stay quiet on, and rows to find. `source` is shared by tables of the same data."""

    source: str
    name: str
    ordinary: pd.DataFrame
    odd: pd.DataFrame


def read_tables() -> Iterator[Table]:
    """Classes held out, one column changed, or every column shuffled by itself (each value ordinary, no row is)."""
    yield from _classes()
    yield from _flights()
    random = np.random.default_rng(0)
    diabetes = _frame(datasets.load_diabetes(scaled=False).data)
    yield Table("diabetes", "diabetes: shuffled", diabetes[:330], shuffled(diabetes[330:], random))
    weather = read_table("weather.csv").sample(6_000, random_state=0)[WEATHER]
    yield Table("weather", "weather: shuffled", weather[:4_500], shuffled(weather[4_500:], random))
    planes = read_table("planes.csv").sample(frac=1, random_state=0)[PLANES]
    yield Table("planes", "planes: shuffled", planes[:2_500], shuffled(planes[2_500:], random))
    if (SHARED / "dirty").is_dir():
        yield _dirty("hospital", drop=[], numbers=[], columns=None)
        # Every row has another unit in `ounces`; rows whose city and state were run together are the odd ones.
        yield _dirty("beers", drop=["id", "beer_name", "ounces"], numbers=["abv", "ibu"], columns=["city", "state"])


def _classes() -> Iterator[Table]:
    cancer = datasets.load_breast_cancer()
    frame = _frame(cancer.data)
    for kind, name in ((0, "malignant"), (1, "benign")):
        yield Table("cancer", f"cancer: {name}", frame[cancer.target != kind], frame[cancer.target == kind])
    for source, load in (("wine", datasets.load_wine), ("iris", datasets.load_iris), ("digits", datasets.load_digits)):
        data = load()
        frame = _frame(data.data)
        for kind in sorted(set(data.target.tolist())):
            yield Table(source, f"{source}: {kind}", frame[data.target != kind], frame[data.target == kind])


def _flights() -> Iterator[Table]:
    random = np.random.default_rng(0)
    flights = departures().sample(FLIGHTS, random_state=0)
    ordinary, rest = flights[: FLIGHTS * 3 // 4], flights[FLIGHTS * 3 // 4 :]
    yield Table("flights", "flights: shuffled", ordinary, shuffled(rest, random))
    for column in ("carrier", "dest"):
        changed = rest.assign(**{column: random.permutation(rest[column].to_numpy())})
        yield Table("flights", f"flights: {column} shuffled", ordinary, changed)
    yield Table("flights", "flights: unseen carrier", ordinary, rest.assign(carrier="ZZ"))
    numbers = [name for name in FEATURES if name not in CATEGORIES]
    far = rest.astype(dict.fromkeys(numbers, float))
    for row in far.index:
        column = random.choice(numbers)
        low, high = flights[column].min(), flights[column].max()
        far.loc[row, column] = high + (high - low) * random.uniform(0.1, 3)
    yield Table("flights", "flights: far values", ordinary, far)


def departures() -> pd.DataFrame:
    """Flights that left, as the example's model gets them."""
    flights = read_flights()
    left: pd.DataFrame = flights[flights["dep_delay"].notna()][FEATURES]
    return left


def _dirty(name: str, *, drop: list[str], numbers: list[str], columns: list[str] | None) -> Table:
    folder = SHARED / "dirty" / name
    clean, dirty = (_texts(folder / f"{which}.csv").drop(columns=drop) for which in ("clean", "dirty"))
    errors = pd.read_csv(folder / "errors.csv")
    rows = sorted(set(errors[errors["column"].isin(columns)]["row"] if columns else errors["row"]))
    for column in numbers:
        clean[column] = pd.to_numeric(clean[column])
        dirty[column] = pd.to_numeric(dirty[column], errors="coerce")
    return Table(name, f"{name}: errors", clean.drop(index=rows), dirty.loc[rows])


def _texts(path: Path) -> pd.DataFrame:
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    known: pd.DataFrame = frame.where(frame != "", None)
    return known


def _frame(data: np.ndarray[Any, Any]) -> pd.DataFrame:
    return pd.DataFrame(data, columns=[f"x{i}" for i in range(data.shape[1])])


def shuffled(frame: pd.DataFrame, random: np.random.Generator) -> pd.DataFrame:
    return pd.DataFrame({name: random.permutation(frame[name].to_numpy()) for name in names(frame)}, index=frame.index)


def is_number(column: pd.Series) -> bool:
    return bool(column.dtype.kind in "ifb")


def features(frame: pd.DataFrame) -> list[Feature]:
    return [Feature(name, "number" if is_number(frame[name]) else "string", nullable=True) for name in names(frame)]


def names(frame: pd.DataFrame) -> list[str]:
    return [str(name) for name in frame.columns]


def rows(frame: pd.DataFrame) -> list[Row]:
    """As a contract would hand them over: None where a value is missing."""
    columns = [[None if pd.isna(value) else value for value in frame[name].tolist()] for name in names(frame)]
    return list(zip(*columns, strict=True))


def matrices(reference: pd.DataFrame, *others: pd.DataFrame) -> list[np.ndarray[Any, Any]]:
    """For detectors that take numbers only: gaps filled with the median and marked in a column of their own; texts
    one-hot with a column for values not in the reference, or as their share of the reference beyond 20 values.
    """
    parts: list[list[Any]] = [[] for _ in range(1 + len(others))]
    for name in names(reference):
        column = reference[name]
        columns = _number_columns if is_number(column) else _text_columns
        for part, frame in zip(parts, (reference, *others), strict=True):
            part.extend(columns(column, frame[name]))
    return [np.column_stack([np.asarray(column, dtype=np.float64) for column in part]) for part in parts]


def _number_columns(reference: pd.Series, values: pd.Series) -> list[Any]:
    median = 0.0 if reference.isna().all() else reference.median()
    filled = values.astype(float).fillna(median)
    return [filled, values.isna()] if reference.isna().any() else [filled]


def _text_columns(reference: pd.Series, values: pd.Series) -> list[Any]:
    shares = reference.fillna("").value_counts(normalize=True)
    known = values.fillna("")
    if len(shares) > 20:
        return [known.map(shares).fillna(0)]
    return [*(known == level for level in shares.index), ~known.isin(shares.index)]
