"""The demo's second part: April to December of the flights, kept in production by what Mainstay decides by itself.

It has a workspace of its own, whose windows are those of 2013: the contract names the field that says when. What is
asked of Mainstay is asked by the commands that everybody has, and they are shown; what is decided, the control process
decides, and is waited for.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack, contextmanager
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec

from mainstay.cli.demo_season import SHORT, Season, until
from mainstay.cli.demo_serving import empty_directory, serving
from mainstay.cli.demo_story import CAPABILITY, Scene
from mainstay.cli.demo_year_report import report
from mainstay.cli.demo_year_traffic import Year
from mainstay.cli.init import create_workspace
from mainstay.cli.shadow_shown import comparison_lines
from mainstay.documents import shorten
from mainstay.errors import Failed
from mainstay.lake.lake import open_lake
from mainstay.monitoring.store import read_findings
from mainstay.retraining.store import requests_of
from mainstay.rollout.comparison_types import Comparison
from mainstay.server.supervisor import free_port
from mainstay.state.database import open_database
from mainstay.workspace import SETTINGS_FILE, open_workspace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mainstay.cli.demo_story import Story
    from mainstay.monitoring.findings import Standing
    from mainstay.retraining.types import Request
    from mainstay.rollout.types import Rollout

SETTINGS: Final = """
# Nine months in a minute: what is decided has to be seen at once. Who monitors is asked by hand here, once a month.
lake_interval_seconds = 0.3
steering_interval_seconds = 0.2
refresh_seconds = 0.2
monitor_interval_seconds = 0
intake_workers = 0
"""
SHADOW_HEADS: Final = ("SEGMENT", "the cases that differ")  # of its parts, of which the first is shown in part
MOST_LINES, MOST_CHARACTERS = 26, 150  # of what is shown of a report
WITHOUT, WITH, QUARTERS = "without weather", "with weather", "in quarters"
FOLDERS: Final = {WITHOUT: "without-weather", WITH: "with-weather", QUARTERS: "in-quarters"}
KILOMETRES: Final = (date(2013, 11, 18), date(2013, 12, 2))


@contextmanager
def making_versions(example: Path, pilot: Path, into: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that trains what the year needs beside the pilot, into folders of `into`; ended at the end."""
    command = [sys.executable, str(example / "versions.py"), "--pilot", str(pilot), "--into", str(into)]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True, process_group=0
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def play_year(
    story: Story, example: Path, making: subprocess.Popen[str], versions: Path, directory: Path, every: int
) -> None:
    """The year in a workspace at `directory`, with the folders that are being made in `versions`.

    About one flight in `every` is sent.
    """
    with _season(story, example, making, versions, directory, every) as season:
        story.facts["year"] = {"every": every}
        _april(season)
        _summer(season)
        _mistake(season)
        _october(season)
        _broken_feed(season)
        season.go_on(date(2014, 1, 1))
        report(season)


@contextmanager
def _season(
    story: Story, example: Path, making: subprocess.Popen[str], versions: Path, directory: Path, every: int
) -> Iterator[Season]:
    story.title("April to December: kept in production")
    empty_directory(directory)
    workspace, _, token = create_workspace(directory, "demo.mainstay.local/year")
    settings = directory / SETTINGS_FILE
    settings.write_text(settings.read_text("utf-8") + SETTINGS, "utf-8")
    workspace = open_workspace(directory)
    scene = Scene(story, workspace, example, f"http://127.0.0.1:{free_port('127.0.0.1')}", token, 500, [])
    with ExitStack() as running:
        year = Year(scene, every)
        running.enter_context(year)
        database = running.enter_context(open_database(workspace))
        _wait_for_versions(story, making)
        folders = {name: versions / folder for name, folder in FOLDERS.items()}
        season = Season(scene, database, open_lake(workspace), year, folders, date(2013, 4, 1))
        _register(season, WITHOUT)
        season.command("promote", CAPABILITY, "--reason", "what the desk has used since March", shown=False)
        running.enter_context(serving(scene))
        with story.working("reading the year"):
            year.wait_until_ready()
        yield season


def _wait_for_versions(story: Story, making: subprocess.Popen[str]) -> None:
    with story.working("training a version without weather, and one with a mistake"):
        said, complaint = making.communicate()
    if making.returncode:
        raise Failed(f"versions.py failed:\n{complaint.strip()[-2000:]}")
    for line in said.splitlines():
        story.say(line)


def _register(season: Season, name: str) -> str:
    """Register the folder of a version; its digest."""
    folder = season.folders[name].relative_to(season.folders[name].parents[1])
    said = season.command("register", str(season.folders[name]), "--json", shown=False)
    version: str = msgspec.json.decode(said)["version"]
    season.versions[name] = version
    season.story.say(f"  {version[:SHORT]}, from {folder}")
    return version


def _promote(season: Season, name: str, stage: str, reason: str) -> Rollout:
    season.command("promote", CAPABILITY, season.versions[name][:SHORT], "--to", stage, "--reason", reason, shown=False)
    rollout = season.running()
    if rollout is None:
        raise Failed(f"expected {name} to be on trial, found nothing")
    season.note(f"{name}: {stage}")
    return rollout


def _pace(rollout: Rollout) -> int:
    """Days of traffic at once: more while few of the flights are decided by the version on trial."""
    return 3 if rollout.stage == "shadow" or rollout.percent >= 40 else 6


# The acts.


def _april(season: Season) -> None:
    story = season.story
    story.title("April: a version with weather comes into production")
    season.go_on(date(2013, 4, 8))
    story.say(f"{season.year.decisions:,} flights decided by the version without weather")
    _register(season, WITH)
    story.say("It knows the weather, and warns from a chance of 18 % on, as the desk's costs ask, not from 50 %.")
    rollout = _promote(season, WITH, "shadow", "knows the weather, and warns as the costs ask")
    rollout = season.follow(rollout, _pace)
    story.facts["year"]["weather"] = _facts(season, rollout)
    _tell_shadow(season, rollout)
    story.expect(rollout.stage == "production", f"the version with weather in production, found {rollout.stage}")


def _tell_shadow(season: Season, rollout: Rollout) -> None:
    """What the shadow had said otherwise, and where most."""
    words = ("shadow", CAPABILITY, rollout.version[:SHORT], "--cases", "3", "--json")
    found = msgspec.json.decode(season.command(*words, shown=False), type=Comparison)
    lines = list(comparison_lines(found))
    segments, cases = (next(i for i, line in enumerate(lines) if line.startswith(head)) for head in SHADOW_HEADS)
    for line in (*lines[: segments + 4], f"... {cases - segments - 5} segments more", "", *lines[cases:]):
        season.story.say(f"  {line}")
    season.story.facts["year"]["shadow"] = {
        "compared": 0 if found.whole is None else found.whole.compared,
        "differ": 0 if found.whole is None else found.whole.differ,
        "cases": [
            {"id": each.decision_id, "given": each.given["probability"], "shadow": each.shadow["probability"]}
            for each in found.cases
        ],
    }


def _summer(season: Season) -> None:
    story = season.story
    story.title("Summer: what changed, and does it matter?")
    season.go_on(date(2013, 8, 26))
    page = season.scene.workspace.root / "monitor-summer.html"
    _monitor(season, "--since", "35", "--html", str(page))
    season.note("drift is found and explained")
    open_ones = _open(season)
    story.facts["year"]["summer"] = [_finding(each) for each in open_ones]
    story.expect(any(each.finding.code == "input_drift" for each in open_ones), "summer is found to be another season")
    asked = _asked(season, set())
    story.say(f"the control process asks for retraining by itself: {asked.cause}, {asked.reason}")
    season.note("retraining asked for by itself")
    _retrained(season, asked, "fitted in August", helps=True)


def _monitor(season: Season, *words: str) -> None:
    """Have it looked at, and show the worst of what is found."""
    said = season.command("monitor", CAPABILITY, *words, shown=False)
    now = said.partition("\nover since")[0].rstrip().splitlines()
    for line in now[:MOST_LINES]:
        season.story.say(f"  {shorten(line, MOST_CHARACTERS)}")
    if len(now) > MOST_LINES:
        season.story.say(f"    ... {len(now) - MOST_LINES} lines more")


def _asked(season: Season, known: set[str]) -> Request:
    """The request that something put."""

    def newest() -> list[Request]:
        found = requests_of(season.database, CAPABILITY, 10)
        return [each for each in found if each.id not in known]

    until("a request for retraining", lambda: bool(newest()))
    return newest()[0]


def _retrained(season: Season, asked: Request, name: str, *, helps: bool) -> None:
    """What came of a run; the challenger that is better goes its way."""
    story = season.story

    def found() -> Request:
        return next(each for each in requests_of(season.database, CAPABILITY, 10) if each.id == asked.id)

    with story.working("retraining"):
        until("the run to end", lambda: found().status == "ended", seconds=240.0)
    ended = found()
    season.command("retraining", "show", ended.id[:8])
    story.facts["year"].setdefault("retraining", []).append(msgspec.to_builtins(ended))
    if ended.trained is not None:
        season.versions[name] = ended.trained.version
    season.note(f"{name}: {'better' if ended.ending == 'better' else 'refused'}")
    expected = "better" if helps else "not_better"
    if not story.expect(ended.ending == expected, f"a run that is {expected}, found {ended.ending}") or not helps:
        return
    rollout = season.running()
    if rollout is None:
        raise Failed("expected the challenger to be a shadow, found nothing on trial")
    rollout = season.follow(rollout, _pace)
    story.facts["year"]["retrained"] = _facts(season, rollout)
    story.expect(rollout.stage == "production", f"the retrained version in production, found {rollout.stage}")


def _mistake(season: Season) -> None:
    story = season.story
    story.title("Autumn: a version with a mistake")
    season.go_on(max(season.day, date(2013, 9, 9)))
    story.say("It was fitted to a table that gives delays in quarters of an hour; calls give minutes.")
    _register(season, QUARTERS)
    checked = season.command(
        "check",
        CAPABILITY,
        "--version",
        season.versions[QUARTERS][:SHORT],
        "--for",
        "canary",
        shown=False,
        may_fail=True,
    )
    for line in checked.splitlines():
        if "promise-on-reference" in line or "checks pass" in line or "gate" in line:
            story.say(f"  {line}")
    season.beside_mistake = season.in_production()
    rollout = _promote(season, QUARTERS, "canary", "fitted to the new table of the carriers")
    rollout = season.follow(rollout, lambda _: 3)
    facts = _facts(season, rollout)
    story.facts["year"]["mistake"] = facts
    story.say(f"it had decided {facts['decisions']:,} flights")
    story.expect(rollout.stage == "rolled_back", f"the broken version rolled back, found {rollout.stage}")


def _october(season: Season) -> None:
    story = season.story
    story.title("The monthly run: retraining that does not help")
    season.go_on(max(season.day, date(2013, 10, 28)))
    known = {each.id for each in requests_of(season.database, CAPABILITY, 10)}
    words = ("retraining", "request", CAPABILITY, "--reason", "the monthly run", "--wait")
    season.command(*words, shown=False, may_fail=True)
    _retrained(season, _asked(season, known), "fitted in October", helps=False)


def _broken_feed(season: Season) -> None:
    story = season.story
    story.title("November: a broken feed")
    season.go_on(KILOMETRES[0])
    known = {each.id for each in requests_of(season.database, CAPABILITY, 10)}
    story.say(f"from {KILOMETRES[0]:%d %B} on, distances come in kilometres")
    season.note("distances in kilometres", is_turn=True)
    season.go_on(KILOMETRES[1] + timedelta(days=2), kilometres=True)
    _monitor(season, "--since", "14")
    broken = [each for each in _open(season) if each.finding.cause.kind == "data_broken"]
    story.facts["year"]["feed"] = [_finding(each) for each in broken]
    named = {each.finding.column for each in broken}
    story.expect("input.distance" in named, "distances are found to be broken")
    season.note("the feed is mended", is_turn=True)
    new = [each for each in requests_of(season.database, CAPABILITY, 10) if each.id not in known]
    story.facts["year"]["feed_requests"] = msgspec.to_builtins(new)
    for each in new:
        story.say(f"retraining {each.status}: {each.why or each.reason}")
    if not new:
        story.say("nothing asks for retraining: what is broken is mended, not learned")
    story.expect(all(each.status == "barred" for each in new), "nothing retrains on broken data")


def _open(season: Season) -> list[Standing]:
    return read_findings(season.database, CAPABILITY, open_only=True)


def _finding(standing: Standing) -> dict[str, Any]:
    found = standing.finding
    return {
        "code": found.code,
        "severity": found.severity,
        "column": found.column,
        "segment": found.segment,
        "text": found.text,
        "kind": found.cause.kind,
        "since": standing.since.isoformat(),
    }


def _facts(season: Season, rollout: Rollout) -> dict[str, Any]:
    events = season.events(rollout.id)
    return {
        "version": rollout.version,
        "stage": rollout.stage,
        "reason": rollout.reason,
        "moves": [[each.action, each.details.get("to"), each.details.get("percent"), each.reason] for each in events],
        "decisions": season.decided_by(rollout.version, "canary"),
    }
