"""A folder of a bucket as a place of files, through obstore.

An object is whole when it can be seen, and is read on the condition that it is still the one that was listed (its ETag,
RFC 9110, section 13.1.1). Where names are in order, the list begins behind the last that was taken; it still runs
through folders below, which are left alone. Else the whole folder is listed each time.
"""

from __future__ import annotations

from datetime import timedelta
from typing import IO, TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, PreconditionError, UnauthenticatedError
from obstore.store import S3Store

from mainstay.errors import Misuse
from mainstay.intake.fetching import Unavailable
from mainstay.intake.files_folder import Changed
from mainstay.intake.files_known import Found
from mainstay.lake.location import VARIABLES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from obstore import ObjectMeta

    from mainstay.intake.files_whole import Readable

_CHUNK_BYTES: Final = 1 << 20
_TIMES: Final = {
    "connect_timeout": timedelta(seconds=10),
    "read_timeout": timedelta(seconds=60),  # between two parts of an answer
    "timeout": timedelta(days=1),  # of all of them: an object may be large
}
_RETRIES: Final[Any] = {"max_retries": 3, "retry_timeout": timedelta(seconds=30)}


def open_bucket(place: str, environment: Mapping[str, str]) -> Bucket:
    """The folder `s3://BUCKET/FOLDER`; the `AWS_*` variables say how it is reached. Raises Misuse."""
    parts = urlsplit(place)
    folder = place.partition("//")[2].partition("/")[2].strip("/")
    if parts.scheme != "s3" or not parts.hostname or parts.netloc != parts.hostname:
        raise Misuse(f"folder {place!r}: expected s3://BUCKET/FOLDER; keys stand in the environment")
    options = {name.lower(): environment[name] for name in VARIABLES if environment.get(name)}
    plain = options.pop("aws_allow_http", "").lower() in {"1", "true"}
    plain = plain or options.get("aws_endpoint_url", "").startswith("http://")
    config: Any = options
    client: Any = {**_TIMES, "allow_http": plain}
    try:
        store = S3Store(parts.hostname, config=config, client_options=client, retry_config=_RETRIES)
    except BaseError:  # it repeats what it was given
        raise Misuse(f"folder {place!r}: expected AWS_* variables by which it is reached") from None
    return Bucket(store, folder, place)


class Bucket:
    """The objects of one folder of a bucket."""

    whole_at_once = True

    def __init__(self, store: S3Store, folder: str, shown: str) -> None:
        """`shown` is how the folder is declared."""
        self._store = store
        self._folder = f"{folder}/" if folder else ""
        self.shown = shown

    def files(self, after: str | None, wanted: Callable[[str], bool]) -> list[Found]:
        """The objects whose names are wanted, those with greater ones than `after`. Raises Unavailable."""
        try:
            return [
                _as_found(name, meta)
                for meta in self._listed(after)
                if (name := meta["path"].removeprefix(self._folder))
                and "/" not in name
                and not name.startswith(".")
                and wanted(name)
            ]
        except (BaseError, OSError) as error:
            raise self._unavailable(error) from None

    def _listed(self, after: str | None) -> Iterable[ObjectMeta]:
        folder = self._folder.rstrip("/") or None
        if after is None:
            return obstore.list_with_delimiter(self._store, folder)["objects"]
        chunks = obstore.list(self._store, folder, offset=self._folder + after)
        return (meta for chunk in chunks for meta in chunk)

    def copy(self, found: Found, target: IO[bytes], read: Callable[[Readable, IO[bytes]], None] | None) -> None:
        """Copy an object, or what `read` makes of it. Raises Refused, Changed, Unavailable, and OSError of our disk."""
        path = self._folder + found.name
        try:
            answer = obstore.get(self._store, path, options={"if_match": found.touched or None})
        except (PreconditionError, FileNotFoundError):
            raise Changed from None
        except (BaseError, OSError) as error:
            raise self._unavailable(error) from None
        content = _Stream(self._parts(answer))
        if read is None:
            while block := content.read(_CHUNK_BYTES):
                target.write(block)
            if content.count != found.size:
                raise Changed
        else:
            read(content, target)

    def _parts(self, answer: obstore.GetResult) -> Iterator[bytes]:
        stream = iter(answer.stream(min_chunk_size=_CHUNK_BYTES))
        while True:
            try:
                part = next(stream, None)
            except (BaseError, OSError) as error:
                raise self._unavailable(error) from None
            if part is None:
                return
            yield bytes(part)

    def _unavailable(self, error: Exception) -> Unavailable:
        """What went wrong, without what the store says: addresses, and answers of any length."""
        if isinstance(error, PermissionDeniedError | UnauthenticatedError | PermissionError):
            return Unavailable("not_authorized", f"{self.shown}: the store does not accept the credentials")
        return Unavailable("source_down", f"{self.shown}: the store does not answer, or has no such bucket")


class _Stream:
    """Parts of an object as a file to read from."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self.count = 0  # bytes that were read
        self._parts = parts
        self._rest = b""

    def read(self, size: int, /) -> bytes:
        if not self._rest:
            self._rest = next(self._parts, b"")
        block, self._rest = self._rest[:size], self._rest[size:]
        self.count += len(block)
        return block


def _as_found(name: str, meta: ObjectMeta) -> Found:
    modified = meta["last_modified"].timestamp()
    tag = meta["e_tag"] or ""
    return Found(name, f"{meta['size']} {tag or modified}", tag, meta["size"], modified)
