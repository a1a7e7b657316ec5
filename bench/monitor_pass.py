"""One monitor pass over a day of decisions: CPU seconds, and peak memory, of a process that does nothing else.

The capability has 20 input columns (12 numbers, 6 texts, 2 booleans), 2 output columns, 2 segment fields of 5 and 30
values, binary labels and two metrics. Decisions and labels are written to the lake as the exporter writes them. What is
timed: reading what is new, counting it, judging the windows of the day, and keeping what was found; a first pass over
some decisions of the day before has made the reference.

    python bench/monitor_pass.py [--rows 1000000] [--labels 0.2] [--json]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mainstay.cli.init import create_workspace
from mainstay.cli.versions import record_promotion, record_registration
from mainstay.lake.decision_rows import DAY, DECISIONS, OUTCOMES, SCHEMAS
from mainstay.lake.decisions import EXPORTS, WRITER
from mainstay.lake.lake import Lake, open_lake
from mainstay.monitoring.passes import Monitor
from mainstay.state.database import open_database
from mainstay.workspace import find_workspace

NAME = "busy"
BEGIN = datetime(2026, 3, 2, tzinfo=UTC)
BATCH = 50_000
NUMBERS = [f"n{place}" for place in range(12)]
TEXTS = {f"t{place}": size for place, size in enumerate((5, 30, 50, 8, 3, 200))}
FLAGS = ["f0", "f1"]

MODEL = "def decide(records):\n    return [{'probability': 0.5, 'yes': True} for _ in records]\n"
AUTHORITY = """
@id("people") permit (principal is Mainstay::Person, action, resource);
@id("answers") permit (principal is Mainstay::Capability, action, resource);
"""


def contract() -> dict[str, Any]:
    """The contract of the capability."""
    inputs = [{"name": name, "logicalType": "number"} for name in NUMBERS]
    inputs += [{"name": name, "logicalType": "string"} for name in TEXTS]
    inputs += [{"name": name, "logicalType": "boolean"} for name in FLAGS]
    answer = [
        {"name": "probability", "logicalType": "number", "required": True},
        {"name": "yes", "logicalType": "boolean", "required": True},
    ]
    objects = {"request": inputs, "answer": answer, "truth": answer[1:]}
    return {
        "apiVersion": "v3.1.0",
        "kind": "DataContract",
        "id": NAME,
        "version": "1.0.0",
        "status": "active",
        "schema": [
            {"name": name, "logicalType": "object", "properties": properties} for name, properties in objects.items()
        ],
    }


DECLARATION: dict[str, Any] = {
    "apiVersion": "mainstay/v1",
    "name": NAME,
    "title": "Busy",
    "purpose": "Is asked a million times a day.",
    "owner": {"team": "bench", "contact": "bench@example.com"},
    "objects": {"input": "request", "output": "answer", "outcome": "truth"},
    "model": {"kind": "python", "call": "model.py:decide"},
    "samples": "samples.jsonl",
    "monitoring": {
        "segments": ["t0", "t1"],
        "labels": {"kind": "binary", "truth": "yes", "score": "probability", "prediction": "yes"},
        "metrics": [{"name": "accuracy"}, {"name": "roc_auc"}],
    },
}


class Writer:
    """Appends decisions and labels to the lake."""

    def __init__(self, lake: Lake, version: str) -> None:
        self.lake, self.version, self.sequence = lake, version, 0
        self.random = np.random.default_rng(0)

    def decide(self, rows: int, begin: datetime, labels: float) -> None:
        """`rows` decisions over a day, and labels of a share of them an hour later."""
        for first in range(0, rows, BATCH):
            count = min(BATCH, rows - first)
            at = [begin + place * (timedelta(days=1) / rows) for place in range(first, first + count)]
            decided = self._decisions(pl.Series("at", at, pl.Datetime("us", "UTC")))
            self._append(DECISIONS, decided)
            if labels:
                known = decided.filter(pl.Series(self.random.random(count) < labels))
                self._append(OUTCOMES, self._outcomes(known))

    def _decisions(self, at: pl.Series) -> pl.DataFrame:
        count, random = len(at), self.random
        inputs: dict[str, Any] = {name: np.round(random.normal(100, 20, count), 3) for name in NUMBERS}
        inputs |= {
            name: pl.Series(random.zipf(1.5, count) % size).cast(pl.String) + f" of {name}"
            for name, size in TEXTS.items()
        }
        inputs |= {name: random.random(count) < 0.3 for name in FLAGS}
        p = np.round(random.beta(2, 5, count), 4)
        outputs = pl.DataFrame({"probability": p, "yes": p >= 0.5})
        return pl.DataFrame(
            {
                "at": at,
                "sequence": np.arange(self.sequence, self.sequence + count),
                "capability": NAME,
                "version": self.version,
                "release": 1,
                "stage": "production",
                "outcome": "answered",
                "reasons": pl.Series([[]] * count, dtype=pl.List(pl.String)),
                "input": _json(pl.DataFrame(inputs)),
                "output": _json(outputs),
                "confidence": np.maximum(p, 1 - p),
                "novelty": random.random(count),
                "seconds": random.gamma(2, 0.004, count),
            }
        ).with_columns(_ids(at, self.sequence).alias("id"))

    def _outcomes(self, decided: pl.DataFrame) -> pl.DataFrame:
        at = decided["at"] + timedelta(hours=1)
        truth = np.where(self.random.random(decided.height) < 0.3, '{"yes":true}', '{"yes":false}')
        return pl.DataFrame(
            {
                "at": at,
                "sequence": np.arange(self.sequence, self.sequence + decided.height),
                "id": _ids(at, self.sequence),
                "capability": NAME,
                "decision_id": decided["id"],
                "outcome": truth,
                "observed_at": at,
            }
        )

    def _append(self, kind: str, frame: pl.DataFrame) -> None:
        self.sequence += frame.height
        name = kind + NAME
        table = self.lake.find(name) or self.lake.create(name, SCHEMAS[kind], partition_by=[DAY])
        table.append(frame.with_columns(pl.col("at").dt.date().alias(DAY)), writer=WRITER, position=self.sequence)
        exports = self.lake.find(EXPORTS) or self.lake.create(EXPORTS, pl.Schema({"last": pl.Int64()}))
        exports.append(pl.DataFrame({"last": [self.sequence]}), writer=WRITER, position=self.sequence)


def _ids(at: pl.Series, first: int) -> pl.Series:
    """As the ledger names records: the milliseconds first."""
    millis = [f"{int(each):012x}" for each in at.dt.epoch("ms")]
    return pl.Series(
        "id", [f"{text[:8]}-{text[8:]}-7000-8000-{first + place:012x}" for place, text in enumerate(millis)]
    )


def _json(frame: pl.DataFrame) -> pl.Series:
    return frame.select(pl.struct(pl.all()).struct.json_encode()).to_series()


def prepare(directory: Path, rows: int, labels: float) -> None:
    """A workspace whose first day was monitored and whose second day waits."""
    workspace, _, _ = create_workspace(directory, "bench.example.com/monitoring")
    folder = workspace.capabilities / NAME
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(MODEL)
    (folder / "authority.cedar").write_text(AUTHORITY)
    (folder / "contract.odcs.yaml").write_text(json.dumps(contract()))
    (folder / "capability.yaml").write_text(json.dumps(DECLARATION))
    (folder / "samples.jsonl").write_text("{}\n")
    version = record_registration(workspace, folder, "made by this benchmark").version
    record_promotion(workspace, NAME, version, "benchmark")
    writer = Writer(open_lake(workspace), version)
    writer.decide(20_000, BEGIN, labels)
    measure(directory, BEGIN + timedelta(days=1))
    writer.decide(rows, BEGIN + timedelta(days=1), labels)


def measure(directory: Path, now: datetime) -> dict[str, float]:
    """One pass in this process."""
    workspace = find_workspace(directory)
    with open_database(workspace) as database:
        monitor = Monitor(workspace, open_lake(workspace), database, NAME)
        begun, wall = time.process_time(), time.monotonic()
        passed = monitor.go(now)
        return {
            "decisions": passed.decisions,
            "labels": passed.outcomes,
            "windows": passed.windows,
            "findings": len(passed.opened),
            "cpu_seconds": round(time.process_time() - begun, 2),
            "wall_seconds": round(time.monotonic() - wall, 2),
            "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        }


def main() -> None:
    """Prepare, measure in a process of its own, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--labels", type=float, default=0.2)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        sys.stdout.write(json.dumps(measure(given.measure, BEGIN + timedelta(days=2))) + "\n")
        return
    with tempfile.TemporaryDirectory() as made:
        prepare(Path(made) / "w", given.rows, given.labels)
        command = [sys.executable, __file__, "--measure", str(Path(made) / "w")]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    if given.json:
        sys.stdout.write(json.dumps(found) + "\n")
        return
    for name, value in found.items():
        sys.stdout.write(f"{name:<14} {value:,}\n")


if __name__ == "__main__":
    main()
