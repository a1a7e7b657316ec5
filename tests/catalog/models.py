"""Small real models for the tests of registering, and the rows they are asked about."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder

from mainstay.catalog.conversion import Limits, Request
from mainstay.runtime.types import Feature

FLIGHT = (
    Feature("carrier", "string", nullable=False),
    Feature("month", "integer", nullable=False),
    Feature("dep_delay", "number", nullable=True),
)
ABC = tuple(Feature(name, "number", nullable=False) for name in "abc")
CARRIERS = ("AA", "B6", "UA")


def flights_frame(rows: int = 200) -> pd.DataFrame:
    """Flights as a pilot would hold them: text, integers, numbers with gaps."""
    dice = np.random.default_rng(0)
    delay = dice.normal(10, 30, rows).round()
    delay[:5] = np.nan
    return pd.DataFrame(
        {
            "carrier": dice.choice(CARRIERS, rows),
            "month": dice.integers(1, 13, rows),
            "dep_delay": delay,
        }
    )


def flights_late(frame: pd.DataFrame) -> np.ndarray[Any, Any]:
    return np.asarray((frame["dep_delay"].fillna(0) + 10 * (frame["carrier"] == "B6") + frame["month"]) > 15)


def flights_pipeline(encoder: Any = None) -> Pipeline:
    """Fitted on a DataFrame: categories encoded, numbers passed through with their gaps."""
    frame = flights_frame()
    encoder = encoder or OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    columns = ColumnTransformer([("text", encoder, ["carrier"]), ("rest", "passthrough", ["month", "dep_delay"])])
    classifier = HistGradientBoostingClassifier(max_iter=10, random_state=0)
    return Pipeline([("columns", columns), ("classifier", classifier)]).fit(frame, flights_late(frame))


def matrix(rows: int = 100) -> np.ndarray[Any, Any]:
    return np.random.default_rng(1).normal(size=(rows, 3))


def boosted(classes: tuple[Any, Any] = (0, 1)) -> GradientBoostingClassifier:
    """Fitted on a nameless matrix of three numbers."""
    X = matrix()  # noqa: N806 - what scikit-learn calls it
    y = np.where(X.sum(axis=1) > 0, classes[1], classes[0])
    return GradientBoostingClassifier(n_estimators=10, random_state=0).fit(X, y)


def line() -> LinearRegression:
    X = matrix()  # noqa: N806
    return LinearRegression().fit(X, X @ [1.0, -2.0, 0.5] + 3)


def boosting_table(rows: int = 200) -> np.ndarray[Any, Any]:
    """Three columns: a number with gaps, a rounded number, a code from 0 to 9."""
    dice = np.random.default_rng(3)
    table = dice.normal(size=(rows, 3))
    table[::7, 0] = np.nan
    table[:, 1] = table[:, 1].round(1)
    table[:, 2] = dice.integers(0, 10, rows)
    return table


def boosting_rows() -> list[tuple[Any, ...]]:
    """The table as a contract gives it."""
    return [tuple(None if value != value else value for value in row) for row in boosting_table().tolist()]  # noqa: PLR0124 - NaN


def boosting_targets() -> dict[str, np.ndarray[Any, Any]]:
    """What may be learned from the table: two classes, three, a number, a positive number."""
    table = boosting_table()
    score = np.nan_to_num(table[:, 0]) + table[:, 1] + np.isin(table[:, 2], [1, 5, 7])
    return {
        "binary": (score > 0.3).astype(int),
        "multi": np.digitize(score, [-0.3, 0.8]),
        "value": score * 3 + 10,
        "count": np.exp(score),
    }


def pickled(model: Any) -> bytes:
    buffer = io.BytesIO()
    joblib.dump(model, buffer)
    return buffer.getvalue()


def frame_rows(frame: pd.DataFrame) -> list[tuple[Any, ...]]:
    """Rows as a contract gives them: a gap is None."""
    records = frame.astype(object).itertuples(index=False, name=None)
    return [tuple(None if value != value else value for value in row) for row in records]  # noqa: PLR0124 - NaN


def make_request(features: tuple[Feature, ...] = ABC, rows: Any = None, **changes: Any) -> Request:
    """What to ask of a conversion; of a model of three numbers where nothing else is said."""
    request: dict[str, Any] = {
        "library": "sklearn",
        "source": "model.joblib",
        "features": features,
        "features_declared": True,
        "rows": [tuple(row) for row in matrix().tolist()] if rows is None else rows,
        "trusted_types": (),
        "integers": "float",
        "limits": Limits(wall_seconds=60),
    } | changes
    return Request(**request)


class WritesAFile:
    """A pickle that writes a file where it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> Any:
        return (Path.write_text, (Path(self.path), "I was here"))


class Sleeps:
    """A pickle that never finishes opening."""

    def __reduce__(self) -> Any:
        return (time.sleep, (3600,))


class Exits:
    """A pickle that ends the process, in seeming good order."""

    def __reduce__(self) -> Any:
        return (os._exit, (0,))


class Spies:
    """A pickle that prints the environment, what it can read from standard input and a file, spoils it, and dies."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.system, (f"env; cat; cat {self.path}; echo spoilt > {self.path}; kill $PPID",))


class Prints:
    """A pickle that prints without end."""

    def __reduce__(self) -> Any:
        return (os.system, ("yes 0123456789012345678901234567890123456789",))


class Allocates:
    """A pickle that takes all memory it can get."""

    def __reduce__(self) -> Any:
        return (bytearray, (1 << 40,))
