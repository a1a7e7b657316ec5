"""The whole story on real flights, in two parts.

The first day: a pilot goes to production, a week is replayed, things break, proof is read. The year: versions come and
go, from April to December, by what Mainstay finds and decides itself.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from cyclopts import Parameter
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mainstay.capability.load import load_capability
from mainstay.cli import demo_trouble
from mainstay.cli.common import API_KEY_VARIABLE, err, out, print_json
from mainstay.cli.demo_evidence import check_acknowledged, check_ledger, explain_one, tell_promise
from mainstay.cli.demo_feed import play_feed, serving_feed
from mainstay.cli.demo_serving import empty_directory, find_example, serving
from mainstay.cli.demo_story import CAPABILITY, Scene, Story, outcome_lines
from mainstay.cli.demo_strange import send_strange
from mainstay.cli.demo_year import making_versions, play_year
from mainstay.cli.init import create_workspace
from mainstay.cli.registered import registered_lines
from mainstay.cli.versions import record_promotion, record_registration
from mainstay.errors import Failed
from mainstay.server.supervisor import free_port, running_state

if TYPE_CHECKING:
    from mainstay.workspace import Workspace

BUILT = ("model", "__pycache__", "samples.jsonl", "reference.jsonl")  # by train.py, which the demo runs itself
PILOT, VERSIONS, YEAR = "pilot", "versions", "year"  # folders: what is trained, and the workspace of the second part
FLIGHTS_IN_APRIL = 28_330
FLIGHTS_REPLAYED = 6_000  # a week
ONE_IN = 5  # flights of the year
KILL_AT = 0.4  # share of the replay after which a worker is killed


def demo(
    *,
    directory: Annotated[Path, Parameter(help="Where the demo's workspace is made.")] = Path("demo-workspace"),
    serve: Annotated[bool, Parameter(negative="", help="Leave it serving afterwards, until Ctrl-C.")] = False,
    port: Annotated[int, Parameter(help="Where it serves; 0 for any free port.")] = 8321,
    part: Annotated[
        Literal["all", "day", "year"], Parameter(help="The pilot's first days, the year after them, or both.")
    ] = "all",
    flights: Annotated[int, Parameter(help="How many flights of April are replayed one by one.")] = FLIGHTS_REPLAYED,
    every: Annotated[int, Parameter(help="Of the year, one flight in so many.")] = ONE_IN,
    json: Annotated[bool, Parameter(negative="", help="Print the facts as JSON; the story goes to stderr.")] = False,
) -> int:
    """The story of a pilot on real flights, from its first day to its year's end.

    Example: mainstay demo --serve
    """
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))  # so that what runs is drained
    story = Story(err if json else out)
    example = find_example()
    story.title("The pilot: arrives more than 15 minutes late?")
    empty_directory(directory)
    _train(story, example, directory / PILOT)
    with ExitStack() as beside:
        making = None
        if part != "day" and not serve:
            made = directory / VERSIONS
            making = beside.enter_context(making_versions(example, directory / PILOT, made))
        if part != "year":
            _play_day(story, example, directory, port=port, flights=flights, serve=serve, json=json)
        if making is not None:
            play_year(story, example, making, directory / VERSIONS, directory / YEAR, every)
    if not serve:
        _conclude(story, directory, json=json)
    return 1 if story.failed else 0


def _play_day(
    story: Story, example: Path, directory: Path, *, port: int, flights: int, serve: bool, json: bool
) -> None:
    """The first day, in a workspace at `directory`; with `serve`, left serving until Ctrl-C."""
    story.title("A workspace")
    workspace, _, token = create_workspace(directory, "demo.mainstay.local/flights")
    story.tell.print(f"  {workspace.root}, with a signing key and an API key")
    folder = workspace.capabilities / CAPABILITY
    shutil.copytree(directory / PILOT, folder)
    with ExitStack() as running:
        feed = running.enter_context(serving_feed(example, folder))
        _register(story, workspace)
        url = f"http://127.0.0.1:{port or free_port('127.0.0.1')}"
        deadline_ms = load_capability(folder).capability.deadline_ms
        scene = Scene(story, workspace, example, url, token, deadline_ms, acknowledged=[])
        service = running.enter_context(serving(scene))
        replayed = _replay(scene, flights)
        tell_promise(scene)
        demo_trouble.play(scene, before_going_back=send_strange)
        play_feed(scene, feed)
        check_acknowledged(scene, replayed)
        check_ledger(scene)
        explain_one(scene)
        if serve:
            _conclude(story, directory, json=json)
            _leave_serving(scene, service)


def _train(story: Story, example: Path, folder: Path) -> None:
    shutil.copytree(example / "capabilities" / CAPABILITY, folder, ignore=shutil.ignore_patterns(*BUILT))
    with story.working("training on January to March"):
        trained = subprocess.run(
            [sys.executable, str(folder / "train.py")],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    if trained.returncode != 0:
        raise Failed(f"train.py failed:\n{trained.stderr.strip()[-2000:]}")
    for line in trained.stdout.strip().splitlines():
        story.say(line)


def _register(story: Story, workspace: Workspace) -> None:
    story.title("Into production")
    with story.working("registering") as step:
        registered = record_registration(workspace, workspace.capabilities / CAPABILITY, None, step)
    manifest = registered.manifest
    story.facts["version"] = registered.version
    story.facts["conversion"] = msgspec.to_builtins(manifest.conversion)
    story.facts["calibration"] = msgspec.to_builtins(manifest.calibration)
    story.facts["profile"] = msgspec.to_builtins(manifest.profile)
    for line in registered_lines(registered):
        story.say(line)
    release = record_promotion(workspace, CAPABILITY, registered.version, "first release")
    story.say(f"release {release.number} is in force")


def _replay(scene: Scene, flights: int) -> list[str]:
    """April as live traffic from another process; the id of every decision that it was given."""
    story = scene.story
    story.title("April 2013, replayed as live traffic")
    total = min(flights, FLIGHTS_IN_APRIL)
    acknowledged = scene.workspace.run / "acknowledged.txt"
    command = [sys.executable, str(scene.example / "replay.py"), "--url", scene.url]
    command += ["--acknowledged", str(acknowledged), "--limit", str(total)]
    environment = {**os.environ, API_KEY_VARIABLE: scene.token}
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        summary, killed = _follow(story, process.stdout, scene.workspace, total)
        complaint = process.stderr.read().decode()[-2000:]
    finally:
        process.kill()
        code = process.wait()
        process.stdout.close()
        process.stderr.close()
    if not summary.get("done"):
        raise Failed(f"the replay ended early with code {code}:\n{complaint}")
    _tell_replay(story, summary, killed)
    return acknowledged.read_text().split()


def _follow(story: Story, lines: IO[bytes], workspace: Workspace, total: int) -> tuple[dict[str, Any], int]:
    """Show the progress that the replay tells, and kill a worker on the way."""
    summary: dict[str, Any] = {}
    killed = 0
    columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=story.tell, disable=not story.shows_bars) as bar:
        task = bar.add_task("decisions", total=total)
        for line in lines:
            summary = msgspec.json.decode(line)
            bar.update(task, completed=summary["decisions"], description=f"decisions {summary['at'][:10]}")
            if not killed and summary["decisions"] >= KILL_AT * total:
                killed = _kill_a_worker(workspace)
    return summary, killed


def _kill_a_worker(workspace: Workspace) -> int:
    state: Any = running_state(workspace)
    number: int = state["processes"]["worker-0"]
    os.kill(number, signal.SIGKILL)
    return number


def _tell_replay(story: Story, summary: dict[str, Any], killed: int) -> None:
    latency = summary["latency_ms"]
    story.facts["replay"] = {**summary, "killed_worker": killed}
    story.say(f"{summary['decisions']:,} decisions and {summary['outcomes']:,} outcomes in {summary['seconds']:.0f} s")
    for line in outcome_lines(summary["by_outcome"]):
        story.say(line)
    quantiles = ", ".join(f"{name} {latency[name]} ms" for name in ("p50", "p95", "p99"))
    story.say(f"latency as the caller saw it: {quantiles}")
    story.say(f"worker {killed} was killed with SIGKILL on the way; {summary['repeated']} calls were sent again")


def _conclude(story: Story, directory: Path, *, json: bool) -> None:
    seconds = time.monotonic() - story.begun
    story.tell.print()
    for what in story.failed:
        story.tell.print(f"[bold red]NOT OK[/] expected: {escape(what)}")
    story.tell.print(f"Done in {seconds:.0f} s. All of it is in {escape(str(directory.resolve()))}")
    if json:
        print_json({**story.facts, "ok": not story.failed, "failed": story.failed, "seconds": seconds})


def _leave_serving(scene: Scene, service: subprocess.Popen[bytes]) -> None:
    story, url = scene.story, scene.url
    folder = scene.workspace.capabilities / CAPABILITY
    sample = (folder / load_capability(folder).capability.samples).read_bytes().split(b"\n", 1)[0]
    body = msgspec.json.encode({"input": msgspec.json.decode(sample)}).decode()
    story.tell.print("\nServing until Ctrl-C. Ask it:\n")
    story.tell.print(
        f"curl -s {url}/v1/capabilities/{CAPABILITY}/decisions \\\n"
        f"  -H 'Authorization: Bearer {scene.token}' \\\n"
        f"  -H 'Content-Type: application/json' \\\n"
        f"  -d '{body}'\n",
        markup=False,
    )
    try:
        service.wait()
    except KeyboardInterrupt:
        story.tell.print("draining")
