"""Other tools over the same tables; each runs in an environment of its own, which drift.py makes.

    python bench/drift_peers.py NAME drift FOLDER      reference.parquet and window.parquet: what drifted?
    python bench/drift_peers.py NAME errors FOLDER     each `*.npz`: how many of its windows are flagged?

Every tool is used as its documentation says, with its defaults. For `errors` an archive has `reference: (many, n)`,
`windows: (effects, many, m)` and the `values` that these are places in where they are whole numbers; each column has
its own reference. NannyML's thresholds are learnt from pieces of the reference: a tenth of it for `drift`, where a
column counts when more than half of the window's pieces alert; as long as the window for `errors`.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Callable

Flagged: TypeAlias = "dict[str, list[str]]"  # columns, by tool and level
Judge: TypeAlias = "Callable[[pd.DataFrame], Flagged]"
Learn: TypeAlias = "Callable[[pd.DataFrame, int], Judge]"  # from a reference and the rows of a piece

ALIBI_LEVELS = (0.05, 0.01, 0.001)  # its default; ours; its default divided by 50 columns
MOST_CHUNKS = 0.5
COLUMNS_AT_ONCE = 10  # of `errors`, for the sake of memory

os.environ |= {"DO_NOT_TRACK": "1", "NML_DISABLE_USAGE_LOGGING": "1"}  # nothing is reported to anybody


def by_evidently(reference: pd.DataFrame, _: int) -> Judge:
    from evidently import DataDefinition, Dataset, Report  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415 - each peer loads only what it needs
    from evidently.presets import DataDriftPreset  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415

    texts = _texts(reference)
    kinds = DataDefinition(numerical_columns=[c for c in reference if c not in texts], categorical_columns=texts)

    def judge(window: pd.DataFrame) -> Flagged:
        report = Report([DataDriftPreset()])
        made = report.run(*(Dataset.from_pandas(each, data_definition=kinds) for each in (window, reference))).dict()
        flagged = []
        for metric in made["metrics"]:
            column, method = metric["config"].get("column"), metric["config"].get("method", "")
            if column is None:
                continue
            value, threshold = float(metric["value"]), float(metric["config"]["threshold"])
            if value < threshold if "p_value" in method else value >= threshold:
                flagged.append(column)
        return {"evidently": flagged}

    return judge


def by_evidently_tests(reference: pd.DataFrame, _: int) -> Judge:
    """The tests and thresholds that its preset takes, without the plots that it makes of each column."""
    from evidently.legacy.calculations.stattests import get_stattest  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415

    texts = _texts(reference)

    def judge(window: pd.DataFrame) -> Flagged:
        flagged = []
        for column in reference:
            before, now, kind = reference[column], window[column], "cat" if column in texts else "num"
            test = get_stattest(before, now, kind, None)
            if test(before, now, kind, None).drifted:
                flagged.append(str(column))
        return {"evidently": flagged}

    return judge


def by_nannyml(reference: pd.DataFrame, chunk_rows: int) -> Judge:
    import nannyml  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415

    calculator = nannyml.UnivariateDriftCalculator(
        column_names=list(reference), treat_as_categorical=_texts(reference), chunk_size=chunk_rows
    )
    calculator.fit(reference)

    def judge(window: pd.DataFrame) -> Flagged:
        frame = calculator.calculate(window).filter(period="analysis").to_df()
        alerts = {str(c): frame[c].xs("alert", axis=1, level=-1).to_numpy().mean() for c in reference}
        return {"nannyml": [name for name, share in alerts.items() if share > MOST_CHUNKS]}

    return judge


def by_alibi(reference: pd.DataFrame, _: int) -> Judge:
    from alibi_detect.cd import TabularDrift  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415

    texts = _texts(reference)
    names = [str(c) for c in reference]
    codes = {c: {value: i for i, value in enumerate(sorted(set(reference[c])))} for c in texts}

    def coded(frame: pd.DataFrame) -> Any:
        return np.column_stack([frame[c].map(codes[c]) if c in texts else frame[c] for c in names])

    detector = TabularDrift(
        coded(reference), p_val=ALIBI_LEVELS[0], categories_per_feature={names.index(c): None for c in texts}
    )

    def judge(window: pd.DataFrame) -> Flagged:
        p_values = detector.predict(coded(window), drift_type="feature")["data"]["p_val"]
        return {
            f"alibi {str(level)[1:]}": [c for c, p_value in zip(names, p_values, strict=True) if p_value < level]
            for level in ALIBI_LEVELS
        }

    return judge


PEERS: dict[str, Learn] = {
    "evidently": by_evidently,
    "nannyml": by_nannyml,
    "alibi": by_alibi,
}
ERRORS = {**PEERS, "evidently": by_evidently_tests}


def _texts(frame: pd.DataFrame) -> list[str]:
    return [str(c) for c in frame if not pd.api.types.is_numeric_dtype(frame[c])]


def drift(learn: Learn, folder: Path) -> dict[str, int]:
    """By the first of the tool's levels, its default."""
    reference, window = (pd.read_parquet(folder / f"{name}.parquet") for name in ("reference", "window"))
    flagged = next(iter(learn(reference, max(1, len(reference) // 10))(window).values()))
    true = sum(name[0] == "d" for name in flagged)
    return {"found": true, "false": len(flagged) - true}


def errors(learn: Learn, folder: Path) -> dict[str, dict[str, list[float]]]:
    """By archive, by tool and level, for each effect the share of windows that are flagged."""
    return {path.stem: _shares(learn, dict(np.load(path))) for path in sorted(folder.glob("*.npz"))}


def _shares(learn: Learn, held: dict[str, Any]) -> dict[str, list[float]]:
    values = held["values"].astype(object) if held["reference"].dtype == np.int8 else None
    many = len(held["reference"])
    found: dict[str, Any] = {}
    for start in range(0, many, COLUMNS_AT_ONCE):
        chosen = slice(start, start + COLUMNS_AT_ONCE)
        judge = learn(_frame(held["reference"][chosen], values), held["windows"].shape[-1])
        for place, windows in enumerate(held["windows"]):
            for name, flagged in judge(_frame(windows[chosen], values)).items():
                found.setdefault(name, np.zeros(len(held["windows"])))[place] += len(flagged) / many
    return {name: shares.tolist() for name, shares in found.items()}


def _frame(columns: Any, values: Any) -> pd.DataFrame:
    return pd.DataFrame({f"w{i}": each if values is None else values[each] for i, each in enumerate(columns)})


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    name, asked, where = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    print(json.dumps(drift(PEERS[name], where) if asked == "drift" else errors(ERRORS[name], where)))
