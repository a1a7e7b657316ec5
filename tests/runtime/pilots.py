"""Pilots for isolated processes, and a lane on a running loop to ask them."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mainstay.runtime.frames import IsolatedModel
from mainstay.runtime.isolated import IsolatedLane
from mainstay.runtime.types import Feature, Prediction

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from mainstay.runtime.types import Result

DOUBLE = """
def predict(records):
    return [{"p": 2 * record["a"], "sure": 0.5} for record in records]
"""

# What `record["note"]` says is done before it answers.
OBEDIENT = """
import os, sys, time, ctypes
here = os.path.dirname(__file__)

def predict(records):
    for record in records:
        if record["note"]:
            exec(record["note"], globals())
    return [{"p": 2 * record["a"], "sure": 0.5} for record in records]
"""


def make_model(folder: Path, code: str = OBEDIENT, **changes: Any) -> IsolatedModel:
    """A model of kind python that takes `a` and `note` and gives `p` and `sure`."""
    folder.mkdir(exist_ok=True)
    (folder / "predict.py").write_text(code, "utf-8")
    settings: dict[str, Any] = {
        "folder": str(folder),
        "kind": "python",
        "call": "predict.py:predict",
        "fields": ("a", "note"),
        "features": (Feature("a", "number", nullable=False), Feature("note", "string", nullable=True)),
        "output_fields": ("p", "sure"),
        "confidence": "sure",
        "memory_bytes": 1 << 30,
        "start_seconds": 20.0,
    }
    return IsolatedModel(**(settings | changes))


@dataclass(eq=False)
class Item:
    """A row that waits, and what it was given, and when."""

    row: tuple[Any, ...]
    run_until: float
    result: Result | None = None
    given_at: float = 0.0

    @property
    def p(self) -> Any:
        assert isinstance(self.result, Prediction), self.result
        return self.result.values[0]


@dataclass
class Asking:
    """A lane, and the sizes of what it delivered."""

    loop: asyncio.AbstractEventLoop
    lane: IsolatedLane[Item] = field(init=False)
    delivered: list[int] = field(default_factory=list)

    def deliver(self, items: Sequence[Item], results: Sequence[Result]) -> None:
        self.delivered.append(len(items))
        for item, result in zip(items, results, strict=True):
            assert item.result is None, "delivered once"
            item.result, item.given_at = result, self.loop.time()

    def submit(self, note: str | None = None, *, a: Any = 1.0, seconds: float = 20.0) -> Item:
        item = Item((a, note), self.loop.time() + seconds)
        self.lane.submit(item)
        return item

    async def ask(self, note: str | None = None, *, a: Any = 1.0, seconds: float = 20.0) -> Item:
        """The item once it was delivered; the lane must be ready."""
        item = self.submit(note, a=a, seconds=seconds)
        await settled(item)
        return item

    async def back(self, seconds: float = 20.0) -> None:
        """Return once the lane is ready again after its process has ended."""
        async with asyncio.timeout(seconds):
            while not self.lane.ready:  # noqa: ASYNC110 - the lane is driven by the loop itself
                await asyncio.sleep(0.002)


async def settled(*items: Item) -> None:
    async with asyncio.timeout(20):
        while any(item.result is None for item in items):  # noqa: ASYNC110 - the lane is driven by the loop itself
            await asyncio.sleep(0.001)


@asynccontextmanager
async def asking(model: IsolatedModel, *, batch: int = 256) -> AsyncIterator[Asking]:
    """A lane that is ready, closed afterwards with nothing left of it."""
    made = Asking(asyncio.get_running_loop())
    made.lane = IsolatedLane(model, made.loop, batch=batch, deliver=made.deliver)
    try:
        await made.lane.wait_ready(20)
        yield made
    finally:
        made.lane.close()
        await made.lane.closed()


def is_running(pid: int) -> bool:
    """Whether a process is there and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0] not in {"Z", "X"}
    except (FileNotFoundError, ProcessLookupError):
        return False


async def gone(pid: int) -> None:
    async with asyncio.timeout(10):
        while is_running(pid):  # noqa: ASYNC110 - nothing tells of the end of another's child
            await asyncio.sleep(0.005)


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def children() -> list[int]:
    """The processes of this one, zombies too."""
    found = [path.read_text("utf-8").split() for path in Path("/proc/self/task").glob("*/children")]
    return sorted(int(pid) for each in found for pid in each)


def private_folders(path: Path) -> list[Path]:
    """Of isolated processes, in the folder for temporary files."""
    return list(path.glob("mainstay-isolated-*"))


async def no_private_folders(path: Path) -> None:
    async with asyncio.timeout(5):
        while private_folders(path):  # noqa: ASYNC110 - a thread of its own may be removing them
            await asyncio.sleep(0.01)
