from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from cyclopts import Parameter
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from mainstay import __version__
from mainstay.catalog.releases import capabilities_with_releases, read_current
from mainstay.cli.checks_formats import to_junit, to_sarif
from mainstay.cli.common import DEFAULT, Common, err, out, print_json, require_sight
from mainstay.cli.versions import find_version
from mainstay.errors import Misuse
from mainstay.files import write_atomic
from mainstay.rollout.gates import run_checks
from mainstay.signing import load_verifier
from mainstay.state.database import open_database

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from mainstay.rollout.gates_types import Check, CheckId, Report, Stage
    from mainstay.state.database import Database
    from mainstay.workspace import Workspace

SHORT_DIGEST = 19  # "sha256:" and 12 digits
MARKS = {"pass": "pass", "fail": "FAIL", "unknown": "unknown"}
STYLES = {"pass": "", "fail": "red", "unknown": "yellow"}
WIDEST = 160  # characters of a line about a check
FRESH_SECONDS = 60.0  # below which evidence is not said to be old
SHOWN_EVIDENCE = 2

_AGES = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"))


def check(
    name: str,
    /,
    *,
    version: Annotated[
        str, Parameter(help="A version's id or its beginning; by default the one registered last.")
    ] = "",
    for_: Annotated[
        Literal["shadow", "canary", "production", "retired"],
        Parameter(name="--for", help="The stage that the version is to come to, or is to be kept at."),
    ] = "production",
    in_force: Annotated[bool, Parameter(negative="", help="Check the version in production.")] = False,
    junit: Annotated[Path | None, Parameter(help="Write the checks to this file as JUnit XML, too.")] = None,
    sarif: Annotated[Path | None, Parameter(help="Write the checks to this file as SARIF 2.1.0, too.")] = None,
    common: Common = DEFAULT,
) -> int:
    """Every check of a version before a stage, with what was observed; exit code 1 while one that is needed is open.

    Example: mainstay check late-arrival

    Example: mainstay check late-arrival --for canary --junit checks.xml --sarif checks.sarif

    Parameters
    ----------
    name
        The capability.
    """
    workspace = common.open()
    if name in capabilities_with_releases(workspace.releases):
        require_sight(workspace, name)
    if in_force and version:
        raise Misuse("expected --version or --in-force, found both")
    found = _in_production(workspace, name) if in_force else find_version(workspace, name, version)
    with open_database(workspace) as database:
        report = look(workspace, name, found, for_, database)
    if junit is not None:
        write_atomic(junit, to_junit(report))
    if sarif is not None:
        document = msgspec.json.encode(to_sarif(report, __version__))
        write_atomic(sarif, msgspec.json.format(document, indent=2) + b"\n")
    if common.json:
        print_json(facts_of(report))
    else:
        for line, style in report_lines(report):
            out.print(line, style=style, markup=False)
    return 0 if report.passes else 1


def look(
    workspace: Workspace,
    name: str,
    version: str,
    stage: Stage,
    database: Database | None,
    *,
    without: Collection[CheckId] = (),
) -> Report:
    """Run the checks, and say on the terminal which one is being looked at."""
    with Progress(
        SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=err, transient=True
    ) as bar:
        task = bar.add_task("checking", total=None)
        return run_checks(
            workspace,
            name,
            version,
            stage,
            verifier=load_verifier(workspace.keys),
            database=database,
            without=without,
            progress=lambda text: bar.update(task, description=text),
        )


def _in_production(workspace: Workspace, name: str) -> str:
    return read_current(workspace.releases, name, load_verifier(workspace.keys)).version


def facts_of(report: Report) -> dict[str, Any]:
    """A report for programs."""
    found: dict[str, Any] = msgspec.to_builtins(report)
    return {**found, "passes": report.passes, "closed_by": [each.id for each in report.closed_by]}


def evidence_of(report: Report) -> dict[str, Any]:
    """What of a report goes into the record of what rests on it."""
    shown = ("id", "verdict", "observed", "required", "needed", "evidence", "age_seconds")
    checks = [{name: getattr(each, name) for name in shown} for each in report.checks]
    return {"stage": report.stage, "at": report.at, "passes": report.passes, "checks": checks}


def report_lines(report: Report) -> Iterator[tuple[str, str]]:
    """A report for people: lines, and how they are shown."""
    yield f"{report.capability} before {report.stage}: version {report.version[:SHORT_DIGEST]}", "bold"
    yield "", ""
    marks = max(len(_mark(each)) for each in report.checks)
    names = max(len(each.id) for each in report.checks)
    for each in report.checks:
        yield f"{_mark(each).ljust(marks)}  {each.id.ljust(names)}  {_cut(each.observed)}", STYLES[each.verdict]
        yield " " * (marks + names + 4) + _cut(_rest(each)), "dim"
    yield "", ""
    for line in summary_lines(report):
        yield line, ""


def summary_lines(report: Report) -> Iterator[str]:
    """How many pass, and what keeps the gate shut."""
    passing = sum(each.verdict == "pass" for each in report.checks)
    said = f"{passing} of {len(report.checks)} checks pass"
    told = [each.id for each in report.checks if each.holds and each.verdict != "pass"]
    if told:
        said += f"; not needed for {report.stage}: {', '.join(told)}"
    yield said
    if report.passes:
        yield f"the gate to {report.stage} is open"
        return
    yield f"the gate to {report.stage} is shut:"
    for each in report.closed_by:
        yield f"  {each.id}: {each.verdict}. {each.question}"
        yield f"    {each.observed}; required: {each.required}"


def _mark(check: Check) -> str:
    """The verdict, in brackets where it does not matter for the stage."""
    return MARKS[check.verdict] if check.needed or check.verdict == "pass" else f"({check.verdict})"


def _rest(check: Check) -> str:
    """What is required of it, how old its evidence is, and where that is found."""
    evidence = ", ".join(_short(each) for each in check.evidence[:SHOWN_EVIDENCE])
    if len(check.evidence) > SHOWN_EVIDENCE:
        evidence += f" and {len(check.evidence) - SHOWN_EVIDENCE} more"
    age = "" if check.age_seconds < FRESH_SECONDS else f"; {age_words(check.age_seconds)} old"
    return f"required: {check.required}{age}{f'; {evidence}' if evidence else ''}"


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= WIDEST else line[: WIDEST - 1] + "…"


def _short(evidence: str) -> str:
    return evidence[:SHORT_DIGEST] if evidence.startswith("sha256:") else evidence


def age_words(seconds: float) -> str:
    """How old something is, in the largest unit that is full; `now` below a minute."""
    return next((f"{seconds / unit:.0f} {word}" for unit, word in _AGES if seconds >= unit), "now")
