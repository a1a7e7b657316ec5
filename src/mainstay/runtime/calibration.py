"""Replaces the confidence a model states by the share of such answers that was right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence


class Curve(Protocol):
    """A line through points: `stated` strictly increasing, `calibrated` never decreasing, level beyond both ends."""

    @property
    def stated(self) -> Sequence[float]: ...
    @property
    def calibrated(self) -> Sequence[float]: ...


class Calibrator:
    """Applies a curve. A version's calibration is one."""

    def __init__(self, curve: Curve) -> None:
        self._stated = np.array(curve.stated, np.float64)
        self._calibrated = np.array(curve.calibrated, np.float64)

    def __call__(self, confidences: Sequence[float | None]) -> list[float | None]:
        """One for each, in order; None for what is None or not a number."""
        stated = np.array(confidences, np.float64)  # None becomes NaN
        calibrated: list[float | None] = np.interp(stated, self._stated, self._calibrated).tolist()
        if np.isnan(stated).any():
            return [None if value != value else value for value in calibrated]  # noqa: PLR0124 - true of NaN only
        return calibrated
