"""How good offered lists were: what was relevant stands in a list as truth, what was offered in another, best first.

A decision for which nothing was relevant says nothing of the order, and is left out. An item that is offered twice
counts where it stands first. `top` is how many of the list count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import polars as pl

from mainstay.monitoring.intervals import LEVEL, Estimate, mean, wilson

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from mainstay.monitoring.intervals import Floats


class Hits(NamedTuple):
    """Where relevant items stood: one element a hit."""

    relevant: NDArray[np.int64]  # (lists,) how many items were relevant, above 0
    of: NDArray[np.int64]  # (hits,) the list of the hit
    place: NDArray[np.int64]  # (hits,) from 0, below `top`
    top: int


def find_hits(truth: pl.Series, said: pl.Series, top: int) -> Hits:
    """`truth` and `said` are lists of text; lists in which nothing is relevant are left out."""
    wanted = pl.DataFrame({"wanted": truth.list.unique(), "offered": said.list.unique(maintain_order=True)})
    wanted = wanted.filter(pl.col("wanted").list.len() > 0, pl.col("offered").is_not_null()).with_row_index("of")
    offered = wanted.select("of", pl.col("offered").list.head(top)).with_columns(
        place=pl.int_ranges(0, pl.col("offered").list.len())
    )
    offered = offered.explode("offered", "place", empty_as_null=False).rename({"offered": "item"})
    relevant = wanted.select("of", item="wanted").explode("item", empty_as_null=False)
    found = offered.join(relevant, on=["of", "item"], how="semi")
    return Hits(
        wanted["wanted"].list.len().cast(pl.Int64).to_numpy(),
        found["of"].cast(pl.Int64).to_numpy(),
        found["place"].cast(pl.Int64).to_numpy(),
        top,
    )


def hit_rate(hits: Hits, *, level: float = LEVEL) -> Estimate | None:
    """The share of lists with something relevant in them. None for no lists."""
    return wilson(int(_has_hit(hits).sum()), len(hits.relevant), level=level)


def reciprocal_rank(hits: Hits, *, level: float = LEVEL) -> Estimate | None:
    """Mean of 1 / rank of the first relevant item, 0 where there is none (Voorhees 1999). None for no lists."""
    return _mean(_first_rank(hits), level)


def ndcg(hits: Hits, *, level: float = LEVEL) -> Estimate | None:
    """Mean of the discounted gain over that of the best order (Järvelin & Kekäläinen 2002). None for no lists."""
    return _mean(_gain(hits), level)


def _has_hit(hits: Hits) -> Floats:
    return (np.bincount(hits.of, minlength=len(hits.relevant)) > 0).astype(np.float64)


def _first_rank(hits: Hits) -> Floats:
    values = np.zeros(len(hits.relevant))
    np.maximum.at(values, hits.of, 1 / (hits.place + 1.0))
    return values


def _gain(hits: Hits) -> Floats:
    discounts = 1 / np.log2(np.arange(hits.top) + 2.0)
    gained = np.bincount(hits.of, weights=discounts[hits.place], minlength=len(hits.relevant))
    return np.asarray(gained / np.cumsum(discounts)[np.minimum(hits.relevant, hits.top) - 1], dtype=np.float64)


def _mean(values: Floats, level: float) -> Estimate | None:
    return mean(values, level=level, lowest=0.0, highest=1.0) if len(values) else None


BY_LIST: Final[dict[str, Callable[[Hits], Floats]]] = {
    "ndcg": _gain,
    "hit_rate": _has_hit,
    "reciprocal_rank": _first_rank,
}
"""What each list, `(lists,)`, contributes to the mean that a metric is: from 0 to 1."""
