"""Memory that was freed goes back to the system, so that what a long file needs stays what a short one does."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Final

_M_MMAP_THRESHOLD: Final = -3  # mallopt(3)
_LARGE_BYTES: Final = 1 << 20


@cache
def return_large_blocks() -> None:
    """Have the C library take large blocks from the system one by one, and give each back when it is freed.

    glibc does so by itself, until the first such block is freed: from then on it keeps blocks of that size in its
    heaps, one for each thread, where they leave holes. Reading text takes a few megabytes at a time, in whatever thread
    asks for the next rows; the process grew by 40 MB with every 100 MB of CSV. Other C libraries have no such habit.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
