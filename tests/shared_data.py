"""Real data made by others stands beside the checkout where there is any; without it, tests that use it skip."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(os.environ.get("MAINSTAY_SHARED_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


def shared_data(*parts: str) -> Path:
    """The file or folder `parts` of the shared data; skips the test with a reason when it is absent."""
    path = ROOT.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"no shared data: {Path(*parts)} is absent (set MAINSTAY_SHARED_DATA to the folder that holds it)")
    return path
