"""Estimates of windows that were counted: by the cells of a version's estimator, so that windows add up.

A row of the kind SCORES says of one step how many answers fell into each place of the estimator's table (a leaf of the
input space, a fine bin of the score, and what was predicted), and the sum of their scores. All that an estimate needs
of a window is the sum of its rows. An estimator never changes, so what was estimated can be had again at any time.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import polars as pl

from mainstay.monitoring.estimation import ChunkVariation, PerformanceEstimate
from mainstay.monitoring.expected_metrics import BY_SCORE, ESTIMABLE, Cases
from mainstay.monitoring.intervals import LEVEL, z_value
from mainstay.monitoring.labelled import said_of
from mainstay.monitoring.layouts import INPUT, OUTPUT
from mainstay.monitoring.windows import SCHEMA, SCORES, steps_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mainstay.capability.keeping import Labels
    from mainstay.monitoring.estimation import Estimator
    from mainstay.monitoring.expected_metrics import Estimable
    from mainstay.monitoring.intervals import Floats
    from mainstay.monitoring.layouts import Layout

_NO_VARIATION: Final = ChunkVariation(factor=1.0, rows=1, chunks=0)


class ScoreCounts(NamedTuple):
    """Of each place of an estimator's table."""

    counts: Floats  # answers
    sums: Floats  # of their scores

    @property
    def rows(self) -> int:
        return round(float(self.counts.sum()))


def estimable(metrics: Iterable[str]) -> list[Estimable]:
    """Those of the metrics that can be estimated without labels."""
    wanted = set(metrics)
    return [name for name in ESTIMABLE if name in wanted]


def count_scores(rows: pl.DataFrame, layout: Layout, labels: Labels | None, hours: float) -> pl.DataFrame:
    """Rows of the kind SCORES, of each step and stage. `rows` is `windows.flat`; only answers of the model count."""
    estimator = layout.estimator
    if estimator is None or labels is None or labels.score is None:
        return pl.DataFrame(schema=SCHEMA)
    own = rows.with_columns(said_of(labels, rows, OUTPUT).alias("said"), pl.col(OUTPUT + labels.score).alias("score"))
    own = own.filter("answered", pl.col("said").is_not_null(), pl.col("score").is_between(0.0, 1.0))
    if not own.height:
        return pl.DataFrame(schema=SCHEMA)
    leaves = estimator.partition.leaf_of(own.select(pl.col(f"^{INPUT}.*$"))).astype(np.int64)
    bins = estimator.score_bins.bin_of(own["score"].to_numpy()).astype(np.int64)
    places = leaves * estimator.table.groups + bins * 2 + own["said"].to_numpy()
    cells = (
        own.select(steps_of(own["at"], hours).alias("step"), "stage", "score")
        .with_columns(pl.Series("place", places))
        .group_by("step", "stage", "place")
        .agg(pl.len().cast(pl.Int64).alias("n"), pl.col("score").sum())
        .sort("step", "stage", "place")
    )
    found = cells.group_by("step", "stage", maintain_order=True).agg(
        pl.col("n").sum().alias("rows"),
        pl.col("place").alias("places"),
        pl.col("n").alias("counts"),
        pl.col("score").alias("sums"),
    )
    return found.select(
        pl.col("step").dt.date().alias("day"),
        "step",
        pl.lit(layout.version).alias("version"),
        "stage",
        pl.lit(None, pl.String).alias("segment"),
        pl.lit(None, pl.String).alias("value"),
        pl.lit(SCORES).alias("kind"),
        pl.lit("").alias("name"),
        "rows",
        "places",
        pl.lit([], pl.List(pl.String)).alias("keys"),
        "counts",
        "sums",
    ).select(SCHEMA.names())


def added_scores(rows: pl.DataFrame, estimator: Estimator) -> ScoreCounts:
    """The sum of rows of the kind SCORES of one version; other kinds are passed over."""
    size = len(estimator.table.chances)
    own = rows.filter(pl.col("kind") == SCORES, pl.col("counts").list.len() > 0)
    if not own.height:
        return ScoreCounts(np.zeros(size), np.zeros(size))
    flat = own.select("places", "counts", "sums").explode("places", "counts", "sums", empty_as_null=False)
    places = flat["places"].to_numpy()
    counts, sums = (flat[name].to_numpy().astype(np.float64) for name in ("counts", "sums"))
    return ScoreCounts(
        np.bincount(places, counts, size).astype(np.float64), np.bincount(places, sums, size).astype(np.float64)
    )


def estimate_counted(
    estimator: Estimator, counted: ScoreCounts, metrics: Sequence[Estimable], *, level: float = LEVEL
) -> dict[str, PerformanceEstimate]:
    """As `estimation.estimate` of the rows. A metric without a denominator is left out.

    Of metrics that need each score itself, a score is the mean of its place: less than 0.001 beside the truth.
    """
    there = np.flatnonzero(counted.counts > 0)
    if not len(there):
        return {}
    table = estimator.table
    counts, chances, noise = counted.counts[there], table.chances[there], table.noise[there]
    said = table.cases.said[there % table.groups]
    ranked = Cases(said, table.cases.scores[there % table.groups])
    scored = Cases(said, np.clip(counted.sums[there] / counts, 0.0, 1.0))
    rows = counted.rows
    unsupported = float(counts @ table.unsupported[there]) / rows
    found: dict[str, PerformanceEstimate] = {}
    for metric in metrics:
        cases = scored if metric in BY_SCORE else ranked
        expected = cases.expect_groups(metric, counts, counts * chances)
        value, derivative = float(expected.value), expected.derivative
        if math.isnan(value):
            continue
        of_labels = float((counts * noise) @ derivative**2)
        pulls = np.bincount(table.cells[there], counts * derivative, len(table.errors))
        of_calibration = float(pulls**2 @ table.errors)
        of_chunks = estimator.variation.get(metric, _NO_VARIATION).beyond(of_labels + of_calibration, rows)
        width = z_value(level) * math.sqrt(of_labels + of_calibration + of_chunks)
        found[metric] = PerformanceEstimate(
            metric=metric,
            value=value,
            low=max(0.0, value - width),
            high=min(math.inf if metric == "log_loss" else 1.0, value + width),
            level=level,
            n=rows,
            label_deviation=math.sqrt(of_labels),
            calibration_deviation=math.sqrt(of_calibration),
            chunk_deviation=math.sqrt(of_chunks),
            unsupported=unsupported,
        )
    return found
