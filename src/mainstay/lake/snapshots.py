"""Named snapshots of tables: what a model was trained on, to be read again with the same bytes.

A snapshot is a copy, in a table of its own: rows numbered in the order in which they were taken, in parts of PART_ROWS.
So nothing that happens to the table it was taken from changes it, neither compaction nor vacuum nor retention, and any
engine can read it. It costs what it holds. Its digest is over the canonical bytes of its rows (`canonical.py`), and its
document, which says where it was taken and carries the digest, is what a version records.

Erasure reaches snapshots: then the rows are gone, and the snapshot says so, with the digest of what is left.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final, Literal

import msgspec
import polars as pl

from mainstay.errors import Damaged, Failed, Misuse
from mainstay.files import sync_directory, write_atomic
from mainstay.lake.canonical import encode_header, encode_part
from mainstay.lake.commits import translated
from mainstay.lake.conditions import OneOf
from mainstay.lake.location import check_name
from mainstay.lake.schemas import fit
from mainstay.lake.tables import ERASED_WRITER, Erased

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from mainstay.lake.conditions import Condition
    from mainstay.lake.lake import Lake
    from mainstay.lake.tables import Table

PREFIX: Final = "snapshots/"
PART_ROWS: Final = 131_072
PART: Final = "snapshot_part"
ROW: Final = "snapshot_row"

DOCUMENT: Final = "mainstay.snapshot"  # the property that makes it a snapshot
SOURCE: Final = "mainstay.snapshot.of"
_ERASURES: Final = "mainstay.snapshot.erasures"
_FILE = re.compile(rb'\{"sha256":"([0-9a-f]{64})","snapshot":(\{.*\})\}\n', re.DOTALL)


class Taken(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a snapshot is of."""

    format: Literal["mainstay-snapshot/1"] = "mainstay-snapshot/1"
    name: str
    table: str
    version: int  # of the table
    where: str | None  # the rows taken, as SQL; None for all
    taken_at: str  # RFC 3339, UTC
    rows: int
    columns: tuple[tuple[str, str], ...]  # names and types
    sha256: str  # of the canonical bytes of the rows


class Loss(msgspec.Struct, frozen=True, kw_only=True):
    """Rows that were erased from a snapshot, or columns of them."""

    at: str
    times: int  # how often the snapshot has been erased from
    rows: int  # that are left
    sha256: str  # of what is left


class _Losses(msgspec.Struct, frozen=True):
    losses: tuple[Loss, ...] = ()


def write_document(taken: Taken) -> bytes:
    """The document of a snapshot: a file that carries its own digest."""
    content = msgspec.json.encode(taken)
    return b'{"sha256":"%b","snapshot":%b}\n' % (sha256(content).hexdigest().encode(), content)


def read_document(content: bytes) -> Taken:
    """What the document of a snapshot says. Raises Damaged when it is not as it was written."""
    found = _FILE.fullmatch(content)
    if found is None or sha256(found[2]).hexdigest().encode() != found[1]:
        raise Damaged(f"expected the document of a snapshot under its SHA-256, found {len(content)} bytes that are not")
    try:
        return msgspec.json.decode(found[2], type=Taken)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Damaged(f"expected the document of a snapshot, found an error: {error}") from None


class Snapshot:
    """A snapshot that is whole, as it was when it was opened."""

    def __init__(self, table: Table) -> None:
        """Raises Misuse when taking it was never finished, Damaged when its document is not as it was written."""
        text = table.properties.get(DOCUMENT)
        if text is None:
            raise Misuse(
                f"snapshot {table.name.removeprefix(PREFIX)}: it was begun and never finished",
                hint="Take it again under the same name; what was begun is dropped.",
            )
        self.document = text.encode()
        self.taken = read_document(self.document)
        self.name = self.taken.name
        self._table = table

    @property
    def losses(self) -> tuple[Loss, ...]:
        """What was erased since, oldest first; it has the bytes it was taken with when there is none."""
        text = self._table.properties.get(_ERASURES)
        return () if text is None else msgspec.json.decode(text, type=_Losses).losses

    @property
    def sha256(self) -> str:
        """The digest of the rows as they are to be now."""
        return self.losses[-1].sha256 if self.losses else self.taken.sha256

    @property
    def rows(self) -> int:
        """How many rows there are to be now."""
        return self.losses[-1].rows if self.losses else self.taken.rows

    def parts(self) -> Iterator[pl.DataFrame]:
        """The rows in their order, a part in memory at a time."""
        for rows in numbered_parts(self._table, self.taken.rows):
            yield rows.drop(PART, ROW)

    def frame(self) -> pl.LazyFrame:
        """The rows in their order, lazily."""
        return self._table.frame(version=self._table.version).sort(ROW).drop(PART, ROW)

    def encoded(self) -> Iterator[bytes]:
        """The canonical bytes of the rows, in pieces: the same whenever they are read."""
        columns = {name: kind for name, kind in self._table.schema.items() if name not in {PART, ROW}}
        yield encode_header(pl.Schema(columns))
        for rows in self.parts():
            yield from encode_part(rows)

    @property
    def table(self) -> Table:
        """The table it stands in, for other engines."""
        return self._table

    def verify(self) -> None:
        """Read all of it. Raises Damaged when the rows are not those it was taken with, less those that were erased."""
        found = digest(self.encoded())
        if found != self.sha256:
            raise Damaged(f"snapshot {self.name}: expected rows with SHA-256 {self.sha256}, found {found}")


def export(snapshot: Snapshot, directory: Path, form: Literal["parquet", "jsonl"] = "parquet") -> list[Path]:
    """Write the rows into files of a new directory, a part in each, and the document beside them; which files.

    The directory appears whole or not at all. Raises Misuse when it exists, Failed when it cannot be written.
    """
    if directory.exists():
        raise Misuse(f"{directory}: expected a directory that does not exist yet")
    directory.parent.mkdir(parents=True, exist_ok=True)
    names = []
    try:
        with TemporaryDirectory(dir=directory.parent, prefix=f".{directory.name}-") as unfinished:
            whole = Path(unfinished) / directory.name
            whole.mkdir()
            for number, rows in enumerate(snapshot.parts()):
                names.append(f"part-{number:05}.{form}")
                write = rows.write_parquet if form == "parquet" else rows.write_ndjson
                write(whole / names[-1])
            write_atomic(whole / "snapshot.json", snapshot.document)
            whole.rename(directory)
            sync_directory(directory.parent)
    except OSError as error:
        raise Failed(f"{directory}: {error.strerror or error}") from None
    return [directory / name for name in names]


def numbered_parts(table: Table, rows: int) -> Iterator[pl.DataFrame]:
    """The parts of the table of a snapshot that was taken of so many rows, each in the order of its numbers."""
    delta, schema = table.delta(version=table.version), table.schema
    for part in range(-(-rows // PART_ROWS)):
        with translated(f"table {table.name}"):
            found = pl.DataFrame(delta.scan(predicate=OneOf(PART, (part,)).sql()))
        yield fit(found, schema, table.name).sort(ROW)


def open_snapshot(lake: Lake, name: str) -> Snapshot:
    """Raises Misuse when there is no snapshot of this name, Damaged when it is not as it was written."""
    found = lake.find(table_name(name))
    if found is None:
        raise Misuse(
            f"snapshot {name}: expected one, found none", hint=f"There are: {', '.join(snapshot_names(lake))}."
        )
    return Snapshot(found)


def snapshot_names(lake: Lake) -> list[str]:
    """Every snapshot, and those whose taking was never finished."""
    return [name.removeprefix(PREFIX) for name in lake.names(PREFIX)]


def table_name(name: str) -> str:
    """The table of a snapshot. Raises Misuse when it cannot be called so."""
    if "/" in name:
        raise Misuse(f"snapshot {name[:200]!r}: expected a name without slashes")
    return check_name(PREFIX + name)


def digest(pieces: Iterator[bytes]) -> str:
    """SHA-256 of bytes in pieces, in hex."""
    hashed = sha256()
    for piece in pieces:
        hashed.update(piece)
    return hashed.hexdigest()


# Erasure.


def erase(lake: Lake, name: str, condition: Condition) -> Erased:
    """Remove rows of a table for good, and of every snapshot of it. As `Table.erase`; the counts are of all."""
    return _everywhere(lake, name, lambda table: table.erase(condition))


def blank(lake: Lake, name: str, condition: Condition, columns: Sequence[str]) -> Erased:
    """Make columns of a table null for good, and in every snapshot of it. As `Table.blank`."""
    return _everywhere(lake, name, lambda table: table.blank(condition, columns))


def _everywhere(lake: Lake, name: str, change: Callable[[Table], Erased]) -> Erased:
    erased = [change(lake.table(name))]
    for each in lake.names(PREFIX):
        table = lake.table(each)
        if table.properties.get(SOURCE) == name:
            erased.append(change(table))
            _account(table)
    return Erased(sum(each.rows for each in erased), sum(each.files for each in erased))


def _account(table: Table) -> None:
    """Say of a snapshot what is left of it, where that was not said since it was last erased from."""
    times = table.refresh().position(ERASED_WRITER) or 0
    if DOCUMENT not in table.properties:
        return
    snapshot = Snapshot(table)
    if times > (snapshot.losses[-1].times if snapshot.losses else 0):
        at = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        loss = Loss(at=at, times=times, rows=table.rows, sha256=digest(snapshot.encoded()))
        losses = msgspec.json.encode(_Losses((*snapshot.losses, loss)))
        table.set_property(_ERASURES, losses.decode())
