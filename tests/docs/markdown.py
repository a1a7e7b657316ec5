"""What a Markdown document claims: its links, anchors, shell commands, make targets and shown help."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

SHELL_LANGUAGES: Final = frozenset({"", "bash", "console", "sh", "shell"})

_FENCE = re.compile(r"^( {0,3})(`{3,}|~{3,})\s*([\w-]*)")
_CODE_SPAN = re.compile(r"(`+)(?!`)(.+?)(?<!`)\1(?!`)")
_LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(\s*<?([^)<>\s]+)>?(?:\s+[\"'(][^)]*)?\)")
_REFERENCE = re.compile(r"^ {0,3}\[[^\]]+\]:\s*<?([^\s<>]+)>?")
_HEADING = re.compile(r"^ {0,3}#{1,6}\s+(.*?)\s*#*\s*$")
_ANCHOR = re.compile(r"<[^>]*\b(?:id|name)=[\"']([^\"']+)[\"']")


@dataclass(frozen=True)
class Line:
    """One line of a document. `fence` is the language of the code block it stands in, None outside of one."""

    number: int
    text: str
    fence: str | None
    block: int  # counts the code blocks; lines of one block share it


@dataclass(frozen=True)
class Command:
    """A command as a document shows it: its words, without the prompt, and the output shown below it."""

    line: int
    words: tuple[str, ...]
    output: tuple[str, ...]


def read_lines(text: str) -> Iterator[Line]:
    """Every line but the fences themselves."""
    fence: str | None = None
    closing = ""
    block = 0
    for number, line in enumerate(text.splitlines(), 1):
        match = _FENCE.match(line)
        if fence is None and match:
            fence, closing, block = match[3].lower(), match[2], block + 1
        elif fence is not None and line.strip().startswith(closing) and not line.strip().strip(closing[0]):
            fence = None
        else:
            yield Line(number, line, fence, block)


def links(text: str) -> Iterator[tuple[int, str]]:
    """Line and target of every link and image, but none inside code."""
    for line in read_lines(text):
        if line.fence is None:
            prose = _CODE_SPAN.sub("", line.text)
            for pattern in (_LINK, _REFERENCE):
                yield from ((line.number, match[1]) for match in pattern.finditer(prose))


def anchors(text: str) -> set[str]:
    """The fragments that lead into the document: headings as GitHub names them, and explicit ids."""
    found: set[str] = set()
    for line in read_lines(text):
        if line.fence is not None:
            continue
        found.update(_ANCHOR.findall(line.text))
        if match := _HEADING.match(line.text):
            plain = _LINK.sub(lambda link: link[0][link[0].index("[") + 1 : link[0].index("]")], match[1])
            name = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
            repeats = (f"{name}-{count}" for count in range(1, 1_000))
            found.add(name if name not in found else next(each for each in repeats if each not in found))
    return found


def commands(text: str, program: str) -> Iterator[Command]:
    """Every call of `program` in shell blocks and code spans, behind a prompt, a path, a pipe or variables too."""
    lines = list(read_lines(text))
    for position, line in enumerate(lines):
        if line.fence is None:
            for match in _CODE_SPAN.finditer(line.text):
                yield from _calls(line.number, match[2], program, ())
        elif line.fence in SHELL_LANGUAGES and (shown := _typed(lines, position)):
            yield from _calls(line.number, shown[0], program, shown[1])


def _typed(lines: list[Line], position: int) -> tuple[str, tuple[str, ...]] | None:
    """What a person types on this line, continuation lines joined, and the output below; None when it is output."""
    line = lines[position]
    rest = [each for each in lines[position + 1 :] if each.block == line.block and each.fence is not None]
    text = line.text.strip()
    if line.fence == "console":
        if not text.startswith("$ "):
            return None
        text = text[2:]
    while text.endswith("\\") and rest:
        text = text[:-1] + rest.pop(0).text.strip()
    output = []
    for each in rest:
        if each.text.startswith("$ "):
            break
        output.append(each.text.rstrip())
    return text, tuple(output)


def _calls(line: int, shown: str, program: str, output: tuple[str, ...]) -> Iterator[Command]:
    words = _words(shown.removeprefix("$ "))
    current: list[str] = []
    for word in [*words, ";"]:
        if word in {"|", "||", "&&", ";", "&"}:
            while current and re.fullmatch(r"[A-Z_]+=.*", current[0]):
                current.pop(0)
            if current and current[0].rpartition("/")[2] == program:
                yield Command(line, tuple(current[1:]), output)
            current = []
        else:
            current.append(word)


def _words(text: str) -> list[str]:
    lexer = shlex.shlex(text, posix=True, punctuation_chars="|&;")
    lexer.whitespace_split = True
    try:
        return list(lexer)
    except ValueError:  # a quotation that goes on elsewhere: prose or a fragment
        return text.split()
