"""The service levels of a source's contract, looked at now and then while it runs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from mainstay.intake.service_checks import check_service_levels
from mainstay.intake.state import noted, passed
from mainstay.intake.types import Finding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mainstay.capability.sources import Source
    from mainstay.intake.declared import InForce
    from mainstay.intake.service_checks import CheckedLevel
    from mainstay.intake.state import State, StateFile
    from mainstay.lake.lake import Lake

CHECK_SECONDS: Final = 60.0

_CODES: Final = {"freshness": "freshness", "latency": "freshness", "completeness": "completeness"}
_OTHER: Final = "service_level"


def check_levels(lake: Lake, in_force: InForce, source: Source, file: StateFile) -> None:
    """Hold the service levels against the tables, unless that was done in the last CHECK_SECONDS; note what fails.

    Raises Failed when the storage does not answer.
    """
    now, before = datetime.now(UTC), file.read().checked_at
    if before is not None and 0 <= (now - before).total_seconds() < CHECK_SECONDS:
        return
    found = findings_of(check_service_levels(lake, in_force.capability, source, in_force.contract, now))

    def note(state: State) -> State:
        state = passed(replace(state, checked_at=now), "check", now, but=found)
        return noted(state, found, now, until="check")

    file.change(note)


def findings_of(levels: Sequence[CheckedLevel]) -> list[Finding]:
    """Those that fail."""
    found = []
    for each in levels:
        level = each.level
        if level.verdict == "fail":
            where = f" of {level.element}" if level.element else ""
            observed = f", found {level.observed}" if level.observed else ""
            why = f" ({level.reason})" if level.reason else ""
            detail = f"{level.property}{where}: expected {level.required}{observed}{why}"
            found.append(Finding(_CODES.get(level.property, _OTHER), detail, field=level.element or None))
    return found
