"""A capability that can be retrained: a Python model of two numbers, and the code that fits them."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import yaml

import tiny

if TYPE_CHECKING:
    from pathlib import Path

PREDICT = """\
import json
import math
from pathlib import Path

WEIGHTS = json.loads(Path(__file__).with_name("weights.json").read_text())


def predict(records):
    answers = []
    for record in records:
        p = 1 / (1 + math.exp(-(WEIGHTS["a"] * record["a"] + WEIGHTS["bias"])))
        answers.append({"probability": p, "yes": p >= 0.5})
    return answers
"""

TRAIN = """\
import json

import numpy as np
import polars as pl


def train(rows, folder, seed):
    frame = pl.read_parquet(rows)
    a, y = frame["a"].to_numpy(), frame["yes"].to_numpy().astype(float)
    weights = np.random.default_rng(seed).normal(size=2) * 0.01
    for _ in range(300):
        p = 1 / (1 + np.exp(-(weights[0] * a + weights[1])))
        weights -= 0.5 * np.array([((p - y) * a).mean(), (p - y).mean()])
    (folder / "weights.json").write_text(json.dumps({"a": weights[0], "bias": weights[1]}))
    print(f"fitted on {len(a)} rows")
"""

RETRAINING: dict[str, Any] = {"train": "train.py:train", "files": ["weights.json"], "memory_mb": 4_096}


def write_folder(
    folder: Path, *, train: str = TRAIN, weights: tuple[float, float] = (0.1, 0.0), **changes: Any
) -> Path:
    """Write the folder; `changes` are of its `retraining`."""
    declaration = deepcopy(tiny.DECLARATION)
    declaration["model"] = {"kind": "python", "call": "predict.py:predict", "confidence": None}
    declaration["output"] = {}
    declaration["monitoring"] = {
        "labels": {"kind": "binary", "truth": "yes", "score": "probability", "prediction": "yes"}
    }
    declaration["retraining"] = RETRAINING | changes
    files = {
        "capability.yaml": yaml.safe_dump(declaration, sort_keys=False),
        "contract.odcs.yaml": yaml.safe_dump(tiny.CONTRACT, sort_keys=False),
        "authority.cedar": tiny.AUTHORITY,
        "samples.jsonl": "".join(json.dumps({"a": a, "b": 0.5}) + "\n" for a in (-2.0, 0.0, 2.0)),
        "predict.py": PREDICT,
        "train.py": train,
        "weights.json": json.dumps({"a": weights[0], "bias": weights[1]}),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(content, "utf-8")
    return folder
