"""The service levels of a contract (`slaProperties`) as checks of a table: its newest row, its oldest, when it came.

What the standard leaves open is decided here, once. `latency` and `freshness` bound the age of the newest row, the
first at the arrival of the data where that is known; `retention` bounds the age of the oldest; `frequency` the time
between two arrivals. A level that no table can answer, and one that the standard does not name, is kept, and unknown.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime  # noqa: TC003 - msgspec reads the types of its structs at run time
from fractions import Fraction
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

from msgspec import UNSET, Struct

from mainstay.contract.durations import Duration, parse_clock, parse_duration, parse_moment, show_age
from mainstay.documents import nearest, shorten

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import time

    from mainstay.contract.types import Contract, Property, SchemaObject, ServiceLevel

Verdict: TypeAlias = Literal["pass", "fail", "unknown"]

SYNONYMS: Final = {
    "av": "availability",
    "th": "throughput",
    "er": "errorRate",
    "ga": "generalAvailability",
    "es": "endOfSupport",
    "el": "endOfLife",
    "re": "retention",
    "fy": "frequency",
    "ly": "latency",
    "td": "timeToDetect",
    "tn": "timeToNotify",
    "tr": "timeToRepair",
    "cp": "completeness",
}


class ElementFacts(Struct, frozen=True, kw_only=True):
    """What one pass over a table knows of one property. None: no row has a moment there."""

    oldest: datetime | None = None  # with an offset, as every moment here
    newest: datetime | None = None
    present: int = 0  # values that are not null
    places: int = 0  # values and nulls


class TableFacts(Struct, frozen=True, kw_only=True):
    """What is known of the data of one object. `arrivals`: the moments at which data came, where anyone noted them."""

    object: str
    rows: int = 0
    bad_rows: int | None = None  # that break a rule of the contract; None: they were not looked for
    elements: dict[str, ElementFacts] = {}  # by the path of the property
    arrivals: tuple[datetime, ...] = ()


class ServiceVerdict(Struct, frozen=True, kw_only=True):
    """How a table keeps one service level at one element. `answerable`: some table could keep or break it."""

    property: str  # as the standard spells it, where it knows it
    id: str | None
    description: str | None
    driver: str | None
    element: str  # object.property; empty where the level is of the contract as a whole
    required: str
    observed: str  # empty where nothing was
    verdict: Verdict
    reason: str  # why it is unknown, or what makes it fail
    answerable: bool


class Finding(NamedTuple):
    """What a judge of a level says."""

    verdict: Verdict
    observed: str = ""
    reason: str = ""


Judge: TypeAlias = "Callable[[TableFacts, ElementFacts, datetime], Finding]"


@dataclass(frozen=True, slots=True)
class ServiceCheck:
    """One service level at one element, compiled."""

    declared: ServiceLevel
    property: str
    object: str | None  # None: of the contract as a whole
    path: str  # of the property in the object; empty where none is needed
    element: str
    required: str
    judge: Judge | None  # None: it cannot be judged, for the reason below
    reason: str = ""
    answerable: bool = True

    def judged(self, facts: TableFacts, now: datetime) -> ServiceVerdict:
        """The verdict at the moment `now`. Facts of another object leave it unknown."""
        found = self._finding(facts, now)
        return ServiceVerdict(
            property=self.property,
            id=self.declared.id,
            description=self.declared.description,
            driver=self.declared.driver,
            element=self.element,
            required=self.required,
            observed=found.observed,
            verdict=found.verdict,
            reason=found.reason,
            answerable=self.answerable,
        )

    def _finding(self, facts: TableFacts, now: datetime) -> Finding:
        if self.judge is None:
            return Finding("unknown", reason=self.reason)
        if self.object is None:
            return self.judge(facts, ElementFacts(), now)
        if self.object != facts.object:
            return Finding("unknown", reason=f"it is of {self.object}, and these are the data of {facts.object}")
        element = facts.elements.get(self.path) if self.path else ElementFacts()
        if element is None:
            return Finding("unknown", reason=f"the data has no {self.path}")
        return self.judge(facts, element, now)


def compile_service_levels(contract: Contract) -> tuple[ServiceCheck, ...]:
    """Every service level of a contract, at each of its elements, in the order of the document."""
    made: list[ServiceCheck] = []
    for level in contract.sla_properties:
        made.extend(_compile(level, contract))
    return tuple(made)


def checks_of(checks: Sequence[ServiceCheck], name: str) -> tuple[ServiceCheck, ...]:
    """Those of one object, and those of the contract as a whole."""
    return tuple(check for check in checks if check.object in {None, name})


def _compile(level: ServiceLevel, contract: Contract) -> list[ServiceCheck]:
    known = _canonical(level.property)
    element = level.element or contract.sla_default_element or ""
    if known not in _LEVELS:
        why = _OF_A_SERVICE.get(known) or f"no check is known for the property {shorten(level.property)}"
        shown = f"{shorten(str(level.value))} {shorten(level.unit or '')}".strip()
        return [ServiceCheck(level, known, None, "", element, shown, None, why, answerable=False)]
    scope, read = _LEVELS[known]
    try:
        required, judge = read(level)
    except ValueError as error:
        return [ServiceCheck(level, known, None, "", element, "", None, str(error))]
    if scope == "contract" or (scope == "object" and not element):
        return [ServiceCheck(level, known, None, "", "", required, judge)]
    made = []
    for part in [each.strip() for each in element.split(",")]:
        try:
            name, path = _resolve(part, contract.schema, of_object=scope == "object")
        except ValueError as error:
            made.append(ServiceCheck(level, known, None, "", part, required, None, str(error)))
        else:
            needed = path if scope == "element" else ""
            made.append(ServiceCheck(level, known, name, needed, f"{name}.{path}" if path else name, required, judge))
    return made


def _canonical(name: str) -> str:
    """The standard's spelling of a property: its names are case-insensitive, and each has a synonym of two letters."""
    folded = name.strip().casefold()
    if folded in SYNONYMS:
        return SYNONYMS[folded]
    return _SPELLINGS.get(folded, name)


def _resolve(element: str, objects: Sequence[SchemaObject], *, of_object: bool) -> tuple[str, str]:
    """The object and the path of an element such as `orders.placed_at`; with `of_object`, the path may be empty.

    Raises ValueError with the reason when it leads nowhere.
    """
    if not element:
        raise ValueError("it names no element, such as orders.placed_at")
    names = {each.physical_name: each for each in objects if each.physical_name} | {each.name: each for each in objects}
    head, _, path = element.partition(".")
    if head in names and (path or of_object):
        found = names[head]
    elif len(objects) == 1:
        found, path = objects[0], element
    else:
        near = nearest(head, [each.name for each in objects])
        meant = f" (did you mean {near}?)" if near else ""
        raise ValueError(f"{shorten(element)} names no property of an object of this contract{meant}")
    if path and not _has(found.properties, path):
        raise ValueError(f"{found.name} has no property {shorten(path)}")
    return found.name, path


def _has(properties: Sequence[Property], path: str) -> bool:
    """Whether a path of names, `customer.born_at`, leads to a property. A name may hold a point itself."""
    for each in properties:
        if each.name == path:
            return True
        if path.startswith(f"{each.name}.") and _has(each.properties, path[len(each.name) + 1 :]):
            return True
    return False


# What each level asks of the facts


def _latency(level: ServiceLevel) -> tuple[str, Judge]:
    longest = _duration(level)
    return f"the newest row at most {longest} old when it arrives", partial(_newest, longest, at_arrival=True)


def _freshness(level: ServiceLevel) -> tuple[str, Judge]:
    longest = _duration(level)
    return f"the newest row at most {longest} old", partial(_newest, longest, at_arrival=False)


def _newest(longest: Duration, facts: TableFacts, element: ElementFacts, now: datetime, *, at_arrival: bool) -> Finding:
    if element.newest is None:
        return Finding("unknown", reason="no row has a moment there")
    seen = max(facts.arrivals) if at_arrival and facts.arrivals else now
    observed = f"{_show(element.newest)}, {show_age(seen - element.newest)}"
    if element.newest > seen:
        return Finding("unknown", observed, "the newest row is from the future, so its age is not known")
    return _bounded(longest.before(seen) <= element.newest, observed, "the newest row is older")


def _retention(level: ServiceLevel) -> tuple[str, Judge]:
    longest = _duration(level)
    return f"no row older than {longest}", partial(_oldest, longest)


def _oldest(longest: Duration, _: TableFacts, element: ElementFacts, now: datetime) -> Finding:
    if element.oldest is None:
        return Finding("unknown", reason="no row has a moment there")
    observed = f"{_show(element.oldest)}, {show_age(now - element.oldest)}"
    return _bounded(longest.before(now) <= element.oldest, observed, "the oldest row is older")


def _frequency(level: ServiceLevel) -> tuple[str, Judge]:
    if level.value_ext is not UNSET and level.value_ext not in {1, None}:
        raise ValueError("the standard does not say what valueExt means for a frequency; expected 1 or none")
    longest = _duration(level)
    return f"new data every {longest}", partial(_often, longest)


def _often(longest: Duration, facts: TableFacts, element: ElementFacts, now: datetime) -> Finding:
    known = sorted(facts.arrivals) or ([] if element.newest is None else [element.newest])
    if not known:
        return Finding("unknown", reason="no row has a moment there")
    observed = f"last at {_show(known[-1])}, {show_age(now - known[-1])}"
    late = next((pair for pair in pairwise([*known, now]) if longest.before(pair[1]) > pair[0]), None)
    if late is not None:
        return Finding("fail", observed, f"nothing came between {_show(late[0])} and {_show(late[1])}")
    if len(facts.arrivals) < 2:
        return Finding("unknown", observed, "nothing is overdue; one state of a table does not say how often data came")
    return Finding("pass", observed)


def _time_of_availability(level: ServiceLevel) -> tuple[str, Judge]:
    latest = parse_clock(level.value)
    return f"there by {level.value} of the day", partial(_by, latest)


def _by(latest: time, facts: TableFacts, _: ElementFacts, __: datetime) -> Finding:
    if not facts.arrivals:
        return Finding("unknown", reason="nobody noted when the data arrived")
    arrived = max(facts.arrivals).astimezone(latest.tzinfo)
    return _bounded(arrived.timetz() <= latest, _show(arrived), "the data came later in the day")


def _general_availability(level: ServiceLevel) -> tuple[str, Judge]:
    begins = parse_moment(level.value)
    return f"available from {_show(begins)}", partial(_reached, begins)


def _reached(begins: datetime, _: TableFacts, __: ElementFacts, now: datetime) -> Finding:
    return _bounded(begins <= now, _show(now), "it is not generally available yet")


def _ends(what: str, level: ServiceLevel) -> tuple[str, Judge]:
    ends = parse_moment(level.value)
    return f"{what} until {_show(ends)}", partial(_not_reached, what, ends)


def _not_reached(what: str, ends: datetime, _: TableFacts, __: ElementFacts, now: datetime) -> Finding:
    return _bounded(now < ends, _show(now), f"it is no longer {what}")


def _completeness(level: ServiceLevel) -> tuple[str, Judge]:
    least = _percent(level)
    return f"at least {level.value} percent of the values present", partial(_present, least)


def _present(least: Fraction, _: TableFacts, element: ElementFacts, __: datetime) -> Finding:
    if not element.places:
        return Finding("unknown", reason="the data has no rows")
    share = Fraction(100 * element.present, element.places)
    observed = f"{float(share):.6g} percent ({element.present:,} of {element.places:,})"
    return _bounded(share >= least, observed, "more values are missing")


def _error_rate(level: ServiceLevel) -> tuple[str, Judge]:
    most = _percent(level)
    return f"at most {level.value} percent of the rows break a rule", partial(_erring, most)


def _erring(most: Fraction, facts: TableFacts, _: ElementFacts, __: datetime) -> Finding:
    if facts.bad_rows is None or not facts.rows:
        return Finding("unknown", reason="the data has no rows" if not facts.rows else "no row was held to the rules")
    share = Fraction(100 * facts.bad_rows, facts.rows)
    observed = f"{float(share):.6g} percent ({facts.bad_rows:,} of {facts.rows:,} rows)"
    return _bounded(share <= most, observed, "more rows break a rule")


def _bounded(kept: bool, observed: str, broken: str) -> Finding:
    return Finding("pass", observed) if kept else Finding("fail", observed, broken)


def _duration(level: ServiceLevel) -> Duration:
    return parse_duration(level.value, level.unit)


def _percent(level: ServiceLevel) -> Fraction:
    if (level.unit or "").strip().casefold() not in {"percent", "%"}:
        raise ValueError(f"expected unit: percent, found {shorten(level.unit or 'none')}")
    value = level.value
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 100:
        raise ValueError(f"expected a number from 0 to 100, found {shorten(str(value))}")
    return Fraction(repr(value))


def _show(moment: datetime) -> str:
    """A moment of RFC 3339, to the second."""
    text = moment.replace(microsecond=0).isoformat()
    return text.replace("+00:00", "Z")


Reader: TypeAlias = "Callable[[ServiceLevel], tuple[str, Judge]]"

# What each level is about, and what reads it.
_LEVELS: Final[dict[str, tuple[Literal["element", "object", "contract"], Reader]]] = {
    "latency": ("element", _latency),
    "freshness": ("element", _freshness),
    "retention": ("element", _retention),
    "frequency": ("element", _frequency),
    "completeness": ("element", _completeness),
    "timeOfAvailability": ("object", _time_of_availability),
    "errorRate": ("object", _error_rate),
    "generalAvailability": ("contract", _general_availability),
    "endOfSupport": ("contract", partial(_ends, "supported")),
    "endOfLife": ("contract", partial(_ends, "in service")),
}
_SERVED: Final = "it is about the service that serves the data; no table can answer it"
_OF_A_SERVICE: Final = dict.fromkeys(
    ("availability", "throughput", "timeToDetect", "timeToNotify", "timeToRepair"), _SERVED
)
_SPELLINGS: Final = {name.casefold(): name for name in (*_LEVELS, *_OF_A_SERVICE)}
