"""Real streams whose labels come late: alarms, what acting on them gains, and estimates before there are labels.

    python bench/streams.py [--data FOLDER] [--peers] [--only alarms|estimates] [--json]

On the electricity market, the weather of New York and the census, labels come 1 day, 1 week and 30 days after the
decision. A model is trained on the first rows and again whenever a monitor alarms, on all rows with labels; gain
is the accuracy of that over never training again. All detectors see the same errors, in the order their labels come.
With `--peers`, River's detectors and NannyML's CBPE run beside ours, in an environment that is made on first use.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # read when they are first imported

import numpy as np
import polars as pl
from environments import python_of
from sklearn.ensemble import HistGradientBoostingClassifier

from mainstay.capability.keeping import Metric
from mainstay.monitoring.estimation import Estimator, PerformanceEstimate, estimate_windows, fit_estimator
from mainstay.monitoring.expected_metrics import Cases, Estimable
from mainstay.monitoring.intervals import wilson
from mainstay.monitoring.performance import roc_auc
from mainstay.monitoring.performance_monitor import MetricWindow, PerformanceMonitor, learn_reference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    Detector: TypeAlias = Callable[[NDArray[np.bool_]], int | None]

HERE = Path(__file__).resolve().parent
PEERS = "streams"
DATA = HERE.parents[1] / "shared" / "data" / "streams"
DELAYS = {"1 day": 1, "1 week": 7, "30 days": 30}
RIVER = ("ADWIN", "PageHinkley", "KSWIN", "DDM")
CALENDAR = "30 days each"
OURS, CBPE = "Mainstay", "NannyML CBPE"
FIRST_DAYS = 60  # that the first model is trained on
WINDOW_DAYS = 7
REFERENCE_WINDOWS = 6
RATE = 7 / 365  # false alarms per window: one a year
CHUNK, SMALL_CHUNK = 5_000, 500
REPEATED_ROWS = 1_000_000
NOT_INPUTS = ("id", "year", "employed", "prediction", "predicted_probability")
START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Stream:
    """Rows in time order. Without `inputs`, the predictions are those that came with the data: nothing is trained."""

    name: str
    truth: NDArray[np.bool_]
    rows_a_day: int
    inputs: NDArray[np.float64] | None
    said: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Followed:
    """A stream with one monitor."""

    stream: str
    delay: str
    monitor: str
    alarms: int
    alarms_per_1000: float
    accuracy: float
    gain_per_alarm: float | None  # in points of accuracy; None: no alarm, or nothing to train


def electricity(folder: Path) -> Stream:
    frame = pl.read_csv(folder / "elec2.csv")
    inputs = frame.drop("class").to_numpy()
    return Stream("elec2", frame["class"].to_numpy() == 1, 48, np.asarray(inputs, dtype=np.float64))


def weather(folder: Path) -> Stream:
    """Whether it rains in the next hour, at three airports."""
    frame = pl.read_csv(folder / "nyc_weather_2013.csv", null_values="NA", infer_schema_length=None)
    rain = (pl.col("precip").shift(-1).over("origin") > 0).alias("rain")
    frame = frame.with_columns(rain).drop_nulls("rain").sort("time_hour", "origin")
    names = ["month", "hour", "temp", "dewp", "humid", "wind_dir", "wind_speed", "precip", "pressure", "visib"]
    inputs = frame.select(pl.col(names).cast(pl.Float64)).to_numpy()
    return Stream("NYC weather", frame["rain"].to_numpy(), 72, np.asarray(inputs, dtype=np.float64))


def read_census(folder: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    later = pl.read_csv(folder / "acs_employment_ma_analysis.csv")
    truth = pl.read_csv(folder / "acs_employment_ma_analysis_target.csv")
    return pl.read_csv(folder / "acs_employment_ma_reference.csv"), later.join(truth, on="id")


def census(folder: Path) -> Stream:
    rows = pl.concat([part.select("employed", "prediction", "year") for part in read_census(folder)])
    said, truth = (rows[name].to_numpy() == 1 for name in ("prediction", "employed"))
    return Stream("ACS", truth, len(rows) // (4 * 365), None, said)


# --- alarms and what acting on them gains ---------------------------------------------------------------------------


def train(stream: Stream, first: int, last: int) -> NDArray[np.bool_]:
    """What a model of these rows says of every row of the stream."""
    assert stream.inputs is not None
    truth = stream.truth[first:last]
    if truth.all() or not truth.any():
        return np.full(len(stream.truth), bool(truth[0]))
    model = HistGradientBoostingClassifier(max_iter=40, max_leaf_nodes=15, random_state=0)
    model.fit(stream.inputs[first:last], truth)
    return np.asarray(model.predict(stream.inputs), dtype=np.bool_)


def follow(stream: Stream, delay_days: int, detect: Detector | None) -> tuple[int, float]:
    """Alarms, and the accuracy after the first training: train on alarm, and go on from there."""
    day, n = stream.rows_a_day, len(stream.truth)
    begin, delay = FIRST_DAYS * day, delay_days * day
    right = np.zeros(n, dtype=np.bool_)
    said = stream.said if stream.said is not None else train(stream, 0, begin)
    now, alarms = begin, 0
    while now < n:
        right[now:] = said[now:] == stream.truth[now:]
        # Labels of rows decided since the last training; those of the last `delay` rows never come.
        place = detect(~right[now : max(now, n - delay)]) if detect else None
        if place is None:
            break
        alarms += 1
        now += place + delay + 1
        if stream.said is None and now < n:
            said = train(stream, 0, now - delay)
    return alarms, float(right[begin:].mean())


def ours(rows_a_day: int) -> Detector:
    """Windows of a week: the first six are the reference, and the others are held against it."""
    size = WINDOW_DAYS * rows_a_day

    def detect(errors: NDArray[np.bool_]) -> int | None:
        windows = []
        for place in range(len(errors) // size):
            chunk = errors[place * size : (place + 1) * size]
            begin = START + timedelta(days=place * WINDOW_DAYS)
            given = wilson(int((~chunk).sum()), size)
            end = begin + timedelta(days=WINDOW_DAYS)
            windows.append(MetricWindow(start=begin, end=end, estimate=given, labels=size))
        if len(windows) <= REFERENCE_WINDOWS:
            return None
        reference = learn_reference("accuracy", windows[:REFERENCE_WINDOWS])
        monitor = PerformanceMonitor(Metric(name="accuracy"), reference, rate=RATE)
        for place, window in enumerate(windows[REFERENCE_WINDOWS:], start=REFERENCE_WINDOWS):
            if monitor.look(window).state == "degraded":
                return (place + 1) * size - 1
        return None

    return detect


def by_calendar(rows_a_day: int) -> Detector:
    """Nothing is watched: 30 days of labels since the last training are an alarm."""
    return lambda errors: 30 * rows_a_day - 1 if len(errors) >= 30 * rows_a_day else None


@contextmanager
def rivers() -> Iterator[dict[str, Detector]]:
    """River's detectors, by name, while their process runs."""
    command = [str(python_of(PEERS)), str(HERE / "streams_peers.py"), "detect"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        pipe_in, pipe_out = process.stdin, process.stdout

        def ask(name: str, errors: NDArray[np.bool_]) -> int | None:
            text = "".join("1" if error else "0" for error in errors)
            pipe_in.write(json.dumps({"detector": name, "errors": text}) + "\n")
            pipe_in.flush()
            place = json.loads(pipe_out.readline())
            return None if place is None else int(place)

        yield {name: partial(ask, name) for name in RIVER}
        pipe_in.close()


def follow_all(streams: list[Stream], peers: dict[str, Detector]) -> list[Followed]:
    found = []
    for stream in streams:
        rows = len(stream.truth) - FIRST_DAYS * stream.rows_a_day
        _, never = follow(stream, 0, None)
        # Where nothing is trained the delay only moves the alarms.
        delays = DELAYS if stream.said is None else dict(list(DELAYS.items())[:1])
        for delay, days in delays.items():
            detectors = {OURS: ours(stream.rows_a_day), CALENDAR: by_calendar(stream.rows_a_day), **peers}
            for name, detect in detectors.items():
                if name == CALENDAR and stream.said is not None:
                    continue
                alarms, accuracy = follow(stream, days, detect)
                gain = (accuracy - never) * 100 / alarms if alarms and stream.said is None else None
                found.append(Followed(stream.name, delay, name, alarms, alarms * 1_000 / rows, accuracy, gain))
    return found


def yearly_verdicts(folder: Path) -> dict[str, list[str]]:
    """The census years, of which none was worse, against the first one's chunks."""
    reference, later = read_census(folder)
    years = [year for _, year in later.group_by(["year"], maintain_order=True)]
    said: dict[str, list[str]] = {}
    for name in ESTIMATED:
        known = learn_reference(name, [_window(name, i, c) for i, c in enumerate(reference.iter_slices(CHUNK))])
        monitor = PerformanceMonitor(Metric(name=name), known, rate=RATE)
        said[name] = [monitor.look(_window(name, i, year)).state for i, year in enumerate(years)]
    return said


def _window(name: Estimable, place: int, rows: pl.DataFrame) -> MetricWindow:
    truth, scores, said, _ = arrays(rows)
    given = roc_auc(truth, scores) if name == "roc_auc" else wilson(int((truth == said).sum()), len(truth))
    begin = START + timedelta(days=365 * place)
    return MetricWindow(start=begin, end=begin + timedelta(days=365), estimate=given, labels=len(truth))


# --- estimates before there are labels ------------------------------------------------------------------------------

ESTIMATED: tuple[Estimable, ...] = ("accuracy", "roc_auc")
SHARED: tuple[Estimable, ...] = (*ESTIMATED, "f1", "precision", "recall")  # that both tools have


def arrays(rows: pl.DataFrame) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.bool_], pl.DataFrame]:
    truth, said = (rows[name].to_numpy() == 1 for name in ("employed", "prediction"))
    return truth, rows["predicted_probability"].to_numpy(), said, rows.drop(NOT_INPUTS, strict=False)


@dataclass(frozen=True)
class Million:
    """CPU seconds: to learn a reference, and to estimate a million rows in 200 chunks of 5,000."""

    tool: str
    metrics: int
    rows: int  # of the reference
    fit: float
    first: float  # estimate of a process, of the whole frame
    again: float  # the same, median of three more
    bare: float | None  # of a frame with nothing but prediction and score; ours needs the inputs


@dataclass(frozen=True)
class Estimated:
    """Estimates of chunks against what their labels said."""

    stream: str
    tool: str
    metric: str
    chunks: int
    mean_error: float
    unchanged_error: float  # of always saying what the reference had
    covered: float  # share of 95 % intervals that held the truth
    fit_seconds: float  # CPU
    estimate_seconds: float


@dataclass(frozen=True)
class Split:
    """A stream with a model's predictions: rows with labels, and later ones."""

    name: str
    reference: pl.DataFrame
    later: pl.DataFrame
    chunk: int


def split(stream: Stream) -> Split:
    """A third trains a model, a third is the reference, and a third is estimated."""
    assert stream.inputs is not None
    third = len(stream.truth) // 3
    model = HistGradientBoostingClassifier(max_iter=40, max_leaf_nodes=15, random_state=0)
    model.fit(stream.inputs[:third], stream.truth[:third])
    scores = model.predict_proba(stream.inputs)[:, 1]
    rows = pl.DataFrame(stream.inputs, schema=[f"input_{i}" for i in range(stream.inputs.shape[1])]).with_columns(
        employed=pl.Series(stream.truth, dtype=pl.Int64),
        prediction=pl.Series(scores > 0.5, dtype=pl.Int64),
        predicted_probability=scores,
    )
    whole = third // SMALL_CHUNK * SMALL_CHUNK
    return Split(stream.name, rows[third : 2 * third], rows[2 * third : 2 * third + whole], SMALL_CHUNK)


def estimate_ours(given: Split) -> list[Estimated]:
    begun = time.process_time()
    estimator = fit_estimator(*arrays(given.reference), chunk_rows=given.chunk)
    fitted = time.process_time()
    said = estimate_all(estimator, given.later, given.chunk)
    seconds = fitted - begun, time.process_time() - fitted
    found = []
    for place, metric in enumerate(ESTIMATED):
        mine = [estimates[place] for estimates in said]
        values = np.array([(one.value, one.low, one.high) for one in mine]).T
        found.append(_scored(OURS, metric, given, values, seconds))
    return found


def estimate_all(
    estimator: Estimator, rows: pl.DataFrame, chunk: int, metrics: Sequence[Estimable] = ESTIMATED
) -> list[list[PerformanceEstimate]]:
    said, scores = rows["prediction"].to_numpy() == 1, rows["predicted_probability"].to_numpy()
    sizes = [min(chunk, len(rows) - start) for start in range(0, len(rows), chunk)]
    return estimate_windows(estimator, scores, said, rows, sizes, metrics)


def real(metric: Estimable, rows: pl.DataFrame) -> float:
    truth, scores, said, _ = arrays(rows)
    found = Cases(said, scores).expect(metric, truth.astype(np.float64))
    return found.value if found else math.nan


def _scored(
    tool: str, metric: Estimable, given: Split, values: NDArray[np.float64], seconds: tuple[float, float]
) -> Estimated:
    """`values: (3, chunks)` are the estimates and their bounds; the last, shorter chunk may have been left out."""
    was = np.array([real(metric, chunk) for chunk in given.later.iter_slices(given.chunk)])[: values.shape[1]]
    there = ~np.isnan(was)  # an area needs both classes
    (said, low, high), was = values[:, there], was[there]
    return Estimated(
        given.name,
        tool,
        metric,
        len(was),
        float(np.abs(said - was).mean()),
        float(np.abs(real(metric, given.reference) - was).mean()),
        float(((low <= was) & (was <= high)).mean()),
        *seconds,
    )


def ask_cbpe(
    reference: pl.DataFrame, later: pl.DataFrame, chunk: int, metrics: Sequence[Estimable] = ESTIMATED
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="mainstay-streams-") as name:
        folder = Path(name)
        for part, rows in (("reference", reference), ("later", later.drop("employed"))):
            rows.write_parquet(folder / f"{part}.parquet")
        command = [str(python_of(PEERS)), str(HERE / "streams_peers.py"), "estimate", name, str(chunk), *metrics]
        subprocess.run(command, check=True)
        said: dict[str, Any] = json.loads((folder / "estimates.json").read_text())
        return said


def estimate_cbpe(given: Split) -> list[Estimated]:
    """NannyML, whose bounds are sampling error about the estimate."""
    said = ask_cbpe(given.reference, given.later, given.chunk)
    seconds = said["fit_seconds"], said["estimate_seconds"]
    found = []
    for metric in ESTIMATED:
        values = np.array([said[metric][name] for name in ("value", "low", "high")], dtype=np.float64)
        found.append(_scored(CBPE, metric, given, values, seconds))
    return found


def repeated(rows: pl.DataFrame) -> pl.DataFrame:
    """The same over and over, up to a million rows."""
    return pl.concat([rows] * (REPEATED_ROWS // len(rows) + 1)).head(REPEATED_ROWS).rechunk()


def time_million(
    reference: pl.DataFrame, later: pl.DataFrame, metrics: Sequence[Estimable], *, peers: bool
) -> list[Million]:
    known = arrays(reference)
    begun = time.process_time()
    estimator = fit_estimator(*known, chunk_rows=CHUNK)
    fitted = time.process_time() - begun
    taken = []
    for _ in range(4):
        begun = time.process_time()
        estimate_all(estimator, later, CHUNK, metrics)
        taken.append(time.process_time() - begun)
    size = len(metrics), len(reference)
    found = [Million(OURS, *size, fitted, taken[0], float(np.median(taken[1:])), None)]
    if peers:
        said = ask_cbpe(reference, later, CHUNK, metrics)
        seconds = (said[f"{name}_seconds"] for name in ("fit", "estimate", "again", "bare"))
        found.append(Million(CBPE, *size, *seconds))
    return found


def alarms(streams: list[Stream], folder: Path, *, peers: bool) -> dict[str, Any]:
    if peers:
        with rivers() as detectors:
            followed = follow_all(streams, detectors)
    else:
        followed = follow_all(streams, {})
    return {"followed": [asdict(one) for one in followed], "yearly": yearly_verdicts(folder)}


def estimates(streams: list[Stream], folder: Path, *, peers: bool) -> dict[str, Any]:
    reference, later = read_census(folder)
    estimated = []
    for one in (Split("ACS", reference, later, CHUNK), *(split(stream) for stream in streams[:2])):
        estimated += estimate_ours(one)
        if peers:
            estimated += estimate_cbpe(one)
    million = []
    for learned, metrics in ((repeated(reference), ESTIMATED), (reference, SHARED)):
        million += time_million(learned, repeated(later), metrics, peers=peers)
    return {"estimated": [asdict(one) for one in estimated], "million": [asdict(one) for one in million]}


def show(result: dict[str, Any]) -> None:
    if "followed" in result:
        show_alarms(result)
    if "estimated" in result:
        show_estimates(result)


def show_alarms(result: dict[str, Any]) -> None:
    print(
        f"{'stream':12} {'delay':8} {'monitor':12} {'alarms':>6} {'/1,000 rows':>12} {'accuracy':>9} {'gain/alarm':>11}"
    )
    for one in result["followed"]:
        gain = "-" if one["gain_per_alarm"] is None else f"{one['gain_per_alarm']:+.2f} pt"
        print(
            f"{one['stream']:12} {one['delay']:8} {one['monitor']:12} {one['alarms']:6} {one['alarms_per_1000']:12.3f} "
            f"{one['accuracy']:9.4f} {gain:>11}"
        )
    for metric, states in result["yearly"].items():
        print(f"ACS by year, {metric}: {', '.join(states)}")


def show_estimates(result: dict[str, Any]) -> None:
    print(
        f"\n{'stream':12} {'estimates':14} {'metric':9} {'chunks':>6} {'mean error':>10} {'unchanged':>10} "
        f"{'covered':>8} {'fit s':>7} {'estimate s':>10}"
    )
    for one in result["estimated"]:
        print(
            f"{one['stream']:12} {one['tool']:14} {one['metric']:9} {one['chunks']:6} {one['mean_error']:10.5f} "
            f"{one['unchanged_error']:10.5f} {one['covered']:8.1%} {one['fit_seconds']:7.2f} "
            f"{one['estimate_seconds']:10.3f}"
        )
    print("\na million rows, CPU s  metrics  reference     fit     first    again  without inputs")
    for one in result["million"]:
        bare = "-" if one["bare"] is None else f"{one['bare']:.2f}"
        print(
            f"{one['tool']:21} {one['metrics']:8} {one['rows']:10,} {one['fit']:7.2f} {one['first']:9.4f} "
            f"{one['again']:8.4f} {bare:>15}"
        )
    for mine, other in zip(result["million"], result["million"][1:], strict=False):
        if other["bare"] is not None:
            both = (other["fit"] + other["first"]) / (mine["fit"] + mine["first"])
            print(
                f"{mine['metrics']} metrics, ratio: first {other['first'] / mine['first']:.0f}, again "
                f"{other['again'] / mine['again']:.0f}, without inputs {other['bare'] / mine['again']:.0f}, "
                f"fit and first {both:.1f}"
            )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--only", choices=("alarms", "estimates"))
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    streams = [electricity(given.data), weather(given.data), census(given.data)]
    result: dict[str, Any] = {}
    if given.only != "estimates":
        result |= alarms(streams, given.data, peers=given.peers)
    if given.only != "alarms":
        result |= estimates(streams, given.data, peers=given.peers)
    if given.json:
        print(json.dumps(result))
    else:
        show(result)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
