"""Rollouts, proposals and releases as `mainstay promote`, `rollouts` and `history` show them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from mainstay.catalog.versions import load_manifest
from mainstay.cli.common import columns
from mainstay.documents import shorten
from mainstay.errors import MainstayError
from mainstay.rollout.types import Proposal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mainstay.catalog.types import Release
    from mainstay.rollout.types import Event, Rollout
    from mainstay.workspace import Workspace

SHORT_DIGEST: Final = 19  # "sha256:" and 12 digits
MINUTE: Final = 16  # characters of an instant, up to its minute
REASON_CHARACTERS: Final = 120

_DONE: Final = {
    "rollout.started": "begun",
    "rollout.advanced": "advanced",
    "rollout.promoted": "promoted",
    "rollout.rolled_back": "rolled back",
    "rollout.ended": "ended",
    "rollout.proposed": "proposed",
    "rollout.approved": "approved",
    "rollout.withdrawn": "withdrawn",
}


def stage_words(stage: str, percent: float) -> str:
    """Where a version stands: `canary at 5 %`, `rolled back`."""
    return f"canary at {percent:g} %" if stage == "canary" and percent else stage.replace("_", " ")


def rollout_lines(rollout: Rollout) -> list[str]:
    """What a move has made of a rollout."""
    words = stage_words(rollout.stage, rollout.percent)
    lines = [f"{rollout.capability}: version {rollout.version[:SHORT_DIGEST]} is {_article(words)}{words}"]
    if rollout.release is None:
        lines.append("the release for it is not there yet; `mainstay control` goes on with it")
    return lines


def _article(words: str) -> str:
    return "a " if words.startswith(("shadow", "canary")) else "in " if words == "production" else ""


def release_lines(release: Release) -> list[str]:
    """What a release puts into force."""
    lines = [f"{release.capability} release {release.number} is in force: version {release.version}"]
    if release.content_of is not None:
        lines.append(f"this is the content of release {release.content_of}")
    if release.canary is not None:
        lines.append(f"canary, for {release.canary.percent:g} % of the keys: version {release.canary.version}")
    lines += [f"shadow, given {each.share:.0%} of the decisions: version {each.version}" for each in release.shadows]
    return lines + [f"fallback: version {version}" for version in release.fallback_versions]


def proposal_lines(proposal: Proposal) -> list[str]:
    """A proposal, and how it is approved."""
    what = f"{proposal.capability}: version {proposal.version[:SHORT_DIGEST]} to {proposal.stage}"
    lines = [f"{what}: proposed by {proposal.proposed_by}: {_line(proposal.reason)}"]
    if proposal.verdict is not None:
        return [*lines, f"{proposal.verdict} by {proposal.settled_by}"]
    return [
        *lines,
        f"it waits until {proposal.expires_at[:MINUTE]}Z for somebody else:",
        f"  mainstay approve {proposal.id} --reason '...' --digest {proposal.digest}",
    ]


def trial_facts(rollout: Rollout) -> dict[str, Any]:
    """A rollout as it stands, for programs: its newest verdict beside it."""
    found: dict[str, Any] = msgspec.to_builtins(rollout)
    verdicts = found.pop("verdicts")
    return {**found, "verdict": verdicts[-1] if verdicts else None}


def trial_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """What is on trial and what waits, for people."""
    if not (found["rollouts"] or found["proposals"]):
        yield "nothing is on trial, and nothing waits for approval"
        return
    if found["rollouts"]:
        rows = [["CAPABILITY", "VERSION", "STAGE", "SINCE", "VERDICT", "DECISIONS", "LABELS", "WHY"]]
        rows += [_trial_row(each) for each in found["rollouts"]]
        yield from columns(rows)
    for each in found["proposals"]:
        if found["rollouts"]:
            yield ""
        yield from proposal_lines(msgspec.convert(each, Proposal))


def _trial_row(each: Mapping[str, Any]) -> list[str]:
    said = each["verdict"] or {"verdict": "none yet", "decisions": 0, "labels": 0, "reason": ""}
    return [
        each["capability"],
        each["version"][:SHORT_DIGEST],
        stage_words(each["stage"], each["percent"]) + (", watched" if each["stage"] == "production" else ""),
        f"{each['since'][:MINUTE]}Z",
        said["verdict"].replace("_", " "),
        f"{said['decisions']:,}",
        f"{said['labels']:,}",
        _line(said["reason"]),
    ]


def history_lines(
    workspace: Workspace, name: str, releases: Sequence[Release], told: Sequence[tuple[Rollout, Sequence[Event]]]
) -> Iterator[str]:
    """Releases, and the rollouts that asked for them."""
    if not releases:
        yield f"{name} has no release"
    else:
        yield from columns(list(_release_rows(workspace, releases)))
    for rollout, events in told:
        yield ""
        champion = "the first version" if rollout.champion is None else f"beside {rollout.champion[:SHORT_DIGEST]}"
        words = stage_words(rollout.stage, rollout.percent)
        yield f"{rollout.id}: version {rollout.version[:SHORT_DIGEST]}, {champion}: {words}"
        yield from (f"  {line}" for line in columns([_event_row(each) for each in events]))


def _event_row(event: Event) -> list[str]:
    to = event.details.get("to")
    where = "" if to is None else stage_words(str(to), float(event.details.get("percent") or 0.0))
    entry = "not in the ledger yet" if event.entry is None else f"entry {event.entry}"
    return [f"{event.at[:19]}Z", _DONE[event.action], where, event.by, entry, _line(event.reason)]


def _release_rows(workspace: Workspace, releases: Sequence[Release]) -> Iterator[list[str]]:
    trained_on = [_trained_on(workspace, each.version) for each in releases]
    shadows = any(each.shadows for each in releases)
    extra = [*(["SHADOWS"] if shadows else []), *(["TRAINED ON"] if any(trained_on) else [])]
    yield ["RELEASE", "PUBLISHED", "BY", "VERSION", "CANARY", *extra, "REASON"]
    for each, snapshot in zip(releases, trained_on, strict=True):
        beside = [", ".join(one.version[:SHORT_DIGEST] for one in each.shadows)] if shadows else []
        *facts, reason = _release_row(each)
        yield [*facts, *beside, *([snapshot] if any(trained_on) else []), reason]


def _release_row(release: Release) -> list[str]:
    canary = release.canary
    again = "" if release.content_of is None else f"back to {release.content_of}: "
    return [
        str(release.number),
        f"{release.published_at[:19]}Z",
        release.published_by,
        release.version[:SHORT_DIGEST],
        "" if canary is None else f"{canary.percent:g} % {canary.version[:SHORT_DIGEST]}",
        again + " ".join(release.reason.split()),
    ]


def _trained_on(workspace: Workspace, version: str) -> str:
    """The snapshot that a version was trained on; nothing where it names none, or cannot be read any more."""
    try:
        trained_on = load_manifest(workspace.versions, version).trained_on
    except (MainstayError, OSError):
        return ""
    return "" if trained_on is None else trained_on.snapshot


def _line(text: str) -> str:
    return shorten(" ".join(text.split()), REASON_CHARACTERS)
