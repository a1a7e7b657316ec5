"""Each check of the documents, given something false: a check that cannot fail is worth nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from docs import claims
from docs.markdown import anchors, commands, links

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path


class Hut:
    """A command line with `hut open [--wide]` and `hut key make`."""

    def subcommands(self, words: tuple[str, ...]) -> Collection[str]:
        return {(): ["open", "key"], ("key",): ["make"]}.get(words, [])

    def options(self, words: tuple[str, ...]) -> Collection[str]:
        return {"--help", "--wide"} if words == ("open",) else {"--help"}


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "a.md"
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize(
    "link",
    [
        "[x](absent.md)",
        "[x](a.md#absent)",
        "[x](#absent)",
        "![x](absent.png)",
        "[x]: absent.md",
        "[`x`](absent.md 'title')",
    ],
)
def test_a_link_that_leads_nowhere_is_found(link: str, write: Callable[[str], Path]) -> None:
    [breach] = claims.broken_links(write(f"# Title\n{link}\n"))
    assert breach.startswith("a.md:2: links to ")


def test_links_that_lead_somewhere_or_are_no_links_pass(write: Callable[[str], Path]) -> None:
    prose = "# A `b` of c!\n[x](a.md) [y](#a-b-of-c) [z](https://example.com/x) `[c](absent.md)`\n"
    text = prose + "```\n[d](absent.md)\n```\n"
    assert not list(claims.broken_links(write(text)))


def test_anchors_are_named_as_github_names_them() -> None:
    text = (
        "# What's *new* in 1.0?\n## A new dependency\n## A new dependency\n<a id='here'></a>\n```\n# no heading\n```\n"
    )
    assert anchors(text) == {"whats-new-in-10", "a-new-dependency", "a-new-dependency-1", "here"}


def test_links_are_found_with_their_lines() -> None:
    assert list(links("a\n[b](c.md), [d](<e.md>)\n[f]: g.md\n")) == [(2, "c.md"), (2, "e.md"), (3, "g.md")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("`hut open --wide`\n", ("open", "--wide")),
        ("```console\n$ hut open\nhut not typed\n```\n", ("open",)),
        ("```sh\nhut open \\\n  --wide\n```\n", ("open", "--wide")),
        ("```\ncat x | A=1 .venv/bin/hut open 'a b' && ls\n```\n", ("open", "a b")),
    ],
)
def test_a_command_is_read_however_it_is_shown(text: str, words: tuple[str, ...]) -> None:
    assert [command.words for command in commands(text, "hut")] == [words]


@pytest.mark.parametrize(
    "text", ["the hut open to all\n", "```python\nhut open\n```\n", "`hut.toml`\n", "`a hut open`\n"]
)
def test_what_is_no_command_is_not_read_as_one(text: str) -> None:
    assert not list(commands(text, "hut"))


@pytest.mark.parametrize(
    ("shown", "breach"),
    [
        ("hut shut", "hut has no command shut"),
        ("hut key break", "hut key has no command break"),
        ("hut open --high=2", "hut open has no option --high"),
        ("hut --wide", "hut has no option --wide"),
    ],
)
def test_a_command_or_option_that_does_not_exist_is_found(
    shown: str, breach: str, write: Callable[[str], Path]
) -> None:
    assert list(claims.wrong_commands(write(f"`{shown}`\n"), "hut", Hut())) == [f"a.md:1: {breach}"]


def test_commands_that_exist_pass_and_count_as_mentioned(write: Callable[[str], Path]) -> None:
    path = write("`hut open x --wide`, `hut key make`, `hut --help`, `hut COMMAND`, `hut shut`\n")
    assert [line for line in claims.wrong_commands(path, "hut", Hut()) if "shut" not in line] == []
    assert set(claims.mentioned_commands(path, "hut", Hut())) == {("open",), ("key", "make"), ()}


def test_help_that_differs_from_what_the_command_says_is_found(write: Callable[[str], Path]) -> None:
    path = write("```console\n$ hut open --help\nOpens.\n  --wide\n$ hut key --help\n```\n")
    assert not list(claims.wrong_help(path, "hut", lambda _: "\nOpens.  \n  --wide\n"))
    [breach] = claims.wrong_help(path, "hut", lambda _: "Opens.\n  --broad\n")
    assert "shown '  --wide', said '  --broad'" in breach


def test_a_target_that_does_not_exist_is_found(write: Callable[[str], Path]) -> None:
    path = write("`make up`, `make -j up`, `make WIDE=yes up`, `make down`\n")
    [breach] = claims.wrong_targets(path, "WIDE := no\nup: prepared ## goes up\n")
    assert breach == "a.md:1: make has no target down; it has up"
