from __future__ import annotations

import socket

import pytest
from hypothesis import settings


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")])
@pytest.mark.parametrize("name", ["connect", "connect_ex"])
def test_reaching_another_machine_fails_the_test(family: socket.AddressFamily, address: str, name: str) -> None:
    with (
        socket.socket(family) as connection,
        pytest.raises(pytest.fail.Exception, match=f"tried to reach {address} port 80"),
    ):
        getattr(connection, name)((address, 80))


def test_names_of_other_machines_are_refused_too() -> None:
    with socket.socket() as connection, pytest.raises(pytest.fail.Exception, match=r"tried to reach example\.com"):
        connection.connect(("example.com", 80))


def test_this_machine_can_be_reached() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=5).close()


def test_examples_have_no_deadline() -> None:
    assert settings().deadline is None
