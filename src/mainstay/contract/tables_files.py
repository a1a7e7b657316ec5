"""Output files of a check: made in a scratch folder beside them, durable, and in place all at once or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import polars as pl
from polars.io.plugins import register_io_source

from mainstay.files import sync_directory

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROW_GROUP_ROWS: Final = 131_072
# Half the time of zstd, and of no compression too once the disk has to take the bytes; a third larger than zstd.
COMPRESSION: Final = "lz4"

_PREFIX: Final = ".mainstay-check-"
_HELD_BYTES: Final = 16 << 20  # of bad rows in memory


@contextlib.contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """A folder for temporary files in `parent`, gone afterwards; with it goes what killed processes left behind.

    A living process holds a lock on its folder, which the kernel lets go of however the process ends.
    """
    parent.mkdir(parents=True, exist_ok=True)
    _sweep(parent)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if folder.exists():  # another may have swept it before the lock was taken
            break
        os.close(descriptor)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def write_frames(frames: Iterator[pl.DataFrame], schema: Mapping[str, pl.DataType], path: Path) -> None:
    """Write frames of one schema, as they come, to one Parquet file. What `frames` raises is raised."""

    def source(*_: Any) -> Iterator[pl.DataFrame]:
        return frames

    stream = register_io_source(source, schema=dict(schema))
    stream.sink_parquet(path, compression=COMPRESSION, row_group_size=ROW_GROUP_ROWS, engine="streaming")


def publish(made: Sequence[tuple[Path, Path]]) -> None:
    """Put finished files in their places, the last one last: where that stands, the others are of the same run.

    A crash in between leaves the last one's place empty, never filled from an earlier run.
    """
    for temporary, _ in made:
        _sync(temporary)
    if len(made) > 1:
        final = made[-1][1]
        final.unlink(missing_ok=True)
        sync_directory(final.parent)
    for temporary, path in made:
        temporary.replace(path)
        sync_directory(path.parent)


class FrameFile:
    """A Parquet file to which frames of one schema are added, while another is written."""

    def __init__(self, folder: Path, schema: Mapping[str, pl.DataType]) -> None:
        self._folder = folder
        self._held = [pl.DataFrame(schema=dict(schema))]
        self._held_bytes = 0
        self._parts: list[Path] = []

    def add(self, frame: pl.DataFrame) -> None:
        self._held.append(frame)
        self._held_bytes += int(frame.estimated_size())
        if self._held_bytes > _HELD_BYTES:
            self._flush()

    def finish(self) -> Path:
        """The file with every frame that was added."""
        self._flush()
        if len(self._parts) == 1:
            return self._parts[0]
        path = self._folder / "bad.parquet"
        parts = pl.scan_parquet(self._parts, glob=False, hive_partitioning=False)
        parts.sink_parquet(path, compression=COMPRESSION, row_group_size=ROW_GROUP_ROWS, engine="streaming")
        return path

    def _flush(self) -> None:
        if self._parts and not self._held:
            return
        path = self._folder / f"bad.{len(self._parts):06}.parquet"
        frame = pl.concat(self._held)
        frame.write_parquet(path, compression=COMPRESSION, row_group_size=ROW_GROUP_ROWS)
        self._parts.append(path)
        self._held, self._held_bytes = [], 0


def _sweep(parent: Path) -> None:
    for folder in parent.glob(f"{_PREFIX}*"):
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:  # it has just gone, or is not ours
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:  # its process lives
            continue
        finally:
            os.close(descriptor)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
