"""How the demo tells its story, to people and to programs, and what its acts share."""

from __future__ import annotations

import re
import textwrap
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from rich.console import Console

    from mainstay.workspace import Workspace

CAPABILITY = "late-arrival"

_LABEL = re.compile(r" *(\S+ {2,})?")  # of a line: what stands before its text, a word and two spaces at least


@dataclass
class Story:
    """Tells people what happens, keeps the facts for programs, and what should have held and did not."""

    tell: Console
    facts: dict[str, Any] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)

    @property
    def shows_bars(self) -> bool:
        """Whether a bar would be drawn in its place, and not line after line."""
        return self.tell.is_terminal and not self.tell.is_dumb_terminal

    def title(self, text: str) -> None:
        self.tell.print(f"\n[bold]{text}[/]")

    def say(self, text: str) -> None:
        """A line of the act, as it is; on a terminal, what does not fit goes on below the line's text."""
        lines = [f"  {text}"]
        if self.tell.is_terminal:
            lines = wrapped(lines[0], self.tell.width)
        for line in lines:
            self.tell.print(escape(line))

    def expect(self, holds: bool, what: str) -> bool:
        """Note `what` should hold, at once and for the end, unless it does; whether it does."""
        if not holds:
            self.failed.append(what)
            self.tell.print(f"  [bold red]NOT OK[/] expected: {escape(what)}")
        return holds

    @contextmanager
    def working(self, doing: str) -> Iterator[Callable[[str], None]]:
        """A bar on a terminal while something of unknown length goes on, gone at its end; what it gives renames it."""
        columns = (TextColumn("  {task.description}"), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self.tell, transient=True, disable=not self.shows_bars) as bar:
            task = bar.add_task(escape(doing), total=None)
            yield lambda step: bar.update(task, description=escape(step))


class Scene(NamedTuple):
    """Where the demo plays."""

    story: Story
    workspace: Workspace
    example: Path
    url: str
    token: str
    deadline_ms: int
    acknowledged: list[str]  # the id of every decision that a caller was given, but for the replay's


def wrapped(line: str, width: int) -> list[str]:
    """The line in pieces of at most `width`; further ones stand below its text, or two spaces within it."""
    found = _LABEL.match(line)
    label = found[0] if found is not None and found[1] and len(found[0]) <= width // 2 else ""
    indent = label or " " * (len(line) - len(line.lstrip()))
    further = " " * (len(label) or len(indent) + 2)
    text = line[len(indent) :]
    return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=further, break_on_hyphens=False)


def outcome_lines(counted: Iterable[tuple[str, str, int]]) -> Iterator[str]:
    """A line for each outcome, its reason and how often; an empty reason is none."""
    for outcome, reason, count in counted:
        yield f"  {outcome:<11} {reason or '-':<19} {count:>8,}"


def word(good: bool) -> str:
    return "[green]ok[/]" if good else "[bold red]NOT OK[/]"
