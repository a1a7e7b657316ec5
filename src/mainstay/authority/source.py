"""Reading a text of policies: syntax, annotations, and validation against the schema of the folder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import cedarpy
import msgspec

from mainstay.authority.schema import schema_document
from mainstay.authority.statements import broken_line, statements, too_deep
from mainstay.documents import WHOLE, shorten
from mainstay.errors import InvalidDocument
from mainstay.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mainstay.authority.expressions import Expression
    from mainstay.authority.schema import Attribute
    from mainstay.authority.statements import Statement

MAX_BYTES: Final = 256 << 10
MAX_POLICIES: Final = 1_000
MAX_ID_CHARACTERS: Final = 100
MAX_REASON_CHARACTERS: Final = 500
_MAX_SHOWN = 300  # characters of what the engine says

_POLICY_NAME = re.compile(r"^for policy `[^`]*`, ")
_FOR_AN_ACTION = re.compile(r" for Mainstay::Action::\"\w+\"")
_PRINTABLE_ID = re.compile(r"[!-~]+(?: [!-~]+)*")


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy that was read and is sound."""

    id: str
    reason: str  # empty where it states none
    line: int
    text: str
    parsed: dict[str, Any]  # Cedar's JSON form

    @property
    def forbids(self) -> bool:
        return bool(self.parsed["effect"] == "forbid")

    @property
    def conditions(self) -> list[dict[str, Expression]]:
        conditions: list[dict[str, Expression]] = self.parsed["conditions"]
        return conditions


def read_policies(content: bytes, file: str, context: Attribute) -> list[Policy]:
    """The policies in `content`, in order. Raises InvalidDocument with every problem."""
    reading = _Reading(file, cedarpy.Schema.from_json_str(msgspec.json.encode(schema_document(context)).decode()))
    if len(content) > MAX_BYTES:
        reading.add(1, WHOLE, f"at most {MAX_BYTES} bytes", f"{len(content)}")
        raise InvalidDocument(reading.problems)
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        reading.add(line, WHOLE, "UTF-8", f"a byte that is none: {content[error.start]:#04x}")
        raise InvalidDocument(reading.problems) from None
    policies = reading.read(list(statements(text)))
    if reading.problems:
        raise InvalidDocument(sorted(set(reading.problems)))
    return policies


class _Reading:
    """One text as it is read, and the problems found so far."""

    def __init__(self, file: str, schema: cedarpy.Schema) -> None:
        self.problems: list[Problem] = []
        self._file = file
        self._schema = schema
        self._lines: dict[str, int] = {}  # where each id was seen first

    def add(self, line: int, where: str, expected: str, found: str) -> None:
        self.problems.append(Problem(self._file, line, where, expected, shorten(found, _MAX_SHOWN)))

    def read(self, written: list[Statement]) -> list[Policy]:
        if len(written) > MAX_POLICIES:
            self.add(written[MAX_POLICIES].line, WHOLE, f"at most {MAX_POLICIES} policies", f"{len(written)}")
            return []
        policies = [
            policy for number, each in enumerate(written, 1) if (policy := self._policy(each, number)) is not None
        ]
        if not self.problems and all(policy.forbids for policy in policies):
            self.add(1, WHOLE, "a policy that permits something: what none permits is denied", "none that does")
        return policies

    def _policy(self, statement: Statement, number: int) -> Policy | None:
        """One policy, or None when nothing can be said of it but that it is broken."""
        where = f"policy {number}"
        nested = too_deep(statement)
        if nested is not None:
            self.add(statement.line, where, "a policy that is less deep or is cut in two", nested)
            return None
        try:
            document = msgspec.json.decode(cedarpy.policies_to_json_str(statement.text))
        except ValueError as error:
            self.add(broken_line(statement, str(error)), where, "a policy in Cedar's syntax", str(error))
            return None
        parsed = document["staticPolicies"].get("policy0")
        if parsed is None:
            self.add(statement.line, where, "a policy", "a template, with a slot that nothing fills")
            return None
        policy = Policy(*self._annotations(parsed, statement.line, where), statement.line, statement.text, parsed)
        for message in self._findings(statement):
            named = f"policy {policy.id}" if policy.id else where
            self.add(statement.line, named, "a policy that this folder's schema allows", message)
        return policy

    def _annotations(self, parsed: dict[str, Any], line: int, where: str) -> tuple[str, str]:
        """The @id and the @reason of a policy; reviews and records name the one and show the other."""
        given = parsed.get("annotations", {})
        name, reason = given.get("id") or "", given.get("reason") or ""
        if not name:
            self.add(line, where, '@id("..."), by which reviews name the policy', "none")
        elif len(name) > MAX_ID_CHARACTERS or not _PRINTABLE_ID.fullmatch(name):
            self.add(line, where, f"an @id of at most {MAX_ID_CHARACTERS} printable ASCII characters", f'"{name}"')
        elif name in self._lines:
            self.add(line, where, "an @id of its own", f'"{name}", which line {self._lines[name]} has too')
        self._lines.setdefault(name, line)
        if len(reason) > MAX_REASON_CHARACTERS or not reason.isprintable():
            self.add(line, where, f"a @reason of at most {MAX_REASON_CHARACTERS} printable characters", f'"{reason}"')
        return name, reason

    def _findings(self, statement: Statement) -> Iterator[str]:
        """What Cedar's strict validation finds, once for all actions it finds it for."""
        result = cedarpy.validate_policies(statement.text, self._schema)
        messages = (_POLICY_NAME.sub("", each.error) for each in result.errors)
        yield from dict.fromkeys(_FOR_AN_ACTION.sub("", message) for message in messages)
