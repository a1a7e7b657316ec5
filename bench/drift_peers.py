"""Other tools over the same tables; each runs in an environment of its own, which drift.py makes.

    python bench/drift_peers.py NAME drift FOLDER             reference.parquet and window.parquet: what drifted?
    python bench/drift_peers.py NAME errors FOLDER            each `*.npz`: how many of its windows are flagged?

Every tool is used as its documentation says, with its defaults. For `errors` an archive has `reference: (n,)` and
`windows: (many, m)`; each window is one column beside the same reference, since tools judge columns one by one.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Callable

ALIBI_LEVEL = 0.05  # its default

os.environ |= {"DO_NOT_TRACK": "1", "NML_DISABLE_USAGE_LOGGING": "1"}  # nothing is reported to anybody


def by_evidently(reference: pd.DataFrame, window: pd.DataFrame) -> list[str]:
    from evidently import DataDefinition, Dataset, Report  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415 - each peer loads only what it needs
    from evidently.presets import DataDriftPreset  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415

    texts = _texts(reference)
    kinds = DataDefinition(numerical_columns=[c for c in reference if c not in texts], categorical_columns=texts)
    report = Report([DataDriftPreset()])
    made = report.run(*(Dataset.from_pandas(frame, data_definition=kinds) for frame in (window, reference))).dict()
    flagged = []
    for metric in made["metrics"]:
        column, method = metric["config"].get("column"), metric["config"].get("method", "")
        if column is None:
            continue
        value, threshold = float(metric["value"]), float(metric["config"]["threshold"])
        if value < threshold if "p_value" in method else value >= threshold:
            flagged.append(column)
    return flagged


def by_nannyml(reference: pd.DataFrame, window: pd.DataFrame) -> list[str]:
    import nannyml  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415

    calculator = nannyml.UnivariateDriftCalculator(
        column_names=list(reference), treat_as_categorical=_texts(reference), chunk_size=max(1, len(reference) // 10)
    )
    calculator.fit(reference)
    frame = calculator.calculate(window).filter(period="analysis").to_df()
    return [str(c) for c in reference if bool(frame[c].xs("alert", axis=1, level=-1).to_numpy().any())]


def by_alibi(reference: pd.DataFrame, window: pd.DataFrame) -> list[str]:
    from alibi_detect.cd import TabularDrift  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415

    texts = _texts(reference)
    names = [str(c) for c in reference]
    codes = {c: {value: i for i, value in enumerate(sorted(set(reference[c]) | set(window[c])))} for c in texts}
    before, now = (
        np.column_stack([frame[c].map(codes[c]) if c in texts else frame[c] for c in names])
        for frame in (reference, window)
    )
    detector = TabularDrift(before, p_val=ALIBI_LEVEL, categories_per_feature={names.index(c): None for c in texts})
    p_values = detector.predict(now, drift_type="feature")["data"]["p_val"]
    return [c for c, p_value in zip(names, p_values, strict=True) if p_value < ALIBI_LEVEL]


PEERS: dict[str, Callable[[pd.DataFrame, pd.DataFrame], list[str]]] = {
    "evidently": by_evidently,
    "nannyml": by_nannyml,
    "alibi": by_alibi,
}


def _texts(frame: pd.DataFrame) -> list[str]:
    return [str(c) for c in frame if not pd.api.types.is_numeric_dtype(frame[c])]


def drift(find: Callable[[pd.DataFrame, pd.DataFrame], list[str]], folder: Path) -> dict[str, int]:
    flagged = find(*(pd.read_parquet(folder / f"{name}.parquet") for name in ("reference", "window")))
    true = sum(name[0] == "d" for name in flagged)
    return {"found": true, "false": len(flagged) - true}


def errors(find: Callable[[pd.DataFrame, pd.DataFrame], list[str]], folder: Path) -> dict[str, float]:
    found = {}
    for path in sorted(folder.glob("*.npz")):
        held: dict[str, Any] = dict(np.load(path))
        names = [f"w{i}" for i in range(len(held["windows"]))]
        reference = pd.DataFrame(dict.fromkeys(names, held["reference"]))
        window = pd.DataFrame(dict(zip(names, held["windows"], strict=True)))
        found[path.stem] = len(find(reference, window)) / len(names)
    return found


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    judge = drift if sys.argv[2] == "drift" else errors
    print(json.dumps(judge(PEERS[sys.argv[1]], Path(sys.argv[3]))))
