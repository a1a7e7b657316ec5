"""What a worker takes in for sources that take events: one inbox for each, opened with its first event."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from mainstay.intake.pushing import Inbox

if TYPE_CHECKING:
    from pathlib import Path


class Inboxes:
    """The inboxes of one worker. They stay open when a source is no longer declared: others may still wait for them."""

    def __init__(self, loop: asyncio.AbstractEventLoop, data: Path) -> None:
        self._loop = loop
        self._data = data
        self._open: dict[tuple[str, str], Inbox] = {}

    def of(self, capability: str, source: str) -> Inbox:
        """The inbox of a source. Raises OSError when the disk will not take one."""
        found = self._open.get((capability, source))
        if found is None:
            found = self._open[capability, source] = Inbox(self._loop, self._data, capability, source)
        return found

    async def close(self, seconds: float) -> None:
        """Wait at most so long until each call is answered, and close them."""
        pending = [kept for inbox in self._open.values() for kept in inbox.pending]
        if pending:
            await asyncio.wait(pending, timeout=seconds)
        while self._open:
            self._open.popitem()[1].close()
