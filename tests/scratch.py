"""Prints where fast tests write: in memory, or nothing where the machine has none to spare for that.

On a disk they would spend half of their time waiting for fsync, which only a loss of power would show to be needed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

MEMORY: Final = Path("/dev/shm")  # noqa: S108 - pytest makes a folder there that is its user's alone
NEEDED_BYTES: Final = 2 << 30


def folder_in_memory(folder: Path = MEMORY) -> Path | None:
    """`folder`, where there is room in it for what tests write, programs among it."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    fits = found.f_bavail * found.f_frsize >= NEEDED_BYTES and not found.f_flag & os.ST_NOEXEC
    return folder if fits and os.access(folder, os.W_OK | os.X_OK) else None


if __name__ == "__main__":
    print(folder_in_memory() or "")  # noqa: T201 - for the Makefile
