"""What a monitor pass can find: a closed list of codes, what each says and what to do, and a finding as it is told.

`docs/reference/findings.md` has the same list; a test holds the two together.
"""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - msgspec reads the types of a struct
from hashlib import sha256
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Collection

Severity: TypeAlias = Literal["info", "warning", "critical"]
"""`info`: for the record. `warning`: somebody should look today. `critical`: somebody should look now."""

Kind: TypeAlias = Literal["data_broken", "world_changed", "model_wrong", "traffic_mix", "service", "unclear"]
"""Where the cause seems to lie: in what arrives, in what is described, in the model, in who asks, in how it is run.
`unclear`: what is known does not tell."""

KINDS: Final[dict[Kind, str]] = {
    "data_broken": "the data seem broken",
    "world_changed": "the world seems to have changed",
    "model_wrong": "the model seems to be wrong",
    "traffic_mix": "other cases than before are asked about",
    "service": "the service itself",
    "unclear": "what is known does not tell the cause",
}

NEXT: Final[dict[Kind, str]] = {
    "data_broken": "Look at the feed first: `mainstay intake status`, `mainstay quarantine list`. Do not retrain on"
    " these rows. Where answers do harm, `mainstay stop` sends every decision to the fallback.",
    "world_changed": "Hold quality against its bounds as labels come in; plan retraining on rows since the change.",
    "model_wrong": "If a release came just before, `mainstay rollback`. Otherwise look at the segments named, and"
    " retrain when labels confirm it.",
    "traffic_mix": "Ask who sends these cases now, and whether the model was meant for them. Within segments nothing"
    " changed, so retraining is not what helps.",
    "service": "Look at the workers and what they depend on: `mainstay status`, the logs, the last release.",
    "unclear": "Look at the columns and segments named, and at what changed upstream at that time.",
}
"""What to do next, by the cause."""


class Meaning(NamedTuple):
    """What a code says."""

    severity: Severity  # at least; a finding may be worse
    text: str


CODES: Final[dict[str, Meaning]] = {
    # Drift, against the reference rows of the version (or its first decisions) and against the days before.
    "input_drift": Meaning("warning", "The distribution of an input column is another one."),
    "output_drift": Meaning("warning", "The distribution of an output column is another one."),
    "confidence_drift": Meaning("warning", "The model's confidence is distributed otherwise."),
    "novelty_rate": Meaning("warning", "More, or fewer, inputs than before are strange to the model."),
    # What looks like broken data.
    "values_missing": Meaning("warning", "A column comes without a value far more often than before."),
    "column_constant": Meaning("critical", "A column that used to vary has one value only."),
    "unit_changed": Meaning("critical", "The numbers of a column look like the same ones in another unit."),
    "values_unknown": Meaning("warning", "Texts that the reference does not know are far more frequent than before."),
    "contract_violations": Meaning("warning", "More calls than before break the contract of the input."),
    "feed_troubled": Meaning("warning", "A source is late, failing or held, or its rows go into quarantine."),
    # Labels and what they say.
    "quality_below": Meaning("critical", "A metric is surely worse than declared: its whole interval is."),
    "quality_fell": Meaning("warning", "A metric is surely worse than it was before, by the intervals of both."),
    "estimate_below": Meaning(
        "warning", "A metric is probably worse than declared: estimated before labels are there."
    ),
    "label_rate": Meaning("info", "What turns out to be true is distributed otherwise than before."),
    "labels_late": Meaning(
        "info",
        "Fewer labels are there than windows of that age used to have. It is over when a later window has its own.",
    ),
    "business_missed": Meaning("critical", "A number that the business cares for is surely out of its bounds."),
    # The service.
    "budget_burning": Meaning("warning", "The error budget of a service level is used up faster than it may be."),
    "level_missed": Meaning("critical", "A service level was not kept over its whole period."),
    "no_decisions": Meaning("info", "No decision was asked for in a whole window, where there were many before."),
}
"""What each code says."""


SHARES: Final = frozenset(
    {
        *("input_drift", "output_drift", "confidence_drift", "novelty_rate", "values_missing", "column_constant"),
        *("unit_changed", "values_unknown", "contract_violations", "feed_troubled", "labels_late", "budget_burning"),
    }
)
"""Codes whose observed number is a share."""

_OF_DATA: Final = frozenset(
    {
        *("values_missing", "column_constant", "unit_changed", "values_unknown"),
        *("contract_violations", "feed_troubled"),
    }
)
_INPUT: Final = "input."


class Interval(Struct, frozen=True, kw_only=True):
    """A number, and where it surely lies."""

    value: float
    low: float | None = None
    high: float | None = None


class Change(Struct, frozen=True, kw_only=True):
    """Something that changed at about the time a finding began."""

    at: datetime
    what: Literal["release", "upstream", "contract"]
    subject: str  # a release's number, or CAPABILITY/SOURCE
    text: str
    item: int | None = None  # of the source: the batch in which it was found
    columns: tuple[str, ...] = ()


class Part(Struct, frozen=True, kw_only=True):
    """What contributes to a change, and how much: shares of all contributors make at most one."""

    name: str  # `input.x`, `output.y`, or `segment=value`
    share: float
    distance: float | None = None  # total variation distance


class Cause(Struct, frozen=True, kw_only=True):
    """Why it is likely so, with what says it."""

    kind: Kind
    why: str
    columns: tuple[Part, ...] = ()
    segments: tuple[Part, ...] = ()
    changes: tuple[Change, ...] = ()


class Finding(Struct, frozen=True, kw_only=True):
    """What a pass found about a window."""

    code: str
    severity: Severity
    capability: str
    version: str | None = None
    segment: str | None = None  # COLUMN=VALUE; None: all of the traffic
    column: str | None = None  # `input.x`, `output.y`, `confidence`, `novelty`, or the name of a metric or level
    against: str | None = None  # what it is held against: `reference: …`, `recent`, `declared`, `before`
    text: str  # in a line: what, and how bad
    observed: Interval | None = None
    required: float | None = None
    p_value: float | None = None
    window_from: datetime
    window_to: datetime
    rows: int
    numbers: dict[str, float] = {}
    cause: Cause

    @property
    def interval(self) -> str:
        """The interval of what was observed, in brackets; of shares in percent. Empty where there is none."""
        seen = self.observed
        if seen is None or seen.low is None or seen.high is None:
            return ""
        if self.code in SHARES:
            return f"[{seen.low:.1%}, {seen.high:.1%}]"
        return f"[{seen.low:.3g}, {seen.high:.3g}]"

    @property
    def key(self) -> str:
        """What makes two findings the same one at two times: 16 hex digits."""
        parts = (self.capability, self.code, self.version, self.segment, self.column, self.against)
        return sha256("\x1f".join(part or "" for part in parts).encode()).hexdigest()[:16]


class Standing(Struct, frozen=True, kw_only=True):
    """A finding over time: it is told once, however many passes see it."""

    id: str
    finding: Finding  # as it was seen last
    since: datetime  # the beginning of the first window that showed it
    first_seen: datetime
    last_seen: datetime
    passes: int
    worst: float | None = None  # the greatest effect that was seen
    resolved: datetime | None = None  # when a whole window showed it no more, or it was closed
    closed: str = ""  # why, where no window had shown that it is over: its version decides no more

    @property
    def is_open(self) -> bool:
        return self.resolved is None


def is_about_data(finding: Finding) -> bool:
    """Whether it is about what arrives, and so true whichever version decides."""
    if finding.column is not None and not finding.column.startswith(_INPUT):
        return False
    return finding.code in _OF_DATA or (finding.code == "input_drift" and finding.cause.kind == "data_broken")


def concerns(finding: Finding, deciding: Collection[str]) -> bool:
    """Whether it is about what decides now: about one of these versions, about no version, or about the data."""
    return finding.version is None or finding.version in deciding or is_about_data(finding)


def severity_of(code: str) -> Severity:
    """How bad a finding of this code is at least. Raises KeyError for a code that is not in the list."""
    return CODES[code].severity


def worse(one: Severity, other: Severity) -> Severity:
    """The worse of two."""
    return max(one, other, key=SEVERITIES.index)


SEVERITIES: Final[tuple[Severity, ...]] = ("info", "warning", "critical")
