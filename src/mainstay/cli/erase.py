from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import Parameter

from mainstay.catalog.releases import capabilities_with_releases
from mainstay.cli.common import DEFAULT, Common, err, operator, out, print_json, require, signing_key
from mainstay.decision.retention import forget_key
from mainstay.errors import Misuse
from mainstay.ledger.erasure import ErasureDesk, Sought
from mainstay.ledger.find import find_entry
from mainstay.ledger.steward import Hand
from mainstay.privacy.pseudonym import Pseudonyms, load_pseudonym_key

if TYPE_CHECKING:
    from mainstay.ledger.erasure import Carried, Concerned, Erasure
    from mainstay.workspace import Workspace

MAX_REASON_CHARACTERS = 10_000
MAX_KEY_CHARACTERS = 10_000
_KEY_FIELD = "key"  # the path under which business keys have their pseudonyms


def erase(
    name: str | None = None,
    /,
    *,
    reason: Annotated[str, Parameter(help="Why, and on whose request; recorded for ever, so no personal data.")],
    key: Annotated[str | None, Parameter(help="The business key of the person's decisions.")] = None,
    decision_id: Annotated[str | None, Parameter(name="--id", help="One decision, by its decision_id.")] = None,
    dry_run: Annotated[bool, Parameter(negative="", help="Only say what would be erased.")] = False,
    yes: Annotated[bool, Parameter(negative="", help="Do not ask first.")] = False,
    common: Common = DEFAULT,
) -> int:
    """Destroy the bodies of a person's decisions, and of what was reported and decided of them. Proofs still verify.

    Example: mainstay erase late-arrival --key UA-1545 --reason "request 2026-118"

    Parameters
    ----------
    name
        A capability; by default all.
    """
    _check(reason, key, decision_id)
    workspace = common.open()
    require_change(workspace, name)
    pseudonym = None if key is None else _pseudonym(workspace, key)
    sought = Sought(name, key, decision_id, pseudonym)
    hand = Hand(workspace, signing_key(workspace), operator())
    desk = ErasureDesk(workspace, hand, operator())
    hand.settle()
    found = desk.find(sought)
    if dry_run or not found.sequences:
        _show_found(found, common)
        return 0
    if not yes:
        _confirm(found)
    forgotten = _forget(workspace, sought)
    carried = desk.carry_out(desk.request(sought, reason))
    forgotten = _forget(workspace, sought) or forgotten  # a worker may have remembered an answer just before
    if common.json:
        print_json(
            {"concerned": found.kinds, "forgotten": forgotten, "erasures": [carried_facts(each) for each in carried]}
        )
    else:
        for each in carried:
            for line in _carried_lines(each, found, forgotten=forgotten):
                out.print(line, markup=False)
    return 0


def require_change(workspace: Workspace, name: str | None) -> None:
    """Raises Misuse unless whoever runs this may change a capability, or all of them."""
    released = capabilities_with_releases(workspace.releases)
    for each in released if name is None else {name}.intersection(released):
        require(workspace, each, "change")


def _check(reason: str, key: str | None, decision_id: str | None) -> None:
    if not 1 <= len(reason.strip()) <= MAX_REASON_CHARACTERS:
        raise Misuse("an erasure needs a reason: expected 1 to 10,000 characters saying why")
    if (key is None) == (decision_id is None):
        found = "neither" if key is None else "both"
        raise Misuse(f"expected either --key or --id, found {found}")
    if key is not None and not 1 <= len(key) <= MAX_KEY_CHARACTERS:
        raise Misuse(f"--key: expected 1 to {MAX_KEY_CHARACTERS:,} characters, found {len(key):,}")


def _pseudonym(workspace: Workspace, key: str) -> str | None:
    return Pseudonyms(load_pseudonym_key(workspace.keys)).of_field(_KEY_FIELD)(key)


def _confirm(found: Concerned) -> None:
    if not sys.stdin.isatty():
        raise Misuse("nobody is there to be asked: expected --yes", hint="See what would go with --dry-run.")
    err.print(f"This destroys {_counted(found.kinds)}, and cannot be undone.")
    if input("Type yes to go on: ").strip() != "yes":
        raise Misuse("nothing was erased: expected the answer yes")


def _forget(workspace: Workspace, sought: Sought) -> bool:
    """Let go of the last good answers for the key; whether there were any. They are a memory that may be lost."""
    capability, key = sought.capability, sought.key
    if sought.decision_id is not None:
        found = find_entry(workspace.ledger, sought.decision_id)
        if found is None or not found.entry.body:
            return False
        capability = msgspec.json.decode(found.entry.leaf)["capability"]
        key = msgspec.json.decode(found.entry.body).get("key")
    if key is None:
        return False
    names = [path.stem for path in workspace.memory.glob("*.table")] if capability is None else [capability]
    return any([forget_key(workspace, each, key) for each in names])  # noqa: C419 - all of them, not up to the first


def _show_found(found: Concerned, common: Common) -> None:
    if common.json:
        print_json({"concerned": found.kinds, "up_to": found.up_to, "aside": found.aside, "erasures": []})
        return
    if found.sequences:
        out.print(f"would erase {_counted(found.kinds)}, of the {found.up_to:,} entries in the log")
    else:
        out.print(f"nothing to erase in the {found.up_to:,} entries of the log")
    for line in _aside_lines(found.aside):
        out.print(line, markup=False)


def carried_facts(carried: Carried) -> dict[str, Any]:
    """What became of a request, as plain values."""
    request, receipt = carried
    return {
        "request": request.id,
        "requested_at": request.at,
        "requested_by": request.principal,
        "reason": request.reason,
        "receipt": receipt.id,
        "carried_out_at": receipt.at,
        "carried_out_by": receipt.principal,
        **msgspec.to_builtins(receipt.done),
    }


def _carried_lines(carried: Carried, found: Concerned, *, forgotten: bool) -> list[str]:
    request, receipt = carried
    facts = [
        ("erased", f"{receipt.done.bodies:,} bodies; concerned were {_counted(found.kinds)}"),
        ("until", f"entry {request.wish.up_to - 1:,}: what was recorded later is not concerned"),
        ("on word of", f"{request.principal}, {request.at}: {request.reason}"),
        ("request", request.id),
        ("receipt", f"{receipt.id}, {receipt.at}"),
    ]
    if forgotten:
        facts.append(("forgotten", "the last good answers for the key"))
    for each in receipt.done.archives:
        where = f"entries {each.first:,} to {each.size - 1:,} at {each.place}"
        facts.append(("still in", f"an archive of {where}: mainstay ledger update-archive {each.place}"))
    facts += [
        ("look at", f"{each.file}: {each.bodies:,} bodies overwritten; {each.unread_bytes:,} bytes cannot be read")
        for each in receipt.done.aside
    ]
    return [f"{name:<12} {value}" for name, value in facts]


def _aside_lines(aside: tuple[str, ...]) -> list[str]:
    return [f"look at      {file}: a damaged segment; what was never sealed of it cannot be searched" for file in aside]


def erasure_facts(erasure: Erasure) -> dict[str, Any]:
    """Why the body of an entry is gone, or is to go, as plain values."""
    request, receipt = erasure
    return {
        "request": request.id,
        "requested_at": request.at,
        "requested_by": request.principal,
        "reason": request.reason,
        "receipt": None if receipt is None else receipt.id,
        "carried_out_at": None if receipt is None else receipt.at,
    }


def erasure_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """The same for people."""
    what = "its body: the key, what was sent, what was answered"
    when = facts["carried_out_at"]
    return [
        ("erased", f"{what}; {'not carried out yet' if when is None else when}"),
        ("on word of", f"{facts['requested_by']}, {facts['requested_at']}: {facts['reason']}"),
        ("request", facts["request"]),
        ("receipt", facts["receipt"] or "none yet"),
    ]


def _counted(kinds: dict[str, int]) -> str:
    """Numbers by kind.

    >>> _counted({"decision": 2, "outcome": 1})
    '2 decisions, 1 outcome'
    """
    names = {"archived": ("archived entry", "archived entries")}
    counted = [(count, *names.get(kind, (kind, f"{kind}s"))) for kind, count in sorted(kinds.items())]
    return ", ".join(f"{count:,} {one if count == 1 else many}" for count, one, many in counted)
