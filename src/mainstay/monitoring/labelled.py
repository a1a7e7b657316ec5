"""Decisions joined with what became of them: one flat row a decision, labelled or not.

Both come as the lake has them (`lake/decision_rows.py`); inputs, outputs and outcomes are JSON text there, of which
only the declared fields are read. A row that is not what was declared (a score that is no number, a truth of another
kind) has null there and is counted: nothing is guessed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import polars as pl

from mainstay.errors import NOT_READ
from mainstay.monitoring.evidence import parse

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mainstay.capability.keeping import Labels

_INSTANT: Final = pl.Datetime("us", "UTC")
_DEFAULT_THRESHOLD: Final = 0.5  # of the score, where no prediction is declared
_MOST_ITEMS: Final = 10_000  # of one list of a ranking
TRUTHS: Final[dict[str, pl.DataType]] = {
    "binary": pl.Boolean(),
    "classes": pl.String(),
    "number": pl.Float64(),
    "ranking": pl.List(pl.String()),
}


class Joined(NamedTuple):
    """`frame` has a row for each decision, in their order, with the columns

    `id`, `at`, `version`, `stage`, `outcome` (how the decision ended), and, null without a label,
    `label_at` (when the first report came), `delay_seconds` (from the decision until then, at least 0),
    `observed_at` and `outcome_json` (of the report that holds), `corrections` (reports that changed an earlier one);
    `truth` and `prediction` (Boolean, String, Float64 or List(String), by the kind of label), `score`;
    `segment.FIELD` (String) for each segment field of the input.
    """

    frame: pl.DataFrame
    reports: int  # outcomes that there were
    unmatched: int  # of those, how many belong to none of the decisions
    corrected: int  # decisions whose outcome was corrected
    unreadable: int  # labels that were reported but are no truth of the declared kind


def join(decisions: pl.DataFrame, outcomes: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Each decision with the outcome that holds for it, and how many outcomes belong to none.

    An outcome belongs to the decision whose id it names; one that names a key only, to the newest decision with that
    key at the time it was observed. Of several, the one observed last holds; of those, the one recorded last.
    """
    by_id = outcomes.filter(pl.col("decision_id").is_not_null()).with_columns(of=pl.col("decision_id"))
    by_key = outcomes.filter(pl.col("decision_id").is_null(), pl.col("key").is_not_null())
    keyed = decisions.filter(pl.col("key").is_not_null()).sort("at", "sequence")
    owned = by_key.sort("observed_at", "sequence").join_asof(
        keyed.select("key", of="id", decided_at="at"),
        left_on="observed_at",
        right_on="decided_at",
        by="key",
        strategy="backward",
        check_sortedness=False,  # both are sorted just above
    )
    columns = ["of", "sequence", "at", "observed_at", "outcome"]
    reports = pl.concat([by_id.select(columns), owned.select(columns)])
    reports = reports.join(decisions.select(of="id"), on="of", how="semi").sort("observed_at", "sequence")
    is_only = reports["of"].is_unique()  # as nearly all are: nothing has to be put together
    only = reports.filter(is_only).select(
        "of", "observed_at", label_at="at", outcome_json="outcome", corrections=pl.lit(0, pl.get_index_type())
    )
    several = (
        reports.filter(~is_only)
        .group_by("of", maintain_order=True)
        .agg(
            label_at=pl.col("at").min(),
            observed_at=pl.col("observed_at").last(),
            outcome_json=pl.col("outcome").last(),
            corrections=(pl.col("outcome") != pl.col("outcome").shift()).sum(),
        )
    )
    latest = pl.concat([only, several.select(only.columns)]).select(
        "of", "label_at", "observed_at", "outcome_json", "corrections"
    )
    joined = decisions.join(latest, left_on="id", right_on="of", how="left", maintain_order="left")
    delay = (pl.col("label_at") - pl.col("at")).dt.total_microseconds() / 1e6
    return joined.with_columns(delay_seconds=delay.clip(lower_bound=0)), len(outcomes) - len(reports)


def read_labelled(
    labels: Labels,
    decisions: pl.DataFrame,
    outcomes: pl.DataFrame,
    *,
    segments: Sequence[str] = (),
    threshold: float = _DEFAULT_THRESHOLD,
) -> Joined:
    """The decisions with truth, prediction and score as `labels` declares them.

    Of binary labels without a declared prediction, "yes" is a score of at least `threshold`.
    """
    joined, unmatched = join(decisions, outcomes)
    truths = _truths(labels, joined["outcome_json"], [labels.truth])[0]
    score = _scores(labels, joined["output"])
    if labels.prediction is not None and labels.prediction != labels.score:
        prediction = _truths(labels, joined["output"], [labels.prediction])[0]
    elif labels.kind == "binary" or labels.prediction is not None:
        prediction = score >= threshold
    else:
        prediction = pl.Series([None], dtype=TRUTHS[labels.kind]).new_from_index(0, len(joined))
    values = _column(joined["input"], segments, [_segment] * len(segments), [pl.String()] * len(segments))
    frame = joined.select(
        *("id", "at", "version", "stage", "outcome"),
        *("label_at", "delay_seconds", "observed_at", "outcome_json", "corrections"),
        truths.alias("truth"),
        prediction.alias("prediction"),
        score.alias("score"),
        *(series.alias(f"segment.{field}") for field, series in zip(segments, values, strict=True)),
    )
    return Joined(
        frame=frame,
        reports=len(outcomes),
        unmatched=unmatched,
        corrected=frame.filter(pl.col("corrections") > 0).height,
        unreadable=frame.filter(pl.col("outcome_json").is_not_null(), pl.col("truth").is_null()).height,
    )


def said_of(labels: Labels, outputs: pl.DataFrame, prefix: str, threshold: float = _DEFAULT_THRESHOLD) -> pl.Series:
    """What was predicted of binary labels with a score: whether each row of read outputs says yes."""
    if labels.prediction is not None and labels.prediction != labels.score:
        return yes_or_no(outputs[prefix + labels.prediction], labels.positive)
    return outputs[f"{prefix}{labels.score}"] >= threshold


def yes_or_no(values: pl.Series, positive: str | int | bool) -> pl.Series:
    """Which values of a column are the positive one; null where one is missing, and in a column of another kind."""
    known = {bool: pl.Boolean(), str: pl.String()}.get(type(positive), pl.Float64())
    if values.dtype == known or (values.dtype.is_numeric() and known == pl.Float64()):
        return values == positive
    return pl.Series([None], dtype=pl.Boolean).new_from_index(0, len(values))


def _truths(labels: Labels, texts: pl.Series, fields: Sequence[str]) -> list[pl.Series]:
    """The values of fields that hold a truth or a prediction."""
    if labels.kind == "binary":
        kind = {bool: pl.Boolean(), str: pl.String()}.get(type(labels.positive), pl.Float64())
        read = parse(texts, pl.Schema(dict.fromkeys(fields, kind)))
        return [yes_or_no(read[field], labels.positive) for field in fields]
    if labels.kind == "number":
        read = parse(texts, pl.Schema(dict.fromkeys(fields, pl.Float64())))
        return [_finite(read[field]) for field in fields]
    reader = _class if labels.kind == "classes" else items_of
    return _column(texts, fields, [reader] * len(fields), [TRUTHS[labels.kind]] * len(fields))


def _scores(labels: Labels, texts: pl.Series) -> pl.Series:
    """Probabilities; null for what is none."""
    if labels.score is None:
        return pl.Series([None], dtype=pl.Float64).new_from_index(0, len(texts))
    read = parse(texts, pl.Schema({labels.score: pl.Float64()}))[labels.score]
    return read.set(~read.is_between(0.0, 1.0), None)


def _finite(values: pl.Series) -> pl.Series:
    return values.set(~values.is_finite(), None)


def pick(texts: pl.Series, fields: Sequence[str]) -> list[list[Any]]:
    """The values of `fields` in JSON objects, one list a field; None where there is none, or no object.

    Only these fields are made objects of; the rest of each text is passed over.
    """
    names = [f"f{i}" for i in range(len(fields))]
    picked = msgspec.defstruct(
        "_Picked",
        [(name, Any, None) for name in names],
        rename=dict(zip(names, fields, strict=True)),
        gc=False,
    )
    decode = msgspec.json.Decoder(picked).decode
    nothing = picked()
    rows: list[Any] = []
    for text in texts:
        if text is None:
            rows.append(nothing)
            continue
        try:
            rows.append(decode(text))
        except NOT_READ:
            rows.append(nothing)
    return [[getattr(row, name) for row in rows] for name in names]


def _column(
    texts: pl.Series, fields: Sequence[str], readers: Sequence[Callable[[Any], Any]], types: Sequence[pl.DataType]
) -> list[pl.Series]:
    if not fields:
        return []
    found = []
    for values, read, dtype in zip(pick(texts, fields), readers, types, strict=True):
        found.append(pl.Series([None if value is None else read(value) for value in values], dtype=dtype, strict=False))
    return found


def _class(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, str | int | float) else None


def to_number(value: Any) -> float | None:
    """A value of a JSON document as a finite number; None for what is none. In JSON, true is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def items_of(value: Any) -> list[str] | None:
    """The items of a list of a ranking, as text; None for what is no list."""
    if not isinstance(value, list):
        return None
    items = [_class(item) for item in value[:_MOST_ITEMS]]
    return [item for item in items if item is not None]


def _segment(value: Any) -> str | None:
    return _class(value)
