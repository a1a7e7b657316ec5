"""One writer at a time, across processes. The kernel lets go of a lock however its holder ends."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mainstay.errors import Failed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_POLL_SECONDS = 0.01


@contextmanager
def locked(path: Path, *, timeout_seconds: float = 30.0) -> Iterator[None]:
    """Hold an exclusive `flock` on the file `path`, which is made when absent and never removed.

    Raises Failed when another process still holds it after `timeout_seconds`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        deadline = time.monotonic() + timeout_seconds
        while not _try_lock(descriptor):
            if time.monotonic() >= deadline:
                raise Failed(
                    f"{path} is held by another process: expected to get it within {timeout_seconds:g} s",
                    hint="Another change is under way; try again when it has finished.",
                )
            time.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
