r"""Where what a source gave waits, in files, until it is in the tables.

    with landing.begin("jsonl") as draft:
        draft.file.write(b'{"id": 1}\n')
        item = draft.land(origin="GET https://api.example.com/orders?page=2", cursor={"page": 3})

An item is a data file and a manifest, which is written last: what has none was never finished, and is swept away. The
cursor in its manifest says where its source goes on behind it. Items are numbered without gaps in the order in which
they landed; the tables know the number they have reached, so an item is in them exactly once and is dropped afterwards.
Whoever holds a source keeps its items here. Nothing of the tables is loaded: workers that take events land them too.
"""

from __future__ import annotations

import os
import re
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, TYPE_CHECKING, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Struct

from mainstay.errors import NOT_READ, Damaged, Misuse
from mainstay.files import sync_directory, write_atomic
from mainstay.locks import locked

if TYPE_CHECKING:
    from collections.abc import Iterator

Kind: TypeAlias = Literal["csv", "jsonl", "parquet"]

LOCK_SECONDS: Final = 30.0

_COUNTER: Final = "next"
_LOCK_FILE: Final = "landing.lock"
_DRAFT: Final = ".draft-"
_MANIFEST = re.compile(r"([0-9]{12})\.json\Z")
_UNFINISHED_SECONDS: Final = 86_400.0  # a draft of that age belongs to nobody any more


class Noticed(Struct, frozen=True):
    """Something that was not as it should be while an item was fetched."""

    code: str  # of the closed list in `findings`
    detail: str  # for people; never holds a secret


class Item(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What landed in one step."""

    number: int  # from 1
    kind: Kind
    origin: str  # where it came from, for people; never holds a secret
    arrived_at: datetime
    bytes: int
    cursor: Any = None  # JSON: where its source goes on behind it
    delimiter: str | None = None  # of CSV; None: by the header
    noticed: tuple[Noticed, ...] = ()
    replayed: bool = False  # out of quarantine: rows that somebody chose say nothing of how the source is

    @property
    def file(self) -> str:
        """The name of its data file."""
        return f"{self.number:012}.{self.kind}"


class Draft:
    """An item that is being written."""

    def __init__(self, landing: Landing, kind: Kind, file: IO[bytes]) -> None:
        self.file = file  # its data go here
        self.path = Path(file.name)  # or here, by others; then `land` is called when they have finished
        self._landing = landing
        self._kind = kind

    def land(
        self, *, origin: str, cursor: Any = None, delimiter: str | None = None, noticed: tuple[Noticed, ...] = ()
    ) -> Item:
        """Put it in place, durably. Raises OSError when the disk will not take it."""
        self.file.flush()
        with self.path.open("rb") as written:
            os.fsync(written.fileno())
            size = os.fstat(written.fileno()).st_size
        with self._landing.numbering() as number:
            item = Item(
                number=number,
                kind=self._kind,
                origin=origin,
                arrived_at=datetime.now(UTC),
                bytes=size,
                cursor=cursor,
                delimiter=delimiter,
                noticed=noticed,
            )
            self._landing.place(item, self.path)
        return item


class Landing:
    """The items of one source that are not in the tables yet. Any number of processes may land items."""

    def __init__(self, folder: Path) -> None:
        """`folder` is made, with those above it, when the first item is begun."""
        self.folder = folder

    @contextmanager
    def begin(self, kind: Kind) -> Iterator[Draft]:
        """A new item; nothing remains of it unless it lands."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=self.folder, prefix=_DRAFT, suffix=f".{kind}", delete=False) as file:
            try:
                yield Draft(self, kind, file)
            finally:
                Path(file.name).unlink(missing_ok=True)

    def waiting(self) -> list[Item]:
        """The items that landed, by number. Raises Damaged when a manifest cannot be read."""
        items = []
        for number in self._numbers():
            with suppress(FileNotFoundError):  # dropped since it was listed
                items.append(self._read(number))
        return items

    def path(self, item: Item) -> Path:
        """The data file of an item."""
        return self.folder / item.file

    def reserve(self, reached: int) -> None:
        """Number no new item `reached` or below: the tables have come so far, whatever is known here."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(self.folder / _LOCK_FILE, timeout_seconds=LOCK_SECONDS):
            if self._counted() <= reached:
                write_atomic(self.folder / _COUNTER, str(reached + 1).encode())

    def drop(self, item: Item) -> None:
        """Remove an item that is in the tables. It may be gone already."""
        self.reserve(item.number)  # whoever landed it may have been killed before the counter said so
        (self.folder / f"{item.number:012}.json").unlink(missing_ok=True)
        (self.folder / item.file).unlink(missing_ok=True)

    def sweep(self, reached: int) -> None:
        """Remove what was never finished, and the items up to `reached`, which the tables have."""
        if not self.folder.is_dir():
            return
        for number in self._numbers():
            if number <= reached:
                self.drop(self._read(number))
        known = {f"{number:012}" for number in self._numbers()}
        oldest = datetime.now(UTC).timestamp() - _UNFINISHED_SECONDS
        with locked(self.folder / _LOCK_FILE, timeout_seconds=LOCK_SECONDS):
            for path in self.folder.iterdir():
                if path.name.startswith(_DRAFT):
                    unfinished = path.stat().st_mtime < oldest
                else:
                    unfinished = path.suffix[1:] in {"csv", "jsonl", "parquet"} and path.stem not in known
                    unfinished = unfinished and not path.with_suffix(".json").exists()
                if unfinished:
                    path.unlink(missing_ok=True)

    # What a draft asks for.

    @contextmanager
    def numbering(self) -> Iterator[int]:
        """The next number, while nobody else has it; it is taken when nothing is raised."""
        with locked(self.folder / _LOCK_FILE, timeout_seconds=LOCK_SECONDS):
            number = self._next()
            yield number
            write_atomic(self.folder / _COUNTER, str(number + 1).encode())

    def place(self, item: Item, data: Path) -> None:
        """Put the data file, and then the manifest, in their places."""
        data.rename(self.folder / item.file)
        sync_directory(self.folder)
        write_atomic(self.folder / f"{item.number:012}.json", msgspec.json.encode(item))

    def place_prepared(self, item: Item, data: Path, manifest: Path) -> None:
        """As `place`, of a manifest that stands in a file already, and data that stay where they are as well.

        In one step the manifest leaves its file, and the item has landed: whoever was killed sees by that, for good.
        """
        place = self.folder / item.file
        place.unlink(missing_ok=True)  # left by somebody who was killed before the item had a manifest
        os.link(data, place)
        sync_directory(self.folder)
        manifest.rename(self.folder / f"{item.number:012}.json")
        sync_directory(self.folder)
        sync_directory(manifest.parent)

    def _numbers(self) -> list[int]:
        try:
            names = os.listdir(self.folder)  # noqa: PTH208 - only the names
        except FileNotFoundError:
            return []
        return sorted(int(found[1]) for name in names if (found := _MANIFEST.match(name)))

    def _next(self) -> int:
        """One more than any number that was given: the counter may be one behind the newest item, or lost."""
        numbers = self._numbers()
        return max(self._counted(), numbers[-1] + 1 if numbers else 1)

    def _counted(self) -> int:
        """The next number, as the counter has it."""
        try:
            return int((self.folder / _COUNTER).read_text("ascii"))
        except FileNotFoundError:
            return 1
        except ValueError:
            raise Damaged(f"{self.folder / _COUNTER}: expected the number of the next item") from None

    def _read(self, number: int) -> Item:
        path = self.folder / f"{number:012}.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=Item)
        except NOT_READ as error:
            raise Damaged(f"{path}: expected the manifest of an item, found: {error}") from None


def landing_of(data: Path, capability: str, source: str) -> Landing:
    """The landing of a source, in a workspace's data directory."""
    for name in (capability, source):
        if "/" in name or name.startswith("."):
            raise Misuse(f"expected the name of a capability and of a source, found {name!r}")
    return Landing(data / "intake" / capability / source / "landing")
