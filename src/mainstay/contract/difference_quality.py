"""Changes of quality rules that are about many records: a count or a share that must be within something.

A rule of the target is kept when a rule of the source measures the same and allows no more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
from msgspec import UNSET

from mainstay.contract.difference_types import Side, Verdict, breaking, compatible, unknown
from mainstay.contract.quality import read_requirement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mainstay.contract.difference_values import Values
    from mainstay.contract.types import Quality

PROSE: Final = frozenset(
    {
        *("id", "name", "description", "business_impact", "dimension", "method", "tags", "authoritative_definitions"),
    }
)
_COMPARED: Final = ("greater_than", "greater_or_equal_to", "less_than", "less_or_equal_to")
_BETWEEN: Final = ("must_be_between", "must_not_be_between")
_MEASURES: Final = ("type", "metric", "rule", "arguments", "unit", "query", "engine", "implementation")
_OPERATORS: Final = ("must_be", "must_not_be", *(f"must_be_{word}" for word in _COMPARED), *_BETWEEN)


class RuleChange(NamedTuple):
    """A rule that is not the same in both lists; None where a list has none."""

    key: str
    old: Quality | None
    new: Quality | None

    @property
    def was(self) -> Any:
        return UNSET if self.old is None else _stated(self.old)

    @property
    def now(self) -> Any:
        return UNSET if self.new is None else _stated(self.new)

    @property
    def is_prose(self) -> bool:
        """Whether only words differ."""
        return self.old is not None and self.new is not None and _without_prose(self.old) == _without_prose(self.new)


@dataclass(frozen=True)
class Ruled:
    """A rule of the target, and what is known of the source."""

    rule: Quality
    others: tuple[Quality, ...]
    side: Side
    source: Values | None = None  # None: it is about whole records
    target: Values | None = None


def compare_rules(old: tuple[Quality, ...], new: tuple[Quality, ...]) -> list[RuleChange]:
    """Rules that changed, were added or removed. A rule is the same one by its id, its name or what it measures."""
    left, right = dict(enumerate(old)), dict(enumerate(new))
    found: list[RuleChange] = []
    for key in (_encoded, lambda each: each.id, lambda each: each.name, _measure):
        for i, rule in list(left.items()):
            twin = next((j for j, each in right.items() if key(rule) is not None and key(each) == key(rule)), None)
            if twin is None:
                continue
            if _encoded(right[twin]) != _encoded(rule):
                found.append(RuleChange(f"quality[{_named(right[twin], twin)}]", rule, right[twin]))
            del left[i], right[twin]
    found += [RuleChange(f"quality[{_named(rule, i)}]", rule, None) for i, rule in left.items()]
    found += [RuleChange(f"quality[{_named(rule, j)}]", None, rule) for j, rule in right.items()]
    return found


def measures_of(ruled: Ruled) -> Verdict:
    """The verdict on a rule about many records."""
    rule, producing = ruled.rule, ruled.side == "producers"
    if rule.metric is None and rule.type in {None, "text"}:
        return unknown("it is written for people: only they can say whether the data keep it")
    if any(_implies(each, rule) for each in ruled.others) or _holds_anyway(ruled):
        return compatible("a rule that was there asks as much" if producing else "a rule that is there asks as much")
    allowed = [each for each in ruled.others if _measure(each) == _measure(rule)]
    if rule.metric is None or rule.metric == "missingValues" or _bound(rule) is None:
        return unknown("nobody can say without the data whether they keep it")
    if rule.metric == "invalidValues" and not _may_be_invalid(ruled):
        return unknown("nobody can say without the data whether they keep it")
    if rule.metric in {"nullValues", "duplicateValues"} and ruled.source is None:
        return unknown("nobody can say without the data whether they keep it")
    words = "data that broke it were accepted" if producing else "data that break it may now come"
    return breaking(words + (", by a looser rule" if allowed else ", as no rule measured it"))


def _implies(source: Quality, target: Quality) -> bool:
    """Whether data that keep one rule keep the other: it measures the same, and allows no more."""
    if _measure(source) != _measure(target):
        return False
    if _operators(source) and _encoded(_operators(source)) == _encoded(_operators(target)):
        return True
    given, wanted = _bound(source), _bound(target)
    if given is None or wanted is None:
        return False
    return all(wanted(value) for value in _measurements(source, target) if given(value))


def _holds_anyway(ruled: Ruled) -> bool:
    """Whether the values themselves leave nothing to count."""
    rule, source, target = ruled.rule, ruled.source, ruled.target
    bound = _bound(rule)
    if source is None or target is None or bound is None or not bound(Fraction(0)):
        return False
    if rule.metric == "nullValues":
        return source.required
    if rule.metric == "duplicateValues":
        return source.declared.unique
    if rule.metric == "invalidValues" and source.kind == target.kind:
        return target.binds(_strict(rule)) and source.all_keep(_strict(rule), target)
    return False


def _may_be_invalid(ruled: Ruled) -> bool:
    """Whether a value is accepted that the rule calls invalid."""
    source, target = ruled.source, ruled.target
    if source is None or target is None or source.kind != target.kind or source.listed is None:
        return (
            source is not None
            and source.listed is None
            and source.declared.logical_type == "string"
            and not (source.patterns or source.format)
        )
    return not all(map(target.only(_strict(ruled.rule), source).accepts, source.listed))


def _strict(rule: Quality) -> Quality:
    """The rule as one that binds every value."""
    cleared: dict[str, Any] = {name: UNSET if name == "must_not_be" else None for name in _OPERATORS}
    return msgspec.structs.replace(rule, **cleared | {"must_be": 0, "unit": None})


def _measurements(*rules: Quality) -> Iterator[Fraction]:
    """What could be measured: of every stretch between two bounds, and of every bound, at least one."""
    given = [each for rule in rules for bound in _operators(rule).values() for each in _numbers(bound)]
    edges = sorted({Fraction(repr(each)) for each in given})
    if rules[0].metric is not None and rules[0].unit != "percent":  # counts
        yield Fraction(0)
        for edge in edges:
            yield from (Fraction(count) for count in range(math.floor(edge) - 1, math.floor(edge) + 3) if count >= 0)
        return
    low, high = (Fraction(0), Fraction(100)) if rules[0].metric is not None else (edges[0] - 1, edges[-1] + 1)
    known = sorted({low, high, *(each for each in edges if low <= each <= high)})
    yield from known
    yield from ((one + other) / 2 for one, other in pairwise(known))


def _numbers(bound: Any) -> Iterator[float]:
    values = bound if isinstance(bound, tuple | list) else [bound]
    yield from (each for each in values if isinstance(each, int | float) and not isinstance(each, bool))


def _operators(rule: Quality) -> dict[str, Any]:
    given = {name: getattr(rule, name) for name in _OPERATORS}
    return {name: bound for name, bound in given.items() if bound is not UNSET and bound is not None}


def _bound(rule: Quality) -> Callable[[Fraction], bool] | None:
    """Whether a measurement keeps the rule; None where it is not compared with a number."""
    try:
        return read_requirement(rule, booleans=False).holds
    except ValueError:
        return None


def _measure(rule: Quality) -> bytes:
    """What a rule measures, whatever it must be. Rows are counted where it names no unit."""
    given = {name: getattr(rule, name) for name in _MEASURES}
    given["type"] = "library" if rule.metric is not None else rule.type
    given["unit"] = rule.unit or "rows"
    return msgspec.json.encode(given, order="sorted")


def _encoded(rule: Any) -> bytes:
    return msgspec.json.encode(rule, order="sorted")


def _without_prose(rule: Quality) -> dict[str, Any]:
    given = {name: getattr(rule, name) for name in rule.__struct_fields__ if name not in PROSE}
    return {name: msgspec.json.encode(value, order="sorted") for name, value in given.items() if value is not UNSET}


def _named(rule: Quality, index: int) -> str:
    return rule.id or rule.name or str(index)


def _stated(rule: Quality) -> Any:
    """A rule as a contract says it, without what it leaves out."""
    given = {field.encode_name: getattr(rule, field.name) for field in msgspec.structs.fields(rule)}
    return {key: msgspec.to_builtins(each) for key, each in given.items() if each not in (None, UNSET, ())}
