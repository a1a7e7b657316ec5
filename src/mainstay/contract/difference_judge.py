"""What a change means for one side: proved harmless, shown harmful by an example, or neither.

A side has a source, the contract its records are written under, and a target, the contract that they are held against:
for producers the old and the new, for consumers the new and the old. A change is compatible when every record of the
source keeps what the target asks at that place.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from msgspec import UNSET, UnsetType

from mainstay.contract.difference_samples import ABSENT, MAX_SIZE, MAX_TRIED, Step, candidates, examples, whole_records
from mainstay.contract.difference_types import Side, Verdict, breaking, compatible, unknown
from mainstay.contract.difference_values import ENFORCED_FORMATS, TEXTS, Demand, Values
from mainstay.contract.types import Quality
from mainstay.contract.validator import compile_object
from mainstay.contract.values import show

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from mainstay.contract.types import SchemaObject, Violation
    from mainstay.contract.validator import ObjectValidator

_RULES: Final = {
    "minItems": "min-items",
    "maxItems": "max-items",
    "uniqueItems": "unique-items",
    "minProperties": "min-properties",
    "maxProperties": "max-properties",
    "required": "required",
}
_CONTAINERS: Final = frozenset({"record", "object", "array"})


@dataclass(frozen=True)
class Way:
    """The steps from a record of the source down to a property, and what of the target lies on it."""

    steps: tuple[Step, ...] = ()
    is_unique: bool = False  # the target wants no two here the same: the items of an array, or the keys of records

    def to_field(self, siblings: Mapping[str, Values], name: str, target: Values | None = None) -> Way:
        """The way on to a field of the source; `target` is the field there, if it has one."""
        is_key = target is not None and (target.declared.unique or target.declared.primary_key)
        return Way((*self.steps, Step(siblings, name)), self.is_unique or is_key)

    def to_items(self, source: Values, target: Values) -> Way:
        is_unique = self.is_unique or target.options.unique_items is True
        return Way((*self.steps, Step(None, array=source)), is_unique)


@dataclass(frozen=True)
class Judge:
    """Judges for one side of one object. `is_tolerant`: the target ignores fields that it does not know."""

    side: Side
    source: SchemaObject
    target: SchemaObject
    is_tolerant: bool = False

    @cached_property
    def words(self) -> dict[str, str]:
        """Reasons, in the words of the side."""
        if self.side == "producers":
            return {
                "kept": "whatever was accepted still is",
                "open": "nothing is asked here any more",
                "was": "was accepted and is refused now",
                "doubt": "neither a proof nor an example was found: does everything that was accepted still fit?",
            }
        return {
            "kept": "whatever may now come was accepted before",
            "open": "nothing was asked here before",
            "was": "may now come, and was refused before",
            "doubt": "neither a proof nor an example was found: was everything accepted before that may now come?",
        }

    @cached_property
    def _validators(self) -> tuple[ObjectValidator, ObjectValidator]:
        return compile_object(self.source), compile_object(self.target)

    # Demands on values

    def demand(self, source: Values, target: Values, demand: Demand, way: Way) -> Verdict:
        """Of one demand that the target makes of a property both versions have, of the same kind."""
        if not isinstance(demand, Quality) and (not_tested := self.untested(target, demand)):
            return not_tested
        if self._is_known_to_hold(source, target, demand):
            return compatible(self.words["kept"])
        refused = self._demand_test(source, target, demand)
        return self._search(source, target, refused, way) or self._by_size(source, target, demand) or self._doubt()

    def _is_known_to_hold(self, source: Values, target: Values, demand: Demand) -> bool:
        counts_fields = demand in ("minProperties", "maxProperties") and target.kind == "record"
        if counts_fields and not source.children.keys() <= target.children.keys():
            return False  # fields that the target ignores do not count for it
        return source.all_keep(demand, target)

    @staticmethod
    def untested(target: Values, demand: str) -> Verdict | None:
        """The verdict on a demand that no record is held against; None for any other."""
        if demand == "format" and target.kind in TEXTS and target.options.format not in ENFORCED_FORMATS:
            return unknown("this format describes and is not tested: only people can say whether the values have it")
        if demand == "defaultTimezone":
            has_offset = target.options.timezone is True or (
                target.kind == "timestamp" and target.options.timezone is not False
            )
            if has_offset:
                return compatible("every value has its own offset")
            return unknown("the same text may mean another moment")
        return None

    def _demand_test(self, source: Values, target: Values, demand: Demand) -> Callable[[Any], Iterable[Violation]]:
        if isinstance(demand, str) and target.kind in _CONTAINERS:
            rule = _RULES[demand]
            return lambda value: [each for each in self._refusals(target, value) if each.rule == rule]
        return target.only(demand, source).violations

    def whole(self, source: Values, target: Values, way: Way) -> Verdict:
        """Of a property whose kind is another one: everything that the target asks of its values but presence."""
        texts = source.kind in TEXTS and target.kind in TEXTS
        if source.all_within(target):
            if way.is_unique and not texts:
                return unknown(
                    "values are compared as what they are declared to be: may two that differ be the same there?"
                )
            return compatible(self.words["kept"])
        return self._search(source, target, lambda value: self._refusals(target, value), way) or self._doubt()

    def _refusals(self, target: Values, value: Any) -> list[Violation]:
        return self._counted(target.violations(value))

    def _counted(self, found: Iterable[Violation]) -> list[Violation]:
        return [each for each in found if not (self.is_tolerant and each.rule == "unknown-field")]

    def _search(
        self, source: Values, target: Values, refused: Callable[[Any], Iterable[Violation]], way: Way
    ) -> Verdict | None:
        for value in islice(candidates(source, target), MAX_TRIED):
            broken = next(iter(refused(value)), None)
            if broken is not None and source.accepts(value):
                reason = f"{show(value)} {self.words['was']}: expected {broken.expected}"
                return breaking(reason, self._witness(way, value))
        return None

    def _by_size(self, source: Values, target: Values, demand: Demand) -> Verdict | None:
        """A text or an array that is too large to be made here, where any of its size is accepted."""
        is_free = source.kind == "string" and not source.patterns and not source.format and source.listed is None
        if not is_free and not (source.kind == "array" and not source.options.unique_items and examples(source.items)):
            return None
        match demand:
            case "maxLength" | "maxItems":
                limit = target.options.max_length if demand == "maxLength" else target.options.max_items
                most = source.length[1] if demand == "maxLength" else source.count[1]
                if limit is not None and limit >= MAX_SIZE and (most is None or most > limit):
                    return breaking(f"more than {limit} {self.words['was']}: expected at most {limit}")
            case "minLength" | "minItems":
                limit = target.options.min_length if demand == "minLength" else target.options.min_items
                least = source.length[0] if demand == "minLength" else source.count[0]
                if limit is not None and least >= MAX_SIZE and least < limit:
                    return breaking(f"fewer than {limit} {self.words['was']}: expected at least {limit}")
        return None

    def _doubt(self) -> Verdict:
        return unknown(self.words["doubt"])

    # Presence

    def presence(self, source: Values, target: Values, way: Way) -> Verdict:
        """Of a property that may be absent or null on one side only."""
        if not target.required:
            return compatible(self.words["open"])
        if source.required:
            return compatible(self.words["kept"])
        return breaking(f"a record without it {self.words['was']}", self._witness(way, ABSENT))

    def missing(self, target: Values, way: Way) -> Verdict:
        """Of a property that only the target has. `way` leads to it, among the fields of the source."""
        if not target.required:
            return compatible("it may be absent")
        return breaking(f"every record lacks it, which {self._is()} required", self._witness(way, ABSENT))

    def surplus(self, source: Values, way: Way, *, is_counted: bool = False) -> Verdict:
        """Of a property that only the source has. `is_counted`: the target wants a number of fields around it."""
        if not self.is_tolerant:
            value: Any = next(iter(examples(source)), None)
            reason = f"the field {self._is()} unknown to the contract, which takes no other fields"
            return breaking(reason, self._witness(way, value))
        if is_counted or way.is_unique:
            return unknown("who ignores the field may find too few left, or two items the same")
        return compatible("who reads ignores fields that are not known")

    def _is(self) -> str:
        return "is now" if self.side == "producers" else "was"

    # Witnesses

    def _witness(self, way: Way, value: Any) -> dict[str, Any] | UnsetType:
        """A record that the source accepts and the target refuses, with `value` at the end of the way."""
        source, target = self._validators
        for record in whole_records(way.steps, value):
            if not source.check(record) and self._counted(target.check(record)):
                return record
        return UNSET
