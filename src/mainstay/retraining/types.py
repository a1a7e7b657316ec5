"""What retraining is asked for, and what comes of it."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - msgspec reads the types of a struct
from typing import Final, Literal, TypeAlias

from msgspec import Struct

from mainstay.retraining.challenge import Challenge  # noqa: TC001 - the same
from mainstay.retraining.triggers import Cause  # noqa: TC001 - the same

Status: TypeAlias = Literal["open", "running", "ended", "barred"]
Ending: TypeAlias = Literal["better", "not_better", "unknown", "same", "failed", "withdrawn"]

PRINCIPAL: Final = "mainstay:retraining"  # who asks and begins what nobody asked for by hand


class Frozen(Struct, frozen=True, kw_only=True):
    """What a run is of."""

    champion: str
    snapshots: tuple[str, ...]


class Trained(Struct, frozen=True, kw_only=True):
    """What training made."""

    version: str
    is_new: bool  # False: the same content was registered before
    fitted: int  # rows
    held_out: int
    since: datetime  # of the first row
    split: datetime  # the first row that is held out is at it or after
    until: datetime  # of the last
    printed: str  # the end of what training printed
    notes: tuple[str, ...]


class Request(Struct, frozen=True, kw_only=True):
    """A request and what came of it."""

    id: str
    capability: str
    cause: Cause
    reason: str
    findings: tuple[str, ...] = ()
    asked_by: str
    asked_at: datetime
    status: Status = "open"
    barred_by: tuple[str, ...] = ()  # findings
    began_at: datetime | None = None  # the run
    frozen: Frozen | None = None
    trained: Trained | None = None
    challenge: Challenge | None = None
    ending: Ending | None = None
    why: str = ""  # what came of it, in a line
    ended_at: datetime | None = None
    rollout: str | None = None  # the rollout, or the proposal of one, by which the challenger enters as a shadow
