"""A folder of this machine as a place of files.

Links are not followed, and names that begin with a dot are left alone: who writes a file may call it so until it is
whole. What is below in other folders belongs to others.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import IO, TYPE_CHECKING, Final

from mainstay.intake.fetching import Unavailable
from mainstay.intake.files_known import Found
from mainstay.intake.files_whole import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mainstay.intake.files_whole import Readable

_BLOCK_BYTES: Final = 1 << 20
_KERNEL_COPIES_BYTES: Final = 1 << 30
_NO_KERNEL_COPY: Final = frozenset({errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM})


class Changed(Exception):
    """A file that became another, or went, while it was read. It is looked at again later."""


class Folder:
    """The files of one folder."""

    whole_at_once = False  # a file can be seen while it is written

    def __init__(self, path: Path, shown: str) -> None:
        """`shown` is how the folder is declared."""
        self._path = path
        self.shown = shown

    def files(self, after: str | None, wanted: Callable[[str], bool]) -> list[Found]:
        """The files whose names are wanted, those with greater ones than `after`. Raises Unavailable."""
        try:
            with os.scandir(self._path) as entries:
                return list(self._found(entries, after, wanted))
        except OSError as error:
            detail = f"the folder {self.shown}: {os.strerror(error.errno or 0)}"
            raise Unavailable("source_down", detail) from None

    def _found(
        self, entries: Iterator[os.DirEntry[str]], after: str | None, wanted: Callable[[str], bool]
    ) -> Iterator[Found]:
        for entry in entries:
            name = entry.name
            if name.startswith(".") or not wanted(name) or (after is not None and os.fsencode(name) <= after.encode()):
                continue
            try:
                seen = entry.stat(follow_symlinks=False)
            except FileNotFoundError:  # it went meanwhile
                continue
            if not stat.S_ISDIR(seen.st_mode):
                yield _as_found(name, seen)

    def copy(self, found: Found, target: IO[bytes], read: Callable[[Readable, IO[bytes]], None] | None) -> None:
        """Copy a file, or what `read` makes of it. Raises Refused, Changed, and OSError when the disk takes no more."""
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            descriptor = os.open(self._path / found.name, flags)
        except FileNotFoundError:
            raise Changed from None
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise Refused("file_rejected", "it is a link; only files are taken") from None
            raise Refused("file_rejected", f"it cannot be read: {os.strerror(error.errno or 0)}") from None
        with open(descriptor, "rb", buffering=0) as source:  # noqa: PTH123 - a descriptor
            before = os.fstat(source.fileno())
            if not stat.S_ISREG(before.st_mode):
                raise Refused("file_rejected", "it is no regular file")
            if _as_found(found.name, before) != found:
                raise Changed
            if read is None:
                _copy(source, target, found.size)
            else:
                read(source, target)
            if _as_found(found.name, os.fstat(source.fileno())) != found:
                raise Changed


def _as_found(name: str, seen: os.stat_result) -> Found:
    state = f"{seen.st_size} {seen.st_mtime_ns}"
    return Found(name, state, f"{seen.st_ctime_ns} {seen.st_ino}", seen.st_size, seen.st_mtime_ns / 1e9)


def _copy(source: IO[bytes], target: IO[bytes], size: int) -> None:
    """Copy `size` bytes; where the file system can, they are shared until one of both is changed."""
    target.flush()
    left = size
    while left:
        try:
            done = os.copy_file_range(source.fileno(), target.fileno(), min(left, _KERNEL_COPIES_BYTES))
        except OSError as error:
            if error.errno not in _NO_KERNEL_COPY or left != size:
                raise
            break
        if not done:
            break
        left -= done
    target.seek(size - left)
    source.seek(size - left)
    while left:
        block = source.read(min(left, _BLOCK_BYTES))
        if not block:
            raise Changed  # it became shorter
        target.write(block)
        left -= len(block)
