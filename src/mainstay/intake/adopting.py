"""Pushed events as a source: what workers took is made into items, each acknowledged event into exactly one.

Segments are read while they are written, group by group, and an item takes what is new in all of them. Its cursor says
how far each segment is in items. It is the only truth: a segment is deleted when a cursor that stands behind an item
says that all of it is taken, and its writer is gone; the cursor forgets a segment only after its file is gone for good.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Struct

from mainstay.errors import Failed
from mainstay.files import sync_directory, write_atomic
from mainstay.intake.call_keys import CallKeys
from mainstay.intake.fetching import Unavailable
from mainstay.intake.landing import Noticed
from mainstay.intake.pushing import ADOPTED_FILE, PUSHED
from mainstay.ledger.wal import HEADER_BYTES, UNBORN_SUFFIX, End, SegmentReader, ask_to_leave, is_live, segments

if TYPE_CHECKING:
    from pathlib import Path
    from typing import IO

    from mainstay.capability.sources import Source
    from mainstay.intake.landing import Item, Landing
    from mainstay.workspace import Workspace

logger = logging.getLogger("mainstay.intake")

ITEM_BYTES: Final = 64 << 20  # an item is full when it has as many
UNBORN_SECONDS: Final = 3_600.0  # a segment that is not locked after that never will be
KEYS_FILE: Final = "pushed.keys"  # beside the folder of segments
ASIDE_SUFFIX: Final = ".damaged"

_LOOK_SECONDS: Final = 0.05
_BROKEN: Final = frozenset({End.BROKEN, End.DAMAGED})


class Adopted(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The cursor behind an item of pushed events."""

    adoption: int = 0  # how many items came before and with this one
    segments: dict[str, int] = {}  # by name: the offset up to which it is in items


class _Lot:
    """What goes into one item."""

    def __init__(self, file: IO[bytes], known: CallKeys) -> None:
        self._file = file
        self._known = known
        self.bytes = 0
        self.keys: dict[bytes, None] = {}  # of its calls

    def add(self, key: bytes, lines: bytes) -> None:
        """A call's events, unless they came before under the same key."""
        if key:
            if key in self._known or key in self.keys:
                return
            self.keys[key] = None
        self._file.write(lines)
        self.bytes += len(lines)


class PushFetcher:
    """Makes items of what workers took."""

    def __init__(self, origin: str, landing: Landing) -> None:
        self._origin = origin
        self._landing = landing
        self._home = landing.folder.parent
        self._folder = self._home / PUSHED
        self._keys = CallKeys(self._home / KEYS_FILE)
        self._adopted: Adopted | None = None
        self._read_on: dict[str, int] = {}  # beyond the cursor: calls that came again, and are in no item

    def step(self, cursor: Any) -> Item | None:
        """Land what is new in all segments, up to an item's size; None when nothing is.

        Raises Unavailable (`push_damaged`) once for a segment that does not hold, where no item can say so.
        """
        adopted = _read_cursor(cursor)
        if adopted != self._adopted:
            self._sweep()
            self._keys.load(adopted.adoption)
            self._adopted, self._read_on = adopted, {}
        with self._landing.begin("jsonl") as draft:
            lot = _Lot(draft.file, self._keys)
            reached, noticed = self._gather(adopted, lot)
            if not lot.bytes:
                if noticed:
                    raise Unavailable(noticed[0].code, noticed[0].detail)
                return None
            behind = Adopted(adoption=adopted.adoption + 1, segments=reached)
            if lot.keys:
                self._keys.append(behind.adoption, lot.keys)
            item = draft.land(origin=self._origin, cursor=msgspec.to_builtins(behind), noticed=noticed)
        self._keys.settle()
        self._adopted, self._read_on = behind, {}
        write_atomic(self._home / ADOPTED_FILE, msgspec.json.encode(reached))
        return item

    def _gather(self, adopted: Adopted, lot: _Lot) -> tuple[dict[str, int], tuple[Noticed, ...]]:
        """Fill a lot; how far each segment is then in items. Removes segments that were so to their end before."""
        reached: dict[str, int] = {}
        removed, noticed = False, []
        for path in segments(self._folder):
            before = adopted.segments.get(path.stem, 0)
            if lot.bytes >= ITEM_BYTES:
                reached[path.stem] = before
                continue
            live = is_live(path)
            reader = SegmentReader(path, max(before, self._read_on.get(path.stem, 0)))
            held = lot.bytes
            for group in reader.groups():
                for entry in group.entries:
                    lot.add(entry.leaf, entry.body)
                if lot.bytes >= ITEM_BYTES:
                    break
            if lot.bytes > held:
                reached[path.stem] = reader.offset
            elif live:
                reached[path.stem] = before
                self._read_on[path.stem] = reader.offset
            else:
                noticed += _remove(path, reader.end)
                removed = True
        if removed:
            sync_directory(self._folder)  # before a cursor that does not know them is put anywhere
        return reached, tuple(noticed[:1])

    def _sweep(self) -> None:
        """Remove what writers that were killed left before anything was promised in it."""
        oldest = time.time() - UNBORN_SECONDS
        for path in self._folder.glob(f"*{UNBORN_SUFFIX}"):
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < oldest:
                    path.unlink()


def adopt_all(capability: str, source: str, landing: Landing, cursor: Any, *, wait_seconds: float) -> None:
    """Have every event that was taken until now in items, and its segments gone. The caller has the source's lock.

    `cursor` is that of the newest item. Of a source that is pushed no more, whose cursor is another one, nothing is
    done. Raises Failed when a worker does not leave its segment in that time.
    """
    home = landing.folder.parent
    old = [path for path in segments(home / PUSHED) if path.stat().st_size > HEADER_BYTES]
    if not old or not (cursor is None or _is_cursor(cursor)):
        return
    ask_to_leave(home)
    until = time.monotonic() + wait_seconds
    while any(map(is_live, old)):
        if time.monotonic() > until:
            raise Failed(
                f"{capability}/{source}: a worker has not left its segment of pushed events in {wait_seconds:g} s",
                hint="Do it again when the worker goes on, or has ended.",
            )
        time.sleep(_LOOK_SECONDS)
    fetcher = PushFetcher(_origin(capability, source), landing)
    while any(path.exists() for path in old):
        with suppress(Unavailable):  # of a segment that does not hold: it was kept aside, and it is told of there
            item = fetcher.step(cursor)
            cursor = cursor if item is None else item.cursor


def open_fetcher(_workspace: Workspace, capability_name: str, source: Source, landing: Landing) -> PushFetcher:
    """The fetcher of a source of kind `push`."""
    return PushFetcher(_origin(capability_name, source.name), landing)


def _origin(capability: str, source: str) -> str:
    return f"POST /v1/capabilities/{capability}/sources/{source}/events"


def _remove(path: Path, end: End) -> list[Noticed]:
    """Take away a segment that nobody writes and nothing more can be read of; one that does not hold is kept aside."""
    if end not in _BROKEN:
        path.unlink()
        return []
    kept = path.with_suffix(ASIDE_SUFFIX)
    path.rename(kept)
    logger.error("a segment of pushed events does not hold: kept as %s", kept)
    return [Noticed("push_damaged", f"{kept.name} does not hold behind what is in items; it is kept to be looked at")]


def _read_cursor(cursor: Any) -> Adopted:
    """How far segments are in items; not at all when the source was of another kind before."""
    return msgspec.convert(cursor, Adopted) if _is_cursor(cursor) else Adopted()


def _is_cursor(cursor: Any) -> bool:
    try:
        msgspec.convert(cursor, Adopted)
    except msgspec.ValidationError:
        return False
    return True
