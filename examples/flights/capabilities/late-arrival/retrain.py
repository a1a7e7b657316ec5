"""Fit the model again, to flights that were decided about and have landed: what `mainstay retraining` calls.

With them goes every third of the flights that it was first fitted to: fitted to summer alone, it would forget winter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import polars as pl
from flights import CATEGORIES, FEATURES, INTEGERS, WEATHER, read_flights
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # ships no types
from train import HELD_OUT, late, make_pipeline, write_model, write_records

if TYPE_CHECKING:
    from pathlib import Path

REFERENCE = 4_000  # rows of the reference, at most
SAMPLES = 300
KEPT = 3  # of the first flights, one in so many


def retrain(rows: Path, folder: Path, seed: int) -> None:
    """Write `model/late-arrival.skops`, and the samples and the reference that go with it, into `folder`."""
    # The same flights in the same order, whichever of them was decided first.
    frozen = pl.read_parquet(rows).sort("mainstay_at", *FEATURES, "late")
    flights = _typed(pd.DataFrame(frozen.to_dict(as_series=False)))
    random = np.random.default_rng(seed)
    held_out = random.random(len(flights)) < HELD_OUT
    with threadpool_limits(1):  # how sums round depends on how many threads share them
        newer, first = flights[~held_out], _first_flights()
        fitted = pd.concat([first[FEATURES], newer[FEATURES]])
        model = make_pipeline().fit(fitted, pd.concat([late(first), newer["late"].astype(int)]))
    write_model(model, folder / "model" / "late-arrival.skops")
    chosen = random.permutation(np.flatnonzero(held_out))[:REFERENCE]
    reference = flights.iloc[np.sort(chosen)]
    inputs = _records(reference)
    pairs = [
        {"input": given, "outcome": {"late": bool(label)}}
        for given, label in zip(inputs, reference["late"], strict=True)
    ]
    write_records(pairs, folder / "tests" / "reference.jsonl")
    write_records(inputs[:SAMPLES], folder / "tests" / "samples.jsonl")
    print(f"fitted on {len(newer):,} newer and {len(first):,} first flights, {len(pairs):,} for reference")


def _first_flights() -> pd.DataFrame:
    flights = read_flights()
    return flights[(flights["month"] <= 3) & flights["arr_delay"].notna()].iloc[::KEPT]


def _typed(flights: pd.DataFrame) -> pd.DataFrame:
    """The columns as the model was first fitted to them: codes as text, minutes and miles whole, weather as it is."""
    columns: dict[str, Any] = dict.fromkeys(CATEGORIES, "object")
    return flights.astype(columns | dict.fromkeys(INTEGERS, "int64") | dict.fromkeys(WEATHER, "float64"))


def _records(flights: pd.DataFrame) -> list[dict[str, Any]]:
    """The contract's `departure`: None where nothing was measured."""
    plain = flights[FEATURES].astype(object)
    values = plain.where(plain.notna(), None).to_numpy().tolist()
    return [dict(zip(FEATURES, row, strict=True)) for row in values]
