"""What a power cut leaves of a local table.

The engine puts files in place whole, and does not wait for the disk. So we do, behind each commit and before anybody
is told of it: what was acknowledged stays. A commit that was not may be torn, and is set aside before the next.
"""

from __future__ import annotations

import logging
import os
import re
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import unquote

import msgspec

from mainstay.files import sync_directory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

logger = logging.getLogger("mainstay.lake")

LOG_FOLDER: Final = "_delta_log"
LAST_CHECKPOINT: Final = "_last_checkpoint"
TORN_PREFIX: Final = "_torn."


class _Add(msgspec.Struct):
    path: str
    size: int = 0


class _Line(msgspec.Struct):
    add: _Add | None = None


_COMMIT = re.compile(r"[0-9]{20}\.json")
_line = msgspec.json.Decoder(_Line).decode


def commit_name(version: int) -> str:
    return f"{version:020d}.json"


def commit_path(table: Path, version: int) -> Path:
    """The file of a commit."""
    return table / LOG_FOLDER / commit_name(version)


class Stamp(NamedTuple):
    """What is another when a file was written anew."""

    inode: int
    size: int  # bytes
    modified: int  # nanoseconds


def stamp_of(path: Path) -> Stamp | None:
    """None where there is no file."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return Stamp(found.st_ino, found.st_size, found.st_mtime_ns)


def make_durable(table: Path, first: int, last: int) -> None:
    """Wait until the commits first to last, the files they added and the checkpoints at them are on disk."""
    directories = {table, table / LOG_FOLDER}
    for version in range(first, last + 1):
        commit = commit_path(table, version)
        for path, _ in _added(table, commit):
            _sync_file(path)
            directories.add(path.parent)
        _sync_file(commit)
        for checkpoint in commit.parent.glob(f"{version:020d}.checkpoint*"):
            _sync_file(checkpoint)
    _sync_file(table / LOG_FOLDER / LAST_CHECKPOINT)
    for directory in directories:
        sync_directory(directory)


def _added(table: Path, commit: Path) -> Iterator[tuple[Path, int]]:
    """The files that a commit added, and their sizes. Raises ValueError when the commit is not whole."""
    try:
        content = commit.read_bytes()
    except FileNotFoundError:  # a checkpoint stands for it by now
        return
    if not content.strip():
        raise ValueError("it is empty")
    for line in content.splitlines():
        add = _line(line).add
        if add is not None:
            yield table / unquote(add.path), add.size


def _sync_file(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # removed again since, by a later commit and its vacuum
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def set_torn_aside(table: Path) -> None:
    """Rename the newest commit when it is not whole, or a file that it added is not.

    Nobody was told of it. The caller holds the table's lock, and writes what the commit held again.
    """
    log = table / LOG_FOLDER
    newest = max((path for path in log.glob("*.json") if _COMMIT.fullmatch(path.name)), default=None)
    if newest is None:
        return
    problem = _torn(table, newest)
    if problem:
        logger.warning("commit set aside: table=%s commit=%s: %s", table, newest.name, problem)
        (log / LAST_CHECKPOINT).unlink(missing_ok=True)  # only a hint, and it may name what goes now
        for path in log.glob(f"{newest.stem}.*"):
            path.rename(log / f"{TORN_PREFIX}{path.name}")
        sync_directory(log)


def remove_torn(table: Path) -> None:
    """Remove the commits that were set aside: what they say of rows is to be known no more."""
    for path in (table / LOG_FOLDER).glob(f"{TORN_PREFIX}*"):
        path.unlink(missing_ok=True)


def _torn(table: Path, commit: Path) -> str:
    """What is wrong with a commit; empty when nothing is."""
    try:
        for path, size in _added(table, commit):
            found = path.stat().st_size
            if found != size:
                return f"{path.name} has {found} bytes of {size}"
    except FileNotFoundError as error:
        return f"{error.filename} is not there"
    except (msgspec.DecodeError, ValueError) as error:
        return str(error)
    return ""
