"""Files of a folder or a bucket, each taken once.

1. The names that fit `pattern` are listed, and what was taken is left out: `files_known` says how it is known.
2. A file of a folder is left for later until it has not changed for `settle_seconds`. A time that lies in the future
   says nothing: then it is looked at twice. Objects of a bucket are whole when they are seen.
3. It is copied into the landing: what is taken cannot change any more. A file that changes while it is copied is left.
4. The end of the copy is looked at. A file that is not whole, or cannot be taken, is told of once, and tried again when
   it has changed.

The oldest comes first. A file that was taken and changed afterwards is told of; it is taken again, whole, where the
source has a key, by which the door knows its records, and is left where it has none. With `in_order` names are taken as
they are ordered, and one that cannot be taken holds up those behind it.
"""

from __future__ import annotations

import os
import time
from collections import deque
from fnmatch import fnmatchcase
from functools import partial
from importlib import import_module
from typing import IO, TYPE_CHECKING, Any, Final, Protocol

import msgspec

from mainstay.errors import NOT_READ, Misuse
from mainstay.files import write_atomic
from mainstay.intake.fetching import Unavailable
from mainstay.intake.files_folder import Changed, Folder
from mainstay.intake.files_known import MAX_KNOWN, decode_known
from mainstay.intake.files_whole import GZIP, Refused, check_whole, kind_of, unpack
from mainstay.intake.landing import Noticed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mainstay.capability.sources import Files, Source
    from mainstay.intake.files_known import Found, Known
    from mainstay.intake.files_whole import Readable
    from mainstay.intake.landing import Item, Landing
    from mainstay.workspace import Workspace

SETTLING_FILE: Final = "settling.json"

_MAX_NOTICED: Final = 20  # in one item
_REMOTE: Final = {"s3": "buckets"}  # modules of this package, by scheme


class Place(Protocol):
    """Where files are."""

    shown: str
    whole_at_once: bool
    """Whether a file is never seen before it is whole."""

    def files(self, after: str | None, wanted: Callable[[str], bool]) -> list[Found]:
        """The files whose names are wanted, those with greater ones than `after`. Raises Unavailable."""
        ...

    def copy(self, found: Found, target: IO[bytes], read: Callable[[Readable, IO[bytes]], None] | None) -> None:
        """Copy a file, or what `read` makes of it. Raises Refused, Changed, Unavailable, and OSError of our disk."""
        ...


def open_fetcher(workspace: Workspace, capability_name: str, source: Source, landing: Landing) -> FilesFetcher:
    """See `fetching.open_fetcher`."""
    return FilesFetcher(workspace, capability_name, source, landing)


class FilesFetcher:
    """One folder that is looked at."""

    def __init__(self, workspace: Workspace, capability_name: str, source: Source, landing: Landing) -> None:
        """Raises Misuse when the declaration cannot be followed."""
        if source.files is None:
            raise Misuse(f"source {source.name} of {capability_name}: expected one of kind files")
        self._files: Files = source.files
        self._has_key = bool(source.key)
        self._landing = landing
        self._place = _open_place(workspace, self._files.folder)
        self._settling = _Settling(landing.folder.parent / SETTLING_FILE, self._files.settle_seconds)
        self._queue: deque[Found] = deque()

    def step(self, cursor: Any) -> Item | None:
        """See `fetching.Fetcher`."""
        known = decode_known(cursor)
        noticed: list[Noticed] = []
        listed = False
        while len(noticed) < _MAX_NOTICED:
            if not self._queue:
                if listed:
                    break
                self._queue.extend(self._list(known))
                listed = True
                continue
            item = self._look(self._queue[0], known, noticed)
            if self._queue:
                self._queue.popleft()  # not before: what raised is looked at again, and none is taken before it
            if item is not None:
                return item
        if not noticed:
            return None
        with self._landing.begin("jsonl") as draft:
            return draft.land(origin=self._place.shown, cursor=known.cursor(), noticed=tuple(noticed))

    def _list(self, known: Known) -> list[Found]:
        """The files there are, in the order of taking."""
        files = self._files
        found = self._place.files(known.last if files.in_order else None, partial(fnmatchcase, pat=files.pattern))
        if files.in_order:
            return sorted(found, key=lambda each: os.fsencode(each.name))
        if not known.forget_absent(each.name for each in found):
            detail = f"more than {MAX_KNOWN} files that were taken are in {self._place.shown}"
            raise Unavailable("folder_full", f"{detail}: move them away, or declare `in_order`")
        return sorted(found, key=lambda each: (each.modified, os.fsencode(each.name)))

    def _look(self, found: Found, known: Known, noticed: list[Noticed]) -> Item | None:
        """Land a file that is to be taken now; remember and tell of one that is not to be."""
        verdict = known.verdict(found)
        if verdict in {"taken", "refused"}:
            return None
        if not (self._place.whole_at_once or self._settling.is_over(found)):
            self._wait()
            return None
        if verdict == "changed":
            noticed.append(Noticed("file_changed", f"{shown(found.name)}: it was taken, and has changed since"))
            if not self._has_key:
                known.add(found)
                return None
        try:
            return self._take(found, known, tuple(noticed))
        except Changed:
            self._wait()
        except Refused as refused:
            if self._files.in_order:
                raise Unavailable(refused.code, f"{shown(found.name)}: {refused.detail}") from None
            known.add(found, refused=True)
            noticed.append(Noticed(refused.code, f"{shown(found.name)}: {refused.detail}"))
        return None

    def _wait(self) -> None:
        """Leave a file for later, and in order those behind it."""
        if self._files.in_order:
            self._queue.clear()

    def _take(self, found: Found, known: Known, noticed: tuple[Noticed, ...]) -> Item:
        files = self._files
        kind = kind_of(found.name, files.format)
        if found.size > files.max_file_bytes:
            raise Refused("too_large", f"it has {found.size} bytes, more than `max_file_bytes`={files.max_file_bytes}")
        if files.in_order and not _is_text(found.name):
            raise Refused("file_rejected", "its name is no UTF-8")
        packed = found.name.lower().endswith(GZIP)
        read = partial(unpack, max_bytes=files.max_file_bytes) if packed else None
        with self._landing.begin(kind) as draft:
            self._place.copy(found, draft.file, read)
            draft.file.flush()
            check_whole(draft.path, kind, files.delimiter)
            if files.in_order:
                known.end_at(found)
            else:
                known.add(found)
            origin = f"{self._place.shown.rstrip('/')}/{shown(found.name)}"
            delimiter = files.delimiter if kind == "csv" else None
            return draft.land(origin=origin, cursor=known.cursor(), delimiter=delimiter, noticed=noticed)


class _Settling:
    """Since when files are as they are. It may be lost: then they are waited for again."""

    def __init__(self, path: Path, seconds: float) -> None:
        self._path = path
        self._seconds = seconds

    def is_over(self, found: Found) -> bool:
        """Whether a file has not changed for long enough, by its time; by ours, where that lies in the future."""
        now = time.time()
        if found.modified <= now:
            return now - found.modified >= self._seconds
        if not self._seconds:
            return True
        seen = self._read()
        state, since = seen.get(shown(found.name), ("", 0.0))
        if state == found.state and since <= now:
            return now - since >= self._seconds
        kept = {name: each for name, each in seen.items() if now - each[1] < 2 * self._seconds + 3600}
        write_atomic(self._path, msgspec.json.encode({**kept, shown(found.name): (found.state, now)}))
        return False

    def _read(self) -> dict[str, tuple[str, float]]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, tuple[str, float]])
        except (FileNotFoundError, *NOT_READ):
            return {}


def shown(name: str) -> str:
    """The name of a file for people: what cannot be printed is escaped."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _open_place(workspace: Workspace, folder: str) -> Place:
    scheme, is_url, _ = folder.partition("://")
    if not is_url:
        return Folder(workspace.root / folder, folder)
    if scheme not in _REMOTE:
        raise Misuse(f"folder {folder!r}: expected a path, or s3://BUCKET/FOLDER")
    try:  # late: a workspace with folders alone goes without what buckets need
        buckets = import_module(f"{__package__}.{_REMOTE[scheme]}")
    except ModuleNotFoundError as error:
        message = f"folder {folder!r}: a bucket needs {error.name}, which is not installed"
        raise Misuse(message, hint="Install it with `pip install 'mainstay[connectors]'`.") from None
    place: Place = buckets.open_bucket(folder, os.environ)
    return place
