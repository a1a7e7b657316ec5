"""Five pilots of different kinds: a model as somebody would bring it, a sample of its data, and rows kept back.

Each is trained small on real data. The rows kept back are clean, from the same source, and were in no way shown to
`mainstay new`; what the model itself says of them is what every answer is held against.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib
import lightgbm
import numpy as np
import pandas as pd
import skops.io
import xgboost
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("MAINSTAY_SHARED_DATA", ROOT.parent / "shared" / "data"))
FLIGHTS = ROOT / "examples" / "flights" / "capabilities" / "late-arrival" / "flights.py"
PREDICTOR = "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"
KEPT_BACK = 0.3
MOST_FRESH = 2_000
FLIGHT_ROWS = 30_000
ACS_ROWS = 30_000


@dataclass(frozen=True)
class Pilot:
    """What somebody brings, and what is right for rows that nobody was shown."""

    name: str
    model: Path
    sample: Path  # CSV
    options: tuple[str, ...]  # of `mainstay new`
    register: tuple[str, ...]  # of `mainstay register`
    positive: Any  # the class that is to be called positive
    fresh: Path  # CSV with the columns of the sample
    probabilities: list[float]  # of the positive class, for every fresh row


def _split(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The sample and the rows kept back, drawn at random and each in the order of the table."""
    kept = np.random.default_rng(0).random(len(table)) < KEPT_BACK
    return table[~kept], table[kept].head(MOST_FRESH)


def _pilot(  # noqa: PLR0913 - what a pilot is, once
    folder: Path,
    name: str,
    model: str,
    tables: tuple[pd.DataFrame, pd.DataFrame],
    positive: Any,
    probabilities: Any,
    *,
    options: Sequence[str] = (),
    register: Sequence[str] = (),
) -> Pilot:
    sample, fresh = folder / "sample.csv", folder / "fresh.csv"
    for table, path in zip(tables, (sample, fresh), strict=True):
        table.to_csv(path, index=False)
    stated = np.asarray(probabilities, dtype=np.float64).tolist()
    return Pilot(name, folder / model, sample, tuple(options), tuple(register), positive, fresh, stated)


def flights(folder: Path) -> Pilot:
    """A scikit-learn pipeline in a skops file: text, integers and weather with gaps. Its label has to be found."""
    flown = _flights_module()
    table = flown.read_flights()
    table = table[table["dep_delay"].notna() & table["arr_delay"].notna()]
    table = table.sample(FLIGHT_ROWS, random_state=0).sort_index()
    table = table[flown.FEATURES].assign(late=(table["arr_delay"] > flown.LATE_MINUTES).astype(int))
    for name in flown.INTEGERS:
        table[name] = table[name].astype(int)
    sample, fresh = _split(table)
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False, min_frequency=50)
    numbers = [*flown.INTEGERS, *flown.WEATHER]
    columns = ColumnTransformer([("text", encoder, flown.CATEGORIES), ("numbers", "passthrough", numbers)])
    trees = HistGradientBoostingClassifier(max_iter=30, random_state=0)
    model = Pipeline([("columns", columns), ("trees", trees)]).fit(sample[flown.FEATURES], sample["late"])
    skops.io.dump(model, folder / "late.skops")
    stated = model.predict_proba(fresh[flown.FEATURES])[:, 1]
    trust = ("--trust-type", PREDICTOR)
    return _pilot(folder, "flights", "late.skops", (sample, fresh), 1, stated, options=trust)


def _flights_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("flights_of_the_example", FLIGHTS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def acs(folder: Path) -> Pilot:
    """A booster in LightGBM's own format, by names; the file has an id and another model's predictions besides."""
    table = pd.read_csv(DATA / "streams" / "acs_employment_ma_reference.csv").sample(ACS_ROWS, random_state=0)
    sample, fresh = _split(table.sort_index())
    features = [each for each in table.columns if each not in ("id", "employed", "year")]
    features = [each for each in features if not each.startswith("predict")]
    fitted = lightgbm.LGBMClassifier(n_estimators=30, num_leaves=15, random_state=0, n_jobs=1, verbose=-1)
    fitted.fit(sample[features], sample["employed"])
    fitted.booster_.save_model(folder / "employed.txt")
    stated = fitted.booster_.predict(fresh[features])
    options = ("--label", "employed")
    return _pilot(folder, "acs", "employed.txt", (sample, fresh), 1, stated, options=options)


def elec2(folder: Path) -> Pilot:
    """A booster in XGBoost's own format, by names, on numbers that were scaled from 0 to 1."""
    sample, fresh = _split(pd.read_csv(DATA / "streams" / "elec2.csv"))
    features = [each for each in sample.columns if each != "class"]
    fitted = xgboost.XGBClassifier(n_estimators=30, max_depth=4, random_state=0, n_jobs=1)
    fitted.fit(sample[features], sample["class"])
    fitted.get_booster().save_model(folder / "up.ubj")
    stated = fitted.predict_proba(fresh[features])[:, 1]
    return _pilot(folder, "elec2", "up.ubj", (sample, fresh), 1, stated)


def breast_cancer(folder: Path) -> Pilot:
    """An ONNX graph of one nameless matrix; 30 measurements in 400 rows."""
    data = load_breast_cancer(as_frame=True)
    sample, fresh = _split(data.frame.rename(columns={"target": "benign"}))
    features = [each for each in sample.columns if each != "benign"]
    fitted = GradientBoostingClassifier(n_estimators=30, random_state=0)
    fitted.fit(sample[features].to_numpy(), sample["benign"].to_numpy())
    shape = [("measurements", FloatTensorType([None, len(features)]))]
    graph = to_onnx(fitted, initial_types=shape, options={id(fitted): {"zipmap": False}})
    (folder / "benign.onnx").write_bytes(graph.SerializeToString())
    stated = fitted.predict_proba(fresh[features].to_numpy())[:, 1]
    return _pilot(folder, "breast-cancer", "benign.onnx", (sample, fresh), 1, stated)


def hospital(folder: Path) -> Pilot:
    """A pickle of a pipeline over text columns, zip codes among them; its classes are words."""
    text = ["ZipCode", "CountyName", "State", "HospitalOwner", "Condition", "MeasureCode"]
    table = pd.read_csv(DATA / "dirty" / "hospital" / "clean.csv", dtype=str, keep_default_na=False)
    sample, fresh = _split(table)
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    model = Pipeline(
        [("columns", ColumnTransformer([("text", encoder, text)])), ("line", LogisticRegression(max_iter=500))]
    ).fit(sample[text], sample["EmergencyService"])
    joblib.dump(model, folder / "emergency.joblib")
    stated = model.predict_proba(fresh[text])[:, 1]
    trust = ("--trust-pickle", "trained by this benchmark a moment ago")
    options = ("--label", "EmergencyService", *trust)
    return _pilot(
        folder, "hospital", "emergency.joblib", (sample, fresh), "yes", stated, options=options, register=trust
    )


PILOTS: dict[str, Callable[[Path], Pilot]] = {
    "flights": flights,
    "acs": acs,
    "elec2": elec2,
    "breast-cancer": breast_cancer,
    "hospital": hospital,
}
