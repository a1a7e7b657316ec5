"""Changes of an object and of its properties, at any depth."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET

from mainstay.contract.difference_judge import Judge, Way
from mainstay.contract.difference_keys import KEYS, KEYS_IN_ARRAYS, OBJECT_KEYS, Pair, told
from mainstay.contract.difference_quality import Ruled, compare_rules, measures_of
from mainstay.contract.difference_types import Change, Verdict, compatible, unknown
from mainstay.contract.difference_unique import keys_of, primary_verdict, unique_verdict
from mainstay.contract.difference_values import ATTRIBUTES, Values
from mainstay.contract.rules import OPEN_CLASSES
from mainstay.contract.types import Item

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from mainstay.contract.types import Property, Quality, SchemaObject


@dataclass(frozen=True)
class _Here:
    """A property that both versions have: where it stands, and the ways to it in records of either."""

    path: str
    old: Values
    new: Values
    from_old: Way
    from_new: Way


@dataclass
class ObjectComparison:
    """Finds every change of one object that both contracts have."""

    old: SchemaObject
    new: SchemaObject
    is_tolerant: bool
    found: list[Change] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.for_producers = Judge("producers", self.old, self.new)
        self.for_consumers = Judge("consumers", self.new, self.old, self.is_tolerant)

    def run(self) -> list[Change]:
        for key, pair in OBJECT_KEYS.items():
            self._fixed("", key, getattr(self.old, pair.attribute), getattr(self.new, pair.attribute), pair)
        old, new = _fields(self.old.properties), _fields(self.new.properties)
        self._keys(old, new)
        self._rules("", self.old.quality, self.new.quality, None)
        self._children(_Here("", *_roots(self.old, self.new), Way(), Way()), old, new)
        return self.found

    def _add(self, path: str, key: str, was: Any, now: Any, *verdicts: Verdict, hint: str = "") -> None:
        self.found.append(
            Change(
                object=self.new.name,
                path=path,
                key=key,
                was=told(was),
                now=told(now),
                producers=verdicts[0],
                consumers=verdicts[1],
                hint=hint,
            )
        )

    def _fixed(self, path: str, key: str, was: Any, now: Any, pair: Pair) -> None:
        if not same(was, now):
            self._add(path, key, was, now, *pair.verdicts)

    # Fields

    def _children(self, here: _Here, old: Mapping[str, Values], new: Mapping[str, Values]) -> None:
        for name in dict.fromkeys([*old, *new]):
            path = f"{here.path}.{name}" if here.path else name
            if name not in new:
                self._removed(here, path, old, name, _renamed(old[name].declared, old, new))
            elif name not in old:
                self._added(here, path, new, name, _renamed(new[name].declared, new, old))
            else:
                from_old = here.from_old.to_field(old, name, new[name])
                from_new = here.from_new.to_field(new, name, old[name])
                self._property(_Here(path, old[name], new[name], from_old, from_new))

    def _removed(self, here: _Here, path: str, old: Mapping[str, Values], name: str, twin: str | None) -> None:
        producers = self.for_producers.surplus(old[name], here.from_old.to_field(old, name))
        consumers = self.for_consumers.missing(old[name], here.from_new.to_field(here.new.children, name))
        hint = f"is it now called {twin}?" if twin else ""
        self._add(path, "", _summary(old[name]), UNSET, producers, consumers, hint=hint)

    def _added(self, here: _Here, path: str, new: Mapping[str, Values], name: str, twin: str | None) -> None:
        producers = self.for_producers.missing(new[name], here.from_old.to_field(here.old.children, name))
        is_counted = bool(here.old.options.min_properties)
        consumers = self.for_consumers.surplus(new[name], here.from_new.to_field(new, name), is_counted=is_counted)
        hint = f"was it called {twin}?" if twin else ""
        self._add(path, "", UNSET, _summary(new[name]), producers, consumers, hint=hint)

    # One property

    def _property(self, here: _Here) -> None:
        old, new = here.old.declared, here.new.declared
        if same(old, new) and here.old.required == here.new.required:
            return
        if here.old.required != here.new.required or old.required != new.required:
            self._add(here.path, "required", old.required, new.required, *self._presence(here))
        is_of_kind = here.old.kind == here.new.kind
        if not is_of_kind or old.logical_type != new.logical_type:
            self._kind(here)
        self._options(here, is_of_kind=is_of_kind)
        self._classification(here)
        if any(step.array is not None for step in here.from_old.steps):
            for key, pair in KEYS_IN_ARRAYS.items():
                self._fixed(here.path, key, getattr(old, pair.attribute), getattr(new, pair.attribute), pair)
        for key, pair in KEYS.items():
            self._fixed(here.path, key, getattr(old, pair.attribute), getattr(new, pair.attribute), pair)
        self._rules(here.path, old.quality, new.quality, here)
        if is_of_kind and here.old.kind == "record":
            self._children(here, here.old.children, here.new.children)
        if is_of_kind and here.old.kind == "array":
            self._items(here)

    def _presence(self, here: _Here) -> tuple[Verdict, Verdict]:
        return (
            self.for_producers.presence(here.old, here.new, here.from_old),
            self.for_consumers.presence(here.new, here.old, here.from_new),
        )

    def _whole(self, here: _Here) -> tuple[Verdict, Verdict]:
        return (
            self.for_producers.whole(here.old, here.new, here.from_old),
            self.for_consumers.whole(here.new, here.old, here.from_new),
        )

    def _kind(self, here: _Here) -> None:
        old, new = here.old.declared, here.new.declared
        if here.old.kind == here.new.kind:
            reason = "the type was to be seen from what is declared below it"
            verdicts: tuple[Verdict, ...] = (compatible(reason), compatible(reason))
        else:
            verdicts = self._whole(here)
        if old.logical_type != new.logical_type:
            self._add(here.path, "logicalType", old.logical_type, new.logical_type, *verdicts)
        else:
            key = "properties" if "record" in {here.old.kind, here.new.kind} else "items"
            self._add(here.path, key, _below(here.old, key), _below(here.new, key), *verdicts)

    def _options(self, here: _Here, *, is_of_kind: bool) -> None:
        for key, attribute in ATTRIBUTES.items():
            was, now = getattr(here.old.options, attribute), getattr(here.new.options, attribute)
            if same(was, now):
                continue
            verdicts = (
                self._demand(self.for_producers, here.old, here.new, key, here.from_old, is_of_kind=is_of_kind),
                self._demand(self.for_consumers, here.new, here.old, key, here.from_new, is_of_kind=is_of_kind),
            )
            self._add(here.path, f"logicalTypeOptions.{key}", was, now, *verdicts)

    def _demand(self, judge: Judge, source: Values, target: Values, key: str, way: Way, *, is_of_kind: bool) -> Verdict:
        if key not in target.demands():
            return compatible(judge.words["open"])
        if is_of_kind:
            return judge.demand(source, target, key, way)
        if (not_tested := judge.untested(target, key)) is not None:
            return not_tested
        whole = judge.whole(source, target, way)
        return msgspec.structs.replace(whole, reason=f"with the type: {whole.reason}")

    def _items(self, here: _Here) -> None:
        old, new = here.old.declared.items, here.new.declared.items
        below = _Here(
            f"{here.path}[]",
            here.old.items,
            here.new.items,
            here.from_old.to_items(here.old, here.new),
            here.from_new.to_items(here.new, here.old),
        )
        if old is not None and new is not None:
            self._property(below)
        elif old is not None or new is not None:
            whole, presence = self._whole(below), self._presence(below)
            verdicts = [max(pair, key=_severity) for pair in zip(whole, presence, strict=True)]
            self._add(here.path, "items", _below(here.old, "items"), _below(here.new, "items"), *verdicts)

    def _classification(self, here: _Here) -> None:
        was, now = here.old.declared.classification, here.new.declared.classification
        if was == now:
            return
        hidden, shown = _is_hidden(now), not _is_hidden(was)
        if hidden == _is_hidden(was) and not hidden:
            verdicts = (compatible("its values are open, as before"), compatible("its values are open, as before"))
        elif hidden and shown:
            verdicts = (
                compatible("what is sent is protected from now on"),
                unknown("values may come masked, as a pseudonym, or not at all"),
            )
        elif hidden:
            verdicts = (
                unknown("what is sent may be shown to others than before"),
                unknown("values may be protected in another way than before"),
            )
        else:
            verdicts = (
                unknown("what was sent as protected is not protected any more"),
                compatible("values are not hidden any more"),
            )
        self._add(here.path, "classification", was, now, *verdicts)

    # Quality rules and keys

    def _rules(self, path: str, old: Iterable[Quality], new: Iterable[Quality], here: _Here | None) -> None:
        for change in compare_rules(tuple(old), tuple(new)):
            verdicts = (
                self._rule(self.for_producers, change.new, tuple(old), here, from_old=True),
                self._rule(self.for_consumers, change.old, tuple(new), here, from_old=False),
            )
            if change.is_prose:
                verdicts = (compatible("it explains"), compatible("it explains"))
            self._add(path, change.key, change.was, change.now, *verdicts)

    def _rule(
        self, judge: Judge, rule: Quality | None, others: tuple[Quality, ...], here: _Here | None, *, from_old: bool
    ) -> Verdict:
        """Of a rule of the target, None where it has none any more; `others` are those of the source."""
        if rule is None:
            return compatible(judge.words["open"])
        if here is None:
            return measures_of(Ruled(rule, others, judge.side))
        source, target = (here.old, here.new) if from_old else (here.new, here.old)
        way = here.from_old if from_old else here.from_new
        if target.binds(rule):
            if source.kind == target.kind:
                return judge.demand(source, target, rule, way)
            return judge.whole(source, target, way)
        return measures_of(Ruled(rule, others, judge.side, source, target))

    def _keys(self, old: Mapping[str, Values], new: Mapping[str, Values]) -> None:
        """What no two records may have in common."""
        before, after = keys_of(old), keys_of(new)
        if {*before.primary} != {*after.primary}:
            verdicts = primary_verdict(before, after, "producers"), primary_verdict(after, before, "consumers")
            self._add("", "primaryKey", before.primary or UNSET, after.primary or UNSET, *verdicts)
        elif before.primary != after.primary:
            same_key = compatible("the same properties are the key")
            self._add("", "primaryKeyPosition", before.primary, after.primary, same_key, same_key)
        for path in dict.fromkeys([*before.unique, *after.unique]):
            was, now = path in before.unique, path in after.unique
            if was != now:
                producers = unique_verdict(before, after, path, "producers")
                consumers = unique_verdict(after, before, path, "consumers")
                self._add(path, "unique", was, now, producers, consumers)


def same(one: Any, other: Any) -> bool:
    """Whether two parts of contracts say the same, and 1 is not true."""
    return bool(
        msgspec.json.encode(one, order="sorted") == msgspec.json.encode(other, order="sorted")
        if one is not UNSET and other is not UNSET
        else one is other
    )


def _fields(properties: Iterable[Property]) -> dict[str, Values]:
    return {each.name: Values(each, each.required) for each in properties}


def _roots(old: SchemaObject, new: SchemaObject) -> tuple[Values, Values]:
    roots = [Item(logical_type="object", properties=each.properties) for each in (old, new)]
    return Values(roots[0], required=True, level=0), Values(roots[1], required=True, level=0)


def _summary(values: Values) -> str:
    kind = values.declared.logical_type or values.kind
    return f"{kind}, required" if values.required else kind


def _below(values: Values, key: str) -> Any:
    if key == "properties":
        return [each.name for each in values.declared.properties] or UNSET
    return UNSET if values.declared.items is None else _summary(values.items)


def _severity(verdict: Verdict) -> int:
    return ("compatible", "unknown", "breaking").index(verdict.effect)


def _is_hidden(classification: str | None) -> bool:
    return classification is not None and classification.strip().lower() not in OPEN_CLASSES


def _renamed(declared: Property, here: Mapping[str, Values], there: Mapping[str, Values]) -> str | None:
    """The property of the other version alone that is probably this one under another name."""
    same_as: tuple[Callable[[Property], Any], ...] = (
        lambda each: each.id,
        lambda each: each.physical_name,
    )
    for name, values in there.items():
        if name not in here and any(
            key(declared) is not None and key(declared) == key(values.declared) for key in same_as
        ):
            return name
    return None
