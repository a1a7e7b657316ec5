"""A reference as counts: what columns are like when all is well, counted once.

Rows are counted in blocks in their order. When the order is that of time, the blocks show how much shares vary from
time to time; when it is not, they show what independent rows would, and the steps of windows show the rest. The layout
of a version (`layouts`) is made so, and a table without a version has its counts stored as JSON.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec
import numpy as np
from msgspec import Struct

from mainstay.errors import NOT_READ, Damaged
from mainstay.monitoring.binning import P_VALUE_EDGES, Column, Values, make_bins
from mainstay.monitoring.drift import Sample
from mainstay.monitoring.histograms import Histogram, Tally

if TYPE_CHECKING:
    from collections.abc import Sequence

    import polars as pl
    from numpy.typing import NDArray

    Places: TypeAlias = NDArray[np.intp]

MOST_BLOCKS: Final = 24
BLOCK_ROWS: Final = 50  # at least


class ReferenceCounts(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bins of every column that has some, and the counts of the reference rows in them."""

    columns: tuple[Column, ...]
    blocks: tuple[dict[str, Histogram], ...]  # by column

    def sample(self, name: str) -> Sample:
        """The reference of one column."""
        return Sample.of([block[name] for block in self.blocks])

    def encode(self) -> bytes:
        """As JSON; the same counts are the same bytes."""
        return msgspec.json.encode(self, order="deterministic")


def count_reference(frame: pl.DataFrame) -> ReferenceCounts:
    """Bins and counts of reference rows, in the order of time where there is one. Raises Misuse when there are none."""
    columns = make_bins(frame)
    many = min(MOST_BLOCKS, max(1, frame.height // BLOCK_ROWS))
    (blocks,) = count_blocks(frame, columns, many)
    return ReferenceCounts(columns=columns, blocks=tuple(blocks))


def count_blocks(
    frame: pl.DataFrame, columns: Sequence[Column], many: int, groupings: Sequence[tuple[Places, int]] = ()
) -> list[list[dict[str, Histogram]]]:
    """Histograms of `many` runs of neighbouring rows, in their order: of all rows, and then for each grouping.

    A grouping is the group of each row, (rows,) from 0, and how many there are; of each group, all its runs follow each
    other. A column whose named values had to be chosen among many is counted in the rows without a part in the choice.
    """
    chosen = [each for each in columns if isinstance(each.bins, Values) and each.bins.chosen_from_even_rows]
    others = [each for each in columns if each not in chosen]
    tallies = []
    for part, some, rows in ((frame, others, slice(None)), (frame.gather_every(2, 1), chosen, slice(1, None, 2))):
        block = np.arange(part.height) * many // max(1, part.height)
        tally = Tally(some, (many, *(many * size for _, size in groupings)))
        tally.add(part, [block, *(places[rows] * many + block for places, _ in groupings)])
        tallies.append(tally)
    return [
        [{**one, **other} for one, other in zip(*(tally.result(place) for tally in tallies), strict=True)]
        for place in range(1 + len(groupings))
    ]


def decode_reference(content: bytes) -> ReferenceCounts:
    """What `encode` gave. Raises Damaged when it is something else, or counts do not fit their bins."""
    try:
        found = msgspec.json.decode(content, type=ReferenceCounts)
    except NOT_READ as error:
        raise Damaged(f"expected the counts of a reference as JSON, found other content: {error}") from None
    sizes = {column.name: column.bins.size for column in found.columns}
    if not found.blocks or any({n: len(h.counts) for n, h in block.items()} != sizes for block in found.blocks):
        raise Damaged("expected a reference with counts of all its columns in every block, found others")
    return found


def p_value_counts(rows: int) -> Histogram:
    """What conformal p-values that are counted among so many rows are like (`binning.p_value_column`).

    By design each of 1 / (rows + 1), 2 / (rows + 1), ..., 1 is as likely as the others (Vovk, Gammerman, Shafer 2005).
    """
    possible = np.arange(1, rows + 2) / (rows + 1)
    places = np.searchsorted(np.array(P_VALUE_EDGES), possible, side="right")
    return Histogram(tuple(np.bincount(places, minlength=len(P_VALUE_EDGES) + 2).tolist()))
