"""The programs of bench/ are scripts that import each other by name; so do their tests."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture
def bench() -> Path:
    return BENCH


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """A module of bench/ by its name."""
    monkeypatch.setattr(sys, "path", [str(BENCH), *sys.path])
    return import_module
