"""A slow disk, for every Python process that has this folder on its path: what must reach the disk takes long.

While the file named by FAULTS_SLOW_DISK exists, each fsync, fdatasync and rename waits 50 to 400 ms before it is done.
"""

from __future__ import annotations

import os
import random
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = (0.05, 0.4)

_SLOW = os.environ.get("FAULTS_SLOW_DISK", "")


def _slow(call: Callable[..., Any]) -> Callable[..., Any]:
    def slow(*given: Any, **named: Any) -> Any:
        if os.access(_SLOW, os.F_OK):
            time.sleep(random.uniform(*SECONDS))
        return call(*given, **named)

    return slow


if _SLOW:
    for name in ("fsync", "fdatasync", "rename", "replace"):
        setattr(os, name, _slow(getattr(os, name)))
