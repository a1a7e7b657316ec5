from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from intake.databases import postgres_server
from rollout.made import Stage
from state.databases import made_workspace, opened

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def stage(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """A workspace to move versions in, on SQLite; `indirect` parameters ask for another database."""
    kind = getattr(request, "param", "sqlite")
    server = request.getfixturevalue("server") if kind == "postgresql" else None
    with made_workspace(tmp_path / "w", kind, monkeypatch, server) as workspace, opened(workspace) as database:
        yield Stage(workspace, database)


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    with postgres_server() as url:
        yield url
