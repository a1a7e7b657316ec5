"""What stands behind a decision, put together from its record, its version and the tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from mainstay.catalog.declared import load_declared
from mainstay.catalog.releases import history
from mainstay.catalog.types import TrainedOn
from mainstay.catalog.versions import load_manifest
from mainstay.cli.common import require_sight
from mainstay.cli.registered import trained_on_line
from mainstay.errors import MainstayError, Misuse
from mainstay.intake.traced import SourceRow, row_behind, rows_by_key
from mainstay.lake.lagging import instant
from mainstay.lake.lake import open_lake
from mainstay.ledger.find import find_entry
from mainstay.signing import load_verifier

if TYPE_CHECKING:
    from mainstay.capability.load import Declared
    from mainstay.capability.sources import Source
    from mainstay.capability.types import Capability
    from mainstay.workspace import Workspace


def source_named(capability: Capability, name: str) -> Source | None:
    """The source of this name; None when it declares none."""
    return next((each for each in capability.sources if each.name == name), None)


def decision_facts(workspace: Workspace, decision_id: str, days: int) -> dict[str, Any]:
    """What stands behind a decision, as plain values. Raises Misuse when there is no such decision, or none to see."""
    found = find_entry(workspace.ledger, decision_id)
    leaf = None if found is None else msgspec.json.decode(found.entry.leaf)
    if found is None or leaf is None or leaf["kind"] != "decision":
        raise Misuse(f"no decision {decision_id[:80]!r} in this ledger", hint="Expected the decision_id of an answer.")
    require_sight(workspace, leaf["capability"])
    body = msgspec.json.decode(found.entry.body) if found.entry.body else None
    declared, missing = _declared(workspace, leaf["version"])
    release = next(
        (
            each
            for each in history(workspace.releases, leaf["capability"], load_verifier(workspace.keys))
            if each.number == leaf["release"]
        ),
        None,
    )
    return {
        "decision": {name: leaf[name] for name in ("id", "at", "capability", "outcome", "stage")},
        "entry": found.sequence,
        "erased": found.sequence is not None and body is None,
        **_sources(workspace, leaf, body or {}, declared, days),
        "contract": _contract(declared, None if release is None else release.contract),
        "version": leaf["version"],
        "version_problem": missing,
        "trained_on": _trained_on(workspace, leaf["version"]),
        "release": {"number": leaf["release"]} if release is None else msgspec.to_builtins(release),
        "policy": leaf.get("policy"),
    }


def _declared(workspace: Workspace, version: str) -> tuple[Declared | None, str]:
    """What the version declares, or why that cannot be said."""
    try:
        return load_declared(workspace, version), ""
    except MainstayError as error:
        return None, error.message
    except OSError as error:
        return None, str(error)


def _trained_on(workspace: Workspace, version: str) -> Any:
    try:
        return msgspec.to_builtins(load_manifest(workspace.versions, version).trained_on)
    except (MainstayError, OSError):
        return None


def _contract(declared: Declared | None, digest: str | None) -> dict[str, Any]:
    if declared is None:
        return {"digest": digest}
    return {"id": declared.contract.id, "version": declared.contract.version, "digest": digest}


def _sources(
    workspace: Workspace, leaf: dict[str, Any], body: dict[str, Any], declared: Declared | None, days: int
) -> dict[str, Any]:
    source = body.get("source") or {}
    rows: list[SourceRow] = []
    if "table" in source:
        rows = [row_behind(workspace, open_lake(workspace), source["table"], source["item"], source["row"])]
    elif not source and declared is not None and isinstance(body.get("key"), str):
        at = instant(leaf["at"])
        if at is not None:
            lake = open_lake(workspace)
            for each in declared.capability.sources:
                rows += rows_by_key(workspace, lake, leaf["capability"], each, body["key"], at, days=days)
    return {
        "batch": source.get("batch"),
        "file": {"name": source["file"], "row": source["row"]} if "file" in source else None,
        "rows": [each._asdict() for each in rows],
        "looked_back_days": days if not source and declared is not None and declared.capability.sources else None,
    }


def decision_lines(found: dict[str, Any]) -> list[str]:
    """The same for people."""
    decision, release, contract = found["decision"], found["release"], found["contract"]
    facts = [
        ("decision", f"{decision['id']}, {decision['outcome']}, {decision['at']}"),
        ("capability", decision["capability"]),
        *_row_facts(found),
    ]
    if "id" in contract:
        facts.append(("contract", f"{contract['id']}@{contract['version']}"))
    if contract["digest"] is not None:
        facts.append(("", contract["digest"]))
    facts.append(("version", found["version"]))
    if found["version_problem"]:
        facts.append(("", f"what it declares is not known: {found['version_problem']}"))
    if found["trained_on"] is not None:
        facts.append(("trained on", trained_on_line(msgspec.convert(found["trained_on"], TrainedOn))))
    by = f", {release['published_at']} by {release['published_by']}: {release['reason']}" if len(release) > 1 else ""
    facts.append(("release", f"{release['number']} ({decision['stage']}){by}"))
    if found["policy"] is not None:
        facts.append(("policy", found["policy"]))
    return [f"{name:<12} {value}" for name, value in facts]


def _row_facts(found: dict[str, Any]) -> list[tuple[str, str]]:
    facts = [] if found["batch"] is None else [("batch", found["batch"])]
    if found["erased"]:
        return [("source row", "its body has been erased: nobody knows any more")]
    if found["file"] is not None:
        return [*facts, ("source row", f"row {found['file']['row']:,} of {found['file']['name']}")]
    newest: set[str] = set()  # tables of which a row was told
    for each in (SourceRow(**row) for row in found["rows"]):
        linked = _linked(each, is_newest=each.table not in newest)
        newest.add(each.table)
        facts.append(("source row", f"{each.table} item {each.item}, row {each.row}{linked}"))
        if each.arrived_at is None:
            facts.append(("", "the row is not in the table any more"))
        else:
            facts.append(("", f"arrived {each.arrived_at:%Y-%m-%d %H:%M:%S}Z under {each.contract}{_marks(each)}"))
        if each.origin is not None:
            facts.append(("", f"from {each.origin}"))
    if not found["rows"]:
        back = found["looked_back_days"]
        why = "no source of this capability" if back is None else f"no row of its key in the {back} days before"
        facts.append(("source row", f"none is known: {why}"))
    return facts


def _linked(row: SourceRow, *, is_newest: bool) -> str:
    if row.link == "row":
        return ""
    if not is_newest:
        return " (by key: an older one)"
    version = "" if row.table_version is None else f", the table being at version {row.table_version}"
    return f" (by key: the newest of this key then{version})"


def _marks(row: SourceRow) -> str:
    late = "" if row.late is None else f", late: {row.late}"
    return late + ("" if row.coerced is None else ", coerced")
