"""The folder's own code fits a challenger, in a process that can do little else."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest

from mainstay.capability.load import load_capability
from mainstay.errors import Failed
from mainstay.retraining.training import FOLDER, ROWS, train
from retraining.folders import TRAIN, write_folder

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.capability.keeping import Retraining

pytestmark = pytest.mark.acceptance


def prepared(private: Path, code: str = TRAIN, **changes: Any) -> Retraining:
    """A private directory with a folder and rows of which `yes` is likelier the larger `a` is."""
    folder = write_folder(private / FOLDER, train=code, **changes)
    random = np.random.default_rng(0)
    a = random.normal(size=2_000)
    yes = random.random(2_000) < 1 / (1 + np.exp(-3 * a))
    pl.DataFrame({"a": a, "yes": yes}).write_parquet(private / ROWS)
    declared = load_capability(folder).capability.retraining
    assert declared is not None
    return declared


def weights(private: Path) -> dict[str, float]:
    found: dict[str, float] = json.loads((private / FOLDER / "weights.json").read_bytes())
    return found


def test_it_fits_what_the_rows_say_and_the_same_rows_make_the_same_bytes(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    printed = train(one, prepared(one))
    train(two, prepared(two))
    assert printed == "fitted on 2000 rows"
    assert weights(one)["a"] > 1.0
    assert (one / FOLDER / "weights.json").read_bytes() == (two / FOLDER / "weights.json").read_bytes()
    assert not list(one.rglob("__pycache__"))


def test_another_seed_is_given_to_the_code(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    train(one, prepared(one))
    train(two, prepared(two, seed=7))
    assert weights(one) != weights(two)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("def train(rows, folder, seed):\n    raise ValueError('no rows fit')\n", "no rows fit .*train.py, line 2"),
        ("def fit(rows, folder, seed):\n    pass\n", "no function 'train'.*"),
        ("def train(rows, folder, seed):\n    pass\n", "changed nothing"),
        ("def train(rows, folder, seed):\n    (folder / 'predict.py').write_text('')\n", "changed predict.py"),
        ("def train(rows, folder, seed):\n    (folder / 'more').write_text('')\n", "changed more: expected only"),
        ("def train(rows, folder, seed):\n    (folder / 'l').symlink_to('/etc/passwd')\n", "left l: expected plain"),
        ("import os\ndef train(rows, folder, seed):\n    os._exit(3)\n", "exit code 3"),
        ("def train(rows, folder, seed):\n    bytearray(1 << 40)\n", "MemoryError"),
        ("def train(rows, folder, seed):\n    __import__('socket').create_connection(('127.0.0.1', 1))\n", "rror"),
    ],
)
def test_what_goes_wrong_is_told(tmp_path: Path, code: str, told: str) -> None:
    with pytest.raises(Failed, match=told):
        train(tmp_path, prepared(tmp_path, code))


def test_it_writes_nothing_outside(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    private = tmp_path / "private"
    code = f"def train(rows, folder, seed):\n    open({str(outside / 'x')!r}, 'w')\n"
    with pytest.raises(Failed, match="PermissionError"):
        train(private, prepared(private, code))
    assert not list(outside.iterdir())


def test_it_is_stopped_when_it_takes_too_long(tmp_path: Path) -> None:
    code = "import time\ndef train(rows, folder, seed):\n    time.sleep(600)\n"
    with pytest.raises(Failed, match="took longer than"):
        train(tmp_path, prepared(tmp_path, code, time_limit_minutes=0.01))
