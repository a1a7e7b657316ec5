"""Checks of what monitoring knows: findings, service levels, and the pilot's promise in production."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from mainstay.ledger.index import Index
from mainstay.ledger.log import Log
from mainstay.monitoring.findings import concerns
from mainstay.monitoring.promise import hold
from mainstay.monitoring.store import read_findings, read_memory
from mainstay.rollout.gates_types import Found
from mainstay.rollout.gates_version import promise_words, worst_of

if TYPE_CHECKING:
    from datetime import datetime

    from mainstay.monitoring.findings import Standing
    from mainstay.rollout.gates_looking import Looking

LEVELS: Final = ("budget_burning", "level_missed")  # findings about service levels
NOT_ITS_OWN: Final = ("data_broken", "service")  # whose cause is not the version in force: they concern any version
PROMISE_DAYS: Final = 30.0
NEWEST: Final = 100_000  # decisions that the promise is held against, at most
_OLD_WINDOWS: Final = 2  # of windows without a pass, after which nothing is known


def no_critical_finding(looking: Looking) -> Found:
    required = "no open critical finding"
    passed = _last_pass(looking)
    if passed is None:
        return _never(looking, required)
    if _is_old(looking, passed):
        return Found("unknown", _stale(passed), required, since=passed)
    found = [each for each in _open(looking) if each.finding.severity == "critical" and _concerns(each, looking)]
    found = [each for each in found if each.finding.code not in LEVELS]
    if not found:
        return Found("pass", f"none, at the monitor pass of {passed:%Y-%m-%d %H:%M}Z", required, since=passed)
    return Found("fail", _listed(found), required, evidence=tuple(each.id for each in found), since=passed)


def service_levels_kept(looking: Looking) -> Found:
    levels = looking.rules.service_levels
    declared = (levels.availability, levels.model_answers, levels.latency_ms, levels.review_share)
    required = "no budget spent, and none that is spent too fast"
    if all(each is None for each in (*declared, levels.cost_per_decision)):
        return Found("pass", "no level is declared", required, needed=False)
    passed = _last_pass(looking)
    if passed is None:
        return _never(looking, required)
    if _is_old(looking, passed):
        return Found("unknown", _stale(passed), required, since=passed)
    found = [each for each in _open(looking) if each.finding.code in LEVELS and each.finding.severity == "critical"]
    if not found:
        return Found("pass", f"none, at the monitor pass of {passed:%Y-%m-%d %H:%M}Z", required, since=passed)
    return Found("fail", _listed(found), required, evidence=tuple(each.id for each in found), since=passed)


def promise_kept(looking: Looking) -> Found:
    release = looking.release
    required = "what is promised, by outcomes"
    if release is None or release.version != looking.version:
        return Found("unknown", "it is not in production", required, needed=False)
    since = looking.now - timedelta(days=PROMISE_DAYS)
    with Index(looking.workspace.ledger) as index:
        index.catch_up(Log(looking.workspace.ledger))
        held = hold(index, looking.declared.capability, since, newest=NEWEST)
    if not held.verdicts:
        return Found("pass", "nothing is promised", required, needed=False)
    observed = f"{promise_words(held.verdicts)}; {held.labelled:,} of {held.answered:,} answers have an outcome"
    return Found(worst_of(held.verdicts), observed, required, evidence=(f"{release.capability}/{release.number}",))


def _last_pass(looking: Looking) -> datetime | None:
    """When monitoring looked at the capability last; None where it never did, as before the first version decides."""
    if looking.is_first:
        return None
    memory = read_memory(looking.control, looking.capability)
    return None if memory is None else memory.at


def _never(looking: Looking, required: str) -> Found:
    observed = "nothing decides yet" if looking.is_first else "no monitor pass was made"
    return Found("unknown", observed, required, needed=False)


def _is_old(looking: Looking, passed: datetime) -> bool:
    return looking.now - passed > timedelta(hours=_OLD_WINDOWS * looking.rules.monitoring.window_hours)


def _stale(passed: datetime) -> str:
    return f"the last monitor pass was made at {passed:%Y-%m-%d %H:%M}Z: is `mainstay control` running?"


def _open(looking: Looking) -> list[Standing]:
    """What is open of what decides now: a version that has left may still have some, until monitoring closes them."""
    deciding = frozenset() if looking.release is None else looking.release.deciding
    found = read_findings(looking.control, looking.capability, open_only=True)
    return [each for each in found if concerns(each.finding, deciding)]


def _concerns(standing: Standing, looking: Looking) -> bool:
    """A finding about the model in force, or what the business has of it, bars no successor: it may be the cure."""
    finding = standing.finding
    return finding.version == looking.version or finding.cause.kind in NOT_ITS_OWN


def _listed(found: list[Standing]) -> str:
    first = found[0].finding
    more = f", and {len(found) - 1} more" if len(found) > 1 else ""
    return f"{first.code}: {first.text}{more}"
