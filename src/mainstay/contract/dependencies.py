"""The rule `functional-dependency`: what some properties of a record settle about others, by a table.

    quality:
      - type: custom
        engine: mainstay
        implementation:
          rule: functional-dependency
          determinant: [city]
          dependent: [state, county]
          mapping:
            - [birmingham, al, jefferson]
            - [abbeville, null, henry]

A row of the table begins with the determinant's values, and goes on with what they settle; null settles nothing. A
record whose determinant is in no row, or not whole, is not judged. A dependent that is absent where the table has a
value breaks the rule. Values that break a rule of their own are not held against others.

A contradiction says that one side is wrong, not which. So all tables of an object are asked, and of the fields in the
contradictions the one is blamed of which the largest share of opinions is contradicted, with one more opinion for it: a
wrong value seldom agrees with anything. An agreement on a value that most rows of the table have counts for little. Of
two like that it is the dependent before the determinant, then the one that came first; and so on, until every
contradiction has its culprit.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from mainstay.contract.own_rules import FUNCTIONAL_DEPENDENCY, implementation_of
from mainstay.contract.types import Violation
from mainstay.contract.values import show
from mainstay.contract.violations import MASKED, find_in_fields
from mainstay.documents import shorten

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from mainstay.contract.rules import Node
    from mainstay.contract.types import Quality

MOST_SHOWN: Final = 3  # fields that a violation names


@dataclass(frozen=True, slots=True, eq=False)
class Dependency:
    """One table. Numbers of a number property are floats in it, as records have them."""

    determinant: tuple[str, ...]
    dependent: tuple[str, ...]
    mapping: Mapping[tuple[Any, ...], tuple[Any, ...]]
    shares: tuple[Mapping[Any, float], ...]  # of the rows that have it, by value of each dependent


class _Opinion(NamedTuple):
    """What a table says of one dependent of a record."""

    order: int  # among all
    determinant: tuple[str, ...]
    dependent: str
    expected: Any
    agrees: bool
    surprise: float  # that an agreement is: 1 less the share of the table's rows that have this value

    @property
    def sides(self) -> tuple[str, ...]:
        return (*self.determinant, self.dependent)


def names_of(given: str | Sequence[str]) -> tuple[str, ...]:
    """One name, or several."""
    return (given,) if isinstance(given, str) else tuple(given)


def dependencies_of(quality: Iterable[Quality], nodes: Mapping[str, Node]) -> tuple[Dependency, ...]:
    """The tables among the checks of an object, which were found right when its contract was read."""
    given = [each for check in quality if (each := implementation_of(check, FUNCTIONAL_DEPENDENCY)) is not None]
    return tuple(_compile(each, nodes) for each in given)


def _compile(given: dict[str, Any], nodes: Mapping[str, Node]) -> Dependency:
    determinant, dependent = names_of(given["determinant"]), names_of(given["dependent"])
    is_number = [nodes[name].kind == "number" for name in dependent]
    width = len(determinant)
    mapping = {}
    for row in given["mapping"]:
        settled = zip(row[width:], is_number, strict=True)
        mapping[tuple(row[:width])] = tuple(
            float(value) if number and value is not None else value for value, number in settled
        )
    counts: list[Counter[Any]] = [Counter(values) for values in zip(*mapping.values(), strict=True)]
    shares = tuple({value: times / len(mapping) for value, times in each.items()} for each in counts)
    return Dependency(determinant, dependent, mapping, shares)


class Dependencies:
    """All tables of an object, compiled for its records."""

    def __init__(self, tables: Sequence[Dependency], fields: Sequence[tuple[str, Node]]) -> None:
        self.tables = tables
        self.names = tuple(dict.fromkeys(name for each in tables for name in (*each.determinant, *each.dependent)))
        self._nodes = dict(fields)
        self._places = {name: place for place, (name, _) in enumerate(fields)}

    def check(self) -> Callable[[Any], None]:
        """What raises msgspec.ValidationError for a decoded record that breaks a table."""
        checks = [self._check(each) for each in self.tables]

        def check(record: Any) -> None:
            for each in checks:
                each(record)

        return checks[0] if len(checks) == 1 else check

    def _check(self, table: Dependency) -> Callable[[Any], None]:
        determinant, dependent = (self._getter(names) for names in (table.determinant, table.dependent))
        mapping: Mapping[Any, Any] = {
            key if len(key) > 1 else key[0]: settled if len(settled) > 1 else settled[0]
            for key, settled in table.mapping.items()
        }
        several = len(table.dependent) > 1
        words = f"what {', '.join(table.determinant)} settles"

        def check(record: Any) -> None:
            settled = mapping.get(determinant(record))
            if settled is None:
                return
            found = dependent(record)
            if found != settled and (not several or _differ(settled, found)):
                raise msgspec.ValidationError(f"Expected {words} - at `$`")

        return check

    def _getter(self, names: Sequence[str]) -> Callable[[Any], Any]:
        return attrgetter(*(f"f{self._places[name]}" for name in names))

    def violations(self, record: Mapping[str, Any]) -> list[Violation]:
        """The violations of a decoded record, of which the fields in `names` are looked at."""
        opinions = self._opinions(record, {name for name in self.names if self._breaks_its_own(record, name)})
        return [self._violation(record, blamed, against) for blamed, against in _blame(opinions)]

    def _breaks_its_own(self, record: Mapping[str, Any], name: str) -> bool:
        return bool(find_in_fields([(name, self._nodes[name])], self._nodes, {name: record.get(name)}))

    def _opinions(self, record: Mapping[str, Any], broken: Collection[str]) -> list[_Opinion]:
        made: list[_Opinion] = []
        for table in self.tables:
            if any(name in broken for name in table.determinant):
                continue
            settled = table.mapping.get(tuple(record.get(name) for name in table.determinant))
            if settled is None:
                continue
            for name, expected, shares in zip(table.dependent, settled, table.shares, strict=True):
                if expected is not None and name not in broken:
                    agrees = self._tested(record, name) == expected
                    made.append(_Opinion(len(made), table.determinant, name, expected, agrees, 1 - shares[expected]))
        return made

    def _tested(self, record: Mapping[str, Any], name: str) -> Any:
        value = record.get(name)
        return value if value is None or self._nodes[name].kind != "number" else float(value)

    def _violation(self, record: Mapping[str, Any], name: str, against: Sequence[_Opinion]) -> Violation:
        """The violation of the field that is blamed for contradictions."""
        wanted = next((each for each in against if each.dependent == name), None)
        if wanted is not None:
            settlers = self._shown(record, wanted.determinant)
            hidden = self._nodes[name].masked or any(self._nodes[each].masked for each in wanted.determinant)
            expected = f"{MASKED if hidden else show(wanted.expected)}, by {settlers}"
        else:
            others = dict.fromkeys(other for each in against for other in each.sides if other != name)
            expected = f"a value that goes with {self._shown(record, tuple(others))}"
        found = MASKED if self._nodes[name].masked else _shown(record.get(name))
        return Violation(name, FUNCTIONAL_DEPENDENCY, expected, found)

    def _shown(self, record: Mapping[str, Any], names: Sequence[str]) -> str:
        said = []
        for name in names[:MOST_SHOWN]:
            value = MASKED if self._nodes[name].masked else _shown(record.get(name))
            said.append(f"{shorten(name)} {value}")
        more = len(names) - MOST_SHOWN
        return ", ".join(said) + (f" and {more} more" if more > 0 else "")


def compile_dependencies(quality: Iterable[Quality], fields: Sequence[tuple[str, Node]]) -> Dependencies | None:
    """The tables of an object with these checks and compiled properties; None where it has none."""
    tables = dependencies_of(quality, dict(fields))
    return Dependencies(tables, fields) if tables else None


def _differ(settled: Sequence[Any], found: Sequence[Any]) -> bool:
    return any(one is not None and one != other for one, other in zip(settled, found, strict=True))


def _blame(opinions: Sequence[_Opinion]) -> list[tuple[str, list[_Opinion]]]:
    """The fields to blame for the contradictions among the opinions, in the order in which those came up."""
    left = [each for each in opinions if not each.agrees]
    agreements: dict[str, float] = {}
    for each in opinions:
        if each.agrees:
            for name in each.sides:
                agreements[name] = agreements.get(name, 0) + each.surprise
    blamed: list[tuple[str, list[_Opinion]]] = []
    while left:
        against: dict[str, int] = {}
        for each in left:
            for name in (each.dependent, *each.determinant):
                against[name] = against.get(name, 0) + 1
        settled = {each.dependent for each in left}
        shares = {
            name: (count / (count + agreements.get(name, 0) + 1), name in settled) for name, count in against.items()
        }
        chosen = max(shares, key=shares.__getitem__)
        blamed.append((chosen, [each for each in left if chosen in each.sides]))
        left = [each for each in left if chosen not in each.sides]
    return sorted(blamed, key=lambda each: each[1][0].order)


def _shown(value: Any) -> str:
    return "nothing" if value is None else show(value)
