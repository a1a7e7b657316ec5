"""Fit the model that predicts at door closing whether a flight arrives more than 15 minutes late.

    python train.py

It learns from January to March, is measured on flights of those months it did not see and on April, and writes
`model/late-arrival.skops`, `tests/samples.jsonl` and `tests/reference.jsonl` beside this file; the same data make the
same bytes.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import skops.io
from flights import CATEGORIES, FEATURES, INTEGERS, LATE_MINUTES, WEATHER, input_records, read_flights
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # ships no types

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import pandas as pd

HERE = Path(__file__).resolve().parent
HELD_OUT = 0.2  # share of January to March the model does not see
SAMPLES = 290
SAMPLES_WITHOUT_WEATHER = 10  # rare, so a plain sample would hold none
REFERENCE = 8_000  # half as many, and an airline of one flight in a thousand is too rare to tell from an unseen one


def make_pipeline(numbers: Sequence[str] = (*INTEGERS, *WEATHER)) -> Pipeline:
    """Categories one-hot, numbers as they are: the trees handle gaps themselves."""
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False, min_frequency=50)
    columns = [("categories", encoder, CATEGORIES), ("numbers", "passthrough", list(numbers))]
    return Pipeline(
        [("columns", ColumnTransformer(columns)), ("trees", HistGradientBoostingClassifier(random_state=0))]
    )


def late(flights: pd.DataFrame) -> pd.Series:
    """The label: 1 when the flight arrived more than 15 minutes after its schedule."""
    return (flights["arr_delay"] > LATE_MINUTES).astype(int)


def auc(model: Pipeline, flights: pd.DataFrame) -> float:
    return float(roc_auc_score(late(flights), model.predict_proba(flights[FEATURES])[:, 1]))


def choose_samples(flights: pd.DataFrame) -> pd.DataFrame:
    """Flights that left, with the gaps their records really have."""
    left = flights[flights["dep_delay"].notna()]
    no_weather = left[left[WEATHER].isna().all(axis="columns")]
    rest = left.drop(no_weather.index)
    rows = [*rest.sample(SAMPLES, random_state=0).index, *no_weather.head(SAMPLES_WITHOUT_WEATHER).index]
    return flights.loc[sorted(rows)]


def reference_records(flights: pd.DataFrame) -> list[dict[str, Any]]:
    """Some of the flights, in order of time, each with the contract's `arrival` beside its `departure`."""
    chosen = flights.sample(REFERENCE, random_state=0).sort_index()
    delays = [int(delay) for delay in chosen["arr_delay"]]
    outcomes = [{"late": delay > LATE_MINUTES, "arr_delay": delay} for delay in delays]
    inputs = input_records(chosen)
    return [{"input": given, "outcome": outcome} for given, outcome in zip(inputs, outcomes, strict=True)]


def write_records(records: Iterable[Mapping[str, Any]], path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(record, allow_nan=False) + "\n" for record in records), "utf-8")


def write_model(model: Pipeline, path: Path) -> None:
    """Write a skops file whose bytes depend on the model alone.

    skops names parts by their memory address and stamps them with the time; both are replaced by constants.
    """
    with zipfile.ZipFile(io.BytesIO(skops.io.dumps(model))) as made:
        parts = {name: made.read(name) for name in made.namelist()}
    schema = json.loads(parts.pop("schema.json"))
    numbers: dict[int, int] = {}
    names: dict[str, str] = {}
    for node in _nodes(schema):
        if "__id__" in node:
            node["__id__"] = numbers.setdefault(node["__id__"], len(numbers))
        if "file" in node:
            node["file"] = names.setdefault(node["file"], f"{len(names)}{Path(node['file']).suffix}")
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, new_name in names.items():
            _add(archive, new_name, parts[name])
        _add(archive, "schema.json", json.dumps(schema).encode())


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Every JSON object within `value`, outermost first."""
    if isinstance(value, dict):
        yield value
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _nodes(child)


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name)  # without a time, it is stamped 1980-01-01
    entry.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(entry, content)


def main() -> None:
    flights = read_flights()
    winter, april = flights[flights["month"] <= 3], flights[flights["month"] == 4]
    arrived = winter[winter["arr_delay"].notna()]
    held_out = np.random.default_rng(0).random(len(arrived)) < HELD_OUT

    with threadpool_limits(1):  # how sums round depends on how many threads share them
        model = make_pipeline().fit(arrived.loc[~held_out, FEATURES], late(arrived[~held_out]))
    print(f"fitted on {(~held_out).sum():,} flights of January to March 2013")
    print(f"area under the ROC curve, flights of those months it did not see: {auc(model, arrived[held_out]):.3f}")
    print(f"area under the ROC curve, April: {auc(model, april[april['arr_delay'].notna()]):.3f}")

    write_model(model, HERE / "model" / "late-arrival.skops")
    write_records(input_records(choose_samples(winter)), HERE / "tests" / "samples.jsonl")
    write_records(reference_records(arrived[held_out]), HERE / "tests" / "reference.jsonl")
    print("wrote model/late-arrival.skops, tests/samples.jsonl and tests/reference.jsonl")


if __name__ == "__main__":
    main()
