"""Reading declared files: bounded YAML with line numbers, turned into frozen types with every problem listed.

What is read is the core schema of YAML 1.2, and of it only what JSON can say: `yes` and `2024-01-01` are strings, keys
are strings, tags and merge keys are refused. Aliases are allowed and count as often as they are used. A value that
begins with `TODO` is a question that nobody has answered, and so a problem.

The events of the parser are read, not its node trees: composing a tree recurses, and may grow without bound, before
anybody can count it.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import yaml

from mainstay.errors import InvalidDocument
from mainstay.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

try:
    from yaml import CSafeLoader as _Loader
except ImportError:  # PyYAML was built without libyaml; slower, and otherwise the same
    from yaml import SafeLoader as _Loader  # type: ignore[assignment]  # either has the methods used here

MAX_BYTES = 16 << 20
MAX_DEPTH = 64
MAX_NODES = 250_000  # counted as if every alias were written out
MAX_PROBLEMS = 1_000  # of all files read together
MAX_SHOWN = 80  # characters of a found value or of a key
MAX_DIGITS = 40  # holds every 128-bit integer

OPEN_QUESTION: Final = "TODO"  # what a value begins with that somebody still has to give
WHOLE: Final = "the document"  # where a problem stands that concerns all of a file
BROKEN: Final = object()  # the data of a value whose problem has been told

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE = frozenset({"true", "True", "TRUE"})
_FALSE = frozenset({"false", "False", "FALSE"})
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_SURROGATE = re.compile("[\ud800-\udfff]")
_QUESTION = re.compile(rf"{OPEN_QUESTION}(?:[:\s]\s*(?P<question>.*))?", re.DOTALL)
MAX_QUESTION = 400  # characters shown of it


class Value(NamedTuple):
    """A value of a document. `data` is None, bool, int, float, str, tuple[Value, ...], dict[str, Member] or BROKEN."""

    line: int  # from 1
    data: Any
    nodes: int = 1  # itself and all below it
    height: int = 0  # levels below it


class Member(NamedTuple):
    """A value of a mapping, and the line of its key."""

    line: int
    value: Value


@dataclass(frozen=True, slots=True)
class Document:
    """A file that was read: its name as problems show it, and what stands in it."""

    file: str
    root: Value


@dataclass(slots=True)
class Problems:
    """Collects the problems of any number of files; the first MAX_PROBLEMS of them."""

    found: list[Problem] = field(default_factory=list)

    def add(self, file: str, line: int, where: str, expected: str, found: str) -> None:
        if len(self.found) < MAX_PROBLEMS:
            self.found.append(Problem(file, line, where or WHOLE, expected, shorten(found)))

    def __bool__(self) -> bool:
        return bool(self.found)

    def raise_any(self) -> None:
        """Raises InvalidDocument with every problem in file and line order, when there is one."""
        if self.found:
            raise InvalidDocument(sorted(set(self.found)))


@dataclass(frozen=True, slots=True)
class Place:
    """A value of a document and where it stands, for checks that report problems there or below."""

    file: str
    value: Value
    where: str
    problems: Problems

    def add(self, expected: str, found: str, *path: str | int) -> None:
        """Report a problem at `path` below here; its line is that of the last part of the path that exists."""
        place = self.at(*path)
        self.problems.add(place.file, place.value.line, place.where, expected, found)

    def at(self, *path: str | int) -> Place:
        """The place `path` below here. A part that does not exist stands on the line of the one above it."""
        value, where = self.value, self.where
        for part in path:
            where = join(where, part)
            below = value.data
            if isinstance(part, str):
                member = below.get(part) if isinstance(below, dict) else None
                value = Value(member.line, member.value.data) if member else Value(value.line, BROKEN)
            else:
                inside = isinstance(below, tuple) and part < len(below)
                value = below[part] if inside else Value(value.line, BROKEN)
        return Place(self.file, value, where, self.problems)


def read_bytes(path: Path, file: str, problems: Problems, max_bytes: int = MAX_BYTES) -> bytes | None:
    """The content of a file, or None with a problem when it is absent, not a plain file, unreadable or too large."""
    expected = f"a readable file of at most {max_bytes} bytes"
    try:
        if not path.is_file():
            problems.add(file, 1, WHOLE, expected, "no such file" if not path.exists() else "something else")
            return None
        with path.open("rb") as opened:
            content = opened.read(max_bytes + 1)
    except (OSError, ValueError) as error:  # ValueError: a name no file system takes
        problems.add(file, 1, WHOLE, expected, getattr(error, "strerror", None) or str(error))
        return None
    if len(content) > max_bytes:
        problems.add(file, 1, WHOLE, expected, "a larger one")
        return None
    return content


def read_document(content: bytes, file: str, problems: Problems) -> Document | None:
    """The one YAML document in `content`; None when there is no reading it. Raises nothing for any bytes."""
    if len(content) > MAX_BYTES:
        problems.add(file, 1, WHOLE, f"at most {MAX_BYTES} bytes", f"{len(content)} bytes")
        return None
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        problems.add(file, line, WHOLE, "UTF-8", f"byte 0x{content[error.start]:02x} at offset {error.start}")
        return None
    builder = _Builder(file, problems)
    try:
        for event in _events(text):
            builder.take(event)
    except _Unreadable as error:
        problems.add(file, error.line, builder.where(), error.expected, error.found)
        return None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        what = getattr(error, "problem", None) or getattr(error, "reason", None) or "an error"
        problems.add(file, mark.line + 1 if mark else 1, WHOLE, "YAML", str(what))
        return None
    except (ValueError, OverflowError) as error:  # the Python parser on an escape beyond Unicode
        problems.add(file, builder.line, WHOLE, "YAML", str(error))
        return None
    return Document(file, builder.root or Value(1, None))


def plain(value: Value) -> Any:
    """The value without its lines: None, bool, int, float, str, list and dict."""
    data = value.data
    if isinstance(data, dict):
        return {key: plain(member.value) for key, member in data.items()}
    if isinstance(data, tuple):
        return [plain(item) for item in data]
    return None if data is BROKEN else data


def join(where: str, part: str | int) -> str:
    """The path of a key or an index below `where`."""
    if isinstance(part, int):
        return f"{where}[{part}]"
    part = shorten(part)
    return f"{where}.{part}" if where else part


def shorten(text: str, characters: int = MAX_SHOWN) -> str:
    """`text` on one line, cut to a number of characters."""
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[: characters + 1])
    return line if len(line) <= characters else line[: characters - 1] + "…"


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Which of `names` was probably meant, or None when none is near."""
    if len(name) > MAX_SHOWN:
        return None
    folded = {known.casefold(): known for known in names}
    near = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.6)
    return folded[near[0]] if near else None


class _Unreadable(Exception):
    """Reading cannot go on."""

    def __init__(self, line: int, expected: str, found: str) -> None:
        self.line, self.expected, self.found = line, expected, found


def _events(text: str) -> Iterator[yaml.Event]:
    loader = _Loader(text)
    try:
        while loader.check_event():
            event = loader.get_event()
            if event is not None:  # it is not, after check_event; the stubs cannot say so
                yield event
    finally:
        loader.dispose()


@dataclass(slots=True)
class _Open:
    """A list or a mapping whose end has not been seen."""

    line: int
    anchor: str | None
    is_mapping: bool
    items: list[Value] = field(default_factory=list)
    members: dict[str, Member] = field(default_factory=dict)
    has_key: bool = False
    key: str | None = None  # None while has_key: the value that follows is dropped, its key was refused
    key_line: int = 0
    nodes: int = 1
    height: int = 0


@dataclass(slots=True)
class _Builder:
    """Makes values from parser events, with a stack of its own instead of the interpreter's."""

    file: str
    problems: Problems
    root: Value | None = None
    line: int = 1
    stack: list[_Open] = field(default_factory=list)
    anchors: dict[str, Value | None] = field(default_factory=dict)  # None: still open
    nodes: int = 0
    documents: int = 0

    def where(self) -> str:
        where = ""
        for level in self.stack:
            if not level.is_mapping:
                where = join(where, len(level.items))
            elif level.has_key:
                where = join(where, level.key if level.key is not None else "?")
        return where

    def report(self, expected: str, found: str) -> None:
        self.problems.add(self.file, self.line, self.where(), expected, found)

    def take(self, event: yaml.Event) -> None:
        if event.start_mark is not None:
            self.line = event.start_mark.line + 1
        match event:
            case yaml.ScalarEvent():
                self._count(1)
                value = Value(self.line, self._scalar(event))
                if event.anchor:
                    self.anchors[event.anchor] = value
                self._attach(value, merge=event.implicit[0] and event.value == "<<")
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                self._start(event)
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                self._end()
            case yaml.AliasEvent():
                self._alias(event.anchor)
            case yaml.DocumentStartEvent():
                self.documents += 1
                if self.documents > 1:
                    raise _Unreadable(self.line, "one document", "another one")

    def _count(self, nodes: int) -> None:
        self.nodes += nodes
        if self.nodes > MAX_NODES:
            raise _Unreadable(self.line, f"at most {MAX_NODES} values, aliases written out", "more")

    def _deepen(self, height: int) -> None:
        if len(self.stack) + height > MAX_DEPTH:
            raise _Unreadable(self.line, f"at most {MAX_DEPTH} levels", "more")

    def _start(self, event: yaml.CollectionStartEvent) -> None:
        self._count(1)
        self._deepen(1)
        if event.tag is not None:
            self.report("no tag", event.tag)
        if event.anchor:
            self.anchors[event.anchor] = None
        self.stack.append(_Open(self.line, event.anchor, isinstance(event, yaml.MappingStartEvent)))

    def _end(self) -> None:
        done = self.stack.pop()
        data = done.members if done.is_mapping else tuple(done.items)
        value = Value(done.line, data, done.nodes, done.height + 1)
        if done.anchor:
            self.anchors[done.anchor] = value
        self._attach(value)

    def _alias(self, name: str | None) -> None:
        if name is None or name not in self.anchors:
            self.report("an alias of something above it", f"*{name}")
            self._attach(Value(self.line, BROKEN))
            return
        target = self.anchors[name]
        if target is None:
            self.report("an alias of something outside itself", f"*{name}")
            self._attach(Value(self.line, BROKEN))
            return
        self._count(target.nodes)
        self._deepen(target.height)
        self._attach(target)

    def _attach(self, value: Value, *, merge: bool = False) -> None:
        if not self.stack:
            self.root = value
            return
        level = self.stack[-1]
        level.nodes += value.nodes
        level.height = max(level.height, value.height)
        if not level.is_mapping:
            level.items.append(value)
        elif level.has_key:
            if level.key is not None:
                level.members[level.key] = Member(level.key_line, value)
            level.has_key = False
        else:
            level.key, level.key_line = self._key(level, value, merge=merge), value.line
            level.has_key = True

    def _key(self, level: _Open, value: Value, *, merge: bool) -> str | None:
        if merge:
            self.report("the keys themselves, no merge key", "<<")
        elif value.data is BROKEN:
            pass
        elif not isinstance(value.data, str):
            self.report("a string as key", describe(value.data))
        elif value.data in level.members:
            first = level.members[value.data].line
            self.problems.add(
                self.file, value.line, join(self.where(), value.data), f"each key once (line {first})", "it again"
            )
        else:
            return value.data
        return None

    def _scalar(self, event: yaml.ScalarEvent) -> Any:
        text = event.value
        question = _QUESTION.fullmatch(text)
        if question is not None and (question["question"] or self._is_value_of_key()):
            asked = shorten(" ".join((question["question"] or "").split()), MAX_QUESTION)
            self.report(f"an answer to: {asked}" if asked else "an answer", OPEN_QUESTION)
            return BROKEN
        if event.tag is not None:
            self.report("no tag", event.tag)
        elif _SURROGATE.search(text):
            self.report("Unicode characters", "half of a surrogate pair")
        elif not event.implicit[0]:
            return text
        else:
            return self._resolve(text)
        return BROKEN

    def _is_value_of_key(self) -> bool:
        """Whether what stands here belongs to a key; an item of a list may be called `TODO` as a state is."""
        return bool(self.stack) and self.stack[-1].is_mapping and self.stack[-1].has_key

    def _resolve(self, text: str) -> Any:
        """What an unquoted scalar means in the core schema (YAML 1.2.2, section 10.3.2)."""
        if text in _NULL:
            return None
        if text in _TRUE or text in _FALSE:
            return text in _TRUE
        is_integer = _INTEGER.fullmatch(text)
        if is_integer and len(text.lstrip("+-")) <= MAX_DIGITS:
            return int(text, 0) if text[:2] in {"0x", "0o"} else int(text)
        if is_integer or _NOT_FINITE.fullmatch(text):
            self.report(f"a finite number of at most {MAX_DIGITS} digits, or quotes around it", text)
            return BROKEN
        if not _FLOAT.fullmatch(text):
            return text
        number = float(text)
        if number in {float("inf"), float("-inf")}:
            self.report("a finite number, or quotes around it", text)
            return BROKEN
        return number


def describe(data: Any) -> str:
    """Some data of a value as a problem shows it."""
    match data:
        case None:
            return "null"
        case bool():
            return "true" if data else "false"
        case str():
            return f'"{shorten(data, MAX_SHOWN - 2)}"'
        case dict():
            return "a mapping"
        case tuple() | list():
            return "a list"
        case int() | float():
            return str(data)
        case _:
            return "something else"
