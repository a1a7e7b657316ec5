"""The judges of a source together, as its declaration asks for them: its schema, and the share of its bad rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mainstay.intake.hurt import find_hurt, shown
from mainstay.intake.schema_change import SchemaChange, read_recent
from mainstay.intake.thresholds import bad_share_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mainstay.capability.sources import Source
    from mainstay.intake.declared import InForce
    from mainstay.intake.landing import Landing
    from mainstay.intake.thresholds import BadShare
    from mainstay.intake.types import Finding, Hold, PartFacts
    from mainstay.lake.lake import Lake
    from mainstay.workspace import Workspace

MEMORY: Final = "schema.json"  # beside the landing of a source


class Judging:
    """A judge of the parts of a source's items (`types.Judge`). Of the tables nothing is read until it is asked."""

    def __init__(
        self,
        workspace: Workspace,
        lake: Lake,
        in_force: InForce,
        source: Source,
        landing: Landing,
        released_to: int = 0,
    ) -> None:
        """Items up to `released_to` are let pass: somebody let them in."""
        self._lake = lake
        self._name = in_force.capability.name
        self._source = source
        self._released_to = released_to
        described = in_force.described(source)

        def hurt(fields: Sequence[str]) -> str:
            return shown(find_hurt(workspace, in_force.contract, described, fields))

        self._schema = SchemaChange(
            source,
            described,
            landing.path,
            lambda: read_recent(lake, self._name, source.name, described, released_to),
            hurt=hurt,
            memory=landing.folder.parent / MEMORY,
            released_to=released_to,
        )
        self._share: BadShare | None = None

    def __call__(self, facts: PartFacts) -> Hold | None:
        """Why the source stops at this part; None where it goes on, and where its rows came out of quarantine."""
        if facts.item.replayed:
            return None
        held = self._schema(facts)
        if held is not None:
            return held
        if self._share is None:
            self._share = bad_share_of(self._lake, self._name, self._source, released_to=self._released_to)
        return self._share(facts)

    def take_findings(self) -> tuple[Finding, ...]:
        """What was found in parts that were let pass, since this was last asked."""
        found = tuple(self._schema.findings)
        self._schema.findings.clear()
        return found
