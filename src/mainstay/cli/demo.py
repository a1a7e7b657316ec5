"""The whole story on real flights: a pilot goes to production, a month is replayed, things break, proof is read."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import Parameter
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mainstay.capability.load import load_capability
from mainstay.cli.common import API_KEY_VARIABLE, err, out, print_json
from mainstay.cli.evidence import explain_entry, explanation_lines
from mainstay.cli.init import create_workspace
from mainstay.cli.status import promise_lines
from mainstay.cli.tamper import flip_one_byte
from mainstay.cli.versions import record_promotion, record_registration
from mainstay.errors import Failed, Misuse
from mainstay.ledger.index import Index
from mainstay.ledger.log import Log
from mainstay.ledger.verify import verify_ledger
from mainstay.monitoring.promise import hold
from mainstay.server.supervisor import free_port, running_state, wait_until_ready
from mainstay.signing import load_verifier

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from mainstay.workspace import Workspace

CAPABILITY = "late-arrival"
MARKER = ".mainstay-demo"  # a directory that this demo made, and may therefore replace
FLIGHTS_IN_APRIL = 28_330
KILL_AT = 0.4  # share of the replay after which a worker is killed
SEAL_WAIT_SECONDS = 20.0
READY_SECONDS = 30.0


def demo(
    *,
    directory: Annotated[Path, Parameter(help="Where the demo's workspace is made.")] = Path("demo-workspace"),
    serve: Annotated[bool, Parameter(negative="", help="Leave it serving afterwards, until Ctrl-C.")] = False,
    port: Annotated[int, Parameter(help="Where it serves; 0 for any free port.")] = 8321,
    flights: Annotated[int | None, Parameter(help="Replay only so many flights of April.")] = None,
    json: Annotated[bool, Parameter(negative="", help="Print the facts as JSON; the story goes to stderr.")] = False,
) -> int:
    """The whole story on real flights, in about a minute.

    Example: mainstay demo --serve
    """
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))  # so that what runs is drained
    story = _Story(err if json else out)
    example = find_example()
    workspace, token = _make_workspace(story, directory)
    _train(story, example, workspace)
    _register(story, workspace)
    url = f"http://127.0.0.1:{port or free_port('127.0.0.1')}"
    with _running(story, workspace, url) as service:
        summary, killed = _replay(story, example, workspace, url, token, flights)
        _tell_replay(story, summary, killed)
        good = _check_acknowledged(story, workspace)
        _tell_promise(story, workspace)
        good = _check_ledger(story, workspace) and good
        _explain_one(story, workspace)
        seconds = time.monotonic() - story.begun
        story.tell.print(f"\nDone in {seconds:.0f} s. The workspace is {workspace.root}")
        if json:
            print_json({**story.facts, "ok": good, "seconds": seconds})
        if serve:
            _leave_serving(story, workspace, url, token, service)
    return 0 if good else 1


@dataclass
class _Story:
    """Tells people what happens, and keeps the facts for programs."""

    tell: Console
    facts: dict[str, Any] = field(default_factory=dict)
    begun: float = field(default_factory=time.monotonic)

    def title(self, text: str) -> None:
        self.tell.print(f"\n[bold]{text}[/]")


def find_example() -> Path:
    """The flights example: beside the package when it is installed, in the checkout when it is not."""
    package = Path(__file__).resolve().parents[1]
    for place in (package / "examples" / "flights", package.parents[1] / "examples" / "flights"):
        if place.is_dir():
            return place
    raise Failed("the flights example is not part of this installation", hint="Clone the repository and run make demo.")


def _make_workspace(story: _Story, directory: Path) -> tuple[Workspace, str]:
    story.title("A workspace")
    if directory.exists() and any(directory.iterdir()):
        if not (directory / MARKER).exists():
            raise Misuse(f"{directory} exists and was not made by this demo", hint="Name another with --directory.")
        shutil.rmtree(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / MARKER).touch()
    workspace, _, token = create_workspace(directory, "demo.mainstay.local/flights")
    story.tell.print(f"  {workspace.root}, with a signing key and an API key")
    return workspace, token


def _train(story: _Story, example: Path, workspace: Workspace) -> None:
    story.title("The pilot: arrives more than 15 minutes late?")
    folder = workspace.capabilities / CAPABILITY
    source = example / "capabilities" / CAPABILITY
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("model", "__pycache__", "samples.jsonl"))
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
        story.tell.print(f"  {line}", markup=False)


def _register(story: _Story, workspace: Workspace) -> None:
    story.title("Into production")
    registered = record_registration(workspace, workspace.capabilities / CAPABILITY, None)
    conversion = registered.manifest.conversion
    story.facts["version"] = registered.version
    story.facts["conversion"] = msgspec.to_builtins(conversion)
    story.tell.print(f"  registered {registered.version}")
    if conversion is not None:
        difference = f"largest difference {conversion.max_difference:.1e} over {conversion.rows} sample rows"
        story.tell.print(f"  converted to ONNX: {difference}, {conversion.tolerance:.0e} allowed")
    release = record_promotion(workspace, CAPABILITY, registered.version, "first release")
    story.tell.print(f"  release {release.number} is in force")


@contextmanager
def _running(story: _Story, workspace: Workspace, url: str) -> Iterator[subprocess.Popen[bytes]]:
    """`mainstay up` with two workers, in a process of its own; drained at the end."""
    workspace.run.mkdir(parents=True, exist_ok=True)
    log = workspace.run / "up.log"
    command = [sys.executable, "-m", "mainstay.cli.main", "up", "--workspace", str(workspace.root)]
    command += ["--port", url.rpartition(":")[2], "--workers", "2", "--with-parent"]
    with log.open("wb") as output:
        service = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        try:
            wait_until_ready(url, READY_SECONDS, alive=lambda: service.poll() is None)
        except Failed as error:
            raise Failed(f"{error.message}\n{log.read_text()[-2000:]}") from None
        story.tell.print(f"  serving at {url} with two workers")
        yield service
    finally:
        service.terminate()
        service.wait()


def _replay(
    story: _Story, example: Path, workspace: Workspace, url: str, token: str, flights: int | None
) -> tuple[dict[str, Any], int]:
    """April as live traffic from another process; its summary, and the process id of the worker killed on the way."""
    story.title("April 2013, replayed as live traffic")
    total = FLIGHTS_IN_APRIL if flights is None else min(flights, FLIGHTS_IN_APRIL)
    command = [sys.executable, str(example / "replay.py"), "--url", url]
    command += ["--acknowledged", str(_acknowledged(workspace)), "--limit", str(total)]
    environment = {**os.environ, API_KEY_VARIABLE: token}
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        summary, killed = _follow(story, process.stdout, workspace, total)
        complaint = process.stderr.read().decode()[-2000:]
    finally:
        process.kill()
        code = process.wait()
        process.stdout.close()
        process.stderr.close()
    if not summary.get("done"):
        raise Failed(f"the replay ended early with code {code}:\n{complaint}")
    return summary, killed


def _follow(story: _Story, lines: IO[bytes], workspace: Workspace, total: int) -> tuple[dict[str, Any], int]:
    """Show the progress that the replay tells, and kill a worker on the way."""
    summary: dict[str, Any] = {}
    killed = 0
    columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=story.tell) as bar:
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


def _tell_replay(story: _Story, summary: dict[str, Any], killed: int) -> None:
    latency = summary["latency_ms"]
    story.facts["replay"] = {**summary, "killed_worker": killed}
    story.tell.print(
        f"  {summary['decisions']:,} decisions and {summary['outcomes']:,} outcomes in {summary['seconds']:.0f} s"
    )
    for outcome, reason, count in summary["by_outcome"]:
        story.tell.print(f"    {outcome:<9} {reason or '-':<19} {count:>7,}", highlight=False)
    story.tell.print(
        f"  latency as the caller saw it: p50 {latency['p50']} ms, p95 {latency['p95']} ms, p99 {latency['p99']} ms"
    )
    story.tell.print(
        f"  worker {killed} was killed with SIGKILL on the way; {summary['repeated']} calls were sent again"
    )


def _check_acknowledged(story: _Story, workspace: Workspace) -> bool:
    """Every decision that a caller was given is in the ledger, once."""
    story.title("Is every acknowledged decision in the ledger?")
    acknowledged = _acknowledged(workspace).read_text().split()
    with Index(workspace.ledger) as index:
        places = _places(workspace, index, acknowledged)
        recorded = sum(index.counts(CAPABILITY).decisions.values())
    missing = sum(place is None for place in places)
    doubled = len(acknowledged) - len(set(acknowledged)) + len(places) - missing - len(set(places) - {None})
    unheard = recorded - len(acknowledged)
    good = not missing and not doubled
    story.facts["acknowledged"] = {
        "decisions": len(acknowledged),
        "missing": missing,
        "doubled": doubled,
        "recorded_but_unheard": unheard,
    }
    story.tell.print(f"  {len(acknowledged):,} acknowledged, {missing} missing, {doubled} doubled: {_word(good)}")
    if unheard > 0:
        were = "decision was" if unheard == 1 else "decisions were"
        story.tell.print(f"  {unheard} more {were} recorded by the killed worker, which died before it could answer")
    return good


def _places(workspace: Workspace, index: Index, acknowledged: list[str]) -> list[int | None]:
    """Where each decision stands in the sealed log, waiting for the sealer where it has not come so far."""
    deadline = time.monotonic() + SEAL_WAIT_SECONDS
    while True:
        index.catch_up(Log(workspace.ledger))
        places = [index.find(each) for each in acknowledged]
        if None not in places or time.monotonic() > deadline:
            return places
        time.sleep(0.2)


def _tell_promise(story: _Story, workspace: Workspace) -> None:
    story.title("Does it keep the pilot's promise?")
    declared = load_capability(workspace.capabilities / CAPABILITY)
    with Index(workspace.ledger) as index:
        index.catch_up(Log(workspace.ledger))
        held = hold(index, declared.capability)
    story.facts["promise"] = msgspec.to_builtins(held)
    story.tell.print(f"  of {held.answered:,} answers, {held.labelled:,} flights have landed")
    for line in promise_lines(held, "April"):
        story.tell.print(f"  {line}", markup=False)


def _check_ledger(story: _Story, workspace: Workspace) -> bool:
    """The true ledger verifies; a copy with one bit changed does not, and the place is named."""
    story.title("The ledger, and a copy with one byte changed")
    verifier = load_verifier(workspace.keys)
    begun = time.monotonic()
    true_report = verify_ledger(workspace.ledger, verifier)
    seconds = time.monotonic() - begun
    story.tell.print(
        f"  the ledger: {_word(true_report.ok)} ({true_report.size:,} entries read again in {seconds:.1f} s)"
    )
    copy = workspace.run / "tampered-ledger"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(workspace.ledger, copy, ignore=shutil.ignore_patterns("wal", "index.db*", "*.lock"))
    place = flip_one_byte(copy, seed=2013)
    tampered = verify_ledger(copy, verifier)
    story.tell.print(f"  the copy, with {place}: {'NOT FOUND' if tampered.ok else 'found'}")
    for finding in tampered.findings[:3]:
        story.tell.print(f"    {finding}", markup=False)
    shutil.rmtree(copy)
    story.facts["ledger"] = {
        "ok": true_report.ok,
        "entries": true_report.size,
        "tampered": place,
        "tampering_found": [str(finding) for finding in tampered.findings[:3]],
    }
    return true_report.ok and not tampered.ok


def _explain_one(story: _Story, workspace: Workspace) -> None:
    story.title("One decision, explained")
    with Index(workspace.ledger) as index:
        known = [
            (abs(msgspec.json.decode(decision.output)["probability"] - 0.5), decision.id)
            for decision, outcome in index.joined(CAPABILITY)
            if outcome is not None and decision.outcome == "answered" and decision.output is not None
        ]
    if not known:
        story.tell.print("  no flight has landed yet")
        return
    _, chosen = min(known)  # the one that the model was least sure of
    explained = explain_entry(workspace, chosen)
    story.facts["explained"] = explained
    for line in explanation_lines(explained):
        story.tell.print(f"  {line}", markup=False)


def _leave_serving(story: _Story, workspace: Workspace, url: str, token: str, service: subprocess.Popen[bytes]) -> None:
    folder = workspace.capabilities / CAPABILITY
    sample = (folder / load_capability(folder).capability.samples).read_bytes().split(b"\n", 1)[0]
    body = msgspec.json.encode({"input": msgspec.json.decode(sample)}).decode()
    story.tell.print("\nServing until Ctrl-C. Ask it:\n")
    story.tell.print(
        f"curl -s {url}/v1/capabilities/{CAPABILITY}/decisions \\\n"
        f"  -H 'Authorization: Bearer {token}' \\\n"
        f"  -H 'Content-Type: application/json' \\\n"
        f"  -d '{body}'\n",
        markup=False,
    )
    try:
        service.wait()
    except KeyboardInterrupt:
        story.tell.print("draining")


def _acknowledged(workspace: Workspace) -> Path:
    return workspace.run / "acknowledged.txt"


def _word(good: bool) -> str:
    return "[green]ok[/]" if good else "[bold red]NOT OK[/]"
