"""What a contract demands of a value, compiled once: one tree of nodes that both paths of a validator follow.

A node holds every test of its value, each with its rule and its words, for the path that explains. It also holds the
msgspec type that makes as many of those tests as it can while it decodes, and the rest (`late`), for the fast path.
"""

from __future__ import annotations

import json
import math
import operator
import re
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NamedTuple

import msgspec

from mainstay.contract.formats import (
    DATE,
    FORMAT_WORDS,
    STRING_FORMATS,
    is_ipv6,
    moment_reader,
    time_pattern,
    timestamp_pattern,
    to_python,
)
from mainstay.contract.near_misses import NEAR_MISS, near_misses_of
from mainstay.contract.own_rules import implementation_of
from mainstay.contract.types import Options, Quality, Rule
from mainstay.contract.values import count_fields, json_key, nested_deeper, show

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence

    from mainstay.contract.formats import Moment
    from mainstay.contract.near_misses import NearMisses
    from mainstay.contract.types import Property

MAX_DEPTH: Final = 64  # levels of a record, itself the first
OPEN_CLASSES: Final = frozenset({"public", "internal"})

_INT64: Final = (-(2**63), 2**63 - 1)
_WIDTHS: Final = {f"{sign}{bits}": (sign, bits) for sign in "iu" for bits in (8, 16, 32, 64, 128)}
_FLOAT32: Final = Options(minimum=-3.4028234663852886e38, maximum=3.4028234663852886e38)
# Any value but null; of JSON, there are no others.
_PRESENT: Final = bool | int | float | str | list[Any] | dict[str, Any]


class Test(NamedTuple):
    """A rule that a value of the right type keeps or breaks."""

    rule: Rule
    expected: str
    holds: Callable[[Any], bool]
    at: str = ""  # the field below the value that it is about
    given: Any = None  # what `holds` compares with; None where it cannot be said apart from it
    said: Callable[[Any], str] | None = None  # what is expected of a value, where that shows more than `expected`


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """What is demanded of one value."""

    kind: str  # a logicalType, or "any"
    required: bool  # neither absent nor null
    masked: bool  # its values are not shown
    type: Any  # what msgspec decodes, null apart
    tests: tuple[Test, ...] = ()
    late: tuple[Test, ...] = ()  # what the type does not test, and guards of the fast path
    fields: tuple[tuple[str, Node], ...] | None = None  # of an object with declared properties
    items: Node | None = None
    options: Options | None = None  # of a scalar, as declared

    @property
    def nullable_type(self) -> Any:
        return self.type if self.required else self.type | None


class _Scalar(NamedTuple):
    """A compiled scalar: its type, all tests, and those the type does not make."""

    type: Any
    tests: Sequence[Test]
    late: Sequence[Test]


def compile_fields(properties: Iterable[Property], required: Iterable[str], level: int) -> tuple[tuple[str, Node], ...]:
    """The nodes of an object's properties; `level` is how many objects and arrays enclose each of them."""
    needed = frozenset(required)
    return tuple((each.name, compile_node(each, level, required=each.name in needed)) for each in properties)


def compile_node(declared: Property, level: int, *, required: bool = False) -> Node:
    """The node of one property, at a `level` of at least 1."""
    kind = declared.logical_type or _implied_kind(declared)
    required = required or declared.required
    masked = is_classified(declared)
    options = declared.logical_type_options or Options()
    if kind == "object":
        return _object(declared, options, level, required=required, masked=masked)
    if kind == "array":
        return _array(declared, options, level, required=required, masked=masked)
    allowed = _allowed(declared)
    if kind == "any":
        tests = _one_of(allowed)
        late = (_depth_guard(level), *tests)
        return Node(kind, required, masked, _PRESENT if required else Any, tests, late)
    made = _SCALARS[kind](kind, options, declared.quality, allowed)
    return Node(kind, required, masked, made.type, tuple(made.tests), tuple(made.late), options=options)


def is_classified(declared: Property) -> bool:
    """Whether a value may not be shown: any classification but public and internal."""
    return declared.classification is not None and declared.classification.strip().lower() not in OPEN_CLASSES


def record_struct(name: str, fields: Sequence[tuple[str, Node]]) -> type[msgspec.Struct]:
    """The struct of an object. Its attributes are f0, f1, …, so that a property may be called anything.

    Unless `is_positional`, its values are given by attribute.
    """
    definitions = [
        (f"f{i}", node.type) if node.required else (f"f{i}", node.nullable_type, None)
        for i, (_, node) in enumerate(fields)
    ]
    return msgspec.defstruct(
        name,
        definitions,
        rename={f"f{i}": field for i, (field, _) in enumerate(fields)},
        forbid_unknown_fields=True,
        frozen=True,
        gc=False,
        kw_only=not is_positional(fields),
    )


def is_positional(fields: Sequence[tuple[str, Node]]) -> bool:
    """Whether no optional property precedes a required one, for which Python has no signature by position."""
    required = [node.required for _, node in fields]
    return (False, True) not in pairwise(required)


def _implied_kind(declared: Property) -> str:
    if declared.properties:
        return "object"
    return "any" if declared.items is None else "array"


# Objects and arrays


def _object(declared: Property, options: Options, level: int, *, required: bool, masked: bool) -> Node:
    tests = []
    if options.min_properties:
        tests.append(_at_least("min-properties", options.min_properties, "fields", count_fields))
    if options.max_properties is not None:
        tests.append(_at_most("max-properties", options.max_properties, "fields", count_fields))
    named = options.required or ()
    if declared.properties:
        fields = compile_fields(declared.properties, named, level + 1)
        made = record_struct("Record", fields)
        return Node("object", required, masked, made, tuple(tests), tuple(tests), fields)
    tests += [Test("required", "a value", _has(name), name) for name in named]
    late = (_depth_guard(level), *tests)
    return Node("object", required, masked, dict[str, Any], tuple(tests), late)


def _array(declared: Property, options: Options, level: int, *, required: bool, masked: bool) -> Node:
    tests, meta = [], {}
    if options.min_items:
        tests.append(_at_least("min-items", options.min_items, "items", len))
        meta["min_length"] = options.min_items
    if options.max_items is not None:
        tests.append(_at_most("max-items", options.max_items, "items", len))
        meta["max_length"] = options.max_items
    late = [] if declared.items else [_depth_guard(level)]
    if options.unique_items:
        tests.append(Test("unique-items", "no item twice", _all_differ))
        late.append(tests[-1])
    items = compile_node(declared.items, level + 1) if declared.items else None
    made: Any = list[items.nullable_type] if items else list[Any]  # type: ignore[name-defined]  # made at run time
    return Node("array", required, masked, _constrained(made, meta), tuple(tests), tuple(late), items=items)


def _has(name: str) -> Callable[[dict[str, Any]], bool]:
    return lambda value: value.get(name) is not None


def _all_differ(items: Sequence[Any]) -> bool:
    return len({json_key(item) for item in items}) == len(items)


def _depth_guard(level: int) -> Test:
    """For values the contract leaves open: what the other path tests of the record as a whole."""
    deepest = MAX_DEPTH - level
    return Test("malformed", f"at most {MAX_DEPTH} levels", lambda value: not nested_deeper(value, deepest))


def _constrained(kind: Any, meta: dict[str, Any]) -> Any:
    return Annotated[kind, msgspec.Meta(**meta)] if meta else kind


def _at_least(rule: Rule, least: int, noun: str, size: Callable[[Any], int]) -> Test:
    return Test(rule, f"at least {least} {noun}", lambda value: size(value) >= least, given=least)


def _at_most(rule: Rule, most: int, noun: str, size: Callable[[Any], int]) -> Test:
    return Test(rule, f"at most {most} {noun}", lambda value: size(value) <= most, given=most)


# Values that are listed: the metric invalidValues, where none may be invalid


def _strict_checks(quality: Iterable[Quality]) -> list[dict[str, Any]]:
    """The arguments of those checks on invalid values that hold of each record, and not only of a share of them."""
    return [
        each.arguments for each in quality if each.metric == "invalidValues" and each.arguments and _means_none(each)
    ]


def _means_none(check: Quality) -> bool:
    must_be = check.must_be
    if (isinstance(must_be, int | float) and not isinstance(must_be, bool) and must_be == 0) or (
        check.must_be_less_or_equal_to == 0
    ):
        return True
    return check.must_be_less_than == 1 and check.unit in {None, "rows"}


def _allowed(declared: Property) -> list[list[Any]]:
    return [given["validValues"] for given in _strict_checks(declared.quality) if "validValues" in given]


def _same(value: Any) -> Any:
    return value


def _double(value: Any) -> Any:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _one_of(allowed: Iterable[list[Any]], normal: Callable[[Any], Any] = _same) -> tuple[Test, ...]:
    """A test per list, of values made `normal`. Whether null may come is said by `required`, not by a list."""
    tests = []
    for values in allowed:
        keys = frozenset(json_key(normal(value)) for value in values if value is not None)
        shown = json.dumps([value for value in values if value is not None], ensure_ascii=False)
        words = f"one of {shown if len(shown) <= 200 else shown[:199] + '…'}"
        tests.append(Test("valid-values", words, _is_member(keys, normal), given=keys))
    return tuple(tests)


def _is_member(keys: frozenset[Hashable], normal: Callable[[Any], Any]) -> Callable[[Any], bool]:
    return lambda value: json_key(normal(value)) in keys


def _literal(allowed: Sequence[list[Any]], kind: type, tests: Iterable[Test]) -> Any:
    """The type of exactly those listed values that pass every test, or None where msgspec has no such type."""
    if not allowed:
        return None
    listed = [int(v) if kind is int and isinstance(v, float) and v.is_integer() else v for v in allowed[0]]
    values = dict.fromkeys(v for v in listed if type(v) is kind and all(test.holds(v) for test in tests))
    if not values or any(isinstance(value, int) and not _INT64[0] <= value <= _INT64[1] for value in values):
        return None
    return Literal[tuple(values)]


# Scalars


def _string(_: str, options: Options, quality: Sequence[Quality], allowed: list[list[Any]]) -> _Scalar:
    tests, late = [], []
    meta: dict[str, Any] = {}
    if options.min_length:
        tests.append(_at_least("min-length", options.min_length, "characters", len))
        meta["min_length"] = options.min_length
    if options.max_length is not None:
        tests.append(_at_most("max-length", options.max_length, "characters", len))
        meta["max_length"] = options.max_length
    given = [options.pattern, *(arguments.get("pattern") for arguments in _strict_checks(quality))]
    patterns = [(to_python(text), _pattern(text)) for text in given if text is not None]
    if options.format in STRING_FORMATS:
        made = STRING_FORMATS[options.format]
        patterns.append((made, _matches("format", FORMAT_WORDS[options.format], made)))
    for made, test in patterns:
        tests.append(test)
        if meta.setdefault("pattern", made) != made:  # a type has room for one
            late.append(test)
    if options.format == "ipv6":
        tests.append(Test("format", FORMAT_WORDS["ipv6"], is_ipv6))
        late.append(tests[-1])
    for check in quality:
        given_rule = implementation_of(check, NEAR_MISS)
        if given_rule is not None:
            tests.append(_near_misses(near_misses_of(given_rule)))
            late.append(tests[-1])
    listed = _one_of(allowed)
    literal = _literal(allowed, str, [*tests, *listed])
    if literal is not None:
        return _Scalar(literal, [*tests, *listed], [])
    return _Scalar(_constrained(str, meta), [*tests, *listed], [*late, *listed])


def _near_misses(made: NearMisses) -> Test:
    def said(text: str) -> str:
        return f"{show(made.nearest(text))}, or a text less like it"

    return Test("near-miss", "a listed text, or one far from all of them", made.holds, given=made, said=said)


def _pattern(text: str) -> Test:
    shown = text if len(text) <= 200 else text[:199] + "…"
    return _matches("pattern", f"text that matches {shown}", to_python(text))


def _matches(rule: Rule, expected: str, pattern: str) -> Test:
    search = re.compile(pattern).search
    return Test(rule, expected, lambda text: search(text) is not None, given=pattern)


def _dated(kind: str, options: Options, _: Sequence[Quality], allowed: list[list[Any]]) -> _Scalar:
    """Dates and times: the text stays as it came. `format` in the options says how a store writes it, not JSON."""
    pattern, words = {
        "date": (DATE, "a date, YYYY-MM-DD"),
        "timestamp": (timestamp_pattern(options.timezone), "a date and time of RFC 3339"),
        "time": (time_pattern(options.timezone), "a time of RFC 3339"),
    }[kind]
    if kind != "date" and options.timezone is not None:
        words += " with its offset" if options.timezone else " without an offset"
    read = moment_reader(kind)
    late = [test._replace(holds=_of_moment(read, test.holds)) for test in _limits(options, read)]
    late += _one_of(allowed)
    return _Scalar(_constrained(str, {"pattern": pattern}), [_matches("format", words, pattern), *late], late)


def _of_moment(read: Callable[[str], Moment | None], holds: Callable[[Moment], bool]) -> Callable[[str], bool]:
    """The test of a text's moment. A text that has none breaks the format, and no bound besides."""

    def test(text: str) -> bool:
        moment = read(text)
        return moment is None or holds(moment)

    return test


def _integer(_: str, options: Options, __: Sequence[Quality], allowed: list[list[Any]]) -> _Scalar:
    """Without a format, an integer has 64 bits: more fit neither a model nor most readers of JSON."""
    name = options.format or "i64"
    sign, bits = _WIDTHS[name]
    low, high = (0, 2**bits - 1) if sign == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    tests = [
        Test("minimum", f"at least {low} ({name})", lambda value: value >= low, given=low),
        Test("maximum", f"at most {high} ({name})", lambda value: value <= high, given=high),
    ]
    tests += _limits(options, _same)
    late = []
    meta: dict[str, int] = {}
    for test, bound in zip(tests, (low, high, *_integer_bounds(options)), strict=True):
        if not _INT64[0] <= bound <= _INT64[1]:  # msgspec compares with 64 bits
            late.append(test)
        elif "minimum" in test.rule:
            meta["ge"] = max(bound, meta.get("ge", bound))
        else:
            meta["le"] = min(bound, meta.get("le", bound))
    if options.multiple_of is not None:
        # an integer is a multiple of p/q, in lowest terms, when it is one of p
        step = Fraction(repr(options.multiple_of)).numerator
        words = f"a multiple of {options.multiple_of}"
        tests.append(Test("multiple-of", words, lambda value: value % step == 0, given=step))
        if step <= _INT64[1]:
            meta["multiple_of"] = step
        else:
            late.append(tests[-1])
    listed = _one_of(allowed)
    literal = _literal(allowed, int, [*tests, *listed])
    if literal is not None:
        return _Scalar(literal, [*tests, *listed], [])
    return _Scalar(_constrained(int, meta), [*tests, *listed], [*late, *listed])


def _integer_bounds(options: Options) -> list[int]:
    """The inclusive whole bounds that mean the same for integers, in the order of `_limits`."""
    rounded: tuple[tuple[Any, Callable[[Any], int]], ...] = (
        (options.minimum, math.ceil),
        (options.exclusive_minimum, lambda bound: math.floor(bound) + 1),
        (options.maximum, math.floor),
        (options.exclusive_maximum, lambda bound: math.ceil(bound) - 1),
    )
    return [whole(bound) for bound, whole in rounded if bound is not None]


def _decimal(_: str, options: Options, __: Sequence[Quality], allowed: list[list[Any]]) -> _Scalar:
    """Numbers are compared as the doubles they become, whether they were written 1 or 1.0."""
    limits = [options, _FLOAT32] if options.format == "f32" else [options]
    tests = [test for each in limits for test in _limits(each, float)]
    late = []
    if options.multiple_of is not None:
        step = Fraction(repr(options.multiple_of))
        words = f"a multiple of {options.multiple_of}"
        # of the decimals as they are written: 0.3 is a multiple of 0.1, which no quotient of doubles would say
        late.append(
            Test("multiple-of", words, lambda value: (Fraction(repr(value)) / step).denominator == 1, given=step)
        )
    late += _one_of(allowed, _double)
    return _Scalar(_constrained(float, _tightest(limits)), [*tests, *late], late)


def _tightest(limits: Iterable[Options]) -> dict[str, float]:
    """The closest bounds, as msgspec names them: it takes one below and one above."""
    lowest, highest = [], []
    for each in limits:
        lowest += [(float(bound), False) for bound in (each.minimum,) if bound is not None]
        lowest += [(float(bound), True) for bound in (each.exclusive_minimum,) if bound is not None]
        highest += [(float(bound), True) for bound in (each.maximum,) if bound is not None]
        highest += [(float(bound), False) for bound in (each.exclusive_maximum,) if bound is not None]
    meta = {}
    if lowest:
        bound, is_exclusive = max(lowest)
        meta["gt" if is_exclusive else "ge"] = bound
    if highest:
        bound, is_inclusive = min(highest)
        meta["le" if is_inclusive else "lt"] = bound
    return meta


def _boolean(_: str, __: Options, ___: Sequence[Quality], allowed: list[list[Any]]) -> _Scalar:
    listed = _one_of(allowed)
    return _Scalar(bool, listed, listed)


def _limits(options: Options, read: Callable[[Any], Any]) -> list[Test]:
    """A test per bound, on values that compare with what `read` makes of the bound."""
    bounds: tuple[tuple[Rule, str, Any, Callable[[Any, Any], bool]], ...] = (
        ("minimum", "at least", options.minimum, operator.le),
        ("exclusive-minimum", "more than", options.exclusive_minimum, operator.lt),
        ("maximum", "at most", options.maximum, operator.ge),
        ("exclusive-maximum", "less than", options.exclusive_maximum, operator.gt),
    )
    return [
        Test(rule, f"{words} {bound}", partial(compare, read(bound)), given=read(bound))
        for rule, words, bound, compare in bounds
        if bound is not None
    ]


_SCALARS: Final[dict[str, Callable[[str, Options, Sequence[Quality], list[list[Any]]], _Scalar]]] = {
    "string": _string,
    "date": _dated,
    "timestamp": _dated,
    "time": _dated,
    "integer": _integer,
    "number": _decimal,
    "boolean": _boolean,
}
