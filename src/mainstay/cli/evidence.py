from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import Parameter
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mainstay.catalog.releases import history
from mainstay.catalog.types import TrainedOn
from mainstay.catalog.versions import load_manifest
from mainstay.cli.common import DEFAULT, Common, err, out, print_json, read_bounded, require_sight
from mainstay.cli.erase import erasure_facts, erasure_rows
from mainstay.cli.explained import (
    Step,
    asker_of,
    capability_seen,
    change_facts,
    is_proven,
    source_line,
    step_lines,
    steps_of,
)
from mainstay.cli.registered import trained_on_line
from mainstay.cli.review import resolution_facts
from mainstay.errors import MainstayError, Misuse
from mainstay.ledger.anchored import Against
from mainstay.ledger.anchors import FileSource
from mainstay.ledger.archives import Archived
from mainstay.ledger.erasure import erasure_of
from mainstay.ledger.find import find_entry
from mainstay.ledger.index import Index
from mainstay.ledger.log import Log
from mainstay.ledger.reviews import ReviewQueue
from mainstay.ledger.sources import configured_sources, open_source
from mainstay.ledger.state import WITNESSED_FILE
from mainstay.ledger.trust_policy import MAX_POLICY_BYTES, parse_policy
from mainstay.ledger.verify import Report, verify_ledger
from mainstay.signing import load_verifier, parse_vkey

if TYPE_CHECKING:
    from mainstay.ledger.find import Found
    from mainstay.ledger.trust_policy import TrustPolicy
    from mainstay.signing import Verifier
    from mainstay.workspace import Workspace

MAX_NOTE_BYTES = 1 << 20
SHORT_DIGEST = 19  # "sha256:" and 12 digits

_WOULD_HAVE = {
    "answered": "answered",
    "fallback": "fallen back",
    "review": "asked a person",
    "refused": "refused",
}


def verify(
    *,
    directory: Annotated[Path | None, Parameter(help="A copy of a ledger; by default the workspace's own.")] = None,
    public_key: Annotated[Path | None, Parameter(help="The signing.vkey to trust; by default the workspace's.")] = None,
    against: Annotated[
        list[str] | None,
        Parameter(
            help="Checkpoints kept elsewhere, which the log must extend: a file, directory, git repository or URL;"
            " repeat for several. By default all that the workspace has configured.",
            negative="",
        ),
    ] = None,
    policy: Annotated[
        Path | None, Parameter(help="A trust policy: one of these checkpoints must have the cosignatures it asks for.")
    ] = None,
    common: Common = DEFAULT,
) -> int:
    """Read the whole ledger again: every record, every hash, every signature. Names the first bad place.

    Example: mainstay ledger verify --against kept/checkpoint
    """
    ledger = common.open().ledger if directory is None else directory
    if public_key is None:
        verifier = load_verifier(common.open().keys)
    else:
        verifier = parse_vkey(read_bounded(public_key, MAX_NOTE_BYTES).decode("utf-8", "replace").strip())
    if against or directory is not None:
        held_to = _held_to(against or [], policy, ledger)
    else:
        held_to = _held_to_all(common.open(), policy, verifier)
    with Progress(
        TextColumn("verifying"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=err, transient=True
    ) as bar:
        task = bar.add_task("", total=None)
        report = verify_ledger(
            ledger,
            verifier,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
            against=held_to,
        )
    if common.json:
        print_json(report)
    else:
        show_report(report)
    return 0 if report.ok else 1


def _held_to(named: list[str], policy: Path | None, ledger: Path) -> Against:
    """What was named; where nothing was, the checkpoint that `policy` says whether witnesses have cosigned."""
    sources = [open_source(each) for each in named]
    witnessed = ledger / WITNESSED_FILE
    if not sources and policy is not None and witnessed.exists():
        sources.append(FileSource(witnessed, outside=False))
    return Against(tuple(sources), _read_policy(policy), must_be_cosigned=policy is not None)


def _held_to_all(workspace: Workspace, policy: Path | None, verifier: Verifier) -> Against:
    """All that a workspace has configured; what cannot be reached now is no finding."""
    sources, configured = configured_sources(workspace, verifier)
    trusted = _read_policy(policy) or configured
    return Against(tuple(sources), trusted, must_be_read=False, must_be_cosigned=policy is not None)


def _read_policy(path: Path | None) -> TrustPolicy | None:
    return None if path is None else parse_policy(read_bounded(path, MAX_POLICY_BYTES), str(path))


def show_report(report: Report) -> None:
    """What verification found, for people."""
    for line in report.lines():
        out.print(line, markup=False)


def explain(entry_id: str, /, *, common: Common = DEFAULT) -> None:
    """One decision: who asked, what was sent, what was in force, how it ended, and what came of it.

    Example: mainstay explain 01990c2a-5b1e-7a3f-8c21-55e000000007

    Parameters
    ----------
    entry_id
        The decision_id of an answer, or the id of any other entry.
    """
    workspace = common.open()
    explained = explain_entry(workspace, entry_id)
    seen = capability_seen(workspace, explained["entry"], explained["body"])
    if seen is not None:
        require_sight(workspace, seen)
    if common.json:
        print_json(explained)
    else:
        for line in explanation_lines(explained):
            out.print(line, markup=False)


def explain_entry(workspace: Workspace, entry_id: str) -> dict[str, Any]:
    """Everything known of an entry, as plain values. Raises Misuse when there is none."""
    found = find_entry(workspace.ledger, entry_id)
    if found is None:
        raise Misuse(f"no entry {entry_id[:80]!r} in this ledger", hint="Expected the decision_id of an answer.")
    leaf = msgspec.json.decode(found.entry.leaf)
    body = msgspec.json.decode(found.entry.body) if found.entry.body else None
    explained = {"entry": leaf, "body": body, "evidence": _evidence(workspace, found)}
    erasure = None if found.sequence is None else erasure_of(workspace.ledger, found.sequence)
    if erasure is not None:
        explained["erasure"] = erasure_facts(erasure)
    if leaf["kind"] != "decision":
        return explained
    explained["steps"] = [each._asdict() for each in steps_of(leaf, body, sequence=found.sequence)]
    explained["in_force"] = next(
        (
            msgspec.to_builtins(release)
            for release in history(workspace.releases, leaf["capability"], load_verifier(workspace.keys))
            if release.number == leaf["release"]
        ),
        None,
    )
    with Index(workspace.ledger) as index:
        index.catch_up(Log(workspace.ledger))
        reported = index.outcomes_of(leaf["id"], leaf["capability"], None if body is None else body["key"])
        shadowed = index.shadows_of(leaf["id"])
    explained["trained_on"] = _trained_on(workspace, leaf["version"])
    explained["outcomes"] = [
        {"observed_at": each.observed_at, "outcome": msgspec.json.decode(each.outcome), "entry": each.sequence}
        for each in reported
    ]
    explained["shadows"] = [_shadow(workspace, sequence) for sequence in shadowed]
    if leaf["outcome"] == "review":
        explained["resolutions"] = msgspec.to_builtins(ReviewQueue(workspace).resolutions(leaf["id"]))
    return explained


def _shadow(workspace: Workspace, sequence: int) -> dict[str, Any]:
    """What a shadow would have decided; without `said` where that is gone."""
    try:
        entry = Log(workspace.ledger).entry(sequence)
    except Archived:
        return {"entry": sequence}
    leaf = msgspec.json.decode(entry.leaf)
    said = {"said": msgspec.json.decode(entry.body)} if entry.body else {}
    return {"entry": sequence, **{name: leaf[name] for name in ("id", "version", "outcome", "reasons")}, **said}


def _trained_on(workspace: Workspace, version: str) -> Any:
    """The snapshot that a version was trained on; None where it names none, or is not here any more."""
    try:
        return msgspec.to_builtins(load_manifest(workspace.versions, version).trained_on)
    except (MainstayError, OSError):
        return None


def _evidence(workspace: Workspace, found: Found) -> dict[str, Any]:
    log = Log(workspace.ledger)
    checkpoint = log.checkpoint()
    sealed = found.sequence is not None
    return {
        "sealed": sealed,
        "sequence": found.sequence,
        "leaf_hash": found.entry.leaf_hash.hex(),
        "log": workspace.settings.log,
        "log_size": None if checkpoint is None or not sealed else checkpoint.size,
        "proven": is_proven(workspace, found),
    }


def explanation_lines(explained: dict[str, Any]) -> list[str]:
    """An explanation for people, a fact a line."""
    leaf, body, evidence = explained["entry"], explained["body"] or {}, explained["evidence"]
    facts: list[tuple[str, Any]] = [("id", leaf["id"]), ("recorded", leaf["at"])]
    if leaf["kind"] == "decision":
        facts += _decision_facts(leaf, body, explained)
    elif leaf["kind"] == "change":
        facts += change_facts(leaf, explained["body"])
    else:
        facts += [(name, value) for name, value in leaf.items() if name not in ("id", "at", "body")]
        facts += list(body.items())
    if "erasure" in explained:
        facts = [fact for fact in facts if fact[1] is not None] + erasure_rows(explained["erasure"])
    place = f"entry {evidence['sequence']} of {evidence['log_size']}" if evidence["sealed"] else "not sealed yet"
    if evidence["proven"] is False:
        place += ", BUT ITS SIGNED CHECKPOINT DOES NOT COVER IT: run `mainstay ledger verify`;"
    facts += [("evidence", f"{place} in {evidence['log']}"), ("leaf", evidence["leaf_hash"])]
    lines = [f"{name:<12} {value if isinstance(value, str) else _compact(value)}" for name, value in facts]
    steps = step_lines([Step(**each) for each in explained.get("steps", ())])
    return [*lines, "", *steps] if steps else lines


def _decision_facts(leaf: dict[str, Any], body: dict[str, Any], explained: dict[str, Any]) -> list[tuple[str, Any]]:
    release = explained.get("in_force")
    facts: list[tuple[str, Any]] = [
        ("capability", leaf["capability"]),
        ("asked by", asker_of(leaf)),
        *([("from", line)] if (line := source_line(body.get("source"))) is not None else []),
        ("key", body.get("key")),
        ("version", leaf["version"]),
        ("release", f"{leaf['release']} ({leaf['stage']})"),
    ]
    if explained.get("trained_on") is not None:
        facts.append(("trained on", trained_on_line(msgspec.convert(explained["trained_on"], TrainedOn))))
    if release is not None:
        facts.append(
            ("in force", f"since {release['published_at']}, by {release['published_by']}: {release['reason']}")
        )
        facts.append(("contract", release["contract"]))
    facts += [("input", body.get("input")), ("outcome", leaf["outcome"])]
    details = body.get("details") or {}
    facts += [("reason", f"{reason['code']}: {reason['detail']}") for reason in details.get("reasons", ())]
    facts += [
        ("violation", f"{each['field']}: {each['rule']}: expected {each['expected']}, found {each['found']}")
        for each in details.get("violations", ())
    ]
    if body.get("output") is not None:
        facts.append(("output", body["output"]))
    if details.get("proposed") is not None:
        facts.append(("proposed", details["proposed"]))
    if body.get("confidence") is not None:
        facts.append(("confidence", f"{body['confidence']:.4f}"))
    facts += [("shadow", _shadow_line(each)) for each in explained.get("shadows", ())]
    if "resolutions" in explained:
        facts += resolution_facts(explained["resolutions"])
    later = explained.get("outcomes") or []
    facts += [("came of it", f"{_compact(each['outcome'])} at {each['observed_at']}") for each in later]
    if not later and "erasure" not in explained:
        facts.append(("came of it", "not reported yet"))
    return facts


def _shadow_line(shadow: dict[str, Any]) -> str:
    if "version" not in shadow:
        return f"entry {shadow['entry']}, which has left with an archive"
    said = shadow.get("said")
    why = f" ({', '.join(shadow['reasons'])})" if shadow["reasons"] else ""
    line = f"{shadow['version'][:SHORT_DIGEST]} would have {_WOULD_HAVE[shadow['outcome']]}{why}"
    if said is None:
        return f"{line}; what it said was erased"
    if said["output"] is not None:
        line += f": {_compact(said['output'])}"
    return f"{line}, in {said['seconds'] * 1000:.1f} ms; entry {shadow['id']}"


def _compact(value: Any) -> str:
    return msgspec.json.encode(value).decode()
