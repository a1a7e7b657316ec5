from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from client.service import running_service

if TYPE_CHECKING:
    from collections.abc import Iterator

    from client.service import Service


@pytest.fixture
def service() -> Iterator[Service]:
    with running_service() as running:
        yield running


@pytest.fixture
def unused_url() -> str:
    """An address at which nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    return f"http://127.0.0.1:{port}"
