"""What two versions said of the same cases, and which of these hang together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from mainstay.errors import Misuse

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]

FEWEST_BLOCKS: Final = 10  # with fewer, cases are taken for blocks, each by itself


@dataclass(frozen=True, slots=True, eq=False)
class Cases:
    """What one version said of n cases, and the truth. What a metric does not need may be None."""

    truth: NDArray[Any]  # (n,) bool or class; float for numbers; for rankings objects, each a list of what was relevant
    prediction: NDArray[Any] | None  # (n,) as the truth; of rankings what was offered, the best first
    score: Floats | None  # (n,) the probability that the truth is true

    def predicted(self) -> NDArray[Any]:
        """What was said. Raises Misuse where there is nothing."""
        if self.prediction is None:
            raise Misuse("this metric is of predictions: expected labels.prediction to be declared, found none")
        return self.prediction

    def scored(self) -> Floats:
        """The probabilities. Raises Misuse where there are none."""
        if self.score is None:
            raise Misuse("this metric is of probabilities: expected labels.score to be declared, found none")
        return self.score

    def taken(self, chosen: NDArray[np.bool_]) -> Cases:
        """Those of the cases that are chosen."""
        return Cases(
            self.truth[chosen],
            None if self.prediction is None else self.prediction[chosen],
            None if self.score is None else self.score[chosen].astype(np.float64),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """Which of n cases hang together; cases of two blocks do not."""

    of: NDArray[np.intp]  # (n,) the block of each case
    count: int

    def sums(self, values: Floats) -> Floats:
        """`values: (n,)` added up by block: (count,)."""
        return np.bincount(self.of, weights=values, minlength=self.count).astype(np.float64)


def block(names: NDArray[Any]) -> Blocks:
    """Blocks by the name of each case, such as its day: `(n,)`. Where there are fewer than FEWEST_BLOCKS, the cases."""
    _, codes = np.unique(names, return_inverse=True)
    count = int(codes.max(initial=-1)) + 1
    return Blocks(np.arange(len(names)), len(names)) if count < FEWEST_BLOCKS else Blocks(codes, count)
