"""What every commit of ours says besides the rows: which writer has come how far.

A writer's position is a Delta application transaction, which engines keep in the table's state for ever. What the
writer said beside it (its cursor) stands in the commit itself, in `commitInfo` under `mainstay`, as JSON text. Each
commit repeats what all writers said as of the version it was made from, so that the newest few answer.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import msgspec
import polars as pl
from deltalake import CommitProperties, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from mainstay.errors import Failed, Misuse
from mainstay.lake.durable import LOG_FOLDER

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from mainstay.lake.location import Location

KEY: Final = "mainstay"
MAX_METADATA_BYTES: Final = 64 << 10  # of one writer
MAX_WRITERS: Final = 64
MAX_POSITION: Final = 2**63 - 1


class Said(msgspec.Struct, frozen=True):
    """What a writer said when it reached a position."""

    position: int
    metadata: dict[str, Any]


class Notes(msgspec.Struct, frozen=True):
    """What stands in a commit of ours."""

    read: int = -1  # the version that it was made from: of what came between that and itself it knows nothing
    writers: dict[str, Said] = {}

    def with_writer(self, writer: str, position: int, metadata: Mapping[str, Any]) -> Notes:
        """The same and what a writer says now. Raises Misuse when that is too much to be kept in a commit."""
        size = len(msgspec.json.encode(metadata))
        if size > MAX_METADATA_BYTES:
            raise Misuse(f"writer {writer}: expected at most {MAX_METADATA_BYTES:,} bytes of metadata, found {size:,}")
        writers = {**self.writers, writer: Said(position, dict(metadata))}
        if len(writers) > MAX_WRITERS:
            raise Misuse(f"writer {writer}: expected at most {MAX_WRITERS} writers of a table, found another")
        return Notes(self.read, writers)


class _Line(msgspec.Struct, rename="camel"):
    commit_info: dict[str, Any] | None = None


_decode = msgspec.json.Decoder(Notes).decode
_line = msgspec.json.Decoder(_Line).decode


def read_notes(commit: Mapping[str, Any]) -> Notes | None:
    """What a commit of ours says; None for one that another engine made."""
    text = commit.get(KEY)
    if not isinstance(text, str):
        return None
    try:
        return _decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def read_commit(location: Location, name: str, version: int) -> dict[str, Any] | None:
    """What the commit of a version says of itself; empty when it says nothing, None when it is not there any more.

    It is read here because the engine's own history numbers commits wrongly as soon as another one is made beside it.
    Raises Failed when the storage does not answer, or the commit is not whole.
    """
    path = f"{name}/{LOG_FOLDER}/{version:020d}.json"
    try:
        if location.is_local:
            lines = location.path(path).read_bytes().splitlines()
        else:
            lines = _read_lines(location.uri(path), location.options)
        found = (_line(line).commit_info for line in lines)
        return next((info for info in found if info is not None), {})
    except FileNotFoundError:
        return None
    except (OSError, pl.exceptions.PolarsError) as error:
        raise Failed(f"table {name}: version {version}: {first_line(error)}") from None
    except (msgspec.DecodeError, UnicodeError) as error:
        raise Failed(f"table {name}: version {version}: expected a commit, found an error: {error}") from None


def _read_lines(uri: str, options: dict[str, str]) -> list[bytes]:
    # JSON holds no control character, so every line is one field.
    lines = pl.scan_csv(
        uri,
        has_header=False,
        separator="\x01",
        quote_char=None,
        schema={"line": pl.String},
        glob=False,
        storage_options=options or None,
    )
    return [line.encode() for line in lines.collect()["line"].drop_nulls()]


def newest_notes(commits: Iterable[tuple[int, Mapping[str, Any]]], read: int) -> Notes:
    """What all writers said as of the version `read`, from the commits up to it, newest first, as few as it takes."""
    writers: dict[str, Said] = {}
    covered: int | None = None
    for version, commit in commits:
        if covered is not None and version <= covered:
            break
        notes = read_notes(commit)
        if notes is not None:
            covered = notes.read if covered is None else covered
            for writer, said in notes.writers.items():
                if writer not in writers or writers[writer].position < said.position:
                    writers[writer] = said
    return Notes(read, writers)


def properties_of(notes: Notes, *reached: tuple[str, int], retries: int | None = None) -> CommitProperties:
    """What a commit carries: the notes, and the positions that writers reach with it."""
    return CommitProperties(
        custom_metadata={KEY: msgspec.json.encode(notes).decode()},
        max_commit_retries=retries,
        app_transactions=[Transaction(writer, position) for writer, position in reached] or None,
    )


class Superseded(Failed):
    """Another commit came first, and this one cannot stand beside it."""


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Errors of the engine as ours. Raises Misuse for a table that is not there, Superseded and Failed."""
    try:
        yield
    except TableNotFoundError:
        raise Misuse(f"{what}: expected a table, found none") from None
    except CommitFailedError as error:
        raise Superseded(f"{what}: {first_line(error)}") from None
    except (DeltaError, OSError) as error:
        raise Failed(f"{what}: {first_line(error)}") from None


def first_line(error: Exception) -> str:
    """What an error of the engine says, without the trace of its own calls behind it."""
    lines = str(error).strip().splitlines()
    return lines[0][:500] if lines else type(error).__name__
