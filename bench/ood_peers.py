"""PyOD's detectors over the splits that ood.py wrote; runs in an environment of its own, made by ood.py.

    python bench/ood_peers.py FOLDER

FOLDER holds one `*.npz` a split, with `reference` to fit on, `judged` to score, and the `seed`; each gets a
`*.scores.npz` beside it, with one array of scores a detector.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from pyod.models.copod import COPOD  # type: ignore[import-not-found,unused-ignore]  # installed in its own environment
from pyod.models.ecod import ECOD  # type: ignore[import-not-found,unused-ignore]  # installed in its own environment
from pyod.models.iforest import IForest  # type: ignore[import-not-found,unused-ignore]  # installed in its own environment

SHARE_AT_ONCE = 0.02  # of the reference rows


def scores(detector: Any, judged: Any, reference_rows: int, seed: int) -> Any:
    """ECOD and COPOD rank a row among the rows it is scored with, too: given many odd ones at once, they find them
    ordinary. In service odd rows are few, so rows are scored a few at a time, in random order.
    """
    order = np.random.default_rng(seed).permutation(len(judged))
    at_once = max(1, int(SHARE_AT_ONCE * reference_rows))
    found = np.empty(len(judged))
    for start in range(0, len(order), at_once):
        chosen = order[start : start + at_once]
        found[chosen] = detector.decision_function(judged[chosen])
    return found


def main(folder: Path) -> None:
    for path in sorted(folder.glob("*.npz")):
        split = np.load(path)
        reference, judged, seed = split["reference"], split["judged"], int(split["seed"])
        detectors = {"ECOD": ECOD(), "COPOD": COPOD(), "IForest": IForest(random_state=seed)}
        found = {}
        for name, detector in detectors.items():
            detector.fit(reference)
            found[name] = scores(detector, judged, len(reference), seed)
        np.savez(path.with_suffix(".scores.npz"), **found)


if __name__ == "__main__":
    warnings.filterwarnings("ignore", "Precision loss occurred", RuntimeWarning)  # of columns with a single value
    main(Path(sys.argv[1]))
