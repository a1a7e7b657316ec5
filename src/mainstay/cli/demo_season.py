"""Where the demo's year is played: its traffic, the commands that are given, and waiting for what is decided."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from mainstay.cli.common import API_KEY_VARIABLE
from mainstay.cli.demo_story import CAPABILITY
from mainstay.errors import Failed
from mainstay.lake.decision_rows import DECISIONS, OUTCOMES
from mainstay.monitoring.evidence import Evidence
from mainstay.rollout import store
from mainstay.rollout.evidence import decode

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mainstay.cli.demo_story import Scene, Story
    from mainstay.cli.demo_year_traffic import Year
    from mainstay.lake.lake import Lake
    from mainstay.lake.tables import Table
    from mainstay.rollout.evidence import Folded
    from mainstay.rollout.types import Event, Rollout
    from mainstay.state.database import Database

SHORT: Final = 19  # of a digest: "sha256:" and 12 digits
PATIENCE_SECONDS: Final = 90.0
POLL_SECONDS: Final = 0.1
WEEK: Final = timedelta(days=7)
MOST_LINES: Final = 40  # of what a command said


class Moment(NamedTuple):
    """Something that happened, for the report."""

    day: date
    what: str
    is_turn: bool = False  # from then on another version decides, or what comes in is another thing


@dataclass
class Season:
    """The year, and how far it has come."""

    scene: Scene
    database: Database
    lake: Lake
    year: Year
    folders: dict[str, Path]
    day: date
    moments: list[Moment] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)  # by what the story calls them: their digests
    tables: dict[str, Table] = field(default_factory=dict)  # of the lake, kept open
    beside_mistake: str = ""  # the version that was in production then

    @property
    def story(self) -> Story:
        return self.scene.story

    def note(self, what: str, *, is_turn: bool = False) -> None:
        """Keep for the report that something happened today."""
        self.moments.append(Moment(self.day, what, is_turn))

    def name(self, version: str) -> str:
        """What the story calls a version."""
        return next((name for name, digest in self.versions.items() if digest == version), version[:SHORT])

    def go_on(self, until: date, *, kilometres: bool = False) -> None:
        """Send the traffic up to a day, week by week, and return when it is in the lake."""
        with self.story.working(f"flights of {self.day:%B}") as tell:
            while self.day < until:
                tell(f"flights of {self.day:%d %B}")
                self.day = min(until, self.day + WEEK)
                self.year.send(self.day, kilometres=kilometres)
            self._exported()

    def command(self, *words: str, shown: bool = True, may_fail: bool = False) -> str:
        """Give a command as everybody would, and show what it said; its output. Raises Failed when it fails."""
        self.story.say(f"$ mainstay {shlex.join(words)}")
        command = [sys.executable, "-m", "mainstay.cli.main", *words, "--workspace", str(self.scene.workspace.root)]
        with self.story.working("working"):
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                check=False,
                stdin=subprocess.DEVNULL,
                env={**os.environ, API_KEY_VARIABLE: self.scene.token},
            )
        if done.returncode and not may_fail:
            said = (done.stdout + done.stderr)[-3_000:]
            raise Failed(f"mainstay {words[0]} ended with code {done.returncode}:\n{said}")
        if shown:
            lines = done.stdout.rstrip().splitlines()
            for line in lines[:MOST_LINES]:
                self.story.say(f"  {line}")
            if len(lines) > MOST_LINES:
                self.story.say(f"  ... {len(lines) - MOST_LINES} lines more")
        return done.stdout

    def decided_by(self, version: str, stage: str) -> int:
        """How many of the flights sent so far a version decided at a stage."""
        return self.year.by[version, stage]

    # What is decided about versions on trial.

    def running(self) -> Rollout | None:
        """The version on trial."""
        return self.database.read(lambda connection: store.find_running(connection, CAPABILITY))

    def in_production(self) -> str:
        """The version in production; one that came there by a rollout."""
        found = self.database.read(lambda connection: store.find_in_production(connection, CAPABILITY))
        assert found is not None, "every version of the year came there by one"
        return found.version

    def rollout(self, identity: str) -> Rollout:
        found = self.database.read(lambda connection: store.find(connection, identity))
        assert found is not None, "rollouts are never removed"
        return found

    def events(self, identity: str) -> list[Event]:
        return self.database.read(lambda connection: store.list_events(connection, identity))

    def folded(self, rollout: Rollout) -> Folded | None:
        """What the control process has read of the version on trial."""

        def work(connection: object) -> bytes:
            return store.load_evidence(connection, rollout)  # type: ignore[arg-type]  # the connection of `read`

        try:
            return decode(self.database.read(work))
        except store.Moved:
            return None

    def follow(self, rollout: Rollout, days: Callable[[Rollout], int]) -> Rollout:
        """Send traffic until the rollout is over or in production; every move is told. `days` is how many at once."""
        told = len(self.events(rollout.id))
        deadline = time.monotonic() + 4 * PATIENCE_SECONDS
        while rollout.running and time.monotonic() < deadline:
            self.day += timedelta(days=days(rollout))
            self.year.send(self.day)
            rollout = self._looked_at(rollout)
            for event in self.events(rollout.id)[told:]:
                self._tell(event, rollout)
                told += 1
        return rollout

    def _looked_at(self, rollout: Rollout) -> Rollout:
        """The rollout when the control process has read all that was sent, or has moved it by what it read of that.

        So what is decided on which day depends on the flights, and not on how busy the machine is.
        """
        end, found = self._exported(), rollout

        def is_read() -> bool:
            nonlocal found
            folded = self.folded(rollout)  # kept together with what is said of it
            found = self.rollout(rollout.id)
            return found.moves != rollout.moves or (folded is not None and folded.reached >= end)

        until("the control process to read what was sent", is_read)
        return found if found.moves == rollout.moves else self._settled(found)

    def _exported(self) -> int:
        """The position in the ledger behind what was sent, when all of that is in the lake."""
        wanted = {f"{DECISIONS}{CAPABILITY}": self.year.decisions, f"{OUTCOMES}{CAPABILITY}": self.year.outcomes}

        def is_there() -> bool:
            return all(self._rows(name) >= rows for name, rows in wanted.items())

        until("what was sent to be in the lake", is_there)
        return Evidence(self.lake, CAPABILITY).end

    def _rows(self, name: str) -> int:
        """How many rows a table has; it is read again only where its log is another."""
        table = self.tables.get(name)
        if table is None or not table.is_surely_newest():
            found = self.lake.find(name) if table is None else table.refresh()
            if found is None:
                return 0
            table = self.tables[name] = found
        return table.rows

    def _settled(self, rollout: Rollout) -> Rollout:
        """The rollout when the workers follow its last move."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while rollout.release is None and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
            rollout = self.rollout(rollout.id)
        time.sleep(self.scene.workspace.settings.refresh_seconds)
        return rollout

    def _tell(self, event: Event, rollout: Rollout) -> None:
        stage = str(event.details.get("to")).replace("_", " ")
        percent = event.details.get("percent")
        name = f"{self.name(rollout.version)}: {stage}" + (f" for {percent:g} % of the flights" if percent else "")
        self.story.say(f"{self.day:%d %b}  {name}")
        self.story.say(f"        because {event.reason}")
        self.note(name, is_turn=stage in {"production", "rolled back"})


def until(what: str, holds: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
    """Wait for something that the control process does. Raises Failed when it does not."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise Failed(f"expected {what} within {seconds:.0f} s")
        time.sleep(POLL_SECONDS)
