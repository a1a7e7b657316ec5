"""The metrics that a capability may declare, computed from joined decisions and labels, each with its interval."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import polars as pl
from msgspec import Struct

from mainstay.errors import Misuse
from mainstay.monitoring import metrics_classes as chosen
from mainstay.monitoring import metrics_number as number
from mainstay.monitoring import metrics_ranking as ranking
from mainstay.monitoring.intervals import LEVEL, Estimate
from mainstay.monitoring.performance import brier_score, expected_calibration_error, roc_auc

if TYPE_CHECKING:
    from collections.abc import Callable

    from mainstay.capability.keeping import Metric

Kind = Literal["binary", "classes", "number", "ranking"]

_BY_COUNTS: Final[dict[str, Callable[..., Estimate | None]]] = {
    "accuracy": chosen.accuracy,
    "precision": chosen.precision,
    "recall": chosen.recall,
    "f1": chosen.f1,
    "balanced_accuracy": chosen.balanced_accuracy,
}
_BY_SCORES: Final[dict[str, Callable[..., Estimate | None]]] = {
    "roc_auc": roc_auc,
    "average_precision": chosen.average_precision,
    "brier": brier_score,
    "log_loss": chosen.log_loss,
    "calibration_error": expected_calibration_error,
}
_BY_TABLE: Final[dict[str, Callable[..., Estimate | None]]] = {
    "accuracy": chosen.accuracy_of_classes,
    "balanced_accuracy": chosen.balanced_accuracy_of_classes,
    "macro_f1": chosen.macro_f1,
}
_BY_NUMBERS: Final[dict[str, Callable[..., Estimate | None]]] = {
    "mae": number.mae,
    "rmse": number.rmse,
    "bias": number.bias,
    "r2": number.r2,
}
_BY_HITS: Final[dict[str, Callable[..., Estimate | None]]] = {
    "ndcg": ranking.ndcg,
    "hit_rate": ranking.hit_rate,
    "reciprocal_rank": ranking.reciprocal_rank,
}
KINDS: Final[dict[Kind, frozenset[str]]] = {
    "binary": frozenset({*_BY_COUNTS, *_BY_SCORES, "macro_f1"}),
    "classes": frozenset(_BY_TABLE),
    "number": frozenset(_BY_NUMBERS),
    "ranking": frozenset(_BY_HITS),
}
"""The names of `keeping.Metric` that have a meaning for each kind of label."""

SMALLER_IS_BETTER: Final = frozenset({"brier", "log_loss", "calibration_error", "mae", "rmse"})
BEST_AT_ZERO: Final = frozenset({"bias"})  # which is neither


class Measured(Struct, frozen=True, kw_only=True):
    """A metric of some decisions. `estimate` is None where the labels do not allow to compute it."""

    metric: str
    estimate: Estimate | None
    n: int  # decisions with a label that counted
    segment: tuple[str, str] | None = None  # field and value; None: all decisions
    level: float = LEVEL  # of the interval
    compared: int = 1  # how many intervals hold together with the declared level; `level` is that of each


def measure(metric: Metric, kind: Kind, frame: pl.DataFrame, *, level: float = LEVEL) -> Measured:
    """`metric` over the rows of a labelled frame (`labelled.py`) with a truth and what it needs to be held against.

    Raises Misuse where the metric has no meaning for labels of this kind.
    """
    if metric.name not in KINDS[kind]:
        raise Misuse(
            f"expected a metric of labels of kind `{kind}`, found `{metric.name}`; "
            f"there are {', '.join(sorted(KINDS[kind]))}"
        )
    rows = frame.filter(pl.col("truth").is_not_null())
    needed = "score" if kind == "binary" and metric.name in _BY_SCORES else "prediction"
    rows = rows.filter(pl.col(needed).is_not_null())
    return Measured(metric=metric.name, estimate=_estimate(metric, kind, rows, level), n=len(rows), level=level)


def _estimate(metric: Metric, kind: Kind, rows: pl.DataFrame, level: float) -> Estimate | None:
    if rows.is_empty():
        return None
    truth, said, name = rows["truth"], rows["prediction"], metric.name
    match kind:
        case "binary" if name in _BY_SCORES:
            return _BY_SCORES[name](truth.to_numpy(), rows["score"].to_numpy(), level=level)
        case "binary" if name in _BY_COUNTS:
            return _BY_COUNTS[name](chosen.count(truth.to_numpy(), said.to_numpy()), level=level)
        case "binary" | "classes":
            table = chosen.tabulate(truth.cast(pl.String).to_numpy(), said.cast(pl.String).to_numpy())
            return _BY_TABLE[name](table, level=level)
        case "number":
            return _BY_NUMBERS[name](truth.to_numpy(), said.to_numpy(), level=level)
        case "ranking":
            return _BY_HITS[name](ranking.find_hits(truth, said, metric.top), level=level)
