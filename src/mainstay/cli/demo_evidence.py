"""How the demo proves what it told: the ledger holds every decision, a changed byte is found, one is explained."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING

import msgspec

from mainstay.capability.load import load_capability
from mainstay.cli.demo_story import CAPABILITY, word
from mainstay.cli.evidence import explain_entry, explanation_lines
from mainstay.cli.status import promise_lines
from mainstay.cli.tamper import flip_one_byte
from mainstay.ledger.index import Index
from mainstay.ledger.log import Log
from mainstay.ledger.verify import verify_ledger
from mainstay.monitoring.promise import hold
from mainstay.signing import load_verifier

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mainstay.cli.demo_story import Scene
    from mainstay.workspace import Workspace

SEAL_WAIT_SECONDS = 20.0
SEAL_POLL_SECONDS = 0.1


def check_acknowledged(scene: Scene, replayed: Sequence[str]) -> None:
    """Every decision that a caller was given is in the ledger, once: those of the replay, and all others."""
    story = scene.story
    story.title("Is every acknowledged decision in the ledger?")
    acknowledged = [*replayed, *scene.acknowledged]
    with Index(scene.workspace.ledger) as index, story.working("waiting for the last to be sealed"):
        places = _places(scene.workspace, index, acknowledged)
        recorded = sum(index.counts(CAPABILITY).decisions.values())
    missing = len(set(acknowledged)) - len(places)
    doubled = len(acknowledged) - len(set(acknowledged)) + len(places) - len(set(places.values()))
    unheard = recorded - len(acknowledged)
    story.facts["acknowledged"] = {
        "decisions": len(acknowledged),
        "missing": missing,
        "doubled": doubled,
        "recorded_but_unheard": unheard,
    }
    good = not missing and not doubled
    story.tell.print(f"  {len(acknowledged):,} acknowledged, {missing} missing, {doubled} doubled: {word(good)}")
    if unheard > 0:
        were = "decision was" if unheard == 1 else "decisions were"
        story.say(f"{unheard} more {were} recorded by the killed worker, which died before it could answer")
    story.expect(good, "every acknowledged decision is in the ledger once")


def _places(workspace: Workspace, index: Index, acknowledged: Sequence[str]) -> dict[str, int]:
    """Where each decision stands in the sealed log, waiting for the sealer where it has not come so far."""
    deadline = time.monotonic() + SEAL_WAIT_SECONDS
    places: dict[str, int] = {}
    while True:
        index.catch_up(Log(workspace.ledger))
        for each in acknowledged:
            if each not in places and (place := index.find(each)) is not None:
                places[each] = place
        if len(places) == len(acknowledged) or time.monotonic() > deadline:
            return places
        time.sleep(SEAL_POLL_SECONDS)


def tell_promise(scene: Scene) -> None:
    """How the pilot's promise stands on what has landed."""
    story = scene.story
    story.title("Does it keep the pilot's promise?")
    declared = load_capability(scene.workspace.capabilities / CAPABILITY)
    with Index(scene.workspace.ledger) as index, story.working("waiting for the last to be sealed"):
        _catch_up(scene.workspace, index, story.facts["replay"]["outcomes"])
        held = hold(index, declared.capability)
    story.facts["promise"] = msgspec.to_builtins(held)
    story.say(f"of {held.answered:,} answers, {held.labelled:,} flights have landed")
    for line in promise_lines(held, "April"):
        story.say(line)


def _catch_up(workspace: Workspace, index: Index, outcomes: int) -> None:
    """Bring the index to so many outcomes, which were reported last, as far as the sealer gets there."""
    deadline = time.monotonic() + SEAL_WAIT_SECONDS
    while True:
        index.catch_up(Log(workspace.ledger))
        if index.counts(CAPABILITY).outcomes >= outcomes or time.monotonic() > deadline:
            return
        time.sleep(SEAL_POLL_SECONDS)


def check_ledger(scene: Scene) -> None:
    """The true ledger verifies; a copy with one bit changed does not, and the place is named."""
    story, ledger = scene.story, scene.workspace.ledger
    story.title("The ledger, and a copy with one byte changed")
    verifier = load_verifier(scene.workspace.keys)
    begun = time.monotonic()
    with story.working("reading every entry again"):
        true_report = verify_ledger(ledger, verifier)
    seconds = time.monotonic() - begun
    read = f"{true_report.size:,} entries read again in {seconds:.1f} s"
    story.tell.print(f"  the ledger: {word(true_report.ok)} ({read})")
    copy = scene.workspace.run / "tampered-ledger"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(ledger, copy, ignore=shutil.ignore_patterns("wal", "index.db*", "*.lock"))
    place = flip_one_byte(copy, seed=2013)
    with story.working("reading every entry of the copy"):
        tampered = verify_ledger(copy, verifier)
    shutil.rmtree(copy)
    found = [str(finding) for finding in tampered.findings[:3]]
    story.say(f"the copy, with {place}: {'NOT FOUND' if tampered.ok else 'found'}")
    for line in found:
        story.say(f"  {line}")
    story.facts["ledger"] = {
        "ok": true_report.ok,
        "entries": true_report.size,
        "tampered": place,
        "tampering_found": found,
    }
    story.expect(true_report.ok, "the ledger verifies")
    story.expect(not tampered.ok, "the changed byte is found")


def explain_one(scene: Scene) -> None:
    """The answer that the model was least sure of, of the flights that have landed."""
    story = scene.story
    story.title("One decision, explained")
    with Index(scene.workspace.ledger) as index:
        known = [
            (abs(msgspec.json.decode(decision.output)["probability"] - 0.5), decision.id)
            for decision, outcome in index.joined(CAPABILITY)
            if outcome is not None and decision.outcome == "answered" and decision.output is not None
        ]
    if not known:
        story.say("no flight has landed yet")
        return
    _, chosen = min(known)
    explained = explain_entry(scene.workspace, chosen)
    story.facts["explained"] = explained
    for line in explanation_lines(explained):
        story.say(line)
