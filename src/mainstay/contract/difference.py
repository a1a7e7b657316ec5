"""What changed between two versions of a contract, and whom it breaks.

Producers write records under the old contract: is all they may send still accepted? Consumers read under the old one:
is all they may now get what they were promised? A change is *compatible* where that is proved, *breaking* where a
record or a promise shows the contrary, and *unknown* where neither was found; unknown is never taken for compatible.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import UNSET

from mainstay.contract.difference_fields import ObjectComparison
from mainstay.contract.difference_terms import compare_terms
from mainstay.contract.difference_types import SIDES, Change, Effect, Side, breaking, compatible

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mainstay.contract.types import Contract, SchemaObject

Step: TypeAlias = Literal["none", "patch", "minor", "major"]
STEPS: Final[tuple[Step, ...]] = ("none", "patch", "minor", "major")

_VERSION: Final = re.compile(r"(?a)v?(\d{1,9})\.(\d{1,9})\.(\d{1,9})")
_PROSE: Final = frozenset(
    {
        *("businessName", "description", "tags", "authoritativeDefinitions", "examples", "transformDescription"),
        *("criticalDataElement", "dataGranularityDescription", "id", "apiVersion", "name", "tenant", "domain", "team"),
        *("dataProduct", "support", "contractCreatedTs", "description.usage", "description.purpose"),
        "description.authoritativeDefinitions",
    }
)


def compare_contracts(old: Contract, new: Contract, *, tolerant_readers: bool = False) -> tuple[Change, ...]:
    """Every change from one version to another, but that of `version` itself.

    With `tolerant_readers`, consumers are taken to ignore fields that they do not know; without, such a field breaks
    what they were promised, as a contract takes no other fields than its own.
    """
    found = list(compare_terms(old, new))
    before, after = ({each.name: each for each in contract.schema} for contract in (old, new))
    for name in dict.fromkeys([*before, *after]):
        if name not in after:
            found.append(_object(before[name], UNSET, _twin(before[name], after, before)))
        elif name not in before:
            found.append(_object(UNSET, after[name], _twin(after[name], before, after)))
        else:
            found += ObjectComparison(before[name], after[name], is_tolerant=tolerant_readers).run()
    return tuple(found)


def overall(changes: Iterable[Change], sides: Iterable[Side] = SIDES) -> Effect:
    """The worst of all verdicts on these sides: breaking, then unknown, then compatible."""
    effects = {change.verdict(side).effect for change in changes for side in sides}
    if "breaking" in effects:
        return "breaking"
    return "unknown" if "unknown" in effects else "compatible"


def suggested_step(changes: Iterable[Change]) -> Step:
    """What semantic versioning asks of the contract's own version: major unless every change is compatible."""
    listed = list(changes)
    if not listed:
        return "none"
    if overall(listed) != "compatible":
        return "major"
    return "patch" if all(change.key in _PROSE for change in listed) else "minor"


def next_version(version: str, step: Step) -> str | None:
    """The version one step on; None where `version` is no semantic version, or there is no step."""
    found = _VERSION.fullmatch(version)
    if found is None or step == "none":
        return None
    numbers = [int(each) for each in found.groups()]
    place = {"major": 0, "minor": 1, "patch": 2}[step]
    numbers = [*numbers[:place], numbers[place] + 1, *[0] * (2 - place)]
    return ".".join(map(str, numbers))


def taken_step(old: str, new: str) -> Step | None:
    """The step from one version to a later one; None where either is no semantic version, or it goes back."""
    pair = [_VERSION.fullmatch(each) for each in (old, new)]
    if pair[0] is None or pair[1] is None:
        return None
    before, after = ([int(each) for each in found.groups()] for found in pair if found is not None)
    if after < before:
        return None
    for place, step in enumerate(reversed(STEPS[1:])):
        if after[place] != before[place]:
            return step
    return "none"


def _object(old: Any, new: Any, twin: str | None) -> Change:
    name = old.name if new is UNSET else new.name
    if new is UNSET:
        verdict = breaking("there is no such object any more")
        hint = f"is it now called {twin}?" if twin else ""
    else:
        verdict = compatible("one more object; the others stay")
        hint = f"was it called {twin}?" if twin else ""
    was, now = (UNSET if each is UNSET else "object" for each in (old, new))
    return Change(object=name, path="", key="", was=was, now=now, producers=verdict, consumers=verdict, hint=hint)


def _twin(declared: SchemaObject, there: dict[str, SchemaObject], here: dict[str, SchemaObject]) -> str | None:
    """The object of the other version alone that is probably this one under another name."""
    for name, each in there.items():
        keys = ((declared.id, each.id), (declared.physical_name, each.physical_name))
        if name not in here and any(one is not None and one == other for one, other in keys):
            return name
    return None


def facts(old: Contract, new: Contract, changes: tuple[Change, ...]) -> dict[str, Any]:
    """A comparison as JSON shows it."""
    step = suggested_step(changes)
    return {
        "old_version": old.version,
        "new_version": new.version,
        **{side: overall(changes, (side,)) for side in SIDES},
        "suggested_step": step,
        "suggested_version": next_version(old.version, step),
        "step_taken": taken_step(old.version, new.version),
        "changes": [{"place": change.place} | msgspec.to_builtins(change) for change in changes],
    }
