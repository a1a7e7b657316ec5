"""The demo's fourth act: two months come as daily files from a local server, with all that goes wrong with feeds."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import polars as pl

from mainstay.cli.common import operator, signing_key
from mainstay.cli.demo_story import CAPABILITY
from mainstay.cli.versions import record_promotion, record_registration
from mainstay.client.client import Client
from mainstay.errors import Failed
from mainstay.intake.declared import sources_in_force
from mainstay.intake.holding import release_source
from mainstay.intake.quarantine import Chosen, Quarantine
from mainstay.intake.quarantine_settling import Settler
from mainstay.intake.runs import Means, Run
from mainstay.intake.state import state_of
from mainstay.intake.types import LATE, intake_table
from mainstay.lake.lake import open_lake
from mainstay.lineage.emitting import Emitter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mainstay.cli.demo_story import Scene
    from mainstay.client.types import Decision
    from mainstay.intake.state import Holding, State

SOURCE = "departures"
DECLARED_URL = "http://127.0.0.1:8399/departures"  # what the demo puts the address of its own server for
READY_SECONDS = 30.0
RUN_SECONDS = 60.0  # that a run of the control process may last
FEED_EVERY = "every_seconds: 60"
NEVER_BY_ITSELF = "every_seconds: 86400"  # so that the story says when
PATIENCE_SECONDS = 10.0  # until the workers know of a hold
POLL_SECONDS = 0.05
NEW_AIRLINE = "ZW"


class Feed:
    """The server's process."""

    def __init__(self, url: str) -> None:
        self._url = url

    def post(self, path: str) -> None:
        httpx.post(f"{self._url}{path}", timeout=READY_SECONDS).raise_for_status()

    def truth(self) -> dict[str, Any]:
        found: dict[str, Any] = httpx.get(f"{self._url}/truth", timeout=READY_SECONDS).raise_for_status().json()
        return found


@contextmanager
def serving_feed(example: Path, folder: Path) -> Iterator[Feed]:
    """The feed on a free port, with nothing published yet, and the capability's folder pointed at it."""
    command = [sys.executable, str(example / "feed.py"), "--port", "0"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise Failed(f"feed.py ended with code {process.wait()}")
            url = f"http://127.0.0.1:{msgspec.json.decode(line)['ready']}"
            _replace(folder / "capability.yaml", DECLARED_URL, f"{url}/departures")
            _replace(folder / "capability.yaml", FEED_EVERY, NEVER_BY_ITSELF)
            yield Feed(url)
        finally:
            process.kill()


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text("utf-8")
    if old not in text:
        raise Failed(f"{path}: expected {old!r} to put {new!r} for it, found none")
    path.write_text(text.replace(old, new), "utf-8")


def play_feed(scene: Scene, feed: Feed) -> None:
    """February and March come in: what is late, twice, new, renamed and in kilometres, and what becomes of each."""
    story = scene.story
    story.title("February and March, as the daily files of a feed with trouble")
    feed.post("/begin")
    facts: dict[str, Any] = {"held": []}
    story.facts["feed"] = facts
    state = _run(scene)
    counts = state.counts
    facts["first"] = msgspec.to_builtins(counts)
    story.say(f"{counts.accepted:,} flights taken in, each held against the contract at the door")
    story.say(f"  late        {counts.late:>6,}  a day's file that came two days after it was due: joined, and marked")
    story.say(f"  repeated    {counts.repeated:>6,}  the same file twice: known by their keys, not taken again")
    story.say(f"  quarantined {counts.quarantined:>6,}  an airline that no contract knows")
    story.expect(counts.late > 0 and counts.repeated > 0 and counts.quarantined > 0, "late, repeated and bad rows seen")
    rejected = []
    for code in ("schema_breaking", "unit_changed"):
        held = _tell_held(scene, state.held, code)
        if held is None:
            return
        rejected.append(held.item)
        facts["held"].append({"item": held.item, "code": held.code, "reason": held.reason})
        state = _reject(scene, held)
    story.expect(state.held is None, "the source goes on")
    _tell_decision(scene, "answered")
    _mend(scene, feed, rejected)
    _take_the_new_airline(scene)
    _compare(scene, feed)


def _tell_held(scene: Scene, held: Holding | None, code: str) -> Holding | None:
    story = scene.story
    if not story.expect(held is not None and held.code == code, f"a source that is held for {code}"):
        return None
    assert held is not None
    story.say(f"HELD at file {held.item}, {held.code}")
    for line in held.reason.splitlines():
        story.say(f"  {line}")
    _tell_decision(scene, "fallback")
    return held


def _reject(scene: Scene, held: Holding) -> State:
    """A person has looked: this file stays out, and the feed goes on."""
    reason = f"{held.code}: the sender was asked for a corrected file"
    workspace = scene.workspace
    release_source(
        workspace, CAPABILITY, SOURCE, reason=reason, principal=operator(), key=signing_key(workspace), refuse=True
    )
    scene.story.say("  refused: its rows are in quarantine, and the files behind it come in")
    return _run(scene)


def _mend(scene: Scene, feed: Feed, rejected: list[int]) -> None:
    """The sender publishes both files again; what was held of them nobody needs any more."""
    story = scene.story
    before = state_of(scene.workspace.data, CAPABILITY, SOURCE).read().counts
    for name in ("renamed", "kilometres"):
        feed.post(f"/mend/{name}")
    after = _run(scene).counts
    story.say(f"both files published again: {after.accepted - before.accepted:,} flights taken in")
    settler = Settler(scene.workspace, open_lake(scene.workspace), CAPABILITY, SOURCE)
    done = settler.settle(
        "discarded", Chosen(items=tuple(rejected)), reason="both days were published again", by=operator()
    )
    discarded = 0 if done is None else done.rows
    scene.story.facts["feed"]["discarded"] = discarded
    story.say(f"{discarded:,} held rows of the first attempts discarded, with the reason, in the ledger")


def _take_the_new_airline(scene: Scene) -> None:
    """The contract learns of it, and what was held of it comes in, once."""
    story, workspace = scene.story, scene.workspace
    folder = workspace.capabilities / CAPABILITY
    contract = folder / "contract.odcs.yaml"
    _replace(contract, "version: 1.0.0", "version: 1.1.0")
    _replace(contract, "WN, YV]", f"WN, YV, {NEW_AIRLINE}]")
    with story.working("registering contract 1.1.0"):
        registered = record_registration(workspace, folder, None)
        record_promotion(workspace, CAPABILITY, registered.version, f"contract 1.1.0: {NEW_AIRLINE} flies")
    settler = Settler(workspace, open_lake(workspace), CAPABILITY, SOURCE)
    before = state_of(workspace.data, CAPABILITY, SOURCE).read().counts  # the control process may be the first to run
    done = settler.settle("replayed", Chosen(), reason="contract 1.1.0 knows the airline", by=operator())
    replayed = 0 if done is None else done.rows
    after = _run(scene).counts
    accepted = after.accepted - before.accepted
    story.facts["feed"]["replayed"] = {"rows": replayed, "accepted": accepted}
    story.say(f"contract 1.1.0 lists the airline: {replayed:,} held rows replayed, {accepted:,} taken in")
    story.expect(0 < replayed == accepted, "every held row of the new airline comes in once")


def _compare(scene: Scene, feed: Feed) -> None:
    """The table and the truth of the feed, line by line."""
    story, workspace = scene.story, scene.workspace
    lake = open_lake(workspace)
    rows = lake.table(intake_table(CAPABILITY, SOURCE)).frame().select("flight", "carrier", "distance", LATE).collect()
    lines = sorted(f"{flight} {carrier} {miles}\n" for flight, carrier, miles, _ in rows.iter_rows())
    truth = feed.truth()
    same = truth["digest"] == hashlib.sha256("".join(lines).encode()).hexdigest()
    still_open = Quarantine(lake, CAPABILITY, SOURCE).open_rows()
    late = rows.select(pl.col(LATE).is_not_null().sum()).item()
    story.facts["feed"] |= {"rows": rows.height, "truth": truth, "same": same, "open": still_open, "late": late}
    each = "each" if same else "NOT each"
    story.say(f"{rows.height:,} flights of both months in the table: {each} exactly once, and true")
    story.expect(same, f"the {truth['flights']:,} flights of both months, each once, as they were")
    story.expect(still_open == 0, f"nothing is left in quarantine, found {still_open:,} rows")


def _run(scene: Scene) -> State:
    """Fetch and take what there is, as the control process does by itself; how the source stands then."""
    workspace = scene.workspace
    in_force = sources_in_force(workspace, CAPABILITY)
    file = state_of(workspace.data, CAPABILITY, SOURCE)
    emitter = Emitter(workspace)
    means = Means(workspace, signing_key(workspace), emitter)
    with scene.story.working("taking in") as tell, file.running(timeout_seconds=RUN_SECONDS):
        ran = Run(means, in_force, in_force.source(SOURCE), on_progress=tell).go()
    emitter.close()
    if ran.failed:
        raise Failed(f"the source {SOURCE} failed: {ran.failed}: {ran.detail}")
    return file.read()


def _tell_decision(scene: Scene, outcome: str) -> None:
    """One flight is decided about, again until the workers know."""
    workspace = scene.workspace
    sample = (workspace.run / "inputs.jsonl").read_bytes().split(b"\n", 1)[0]
    deadline = time.monotonic() + PATIENCE_SECONDS
    with Client(scene.url, scene.token) as client:
        while True:
            found: Decision = client.decide(CAPABILITY, msgspec.json.decode(sample))
            scene.acknowledged.append(found.decision_id)
            if found.outcome == outcome or time.monotonic() > deadline:
                break
            time.sleep(POLL_SECONDS)
    reasons = ", ".join(each.code for each in found.reasons)
    scene.story.say(f"  a decision now: {found.outcome}" + (f", {reasons}" if reasons else ""))
    scene.story.expect(found.outcome == outcome, f"decisions are {outcome}")
