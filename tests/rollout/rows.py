"""Decisions, labels and shadows in the lake, as the exporter writes them, for rollouts of versions that never run."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

import tiny
from mainstay.lake.decision_rows import DAY, DECISIONS, OUTCOMES, SCHEMAS, SHADOWS
from mainstay.lake.decisions import _EXPORTS_SCHEMA, EXPORTS, WRITER
from mainstay.lake.lake import open_lake

if TYPE_CHECKING:
    from mainstay.catalog.types import Release
    from mainstay.workspace import Workspace


class Traffic:
    """Rows of a capability's tables, at the next places of a ledger."""

    def __init__(self, workspace: Workspace, seed: int = 1) -> None:
        self._lake = open_lake(workspace)
        self._random = np.random.default_rng(seed)
        self._next = 0
        self._decided: list[tuple[str, str, float]] = []  # id, version, probability
        self.at = datetime(2026, 3, 1, tzinfo=UTC)

    def decide(
        self,
        release: Release,
        count: int,
        *,
        errors: dict[str, float] | None = None,
        seconds: float = 0.002,
        disagreement: float = 0.0,
    ) -> list[str]:
        """Decisions under a release, split as its canary says; each shadow decides too. Their ids.

        `errors` is the chance by version that its model fails, `disagreement` that a shadow says something else.
        """
        rows, shadows = [], []
        canary = release.canary
        for _ in range(count):
            mine = canary is not None and self._random.random() < canary.percent / 100
            version = canary.version if canary is not None and mine else release.version
            failed = self._random.random() < (errors or {}).get(version, 0.0)
            row = self._decision(release, version, "canary" if mine else "production", failed=failed, seconds=seconds)
            rows.append(row)
            shadows += [
                self._shadow(row, shadow.version, differs=self._random.random() < disagreement)
                for shadow in release.shadows
            ]
        self._write(DECISIONS, rows)
        self._write(SHADOWS, shadows)
        self._export()
        return [row["id"] for row in rows]

    def decide_elsewhere(self, count: int) -> None:
        """What the exporter says when another capability decided."""
        self._next += count
        self._export()

    def label(self, ids: list[str], right: dict[str, float]) -> None:
        """The truth of these decisions: a version is right with its own chance."""
        known = {name: (version, probability) for name, version, probability in self._decided}
        rows = []
        for each in ids:
            version, probability = known[each]
            said = probability >= 0.5
            truth = said if self._random.random() < right[version] else not said
            rows.append(
                {
                    **self._leaf(OUTCOMES),
                    "decision_id": each,
                    "outcome": json.dumps({"yes": truth}),
                    "observed_at": self.at,
                }
            )
        self._write(OUTCOMES, rows)
        self._export()

    def _decision(self, release: Release, version: str, stage: str, *, failed: bool, seconds: float) -> dict[str, Any]:
        probability = round(float(self._random.uniform()), 6)
        leaf = self._leaf(DECISIONS)
        if not failed:
            self._decided.append((leaf["id"], version, probability))
        return {
            **leaf,
            "version": version,
            "release": release.number,
            "stage": stage,
            "outcome": "fallback" if failed else "answered",
            "reasons": ["model_error"] if failed else [],
            "input": json.dumps({"a": 1.0, "b": 2.0, "note": "x" if self._next % 2 else "y"}),
            "output": json.dumps({"probability": probability, "yes": probability >= 0.5}),
            "seconds": float(self._random.exponential(seconds)),
        }

    def _shadow(self, row: dict[str, Any], version: str, *, differs: bool) -> dict[str, Any]:
        output = json.loads(row["output"])
        if differs:
            output["yes"] = not output["yes"]
        return {
            **self._leaf(SHADOWS),
            "version": version,
            "release": row["release"],
            "decision_id": row["id"],
            "outcome": row["outcome"],
            "reasons": row["reasons"],
            "output": json.dumps(output),
            "seconds": row["seconds"],
        }

    def _leaf(self, kind: str) -> dict[str, Any]:
        self._next += 1
        self.at += timedelta(milliseconds=10)
        identity = f"{kind[0]}-{self._next:08d}"
        return {DAY: self.at.date(), "sequence": self._next, "id": identity, "at": self.at, "capability": tiny.NAME}

    def _write(self, kind: str, rows: list[dict[str, Any]]) -> None:
        if not rows:
            return
        frame = pl.DataFrame(rows, schema=SCHEMAS[kind])
        table = self._lake.create(kind + tiny.NAME, SCHEMAS[kind], partition_by=[DAY])
        table.append(frame, writer=WRITER, position=self._next)

    def _export(self) -> None:
        table = self._lake.create(EXPORTS, _EXPORTS_SCHEMA, partition_by=[DAY])
        table.append(pl.DataFrame(schema=_EXPORTS_SCHEMA), writer=WRITER, position=self._next + 1)
