from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
from cyclopts import Parameter

from mainstay.cli.common import err, out
from mainstay.errors import Misuse
from mainstay.files import write_atomic
from mainstay.intake.declared import sources_in_force
from mainstay.monitoring.grafana_dashboard import dashboard
from mainstay.monitoring.prometheus_levels import notes
from mainstay.monitoring.prometheus_rules import rule_file
from mainstay.monitoring.prometheus_types import Subject
from mainstay.server.metrics import BOUNDS_SECONDS
from mainstay.workspace import find_workspace

if TYPE_CHECKING:
    from mainstay.intake.declared import InForce

Workspace = Annotated[Path, Parameter(help="The workspace; by default the nearest one from here upwards.")]
Output = Annotated[Path | None, Parameter(help="The file to write, anew if it is there; by default standard output.")]

RUNBOOK = "runbook.md"


def prometheus(name: str, /, *, output: Output = None, runbook: str = RUNBOOK, workspace: Workspace = Path()) -> None:
    """Write alert and recording rules for Prometheus, from what a capability declares.

    Example: mainstay export prometheus late-arrival --output rules/late-arrival.yml

    Parameters
    ----------
    name
        The capability. What is in production counts; where nothing is, its folder.
    runbook
        Where its runbook stands, a URL or a file: alerts link to its headings.
    """
    found = sources_in_force(find_workspace(workspace), name)
    subject = Subject(capability=found.capability, bounds=BOUNDS_SECONDS, runbook=runbook)
    for note in notes(subject):
        err.print(f"note: {note}", markup=False)
    _write(rule_file(subject, _made_from(found)), output)


def grafana(name: str, /, *, output: Output = None, workspace: Workspace = Path()) -> None:
    """Write a Grafana dashboard of a capability, as JSON to import or provision.

    Example: mainstay export grafana late-arrival --output dashboards/late-arrival.json

    Parameters
    ----------
    name
        The capability. What is in production counts; where nothing is, its folder.
    """
    found = sources_in_force(find_workspace(workspace), name)
    subject = Subject(capability=found.capability, bounds=BOUNDS_SECONDS, runbook=RUNBOOK)
    made = dashboard(subject, _made_from(found))
    _write(msgspec.json.format(msgspec.json.encode(made), indent=2) + b"\n", output)


def _made_from(found: InForce) -> str:
    return "its folder" if found.version is None else f"version {found.version}"


def _write(document: bytes, output: Path | None) -> None:
    """To a file, or to standard output. Raises Misuse when the file cannot be written."""
    if output is None:
        sys.stdout.write(document.decode())
        return
    try:
        write_atomic(output, document)
    except OSError as error:
        raise Misuse(f"{output}: expected a file that can be written, found: {error.strerror}") from None
    out.print(f"{output}: {len(document):,} bytes", markup=False)
