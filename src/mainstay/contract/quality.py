"""The quality checks of an object, compiled once: what each counts, what it demands of the count, and its verdict.

A check of the library counts values or rows of a table; one of type sql asks a query; words for people and rules of
other engines are kept, and unknown. Nothing here looks at data: `quality_measures` counts, `sql` asks.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

from msgspec import UNSET, Struct

from mainstay.contract.own_rules import is_own_rule
from mainstay.contract.sql import fill_in
from mainstay.contract.standard import check_kinds
from mainstay.documents import describe, join, nearest, shorten

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from mainstay.contract.sql_types import Answer
    from mainstay.contract.types import Property, Quality, SchemaObject

Verdict: TypeAlias = Literal["pass", "fail", "unknown"]
Kind: TypeAlias = Literal["library", "sql", "text", "custom"]
Path: TypeAlias = tuple[str, ...]  # names of properties from the object down; ITEMS for those of an array

ITEMS: Final = "[]"
WHOLE_OBJECT: Final = "$"

# What v3.0 called the metrics. A `rule` is deprecated and stands beside a metric, if at all.
RULES: Final = {
    "nullCheck": "nullValues",
    "nullValues": "nullValues",
    "missingValues": "missingValues",
    "validValues": "invalidValues",
    "invalidValues": "invalidValues",
    "duplicateCount": "duplicateValues",
    "duplicateValues": "duplicateValues",
    "unique": "duplicateValues",
    "countCheck": "rowCount",
    "rowCount": "rowCount",
}


class QualityVerdict(Struct, frozen=True, kw_only=True):
    """How a table keeps one check. `answerable`: some table could keep or break it."""

    field: str  # a path such as customer.email, and `$` for the object itself
    kind: Kind
    metric: str | None
    name: str | None
    id: str | None
    description: str | None
    dimension: str | None
    severity: str | None
    business_impact: str | None
    required: str
    observed: int | float | bool | None  # in the unit of the check
    unit: str | None
    count: int | None  # values or rows that were counted, and of how many
    places: int | None
    verdict: Verdict
    reason: str  # why it is unknown
    answerable: bool


class Requirement(NamedTuple):
    """What an operator demands of a number, or of a truth value."""

    words: str
    of: Literal["number", "boolean"]
    holds: Callable[[Any], bool]  # of a Fraction, or of a bool


class Counted(NamedTuple):
    """What was counted, and of how many."""

    hits: int
    places: int


@dataclass(frozen=True, slots=True)
class Measure:
    """What a check of the library counts."""

    metric: Literal["nullValues", "missingValues", "invalidValues", "duplicateValues", "rowCount"]
    paths: tuple[Path, ...] = ()  # of the values; several where rows are told apart by all of them together
    kind: str | None = None  # the logicalType of the values
    format: str | None = None  # and its format
    values: tuple[Any, ...] | None = None  # those called missing, or valid
    pattern: str | None = None  # that valid values match


@dataclass(frozen=True, slots=True)
class QualityCheck:
    """One check, compiled. It has a measure or a query; where it has neither, it is unknown for the reason given."""

    declared: Quality
    kind: Kind
    field: str
    requirement: Requirement | None = None
    measure: Measure | None = None
    query: str | None = None
    reason: str = ""
    answerable: bool = True

    def counted(self, found: Counted) -> QualityVerdict:
        """The verdict on what its measure counted."""
        if not self._is_percent:
            return self._compared(Fraction(found.hits), found.hits, found)
        if not found.places:
            return self.unknown("there is nothing to take a share of", found)
        share = Fraction(100 * found.hits, found.places)
        return self._compared(share, float(share), found)

    def answered(self, answer: Answer) -> QualityVerdict:
        """The verdict on what its query answered."""
        wanted = "number" if self.requirement is None else self.requirement.of
        if answer.kind in {"number", "boolean"} and answer.kind != wanted:
            return self.unknown(f"expected a {wanted}, found {shorten(answer.text)}")
        match answer.kind:
            case "number":
                number = Fraction(answer.text)
                return self._compared(number, int(number) if number.denominator == 1 else float(number))
            case "boolean":
                return self._compared(answer.text == "true", answer.text == "true")
            case "refused":
                return self.unknown(f"the query was refused: {answer.text}")
            case "stopped":
                return self.unknown(f"the query was stopped: {answer.text}")
            case "null" | "other" | "broken":
                return self.unknown(answer.text)

    def unknown(self, reason: str, found: Counted | None = None) -> QualityVerdict:
        """The verdict where nothing could be compared."""
        return self._verdict("unknown", None, found, reason)

    @property
    def _is_percent(self) -> bool:
        return self.measure is not None and _unit(self.declared) == "percent"

    def _compared(self, value: Fraction | bool, shown: float | bool, found: Counted | None = None) -> QualityVerdict:
        if self.requirement is None:
            return self.unknown(self.reason, found)
        return self._verdict("pass" if self.requirement.holds(value) else "fail", shown, found, "")

    def _verdict(
        self, verdict: Verdict, observed: float | bool | None, found: Counted | None, reason: str
    ) -> QualityVerdict:
        declared = self.declared
        unit = _unit(declared) if self.measure is not None else declared.unit
        words = "" if self.requirement is None else self.requirement.words
        return QualityVerdict(
            field=self.field,
            kind=self.kind,
            metric=declared.metric if self.kind == "library" else None,
            name=declared.name,
            id=declared.id,
            description=declared.description,
            dimension=declared.dimension,
            severity=declared.severity,
            business_impact=declared.business_impact,
            required=f"{words} {unit}" if words and unit else words,
            observed=observed,
            unit=unit,
            count=None if found is None else found.hits,
            places=None if found is None else found.places,
            verdict=verdict,
            reason=reason,
            answerable=self.answerable,
        )


def compile_quality(declared: SchemaObject) -> tuple[QualityCheck, ...]:
    """Every check of an object and of its properties, in the order of the document, but for those of single records.

    A check that cannot be made says why; nothing is raised.
    """
    made = [check for each in declared.quality for check in _checks(each, declared, (), None)]
    for path, owner in _walk(declared.properties, ()):
        made += [check for each in owner.quality for check in _checks(each, declared, path, owner)]
    return tuple(made)


def _walk(properties: Sequence[Property], above: Path) -> Iterator[tuple[Path, Property]]:
    for each in properties:
        yield from _walk_one(each, (*above, each.name))


def _walk_one(owner: Property, path: Path) -> Iterator[tuple[Path, Property]]:
    yield path, owner
    yield from _walk(owner.properties, path)
    if owner.items is not None:
        yield from _walk_one(owner.items, (*path, ITEMS))


def show_path(path: Path) -> str:
    """A path as people read it: `lines[].price`, and `$` for the object itself."""
    shown = ""
    for part in path:
        shown = shown + ITEMS if part == ITEMS else join(shown, part)
    return shown or WHOLE_OBJECT


def _checks(declared: Quality, owner: SchemaObject, path: Path, at: Property | None) -> Iterator[QualityCheck]:
    """One check per kind: a metric makes it one of the library, whatever else its type makes it."""
    field = show_path(path)
    for kind in check_kinds(declared.type, declared.metric) or ["text"]:
        match kind:
            case "library":
                yield _library(declared, owner, path, at)
            case "sql":
                yield _sql(declared, owner, path)
            case "custom" if is_own_rule(declared):
                continue  # asked of every row, and told among the rules that rows break
            case "custom":
                engine = shorten(declared.engine or "another engine")
                yield _elsewhere(declared, "custom", field, f"it is a rule of {engine}, which is not run here")
            case _:
                yield _elsewhere(declared, "text", field, "it is in words, for people to judge")


def _elsewhere(declared: Quality, kind: Kind, field: str, reason: str) -> QualityCheck:
    return QualityCheck(declared, kind, field, reason=reason, answerable=False)


def _library(declared: Quality, owner: SchemaObject, path: Path, at: Property | None) -> QualityCheck:
    field = show_path(path)
    try:
        requirement = read_requirement(declared, booleans=False)
        _check_words(declared)
        measure = _measure(declared, owner, path, at)
    except ValueError as error:
        return QualityCheck(declared, "library", field, reason=str(error))
    return QualityCheck(declared, "library", field, requirement, measure)


def _check_words(declared: Quality) -> None:
    """Raises ValueError when a check says two things, or counts in a unit that nothing here counts in."""
    meant = RULES.get(declared.rule or "")
    if meant is not None and meant != declared.metric:
        raise ValueError(f"its metric is {declared.metric}, and its rule means {meant}")
    unit = _unit(declared)
    if unit not in {"rows", "percent"}:
        raise ValueError(f"expected a unit of rows or percent, found {shorten(unit)}")
    if unit == "percent" and declared.metric == "rowCount":
        raise ValueError("rows cannot be counted in percent")


def _unit(declared: Quality) -> str:
    return "rows" if declared.unit is None else declared.unit.strip().casefold()


def _sql(declared: Quality, owner: SchemaObject, path: Path) -> QualityCheck:
    field = show_path(path)
    try:
        requirement = read_requirement(declared, booleans=True)
        query = fill_in(declared.query or "", owner.name, _column(path))
    except ValueError as error:
        return QualityCheck(declared, "sql", field, reason=str(error))
    return QualityCheck(declared, "sql", field, requirement, query=query)


def _column(path: Path) -> Path:
    if ITEMS in path:
        raise ValueError("it stands at the items of an array, which are no column")
    return path


# What is counted


def _measure(declared: Quality, owner: SchemaObject, path: Path, at: Property | None) -> Measure:
    given = declared.arguments or {}
    match declared.metric:
        case "rowCount" if at is None:
            return Measure("rowCount")
        case "duplicateValues":
            return _duplicates(given, owner, path, at)
        case "rowCount" | None:
            raise ValueError("rows are counted at an object; this check stands at a property")
        case metric if at is None:
            raise ValueError(f"{metric} are counted at a property; this check stands at an object")
        case "nullValues":
            return Measure("nullValues", (path,))
        case "missingValues":
            listed = _list(given, "missingValues")
            return Measure("missingValues", (path,), at.logical_type, _format(at), listed)
        case "invalidValues":
            values = _list(given, "validValues") if "validValues" in given else None
            pattern = given.get("pattern")
            if values is None and pattern is None:
                raise ValueError(
                    "expected arguments.validValues or arguments.pattern to say what is valid, found neither"
                )
            return Measure("invalidValues", (path,), at.logical_type, _format(at), values, pattern)


def _format(at: Property) -> str | None:
    return None if at.logical_type_options is None else at.logical_type_options.format


def _duplicates(given: dict[str, Any], owner: SchemaObject, path: Path, at: Property | None) -> Measure:
    if at is not None:
        if "properties" in given:
            raise ValueError("arguments.properties belong to a check at an object; this one stands at a property")
        return Measure("duplicateValues", (_scalar_path(path, at),))
    names = _list(given, "properties")
    if not names:
        raise ValueError("expected at least one name in arguments.properties, found none")
    known = {show_path(each): (each, found) for each, found in _walk(owner.properties, ())}
    paths = []
    for name in names:
        if name not in known:
            near = nearest(name, known) if isinstance(name, str) else None
            meant = f" (did you mean {near}?)" if near else ""
            raise ValueError(f"arguments.properties names {describe(name)}, which {owner.name} does not have{meant}")
        paths.append(_scalar_path(*known[name]))
    return Measure("duplicateValues", tuple(paths))


def _scalar_path(path: Path, at: Property) -> Path:
    if ITEMS in path or at.logical_type in {"object", "array"} or at.properties or at.items:
        raise ValueError(
            f"duplicates are counted of plain values; {show_path(path)} holds or lies in an object or array"
        )
    return path


def _list(given: dict[str, Any], key: str) -> tuple[Any, ...]:
    found = given.get(key)
    if isinstance(found, list | tuple):
        return tuple(found)
    raise ValueError(f"expected a list in arguments.{key}, found {describe(found) if key in given else 'nothing'}")


# What is demanded


def read_requirement(declared: Quality, *, booleans: bool) -> Requirement:
    """What the operator of a check demands; of a truth value only with `booleans`.

    Raises ValueError with the reason when there is none to be understood.

    As the standard says, `mustBeBetween` is the same as `mustBeGreaterThan` and `mustBeLessThan` together, so neither
    end is between; `mustNotBeBetween` is its opposite.
    """
    if declared.must_be is not UNSET:
        return _equal("", declared.must_be, operator.eq, booleans=booleans)
    if declared.must_not_be is not UNSET:
        return _equal("not ", declared.must_not_be, operator.ne, booleans=booleans)
    for bound, words, compare in (
        (declared.must_be_greater_than, "more than", operator.gt),
        (declared.must_be_greater_or_equal_to, "at least", operator.ge),
        (declared.must_be_less_than, "less than", operator.lt),
        (declared.must_be_less_or_equal_to, "at most", operator.le),
    ):
        if bound is not None:
            return Requirement(f"{words} {bound:,}", "number", partial(_compared_with, compare, _exact(bound)))
    if declared.must_be_between is not None:
        low, high = _interval(declared.must_be_between)
        return Requirement(_between("", declared.must_be_between), "number", lambda value: low < value < high)
    if declared.must_not_be_between is not None:
        low, high = _interval(declared.must_not_be_between)
        return Requirement(
            _between("not ", declared.must_not_be_between), "number", lambda value: not low < value < high
        )
    raise ValueError("it has no operator, so it demands nothing")


def _equal(words: str, wanted: Any, compare: Callable[[Any, Any], bool], *, booleans: bool) -> Requirement:
    if isinstance(wanted, bool) and booleans:
        return Requirement(f"{words}{'true' if wanted else 'false'}", "boolean", lambda value: compare(value, wanted))
    if isinstance(wanted, int | float) and not isinstance(wanted, bool):
        return Requirement(f"{words}{wanted:,}", "number", partial(_compared_with, compare, _exact(wanted)))
    raise ValueError(f"expected a number to compare with, found {describe(wanted)}")


def _compared_with(compare: Callable[[Any, Any], bool], bound: Fraction, value: Fraction) -> bool:
    return compare(value, bound)


def _interval(ends: Sequence[float]) -> tuple[Fraction, Fraction]:
    low, high = map(_exact, ends)
    if low >= high:
        raise ValueError(f"expected the smaller number first, found {ends[0]:,} before {ends[1]:,}")
    return low, high


def _between(words: str, ends: Sequence[float]) -> str:
    return f"{words}strictly between {ends[0]:,} and {ends[1]:,}"


def _exact(number: float) -> Fraction:
    """A number as it is written: a share of 7 in 1000 is 0.7 percent, which no quotient of doubles says."""
    return Fraction(repr(number))
