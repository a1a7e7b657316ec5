"""Where the decisions of a batch go: files, or a table of the lake; each step's rows exactly once.

The rows of a step are prepared before they are recorded, out of the reader's sight, and put in place afterwards. Both
may be done again.
"""

from __future__ import annotations

import os
import shutil
from hashlib import file_digest
from typing import TYPE_CHECKING, Final, Protocol

import polars as pl

from mainstay.errors import Damaged, Misuse
from mainstay.files import sync_directory

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mainstay.batch.state import Step
    from mainstay.batch.types import OutputKind
    from mainstay.lake.tables import Table

WRITER: Final = "batch"

_JSON_LINES: Final = frozenset({".jsonl", ".ndjson"})


class Output(Protocol):
    """Where the rows of steps go, by the number of the step."""

    def prepare(self, number: int, frame: pl.DataFrame) -> str:
        """Write the rows of a step where nobody looks for them, durably; the digest of what was written."""
        ...

    def publish(self, step: Step) -> None:
        """Put what was prepared in its place, unless it is there. Raises Damaged when it is not what was prepared."""
        ...

    def discard(self, number: int) -> None:
        """Throw away what was prepared, if anything was."""
        ...

    def finish(self, steps: Sequence[Step]) -> None:
        """All steps are published."""
        ...


def kind_of(output: Path) -> OutputKind:
    """By the ending of its name: Parquet, JSON lines, or a folder."""
    suffix = output.suffix.lower()
    if suffix in _JSON_LINES:
        return "jsonl"
    if suffix in {".parquet", ".pq"}:
        return "parquet"
    if suffix:
        raise Misuse(f"{output}: expected a name that ends in .parquet or .jsonl, or a folder's without an ending")
    return "folder"


class FolderOutput:
    """A folder with a Parquet file for each step."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def prepare(self, number: int, frame: pl.DataFrame) -> str:
        if not self._folder.is_dir():
            self._folder.mkdir(parents=True, exist_ok=True)
            sync_directory(self._folder.parent)
        return _write(frame, self._prepared(number))

    def publish(self, step: Step) -> None:
        prepared, place = self._prepared(step.number), self._place(step.number)
        if prepared.exists():
            _check(prepared, step)
            prepared.rename(place)
            sync_directory(self._folder)
        elif not place.exists():
            raise _gone(step, place)

    def discard(self, number: int) -> None:
        self._prepared(number).unlink(missing_ok=True)

    def finish(self, steps: Sequence[Step]) -> None:
        if not steps:
            self._folder.mkdir(parents=True, exist_ok=True)
        for step in steps:
            if not self._place(step.number).exists():
                raise _gone(step, self._place(step.number))

    def _place(self, number: int) -> Path:
        return self._folder / f"part-{number:06}.parquet"

    def _prepared(self, number: int) -> Path:
        return self._folder / f".part-{number:06}.parquet"


class FileOutput:
    """One file, made of all steps when they are done; until then they are kept apart."""

    def __init__(self, path: Path, parts: Path, empty: pl.DataFrame) -> None:
        """`parts` is a folder for the rows of steps; `empty` is what a step without rows would be."""
        self._path = path
        self._parts = parts
        self._empty = empty
        self._is_lines = kind_of(path) == "jsonl"

    def prepare(self, number: int, frame: pl.DataFrame) -> str:
        return _write(frame, self._part(number))

    def publish(self, step: Step) -> None:
        if not self._part(step.number).exists():
            raise _gone(step, self._part(step.number))
        _check(self._part(step.number), step)

    def discard(self, number: int) -> None:
        self._part(number).unlink(missing_ok=True)

    def finish(self, steps: Sequence[Step]) -> None:
        parts = [self._part(step.number) for step in steps]
        for step, part in zip(steps, parts, strict=True):
            if not part.exists():
                raise _gone(step, part)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        whole = self._path.with_name(f".{self._path.name}.whole")
        if self._is_lines:
            with whole.open("wb") as file:
                for part in parts:
                    with part.open("rb") as each:
                        shutil.copyfileobj(each, file)
        elif parts:
            pl.scan_parquet(parts, glob=False, cache=False).sink_parquet(whole, compression="zstd", maintain_order=True)
        else:
            self._empty.write_parquet(whole)
        _sync(whole)
        whole.rename(self._path)
        sync_directory(self._path.parent)

    def _part(self, number: int) -> Path:
        return self._parts / f"part-{number:06}{'.jsonl' if self._is_lines else '.parquet'}"


class TableOutput:
    """A table of the lake, a commit for each step."""

    def __init__(self, table: Table, parts: Path, first: int) -> None:
        """`first` is the position of the first step's commit."""
        self._table = table
        self._parts = parts
        self._first = first

    def prepare(self, number: int, frame: pl.DataFrame) -> str:
        return _write(frame, self._part(number))

    def publish(self, step: Step) -> None:
        position = self._first + step.number
        if (self._table.refresh().position(WRITER) or 0) >= position:
            self.discard(step.number)
            return
        if not self._part(step.number).exists():
            raise _gone(step, self._part(step.number))
        _check(self._part(step.number), step)
        rows = pl.read_parquet(self._part(step.number), glob=False)
        metadata = {"part": step.last.part, "row": step.last.row}
        self._table.append(rows, writer=WRITER, position=position, metadata=metadata)
        self.discard(step.number)

    def discard(self, number: int) -> None:
        self._part(number).unlink(missing_ok=True)

    def finish(self, steps: Sequence[Step]) -> None:
        """Each step was committed by itself."""

    def _part(self, number: int) -> Path:
        return self._parts / f"part-{number:06}.parquet"


def _write(frame: pl.DataFrame, path: Path) -> str:
    path.unlink(missing_ok=True)
    if path.suffix == ".jsonl":
        frame.write_ndjson(path)
    else:
        frame.write_parquet(path, compression="zstd", compression_level=1, statistics=False)
    path.chmod(0o640)
    _sync(path)
    sync_directory(path.parent)
    return _digest(path)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _check(path: Path, step: Step) -> None:
    if _digest(path) != step.sha256:
        raise Damaged(f"{path}: expected the rows that were prepared for step {step.number}, found others")


def _gone(step: Step, path: Path) -> Damaged:
    return Damaged(
        f"{path}: expected the {step.rows:,} decisions of step {step.number}, found no file",
        hint="They are recorded in the ledger, and whoever removed the file may have it. `--new` decides all anew.",
    )
