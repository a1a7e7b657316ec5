"""Checks of what is in force, of the rollout of the version, and of who approved it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from mainstay.catalog.versions import open_version
from mainstay.errors import Damaged, Misuse
from mainstay.rollout import store
from mainstay.rollout.gates_looking import instant_of
from mainstay.rollout.gates_types import Found
from mainstay.rollout.moves import needs_approval
from mainstay.rollout.types import STAGES

if TYPE_CHECKING:
    from datetime import datetime

    from mainstay.catalog.types import Release
    from mainstay.rollout.gates_looking import Looking
    from mainstay.rollout.gates_types import Verdict
    from mainstay.rollout.types import Event, Rollout
    from mainstay.rollout.types import Verdict as Ruled

FIRST: Final = "it is the first version: there is nothing to be compared with"
_SHORT: Final = 19  # "sha256:" and 12 digits
_BY_RULING: Final[dict[str, Verdict]] = {"promote": "pass", "roll_back": "fail", "keep_collecting": "unknown"}


def rollback_possible(looking: Looking) -> Found:
    required = "a version whose every file is what was registered"
    release = looking.release
    if release is None:
        stopped = "nothing came before: `mainstay stop` sends every decision to the fallback"
        return Found("pass", stopped, "a version before it, or `mainstay stop`")
    since = instant_of(release.published_at)
    evidence = (f"{release.capability}/{release.number}", release.version)
    try:
        open_version(looking.workspace.versions, release.version)
    except (Damaged, Misuse) as error:
        return Found("fail", error.message, required, evidence=evidence, since=since)
    observed = f"release {release.number}, version {release.version[:_SHORT]}"
    return Found("pass", observed, required, evidence=evidence, since=since)


def stages_passed(looking: Looking) -> Found:
    required = looking.rules.rollout.required
    words = " and ".join(required) or "none is required"
    if looking.is_first:
        return Found("pass", FIRST, words)
    before = STAGES[: STAGES.index("production" if looking.stage == "retired" else looking.stage)]
    wanted = [each for each in required if each in before]
    if not wanted:
        return Found("pass", f"none is required before {looking.stage}", words)
    past = _stages_of(looking) | ({looking.trial.stage} if looking.trial is not None else set())
    missing = [each for each in wanted if each not in past]
    evidence = _ids(looking.trial, looking.events)
    if missing:
        return Found("fail", f"it was no {' and no '.join(missing)}", words, evidence=evidence)
    return Found("pass", f"it was {' and '.join(wanted)}", words, evidence=evidence)


def nothing_else_on_trial(looking: Looking) -> Found:
    required = "no other version on trial"
    running = looking.running
    if running is None or running.version == looking.version:
        observed = "nothing is on trial" if running is None else "this version is on trial"
        return Found("pass", observed, required, evidence=() if running is None else (running.id,))
    observed = f"version {running.version[:_SHORT]} is a {running.stage} since {running.since[:19]}Z"
    return Found("fail", observed, required, evidence=(running.id,), since=instant_of(running.since))


def shadow_compared(looking: Looking) -> Found:
    stage = looking.rules.rollout.shadow
    hours = f" over {stage.min_hours:g} h" if stage.min_hours else ""
    required = f"{stage.min_decisions:,} decisions{hours}"
    if looking.is_first:
        return Found("pass", FIRST, required)
    trial = looking.trial
    if trial is None or trial.stage != "shadow":
        return _not_now("shadow", looking, required)
    last = _last(trial)
    compared = 0 if last is None else last.decisions
    long_enough = looking.now - instant_of(trial.since) >= timedelta(hours=stage.min_hours)
    verdict: Verdict = "pass" if compared >= stage.min_decisions and long_enough else "unknown"
    observed = f"{compared:,} decisions since {trial.since[:19]}Z"
    return Found(verdict, observed, required, evidence=(trial.id,), since=_since(last))


def shadow_agrees(looking: Looking) -> Found:
    most = looking.rules.rollout.shadow.max_disagreement
    required = "no bound is declared" if most is None else f"at most {most:.1%} of decisions that differ"
    if looking.is_first:
        return Found("pass", FIRST, required)
    trial = looking.trial
    if trial is None or trial.stage != "shadow":
        found = _not_now("shadow", looking, required)
        return found if most is not None else found._replace(needed=False)
    last = _last(trial)
    if last is None:
        return Found("unknown", "nothing was compared yet", required, needed=most is not None, evidence=(trial.id,))
    verdict: Verdict = "fail" if last.code == "in_doubt" else _BY_RULING[last.verdict]
    needed = most is not None or verdict == "fail"
    return Found(verdict, last.reason, required, needed=needed, evidence=(trial.id,), since=_since(last))


def canary_guards(looking: Looking) -> Found:
    required = "every guard shown to be kept"
    if looking.is_first:
        return Found("pass", FIRST, required)
    trial = looking.trial
    if trial is None or trial.stage != "canary":
        return _not_now("canary", looking, required)
    last = _last(trial)
    if last is None:
        return Found("unknown", "nothing was looked at yet", required, evidence=(trial.id,))
    observed = f"{last.reason} ({last.decisions:,} decisions, {last.labels:,} labels, at {trial.percent:g} % of keys)"
    return Found(_BY_RULING[last.verdict], observed, required, evidence=(trial.id,), since=_since(last))


def labels_enough(looking: Looking) -> Found:
    least = looking.rules.rollout.canary.min_labels
    required = f"{least:,} labels of its decisions"
    if looking.is_first:
        return Found("pass", FIRST, required)
    trial = looking.trial
    if trial is None or trial.stage != "canary":
        found = _not_now("canary", looking, required)
        return found if least else found._replace(needed=False)
    last = _last(trial)
    known = 0 if last is None else last.labels
    verdict: Verdict = "pass" if known >= least else "unknown"
    return Found(verdict, f"{known:,} labels", required, needed=least > 0, evidence=(trial.id,), since=_since(last))


def approval_given(looking: Looking) -> Found:
    rules, release = looking.rules, looking.release
    asked = looking.stage in rules.rollout.four_eyes
    required = "somebody else, who has not asked for it" if asked else "nobody else is asked"
    if not asked or release is None:
        return Found("pass", FIRST if asked else "none is needed", required)
    if not needs_approval(rules, looking.trial, release.version, looking.stage):
        return Found("pass", f"it is a {looking.stage} already", required)
    waiting = [
        each
        for each in looking.control.read(lambda connection: store.list_proposals(connection, looking.capability))
        if each.version == looking.version and each.stage == looking.stage
    ]
    if not waiting:
        return Found("unknown", "nobody has asked for it yet", required)
    last = waiting[-1]
    observed = f"{last.proposed_by} has asked for it, and nobody has approved it yet"
    return Found("unknown", observed, required, evidence=(last.id,), since=instant_of(last.proposed_at))


def out_of_force(looking: Looking) -> Found:
    required = "no place in the release in force"
    release = looking.release
    if release is None:
        return Found("pass", "nothing is in force", required)
    place = _place(release, looking.version)
    evidence = (f"{release.capability}/{release.number}",)
    since = instant_of(release.published_at)
    if place is None:
        return Found("pass", f"release {release.number} does without it", required, evidence=evidence, since=since)
    return Found("fail", f"it is {place} of release {release.number}", required, evidence=evidence, since=since)


def _place(release: Release, version: str) -> str | None:
    canary = release.canary
    rungs = {*release.fallback_versions, *(() if canary is None else canary.fallback_versions)}
    if release.version == version:
        return "the version"
    if canary is not None and canary.version == version:
        return "the canary"
    if any(each.version == version for each in release.shadows):
        return "a shadow"
    return "a fallback" if version in rungs else None


def _not_now(stage: str, looking: Looking, required: str) -> Found:
    """Of a version that is not at this stage: it was there, or has to come there, or does without."""
    if stage in _stages_of(looking):
        return Found("pass", f"it was a {stage}", required, evidence=_ids(looking.trial, looking.events))
    needed = stage in looking.rules.rollout.required
    return Found("unknown", f"it was no {stage}", required, needed=needed)


def _stages_of(looking: Looking) -> set[str]:
    """The stages that the rollout of this version has behind it."""
    left = {str(each.details.get("from")) for each in looking.events if each.action == "rollout.advanced"}
    return left - {"None", "" if looking.trial is None else looking.trial.stage}


def _ids(trial: Rollout | None, events: list[Event]) -> tuple[str, ...]:
    entries = tuple(each.entry for each in events if each.entry is not None)
    return (() if trial is None else (trial.id,)) + entries


def _last(trial: Rollout) -> Ruled | None:
    """The newest verdict of this stage."""
    found = [each for each in trial.verdicts if instant_of(each.at) >= instant_of(trial.since)]
    return found[-1] if found else None


def _since(last: Ruled | None) -> datetime | None:
    return None if last is None else instant_of(last.at)
