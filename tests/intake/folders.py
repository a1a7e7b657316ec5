"""A source over files, and what its fetcher landed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from mainstay.capability.sources import Files, Source
from mainstay.cli.init import create_workspace
from mainstay.intake.files import FilesFetcher
from mainstay.intake.landing import Item, Landing, landing_of

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.workspace import Workspace


class Feed:
    """A workspace with a source over one folder."""

    def __init__(self, root: Path, folder: str, *, key: tuple[str, ...] = (), **files: Any) -> None:
        self.workspace: Workspace = create_workspace(root / "workspace", "log.example.com/x")[0]
        self.landing: Landing = landing_of(self.workspace.data, "late-arrival", "feed")
        declared = Files(folder=folder, **{"settle_seconds": 0.0, **files})
        self.source = Source(name="feed", files=declared, key=key)
        self.fetcher = self.open()
        self.cursor: Any = None
        self.items: list[Item] = []

    def open(self) -> FilesFetcher:
        return FilesFetcher(self.workspace, "late-arrival", self.source, self.landing)

    def step(self) -> Item | None:
        item = self.fetcher.step(self.cursor)
        if item is not None:
            self.items.append(item)
            self.cursor = msgspec.json.decode(msgspec.json.encode(item.cursor))  # as a manifest holds it
        return item

    def take(self) -> list[str]:
        """The names of the files that are new, in order; of items without a file nothing."""
        taken = []
        while (item := self.step()) is not None:
            if item.bytes:
                taken.append(item.origin.rpartition("/")[2])
        return taken

    def content(self, number: int = -1) -> bytes:
        return self.landing.path(self.items[number]).read_bytes()

    def told(self) -> list[tuple[str, str]]:
        """The code and the beginning of what was noticed since the last time."""
        noticed = [(each.code, each.detail) for item in self.items for each in item.noticed]
        self.items.clear()
        return noticed
