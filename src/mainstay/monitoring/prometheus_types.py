"""Rules of Prometheus as they are written into a rule file, and whom they are about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from msgspec import Struct, field

from mainstay.capability.types import Capability  # noqa: TC001 - msgspec reads the types of a struct

if TYPE_CHECKING:
    from collections.abc import Mapping


class Rule(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One rule: it has either `record` or `alert`."""

    record: str = ""
    alert: str = ""
    expr: str
    lasts: str = field(default="", name="for")  # before it fires; empty: at once
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class Subject(Struct, frozen=True, kw_only=True):
    """A capability, and what a rule has to know besides."""

    capability: Capability
    bounds: tuple[float, ...]  # of the latency histogram of `/metrics`, in seconds
    runbook: str  # where it stands: a file or a URL

    def alert(  # noqa: PLR0913 - what an alert consists of
        self,
        name: str,
        expr: str,
        *,
        severity: Literal["critical", "warning", "info"],
        summary: str,
        description: str,
        anchor: str,
        lasts: str = "",
        labels: Mapping[str, str] | None = None,
    ) -> Rule:
        """An alert with all that every alert has. `anchor` is a heading of the runbook."""
        owner = self.capability.owner
        return Rule(
            alert=name,
            expr=expr,
            lasts=lasts,
            labels={
                "severity": severity,
                "capability": self.capability.name,
                "owner": owner.contact,
                **(labels or {}),
            },
            annotations={
                "summary": summary,
                "description": description,
                "owner": owner.team,
                "runbook_url": f"{self.runbook}#{anchor}",
            },
        )
