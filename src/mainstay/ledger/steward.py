"""What is to be done to the ledger beside sealing it: bodies go, by request and by age, and entries that left go too.

There is one steward at a time, which the sealer's lock sees to: the control process, or a command where none runs.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mainstay.errors import Failed, Misuse
from mainstay.ledger.departure import Remover
from mainstay.ledger.eraser import Eraser
from mainstay.ledger.index import Index
from mainstay.ledger.log import Log
from mainstay.ledger.retention import Retention
from mainstay.ledger.sealer import Sealer
from mainstay.ledger.state import WAL_FOLDER, load_state, segment_path
from mainstay.ledger.wal import HEADER_BYTES, segments

if TYPE_CHECKING:
    from collections.abc import Callable

    from mainstay.ledger.retention import Declared
    from mainstay.signing import SigningKey
    from mainstay.workspace import Workspace

WAIT_SECONDS = 30.0  # for a control process to seal, and to carry out what is asked
_POLL_SECONDS = 0.05


class Steward:
    """Does what there is to do, for the holder of the sealer's lock, a little at a time."""

    def __init__(
        self,
        workspace: Workspace,
        sealer: Sealer,
        index: Index,
        principal: str,
        declared: Declared | None = None,
    ) -> None:
        """`principal` is who does it, as receipts say; without `declared` nothing goes because of its age."""
        self._index = index
        self._eraser = Eraser(workspace, sealer, index, principal)
        self._retention = None if declared is None else Retention(workspace, index, declared)
        self._remover = Remover(workspace, index)

    def turn(self) -> bool:
        """Do some of it, when all is sealed and indexed; whether there is more that can be done at once.

        Raises OSError when the disk fails, Damaged when the log is not whole: what was done is done.
        """
        if self._eraser.turn():
            return True
        if self._index.erasures.pending():
            return False  # writers have yet to leave their segments
        if self._retention is not None and self._retention.ask(datetime.now(UTC)):
            return True
        return self._remover.turn()


class Hand:
    """Sees to it that something is done: does it, or where a control process runs, watches it being done."""

    def __init__(self, workspace: Workspace, key: SigningKey, principal: str) -> None:
        self._workspace = workspace
        self._ledger = workspace.ledger
        self._key = key
        self._principal = principal

    def settle(self) -> None:
        """See to it that all that is durable now is sealed.

        Raises Failed when a control process is there and does not seal, OSError and Damaged as sealing does.
        """
        sizes = {path.stem: path.stat().st_size for path in segments(self._ledger / WAL_FOLDER)}
        before = {segment: size for segment, size in sizes.items() if size > HEADER_BYTES}
        self._try()  # also what an earlier one, killed, left to be done
        if not self.until(lambda: self._are_sealed(before)):
            raise Failed(
                f"what was recorded is not sealed within {WAIT_SECONDS:g} s: expected the control process to do so",
                hint="Look at its log, and at `mainstay ledger verify`.",
            )

    def until(self, done: Callable[[], bool]) -> bool:
        """Seal and do what there is, or watch another process do so, until something is done; whether it is.

        Gives up after WAIT_SECONDS.
        """
        deadline = time.monotonic() + WAIT_SECONDS
        while not done():
            self._try()
            if done():
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def held_by(self) -> str:
        """What keeps things from being done, as far as can be said."""
        names = [path.name for path in segments(self._ledger / WAL_FOLDER)]
        if names:
            return f"a process that records has not left its segment ({', '.join(names[:5])})"
        return "expected the control process to do so"

    def _try(self) -> None:
        origin = self._workspace.settings.log
        try:
            with Sealer(self._ledger, self._key, origin) as sealer, Index(self._ledger) as index:
                steward = Steward(self._workspace, sealer, index, self._principal)
                sealer.seal_once()
                index.catch_up(Log(self._ledger))
                while steward.turn():
                    pass
        except Misuse:  # another process seals
            return

    def _are_sealed(self, before: dict[str, int]) -> bool:
        state = load_state(self._ledger)
        if state is None or Log(self._ledger).size < state.size:
            return state is None and not before
        for segment, size in before.items():
            progress = state.segments.get(segment)
            there = segment_path(self._ledger, segment).exists()
            if there and (progress is None or not (progress.finished or progress.offset >= size)):
                return False
        return True
