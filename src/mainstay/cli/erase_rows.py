"""The part of `mainstay erase` that is about rows taken in from sources."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from mainstay.cli.common import operator
from mainstay.errors import Misuse
from mainstay.intake.declared import sources_in_force
from mainstay.intake.erasing import SourceErasure
from mainstay.intake.erasing_match import Sought
from mainstay.intake.types import intake_table, quarantine_table
from mainstay.lake.lake import open_lake

if TYPE_CHECKING:
    from collections.abc import Callable

    from mainstay.capability.sources import Source
    from mainstay.intake.declared import InForce
    from mainstay.intake.erasing import Found, Gone
    from mainstay.lake.lake import Lake
    from mainstay.workspace import Workspace

MAX_FIELDS = 8
MAX_VALUE_CHARACTERS = 10_000


class Plan(NamedTuple):
    """One source, and whose rows of it are meant."""

    capability: str
    source: str
    sought: Sought | None  # None: the business key is no field of it, as far as it says
    known: frozenset[str]  # the fields of the contract


class Looked(NamedTuple):
    """What there is of it."""

    plan: Plan
    found: Found


def read_fields(given: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """What `--field NAME=VALUE` said. Raises Misuse for anything else."""
    fields = []
    for each in given:
        name, sign, value = each.partition("=")
        if not (name and sign and value.strip()) or len(value) > MAX_VALUE_CHARACTERS:
            raise Misuse(f"--field {name[:80]!r}: expected NAME=VALUE, a field of the source and what it has")
        fields.append((name, value))
    if len(fields) > MAX_FIELDS or len({name for name, _ in fields}) < len(fields):
        raise Misuse(f"--field: expected up to {MAX_FIELDS} fields, each once")
    return tuple(fields)


def plans(
    workspace: Workspace, name: str | None, source: str | None, key: str | None, fields: tuple[tuple[str, str], ...]
) -> list[Plan]:
    """The sources that have rows, or items that wait, and what to look for in each.

    With fields, they are looked for; else the business key, in the field that the folder says has it: the `key` of a
    scheduled batch over the source, or the source's own `key` where that is one field. Raises Misuse when a source was
    named of which there is nothing.
    """
    lake = open_lake(workspace)
    made = []
    for capability, each in _sources(workspace, lake):
        if name not in {None, capability} or source not in {None, each}:
            continue
        in_force, declared = _declared(workspace, capability, each)
        known = frozenset[str]()
        if in_force is not None and declared is not None:
            known = frozenset(property_.name for property_ in in_force.described(declared).properties)
        sought = Sought(fields) if fields else None
        if not fields and key is not None and in_force is not None and declared is not None:
            field = key_field(in_force, declared)
            sought = None if field is None else Sought(((field, key),))
        made.append(Plan(capability, each, sought, known))
    if source is not None and not made:
        raise Misuse(f"{name} {source}: expected a source of which there are rows, found none")
    return made


def _sources(workspace: Workspace, lake: Lake) -> list[tuple[str, str]]:
    found = set()
    for prefix in (intake_table("", ""), quarantine_table("", "")):
        begin = prefix.removesuffix("/")
        for table in lake.names(begin):
            capability, _, source = table.removeprefix(begin).partition("/")
            found.add((capability, source))
    for landing in (workspace.data / "intake").glob("*/*/landing"):
        found.add((landing.parent.parent.name, landing.parent.name))
    return sorted(found)


def _declared(workspace: Workspace, capability: str, source: str) -> tuple[InForce | None, Source | None]:
    try:
        in_force = sources_in_force(workspace, capability)
        return in_force, in_force.source(source)
    except Misuse:  # it was declared once
        return None, None


def key_field(in_force: InForce, source: Source) -> str | None:
    """The field of a source that has the business key of decisions; None where the folder does not say."""
    for batch in in_force.capability.batches:
        if batch.source == source.name and batch.key is not None:
            return batch.key
    return source.key[0] if len(source.key) == 1 else None


def look(workspace: Workspace, planned: list[Plan]) -> list[Looked]:
    """What there is to erase."""
    lake = open_lake(workspace)
    return [
        Looked(plan, SourceErasure(workspace, lake, plan.capability, plan.source).find(plan.sought, plan.known))
        for plan in planned
        if plan.sought is not None
    ]


def erase_rows(
    workspace: Workspace, planned: list[Plan], reason: str, progress: Callable[[str], None]
) -> list[tuple[Plan, Gone]]:
    """Erase what there is, source by source; each that had anything has a receipt. Raises as `carry_out` does."""
    lake = open_lake(workspace)
    gone = []
    for plan in planned:
        if plan.sought is None:
            continue

        def told(words: str, plan: Plan = plan) -> None:
            progress(f"{plan.capability} {plan.source}: {words}")

        desk = SourceErasure(workspace, lake, plan.capability, plan.source)
        done = desk.carry_out(plan.sought, plan.known, reason=reason, by=operator(), progress=told)
        if done is not None:
            gone.append((plan, done))
    return gone


def rows_facts(looked: list[Looked], planned: list[Plan]) -> list[dict[str, Any]]:
    """What there is, as plain values; `searched` is false for sources that do not say which field has the key."""
    facts = []
    found = {(each.plan.capability, each.plan.source): each.found for each in looked}
    for plan in planned:
        here = found.get((plan.capability, plan.source))
        fact: dict[str, Any] = {"capability": plan.capability, "source": plan.source, "searched": here is not None}
        if here is not None:
            fact |= {
                "accepted": here.accepted.height,
                "quarantined": here.held.height,
                "waiting": sum(each.records for each in here.waiting),
                "rejected": here.rejected,
                "in_other_fields": here.elsewhere,
                "not_searchable": list(here.unread),
                "under_way": here.under_way,
            }
        facts.append(fact)
    return facts


def rows_lines(facts: list[dict[str, Any]], *, would: bool) -> list[str]:
    """The same for people. Sources of which nothing is to be said have no line."""
    lines = []
    for fact in facts:
        where = f"{fact['capability']} {fact['source']}"
        if not fact["searched"]:
            lines.append(
                f"look at      {where}: it does not say which field has the key; say it with --field NAME=VALUE"
            )
            continue
        if would and counted(fact):
            lines.append(f"would erase  {where}: {counted(fact)}")
        if would and fact["under_way"]:
            lines.append(f"under way    {where}: it was begun and stopped, and has no receipt yet")
        for name, rows in sorted(fact["in_other_fields"].items()):
            held = "1 row in quarantine has" if rows == 1 else f"{rows:,} rows in quarantine have"
            lines.append(f"look at      {where}: {held} the value as {name}; see --field")
        lines += [f"look at      {path}: a rejected file that cannot be searched" for path in fact["not_searchable"]]
    return lines


def counted(fact: dict[str, Any]) -> str:
    """How many records there are, by where they are.

    >>> counted({"accepted": 3, "quarantined": 1, "waiting": 0, "rejected": 0})
    '3 rows taken in, 1 row in quarantine'
    """
    places = {
        "accepted": "taken in",
        "quarantined": "in quarantine",
        "waiting": "in items that wait",
        "rejected": "in rejected files",
    }
    said = [(fact[name], words) for name, words in places.items() if fact[name]]
    return ", ".join(f"{count:,} row{'' if count == 1 else 's'} {words}" for count, words in said)
