"""Changes of what no two records may have in common: unique properties, and the primary key.

A unique property that is null has no key; a part of the primary key may not be null. Both are made of properties of the
object and of the objects in it; what stands in an array is not looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from mainstay.contract.difference_types import Side, Verdict, breaking, compatible

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mainstay.contract.difference_values import Values
    from mainstay.contract.types import Property


class _Part(NamedTuple):
    declared: Property
    is_always_there: bool  # neither null nor in an object that is


@dataclass(frozen=True)
class Keys:
    """What a version of an object says of keys, by the path of each property."""

    parts: Mapping[str, _Part]

    @property
    def unique(self) -> list[str]:
        return [path for path, part in self.parts.items() if part.declared.unique]

    @property
    def primary(self) -> list[str]:
        """The parts of the primary key in their order; those without a position come last."""
        found = [
            (part.declared.primary_key_position, path) for path, part in self.parts.items() if part.declared.primary_key
        ]
        return [path for _, path in sorted(found, key=lambda each: (each[0] <= 0, each[0]))]

    def keeps_apart(self, paths: set[str]) -> bool:
        """Whether no two records have the same values, none of them null, in all of `paths`."""
        return any({path} <= paths for path in self.unique) or (bool(self.primary) and {*self.primary} <= paths)

    def is_there(self, path: str) -> bool:
        """Whether no record lacks it."""
        return path in self.primary or (path in self.parts and self.parts[path].is_always_there)


def keys_of(children: Mapping[str, Values]) -> Keys:
    return Keys(dict(_parts(children, "", is_there=True)))


def _parts(children: Mapping[str, Values], above: str, *, is_there: bool) -> Iterator[tuple[str, _Part]]:
    for name, values in children.items():
        path, is_here = f"{above}.{name}" if above else name, is_there and values.required
        yield path, _Part(values.declared, is_here)
        yield from _parts(values.children, path, is_there=is_here)


def unique_verdict(source: Keys, target: Keys, path: str, side: Side) -> Verdict:
    """Of one property that the target wants unique, or does not."""
    if path not in target.unique:
        return compatible("equal values are allowed" if side == "producers" else "equal values were allowed before")
    if path not in source.parts:
        return compatible("no record has it, and what is null has no key")
    return _apart(source, {path}, side)


def primary_verdict(source: Keys, target: Keys, side: Side) -> Verdict:
    """Of the primary key of the target."""
    parts = target.primary
    if not parts:
        return compatible("there is no key to keep" if side == "producers" else "no key was promised")
    absent = next((path for path in parts if not source.is_there(path)), None)
    if absent is not None:
        return breaking(f"{absent} may be null, which no part of the primary key may be")
    return _apart(source, {*parts}, side)


def _apart(source: Keys, paths: set[str], side: Side) -> Verdict:
    if source.keeps_apart(paths):
        return compatible("no two records had the same" if side == "producers" else "still no two have the same")
    what = "two records may have the same here"
    return breaking(f"{what}, which {'is refused now' if side == 'producers' else 'was refused before'}")
