"""What every test has: no network beyond this machine, and the same property tests on every run of CI."""

from __future__ import annotations

import ipaddress
import os
import socket
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from selection import leaves_nothing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# A deadline per example measures the machine, not the code.
settings.register_profile("mainstay", deadline=None, print_blob=True)
settings.register_profile("mainstay-ci", deadline=None, print_blob=True, derandomize=True)
settings.load_profile("mainstay-ci" if os.environ.get("CI") else "mainstay")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Passes over the files that `-m` selects nothing of."""
    expression: str = config.getoption("markexpr")
    is_file = collection_path.suffix == ".py" and collection_path.is_file()
    if is_file and leaves_nothing(expression, collection_path.read_text("utf-8")):
        return True
    return None  # as other plugins say


@pytest.fixture(scope="session", autouse=True)
def loopback_only() -> Iterator[None]:
    """Fails a test that connects to another machine. Processes that tests start are not held by it."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, _guarded(getattr(socket.socket, name)))
        yield


def _guarded(connect: Callable[[socket.socket, Any], Any]) -> Callable[[socket.socket, Any], Any]:
    def guarded(self: socket.socket, address: Any) -> Any:
        if self.family in {socket.AF_INET, socket.AF_INET6} and not _is_loopback(address[0]):
            # Not an OSError: the code under test may handle those.
            pytest.fail(f"a test tried to reach {address[0]} port {address[1]}; tests reach 127.0.0.1 and ::1 only")
        return connect(self, address)

    return guarded


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
