"""Are the claims of a document true? Each function gives one line per false one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote

from docs.markdown import anchors, commands, links

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path


class CommandLine(Protocol):
    """What a command line offers."""

    def subcommands(self, words: tuple[str, ...]) -> Collection[str]:
        """The commands below `words`; empty when `words` is a command that does something."""

    def options(self, words: tuple[str, ...]) -> Collection[str]:
        """The options of the command `words`."""


def documents(root: Path) -> list[Path]:
    """Every document a reader is led to."""
    found = {
        *root.glob("*.md"),
        *root.glob("docs/**/*.md"),
        *root.glob("bench/**/*.md"),
        *root.glob("examples/**/*.md"),
    }
    return sorted(found)


def broken_links(document: Path) -> Iterator[str]:
    """Relative links to files or headings that are not there."""
    for line, target in links(document.read_text("utf-8")):
        if re.match(r"[a-z][a-z0-9+.-]*:|//", target):
            continue
        path, _, fragment = target.partition("#")
        file = document if not path else document.parent / unquote(path)
        if not file.exists():
            yield f"{document.name}:{line}: links to {target}; expected {path} beside it, found nothing"
        elif fragment and file.suffix == ".md" and fragment not in anchors(file.read_text("utf-8")):
            yield f"{document.name}:{line}: links to {target}; {file.name} has no heading of that name"


def wrong_commands(document: Path, program: str, offered: CommandLine) -> Iterator[str]:
    """Calls of `program` with a command or an option that it does not have."""
    for command in commands(document.read_text("utf-8"), program):
        path, rest = _split(command.words, offered)
        shown = " ".join([program, *path])
        if isinstance(rest, str):
            yield f"{document.name}:{command.line}: {shown} has no command {rest}"
            continue
        known = offered.options(path)
        for word in rest:
            option = word.partition("=")[0]
            if word.startswith("--") and len(word) > 2 and option not in known:
                yield f"{document.name}:{command.line}: {shown} has no option {option}"


def mentioned_commands(document: Path, program: str, offered: CommandLine) -> Iterator[tuple[str, ...]]:
    """The commands of `program` a document names, as words; those that do not exist are left out."""
    for command in commands(document.read_text("utf-8"), program):
        path, rest = _split(command.words, offered)
        if not isinstance(rest, str):
            yield path


def wrong_help(document: Path, program: str, run: Callable[[tuple[str, ...]], str]) -> Iterator[str]:
    """Shown calls with `--help` whose output, where the document shows one, is not what the program says."""
    for command in commands(document.read_text("utf-8"), program):
        if "--help" in command.words and any(command.output):
            said = [line.rstrip() for line in run(command.words).strip("\n").splitlines()]
            shown = "\n".join(command.output).strip("\n").splitlines()
            if said != shown:
                different = next((pair for pair in zip(shown, said, strict=False) if pair[0] != pair[1]), ("", ""))
                call = " ".join([program, *command.words])
                yield (
                    f"{document.name}:{command.line}: {call} is shown with {len(shown)} lines and says {len(said)};"
                    f" first difference: shown {different[0]!r}, said {different[1]!r}"
                )


def wrong_targets(document: Path, makefile: str) -> Iterator[str]:
    """Calls of make with a target that the makefile does not have."""
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    for command in commands(document.read_text("utf-8"), "make"):
        for word in command.words:
            if re.fullmatch(r"[A-Za-z][\w-]*", word) and word not in targets:
                yield f"{document.name}:{command.line}: make has no target {word}; it has {', '.join(sorted(targets))}"


def _split(words: tuple[str, ...], offered: CommandLine) -> tuple[tuple[str, ...], tuple[str, ...] | str]:
    """The command in `words` and the rest; or the command so far and the word it does not have."""
    depth = 0
    while below := offered.subcommands(words[:depth]):
        if depth == len(words) or not re.fullmatch(r"[a-z][a-z-]*", words[depth]):
            break
        if words[depth] not in below:
            return words[:depth], words[depth]
        depth += 1
    return words[:depth], words[depth:]
