from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import Parameter

from mainstay.catalog.releases import capabilities_with_releases
from mainstay.cli.common import DEFAULT, Common, err, operator, out, print_json, require, signing_key
from mainstay.cli.erase_rows import counted, erase_rows, look, plans, read_fields, rows_facts, rows_lines
from mainstay.decision.retention import forget_key
from mainstay.errors import Misuse
from mainstay.ledger.erasure import ErasureDesk, Sought
from mainstay.ledger.find import find_entry
from mainstay.ledger.steward import Hand
from mainstay.privacy.pseudonym import Pseudonyms, load_pseudonym_key

if TYPE_CHECKING:
    from mainstay.cli.erase_rows import Plan
    from mainstay.intake.erasing import Gone
    from mainstay.ledger.erasure import Carried, Concerned, Erasure
    from mainstay.workspace import Workspace

MAX_REASON_CHARACTERS = 10_000
MAX_KEY_CHARACTERS = 10_000
_KEY_FIELD = "key"  # the path under which business keys have their pseudonyms


@Parameter(name="*")
@dataclass(frozen=True)
class Whose:
    """Options that say who is meant."""

    key: Annotated[str | None, Parameter(help="The business key of the person's decisions.")] = None
    decision_id: Annotated[str | None, Parameter(name="--id", help="One decision, by its decision_id.")] = None
    field: Annotated[
        tuple[str, ...],
        Parameter(name="--field", help="Rows of sources in which this field has this value, as NAME=VALUE."),
    ] = ()
    source: Annotated[str | None, Parameter(help="Only rows of this source.")] = None


NOBODY = Whose()


def erase(
    name: str | None = None,
    /,
    *,
    reason: Annotated[str, Parameter(help="Why, and on whose request; recorded for ever, so no personal data.")],
    whose: Whose = NOBODY,
    dry_run: Annotated[bool, Parameter(negative="", help="Only say what would be erased.")] = False,
    yes: Annotated[bool, Parameter(negative="", help="Do not ask first.")] = False,
    common: Common = DEFAULT,
) -> int:
    """Destroy the bodies of a person's decisions, and of what was reported and decided of them. Proofs still verify.

    Rows taken in from sources go too: by the key where a source says which field has it, and by --field.

    Example: mainstay erase late-arrival --key UA-1545 --reason "request 2026-118"

    Parameters
    ----------
    name
        A capability; by default all.
    """
    fields = _check(reason, whose, name)
    workspace = common.open()
    require_change(workspace, name)
    planned = [] if whose.decision_id else plans(workspace, name, whose.source, whose.key, fields)
    rows = rows_facts(look(workspace, planned), planned)
    wanted = _Wanted(workspace, name, whose)
    found = wanted.find()
    there = any(counted(each) or each["under_way"] for each in rows if each["searched"])
    if dry_run or not (there or (found is not None and found.sequences)):
        _show_found(found, rows, common)
        return 0
    if not yes:
        _confirm(found, rows)
    carried, forgotten = wanted.carry_out(reason)
    with err.status("erasing rows") as status:
        gone = erase_rows(workspace, planned, reason, status.update)
    if common.json:
        done = [{"capability": plan.capability, **each._asdict()} for plan, each in gone]
        facts = {"erasures": [carried_facts(each) for each in carried], "rows": done}
        print_json({"concerned": {} if found is None else found.kinds, "forgotten": forgotten, **facts})
        return 0
    lines = [line for each in carried if found for line in _carried_lines(each, found, forgotten=forgotten)]
    lines += [line for plan, each in gone for line in _gone_lines(plan, each)]
    for line in [*lines, *rows_lines(rows, would=False)]:
        out.print(line, markup=False)
    return 0


class _Wanted:
    """The part of it that is about entries of the ledger; nothing where only fields of sources were named."""

    def __init__(self, workspace: Workspace, name: str | None, whose: Whose) -> None:
        self._workspace = workspace
        self._desk: ErasureDesk | None = None
        self._sought = Sought(name, whose.key, whose.decision_id, None)
        if whose.key is not None or whose.decision_id is not None:
            pseudonym = None if whose.key is None else _pseudonym(workspace, whose.key)
            self._sought = Sought(name, whose.key, whose.decision_id, pseudonym)
            self._hand = Hand(workspace, signing_key(workspace), operator())
            self._desk = ErasureDesk(workspace, self._hand, operator())

    def find(self) -> Concerned | None:
        """What there is, of what is sealed."""
        if self._desk is None:
            return None
        self._hand.settle()
        return self._desk.find(self._sought)

    def carry_out(self, reason: str) -> tuple[list[Carried], bool]:
        """What was carried out, and whether last good answers were forgotten."""
        if self._desk is None:
            return [], False
        forgotten = _forget(self._workspace, self._sought)
        carried = self._desk.carry_out(self._desk.request(self._sought, reason))
        # A worker may have remembered an answer just before.
        return carried, _forget(self._workspace, self._sought) or forgotten


def require_change(workspace: Workspace, name: str | None) -> None:
    """Raises Misuse unless whoever runs this may change a capability, or all of them."""
    released = capabilities_with_releases(workspace.releases)
    for each in released if name is None else {name}.intersection(released):
        require(workspace, each, "change")


def _check(reason: str, whose: Whose, name: str | None) -> tuple[tuple[str, str], ...]:
    """The fields that were named, when all that was said makes sense."""
    if not 1 <= len(reason.strip()) <= MAX_REASON_CHARACTERS:
        raise Misuse("an erasure needs a reason: expected 1 to 10,000 characters saying why")
    fields = read_fields(whose.field)
    key, decision_id = whose.key, whose.decision_id
    if (key is not None and decision_id is not None) or (key is None and decision_id is None and not fields):
        found = "neither" if key is None else "both"
        raise Misuse(f"expected either --key or --id, found {found}", hint="Rows of sources are named with --field.")
    if decision_id is not None and (fields or whose.source):
        raise Misuse("--id names one decision: expected neither --field nor --source beside it")
    if (fields or whose.source) and name is None:
        raise Misuse("--field and --source are of one capability: expected its name")
    if key is not None and not 1 <= len(key) <= MAX_KEY_CHARACTERS:
        raise Misuse(f"--key: expected 1 to {MAX_KEY_CHARACTERS:,} characters, found {len(key):,}")
    return fields


def _pseudonym(workspace: Workspace, key: str) -> str | None:
    return Pseudonyms(load_pseudonym_key(workspace.keys)).of_field(_KEY_FIELD)(key)


def _confirm(found: Concerned | None, rows: list[dict[str, Any]]) -> None:
    if not sys.stdin.isatty():
        raise Misuse("nobody is there to be asked: expected --yes", hint="See what would go with --dry-run.")
    parts = [] if found is None or not found.kinds else [_counted(found.kinds)]
    there = [each for each in rows if each["searched"] and counted(each)]
    parts += [f"{counted(each)} of {each['capability']} {each['source']}" for each in there]
    err.print(f"This destroys {', and '.join(parts)}; it cannot be undone.", markup=False)
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


def _show_found(found: Concerned | None, rows: list[dict[str, Any]], common: Common) -> None:
    if common.json:
        entries = {} if found is None else {"up_to": found.up_to, "aside": found.aside}
        print_json({"concerned": {} if found is None else found.kinds, **entries, "erasures": [], "rows": rows})
        return
    if found is not None and found.sequences:
        out.print(f"would erase {_counted(found.kinds)}, of the {found.up_to:,} entries in the log")
    elif found is not None:
        out.print(f"nothing to erase in the {found.up_to:,} entries of the log")
    for line in _aside_lines(found.aside) if found is not None else []:
        out.print(line, markup=False)
    if found is None and not any(counted(each) for each in rows if each["searched"]):
        out.print("nothing to erase in what was taken in")
    for line in rows_lines(rows, would=True):
        out.print(line, markup=False)


def _gone_lines(plan: Plan, gone: Gone) -> list[str]:
    fact = {"accepted": gone.accepted, "quarantined": gone.held, "waiting": gone.waiting, "rejected": gone.rejected}
    return [
        f"{'erased':<12} {counted(fact) or 'nothing more'}, of {plan.capability} {plan.source}",
        f"{'receipt':<12} {gone.receipt}",
    ]


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
