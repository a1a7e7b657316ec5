"""The values that a property takes, and whether all of them keep a demand that another version of it makes.

`Values.all_keep` proves; it never guesses. What it says holds of the compiled rules (`rules`), which tests show.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from mainstay.contract.difference_patterns import literals
from mainstay.contract.formats import STRING_FORMATS, moment_reader, to_python
from mainstay.contract.rules import Node, compile_node
from mainstay.contract.types import Item, Options, Property, Quality
from mainstay.contract.violations import find_violations

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mainstay.contract.formats import Moment
    from mainstay.contract.types import Violation

Demand: TypeAlias = str | Quality  # a key of logicalTypeOptions, or a quality rule
Edge: TypeAlias = tuple[Any, bool]  # a bound, and whether it is itself outside

MAX_LISTED: Final = 2_000  # values of a property that are tried one by one
DAY_SECONDS: Final = 86_400
_EXACT: Final = 2**53  # integers up to here are doubles, each its own
_NOTHING: Final = Options()
ENFORCED_FORMATS: Final = frozenset(STRING_FORMATS) | {"ipv6"}
# Texts of the first format are texts of the second.
WITHIN: Final = frozenset({("ipv4", "hostname"), ("uuid", "hostname")})
# Fewest and most characters of a text of a format; None: any number.
LENGTHS: Final[dict[str, tuple[int, int | None]]] = {
    "email": (5, 254),
    "hostname": (1, 253),
    "ipv4": (7, 15),
    "ipv6": (2, 45),
    "uri": (3, None),
    "uuid": (36, 36),
    "date": (10, 10),
    "timestamp": (19, 35),
    "time": (8, 24),
}
DATED: Final = frozenset({"date", "timestamp", "time"})
TEXTS: Final = DATED | {"string"}
_BOUNDS: Final = {
    "minimum": (1, False),
    "exclusiveMinimum": (1, True),
    "maximum": (-1, False),
    "exclusiveMaximum": (-1, True),
}
_LEAST: Final = {"minLength": "length", "minItems": "items", "minProperties": "fields"}
_MOST: Final = {"maxLength": "length", "maxItems": "items", "maxProperties": "fields"}


@dataclass(frozen=True, eq=False)  # a quality rule has no hash
class Values:
    """What a property takes. `level` is how many objects and arrays enclose it."""

    declared: Property
    required: bool
    level: int = 1

    @cached_property
    def node(self) -> Node:
        return compile_node(self.declared, self.level, required=self.required)

    @cached_property
    def kind(self) -> str:
        """The logicalType; "any" without one, and "record" for an object whose properties are declared."""
        return "record" if self.node.fields is not None else self.node.kind

    @cached_property
    def options(self) -> Options:
        return self.declared.logical_type_options or _NOTHING

    @cached_property
    def children(self) -> dict[str, Values]:
        """The fields of a record."""
        if self.kind != "record":
            return {}
        named = self.options.required or ()
        return {
            each.name: Values(each, each.required or each.name in named, self.level + 1)
            for each in self.declared.properties
        }

    @cached_property
    def items(self) -> Values:
        """The items of an array; without a declaration, anything."""
        declared = self.declared.items or Item()
        return Values(declared, declared.required, self.level + 1)

    def violations(self, value: Any) -> tuple[Violation, ...]:
        """What the rules say of a value, as that of a field called `it`."""
        root = Node("object", required=True, masked=False, type=Any, fields=(("it", self.node),))
        return find_violations(root, {"it": value})

    def accepts(self, value: Any) -> bool:
        return not self.violations(value)

    def only(self, demand: Demand, source: Values) -> Values:
        """A property of this type that asks `demand` alone, and lets pass what else `source` may take."""
        kind = self.declared.logical_type
        kept: dict[str, Any] = {}
        if kind == source.declared.logical_type:
            kept = {"timezone": source.options.timezone} if kind in {"timestamp", "time"} else {}
            if kind == "integer":
                kept = {"format": "u128" if source.options.format == "u128" else "i128"}
        if isinstance(demand, Quality):
            bare = Property(name="", logical_type=kind, quality=(demand,), logical_type_options=Options(**kept))
        else:
            attribute = ATTRIBUTES[demand]
            kept[attribute] = getattr(self.options, attribute)
            bare = Property(name="", logical_type=kind, logical_type_options=Options(**kept))
        return Values(bare, required=False, level=self.level)

    # What is known of all values

    @cached_property
    def listed(self) -> tuple[Any, ...] | None:
        """Every value but null, where they are few and known, in each way they may be written."""
        found = self._listed()
        return None if found is None else tuple(each for each in found if self.accepts(each))

    def _listed(self) -> Iterable[Any] | None:
        if self.kind == "boolean":
            return (False, True)
        lists = [q.arguments["validValues"] for q in self.binding if q.arguments and "validValues" in q.arguments]
        if lists:
            return (spelled for value in lists[0] if value is not None for spelled in _spellings(value))
        if self.kind == "string":
            found = [words for words in map(literals, self.patterns) if words is not None]
            return min(found, key=len) if found else None
        if self.kind == "integer" and self.highest[0] - self.lowest[0] < MAX_LISTED:
            return range(self.lowest[0], self.highest[0] + 1)
        if self.kind == "number" and self.lowest[0] == self.highest[0]:
            return _spellings(self.lowest[0])
        return None

    def lists_all(self, kind: str) -> bool:
        """Whether `listed` has every value, as the rules of a property of this kind tell values apart."""
        if self.listed is None:
            return False
        if self.kind == "number" and kind != "number":  # integers beyond are read as doubles that are listed
            return all(abs(value) < _EXACT for value in self.listed)
        return kind == "any" or not any(isinstance(value, list | dict) for value in self.listed)

    @cached_property
    def binding(self) -> tuple[Quality, ...]:
        """The quality rules that bind each value."""
        return tuple(each for each in self.declared.quality if self.binds(each))

    def binds(self, rule: Quality) -> bool:
        """Whether a quality rule is one of every value, as the compiled rules have it."""
        if self.kind in {"record", "object", "array"}:
            return False
        bare = Property(name="", logical_type=self.declared.logical_type)
        ruled = msgspec.structs.replace(bare, quality=(rule,))
        return len(compile_node(ruled, 1).tests) > len(compile_node(bare, 1).tests)

    @cached_property
    def patterns(self) -> tuple[str, ...]:
        """The patterns, as the contract has them, that every text matches."""
        given = [self.options.pattern, *((each.arguments or {}).get("pattern") for each in self.binding)]
        return tuple(each for each in given if isinstance(each, str))

    @cached_property
    def format(self) -> str | None:
        """The format of every text that is enforced."""
        return self.options.format if self.kind == "string" and self.options.format in ENFORCED_FORMATS else None

    @cached_property
    def length(self) -> tuple[int, int | None]:
        """Fewest and most characters."""
        least, most = LENGTHS.get(self.format or self.kind, (0, None))
        return _narrowed(least, most, self.options.min_length, self.options.max_length)

    @cached_property
    def count(self) -> tuple[int, int | None]:
        """Fewest and most items of an array."""
        return _narrowed(0, None, self.options.min_items, self.options.max_items)

    @cached_property
    def fields(self) -> tuple[int, int | None]:
        """Fewest and most fields: of a record those that are not null, of another object all."""
        least, most = 0, None
        if self.kind == "record":
            least, most = sum(each.required for each in self.children.values()), len(self.children)
        else:
            least = len(self.options.required or ())
        return _narrowed(least, most, self.options.min_properties, self.options.max_properties)

    @cached_property
    def lowest(self) -> Edge:
        return _closest(self._edges(1), 1)

    @cached_property
    def highest(self) -> Edge:
        return _closest(self._edges(-1), -1)

    def _edges(self, direction: int) -> Iterator[Edge]:
        """Every lower bound (direction 1) or upper bound (-1), as they compare."""
        if self.kind in DATED:
            yield None, False
        elif self.kind == "integer":
            yield integer_range(self.options.format)[direction < 0], False
        else:
            yield -direction * float_limit(self.options.format), False
        for key, (side, is_open) in _BOUNDS.items():
            bound = getattr(self.options, ATTRIBUTES[key])
            if side == direction and bound is not None:
                yield self._edge(bound, direction, is_open=is_open)

    def _edge(self, bound: Any, direction: int, *, is_open: bool) -> Edge:
        if self.kind in DATED:
            return self._moment_edge(moment_reader(self.kind)(bound), direction, is_open=is_open)
        if self.kind != "integer":
            return float(bound), is_open
        if direction > 0:
            return (math.floor(bound) + 1 if is_open else math.ceil(bound)), False
        return (math.ceil(bound) - 1 if is_open else math.floor(bound)), False

    def _moment_edge(self, moment: Moment | None, direction: int, *, is_open: bool) -> Edge:
        """The bound of a date or time; of dates, that of the day beside it where it is itself outside."""
        if moment is None or self.kind != "date" or not is_open:
            return moment, is_open
        return (moment[0] + direction * DAY_SECONDS, moment[1]), False

    @cached_property
    def step(self) -> Fraction | None:
        """What every value is a multiple of."""
        given = self.options.multiple_of
        if self.kind == "integer":
            return Fraction(1 if given is None else Fraction(repr(given)).numerator)
        return None if given is None else Fraction(repr(given))

    # Proofs

    def all_of_kind(self, kind: str) -> bool:
        """Whether every value, null apart, is of a kind; its demands besides are not looked at."""
        if kind in {self.kind, "any"}:
            return True
        return (kind == "number" and self.kind == "integer") or (kind == "string" and self.kind in DATED)

    def all_within(self, target: Values) -> bool:
        """Whether every value, null apart, is one of `target`; where records or items are compared, never."""
        if self.lists_all(target.kind):
            return all(map(target.accepts, self.listed or ()))
        if self.kind == "record" and target.kind == "object":
            return self._keeps_as_object(target)
        if target.kind in {"record", "array"} or not self.all_of_kind(target.kind):
            return False
        return all(self.all_keep(each, target) for each in target.demands())

    def demands(self) -> Iterator[Demand]:
        """Every demand that is made of a value of the right kind, those of fields and items apart."""
        for key, attribute in ATTRIBUTES.items():
            given = getattr(self.options, attribute)
            is_implied = (key == "format" and self.kind == "integer") or (key == "timezone" and self.kind in DATED)
            if given is not None or is_implied:
                yield key
        yield from self.binding

    def all_keep(self, demand: Demand, target: Values) -> bool:
        """Whether every value, being of `target`'s kind, keeps one of `target`'s demands."""
        is_scalar = self.kind not in {"record", "array", "object"}
        if (isinstance(demand, Quality) or is_scalar) and self.lists_all(target.kind):
            return all(map(target.only(demand, self).accepts, self.listed or ()))
        if isinstance(demand, Quality):
            return self._keeps_rule(demand)
        if demand in _BOUNDS:
            direction, is_open = _BOUNDS[demand]
            return self._beyond(demand, direction, target, is_open=is_open)
        if demand in _LEAST:
            least: int = getattr(target.options, ATTRIBUTES[demand])
            return self._size(demand)[0] >= least
        if demand in _MOST:
            limit: int = getattr(target.options, ATTRIBUTES[demand])
            most = self._size(demand)[1]
            return most is not None and most <= limit
        return self._keeps_other(demand, target)

    def _size(self, demand: str) -> tuple[int, int | None]:
        noun = (_LEAST | _MOST)[demand]
        return {"length": self.length, "items": self.count, "fields": self.fields}[noun]

    def _keeps_other(self, demand: str, target: Values) -> bool:
        wanted = getattr(target.options, ATTRIBUTES[demand])
        match demand:
            case "pattern":
                return to_python(wanted) in map(to_python, self.patterns)
            case "multipleOf":
                return self._are_multiples(target)
            case "format":
                return self._keeps_format(target)
            case "timezone":
                return self._keeps_timezone(target)
            case "uniqueItems":
                most = self.count[1]
                return not wanted or self.options.unique_items is True or (most is not None and most <= 1)
            case "required":
                return set(wanted) <= self._present()
            case _:  # defaultTimezone asks nothing of a record
                return True

    def _present(self) -> set[str]:
        """Names of fields that are never null."""
        if self.kind == "record":
            return {name for name, each in self.children.items() if each.required}
        return set(self.options.required or ())

    def _keeps_as_object(self, target: Values) -> bool:
        """A record, where null is as good as absent, as an object of any fields, where it counts."""
        least, most = sum(each.required for each in self.children.values()), len(self.children)
        wanted = target.options
        return (
            set(wanted.required or ()) <= self._present()
            and max(least, self.options.min_properties or 0) >= (wanted.min_properties or 0)
            and (wanted.max_properties is None or most <= wanted.max_properties)
        )

    def _keeps_rule(self, rule: Quality) -> bool:
        """Of values that are not listed: the same pattern."""
        given = rule.arguments or {}
        pattern = given.get("pattern")
        return "validValues" not in given and (pattern is None or to_python(pattern) in map(to_python, self.patterns))

    def _beyond(self, demand: str, direction: int, target: Values, *, is_open: bool) -> bool:
        """Whether every value is on the right side of one bound."""
        edge = target._edge(getattr(target.options, ATTRIBUTES[demand]), direction, is_open=is_open)
        return _is_within(self._for(target, direction), edge, direction)

    def _for(self, target: Values, direction: int) -> Edge:
        bound, is_open = self.lowest if direction > 0 else self.highest
        return (float(bound), is_open) if target.kind == "number" and bound is not None else (bound, is_open)

    def _are_multiples(self, target: Values) -> bool:
        if self.step is None or target.step is None:
            return False
        if self.kind == "integer" and target.kind == "number":
            is_exact = max(abs(self.lowest[0]), abs(self.highest[0])) <= _EXACT
            return (self.step if is_exact else Fraction(1)) / target.step % 1 == 0
        return self.step / target.step % 1 == 0

    def _keeps_format(self, target: Values) -> bool:
        wanted = target.options.format
        if target.kind not in {"integer", "number"}:
            is_asked = target.kind == "string" and wanted in ENFORCED_FORMATS
            return not is_asked or self.format == wanted or (self.format, wanted) in WITHIN
        limit = float_limit(wanted) if target.kind == "number" else 0.0
        low, high = (-limit, limit) if limit else integer_range(wanted)
        is_low_kept = _is_within(self._for(target, 1), (low, False), 1)
        return is_low_kept and _is_within(self._for(target, -1), (high, False), -1)

    def _keeps_timezone(self, target: Values) -> bool:
        given, wanted = self.options.timezone, target.options.timezone
        if target.kind == "timestamp":  # without a word, with an offset
            return (given is False) == (wanted is False)
        return wanted is None or given is wanted


ATTRIBUTES: Final = {
    each.encode_name: each.name for each in msgspec.structs.fields(Options)
}  # keys of logicalTypeOptions


def integer_range(name: str | None) -> tuple[int, int]:
    """The least and the greatest integer of a format; without one, of 64 bits."""
    sign, bits = (name or "i64")[0], int((name or "i64")[1:])
    return (0, 2**bits - 1) if sign == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def float_limit(name: str | None) -> float:
    """The greatest number of a format; without one, of 64 bits."""
    return 3.4028234663852886e38 if name == "f32" else sys.float_info.max


def shape(values: Values) -> Any:
    """What decides how a value compares with another one as an item: equal shapes tell the same items apart."""
    if values.kind == "record":
        return {name: shape(each) for name, each in values.children.items()}
    if values.kind == "array":
        return [shape(values.items)]
    return "text" if values.kind in TEXTS else values.kind


def _narrowed(least: int, most: int | None, low: int | None, high: int | None) -> tuple[int, int | None]:
    upper = [each for each in (most, high) if each is not None]
    return max(least, low or 0), min(upper) if upper else None


def _closest(edges: Iterable[Edge], direction: int) -> Edge:
    """The bound that leaves the least. A bound of None leaves all."""
    closest: Edge = (None, False)
    for edge in edges:
        if edge[0] is not None and (closest[0] is None or _is_within(edge, closest, direction)):
            closest = edge
    return closest


def _is_within(edge: Edge, other: Edge, direction: int) -> bool:
    """Whether what one bound leaves, the other leaves too."""
    (bound, is_open), (limit, is_limit_open) = edge, other
    if bound is None or limit is None:
        return limit is None
    if bound == limit:
        return is_open or not is_limit_open
    return bool(bound > limit if direction > 0 else bound < limit)


def _spellings(value: Any) -> Iterator[Any]:
    """The ways to write a listed value: 1 is also 1.0."""
    yield value
    if isinstance(value, int) and not isinstance(value, bool):
        as_float = float(value)
        if as_float == value:
            yield as_float
    elif isinstance(value, float) and value.is_integer():
        yield int(value)
