"""Changes of what a contract promises beside its records: servers, service levels, its status."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import UNSET

from mainstay.contract.difference_fields import same
from mainstay.contract.difference_keys import CONTRACT_KEYS, DESCRIPTION_KEYS, told
from mainstay.contract.difference_types import Change, Verdict, breaking, compatible, unknown
from mainstay.contract.durations import parse_duration, parse_moment
from mainstay.contract.service_levels import SYNONYMS
from mainstay.contract.types import Description

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mainstay.contract.types import Contract, Server, ServiceLevel

_ENDING: Final = frozenset({"deprecated", "retired"})
_ABOUT_SERVERS: Final = frozenset({"id", "description"})
_OF_SERVERS_OPEN: Final = frozenset({"environment", "roles", "custom_properties"})
_ABOUT_LEVELS: Final = frozenset({"id", "description", "driver"})

# Which way a service level promises more: 1, the more the better; -1, the less. Retention is in neither, as nobody
# says whether data are kept at least or at most so long.
BETTER: Final = {
    "availability": 1,
    "throughput": 1,
    "completeness": 1,
    "errorRate": -1,
    "latency": -1,
    "freshness": -1,
    "frequency": -1,
    "timeToDetect": -1,
    "timeToNotify": -1,
    "timeToRepair": -1,
    "generalAvailability": -1,
    "endOfSupport": 1,
    "endOfLife": 1,
}
_MOMENTS: Final = frozenset({"generalAvailability", "endOfSupport", "endOfLife"})
_SPELLINGS: Final = {name.casefold(): name for name in (*BETTER, *SYNONYMS.values())}


def compare_terms(old: Contract, new: Contract) -> Iterator[Change]:
    """Every change of a contract outside its objects, but its version."""
    for key, pair in CONTRACT_KEYS.items():
        was, now = getattr(old, pair.attribute), getattr(new, pair.attribute)
        if not same(was, now):
            yield _change(key, was, now, *pair.verdicts)
    if old.status != new.status:
        verdict = compatible("it may be used as before")
        if new.status.strip().casefold() in _ENDING:
            verdict = unknown("it is on its way out: until when is it kept?")
        yield _change("status", old.status, new.status, verdict, verdict)
    one, other = old.description or Description(), new.description or Description()
    for key, pair in DESCRIPTION_KEYS.items():
        was, now = getattr(one, pair.attribute), getattr(other, pair.attribute)
        if not same(was, now):
            yield _change(key, was, now, *pair.verdicts)
    yield from _servers({each.server: each for each in old.servers}, {each.server: each for each in new.servers})
    yield from _levels(old, new)


def _change(key: str, was: Any, now: Any, *verdicts: Verdict) -> Change:
    producers, consumers = verdicts
    return Change(object="", path="", key=key, was=told(was), now=told(now), producers=producers, consumers=consumers)


# Servers


def _servers(old: dict[str, Server], new: dict[str, Server]) -> Iterator[Change]:
    for name in dict.fromkeys([*old, *new]):
        key = f"servers[{name}]"
        if name not in new:
            gone = breaking("who writes or reads there finds no promise of it any more")
            yield _change(key, old[name].type, UNSET, gone, gone)
        elif name not in old:
            added = compatible("one more place; the others stay")
            yield _change(key, UNSET, new[name].type, added, added)
        else:
            yield from _server(key, old[name], new[name])


def _server(key: str, old: Server, new: Server) -> Iterator[Change]:
    for field in msgspec.structs.fields(new):
        was, now = getattr(old, field.name), getattr(new, field.name)
        if same(was, now):
            continue
        verdict = breaking("who writes or reads there does it in another way or at another place")
        if field.name in _ABOUT_SERVERS:
            verdict = compatible("it explains, and asks nothing of a record")
        elif field.name in _OF_SERVERS_OPEN:
            verdict = unknown("the place is the same: ask those who use it whether they still may and should")
        yield _change(f"{key}.{field.encode_name}", was, now, verdict, verdict)


# Service levels


def _levels(old: Contract, new: Contract) -> Iterator[Change]:
    before, after = _by_subject(old), _by_subject(new)
    for subject in dict.fromkeys([*before, *after]):
        was, now = before.get(subject), after.get(subject)
        key = f"slaProperties[{subject}]"
        if was is None or now is None:
            before_it, after_it = (UNSET if each is None else _stated(each) for each in (was, now))
            yield _change(key, before_it, after_it, _kept(was, now, "producers"), _kept(now, was, "consumers"))
        elif _terms(was) != _terms(now):
            yield _change(key, _stated(was), _stated(now), _kept(was, now, "producers"), _kept(now, was, "consumers"))
        elif not same(was, now):
            words = compatible("it explains, and promises nothing")
            yield _change(key, _stated(was), _stated(now), words, words)


def _by_subject(contract: Contract) -> dict[str, ServiceLevel]:
    found: dict[str, ServiceLevel] = {}
    for level in contract.sla_properties:
        element = level.element or contract.sla_default_element
        subject = f"{_canonical(level.property)} of {element}" if element else _canonical(level.property)
        names = [subject, *(f"{subject} ({i})" for i in range(2, len(contract.sla_properties) + 2))]
        found[next(name for name in names if name not in found)] = level
    return found


def _canonical(name: str) -> str:
    folded = name.strip().casefold()
    return SYNONYMS.get(folded) or _SPELLINGS.get(folded, name)


def _kept(source: ServiceLevel | None, target: ServiceLevel | None, side: str) -> Verdict:
    """Whether who keeps the source's level keeps the target's."""
    producing = side == "producers"
    if target is None:
        return compatible("it need not be kept any more" if producing else "nothing was promised before")
    if source is None:
        return breaking("nobody had to keep it" if producing else "it is promised no more")
    keeps = _promises_as_much(source, target)
    if keeps is None:
        return unknown("nobody can say which of the two promises more")
    if keeps:
        return compatible("who kept it before keeps it still" if producing else "at least as much is promised")
    return breaking("more must be kept than before" if producing else "less is promised than before")


def _promises_as_much(source: ServiceLevel, target: ServiceLevel) -> bool | None:
    if _terms(source) == _terms(target):
        return True
    name = _canonical(source.property)
    same_schedule = (source.scheduler, source.schedule) == (target.scheduler, target.schedule)
    if name not in BETTER or not same_schedule or not same(source.value_ext, target.value_ext):
        return None
    order = _order(_moment_of if name in _MOMENTS else _amount_of, source, target)
    if order is None:
        return None
    return order * BETTER[name] >= 0


def _order(
    read: Callable[[ServiceLevel], tuple[str, tuple[Any, ...]] | None], one: ServiceLevel, other: ServiceLevel
) -> int | None:
    """1, 0 or -1 as one is more than, equal to or less than the other; None where they do not compare."""
    left, right = read(one), read(other)
    if left is None or right is None or left[0] != right[0]:
        return None
    pairs = list(zip(left[1], right[1], strict=True))
    if all(a == b for a, b in pairs):
        return 0
    if all(a >= b for a, b in pairs):
        return 1
    return -1 if all(a <= b for a, b in pairs) else None


def _moment_of(level: ServiceLevel) -> tuple[str, tuple[Any, ...]] | None:
    try:
        return "moment", (parse_moment(level.value),)
    except ValueError:
        return None


def _amount_of(level: ServiceLevel) -> tuple[str, tuple[Any, ...]] | None:
    """A span of time, or else a number in its unit."""
    try:
        span = parse_duration(level.value, level.unit)
    except ValueError:
        value = level.value
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        unit = (level.unit or "").strip().casefold()
        return {"%": "percent"}.get(unit, unit), (value,)
    return "span", (span.months, span.seconds)


def _terms(level: ServiceLevel) -> bytes:
    given = {name: getattr(level, name) for name in level.__struct_fields__ if name not in _ABOUT_LEVELS}
    given["property"] = _canonical(level.property)
    return msgspec.json.encode({k: v for k, v in given.items() if v is not UNSET}, order="sorted")


def _stated(level: ServiceLevel) -> Any:
    given = {field.encode_name: getattr(level, field.name) for field in msgspec.structs.fields(level)}
    return {key: each for key, each in given.items() if each is not None and each is not UNSET}
