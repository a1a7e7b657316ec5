"""Quality rules of type sql: one read-only query over a table, run by DuckDB in a process of its own, shut in."""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Final, Self

import msgspec

from mainstay.contract.sql_types import Answer, Opening, Question, SqlLimits, SqlTable

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_QUERY_CHARACTERS: Final = 100_000
HINT: Final = "install DuckDB: pip install 'mainstay-ai[sql]'"

_DEFAULT_LIMITS: Final = SqlLimits()
_GRACE_SECONDS: Final = 2.0  # for a query to hear that its time is over
_START_SECONDS: Final = 30.0  # for the process to begin, on a busy machine
_MAX_ANSWER_BYTES: Final = 1 << 16
_KEPT_VARIABLES: Final = ("PATH", "LD_LIBRARY_PATH", "LANG")

_OBJECT: Final = ("object", "table", "model")
_PROPERTY: Final = ("property", "column", "field")
_NAMES: Final = "|".join((*_OBJECT, *_PROPERTY, "schema"))
_PLACEHOLDER: Final = re.compile(rf'"\$?\{{({_NAMES})\}}"|\$?\{{({_NAMES})\}}')


def is_installed() -> bool:
    """Whether queries can be run here."""
    return find_spec("duckdb") is not None


def fill_in(query: str, name: str, path: Sequence[str]) -> str:
    """A query with its placeholders replaced by quoted identifiers, and by nothing else.

    `{object}` becomes the name of the object and `{property}` that of the property at `path`, also as the standard
    wrote them before, `${table}` and `${column}`. Raises ValueError with the reason when there is no such thing.
    """
    if len(query) > MAX_QUERY_CHARACTERS:
        raise ValueError(f"expected a query of at most {MAX_QUERY_CHARACTERS:,} characters, found {len(query):,}")

    def replaced(found: re.Match[str]) -> str:
        placeholder = found[1] or found[2]
        if placeholder in _OBJECT:
            return _quoted(name)
        if placeholder == "schema":
            return _quoted("main")
        if not path:
            raise ValueError(f"{found[0]} stands in a rule of an object; expected it in one of a property")
        return ".".join(map(_quoted, path))

    return _PLACEHOLDER.sub(replaced, query)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


class SqlRunner:
    """Runs queries over tables, one after the other. The process begins with the first and ends with the block.

    A query that is stopped takes the process with it, and the next one has a new process. What they need on disk is in
    `folder`, which exists, and is removed as each ends.
    """

    def __init__(self, tables: Sequence[SqlTable], folder: Path, limits: SqlLimits = _DEFAULT_LIMITS) -> None:
        self._tables = tuple(tables)
        self._folder = folder / "query"
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def run(self, query: str) -> Answer:
        """The one value of a query, or why there is none. Never takes much longer than the limit."""
        if not is_installed():
            return Answer("broken", f"no engine for queries is installed; {HINT}")
        wait = self._limits.seconds + _GRACE_SECONDS
        if self._process is None:
            wait += _START_SECONDS
            self._process = self._begin()
        answer = self._ask(self._process, query, wait)
        if answer.kind == "stopped":
            self._end()
        return answer

    def _begin(self) -> subprocess.Popen[bytes]:
        self._folder.mkdir()
        tables = tuple(_linked(table, self._folder, i) for i, table in enumerate(self._tables))
        environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        environment |= dict.fromkeys(("HOME", "TMPDIR"), str(self._folder))
        process = subprocess.Popen(
            [sys.executable, "-P", "-s", "-B", "-m", "mainstay.contract.sql_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=self._folder,
            env=environment,
            start_new_session=True,
        )
        _send(process, Opening(tables, self._limits))
        return process

    def _ask(self, process: subprocess.Popen[bytes], query: str, wait_seconds: float) -> Answer:
        _send(process, Question(query))
        line = _read_line(process, monotonic() + wait_seconds)
        if line is None:
            return Answer("stopped", f"it took longer than {self._limits.seconds:g} seconds")
        try:
            return msgspec.json.decode(line, type=Answer)
        except msgspec.DecodeError:  # it ended without a word, or within one
            return Answer("stopped", "the process that ran it ended")

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):  # it was gone before what we wrote
                        pipe.close()
            self._process = None
            shutil.rmtree(self._folder, ignore_errors=True)


def _linked(table: SqlTable, folder: Path, number: int) -> SqlTable:
    """The table with files of plain names in the folder: DuckDB would read `*` or `[` in a path as a pattern."""
    names = []
    for i, file in enumerate(table.files):
        name = f"table-{number}-{i}.parquet"
        (folder / name).symlink_to(Path(file).resolve())
        names.append(name)
    return SqlTable(table.names, tuple(names))


def _send(process: subprocess.Popen[bytes], message: msgspec.Struct) -> None:
    """Write a message. When the process has ended, its silence says so to whoever reads."""
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(msgspec.json.encode(message) + b"\n")
            process.stdin.flush()


def _read_line(process: subprocess.Popen[bytes], deadline: float) -> bytes | None:
    """What the process writes next, up to the end of a line or of its output; None when that comes too late."""
    if process.stdout is None:
        return b""
    descriptor = process.stdout.fileno()
    read = bytearray()
    while not read.endswith(b"\n") and len(read) < _MAX_ANSWER_BYTES:
        ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - monotonic()))
        if not ready:
            return None
        part = os.read(descriptor, _MAX_ANSWER_BYTES)
        if not part:
            break
        read += part
    return bytes(read)
