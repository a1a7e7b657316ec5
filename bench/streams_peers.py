"""Other tools over the streams of streams.py; runs in an environment of its own, which streams.py makes.

    python bench/streams_peers.py detect       answers lines of JSON until its input ends
    python bench/streams_peers.py estimate FOLDER CHUNK_ROWS METRIC...

`detect` reads `{"detector": NAME, "errors": "0110..."}` and writes the place of the first alarm, or null: a detector of
River as it comes, fed one error at a time. `estimate` reads `reference.parquet` and `later.parquet` and writes what
NannyML's CBPE says of chunks, with what it took, to `estimates.json`.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
import warnings
from pathlib import Path
from typing import Any


def detect() -> None:
    from river import drift  # type: ignore[import-not-found]  # noqa: PLC0415 - in an environment of its own, and slow

    made = {
        "ADWIN": drift.ADWIN,
        "PageHinkley": drift.PageHinkley,
        "KSWIN": lambda: drift.KSWIN(seed=0),
        "DDM": drift.binary.DDM,
    }
    for line in sys.stdin:
        asked = json.loads(line)
        detector, found = made[asked["detector"]](), None
        for place, error in enumerate(asked["errors"]):
            detector.update(int(error))
            if detector.drift_detected:
                found = place
                break
        print(json.dumps(found), flush=True)


def estimate(folder: Path, chunk_rows: int, metrics: list[str]) -> None:
    os.environ["NML_DISABLE_USAGE_LOGGING"] = "1"  # it would report its use to its makers
    import nannyml  # type: ignore[import-not-found]  # noqa: PLC0415 - the same
    import pandas as pd  # noqa: PLC0415 - the same

    reference, later = (pd.read_parquet(folder / f"{name}.parquet") for name in ("reference", "later"))
    begun = time.process_time()
    cbpe = nannyml.CBPE(
        metrics=metrics,
        y_true="employed",
        y_pred="prediction",
        y_pred_proba="predicted_probability",
        problem_type="classification_binary",
        chunk_size=chunk_rows,
    )
    cbpe.fit(reference)
    fitted = time.process_time()
    estimated = cbpe.estimate(later)
    done = time.process_time()
    found = estimated.filter(period="analysis").to_df()
    said: dict[str, Any] = {
        metric: {name: found[(metric, column)].tolist() for name, column in COLUMNS.items()} for metric in metrics
    }
    said["fit_seconds"] = fitted - begun
    said["estimate_seconds"] = done - fitted
    said["again_seconds"] = _median_seconds(cbpe, later)
    said["bare_seconds"] = _median_seconds(cbpe, later[["prediction", "predicted_probability"]])
    (folder / "estimates.json").write_text(json.dumps(said))


def _median_seconds(cbpe: Any, later: Any) -> float:
    taken = []
    for _ in range(3):
        begun = time.process_time()
        cbpe.estimate(later)
        taken.append(time.process_time() - begun)
    return statistics.median(taken)


COLUMNS = {
    "value": "value",
    "low": "lower_confidence_boundary",
    "high": "upper_confidence_boundary",
    "alert": "alert",
}

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    if sys.argv[1] == "detect":
        detect()
    else:
        estimate(Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
