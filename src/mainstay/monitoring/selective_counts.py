"""How all decisions ended, and what became true of those that have a label: counts for `selective.py` that add up.

A row of the kind ENDED says of one step how many decisions ended how, with which score; one of the kind TRUTHS how many
of them have a label, and of how many what is asked for is so. Two things are asked: whether what was said, by the
model, by a fallback or as a proposal to a person, was right (`accuracy`), and whether it came true (`positives`), which
is asked of refused decisions, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from mainstay.monitoring.evidence import parse
from mainstay.monitoring.labelled import said_of
from mainstay.monitoring.layouts import OUTPUT
from mainstay.monitoring.selective import Cell, SelectiveMean, correct_counts
from mainstay.monitoring.windows import ENDED, SCHEMA, TRUTHS, steps_of

if TYPE_CHECKING:
    from mainstay.capability.keeping import Labels

OUTCOMES: Final = ("answered", "fallback", "review", "refused")
ASKED: Final = ("accuracy", "positives")
BINS: Final = 20  # of the score, as wide as each other; one more for decisions without
_PLACES: Final = BINS + 1


def with_proposals(decisions: pl.DataFrame) -> pl.DataFrame:
    """The decisions, those that wait for a person with what the model proposed as their output."""
    asked = decisions.select(((pl.col("outcome") == "review") & pl.col("output").is_null()).fill_null(value=False))
    if not asked.to_series().any():
        return decisions
    proposed = pl.col("details").str.json_path_match("$.proposed")
    return decisions.with_columns(pl.when(asked.to_series()).then(proposed).otherwise("output").alias("output"))


def count_ended(labels: Labels | None, decisions: pl.DataFrame, outputs: pl.DataFrame, hours: float) -> pl.DataFrame:
    """Rows of the kind ENDED. `outputs` are those of the decisions, as `windows.flat` has read them."""
    if labels is None or labels.score is None or f"{OUTPUT}{labels.score}" not in outputs.columns:
        return pl.DataFrame(schema=SCHEMA)
    score = OUTPUT + labels.score
    read = outputs.select(said_of(labels, outputs, OUTPUT).alias("prediction"), pl.col(score).alias("score"))
    rows = pl.concat([decisions.select("at", "version", "stage", "outcome"), read], how="horizontal")
    waits = decisions["output"].is_null() & (decisions["outcome"] == "review").fill_null(value=False)
    if waits.any():
        texts = with_proposals(decisions.filter(waits))["output"]
        names = [name for name in (labels.score, labels.prediction) if name is not None]
        schema = pl.Schema({name: outputs.schema[OUTPUT + name] for name in dict.fromkeys(names)})
        asked = parse(texts, schema)
        said = said_of(labels, asked, "").alias("prediction")
        own = rows.filter(waits).with_columns(said, asked[labels.score].alias("score"))
        rows = pl.concat([rows.filter(~waits), own])
    return pl.concat(
        [
            _counted(ENDED, "accuracy", rows.filter(pl.col("prediction").is_not_null()), hours, None, 1),
            _counted(ENDED, "positives", rows, hours, None, 1),
        ]
    )


def count_truths(labels: Labels, frame: pl.DataFrame, hours: float, sign: int) -> pl.DataFrame:
    """Rows of the kind TRUTHS of labelled decisions (`labelled.read_labelled`); `sign` -1 takes them back."""
    if labels.kind != "binary" or labels.score is None:
        return pl.DataFrame(schema=SCHEMA)
    known = frame.filter(pl.col("truth").is_not_null())
    said = known.filter(pl.col("prediction").is_not_null())
    return pl.concat(
        [
            _counted(TRUTHS, "accuracy", said, hours, pl.col("prediction") == pl.col("truth"), sign),
            _counted(TRUTHS, "positives", known, hours, pl.col("truth"), sign),
        ]
    )


def _counted(kind: str, name: str, rows: pl.DataFrame, hours: float, yes: pl.Expr | None, sign: int) -> pl.DataFrame:
    score = pl.col("score")
    binned = (score * BINS).floor().clip(0, BINS - 1).cast(pl.Int64)
    place = pl.col("outcome").replace_strict(OUTCOMES, range(len(OUTCOMES)), default=None, return_dtype=pl.Int64)
    place = place * _PLACES + pl.when(score.is_between(0.0, 1.0)).then(binned).otherwise(BINS)
    value = pl.lit(0.0) if yes is None else yes.cast(pl.Float64)
    step, names = steps_of(rows["at"], hours).alias("step"), pl.col("version", "stage")  # texts that are long, and few
    cells = (
        rows.select(step, names.cast(pl.Categorical), place.alias("place"), value.alias("x"))
        .drop_nulls("place")
        .group_by("step", "version", "stage", "place")
        .agg((pl.len().cast(pl.Int64) * sign).alias("n"), pl.col("x").sum() * sign)
        .with_columns(names.cast(pl.String))
        .sort("step", "version", "stage", "place")
    )
    found = cells.group_by("step", "version", "stage", maintain_order=True).agg(
        pl.col("n").sum().alias("rows"),
        pl.col("place").alias("places"),
        pl.col("n").alias("counts"),
        pl.col("x").alias("sums") if yes is not None else pl.col("x").head(0).alias("sums"),
    )
    nothing = pl.lit(None, pl.String)
    return found.with_columns(
        pl.col("step").dt.date().alias("day"),
        nothing.alias("segment"),
        nothing.alias("value"),
        pl.lit(kind).alias("kind"),
        pl.lit(name).alias("name"),
        pl.lit([], pl.List(pl.String)).alias("keys"),
    ).select(SCHEMA.names())


def corrected(rows: pl.DataFrame, asked: str) -> SelectiveMean | None:
    """What is asked for over all decisions in rows of these kinds, of one version; None without any label."""
    decisions = _added(rows.filter(pl.col("kind") == ENDED, pl.col("name") == asked))[0]
    labels, yes = _added(rows.filter(pl.col("kind") == TRUTHS, pl.col("name") == asked))
    # A label of a decision that was not counted (its input was erased before) is of none.
    labels, yes = np.minimum(labels, decisions), np.minimum(yes, decisions)
    if labels.sum() < 1:
        return None
    cells = [
        Cell(
            outcome=OUTCOMES[place // _PLACES],
            score=None if place % _PLACES == BINS else (place % _PLACES + 0.5) / BINS,
            decisions=int(decisions[place]),
            labels=int(labels[place]),
            yes=round(float(yes[place])),
        )
        for place in np.flatnonzero(decisions > 0).tolist()
    ]
    return correct_counts(cells)


def _added(rows: pl.DataFrame) -> tuple[np.ndarray[tuple[int], np.dtype[np.float64]], ...]:
    size = len(OUTCOMES) * _PLACES
    found = [np.zeros(size), np.zeros(size)]
    for places, counts, sums in rows.select("places", "counts", "sums").iter_rows():
        np.add.at(found[0], places, counts)
        if sums:
            np.add.at(found[1], places, sums)
    return tuple(found)
