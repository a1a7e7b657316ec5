"""The reference rows of a version: what its inputs and its answers are like, and how often its scores come true."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import polars as pl

from mainstay.catalog.reference import read_reference
from mainstay.catalog.versions import digest_of, load_manifest, open_version, read_bounded, version_path
from mainstay.decision.guard import guard
from mainstay.decision.plan import compile_alone
from mainstay.decision.record import NULL, Verdict
from mainstay.decision.trying import run_rows
from mainstay.errors import Damaged, Failed, Misuse
from mainstay.monitoring.estimation import FEWEST_ROWS, fit_estimator
from mainstay.monitoring.estimation_counts import estimable
from mainstay.monitoring.evidence import columns_of
from mainstay.monitoring.labelled import said_of, yes_or_no
from mainstay.monitoring.layouts import CONFIDENCE, INPUT, OUTPUT, Known
from mainstay.runtime.types import Prediction

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mainstay.capability.load import Declared
    from mainstay.catalog.reference import ReferenceRows
    from mainstay.catalog.types import Digest
    from mainstay.contract.validator import ObjectValidator
    from mainstay.decision.plan import Plan
    from mainstay.monitoring.estimation import Estimator
    from mainstay.monitoring.layouts import Watched
    from mainstay.runtime.types import Result, Row
    from mainstay.workspace import Workspace

logger = logging.getLogger("mainstay.monitoring")

RUN_SECONDS: Final = 600.0  # for all the reference rows of an isolated model
_LEAST_CHUNK: Final = 100  # rows
_GUARDED_ROWS: Final = 4_096  # judged at once


def read_rows(workspace: Workspace, version: Digest, declared: Declared) -> ReferenceRows | None:
    """The reference rows of a version; None where it brought none. Raises Damaged when they are others."""
    stored = load_manifest(workspace.versions, version).reference
    if stored is None:
        return None
    path = version_path(workspace.versions, version) / stored.path
    content = read_bounded(path, stored.bytes)
    if digest_of(content) != stored.digest:
        raise Damaged(f"{path}: expected the reference rows that were registered, found other content")
    return read_reference(content, str(path), declared)


class Ran(NamedTuple):
    """A version compiled, to judge by, and what its model gives for each reference row."""

    plan: Plan
    results: list[Result] | None  # None: the model does not run here


def run_version(workspace: Workspace, version: Digest, declared: Declared, rows: ReferenceRows) -> Ran:
    """Run a version's model over its reference rows; where that cannot be done here, the log says so.

    Raises Damaged, Failed or InvalidDocument when the version is not whole.
    """
    plan = compile_alone(workspace, version, declared.capability.name)
    try:
        results = run_rows(open_version(workspace.versions, version), declared, rows.inputs, seconds=RUN_SECONDS)
    except (Misuse, Failed) as error:
        logger.warning(
            "version %s not run over its reference rows, its outputs are compared with its first decisions "
            "and quality is not estimated before labels are there: %s",
            version,
            error,
        )
        return Ran(plan, None)
    return Ran(plan, results)


def known_of(declared: Declared, rows: ReferenceRows, ran: Ran | None) -> Known:
    """What the rows show; `ran` is None where the version cannot be compiled."""
    inputs = _frame(declared.input, rows.inputs, INPUT)
    if ran is None:
        return Known(inputs, None, None)
    plan, results = ran
    return Known(
        inputs,
        None if results is None else _answered(plan, inputs, rows.inputs, results),
        None if plan.novelty is None else plan.novelty.calibration_rows,
    )


def _answered(plan: Plan, inputs: pl.DataFrame, rows: list[Row], results: list[Result]) -> pl.DataFrame | None:
    """The rows that the version answers by itself, as it would in production: whatever leaves other answers out there
    leaves them out here. None where there is none.
    """
    places, answers, stated = [], [], []
    for start in range(0, len(rows), _GUARDED_ROWS):
        part = slice(start, start + _GUARDED_ROWS)
        for place, verdict in enumerate(guard(plan, rows[part], results[part]), start):
            result = results[place]
            if isinstance(verdict, Verdict) and verdict.outcome == "answered" and isinstance(result, Prediction):
                places.append(place)
                answers.append(result.values)
                stated.append(None if verdict.confidence == NULL else float(verdict.confidence))
    if not places:
        return None
    said = _frame(plan.declared.output, answers, OUTPUT)
    return pl.concat([inputs[places], said], how="horizontal").with_columns(pl.Series(CONFIDENCE, stated, pl.Float64))


def fit_version(
    declared: Declared, watched: Watched, rows: ReferenceRows, results: Sequence[Result], window_rows: int
) -> Estimator | None:
    """What estimates quality before labels are there, of what the version's model gave for its labelled reference rows.

    None, and said in the log, where they are too few; None where nothing that is declared can be estimated from them.
    `window_rows` is how many decisions a window has, about.
    """
    monitoring, reference = declared.capability.monitoring, declared.capability.reference
    labels = monitoring.labels
    if labels is None or reference is None or reference.label != labels.truth or not watched.scored:
        return None
    if labels.score is None or not estimable(metric.name for metric in monitoring.metrics):
        return None
    known = [each for each in zip(rows.inputs, rows.labels, results, strict=True) if each[1] is not None]
    if len(known) < FEWEST_ROWS:
        logger.info("%s: %d labelled reference rows, too few to estimate from", declared.capability.name, len(known))
        return None
    nothing = (None,) * len(declared.output.fields)
    answers = [each.values if isinstance(each, Prediction) else nothing for _, _, each in known]
    said = _frame(declared.output, answers, "")
    inputs = [row for row, _, _ in known]
    frame = _frame(declared.input, inputs, INPUT).with_columns(
        yes_or_no(pl.Series([label for _, label, _ in known], strict=False), labels.positive).alias("truth"),
        said_of(labels, said, "").alias("said"),
        said[labels.score].alias("score"),
    )
    frame = frame.filter(
        pl.col("truth").is_not_null(), pl.col("said").is_not_null(), pl.col("score").is_between(0.0, 1.0)
    )
    if frame.height < FEWEST_ROWS:
        logger.info(
            "%s: scores of %d labelled reference rows, too few to estimate from", declared.capability.name, frame.height
        )
        return None
    # Values of classified columns would stand in the tree that parts the inputs.
    columns = [INPUT + name for name in watched.inputs if INPUT + name not in watched.classified]
    return fit_estimator(
        np.asarray(frame["truth"].to_numpy(), np.bool_),
        frame["score"].to_numpy(),
        np.asarray(frame["said"].to_numpy(), np.bool_),
        frame.select(columns),
        chunk_rows=max(_LEAST_CHUNK, window_rows),
    )


def _frame(declared: ObjectValidator, rows: list[Row] | list[tuple[Any, ...]], prefix: str) -> pl.DataFrame:
    """Rows of an object, in the columns that the lake's are read into."""
    places = {name: declared.fields.index(name) for name in columns_of(declared)}
    return pl.DataFrame(
        [
            pl.Series(prefix + name, [row[places[name]] for row in rows], kind, strict=False)
            for name, kind in columns_of(declared).items()
        ]
    )
