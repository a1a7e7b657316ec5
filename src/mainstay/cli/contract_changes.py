from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from cyclopts import Parameter
from msgspec import UNSET

from mainstay.cli.common import columns, out, print_json
from mainstay.cli.contract_files import contract_file
from mainstay.contract.difference import STEPS, compare_contracts, facts, overall, suggested_step, taken_step
from mainstay.contract.difference import next_version as version_after
from mainstay.contract.difference_types import SIDES, Side
from mainstay.contract.load import load_contract
from mainstay.documents import shorten

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mainstay.contract.difference_types import Change
    from mainstay.contract.types import Contract

_SHOWN = 24  # characters of a value in the table
_OPTIONS = "logicalTypeOptions."


def diff(
    old: Path,
    new: Path,
    /,
    *,
    for_: Annotated[
        Literal["producers", "consumers", "both"],
        Parameter(name="--for", help="Whose verdict counts for the exit code: who writes, who reads, or both."),
    ] = "both",
    tolerant_readers: Annotated[
        bool, Parameter(negative="", help="Take consumers to ignore fields that they do not know.")
    ] = False,
    json: Annotated[bool, Parameter(negative="", help="Print facts as JSON.")] = False,
) -> int:
    """What changed between two versions of a contract, and whom it breaks; exit code 1 when it breaks anyone.

    Example: mainstay contract diff contract.odcs.yaml proposed.odcs.yaml

    Example: mainstay contract diff released/late-arrival capabilities/late-arrival --for consumers

    Parameters
    ----------
    old
        The contract in force: a file, or a capability folder whose contract is meant.
    new
        The contract that is to follow it, likewise.
    """
    before, after = (load_contract(contract_file(each)) for each in (old, new))
    changes = compare_contracts(before, after, tolerant_readers=tolerant_readers)
    if json:
        print_json(facts(before, after, changes))
    else:
        for line in _lines(before, after, changes):
            out.print(line, markup=False)
    sides: Sequence[Side] = SIDES if for_ == "both" else (for_,)
    return int(overall(changes, sides) == "breaking")


def _lines(old: Contract, new: Contract, changes: tuple[Change, ...]) -> Iterator[str]:
    count = f"{len(changes)} change{'' if len(changes) == 1 else 's'}" if changes else "no change"
    yield f"{old.name or old.id}: version {old.version} -> {new.version}, {count}"
    if changes:
        yield ""
        yield from columns([["WHERE", "WHAT", "WAS", "NOW", "PRODUCERS", "CONSUMERS"], *map(_row, changes)])
        yield ""
        for change in changes:
            yield from _reasons(change)
        yield "; ".join(f"for {side}: {overall(changes, (side,))}" for side in SIDES)
    yield from _advice(old, new, changes)


def _row(change: Change) -> list[str]:
    where = ".".join(part for part in (change.object, change.path) if part) or "contract"
    what = change.key.removeprefix(_OPTIONS) or ("removed" if change.now is UNSET else "added")
    return [where, what, _shown(change.was), _shown(change.now), change.producers.effect, change.consumers.effect]


def _shown(value: Any) -> str:
    if value is UNSET:
        return "-"
    return shorten(value if isinstance(value, str) else msgspec.json.encode(value).decode(), _SHOWN)


def _reasons(change: Change) -> Iterator[str]:
    """Why a change is not harmless; nothing of one that is."""
    verdicts = [(side, change.verdict(side)) for side in SIDES]
    if all(verdict.effect == "compatible" for _, verdict in verdicts):
        return
    yield change.place + (f" ({change.hint})" if change.hint else "")
    for side, verdict in verdicts:
        if verdict.effect != "compatible":
            yield f"  {side}: {verdict.effect}: {verdict.reason}"
            if isinstance(verdict.witness, dict):
                yield f"    such as {shorten(msgspec.json.encode(verdict.witness).decode(), 200)}"
    yield ""


def _advice(old: Contract, new: Contract, changes: tuple[Change, ...]) -> Iterator[str]:
    step, taken = suggested_step(changes), taken_step(old.version, new.version)
    wanted = version_after(old.version, step)
    if step == "none":
        return
    why = {
        "major": "it breaks someone, or may",
        "minor": "it breaks nobody",
        "patch": "only words changed",
    }[step]
    yield f"a {step} step, as {why}" + (f": version {wanted}" if wanted else "")
    if taken is None:
        yield f"the version goes from {old.version} to {new.version}, which is no step of semantic versioning"
    elif STEPS.index(taken) < STEPS.index(step):
        yield f"the version took {'no' if taken == 'none' else f'a {taken}'} step, to {new.version}"
