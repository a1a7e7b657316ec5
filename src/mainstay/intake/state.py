"""What is known of a source beside its rows: how its last run went, what holds it, what was found.

    .mainstay/intake/<capability>/<source>/state.json    one State, replaced atomically
    .mainstay/intake/<capability>/<source>/source.lock   held by whoever runs the source
    .mainstay/intake/<capability>/<source>/state.lock    held while the file is changed

It may be lost without losing a row: rows, their cursor and their numbers are in the tables' commits. What is lost with
it is a hold and the history of findings; a hold is found again by the same rows.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from mainstay.errors import NOT_READ
from mainstay.files import write_atomic
from mainstay.intake.landing import landing_of
from mainstay.locks import locked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from mainstay.intake.types import Finding

MAX_FINDINGS: Final = 200  # of a source; the oldest go first
KEPT_FOR: Final = timedelta(days=30)  # how long what has passed is shown
MAX_DETAIL_CHARACTERS: Final = 2_000
LOCK_SECONDS: Final = 30.0
SOURCE_LOCK: Final = "source.lock"

_STATE: Final = "state.json"
_STATE_LOCK: Final = "state.lock"


Until: TypeAlias = Literal["run", "release", "arrival", "check"]
"""What ends a finding that lasts: a run that goes well, a release of the source, an arrival, a check that passes."""


class Counts(Struct, frozen=True, kw_only=True):
    """Rows that came through the door, ever."""

    rows: int = 0
    accepted: int = 0
    coerced: int = 0
    quarantined: int = 0
    late: int = 0
    repeated: int = 0


class Holding(Struct, frozen=True, kw_only=True):
    """Why a source is held, and since when."""

    code: str
    reason: str
    since: datetime
    item: int  # the number of the item that was not let in
    fallback: bool  # whether the capability goes to its fallback as long
    entry: str | None = None  # of the ledger; None: whoever held it has not come so far


class Found(Struct, frozen=True, kw_only=True):
    """A finding, over time."""

    code: str
    field: str | None = None
    detail: str = ""
    since: datetime
    last: datetime
    times: int = 1  # runs or items that it was found in
    rows: int = 0
    item: int | None = None
    until: Until | None = None  # what ends it; None: it is nothing that lasts, it happened
    passed: datetime | None = None  # when it was no longer so

    @property
    def lasts(self) -> bool:
        """Whether it is so now."""
        return self.until is not None and self.passed is None


class State(Struct, frozen=True, kw_only=True):
    """What is known of a source beside its rows."""

    began_at: datetime  # when this file was begun
    last_run_at: datetime | None = None
    last_success_at: datetime | None = None  # when the source was last asked to the end of what it had
    last_arrival_at: datetime | None = None
    next_run_at: datetime | None = None
    checked_at: datetime | None = None  # when the service levels of the contract were looked at
    failures: int = 0  # runs that failed since the last that did not
    held: Holding | None = None
    released_to: int = 0  # items up to this number are not held again: somebody let them in, or refused them
    refused: dict[int, str] = {}  # items that somebody keeps out, and why: their rows go into quarantine
    watermark: datetime | None = None
    contract: str | None = None  # id@version, of the last item
    counts: Counts = Counts()
    found: tuple[Found, ...] = ()

    @property
    def lasting(self) -> tuple[Found, ...]:
        """What is so now, the oldest first."""
        return tuple(sorted((each for each in self.found if each.lasts), key=lambda each: each.since))


class StateFile:
    """The state of one source. Any number of processes may change it."""

    def __init__(self, folder: Path) -> None:
        """`folder` is that of the source, above its landing."""
        self.folder = folder

    def read(self) -> State:
        """As it is now; a new one where there is none, or where it cannot be read."""
        try:
            return self._read()
        except OSError:
            return State(began_at=datetime.now(UTC))

    def _read(self) -> State:
        """The same. Raises OSError where it is there and the disk does not give it: it is not to be replaced then."""
        try:
            return msgspec.json.decode((self.folder / _STATE).read_bytes(), type=State)
        except (FileNotFoundError, *NOT_READ):  # it may be lost
            return State(began_at=datetime.now(UTC))

    def fingerprint(self) -> object:
        """Another one after every change; cheap."""
        try:
            found = (self.folder / _STATE).stat()
        except OSError as error:
            return error.errno
        return found.st_ino, found.st_mtime_ns, found.st_size

    def change(self, make: Callable[[State], State]) -> State:
        """Replace it by what `make` makes of it. Raises OSError when the disk will not give or take it."""
        with locked(self.folder / _STATE_LOCK, timeout_seconds=LOCK_SECONDS):
            before = self._read()
            made = make(before)
            if made != before or not (self.folder / _STATE).exists():
                write_atomic(self.folder / _STATE, msgspec.json.encode(made))
            return made

    def update(self, **changes: Any) -> State:
        """Replace some of its fields."""
        return self.change(lambda before: replace(before, **changes))

    def running(self, *, timeout_seconds: float = 0.0) -> AbstractContextManager[None]:
        """Held by whoever runs the source. Raises Failed when another process does, after `timeout_seconds`."""
        return locked(self.folder / SOURCE_LOCK, timeout_seconds=timeout_seconds)


def state_of(data: Path, capability: str, source: str) -> StateFile:
    """The state of a source, in a workspace's data directory."""
    return StateFile(landing_of(data, capability, source).folder.parent)


def states(data: Path) -> list[tuple[str, str, State]]:
    """Every source that was ever run here: its capability, its name and its state."""
    found = sorted((data / "intake").glob(f"*/*/{_STATE}"))
    return [(path.parts[-3], path.parts[-2], StateFile(path.parent).read()) for path in found]


def noted(state: State, findings: Iterable[Finding], now: datetime, until: Until | None = None) -> State:
    """`state` with what was found now, and what will end it."""
    found = {(each.code, each.field): each for each in state.found}
    for finding in findings:
        key = (finding.code, finding.field)
        before = found.get(key)
        if before is None or before.passed is not None:
            before = Found(code=finding.code, field=finding.field, since=now, last=now, times=0)
        found[key] = replace(
            before,
            detail=finding.detail[:MAX_DETAIL_CHARACTERS],
            last=now,
            times=before.times + 1,
            rows=before.rows + finding.count,
            item=before.item if finding.item is None else finding.item,
            until=until,
        )
    return replace(state, found=_kept(found.values(), now))


def passed(state: State, until: Until, now: datetime, *, but: Iterable[Finding] = ()) -> State:
    """`state` where what lasted until now has passed, but for what is found still."""
    still = {(each.code, each.field) for each in but}
    found = [
        replace(each, passed=now)
        if each.lasts and each.until == until and (each.code, each.field) not in still
        else each
        for each in state.found
    ]
    return replace(state, found=_kept(found, now))


def _kept(found: Iterable[Found], now: datetime) -> tuple[Found, ...]:
    """Those to remember: what is so now, and what happened or passed lately."""
    kept = [each for each in found if each.lasts or now - each.last < KEPT_FOR]
    return tuple(sorted(kept, key=lambda each: (each.lasts, each.last, each.code, each.field or ""))[-MAX_FINDINGS:])
