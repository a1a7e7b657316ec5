"""One PostgreSQL for all tests of a run, and an empty database of it for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from intake.databases import fresh_database, postgres_server

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    with postgres_server() as url:
        yield url


@pytest.fixture
def database(postgres: str) -> Iterator[str]:
    with fresh_database(postgres) as url:
        yield url
