from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from intake.databases import postgres_server
from state.databases import KINDS, made_workspace, opened

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mainstay.state.database import Database
    from mainstay.workspace import Workspace


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    with postgres_server() as url:
        yield url


@pytest.fixture(params=KINDS)
def workspace(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    server = request.getfixturevalue("server") if request.param == "postgresql" else None
    with made_workspace(tmp_path / "w", request.param, monkeypatch, server) as found:
        yield found


@pytest.fixture
def database(workspace: Workspace) -> Iterator[Database]:
    with opened(workspace) as found:
        yield found
