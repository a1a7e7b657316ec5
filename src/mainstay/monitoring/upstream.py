"""What changed around a capability, with its time: releases, and what its sources noticed."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final

from mainstay.catalog.releases import history
from mainstay.documents import shorten
from mainstay.intake.findings import CODES
from mainstay.intake.state import states
from mainstay.monitoring.findings import Change

if TYPE_CHECKING:
    from mainstay.signing import Verifier
    from mainstay.workspace import Workspace

TELLING: Final = frozenset(  # of what a source notices: what may show in the columns of decisions
    {
        *("type_changed", "column_new", "column_missing", "unit_changed", "schema_breaking", "file_rejected"),
        *("rows_quarantined", "bad_share", "file_changed", "late_feed", "cursor_backwards"),
    }
)
FORM: Final = frozenset({"type_changed", "column_missing", "unit_changed", "schema_breaking"})
_CHARACTERS: Final = 200


def changes_of(workspace: Workspace, capability: str, verifier: Verifier) -> tuple[Change, ...]:
    """Every release, and every telling finding of a source that is still remembered, by time.

    Raises Damaged when a release is not what was signed.
    """
    found = [
        Change(
            at=datetime.fromisoformat(release.published_at),
            what="release",
            subject=f"release {release.number}",
            text=shorten(release.reason, _CHARACTERS),
        )
        for release in history(workspace.releases, capability, verifier)
    ]
    for owner, source, state in states(workspace.data):
        if owner != capability:
            continue
        for each in state.found:
            if each.code in TELLING:
                text = each.detail or CODES[each.code].text
                found.append(
                    Change(
                        at=each.since,
                        what="upstream",
                        subject=f"{owner}/{source}",
                        text=f"{each.code}: {shorten(text, _CHARACTERS)}",
                        item=each.item,
                        columns=() if each.field is None or each.code not in FORM else (each.field,),
                    )
                )
    return tuple(sorted(found, key=lambda change: change.at))
