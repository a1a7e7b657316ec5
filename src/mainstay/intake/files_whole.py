"""Whether a file that was copied is whole, as far as its end tells; and the copy of one that is compressed."""

from __future__ import annotations

import csv
import gzip
import zlib
from typing import IO, TYPE_CHECKING, Final, Protocol

import msgspec

from mainstay.contract.tables_csv import DELIMITERS, MAX_ROW_BYTES
from mainstay.errors import NOT_READ

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.intake.landing import Kind

GZIP: Final = ".gz"
UNREADABLE: Final = (".zst", ".bz2", ".xz", ".zip", ".7z", ".lz4")  # no library of ours reads them
KINDS: Final[dict[str, Kind]] = {".csv": "csv", ".jsonl": "jsonl", ".parquet": "parquet"}

_BLOCK_BYTES: Final = 1 << 20
_MAGIC: Final = b"PAR1"
_FOOTER_BYTES: Final = 8  # the footer's length and the magic
_LEAST_PARQUET_BYTES: Final = 12


class Readable(Protocol):
    """What a file's bytes are read from."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes, and none at the end."""
        ...


class Refused(Exception):
    """A file that is not taken as it is: the finding's code, and why."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


def kind_of(name: str, declared: Kind | None) -> Kind:
    """What a file is: as declared, or by its ending. Raises Refused when neither says it."""
    lower = name.lower()
    if lower.endswith(UNREADABLE):
        raise Refused("file_rejected", "its compression cannot be read; gzip can, and Parquet is compressed by itself")
    if declared is not None:
        return declared
    bare = lower.removesuffix(GZIP)
    for ending, kind in KINDS.items():
        if bare.endswith(ending):
            return kind
    expected = ", ".join(KINDS)
    raise Refused("file_rejected", f"its name ends in none of {expected}: declare `format`, or a `pattern` without it")


def unpack(packed: Readable, target: IO[bytes], max_bytes: int) -> None:
    """Write what a gzip file holds. Raises Refused when that is more than `max_bytes`, or the file is not whole."""
    written = 0
    try:
        with gzip.GzipFile(fileobj=packed, mode="rb") as content:  # type: ignore[call-overload]  # it only reads
            while block := content.read(_BLOCK_BYTES):
                written += len(block)
                if written > max_bytes:
                    raise Refused("too_large", f"unpacked it has more than {max_bytes} bytes")
                target.write(block)
    except EOFError:
        raise Refused("not_whole", "the gzip file ends before its end") from None
    except (gzip.BadGzipFile, zlib.error):
        raise Refused("file_rejected", "it is no gzip file, or it is damaged") from None


def check_whole(path: Path, kind: Kind, delimiter: str | None) -> None:
    """Raises Refused when a file ends before its end."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        if not size:
            raise Refused("not_whole", "it is empty")
        if kind == "parquet":
            _check_parquet(file, size)
            return
        file.seek(-1, 2)
        if file.read(1) != b"\n":
            _check_last_line(file, size, kind, delimiter)


def _check_parquet(file: IO[bytes], size: int) -> None:
    """Its footer is written last, and says how long it is."""
    file.seek(0)
    if file.read(len(_MAGIC)) != _MAGIC:
        raise Refused("file_rejected", "it is no Parquet file")
    file.seek(max(0, size - _FOOTER_BYTES))
    end = file.read(_FOOTER_BYTES)
    length = int.from_bytes(end[:4], "little")
    if size < _LEAST_PARQUET_BYTES or end[4:] != _MAGIC or length > size - _LEAST_PARQUET_BYTES:
        raise Refused("not_whole", "the Parquet file ends before its footer")


def _check_last_line(file: IO[bytes], size: int, kind: Kind, delimiter: str | None) -> None:
    """A last line without a break may be half: JSON tells, and of CSV the number of its cells does."""
    start = max(0, size - MAX_ROW_BYTES)
    file.seek(start)
    tail = file.read(size - start)
    line = tail[tail.rfind(b"\n") + 1 :]
    if kind == "jsonl":
        try:
            msgspec.json.decode(line)
        except NOT_READ:
            raise Refused("not_whole", "its last line is no whole JSON") from None
        return
    file.seek(0)
    header = file.readline(MAX_ROW_BYTES)
    if not header.endswith(b"\n") or _cells(line, _delimiter(header, delimiter)) != _cells(
        header, _delimiter(header, delimiter)
    ):
        raise Refused("not_whole", "its last line has no break at its end, and not as many cells as the header")


def _delimiter(header: bytes, declared: str | None) -> str:
    """The delimiter; where none is declared, the one that the header has most of."""
    return declared or max(DELIMITERS, key=lambda each: header.count(each.encode()))


def _cells(line: bytes, delimiter: str) -> int:
    """How many cells a row has; -1 where its quotes do not close."""
    text = line.decode("utf-8", "replace").rstrip("\r\n")
    try:
        return sum(len(row) for row in csv.reader([text], delimiter=delimiter, strict=True))
    except csv.Error:
        return -1
