"""The reference rows of a version: what its inputs are like, and how often its scores come true."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from mainstay.catalog.reference import read_reference
from mainstay.catalog.versions import digest_of, load_manifest, open_version, read_bounded, version_path
from mainstay.decision.trying import run_rows
from mainstay.errors import Damaged
from mainstay.monitoring.estimation import FEWEST_ROWS, fit_estimator
from mainstay.monitoring.estimation_counts import estimable
from mainstay.monitoring.evidence import columns_of
from mainstay.monitoring.labelled import said_of, yes_or_no
from mainstay.monitoring.layouts import INPUT
from mainstay.runtime.types import Prediction

if TYPE_CHECKING:
    from mainstay.capability.load import Declared
    from mainstay.catalog.reference import ReferenceRows
    from mainstay.catalog.types import Digest
    from mainstay.contract.validator import ObjectValidator
    from mainstay.monitoring.estimation import Estimator
    from mainstay.monitoring.layouts import Watched
    from mainstay.runtime.types import Row
    from mainstay.workspace import Workspace

logger = logging.getLogger("mainstay.monitoring")

RUN_SECONDS: Final = 600.0  # for all the reference rows of an isolated model
_LEAST_CHUNK: Final = 100  # rows


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


def inputs_of(rows: ReferenceRows, declared: Declared) -> pl.DataFrame:
    """The inputs, as `input.x`."""
    return _frame(declared.input, rows.inputs, INPUT)


def fit_version(
    workspace: Workspace, version: Digest, declared: Declared, watched: Watched, rows: ReferenceRows, window_rows: int
) -> Estimator | None:
    """What estimates quality before labels are there: the version's model is run over its labelled reference rows.

    None, and said in the log, where they are too few; None where nothing that is declared can be estimated from them.
    `window_rows` is how many decisions a window has, about. Raises Misuse or Failed when the model does not run here.
    """
    monitoring, reference = declared.capability.monitoring, declared.capability.reference
    labels = monitoring.labels
    if labels is None or reference is None or reference.label != labels.truth or not watched.scored:
        return None
    if labels.score is None or not estimable(metric.name for metric in monitoring.metrics):
        return None
    known = [(row, label) for row, label in zip(rows.inputs, rows.labels, strict=True) if label is not None]
    if len(known) < FEWEST_ROWS:
        logger.info("version %s: %d labelled reference rows, too few to estimate from", version, len(known))
        return None
    inputs = [row for row, _ in known]
    results = run_rows(open_version(workspace.versions, version), declared, inputs, seconds=RUN_SECONDS)
    nothing = (None,) * len(declared.output.fields)
    answers = [each.values if isinstance(each, Prediction) else nothing for each in results]
    said = _frame(declared.output, answers, "")
    frame = _frame(declared.input, inputs, INPUT).with_columns(
        yes_or_no(pl.Series([label for _, label in known], strict=False), labels.positive).alias("truth"),
        said_of(labels, said, "").alias("said"),
        said[labels.score].alias("score"),
    )
    frame = frame.filter(
        pl.col("truth").is_not_null(), pl.col("said").is_not_null(), pl.col("score").is_between(0.0, 1.0)
    )
    if frame.height < FEWEST_ROWS:
        logger.info("version %s: scores of %d labelled reference rows, too few to estimate from", version, frame.height)
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
