"""One HTTP request to the application in this process, without a server and without sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mainstay.embedded import _Host


class Exchange:
    """What the application sees of a request, and what it answers. With `parts`, the body comes in so many bytes."""

    def __init__(
        self,
        path: str,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        *,
        method: str = "POST",
        parts: int = 0,
    ) -> None:
        self.path, self.method, self._body, self._parts = path, method, body, parts
        self.headers = {**(headers or {})} if parts else {**(headers or {}), "content-length": str(len(body))}
        self.status, self.answer_headers, self.answer = 0, {"": ""}, b""

    async def __call__(self) -> bytes:
        return self._body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for at in range(0, len(self._body), self._parts):
            yield self._body[at : at + self._parts]
        yield b""

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.status, self.answer_headers, self.answer = status, dict(headers), body
        assert len(self.answer_headers) == len(headers), "a header stands twice"

    def run(self, host: _Host) -> Exchange:
        """Have it answered; itself."""
        host.run(self, 20)  # type: ignore[arg-type]  # it wants no more of one than is here
        return self
