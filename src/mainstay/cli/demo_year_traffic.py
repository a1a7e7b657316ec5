"""The year's traffic, as the process that sends it tells of it: `examples/flights/year.py`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from datetime import date, datetime
from typing import TYPE_CHECKING, Self

import msgspec

from mainstay.cli.common import API_KEY_VARIABLE
from mainstay.errors import Failed

if TYPE_CHECKING:
    from mainstay.cli.demo_story import Scene


class Sent(msgspec.Struct, frozen=True):
    """What came of a stretch: each `by` is a version, its stage, an outcome and how often."""

    until: datetime
    decisions: int
    outcomes: int
    by: tuple[tuple[str, str, str, int], ...]
    ended: bool


class Year:
    """The process, from `with` until its end. What it kept is in `kept`, a line of JSON for each flight or landing."""

    def __init__(self, scene: Scene, every: int) -> None:
        self.kept = scene.workspace.run / "year.jsonl"
        self.decisions = self.outcomes = 0
        self.by: Counter[tuple[str, str]] = Counter()  # version and stage
        self._complaints = scene.workspace.run / "year.stderr"
        command = [sys.executable, str(scene.example / "year.py"), "--url", scene.url, "--kept", str(self.kept)]
        scene.workspace.run.mkdir(parents=True, exist_ok=True)
        with self._complaints.open("wb") as complaints:
            self._process = subprocess.Popen(
                [*command, "--every", str(every)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                env={**os.environ, API_KEY_VARIABLE: scene.token},
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None, "both were asked for"
            pipe.close()
        self._process.kill()
        self._process.wait()

    def wait_until_ready(self) -> None:
        """Return when it has read the year. Raises Failed when it has ended."""
        self._read()

    def send(self, until: date, *, kilometres: bool = False) -> Sent:
        """Every flight scheduled before a day, and every landing before it. Raises Failed when it has ended."""
        assert self._process.stdin is not None
        asked = {"until": until.isoformat(), "kilometres": kilometres}
        try:
            self._process.stdin.write(msgspec.json.encode(asked) + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise self._ended() from None
        sent = msgspec.json.decode(self._read(), type=Sent)
        self.decisions += sent.decisions
        self.outcomes += sent.outcomes
        for version, stage, _, count in sent.by:
            self.by[version, stage] += count
        return sent

    def _read(self) -> bytes:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._ended()
        return line

    def _ended(self) -> Failed:
        self._process.kill()
        code = self._process.wait()
        return Failed(f"year.py ended with code {code}:\n{self._complaints.read_text()[-2000:]}")
