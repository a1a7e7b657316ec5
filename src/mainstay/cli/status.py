from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import Parameter

from mainstay.capability.load import load_capability
from mainstay.catalog.holds import find_hold
from mainstay.catalog.releases import capabilities_with_releases, read_current
from mainstay.catalog.versions import open_version
from mainstay.cli.common import DEFAULT, Common, out, print_json
from mainstay.documents import shorten
from mainstay.errors import MainstayError
from mainstay.lake.lagging import standing as lake_standing
from mainstay.ledger.index import Index
from mainstay.ledger.log import Log
from mainstay.ledger.publishing import standing
from mainstay.ledger.trust_policy import shown
from mainstay.ledger.wal import segments
from mainstay.lineage.emitting import standing as lineage_standing
from mainstay.monitoring.promise import Held, hold
from mainstay.monitoring.report_lines import summary
from mainstay.monitoring.store import read_findings, read_memory
from mainstay.server.supervisor import is_ready, running_state
from mainstay.signing import load_verifier
from mainstay.state.database import FILE, open_database

if TYPE_CHECKING:
    from mainstay.catalog.holds import Standing
    from mainstay.monitoring.intervals import Estimate
    from mainstay.monitoring.performance import Verdict
    from mainstay.workspace import Workspace

SHORT_DIGEST = 19  # "sha256:" and 12 digits
REASON_CHARACTERS = 300  # of why a capability is held
NEWEST = 100_000  # decisions that performance is computed over at most


def status(
    *,
    days: Annotated[float, Parameter(help="How far back performance is looked at.")] = 30.0,
    common: Common = DEFAULT,
) -> None:
    """How it is going: what runs, what is in force, how decisions ended, whether the pilot's promise holds.

    Example: mainstay status --days 7
    """
    found = gather_status(common.open(), days)
    if common.json:
        print_json(found)
    else:
        for line in status_lines(found):
            out.print(line, markup=False)


def gather_status(workspace: Workspace, days: float) -> dict[str, Any]:
    """Everything `mainstay status` says, as plain values."""
    state = running_state(workspace)
    log = Log(workspace.ledger)
    verifier = load_verifier(workspace.keys)
    since = datetime.now(UTC) - timedelta(days=days)
    capabilities = []
    monitored = _monitored(workspace)
    with Index(workspace.ledger) as index:
        index.catch_up(log)
        for name in capabilities_with_releases(workspace.releases):
            release = read_current(workspace.releases, name, verifier)
            declared = load_capability(open_version(workspace.versions, release.version).folder)
            capabilities.append(
                {
                    "name": name,
                    "release": msgspec.to_builtins(release),
                    "owner": msgspec.to_builtins(declared.capability.owner),
                    "held": held_facts(find_hold(workspace.holds, name, verifier)),
                    "counts": index.counts(name)._asdict(),
                    "monitoring": monitored.get(name),
                    "performance": msgspec.to_builtins(hold(index, declared.capability, since, newest=NEWEST)),
                }
            )
    waiting = sum(path.stat().st_size for path in segments(workspace.ledger / "wal"))
    return {
        "workspace": str(workspace.root),
        "up": None if state is None else {**state, "ready": is_ready(str(state["url"]))},
        "ledger": {"log": workspace.settings.log, "sealed_entries": log.size, "write_ahead_bytes": waiting},
        "lake": _lake(workspace),
        "lineage": lineage_standing(workspace)._asdict(),
        "anchors": [
            {"kind": place.kind, "name": shown(place.name), **msgspec.to_builtins(found)}
            for place, found in standing(workspace, verifier)
        ],
        "days": days,
        "newest": NEWEST,
        "capabilities": capabilities,
    }


def _monitored(workspace: Workspace) -> dict[str, dict[str, Any]]:
    """What monitoring says of each capability; what was never monitored is not there."""
    if not workspace.settings.control_database and not (workspace.data / FILE).exists():
        return {}
    found: dict[str, dict[str, Any]] = {}
    try:
        with open_database(workspace) as database:
            for name in capabilities_with_releases(workspace.releases):
                memory = read_memory(database, name)
                if memory is not None:
                    still = read_findings(database, name, open_only=True)
                    until = None if memory.judged_until is None else memory.judged_until.isoformat()
                    plain = [msgspec.to_builtins(each) for each in still]
                    said = {"judged_until": until, "summary": summary(still), "findings": plain, "problem": ""}
                    found[name] = said
    except MainstayError as error:
        unknown: dict[str, Any] = {"judged_until": None, "summary": "unknown", "findings": [], "problem": str(error)}
        return dict.fromkeys(capabilities_with_releases(workspace.releases), unknown)
    return found


def _lake(workspace: Workspace) -> dict[str, Any] | None:
    """How far the tables are behind the ledger; None where nothing was exported yet."""
    found = lake_standing(workspace)
    return None if found is None else {**found.lag._asdict(), **msgspec.to_builtins(found.progress)}


def held_facts(standing: Standing | None) -> dict[str, Any] | None:
    """That a capability is held, and why; None where it is not."""
    if standing is None:
        return None
    return {"detail": standing.detail, **msgspec.to_builtins(standing)}


def status_lines(found: dict[str, Any]) -> list[str]:
    """The status for people."""
    up = found["up"]
    state = "not up" if up is None else f"{'ready' if up['ready'] else 'NOT READY'} at {up['url']}"
    ledger = found["ledger"]
    lines = [f"workspace  {found['workspace']}", f"service    {state}"]
    lines.append(f"ledger     {ledger['log']}, {ledger['sealed_entries']:,} entries sealed")
    lines += [*_lake_lines(found["lake"]), *_lineage_lines(found["lineage"])]
    lines += [_anchor_line(each, ledger["sealed_entries"]) for each in found["anchors"]]
    if not found["capabilities"]:
        lines.append("nothing is in production: mainstay register DIR, then mainstay promote NAME --reason '...'")
    for each in found["capabilities"]:
        lines += ["", *_capability_lines(each, found["days"])]
    return lines


def _lake_lines(lake: dict[str, Any] | None) -> list[str]:
    if lake is None:
        return []
    if lake["problem"]:
        return [f"lake       FAILING, {lake['exported']:,} entries exported: {_one_line(lake['problem'])}"]
    waiting = lake["sealed"] - lake["exported"]
    behind = f", {waiting:,} behind by {lake['seconds']:.0f} s" if waiting else ""
    return [f"lake       {lake['exported']:,} entries exported{behind}, looked at {lake['at']}"]


def _lineage_lines(lineage: dict[str, Any]) -> list[str]:
    """Nothing where every event arrived."""
    said = [f"{lineage[name]:,} events {name}" for name in ("waiting", "lost") if lineage[name]]
    if not said and not lineage["problem"]:
        return []
    why = f": {_one_line(lineage['problem'])}" if lineage["problem"] else ""
    return [f"lineage    {', '.join(said) or 'FAILING'}, to {lineage['place']}{why}"]


def _one_line(text: str) -> str:
    return ". ".join(text.splitlines())


def _anchor_line(each: dict[str, Any], sealed: int) -> str:
    name = each["name"] if each["kind"] != "witness" else f"witness {each['name']}"
    if each["failing_since"] is not None:
        why = each["error"].replace("\n", ". ")
        has = f"{each['size']:,} entries" if each["size"] else "nothing"
        return f"anchor     {name}: FAILING since {each['failing_since']}, has {has}: {why}"
    if each["stored_at"] is None:
        return f"anchor     {name}: nothing yet"
    behind = f", {sealed - each['size']:,} behind" if sealed > each["size"] else ""
    return f"anchor     {name}: {each['size']:,} entries since {each['stored_at']}{behind}"


def _capability_lines(each: dict[str, Any], days: float) -> list[str]:
    release, counts = each["release"], each["counts"]
    version = release["version"][:SHORT_DIGEST]
    lines = [
        f"{each['name']}  release {release['number']}, version {version}, since {release['published_at']}",
        f"  owner      {each['owner']['team']} ({each['owner']['contact']})",
        *_held_lines(each["name"], each["held"]),
        f"  decisions  {_counted(counts['decisions'])}",
        *_monitored_lines(each["name"], each["monitoring"]),
    ]
    if counts["reasons"]:
        lines.append(f"  reasons    {_counted(counts['reasons'])}")
    held = msgspec.convert(each["performance"], Held)
    lines.append(f"  outcomes   {counts['outcomes']:,} reported; {held.labelled:,} of {held.answered:,} answers known")
    over = f"last {days:g} days" if held.answered < NEWEST else f"last {held.answered:,} decisions"
    lines += [f"  {line}" for line in promise_lines(held, over)]
    return lines


def _monitored_lines(name: str, monitored: dict[str, Any] | None) -> list[str]:
    """What monitoring found, and where more of it is told."""
    if monitored is None:
        return []
    if monitored["problem"]:
        return [f"  monitor    UNKNOWN: {_one_line(monitored['problem'])}"]
    if not monitored["findings"]:
        return [f"  monitor    {monitored['summary']}, judged until {monitored['judged_until']}"]
    return [f"  monitor    {monitored['summary']}", f"             what it is and what to do: mainstay monitor {name}"]


def _held_lines(name: str, held: dict[str, Any] | None) -> list[str]:
    """Why it answers with its fallback, and how to let it go on."""
    if held is None:
        return []
    if held["damage"]:
        return [f"  held       {held['detail']}: {held['damage']}"]
    lines = []
    if (stopped := held["stopped"]) is not None:
        lines.append(f"  STOPPED    since {stopped['since']}, by {stopped['by']}: its fallback ladder answers")
        lines.append(f"             {shorten(stopped['reason'], REASON_CHARACTERS)}")
        lines.append(f"             let it go on: mainstay resume {name} --reason '...'")
    for each in held["holds"]:
        lines.append(f"  held       source {each['source']} is stopped since {each['since']}: {each['code']}")
        lines.append(f"             {shorten(each['reason'], REASON_CHARACTERS)}")
        lines.append(f"             let it go on: mainstay intake release {name} {each['source']} --reason '...'")
    return lines


def promise_lines(held: Held, over: str) -> list[str]:
    """Each promise and how it stands, then what the yes or no is worth."""
    lines = [_verdict_line(verdict, over) for verdict in held.verdicts]
    if held.threshold is not None:
        parts = {name: getattr(held.threshold, name) for name in ("accuracy", "precision", "recall")}
        said = ", ".join(f"{name} {_estimate(value)}" for name, value in parts.items() if value is not None)
        lines.append(f"at probability {held.threshold.at:g}: {said}")
    return lines


def _verdict_line(verdict: Verdict, over: str) -> str:
    name = verdict.name.replace("_", " ")
    bound = "at least" if verdict.name == "roc_auc" else "at most"
    observed = "unknown" if verdict.observed is None else f"{verdict.observed:.3f}"
    interval = "" if verdict.low is None or verdict.high is None else f" [{verdict.low:.3f}, {verdict.high:.3f}]"
    return f"{verdict.verdict.upper():<7} {name} {observed}{interval}, promised {bound} {verdict.required:g} ({over})"


def _estimate(value: Estimate) -> str:
    return f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]"


def _counted(counts: dict[str, int]) -> str:
    return (
        ", ".join(f"{name} {number:,}" for name, number in sorted(counts.items(), key=lambda item: -item[1])) or "none"
    )
