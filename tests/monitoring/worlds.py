"""A capability whose decisions and outcomes are written to the lake as its exporter does, as many and as one likes."""

from __future__ import annotations

import copy
import json
import shutil
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

import tiny
from mainstay.cli.init import create_workspace
from mainstay.lake.decision_rows import DAY, DECISIONS, OUTCOMES, SCHEMAS
from mainstay.lake.decisions import EXPORTS, WRITER
from mainstay.lake.lake import open_lake
from mainstay.workspace import open_workspace

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

BEGIN: Final = datetime(2026, 3, 2, tzinfo=UTC)
REGIONS: Final = ("north", "south", "west")
CONTRACT: Final[dict[str, Any]] = {
    **tiny.CONTRACT,
    "schema": [
        {
            **tiny.CONTRACT["schema"][0],
            "properties": [*tiny.CONTRACT["schema"][0]["properties"], {"name": "region", "logicalType": "string"}],
        },
        *tiny.CONTRACT["schema"][1:],
    ],
}
MONITORING: Final[dict[str, Any]] = {
    "min_rows": 100,
    "segments": ["region"],
    "labels": {"kind": "binary", "truth": "yes", "score": "probability", "prediction": "yes"},
    "metrics": [{"name": "accuracy", "at_least": 0.6}, {"name": "roc_auc"}],
    "business": [
        {"name": "sure", "expression": "if(output.probability > 0.9, 1, 0)"},
        {"name": "right", "expression": "if(output.yes and outcome.yes or not output.yes and not outcome.yes, 1, 0)"},
    ],
}


class World:
    """A workspace with one version, and a lake that grows."""

    def __init__(self, root: Path, *, seed: int = 0, **changes: Any) -> None:
        self.workspace, _, _ = create_workspace(root, "tests.example.com/monitoring")
        monitoring = {**MONITORING, **changes.pop("monitoring", {})}
        rows = changes.pop("rows", None)  # of the reference: pairs of `a` and `b`, or with what became true
        if rows is not None:
            folder = self.workspace.capabilities / tiny.NAME
            folder.mkdir(parents=True)
            inputs = [
                {"input": {"a": a, "b": b, "region": REGIONS[n % 3]}, "outcome": {"yes": yes[0]} if yes else None}
                for n, (a, b, *yes) in enumerate(rows)
            ]
            (folder / "r.jsonl").write_text("\n".join(map(json.dumps, inputs)))
        self.version = tiny.release(self.workspace, monitoring=monitoring, **{"contract": CONTRACT, **changes})
        self.lake = open_lake(self.workspace)
        self.random = np.random.default_rng(seed)
        self.sequence = 0

    def copied(self, root: Path) -> World:
        """The same world at another place, which goes on by itself."""
        shutil.copytree(self.workspace.root, root)
        clone = copy.copy(self)
        clone.workspace = open_workspace(root, {})
        clone.lake = open_lake(clone.workspace)
        clone.random = np.random.default_rng(self.sequence)
        return clone

    def decide(
        self,
        rows: int,
        begin: datetime = BEGIN,
        hours: float = 24.0,
        *,
        shift: float = 0.0,
        scale: float = 1.0,
        regions: tuple[float, float, float] = (0.5, 0.3, 0.2),
        missing: float = 0.0,
        within: tuple[str, float] = ("north", 0.0),
        version: str | None = None,
        **columns: Any,
    ) -> pl.DataFrame:
        """Decisions spread evenly over some hours; the table's rows, with what the model believes as `p`.

        `within` shifts `a` in one region alone.
        """
        region = self.random.choice(3, rows, p=regions)
        own = np.where(region == REGIONS.index(within[0]), within[1], 0.0)
        a = (self.random.normal(0, 1, rows) + region * 0.8 + shift + own) * scale
        b = self.random.normal(0, 1, rows)
        p = 1 / (1 + np.exp(-(a + b)))
        inputs = pl.DataFrame({"a": a, "b": b, "region": [REGIONS[each] for each in region]}).with_columns(
            pl.when(pl.Series(self.random.random(rows) < missing)).then(None).otherwise("b").alias("b")
        )
        outputs = pl.DataFrame({"probability": p, "yes": p >= 0.5})
        at = [begin + timedelta(hours=hours) * (place / rows) for place in range(rows)]
        frame = pl.DataFrame(
            {
                "sequence": np.arange(self.sequence, self.sequence + rows),
                "id": [_id(instant, self.sequence + place) for place, instant in enumerate(at)],
                "at": pl.Series(at, dtype=pl.Datetime("us", "UTC")),
                "capability": tiny.NAME,
                "version": version or self.version,
                "release": 1,
                "stage": "production",
                "outcome": "answered",
                "reasons": pl.Series([[]] * rows, dtype=pl.List(pl.String)),
                "input": _json(inputs),
                "output": _json(outputs),
                "confidence": np.maximum(p, 1 - p),
                "novelty": self.random.random(rows),
                "seconds": self.random.gamma(2, 0.004, rows),
                **columns,
            }
        )
        self.sequence += rows
        self._append(DECISIONS, frame)
        return frame.with_columns(pl.Series("p", p))

    def report(self, decisions: pl.DataFrame, after: timedelta, truth: NDArray[np.bool_] | None = None) -> pl.DataFrame:
        """Outcomes of decisions; without `truth` they come true as often as the model believes."""
        rows = decisions.height
        said = self.random.random(rows) < decisions["p"].to_numpy() if truth is None else truth
        at = decisions["at"] + after
        frame = pl.DataFrame(
            {
                "sequence": np.arange(self.sequence, self.sequence + rows),
                "id": [_id(instant, self.sequence + place) for place, instant in enumerate(at)],
                "at": at,
                "capability": tiny.NAME,
                "decision_id": decisions["id"],
                "outcome": [json.dumps({"yes": bool(each)}) for each in said],
                "observed_at": at,
            }
        )
        self.sequence += rows
        self._append(OUTCOMES, frame)
        return frame

    def _append(self, kind: str, frame: pl.DataFrame) -> None:
        day = frame.with_columns(pl.col("at").dt.date().alias(DAY))
        name = kind + tiny.NAME
        table = self.lake.find(name) or self.lake.create(name, SCHEMAS[kind], partition_by=[DAY])
        table.append(day.drop("p", strict=False), writer=WRITER, position=self.sequence)
        exports = self.lake.find(EXPORTS) or self.lake.create(EXPORTS, pl.Schema({"last": pl.Int64()}))
        exports.append(pl.DataFrame({"last": [self.sequence]}), writer=WRITER, position=self.sequence)


def _id(at: datetime, number: int) -> str:
    """As the ledger names records: the milliseconds first."""
    text = f"{int(at.timestamp() * 1_000):012x}7000{number:016x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _json(frame: pl.DataFrame) -> pl.Series:
    return frame.select(pl.struct(pl.all()).struct.json_encode()).to_series()
