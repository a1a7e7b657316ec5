from __future__ import annotations

import gc
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from house.source import Module, read_modules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="package", autouse=True)
def no_collector() -> Iterator[None]:
    """Syntax trees are all kept; a collector that goes through them again and again takes longer than reading them."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def modules() -> list[Module]:
    """The package as it stands."""
    return read_modules(REPOSITORY / "src" / "mainstay", REPOSITORY)


@pytest.fixture
def build(tmp_path: Path) -> Callable[[Mapping[str, str]], list[Module]]:
    """Writes a package `hut` from paths and texts, each folder with an empty `__init__.py`, and reads it back."""

    def write(files: Mapping[str, str]) -> list[Module]:
        folder = tmp_path / "hut"
        for name, text in {"__init__.py": "", **files}.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            (path.parent / "__init__.py").touch()
            path.write_text(text)
        return read_modules(folder, tmp_path)

    return write
