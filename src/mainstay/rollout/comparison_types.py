"""How a shadow's decisions compare with those that were given, as it is told."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - msgspec reads the types of a struct
from typing import Any

from msgspec import Struct

from mainstay.monitoring.intervals import Estimate  # noqa: TC001 - the same


class Trial(Struct, frozen=True, kw_only=True):
    """The time in which a version was a shadow: releases that follow each other."""

    version: str
    beside: str  # the version in production in the newest of them
    first: int  # the numbers of the releases
    last: int
    since: datetime
    until: datetime | None  # None: it still is one


class Timing(Struct, frozen=True, kw_only=True):
    """How long decisions took, in seconds, to 1 %."""

    decisions: int  # that were timed
    mean: float
    median: float
    slow: float  # 99 % were faster


class Part(Struct, frozen=True, kw_only=True):
    """All decisions that were compared, or those of one segment."""

    segment: str | None = None  # FIELD=VALUE
    compared: int
    outcomes_differ: int
    outputs_differ: int  # of those with the same outcome
    errors: int  # that the shadow could not answer
    disagreement: Estimate  # the share that differs, in one or the other; at all times together with 95 %
    given_timing: Timing | None  # None: none was timed
    shadow_timing: Timing | None
    given_cost: Estimate | None  # of a decision, in the declared currency; None: nothing is declared, or known
    shadow_cost: Estimate | None

    @property
    def differ(self) -> int:
        return self.outcomes_differ + self.outputs_differ


class FieldDifference(Struct, frozen=True, kw_only=True):
    """A field of the output, over the decisions of which both gave one."""

    name: str
    compared: int
    differ: int  # numbers: by more than a hundredth of the larger
    mean: float | None = None  # of what the shadow said less what was given; None: no number
    mean_absolute: float | None = None
    largest: float | None = None


class Ending(Struct, frozen=True, kw_only=True):
    """Decisions that ended in one way, and would have in another."""

    given: str
    shadow: str
    decisions: int
    newest: tuple[str, ...]  # ids of some


class Case(Struct, frozen=True, kw_only=True):
    """A decision of which both gave an output."""

    decision_id: str
    at: datetime
    distance: float  # from 0 to 1: the mean over the fields, of numbers in parts of the range that was seen
    input: dict[str, Any] | None  # as it was recorded
    given: dict[str, Any]
    shadow: dict[str, Any]
    given_confidence: float | None
    shadow_confidence: float | None
    segments: dict[str, str | None]


class Comparison(Struct, frozen=True, kw_only=True):
    """A shadow and what was decided beside it."""

    capability: str
    trial: Trial
    decided: int  # decisions in its time, as far as the lake has them
    currency: str | None  # None: no cost is declared
    whole: Part | None  # None: nothing was compared yet
    segments: tuple[Part, ...]  # of each field those that were seen most, and all others
    fields: tuple[FieldDifference, ...]
    endings: tuple[Ending, ...]  # that are not the same, the most frequent first
    cases: tuple[Case, ...]  # that differ most, the most different first
