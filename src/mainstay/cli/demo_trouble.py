"""The demo's second act: the model moves into a process of its own, and that is killed, stopped and flooded.

Another process calls all the while, so many times a second. What became of each of its calls is what is told.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from mainstay.capability.load import load_capability
from mainstay.cli.demo_calls import TURNED_AWAY, Traffic, counted, decision_ms, lost, share_ms, well_since
from mainstay.cli.demo_story import CAPABILITY, outcome_lines
from mainstay.cli.versions import record_promotion, record_registration
from mainstay.client.client import Client
from mainstay.client.types import Item
from mainstay.errors import Failed
from mainstay.server.supervisor import running_state

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mainstay.cli.demo_calls import Called
    from mainstay.cli.demo_story import Scene
    from mainstay.workspace import Workspace

CALLS_A_SECOND = 40
FLOOD_CALLERS = 400  # of one process
FLOOD_PROCESSES = (1, 2, 3, 4)  # as many as it takes until calls are turned away: machines differ
FLOOD_SECONDS = 2.0
QUIET_SECONDS = 0.5  # of nothing but the model's answers, and trouble is over
LATE_MS = 50.0  # that an answer may come after its deadline, on a busy machine
PATIENCE_SECONDS = 30.0
POLL_SECONDS = 0.02
RUNNERS = (b"mainstay.catalog.library_child", b"mainstay.runtime.child")  # the programs of isolated processes


def play(scene: Scene, *, before_going_back: Callable[[Scene], None]) -> None:
    """Release it isolated, break it, stop it, flood it, and go back, under calls all the while."""
    inputs = _isolate(scene)
    story = scene.story
    with Traffic(scene, inputs, "--rate", str(CALLS_A_SECOND)) as desk:
        _await(desk, lambda: len(desk.calls) >= CALLS_A_SECOND // 2, "the first answers")
        _release(scene, desk)
        story.facts["trouble"] = []
        for name, number in (("segfault", signal.SIGSEGV), ("hang", signal.SIGSTOP)):
            _strike(scene, desk, name, number)
        _flood(scene, desk, inputs)
        before_going_back(scene)
        _go_back(scene, desk)
    scene.acknowledged.extend(call.decision_id for call in desk.calls if call.decision_id is not None)
    deaths = worker_deaths(scene.workspace)
    story.facts["worker_deaths"] = deaths
    story.expect(deaths == 1, f"no worker died but the one that was killed, found {deaths} deaths")


def _isolate(scene: Scene) -> Path:
    """Register the same model to run isolated; also the file of inputs for those who call."""
    story = scene.story
    story.title("The same model, in a process of its own")
    source = scene.workspace.capabilities / CAPABILITY
    folder = source.with_name(f"{CAPABILITY}-isolated")
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("__pycache__"))
    declaration = folder / "capability.yaml"
    text = declaration.read_text("utf-8")
    changed = text.replace("\n  kind: sklearn\n", "\n  kind: sklearn\n  run: isolated\n")
    if changed == text:
        raise Failed(f"{declaration}: expected `kind: sklearn`, found none to add `run: isolated` to")
    declaration.write_text(changed, "utf-8")
    with story.working("registering") as step:
        begun = time.monotonic()
        registered = record_registration(scene.workspace, folder, None, step)
    story.facts["isolated"] = {
        "version": registered.version,
        "runtime": registered.manifest.runtime,
        "seconds": time.monotonic() - begun,
    }
    story.say(f"registered {registered.version}")
    story.say(f"runs {registered.manifest.runtime}: {registered.manifest.isolated_because}")
    return _choose_inputs(scene, folder)


def _choose_inputs(scene: Scene, folder: Path) -> Path:
    """The sample flights that the model answers by itself, so that any other outcome is the trouble's."""
    content = (folder / load_capability(folder).capability.samples).read_bytes().splitlines()
    with Client(scene.url, scene.token) as client:
        decisions = client.decide_many(CAPABILITY, [Item(msgspec.json.decode(line)) for line in content])
    scene.acknowledged.extend(each.decision_id for each in decisions)
    chosen = [line for line, each in zip(content, decisions, strict=True) if each.outcome == "answered"]
    inputs = scene.workspace.run / "inputs.jsonl"
    inputs.write_bytes(b"\n".join(chosen) + b"\n")
    return inputs


# Releases.


class Switch(NamedTuple):
    """A release taken under traffic."""

    seconds: float  # from when it was asked for until every call was answered by it
    calls: int  # that were sent meanwhile
    dropped: int  # of those, that got no decision


def _release(scene: Scene, desk: Traffic) -> None:
    begun = time.monotonic()
    version = scene.story.facts["isolated"]["version"]
    with scene.story.working("the workers start their processes"):
        release = record_promotion(scene.workspace, CAPABILITY, version, "the model in a process of its own")
        switch = _await_release(scene, desk, begun, release.number)
    scene.story.facts["isolated"] |= {"release": release.number, "switch": switch._asdict()}
    scene.story.say(f"release {release.number} is in force")
    scene.story.say(_switched(switch))


def _go_back(scene: Scene, desk: Traffic) -> None:
    """One command, in a process of its own as an operator would give it."""
    story = scene.story
    story.title("Back to the first release")
    words = ["rollback", CAPABILITY, "--reason", "the demo has seen enough"]
    story.say(f"$ mainstay {' '.join(words[:-1])} '{words[-1]}'")
    command = [sys.executable, "-m", "mainstay.cli.main", *words, "--workspace", str(scene.workspace.root), "--json"]
    begun = time.monotonic()
    with story.working("going back"):
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Failed(f"mainstay rollback failed:\n{done.stderr.strip()[-2000:]}")
        release: dict[str, Any] = msgspec.json.decode(done.stdout)["release"]
        command_seconds = time.monotonic() - begun
        switch = _await_release(scene, desk, begun, release["number"])
    story.expect(release["version"] == story.facts["version"], "the first version is in force again")
    story.facts["rollback"] = {
        "release": release["number"],
        "version": release["version"],
        "command_seconds": command_seconds,
        "switch": switch._asdict(),
    }
    story.say(f"release {release['number']} has the content of the first, and the command took {command_seconds:.1f} s")
    story.say(_switched(switch))


def _await_release(scene: Scene, desk: Traffic, begun: float, number: int) -> Switch:
    """Wait until every answer is by this release; notes when a call got no decision on the way."""

    def first_of_new() -> float | None:
        sent = desk.since(begun)
        last_old = max((call.at for call in sent if call.release != number), default=begun)
        new = [call.ended for call in sent if call.at > last_old]
        if not new or max(new) - min(new) < QUIET_SECONDS:
            return None
        return min(new)

    _await(desk, lambda: first_of_new() is not None, f"every answer by release {number}")
    settled = first_of_new() or inf
    meanwhile = [call for call in desk.since(begun) if call.at <= settled]
    dropped = [call for call in meanwhile if call.outcome is None]
    what = f"release {number} is taken without dropping a call, found {counted(dropped)}"
    scene.story.expect(not dropped, what)
    return Switch(settled - begun, len(meanwhile), len(dropped))


def _switched(switch: Switch) -> str:
    calls = f"{switch.calls} calls meanwhile, {switch.dropped} dropped"
    return f"all workers answered by it after {switch.seconds:.1f} s; {calls}"


# Trouble.


def _strike(scene: Scene, desk: Traffic, name: str, number: signal.Signals) -> None:
    """Send every isolated process this signal, and tell what the callers got until the model was back."""
    story = scene.story
    story.title(f"Trouble: {_HEADINGS[name]}")
    struck = runner_processes(scene.workspace)
    begun = time.monotonic()
    for process in struck:
        os.kill(process, number)
    with story.working("until the model itself answers again"):
        well = _await_well(desk, begun)
    calls = [call for call in desk.since(begun) if call.at <= well]
    listed = ", ".join(map(str, struck))
    story.say(f"{number.name} to the model's processes {listed}; {CALLS_A_SECOND} calls a second go on")
    _tell(scene, name, calls, begun, well, signal=number.name, processes=struck)
    story.expect(bool(struck), "every worker has a process for the model")
    left = set(struck) & set(runner_processes(scene.workspace))
    story.expect(not left, f"the {name} ended the model's processes, found {sorted(left)} still there")
    reasons = {call.reason for call in calls if call.outcome == "fallback"}
    story.expect(bool(reasons & _EXPECTED[name]), f"a fallback for {' or '.join(sorted(_EXPECTED[name]))}")


_HEADINGS = {"segfault": "a segmentation fault", "hang": "a hang"}
_EXPECTED = {"segfault": {"model_crashed", "model_unavailable"}, "hang": {"deadline_exceeded"}}


class Flood(NamedTuple):
    """One flood, and when it was sent."""

    callers: int
    calls: list[Called]
    begun: float
    over: float


def _flood(scene: Scene, desk: Traffic, inputs: Path) -> None:
    """Let more and more callers call at once until some are turned away; tell of the last time."""
    story = scene.story
    story.title("Trouble: a flood")
    flood = _flood_once(scene, inputs, FLOOD_PROCESSES[0])
    for processes in FLOOD_PROCESSES[1:]:
        if any(call.status == TURNED_AWAY for call in flood.calls):
            break
        flood = _flood_once(scene, inputs, processes)
    with story.working("until the model answers everybody again"):
        well = _await_well(desk, flood.begun)
    calls = flood.calls + [call for call in desk.since(flood.begun) if call.at <= max(well, flood.over)]
    turned_away = [call for call in calls if call.status == TURNED_AWAY]
    unsaid = [call for call in turned_away if not (call.retry_after or "").isdigit()]
    story.say(f"{flood.callers:,} callers more, each calling again as soon as it is answered")
    _tell(scene, "flood", calls, flood.over, well, callers=flood.callers)
    story.expect(bool(turned_away), "some of the flood is turned away")
    story.expect(not unsaid, f"whoever is turned away is told when to come back, found {len(unsaid)} who were not")


def _flood_once(scene: Scene, inputs: Path, processes: int) -> Flood:
    callers = FLOOD_CALLERS * processes
    words = ("--callers", str(FLOOD_CALLERS))
    with ExitStack() as together, scene.story.working(f"{callers:,} callers at once"):
        begun = time.monotonic()
        floods = [together.enter_context(Traffic(scene, inputs, *words)) for _ in range(processes)]
        for each in floods:
            _await(each, each.has_begun, "the flood")
        time.sleep(FLOOD_SECONDS)
        over = time.monotonic()
    calls = [call for each in floods for call in each.calls]
    scene.acknowledged.extend(call.decision_id for call in calls if call.decision_id is not None)
    return Flood(callers, calls, begun, over)


def _tell(scene: Scene, name: str, calls: Sequence[Called], begun: float, well: float, **more: Any) -> None:
    """What the callers got, how slow it was, and when the model answered again, counted from `begun`."""
    story, deadline_ms = scene.story, scene.deadline_ms
    took = decision_ms(calls)
    p99, slowest = share_ms(took, 0.99), share_ms(took, 1.0)
    missing = lost(calls)
    by_outcome = counted(calls)
    back_ms = max(0.0, (well - begun) * 1000)
    facts = {
        "name": name,
        **more,
        "calls": len(calls),
        "by_outcome": by_outcome,
        "lost": len(missing),
        "p99_ms": p99,
        "slowest_ms": slowest,
        "deadline_ms": deadline_ms,
        "model_back_ms": round(back_ms),
    }
    story.facts["trouble"].append(facts)
    for line in outcome_lines(by_outcome):
        story.say(line)
    story.say(f"decisions came within {p99:.0f} ms (p99) and {slowest:.0f} ms (all) of the {deadline_ms} ms allowed")
    turned_away = sorted(call.ms for call in calls if call.status == TURNED_AWAY)
    if turned_away:
        story.say(f"those turned away knew within {share_ms(turned_away, 0.5):.0f} ms (p50), and when to come back")
    after = "the flood was over" if name == "flood" else "the signal"
    story.say(f"from {back_ms:,.0f} ms after {after} on, the model itself answered every call")
    why = f", the first by {missing[0].error}" if missing else ""
    story.expect(not missing, f"no call is lost in the {name}, found {len(missing)} that were{why}")
    # The flood takes all of the machine, and its callers wait for the processor as the service does.
    latest, allowed = (p99, deadline_ms) if name == "flood" else (slowest, deadline_ms + LATE_MS)
    what = f"decisions of the {name} within {allowed:.0f} ms, the deadline being {deadline_ms}, found {latest:.0f} ms"
    story.expect(latest <= allowed, what)


# Waiting.


def _await_well(desk: Traffic, begun: float) -> float:
    """When the model answered every call again."""
    _await(desk, lambda: well_since(desk.since(begun), begun, QUIET_SECONDS) is not None, "the model's own answers")
    return well_since(desk.since(begun), begun, 0.0) or begun


def _await(desk: Traffic, happened: Callable[[], bool], what: str) -> None:
    """Raises Failed when it does not happen, or nobody calls any more."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        desk.check()
        if time.monotonic() > deadline:
            raise Failed(f"expected {what} within {PATIENCE_SECONDS:.0f} s, found {counted(desk.calls[-20:])}")
        time.sleep(POLL_SECONDS)


def runner_processes(workspace: Workspace) -> list[int]:
    """The isolated processes of this workspace's workers."""
    state: Any = running_state(workspace)
    workers = {pid for name, pid in state["processes"].items() if name.startswith("worker-")}
    return sorted(pid for pid, parent in _children() if parent in workers)


def worker_deaths(workspace: Workspace) -> int:
    """How often a worker has ended since the service was started."""
    state: Any = running_state(workspace)
    return sum(deaths for name, deaths in state["deaths"].items() if name.startswith("worker-"))


def _children() -> list[tuple[int, int]]:
    """Every isolated process of this machine, and its parent."""
    found = []
    for place in Path("/proc").iterdir():
        if not place.name.isdigit():
            continue
        try:
            words = (place / "cmdline").read_bytes().split(b"\0")
            status = (place / "stat").read_text()
        except OSError:  # it has ended, or is another's
            continue
        if any(program in words for program in RUNNERS):
            found.append((int(place.name), int(status.rpartition(")")[2].split()[1])))
    return found
