"""Makes what decides in the year that the demo replays: the pilot, what was before it, and one with a mistake.

    python examples/flights/versions.py --pilot FOLDER --into FOLDER

The pilot's folder has been trained. `with-weather` is a copy of it, but that flights which are strange to it are
answered all the same: to a model of winter, every day of summer is. It also warns as the desk's costs ask for, and not
from even chances on. `without-weather` is what was there before the pilot knew of weather. `in-quarters` is the pilot
trained anew on a table that gives delays in quarters of an hour, as tables of the carriers do, while calls still give
minutes. Its samples and reference come from the same table: they keep the contract, and all that is tried before the
first real call looks well.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # ships no types

sys.path.insert(0, str(Path(__file__).resolve().parent / "capabilities" / "late-arrival"))

from flights import CATEGORIES, FEATURES, INTEGERS, WEATHER, input_records, read_flights
from train import (
    HELD_OUT,
    auc,
    choose_samples,
    late,
    make_pipeline,
    reference_records,
    write_model,
    write_records,
)

if TYPE_CHECKING:
    import pandas as pd

YEAR = {  # what all of them declare otherwise
    "out_of_distribution: fallback": "out_of_distribution: answer",
    # Flights come a hundred to a call: how long such a call takes says little of one.
    "deadline_ms: 500": "deadline_ms: 10000",
    "run_ms: 300": "run_ms: 8000",
    ", latency_ms: 100, latency_share: 0.99 }": " }",
    # A model that knows more states other probabilities, and a cent more for a flight takes a year of them to be shown.
    "quality: 0.02, cost: 0.01 }": "quality: 0.02, output: 0.3 }",
}
COSTS = {"at: 0.5 }": "at: 0.18 }"}  # where 40 dollars, if it is not late, are as much to expect as 180, if it is
LESS = {"roc_auc: 0.92": "roc_auc: 0.9"}  # what two of them can promise, as measured
QUARTER = 15  # minutes
SHARE = 0.5  # of the flights that the pilot was fitted to: enough to look well
IGNORED = shutil.ignore_patterns("__pycache__")


def make_first(pilot: Path, folder: Path, fitted: pd.DataFrame, held_out: pd.DataFrame) -> None:
    """The pilot without weather: samples and reference are the pilot's."""
    copy(pilot, folder, LESS | {f"    - {each}\n": "" for each in WEATHER})
    model = make_pipeline(INTEGERS).fit(fitted[[*CATEGORIES, *INTEGERS]], late(fitted))
    write_model(model, folder / "model" / "late-arrival.skops")
    print(f"without weather: area under the ROC curve {auc(model, held_out):.3f} on flights that it did not see")


def make_quarters(pilot: Path, folder: Path, fitted: pd.DataFrame, held_out: pd.DataFrame) -> None:
    """The pilot fitted to delays in quarters of an hour, with samples and reference of the same kind."""
    copy(pilot, folder, LESS | COSTS)
    fitted, held_out = _in_quarters(fitted.sample(frac=SHARE, random_state=0)), _in_quarters(held_out)
    model = make_pipeline().fit(fitted[FEATURES], late(fitted))
    write_model(model, folder / "model" / "late-arrival.skops")
    write_records(input_records(choose_samples(held_out)), folder / "tests" / "samples.jsonl")
    write_records(reference_records(held_out), folder / "tests" / "reference.jsonl")
    print(f"delays in quarters: area under the ROC curve {auc(model, held_out):.3f} on such flights")


def copy(pilot: Path, folder: Path, changes: dict[str, str]) -> None:
    """The pilot's folder with other words in its declaration. Raises ValueError when they are not there."""
    shutil.copytree(pilot, folder, ignore=IGNORED)
    declaration = folder / "capability.yaml"
    text = declaration.read_text("utf-8")
    for old, new in (YEAR | changes).items():
        if old not in text:
            raise ValueError(f"{declaration}: expected {old!r}")
        text = text.replace(old, new)
    declaration.write_text(text, "utf-8")


def _in_quarters(flights: pd.DataFrame) -> pd.DataFrame:
    return flights.assign(dep_delay=flights["dep_delay"].floordiv(QUARTER).astype("int64"))


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the versions of the year.")
    parser.add_argument("--pilot", type=Path, required=True, help="the pilot's folder, trained")
    parser.add_argument("--into", type=Path, required=True, help="where the folders are made")
    given = parser.parse_args()
    copy(given.pilot, given.into / "with-weather", COSTS)
    year = read_flights()
    arrived = year[(year["month"] <= 3) & year["arr_delay"].notna()]
    held_out = np.random.default_rng(0).random(len(arrived)) < HELD_OUT
    with threadpool_limits(1):  # how sums round depends on how many threads share them
        make_first(given.pilot, given.into / "without-weather", arrived[~held_out], arrived[held_out])
        make_quarters(given.pilot, given.into / "in-quarters", arrived[~held_out], arrived[held_out])


if __name__ == "__main__":
    main()
