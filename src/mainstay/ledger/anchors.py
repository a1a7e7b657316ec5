"""Anchors: places outside the ledger that keep its checkpoints, and are read back to show that nothing was rewritten.

    file:///mnt/worm/ledger            a directory: <size>, under the index path of tlog-tiles (70,000 is x070/000)
    git+ssh://git@example.com/c.git    a git repository: a commit and a file for each, on the branch `checkpoints`
    https://notary.example.com/c       PUT and GET <url>/<size>; GET <url> for the newest, where that is served

A checkpoint that was stored is never replaced. What is read back is not trusted: see `anchored.py`.
"""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote, urlsplit

from mainstay.errors import Damaged, Failed, Misuse
from mainstay.files import sync_directory, write_all
from mainstay.ledger.anchored import KeptNote, Source
from mainstay.ledger.note import MAX_NOTE_BYTES, parse_checkpoint, split_note
from mainstay.ledger.outbound import Outbound, Unanswered, check_url
from mainstay.ledger.reading import read_regular
from mainstay.ledger.tiles import format_index, make_directories

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from mainstay.ledger.note import Checkpoint
    from mainstay.ledger.outbound import Response

FILE_SECONDS = 20.0  # to store a checkpoint in a directory, which may be on a network
MAX_READ_OVER_HTTP = 1_000  # checkpoints
NOTE_TYPE = "text/plain; charset=utf-8"

_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


class Anchor(Source, Protocol):
    """Where checkpoints are stored, too."""

    async def store(self, checkpoint: Checkpoint, note: bytes) -> bool:
        """Keep a checkpoint, durably; whether it was not there before.

        Raises Unanswered when trying again may help; Failed when it refuses, or keeps another of that size.
        """


def same_checkpoint(kept: bytes, checkpoint: Checkpoint, place: str) -> None:
    """Raises Failed when a note that stands where a checkpoint should be stored is not of that checkpoint."""
    try:
        found = parse_checkpoint(split_note(kept)[0])
    except Damaged as error:
        raise Failed(f"{place} is there already and is no checkpoint: {error.message}") from None
    if found != checkpoint:
        raise Failed(
            f"{place} keeps ANOTHER CHECKPOINT of that size: expected the head {checkpoint.root.hex()} of"
            f" {checkpoint.origin}, found {found.root.hex()} of {found.origin[:200]}",
            hint="Either this log was rewritten, or two logs share one anchor. `mainstay ledger verify` tells which.",
        )


class FileAnchor:
    """A directory of checkpoints by size."""

    outside = True

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self._path = path
        self._last: Future[bool] | None = None

    async def store(self, checkpoint: Checkpoint, note: bytes) -> bool:
        if self._last is not None and not self._last.done():
            raise Unanswered("the disk has not answered since the last attempt")
        done: Future[bool] = Future()
        done.set_running_or_notify_cancel()  # whoever waits may give up; this cannot be cancelled
        self._last = done

        def run() -> None:
            try:
                done.set_result(self._store(checkpoint, note))
            except BaseException as error:  # noqa: BLE001 - it is raised where the result is waited for
                done.set_exception(error)

        # A thread that is left alone when the disk does not answer, and ends with the process.
        threading.Thread(target=run, name="anchor-file", daemon=True).start()
        try:
            async with asyncio.timeout(FILE_SECONDS):
                return await asyncio.wrap_future(done)
        except TimeoutError:
            raise Unanswered(f"the disk did not answer within {FILE_SECONDS:g} s") from None
        except OSError as error:
            raise Unanswered(f"{error.filename or self._path}: {error.strerror or error}") from None

    def _store(self, checkpoint: Checkpoint, note: bytes) -> bool:
        if not self._path.is_dir():  # not made: where nothing is mounted, it would be on the ledger's own disk
            raise Unanswered(f"expected a directory at {self._path}, found none: is it mounted?")
        final = self._path / format_index(checkpoint.size)
        if os.path.lexists(final):
            same_checkpoint(read_regular(final, MAX_NOTE_BYTES), checkpoint, str(final))
            return False
        make_directories(final.parent)
        temporary = final.with_name(f".{final.name}.{os.getpid()}.tmp")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o444)
        try:
            write_all(descriptor, note)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        _put(temporary, final)
        sync_directory(final.parent)
        return True

    async def notes(self) -> AsyncIterator[KeptNote]:
        if not self._path.is_dir():
            raise Failed(f"expected a directory at {self._path}, found none")
        for path in _files(self._path):
            yield read_note(path)


def _put(temporary: Path, final: Path) -> None:
    """Give a file its name, unless one has it already."""
    try:
        os.link(temporary, final)
    except OSError as error:
        if error.errno not in _NO_LINKS or os.path.lexists(final):
            temporary.unlink()
            raise
        temporary.rename(final)  # this file system knows no links; nobody but us writes this name
    else:
        temporary.unlink()


def _files(directory: Path) -> Iterator[Path]:
    """Every file below a directory but hidden ones, a folder at a time, in the order of their names."""
    pending = [directory]
    while pending:
        folder = pending.pop()
        found = sorted(os.scandir(folder), key=lambda each: each.name, reverse=True)
        pending += [Path(each.path) for each in found if each.is_dir(follow_symlinks=False)]
        yield from (
            Path(each.path)
            for each in reversed(found)
            if not each.is_dir(follow_symlinks=False) and not each.name.startswith(".")
        )


def read_note(path: Path) -> KeptNote:
    """A checkpoint in a file. Raises Failed when it cannot be read or is too large."""
    try:
        return KeptNote(
            str(path), read_regular(path, MAX_NOTE_BYTES), datetime.fromtimestamp(path.stat().st_mtime, UTC)
        )
    except OSError as error:
        raise Failed(f"{path}: expected a readable file, found: {error.strerror or error}") from None


class FileSource:
    """One checkpoint in a file."""

    def __init__(self, path: Path, *, outside: bool = True) -> None:
        self.name = str(path)
        self.outside = outside
        self._path = path

    async def notes(self) -> AsyncIterator[KeptNote]:
        yield read_note(self._path)


class HttpAnchor:
    """An HTTP service that takes each checkpoint once, at <url>/<size>.

    It answers PUT with 200, 201 or 204, or with 409 or 412 when it has one of that size; one that takes no PUT (405 or
    501) is given it with POST to <url>. GET <url>/<size> gives it back. GET <url> should give the newest one.
    """

    outside = True

    def __init__(self, name: str, sizes: Path) -> None:
        """`sizes` is a file of our own that lists what it has been given. Raises Misuse when it is no URL."""
        self.name = name
        self._sizes = sizes
        check_url(name)

    async def store(self, checkpoint: Checkpoint, note: bytes) -> bool:
        async with Outbound(self.name) as http:
            stored = await self._put(http, checkpoint, note)
            back = await http.ask("GET", f"/{checkpoint.size}")
            if back.status != 200:
                raise Failed(f"took the checkpoint and gives none back: answered {back.status}: {back.said}")
            same_checkpoint(back.body, checkpoint, f"{self.name}/{checkpoint.size}")
        self._remember(checkpoint.size)
        return stored

    async def _put(self, http: Outbound, checkpoint: Checkpoint, note: bytes) -> bool:
        headers = {"content-type": NOTE_TYPE, "if-none-match": "*"}
        response = await http.ask("PUT", f"/{checkpoint.size}", note, headers)
        if response.status in {405, 501}:
            response = await http.ask("POST", "", note, headers)
        if response.status in {409, 412}:
            return False
        if not 200 <= response.status < 300:
            raise Failed(f"answered {response.status}: {response.said}")
        return True

    def _remember(self, size: int) -> None:
        content = self._content()
        if size in _sizes(content):
            return
        self._sizes.parent.mkdir(parents=True, exist_ok=True)
        whole = content.rfind(b"\n") + 1  # a killed process may have left half a line
        descriptor = os.open(self._sizes, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            os.ftruncate(descriptor, whole)
            os.lseek(descriptor, whole, os.SEEK_SET)
            write_all(descriptor, b"%d\n" % size)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _content(self) -> bytes:
        try:
            return self._sizes.read_bytes()
        except FileNotFoundError:
            return b""

    async def notes(self) -> AsyncIterator[KeptNote]:
        async with Outbound(self.name) as http:
            newest = await http.ask("GET")
            if newest.status == 200:
                yield KeptNote(self.name, newest.body, newest.last_modified)
            for size in _spread(_sizes(self._content())):
                response = await http.ask("GET", f"/{size}")
                place = f"{self.name}/{size}"
                if response.status == 200:
                    yield KeptNote(place, response.body, response.last_modified)
                else:
                    raise Failed(f"{place} was stored and is not given back: answered {response.status}")


def _sizes(content: bytes) -> list[int]:
    """The sizes in whole lines, the largest first."""
    lines = content[: content.rfind(b"\n") + 1].splitlines()
    return sorted({int(line) for line in lines if line.isdigit() and len(line) < 20}, reverse=True)


def _spread(sizes: list[int]) -> list[int]:
    """At most MAX_READ_OVER_HTTP of them, the first one among them, evenly spread."""
    step = -(-len(sizes) // MAX_READ_OVER_HTTP) or 1
    return sizes[::step]


class UrlSource:
    """One checkpoint at a URL."""

    outside = True

    def __init__(self, url: str) -> None:
        """Raises Misuse when it is no URL."""
        self.name = url
        check_url(url)

    async def notes(self) -> AsyncIterator[KeptNote]:
        async with Outbound(self.name) as http:
            yield _kept(self.name, await http.ask("GET"))


def _kept(place: str, response: Response) -> KeptNote:
    if response.status != 200:
        raise Failed(f"expected a checkpoint, was answered {response.status}: {response.said}")
    return KeptNote(place, response.body, response.last_modified)


def file_path(url: str) -> Path:
    """The path of a file URL. Raises Misuse when it is none of this machine, or relative."""
    parts = urlsplit(url)
    path = Path(unquote(parts.path))
    if parts.netloc not in {"", "localhost"} or not path.is_absolute() or parts.query or parts.fragment:
        raise Misuse(f"expected a URL such as file:///mnt/worm/ledger, found {url[:200]!r}")
    return path
