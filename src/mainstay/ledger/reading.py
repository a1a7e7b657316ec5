"""Reading files that others may have changed: regular files only, and never more of them than they may have."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from mainstay.errors import Damaged

if TYPE_CHECKING:
    from pathlib import Path

MAX_NAMES = 1 << 20  # in one directory


def open_regular(path: str | Path, flags: int = os.O_RDONLY) -> int:
    """A descriptor of a regular file: no symbolic link is followed, and no pipe or device waited for.

    Raises FileNotFoundError when it is absent, and OSError when it is anything else or cannot be opened.
    """
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(0, "it is no regular file", str(path))
    return descriptor


def read_regular(path: Path, limit_bytes: int) -> bytes:
    """The whole of a regular file. Raises OSError as `open_regular` does, and Damaged when it is longer."""
    descriptor = open_regular(path)
    try:
        size = os.fstat(descriptor).st_size
        if size > limit_bytes:
            raise Damaged(f"{path.name}: expected at most {limit_bytes:,} bytes, found {size:,}")
        content = os.read(descriptor, size)
        while len(content) < size and (more := os.read(descriptor, size - len(content))):
            content += more
        return content
    finally:
        os.close(descriptor)


def list_directory(path: Path) -> list[os.DirEntry[str]]:
    """What is in a directory, by name; nothing where there is none. Raises Damaged when there is too much."""
    found: list[os.DirEntry[str]] = []
    try:
        with os.scandir(path) as entries:
            for each in entries:
                found.append(each)
                if len(found) > MAX_NAMES:
                    raise Damaged(f"{path.name}: expected at most {MAX_NAMES:,} names in a directory, found more")
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(found, key=lambda each: each.name)
