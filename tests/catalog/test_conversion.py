from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from catalog.models import (
    FLIGHT,
    Allocates,
    Exits,
    Prints,
    ShowsSecrets,
    Sleeps,
    flights_frame,
    flights_pipeline,
    frame_rows,
    make_request,
    pickled,
)
from mainstay.catalog.conversion import Limits, Reply, convert
from mainstay.errors import Failed, Misuse


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


def test_the_child_is_given_no_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MAINSTAY_KEY_PASSPHRASE", "hunter2")
    seen = tmp_path / "seen"
    before = dict(os.environ), Path.cwd()
    with pytest.raises(Misuse):
        ask(ShowsSecrets(seen))
    assert (dict(os.environ), Path.cwd()) == before
    shown = seen.read_text()  # it was trusted, so it ran: in the child
    assert "HOME=" in shown
    assert "hunter2" not in shown
    assert "MAINSTAY" not in shown
