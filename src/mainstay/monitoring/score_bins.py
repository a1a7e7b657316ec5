"""Scores cut so finely that what is computed of bins is what would be computed of scores.

A bin holds 1/120 of the reference and spans 1/16 of the range, at most. Cases of one bin are tied, which moves an area
under the ROC curve by some 0.00002; sorting is saved. Scores are looked up on a grid that is logarithmic at both ends,
since models of what is rare tell apart 0.0001 and 0.0002.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np
from msgspec import Struct

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mainstay.monitoring.intervals import Floats
    from mainstay.monitoring.partition import Ints

COARSE: Final = 15  # bins of as many rows each, in which calibrations are learned
_FINE: Final = 8  # bins of as many rows each, in one of those
_BLOCK: Final = 2**15  # scores that stay in the processor's cache
_EVEN: Final = 16  # parts of the range between which there is an edge in any case: for scores the reference hardly has
# The grid is read off the bits of a double: its exponent, and the first bits of what follows.
_STEPS: Final = 512  # in each halving of the distance to 0 or 1, the nearer one
_SHIFT: Final = 52 - 9
_HALVINGS: Final = 24
_NEAREST: Final = 2.0**-_HALVINGS  # added to a distance: nearer than that, steps are even
_LOWEST: Final = (1023 - _HALVINGS) * _STEPS
_HALF: Final = (_HALVINGS - 1) * _STEPS  # cells up to and with that of 1/2 are numbered 0 to this
_CELLS: Final = 2 * _HALF + 1


class ScoreBins(Struct, frozen=True, dict=True):
    """At most 135 bins of probabilities, each a stretch of the grid."""

    edges: tuple[int, ...]  # the cell of the grid that each bin but the first begins with, rising
    coarse: tuple[int, ...]  # the first bin of each coarse one; the first is 0

    @classmethod
    def cut(cls, scores: Floats) -> ScoreBins:
        cells = np.sort(_cell_of_step(_step_of(scores)))
        wanted = cells[np.arange(1, COARSE * _FINE) * len(cells) // (COARSE * _FINE)]
        edges = np.unique(np.append(wanted, _cell_of_step(_step_of(np.arange(1, _EVEN) / _EVEN))))
        # What begins with the lowest cell there is would have nothing below it, where a coarse bin is to have rows.
        steps = np.unique(wanted[_FINE - 1 :: _FINE])
        starts = np.searchsorted(edges, steps[steps > cells[0]]) + 1
        return cls(tuple(edges.tolist()), (0, *starts.tolist()))

    @property
    def bins(self) -> int:
        return len(self.edges) + 1

    def bin_of(self, scores: Floats) -> NDArray[np.uint16]:
        """The bin of each probability."""
        found = np.empty(len(scores), dtype=np.uint16)
        for start in range(0, len(scores), _BLOCK):
            rows = slice(start, start + _BLOCK)
            # Probabilities have no step beyond the table; "wrap" writes in place, where "raise" has a copy made.
            self._bin_of_step.take(_step_of(scores[rows]), out=found[rows], mode="wrap")
        return found

    @cached_property
    def coarse_of(self) -> Ints:
        """The coarse bin of each bin."""
        return np.searchsorted(self.coarse, np.arange(self.bins), side="right").astype(np.int64) - 1

    @cached_property
    def middles(self) -> Floats:
        """A score amid each bin."""
        borders = _start_of(np.array([0, *self.edges, _CELLS]))
        return (borders[1:] + borders[:-1]) / 2

    @cached_property
    def _bin_of_step(self) -> NDArray[np.uint16]:
        return np.searchsorted(self.edges, _cell_of_step(np.arange(2 * (_HALF + 1))), side="right").astype(np.uint16)


def _step_of(scores: Floats) -> Ints:
    """Steps away from 0, or, where 1 is nearer, `_HALF + 1` more than those away from 1."""
    rest = np.subtract(1.0, scores, dtype=np.float64)
    distances = np.minimum(scores, rest)
    distances += _NEAREST
    steps = distances.view(np.int64)
    steps >>= _SHIFT
    steps -= _LOWEST
    rest -= scores
    nearer_to_1 = rest.view(np.int64)
    nearer_to_1 >>= 63  # the sign: all bits, or none
    nearer_to_1 &= _HALF + 1
    steps += nearer_to_1
    return steps


def _cell_of_step(steps: Ints) -> Ints:
    """The cell of the grid, from 0, rising with the score."""
    return np.where(steps <= _HALF, steps, _CELLS + _HALF - steps)


def _start_of(cells: Ints) -> Floats:
    nearer = np.minimum(cells, _CELLS - cells)
    distances = ((nearer + _LOWEST) << _SHIFT).view(np.float64) - _NEAREST
    return np.where(cells <= _HALF, distances, 1.0 - distances)
