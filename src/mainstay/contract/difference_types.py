"""What a difference between two versions of a contract is made of."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from msgspec import UNSET, Struct, UnsetType

Effect: TypeAlias = Literal["breaking", "compatible", "unknown"]
Side: TypeAlias = Literal["producers", "consumers"]
SIDES: tuple[Side, ...] = ("producers", "consumers")


class Verdict(Struct, frozen=True, kw_only=True):
    """What a change means for one side, and why.

    `witness` is a record of the object that shows a breaking change: the contract it is written under accepts it, and
    the other refuses it. UNSET where no record shows it, or none could be made.
    """

    effect: Effect
    reason: str
    witness: dict[str, Any] | UnsetType = UNSET


class Change(Struct, frozen=True, kw_only=True):
    """One change. `was` and `now` are as the contracts say it; UNSET where a contract says nothing."""

    object: str  # its name; empty: of the contract itself
    path: str  # of a property of that object, such as `address.lines[]`; empty: of the object itself
    key: str  # what of it, such as `logicalTypeOptions.maximum`; empty: the whole of it
    was: Any = UNSET
    now: Any = UNSET
    producers: Verdict
    consumers: Verdict
    hint: str = ""

    @property
    def place(self) -> str:
        return ".".join(part for part in (self.object, self.path, self.key) if part)

    def verdict(self, side: Side) -> Verdict:
        return self.producers if side == "producers" else self.consumers


def compatible(reason: str) -> Verdict:
    return Verdict(effect="compatible", reason=reason)


def breaking(reason: str, witness: dict[str, Any] | UnsetType = UNSET) -> Verdict:
    return Verdict(effect="breaking", reason=reason, witness=witness)


def unknown(reason: str) -> Verdict:
    return Verdict(effect="unknown", reason=reason)
