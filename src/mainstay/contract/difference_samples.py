"""Values to try: those at the edges of what two versions of a property take, and whole records around them.

Nothing here proves anything. Whoever asks tries each value with the compiled rules.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from itertools import islice
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from mainstay.contract.difference_patterns import samples
from mainstay.contract.difference_values import ATTRIBUTES, DATED, DAY_SECONDS, Values, float_limit, integer_range
from mainstay.contract.formats import moment_reader

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from mainstay.contract.formats import Moment

MAX_SIZE: Final = 2_000  # characters or items of what is made
MAX_TRIED: Final = 3_000  # values of a property that are tried
ABSENT: Final = object()

_FORMATTED: Final[dict[str, tuple[str, ...]]] = {
    "email": ("a@b.co", "first.last@example.com"),
    "hostname": ("a", "example.com", "a-1.example.org"),
    "ipv4": ("0.0.0.0", "192.168.100.200"),  # noqa: S104 - a text of the format, not bound to
    "ipv6": ("::", "2001:db8::1", "2001:db8:0:0:0:ffff:255.255.255.255"),
    "uri": ("a:b", "https://example.com/a/b?c=d"),
    "uuid": ("123e4567-e89b-12d3-a456-426614174000",),
}
_EXAMPLES: Final[WeakKeyDictionary[Values, tuple[Any, ...]]] = WeakKeyDictionary()
_ANYTHING: Final[tuple[Any, ...]] = (0, "a", 1.5, True, [], {}, -1, "", [1], {"a": 1}, 2**53 + 1, [[]])


def candidates(values: Values, other: Values) -> Iterator[Any]:
    """Values that `values` may take, not null, and where `other` may think differently of them."""
    yield from _listed(values, other)
    match values.kind:
        case "integer" | "number":
            yield from _numbers(values, other)
        case "boolean":
            yield from (True, False)
        case "string":
            yield from _texts(values, other)
        case "date" | "timestamp" | "time":
            yield from _moments(values, other)
        case "array":
            yield from _arrays(values, other)
        case "record":
            yield from _records(values)
        case "object":
            yield from _objects(values, other)
        case _:
            yield from _ANYTHING


def examples(values: Values) -> tuple[Any, ...]:
    """A few values that a property takes; none where none could be made."""
    found = _EXAMPLES.get(values)
    if found is None:
        tried = islice(candidates(values, values), MAX_TRIED)
        found = _EXAMPLES[values] = tuple(islice((each for each in tried if values.accepts(each)), 12))
    return found


def _listed(*versions: Values) -> Iterator[Any]:
    for values in versions:
        for rule in values.binding:
            yield from (each for each in (rule.arguments or {}).get("validValues", ()) if each is not None)


# Numbers


def _numbers(values: Values, other: Values) -> Iterator[Any]:
    steps = [each.step for each in (values, other) if each.step is not None]
    for seed in _seeds(other, values):
        for near in _near(seed, steps):
            yield from _written(near, values.kind)
    if values.step is not None:
        for times in range(2, 50):
            yield from _written(values.step * times, values.kind)


def _seeds(*versions: Values) -> Iterator[Fraction]:
    for values in versions:
        for key in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"):
            bound = getattr(values.options, ATTRIBUTES[key])
            if isinstance(bound, int | float):
                yield Fraction(bound)
    yield from map(Fraction, (1, 0, -1, 2**53))
    for values in versions:
        if values.kind == "integer":
            yield from map(Fraction, integer_range(values.options.format))
        elif values.kind == "number":
            limit = Fraction(float_limit(values.options.format))
            yield from (limit, -limit)


def _near(seed: Fraction, steps: Sequence[Fraction]) -> Iterator[Fraction]:
    yield from (seed, seed + 1, seed - 1, seed + Fraction(1, 2), seed - Fraction(1, 2))
    as_float = _float(seed)
    if as_float is not None:
        for towards in (math.inf, -math.inf):
            beside = math.nextafter(as_float, towards)
            if math.isfinite(beside):
                yield Fraction(beside)
    for step in steps:
        times = math.floor(seed / step)
        yield from (step * (times + more) for more in (0, 1, -1, 2))


def _written(value: Fraction, kind: str) -> Iterator[Any]:
    """A number as JSON writes it: for an integer the whole ones beside it."""
    whole = (math.floor(value), math.ceil(value))
    if kind == "integer":
        yield from whole
        return
    as_float = _float(value)
    if as_float is not None:
        yield as_float
        if as_float.is_integer():
            yield int(as_float)


def _float(value: Fraction) -> float | None:
    try:
        return float(value)
    except OverflowError:
        return None


# Texts


def _texts(values: Values, other: Values) -> Iterator[str]:
    for each in (values, other):
        for pattern in each.patterns:
            yield from samples(pattern)
        yield from _FORMATTED.get(each.format or "", ())
    sizes = sorted({size for size in _sizes(values.length, other.length) if size <= MAX_SIZE})
    for size in sizes:
        yield from _sized(size, values.format)
    for size in sizes:
        yield from (char * size for char in ("a", "0", "A", " ", "é"))
    for texts in _FORMATTED.values():
        yield from texts
    for kind in sorted(DATED):
        yield _moment_text(kind, (date(2024, 2, 29).toordinal() * DAY_SECONDS, ""), "Z")


def _sizes(*ranges: tuple[int, int | None]) -> Iterator[int]:
    yield from (1, 0, 2, 3, 10, 40)
    for least, most in ranges:
        for edge in (least, most):
            if edge is not None:
                yield from (each for each in (edge, edge - 1, edge + 1) if each >= 0)


def _sized(size: int, name: str | None) -> Iterator[str]:
    """A text of a format and a size, where that is easily made."""
    match name:
        case "uri" if size >= 3:
            yield "a:" + "b" * (size - 2)
        case "email" if size >= 5:
            host = "b" * min(size - 4, 63)
            yield "a" * (size - 3 - len(host)) + "@" + host + ".c"
            yield "a@" + ".".join(["b"] * ((size - 1) // 2))
        case "hostname" if size >= 1:
            yield "a" * (1 + (size - 1) % 2) + ".a" * ((size - 1) // 2)


# Dates and times


def _moments(values: Values, other: Values) -> Iterator[str]:
    kind = values.kind
    seeds: list[Moment] = []
    for each in (values, other):
        for key in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"):
            bound = getattr(each.options, ATTRIBUTES[key])
            if isinstance(bound, str) and each.kind == kind:
                found = moment_reader(kind)(bound)
                seeds += [] if found is None else [found]
    base = 0 if kind == "time" else date(2024, 2, 29).toordinal() * DAY_SECONDS
    seeds.append((base + 43_200 * (kind == "time"), ""))
    for seconds, fraction in seeds:
        step = DAY_SECONDS if kind == "date" else 1
        for moment in ((seconds, fraction), (seconds + step, fraction), (seconds - step, fraction), (seconds, "5")):
            yield from _moment_texts(kind, moment)


def _moment_texts(kind: str, moment: Moment) -> Iterator[str]:
    for offset in ("Z", "", "+01:00"):
        shift = 3_600 if offset == "+01:00" else 0
        text = _moment_text(kind, (moment[0] + shift, moment[1]), offset)
        if text:
            yield text


def _moment_text(kind: str, moment: Moment, offset: str) -> str:
    """A moment as RFC 3339 has it; empty where it has no such one."""
    days, seconds = divmod(moment[0], DAY_SECONDS)
    if kind == "time" and days:
        return ""
    if kind != "time" and not 1 <= days <= date.max.toordinal():
        return ""
    day = "" if kind == "time" else date.fromordinal(days).isoformat()
    if kind == "date":
        return day
    clock = f"{seconds // 3_600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    clock += f".{moment[1]}" if moment[1] else ""
    return f"{day}T{clock}{offset}" if day else clock + offset


# Arrays and objects


def _arrays(values: Values, other: Values) -> Iterator[list[Any]]:
    pool = list(examples(values.items))
    for size in dict.fromkeys(_sizes(values.count, other.count)):
        if size <= MAX_SIZE and (pool or not size):
            yield [pool[i % len(pool)] for i in range(size)]
            if values.items.kind == "integer" and not values.items.binding:
                yield list(range(size))
    for each in pool:
        yield [each] * 2


def _records(values: Values) -> Iterator[dict[str, Any]]:
    for only_required in (True, False):
        made = around(values.children, only_required=only_required)
        if made is not None:
            yield made
            optional = [name for name in made if not values.children[name].required]
            for count in range(1, len(optional)):
                yield {name: each for name, each in made.items() if name not in optional[:count]}
            yield made | dict.fromkeys(optional)


def _objects(values: Values, other: Values) -> Iterator[dict[str, Any]]:
    named = dict.fromkeys([*(values.options.required or ()), *(other.options.required or ())])
    for name in values.options.required or ():
        yield {each: 0 for each in values.options.required or () if each != name}
    for filler in (0, "a", None):
        for size in _sizes(values.fields, other.fields):
            names = list(dict.fromkeys([*(values.options.required or ()), *(f"field{i}" for i in range(size))]))
            if size <= MAX_SIZE:
                yield {name: 0 if name in named else filler for name in names[:size]}
    yield dict.fromkeys(named, 0)
    known = around(other.children, only_required=False)
    if known:
        yield known
        yield known | {"field0": 0}


# Whole records


@dataclass(frozen=True)
class Step:
    """One level on the way from a record down to a value: the field of an object, or the item of an array."""

    siblings: Mapping[str, Values] | None  # of a field, itself among them; None: an item
    name: str = ""
    array: Values | None = None

    def around(self, value: Any, *, only_required: bool) -> Any:
        """An object or an array that holds `value`; None where none can be made."""
        if self.array is not None:
            return self._items(value)
        rest = {name: each for name, each in (self.siblings or {}).items() if name != self.name}
        made = around(rest, only_required=only_required)
        if made is None or value is ABSENT:
            return made
        return made | {self.name: value}

    def _items(self, value: Any) -> list[Any] | None:
        array = self.array
        assert array is not None
        given = [None if value is ABSENT else value]
        pool = [each for each in examples(array.items) if each != value]
        missing = max(array.count[0] - 1, 0)
        if (missing and not pool) or missing > MAX_SIZE:
            return None
        return given + [pool[i % len(pool)] for i in range(missing)]


def around(children: Mapping[str, Values], *, only_required: bool) -> dict[str, Any] | None:
    """A record of these fields, or of the required ones only; None where a required one has no value to take."""
    made: dict[str, Any] = {}
    for name, values in children.items():
        if only_required and not values.required:
            continue
        known = examples(values)
        if known:
            made[name] = known[0]
        elif values.required:
            return None
    return made


def whole_records(steps: Iterable[Step], value: Any) -> Iterator[dict[str, Any]]:
    """Records that hold `value` at the end of the steps, from the outermost in; ABSENT: that lack it."""
    way = list(steps)
    for only_required in (True, False):
        made = value
        for step in reversed(way):
            made = step.around(made, only_required=only_required)
            if made is None:
                break
        if isinstance(made, dict):
            yield made
