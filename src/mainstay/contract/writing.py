"""A contract, or any other declaration, written as YAML that people read and `documents` reads back the same.

Keys stand in one order: what names a thing first, what is below it last, the rest as in the types (or a mapping's own
order). What is absent is left out; short mappings and lists stand on one line, long text is folded. Comments are given
by the path of what they stand above, as problems show it: `schema[0].properties[2]`.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import UNSET

from mainstay.documents import OPEN_QUESTION, join

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mainstay.contract.types import Contract

WIDTH: Final = 120  # characters of a line, where it can be
FLOW_WIDTH: Final = 100  # of a mapping or list on one line

# Text that is itself without quotes: it begins with a letter, has no mark that YAML reads, and is no other scalar.
_BARE = re.compile(r"(?a)[A-Za-z_/](?:[\w ./()+@%=~-]*[\w./()+@%=~-])?")
_NOT_TEXT: Final = frozenset({"null", "true", "false", "y", "n", "yes", "no", "on", "off"})  # in YAML 1.1 or 1.2
_FIRST: Final = ("apiVersion", "kind", "id", "name", "version", "status", "property", "value", "logicalType")
_LAST: Final = (
    "tags",
    "authoritativeDefinitions",
    "quality",
    "relationships",
    "customProperties",
    "items",
    "properties",
)
_BETWEEN_WORDS: Final[dict[str, Any]] = {"break_long_words": False, "break_on_hyphens": False}
_ESCAPES: Final = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def write_contract(contract: Contract, comments: Mapping[str, str] | None = None, *, top: str = "") -> bytes:
    """The contract as YAML. `comments` by path stand above what they are about, `top` above everything."""
    return write_yaml(plain_struct(contract), comments, top=top)


def write_yaml(value: Mapping[str, Any], comments: Mapping[str, str] | None = None, *, top: str = "") -> bytes:
    """A mapping of what JSON can say as YAML: None, bool, int, finite float, str, list, tuple and mappings with text
    for keys.
    """
    lines = [*_comment(top, ""), *_mapping(value, "", "", comments or {})]
    return ("\n".join(lines) + "\n").encode()


def plain_struct(value: Any) -> Any:
    """Structs as mappings in the order of their fields, without what is absent or the default."""
    match value:
        case msgspec.Struct():
            fields = sorted(msgspec.structs.fields(type(value)), key=lambda each: _rank(each.encode_name))
            found = [(each, getattr(value, each.name)) for each in fields]
            return {
                each.encode_name: plain_struct(item)
                for each, item in found
                if item is not UNSET and (each.required or not _is_default(item, each))
            }
        case dict():
            return {name: plain_struct(item) for name, item in value.items()}
        case list() | tuple():
            return [plain_struct(item) for item in value]
        case _:
            return value


def _rank(key: str) -> int:
    if key in _FIRST:
        return _FIRST.index(key) - len(_FIRST)
    return _LAST.index(key) + 1 if key in _LAST else 0


def _is_default(found: Any, field: msgspec.structs.FieldInfo) -> bool:
    return type(found) is type(field.default) and found == field.default


def _mapping(value: Mapping[str, Any], where: str, indent: str, comments: Mapping[str, str]) -> Iterator[str]:
    for name, item in value.items():
        path = join(where, name)
        yield from _comment(comments.get(path, ""), indent)
        yield from _entry(f"{indent}{scalar(name)}:", item, path, indent, comments)


def _entry(head: str, item: Any, path: str, indent: str, comments: Mapping[str, str]) -> Iterator[str]:
    """What stands after `head`, a key with its colon: on its line where that is short, else below it."""
    flat = _flow(item, len(head), path, comments)
    if isinstance(item, str) and _folds(item):
        yield f"{head} >-"
        yield from textwrap.wrap(
            item, WIDTH, initial_indent=f"{indent}  ", subsequent_indent=f"{indent}  ", **_BETWEEN_WORDS
        )
    elif flat is not None:
        yield f"{head} {flat}"
    elif isinstance(item, Mapping):
        yield head
        yield from _mapping(item, path, indent + "  ", comments)
    else:
        yield head
        yield from _sequence(item, path, indent + "  ", comments)


def _folds(text: str) -> bool:
    """Whether it is long, and words with single spaces between them: what a folded block keeps as it is."""
    is_question = text.startswith(OPEN_QUESTION)  # stays on the line that its problem names
    has_words = text.isprintable() and text.strip() == text and "  " not in text
    return len(text) > FLOW_WIDTH and has_words and not is_question


def _sequence(value: Any, where: str, indent: str, comments: Mapping[str, str]) -> Iterator[str]:
    """Items, each behind a dash; the rows of a table of scalars stand each on one line, however long that is."""
    is_table = all(isinstance(item, list | tuple) and not any(map(_is_collection, item)) for item in value)
    for place, item in enumerate(value):
        path = join(where, place)
        yield from _comment(comments.get(path, ""), indent)
        flat = _inline(item) if is_table else _flow(item, len(indent) + 2, path, comments)
        if flat is not None:
            yield f"{indent}- {flat}"
        elif isinstance(item, Mapping):
            yield from _dashed(_mapping(item, path, indent + "  ", comments), indent)
        else:
            yield from _dashed(_sequence(item, path, indent + "  ", comments), indent)


def _dashed(lines: Iterator[str], indent: str) -> Iterator[str]:
    """Lines of an item, the first of them behind its dash; comments above that one stay above."""
    dashed = False
    for line in lines:
        if dashed or line.lstrip().startswith("#"):
            yield line
        else:
            yield f"{indent}- {line[len(indent) + 2 :]}"
            dashed = True


def _flow(value: Any, before: int, path: str, comments: Mapping[str, str]) -> str | None:
    """A scalar, or a collection that fits on the line after `before` characters; None where it does not, or where a
    comment stands inside.
    """
    if not isinstance(value, Mapping | list | tuple):
        return scalar(value)
    if not value:
        return _inline(value)
    if not _is_flat(value) or any(each.startswith((f"{path}.", f"{path}[")) for each in comments):
        return None
    shown = _inline(value)
    return shown if before + len(shown) <= FLOW_WIDTH else None


def _is_flat(value: Any) -> bool:
    """Scalars and short lists of them; a mapping may hold such mappings, a list may not."""
    if isinstance(value, Mapping):
        return all(not isinstance(each, Mapping) or _holds_no_mapping(each) for each in value.values()) and all(
            _holds_no_mapping(each) for each in value.values() if isinstance(each, list | tuple)
        )
    return _holds_no_mapping(value)


def _is_collection(value: Any) -> bool:
    return isinstance(value, Mapping | list | tuple)


def _holds_no_mapping(value: Any) -> bool:
    return not any(isinstance(each, Mapping) and each for each in _values(value))


def _inline(value: Any) -> str:
    match value:
        case Mapping():
            parts = [f"{scalar(name)}: {_inline(item)}" for name, item in value.items()]
            return f"{{ {', '.join(parts)} }}" if parts else "{}"
        case list() | tuple():
            return f"[{', '.join(map(_inline, value))}]"
        case _:
            return scalar(value)


def _values(value: Any) -> Iterator[Any]:
    yield from value.values() if isinstance(value, Mapping) else value


def scalar(value: Any) -> str:
    """A scalar as the core schema of YAML 1.2 reads it back. Raises TypeError for anything else."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return repr(value)
        case str():
            return value if _BARE.fullmatch(value) and value.lower() not in _NOT_TEXT else f'"{_quoted(value)}"'
        case _:
            raise TypeError(f"expected what JSON can say, found {type(value).__name__}")


def _quoted(text: str) -> str:
    return "".join(_ESCAPES.get(char) or (char if char.isprintable() else _escape(ord(char))) for char in text)


def _escape(code: int) -> str:
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _comment(text: str, indent: str) -> Iterator[str]:
    """A comment in lines of its own; a line of the text begins a new one."""
    for line in text.splitlines():
        shown = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in line)
        prefix = f"{indent}# "
        yield from textwrap.wrap(shown, WIDTH, initial_indent=prefix, subsequent_indent=prefix, **_BETWEEN_WORDS) or [
            f"{indent}#"
        ]
