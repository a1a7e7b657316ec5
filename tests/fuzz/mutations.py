"""Documents that were valid once: cut, doubled, flipped, nested without end, and with values that nobody means."""

from __future__ import annotations

import json
import os
from typing import Any, Final

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

FUZZ: Final = settings(
    max_examples=int(os.environ.get("MAINSTAY_FUZZ_EXAMPLES", "200")),  # more by hand
    deadline=5_000,  # milliseconds: an example that takes so long hangs
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)

DIGITS: Final = b"9" * 5_000  # more than Python makes an int of
_VALUES: Final = (b"null", b"true", b"0", b"-0.0", b"1E+2", b"1.0", b'""', b"[]", b"{}", b'"x"', b"-1")
_NUMBERS: Final = (
    *(b"1e400", b"-1e999", b"1e-999", b"NaN", b"-Infinity", b"0x1", b"01"),
    *(DIGITS, b"-" + DIGITS, b"1." + DIGITS),
)
_TEXTS: Final = (
    *(b'"\\ud800"', b'"\\udc00\\ud800"', b'"\\u0000"', b'"\xff"', b'"\xed\xa0\x80"', b'"\x00"'),
    b'"' + b"x" * 70_000 + b'"',
)
_NESTED: Final = (
    *(b"[" * 100_000, b"[" * 940 + b"]" * 940, b"[" * 63 + b"]" * 63),
    *(b'{"a":' * 100_000, b'{"a":' * 940 + b"1" + b"}" * 940),
    *(b"[" + b"1," * 5_000 + b"1]", b"{" + b'"a":1,' * 5_000 + b'"a":1}'),
)
_NO_JSON: Final = (b"'x'", b"nul", b"", b"[1,]", b"/**/1")
HOSTILE: Final = (*_VALUES, *_NUMBERS, *_TEXTS, *_NESTED, *_NO_JSON)
_MARK: Final = "\x01here"


def spots(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value in a tree, itself the first."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(below for name, item in members for below in spots(item, (*path, name)))]


def placed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """The tree with another value at `path`."""
    if not path:
        return new
    changed = value.copy()
    changed[path[0]] = placed(value[path[0]], path[1:], new)
    return changed


@st.composite
def mutated_json(draw: st.DrawFn, *documents: Any) -> bytes:
    """One of the documents, as JSON, with a hostile value somewhere, or a member twice, or bytes changed."""
    document = draw(st.sampled_from(documents))
    if draw(st.integers(0, 9)) == 0:
        return draw(mutated(json.dumps(document).encode()))
    path = draw(st.sampled_from(spots(document)))
    hostile = draw(st.sampled_from(HOSTILE))
    mark = json.dumps(_MARK).encode()
    text = json.dumps(placed(document, path, _MARK), ensure_ascii=draw(st.booleans())).encode()
    if path and isinstance(path[-1], str) and draw(st.booleans()):
        name = json.dumps(path[-1]).encode()
        text = text.replace(name + b": " + mark, name + b": " + hostile + b", " + name + b": " + mark)
        hostile = draw(st.sampled_from(_VALUES))
    return text.replace(mark, hostile)


@st.composite
def mutated(draw: st.DrawFn, valid: bytes, tokens: tuple[bytes, ...] = (b"\x00", b"\xff", b"\n")) -> bytes:
    """`valid` with one to four changes of any bytes: flipped, cut out, cut off, doubled, moved, put in."""
    content = bytearray(valid)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(content) - 1)))
        size = draw(st.integers(1, 40))
        match draw(st.sampled_from(("flip", "drop", "cut", "double", "move", "put", "token"))):
            case "flip" if content:
                content[at] ^= 1 << draw(st.integers(0, 7))
            case "drop":
                del content[at : at + size]
            case "cut":
                del content[at:]
            case "double":
                content[at:at] = content[at : at + size] * draw(st.sampled_from((1, 2, 50)))
            case "move":
                moved = content[at : at + size]
                del content[at : at + size]
                content.extend(moved)
            case "put":
                content[at:at] = draw(st.binary(min_size=1, max_size=8))
            case _:
                content[at:at] = draw(st.sampled_from(tokens))
    return bytes(content)
