"""When retraining is asked for, by itself, and when it must not be.

Asking is not retraining, and retraining is not promoting. What asks is about the version in production, which is what
would be trained anew: not about a canary, and not about one that has left. Broken data never ask: a model that is
fitted to them learns what is broken. Nor does a change in who asks, nor trouble of the service: neither is the model's.

*Performance* is what labels say of the model's own metrics. A number of the business is made of more than the model (of
prices, of who asks, of what people do with answers): out of its bounds it is harm, and asks where something drifted.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

from msgspec import Struct

from mainstay.monitoring.findings import concerns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mainstay.capability.keeping import Retraining
    from mainstay.catalog.types import Release
    from mainstay.monitoring.findings import Standing

Cause: TypeAlias = Literal["performance", "drift_with_harm", "schedule", "by_hand"]

WORSE: Final = frozenset({"quality_below", "quality_fell"})  # what labels say of the model's metrics, surely
HARM: Final = WORSE | {"business_missed", "estimate_below"}
DRIFT: Final = frozenset({"input_drift", "output_drift", "confidence_drift", "label_rate"})
OURS: Final = frozenset({"world_changed", "model_wrong", "unclear"})  # kinds of causes that retraining may help with


class Wish(NamedTuple):
    """That retraining is asked for."""

    cause: Cause
    reason: str  # in a line
    findings: tuple[str, ...]  # their ids


class Barred(NamedTuple):
    """That nothing may be asked for now, though something would ask."""

    wish: Wish
    why: str
    findings: tuple[str, ...]  # what bars it


class Past(Struct, frozen=True, kw_only=True):
    """What came of retraining before."""

    last_ended: datetime | None = None  # when the last run ended, however
    first_release: datetime | None = None  # since when the capability has been in production


def look(
    declared: Retraining, standings: Sequence[Standing], past: Past, now: datetime, release: Release
) -> Wish | Barred | None:
    """What the findings and the calendar ask for; None where they ask for nothing, or the cool-down is not over.

    `release` is in force. Findings about versions that it does not let decide are of no account.
    """
    still = [each for each in standings if each.is_open and concerns(each.finding, release.deciding)]
    wish = _wish(declared, [each for each in still if each.finding.version in {None, release.version}], past, now)
    if wish is None:
        return None
    broken = tuple(each.id for each in still if _is_broken(each))
    if broken:
        return Barred(wish, "the data seem broken, and a model that is fitted to them learns what is broken", broken)
    if past.last_ended is not None and now < past.last_ended + timedelta(days=declared.cooldown_days):
        return None
    return wish


def _is_broken(standing: Standing) -> bool:
    """Whether it says that rows are not what they should be. That some lack a label yet is for the record alone."""
    finding = standing.finding
    return finding.cause.kind == "data_broken" and finding.severity != "info"


def _wish(declared: Retraining, still: Sequence[Standing], past: Past, now: datetime) -> Wish | None:
    triggers = declared.triggers
    ours = [each for each in still if each.finding.cause.kind in OURS]
    worse = [each for each in ours if each.finding.code in WORSE]
    if triggers.performance and worse:
        return Wish("performance", _told(worse), tuple(each.id for each in worse))
    drift = [each for each in ours if each.finding.code in DRIFT]
    harm = [each for each in ours if each.finding.code in HARM]
    if triggers.drift_with_harm and drift and harm:
        both = [*harm, *drift]
        return Wish("drift_with_harm", _told(both), tuple(each.id for each in both))
    since = past.last_ended or past.first_release
    if triggers.every_days is not None and since is not None and now >= since + timedelta(days=triggers.every_days):
        return Wish("schedule", f"every {triggers.every_days:g} days, and the last was on {since:%Y-%m-%d}", ())
    return None


def _told(standings: Sequence[Standing]) -> str:
    first = standings[0].finding.text
    return first if len(standings) == 1 else f"{first} ({len(standings) - 1} more findings)"
