r"""Formats of strings, dates and times, and the one dialect of regular expressions that contracts are written in.

Patterns are meant as the standard says, ECMA-262: `$` is the end of the text, `\d` and `\w` are ASCII. They are
searched for, not matched from the start. `to_python` gives the Python pattern of the same meaning, which every part of
Mainstay then uses.
"""

from __future__ import annotations

import ipaddress
import re
from datetime import date
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

Moment: TypeAlias = tuple[int, str]  # seconds, and the digits of a fraction without trailing zeros

_DAY = (
    r"(?:(?!0000)\d{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])"
    r"|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)|02-(?:0[1-9]|1\d|2[0-8]))"
    r"|(?:\d\d(?:0[48]|[2468][048]|[13579][26])|(?!0000)(?:[02468][048]|[13579][26])00)-02-29)"
)
_CLOCK = r"(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,9})?"
_OFFSET = r"(?:[Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)"

# RFC 3339, section 5.6, without leap seconds. \A and \Z because patterns are searched for.
DATE: Final = rf"(?a)\A{_DAY}\Z"


def timestamp_pattern(timezone: bool | None) -> str:
    """A date-time of RFC 3339. With `timezone: false` in the contract it has no offset; else it must have one."""
    return rf"(?a)\A{_DAY}[Tt]{_CLOCK}{'' if timezone is False else _OFFSET}\Z"


def time_pattern(timezone: bool | None) -> str:
    """A time of RFC 3339; its offset may be left out unless the contract says `timezone: true`."""
    offset = {True: _OFFSET, False: "", None: f"{_OFFSET}?"}[timezone]
    return rf"(?a)\A{_CLOCK}{offset}\Z"


_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = rf"{_LABEL}(?:\.{_LABEL})*"
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"

# Formats of logicalType string that are enforced; the standard leaves the names open, and others describe.
STRING_FORMATS: Final = {
    "email": rf"(?a)\A(?=.{{3,254}}\Z)(?=[^@]{{1,64}}@){_ATOM}(?:\.{_ATOM})*@{_LABEL}(?:\.{_LABEL})+\Z",
    "hostname": rf"(?a)\A(?=.{{1,253}}\Z){_HOST}\Z",
    "ipv4": rf"(?a)\A{_OCTET}(?:\.{_OCTET}){{3}}\Z",
    "uri": r"(?a)\A[A-Za-z][A-Za-z0-9+.-]*:(?:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+\Z",
    "uuid": r"(?a)\A[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}\Z",
}

FORMAT_WORDS: Final = {
    "email": "an e-mail address",
    "hostname": "a host name",
    "ipv4": "an IPv4 address",
    "ipv6": "an IPv6 address",
    "uri": "a URI",
    "uuid": "a UUID",
}


def is_ipv6(text: str) -> bool:
    """Whether `text` is an IPv6 address (RFC 4291) without a zone."""
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return "%" not in text


_BOUND_OFFSET = r"(?:(?P<utc>[Zz])|(?P<sign>[+-])(?P<oh>[01]\d|2[0-3]):?(?P<om>[0-5]\d))?"
_BOUND_CLOCK = r"(?P<h>[01]\d|2[0-3]):(?P<m>[0-5]\d):(?P<s>[0-5]\d)(?:\.(?P<fraction>\d{1,9}))?"
_MOMENTS = {
    "date": re.compile(rf"(?a)(?P<day>{_DAY})"),
    "timestamp": re.compile(rf"(?a)(?P<day>{_DAY})[Tt ]{_BOUND_CLOCK}{_BOUND_OFFSET}"),
    "time": re.compile(rf"(?a){_BOUND_CLOCK}{_BOUND_OFFSET}"),
}


def moment_reader(kind: str) -> Callable[[str], Moment | None]:
    """A function from a text of logicalType date, timestamp or time to what can be compared; None for another text.

    Without an offset, UTC is meant. Bounds in contracts may be written with a space for the `T`.
    """
    match_whole = _MOMENTS[kind].fullmatch

    def read(text: str) -> Moment | None:
        found = match_whole(text)
        if found is None:
            return None
        parts = found.groupdict()
        seconds = 0
        if "day" in parts:
            seconds = date.fromisoformat(parts["day"]).toordinal() * 86_400
        if parts.get("h"):
            seconds += int(parts["h"]) * 3_600 + int(parts["m"]) * 60 + int(parts["s"])
        if parts.get("sign"):
            offset = int(parts["oh"]) * 3_600 + int(parts["om"]) * 60
            seconds += -offset if parts["sign"] == "+" else offset
        return seconds, (parts.get("fraction") or "").rstrip("0")

    return read


def to_python(pattern: str) -> str:
    """The Python pattern that means what `pattern` means in ECMA-262.

    Raises ValueError with the reason when it is no regular expression. Leading flags as Python and Java write them,
    `(?i)`, are kept.
    """
    given = re.match(r"\(\?([imsx]+)\)", pattern)
    flags = given[1] if given else ""
    body = _translate(pattern[given.end() if given else 0 :], multiline="m" in flags)
    made = f"(?a{flags}){body}"
    try:
        re.compile(made)
    except re.error as error:
        raise ValueError(error.msg) from None
    except (OverflowError, RecursionError) as error:
        raise ValueError(str(error)) from None
    return made


def _translate(body: str, *, multiline: bool) -> str:
    parts: list[str] = []
    in_class = False
    expected = _ATOM_NEXT
    at = 0
    while at < len(body):
        char = body[at]
        taken = char
        if char == "\\":
            taken = body[at : at + 2]
            parts.append(taken)
            expected = _then(expected)
        elif in_class:
            in_class = char != "]"
            is_range = char == "-" and expected is _DASH_NEXT and body[at + 1 : at + 2] != "]"
            # set operations some day, to Python; not here
            parts.append("\\" + char if char in "[&|~" or (char == "-" and not is_range) else char)
            expected = _END_NEXT if is_range else _then(expected)
        elif char == "[":
            in_class = True
            # ECMA: [] matches nothing and [^] anything; Python would take the bracket as a member
            taken = next((empty for empty in ("[^]", "[]", "[^") if body.startswith(empty, at)), char)
            in_class = taken in {"[", "[^"}
            parts.append({"[]": r"(?!)", "[^]": r"[\s\S]"}.get(taken, taken))
            expected = _ATOM_NEXT
        elif char == "$" and not multiline:
            parts.append(r"\Z")
        elif body.startswith("(?<", at) and body[at + 3 : at + 4] not in {"=", "!", ""}:
            taken = "(?<"
            parts.append("(?P<")
        else:
            parts.append(char)
        at += len(taken)
    return "".join(parts)


# What comes next within brackets: a member, perhaps the dash of a range that begins with the last one, or its end.
_ATOM_NEXT: Final = "atom"
_DASH_NEXT: Final = "dash"
_END_NEXT: Final = "end"


def _then(expected: str) -> str:
    return _ATOM_NEXT if expected is _END_NEXT else _DASH_NEXT
