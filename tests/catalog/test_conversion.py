from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from catalog.models import (
    FLIGHT,
    Allocates,
    Exits,
    Prints,
    Sleeps,
    Spies,
    flights_frame,
    flights_pipeline,
    frame_rows,
    make_request,
    pickled,
)
from mainstay.catalog.conversion import Limits, Reply, convert
from mainstay.errors import Failed


def ask(model: Any, **changes: Any) -> tuple[Reply, bytes]:
    return convert(make_request(**changes), model if isinstance(model, bytes) else pickled(model))


def test_the_same_model_always_makes_the_same_bytes() -> None:
    model, rows = pickled(flights_pipeline()), frame_rows(flights_frame(20))
    artifacts = {ask(model, features=FLIGHT, rows=rows)[1] for _ in range(2)}
    assert len(artifacts) == 1


@pytest.mark.parametrize("model", [Sleeps(), Prints()], ids=["sleeping", "printing"])
def test_a_pickle_that_never_finishes_is_stopped(model: Any) -> None:
    begun = time.monotonic()
    with pytest.raises(Failed, match=r"took longer than 2\.5 s and was stopped") as caught:
        ask(model, limits=Limits(wall_seconds=2.5))
    assert time.monotonic() - begun < 6
    assert len(str(caught.value)) < 5_000, "what it printed is bounded"


def test_a_pickle_that_takes_all_memory_is_stopped() -> None:
    with pytest.raises(Failed, match="MemoryError"):
        ask(Allocates())


def test_a_pickle_that_ends_the_process_is_no_success() -> None:
    with pytest.raises(Failed, match="ended its process before it was converted"):
        ask(Exits())


def test_the_child_is_given_no_secret_and_finds_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It was trusted, so it runs: in a child that prints what it sees, and may neither read nor write beside itself."""
    monkeypatch.setenv("MAINSTAY_KEY_PASSPHRASE", "hunter2")
    secret = tmp_path / "secret"
    secret.write_text("the signing key")
    before = dict(os.environ), Path.cwd()
    with pytest.raises(Failed) as caught:
        ask(Spies(secret))
    assert (dict(os.environ), Path.cwd()) == before
    shown = str(caught.value)
    assert "HOME=" in shown
    assert "hunter2" not in shown
    assert "MAINSTAY" not in shown
    if "files" in confinements():
        assert "the signing key" not in shown
        assert secret.read_text() == "the signing key"


def confinements() -> list[str]:
    """What this kernel can hold a child to."""
    code = "import sys, pathlib, mainstay.runtime.confinement as c; print(*c.confine(pathlib.Path(), pathlib.Path()))"
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
