"""The documents as they stand, held to what the program does. That each check can fail is shown in test_claims.py."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from docs import claims
from mainstay.cli.main import make_app

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from cyclopts import App

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENTS = claims.documents(REPOSITORY)
HELP_COLUMNS = 80

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))


class Mainstay:
    """The commands of `mainstay`, as it stands."""

    def subcommands(self, words: tuple[str, ...]) -> Collection[str]:
        return [name for name in self._app(words) if not name.startswith("-")]

    def options(self, words: tuple[str, ...]) -> Collection[str]:
        common = {"--help", "--version"}
        if self.subcommands(words):
            return common
        arguments = self._app(words).assemble_argument_collection()
        return common.union(*((*argument.names, *argument.negatives) for argument in arguments))

    def every_command(self, words: tuple[str, ...] = ()) -> Iterable[tuple[str, ...]]:
        below = self.subcommands(words)
        return [words] if not below else [each for name in below for each in self.every_command((*words, name))]

    def _app(self, words: tuple[str, ...]) -> App:
        found = make_app()
        for word in words:
            found = found[word]
        return found


@cache
def run_mainstay(words: tuple[str, ...]) -> str:
    """What the installed command prints into a terminal of HELP_COLUMNS columns without colours."""
    environment = {**os.environ, "COLUMNS": str(HELP_COLUMNS), "NO_COLOR": "1", "TERM": "dumb"}
    command = [str(Path(sys.executable).with_name("mainstay")), *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=True)
    return done.stdout


def hold(false: Iterable[str]) -> None:
    found = list(false)
    assert not found, "\n" + "\n".join(found)


def test_there_are_documents_to_look_at() -> None:
    assert {"README.md", "CONTRIBUTING.md", "dependencies.md"} <= {document.name for document in DOCUMENTS}


@each_document
def test_every_link_leads_somewhere(document: Path) -> None:
    hold(claims.broken_links(document))


@each_document
def test_every_command_and_option_shown_exists(document: Path) -> None:
    hold(claims.wrong_commands(document, "mainstay", Mainstay()))


@each_document
def test_every_help_shown_is_what_the_command_says(document: Path) -> None:
    hold(claims.wrong_help(document, "mainstay", run_mainstay))


@each_document
def test_every_make_target_shown_exists(document: Path) -> None:
    hold(claims.wrong_targets(document, (REPOSITORY / "Makefile").read_text("utf-8")))


def test_every_command_is_in_a_document() -> None:
    mentioned = {path for document in DOCUMENTS for path in claims.mentioned_commands(document, "mainstay", Mainstay())}
    missing = [" ".join(["mainstay", *words]) for words in Mainstay().every_command() if words not in mentioned]
    assert not missing, f"no document shows {', '.join(missing)}"
