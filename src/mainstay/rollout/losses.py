"""How wrong a labelled decision was, on one scale that versions are compared on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import polars as pl
from msgspec import Struct

if TYPE_CHECKING:
    from mainstay.capability.load import Declared
    from mainstay.contract.types import Property

# What these measure is the probability itself: a squared error sees it, the share of wrong answers does not.
_OF_SCORES: Final = frozenset({"roc_auc", "average_precision", "brier", "log_loss", "calibration_error"})


class Loss(Struct, frozen=True, kw_only=True):
    """What quality is guarded by.

    `wrong`: 1 where the answer is not the truth; `squared`: of the probability, as the Brier score; `absolute`: of a
    number, in its own unit; `rank`: 1 less the reciprocal rank of the first that was relevant.
    """

    name: Literal["wrong", "squared", "absolute", "rank"]
    low: float = 0.0
    high: float = 1.0  # no loss is larger: one that is counts as this

    @property
    def kind(self) -> Literal["share", "mean"]:
        return "share" if self.name == "wrong" else "mean"


def loss_of(declared: Declared) -> Loss | None:
    """What a capability's labels are held against its outputs by; None where nothing declared allows to.

    Numbers need bounds: those of the contract, of the prediction or of the truth.
    """
    labels = declared.capability.monitoring.labels
    if labels is None:
        return None
    match labels.kind:
        case "binary":
            names = {each.name for each in declared.capability.monitoring.metrics}
            by_score = labels.score is not None and (labels.prediction is None or (names and names <= _OF_SCORES))
            return Loss(name="squared" if by_score and (not names or names & _OF_SCORES) else "wrong")
        case "classes":
            return Loss(name="wrong")
        case "ranking":
            return Loss(name="rank")
        case "number":
            outcome = () if declared.outcome is None else declared.outcome.properties
            width = _width(declared.output.properties, labels.prediction) or _width(outcome, labels.truth)
            return None if width is None else Loss(name="absolute", high=width)


def losses(loss: Loss, frame: pl.DataFrame) -> pl.DataFrame:
    """The columns `id` and `loss` of a labelled frame (`labelled.py`), of the rows that have one."""
    if loss.name == "rank":
        return _by_rank(frame)
    truth, said, score = pl.col("truth"), pl.col("prediction"), pl.col("score")
    if loss.name == "wrong":
        value = (truth != said).cast(pl.Float64)
    elif loss.name == "squared":
        value = (score - truth.cast(pl.Float64)) ** 2
    else:
        value = (said - truth).abs()
    found = frame.select("id", value.clip(loss.low, loss.high).alias("loss"))
    return found.filter(pl.col("loss").is_finite())


def _by_rank(frame: pl.DataFrame) -> pl.DataFrame:
    """Where the first relevant item of each list stood; a list without any has the loss 1."""
    rows = frame.filter(pl.col("truth").is_not_null(), pl.col("prediction").is_not_null())
    found = []
    for offered, relevant in rows.select("prediction", "truth").iter_rows():
        wanted = set(relevant)
        rank = next((place for place, item in enumerate(offered, 1) if item in wanted), None)
        found.append(1.0 if rank is None else 1 - 1 / rank)
    return pl.DataFrame({"id": rows["id"], "loss": pl.Series(found, dtype=pl.Float64)})


def _width(properties: tuple[Property, ...], name: str | None) -> float | None:
    for each in properties:
        options = each.logical_type_options
        if each.name == name and options is not None and options.minimum is not None and options.maximum is not None:
            width = float(options.maximum) - float(options.minimum)
            return width if width > 0 else None
    return None
