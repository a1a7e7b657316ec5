"""Events that others send: taken by workers, answered for once they are on disk.

A worker appends to segments of its own, one folder for each source, in the form of the write-ahead log: what one
`fdatasync` made durable is whole or void, and whoever waits is told only then. Each call is one entry. Its body is the
events, a line each; its leaf tells the call from others when it carried an `Idempotency-Key`, and is empty otherwise;
its salt is zeros. `adopting` reads segments while they are written, and makes items of them.

Nothing of the tables is loaded: this is a part of the data plane.
"""

from __future__ import annotations

import os
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
from msgspec import Struct

from mainstay.arrays import MAX_ITEMS, TooMany, one_line, split_array, split_lines
from mainstay.errors import NOT_READ, Failed
from mainstay.intake.landing import landing_of
from mainstay.ledger.entry import SALT_BYTES
from mainstay.ledger.journal import Journal
from mainstay.ledger.wal import SUFFIX, frame_entry

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future
    from pathlib import Path

MAX_EVENTS: Final = MAX_ITEMS  # of one call
MAX_CALL_BYTES: Final = 64 << 20
MAX_KEY_CHARACTERS: Final = 255
LOOK_SECONDS: Final = 1.0  # how often a worker looks how much waits; in between it counts only what it takes itself
SEGMENT_BYTES: Final = 16 << 20  # a longer segment is closed, and deleted once it is in items

PUSHED: Final = "pushed"  # the folder of segments, beside the landing
ADOPTED_FILE: Final = "pushed.json"  # beside it: how far each segment is in items, for whoever counts what waits

_SALT: Final = bytes(SALT_BYTES)
_DIGEST_BYTES: Final = 16
_BLANKS: Final = b" \t\r\n"


class _Anything(Struct):
    """An object, whatever it holds."""


_check_object = msgspec.json.Decoder(_Anything).decode
_decode_adopted = msgspec.json.Decoder(dict[str, int]).decode


class BrokenEvents(Exception):
    """A call is not of the documented form; none of its events is taken."""


class Full(Failed):
    """Too much waits for the table; nothing more is taken now."""


class Events(NamedTuple):
    """The events of one call."""

    number: int
    lines: bytes  # each event's own bytes, and a line feed


def read_events(body: bytes, *, lines: bool) -> Events:
    """The events of a body: an object a line, or an array of objects, or one object. Raises BrokenEvents."""
    try:
        body.decode()
        items: list[Any] = split_lines(body, MAX_EVENTS) if lines else _items(body)
    except TooMany:
        raise BrokenEvents(f"expected at most {MAX_EVENTS} events in a call, found more") from None
    except NOT_READ as error:
        raise BrokenEvents(f"expected events as JSON: {error}") from None
    events = []
    for place, item in enumerate(items, 1):
        try:
            _check_object(item)
        except NOT_READ as error:
            raise BrokenEvents(f"event {place}: expected a JSON object: {error}") from None
        events.append(one_line(bytes(item).strip(_BLANKS)))
    return Events(len(events), b"".join(event + b"\n" for event in events))


def _items(body: bytes) -> list[Any]:
    return list(split_array(body, MAX_EVENTS)) if body[:64].lstrip(_BLANKS).startswith(b"[") else [body]


def call_digest(principal: bytes, key: str | None, events: Events) -> bytes:
    """What tells one call from another: who sends it, its key and all its events; nothing for a call without a key."""
    if key is None:
        return b""
    found = blake2b(digest_size=_DIGEST_BYTES)
    for part in (principal, key.encode(), events.lines):
        found.update(len(part).to_bytes(8, "big") + part)
    return found.digest()


class Inbox:
    """What one worker takes in for one source. Its methods belong to the event loop's thread."""

    def __init__(self, loop: AbstractEventLoop, data: Path, capability: str, source: str) -> None:
        """Open the first segment, in a workspace's data directory. Raises OSError when the disk will not take it."""
        self._loop = loop
        self._landing = landing_of(data, capability, source).folder
        self._folder = self._landing.parent / PUSHED
        self._journal = Journal(self._folder, loop.call_soon_threadsafe, segment_bytes=SEGMENT_BYTES)
        self.pending: set[Future[OSError | None]] = set()  # one for each call that is not on disk yet
        self._waiting_bytes = 0
        self._looked_at = float("-inf")

    async def check_room(self, most_bytes: int, wanted_bytes: int = 0) -> None:
        """Raise Full when more than `most_bytes` would wait, of all workers, with these."""
        if self._loop.time() - self._looked_at > LOOK_SECONDS:
            self._looked_at = self._loop.time()
            self._waiting_bytes = await self._loop.run_in_executor(None, waiting_bytes, self._landing)
        if self._waiting_bytes + wanted_bytes > most_bytes:
            raise Full(f"{self._waiting_bytes} bytes of events wait for the table: expected at most {most_bytes}")

    async def take(self, events: Events, digest: bytes) -> None:
        """Keep the events of a call; they are on disk when this returns.

        Raises Unrecordable while the disk takes nothing, and OSError when it did not take these.
        """
        place = self._journal.next_place()
        kept: Future[OSError | None] = self._loop.create_future()
        framed = frame_entry(digest, _SALT, events.lines)
        self._journal.submit(place, framed, 1, lambda error: None if kept.cancelled() else kept.set_result(error))
        self._waiting_bytes += len(framed)
        self.pending.add(kept)
        kept.add_done_callback(self.pending.discard)
        error = await kept
        if error is not None:
            raise error

    def close(self) -> None:
        """Write what was taken, and stop in good order."""
        self._journal.close()


def waiting_bytes(landing: Path) -> int:
    """How much of a source waits for its table: segments, as far as they are in no item, and the items that landed."""
    try:
        adopted = _decode_adopted((landing.parent / ADOPTED_FILE).read_bytes())
    except (OSError, *NOT_READ):  # never written, or lost: then more seems to wait than does
        adopted = {}
    segments = _sizes(landing.parent / PUSHED, SUFFIX)
    waiting = sum(max(0, size - adopted.get(name.removesuffix(SUFFIX), 0)) for name, size in segments.items())
    return waiting + sum(_sizes(landing, ".jsonl").values())


def _sizes(folder: Path, suffix: str) -> dict[str, int]:
    found = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(suffix) and not entry.name.startswith("."):  # those are not finished
                    found[entry.name] = _size(entry)
    except FileNotFoundError:
        pass
    return found


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_size
    except FileNotFoundError:  # dropped since it was listed
        return 0
