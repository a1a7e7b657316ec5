"""Trust policies (c2sp.org/tlog-policy): which logs are known, which witnesses, and how many must have cosigned.

    log <vkey> [<url>]
    witness <name> <vkey> [<url>]
    group <name> all|any|<k> <name>...
    quorum <name>|none

The file is a file of octets: names are compared byte by byte, whatever they mean. Here they are text, with octets that
are not UTF-8 escaped as Python's surrogates.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from mainstay.errors import Damaged, InvalidDocument, Misuse
from mainstay.ledger.cosignature import parse_cosigner, parse_log_key, time_of
from mainstay.ledger.note import Checkpoint, parse_checkpoint, split_note
from mainstay.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mainstay.ledger.cosignature import Cosigner
    from mainstay.ledger.note import NoteSignature, NoteVerifier

MAX_POLICY_BYTES = 1 << 20
MAX_DEFINITIONS = 1_000  # logs, witnesses and groups together
MAX_PROBLEMS = 100  # then reading stops
NONE = "none"

_BAD_OCTET = re.compile(rb"[^\x09\x0a\x20-\x7e\x80-\xff]")
_SPACE = re.compile(r"[ \t]+")  # and nothing that Unicode calls a space
_NUMBER = re.compile(r"[1-9][0-9]{0,5}", re.ASCII)


@dataclass(frozen=True, slots=True)
class KnownLog:
    """A log whose checkpoints are believed. Its key's name is the origin of its checkpoints."""

    verifier: NoteVerifier
    url: str | None = None


@dataclass(frozen=True, slots=True)
class Witness:
    """A cosigner that others can be asked to believe."""

    name: str  # within the policy only
    verifier: Cosigner
    url: str | None = None  # the submission prefix of the witness protocol


@dataclass(frozen=True, slots=True)
class Group:
    """So many of these witnesses and groups must have cosigned."""

    name: str
    threshold: int
    members: tuple[str, ...]


class Cosigned(NamedTuple):
    """A valid cosignature by a witness of the policy."""

    witness: str  # its name in the policy
    key_name: str
    time: int  # POSIX seconds; 0 when it states none


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a policy says of a checkpoint that a known log has signed."""

    satisfied: bool  # the quorum has cosigned
    checkpoint: Checkpoint
    log: str  # the name of the key that signed
    cosigned: tuple[Cosigned, ...]  # each witness that has, in the order of the policy
    missing: tuple[str, ...]  # the witnesses of the policy that have not

    @property
    def time(self) -> int:
        """When the last of them cosigned, POSIX seconds; 0 when none states a time."""
        return max((each.time for each in self.cosigned), default=0)


@dataclass(frozen=True, slots=True)
class TrustPolicy:
    """A policy, read."""

    logs: tuple[KnownLog, ...]
    witnesses: tuple[Witness, ...]
    groups: tuple[Group, ...]  # each names only those before it
    quorum: str  # of a witness or a group, or NONE

    def evaluate(self, note: bytes, logs: Sequence[NoteVerifier] = ()) -> Verdict:
        """Hold a checkpoint's note to the policy. `logs` are the keys of known logs where the policy lists none.

        Raises Damaged when it is no checkpoint, is not signed by a known log, or a signature that names a known key
        is wrong; Misuse when no log is known.
        """
        known = [each.verifier for each in self.logs] or list(logs)
        if not known:
            raise Misuse("the policy lists no log: expected the key of a log", hint="Add a line `log <vkey>`.")
        text, signatures = split_note(note)
        checkpoint = parse_checkpoint(text)
        content = text.encode()
        signed = [log.name for log in known if log.name == checkpoint.origin and _verified(log, content, signatures)]
        if not signed:
            names = ", ".join(sorted({f"{log.name} ({log.key_id.hex()})" for log in known}))
            raise Damaged(f"checkpoint of {checkpoint.origin[:200]}: expected a signature by {names[:400]}, found none")
        cosigned = []
        for witness in self.witnesses:
            found = _verified(witness.verifier, content, signatures)
            if found:
                time = max(time_of(each.signature) for each in found)
                cosigned.append(Cosigned(witness.name, witness.verifier.name, time))
        present = {each.witness for each in cosigned}
        missing = tuple(each.name for each in self.witnesses if each.name not in present)
        return Verdict(self._is_quorum(present), checkpoint, signed[0], tuple(cosigned), missing)

    def _is_quorum(self, present: set[str]) -> bool:
        """Whether these witnesses are enough."""
        reached = set(present)
        for group in self.groups:
            if sum(member in reached for member in group.members) >= group.threshold:
                reached.add(group.name)
        return self.quorum == NONE or self.quorum in reached


def _verified(key: NoteVerifier, content: bytes, signatures: Sequence[NoteSignature]) -> list[NoteSignature]:
    """The signatures by `key`. Raises Damaged when one says to be by it and is not: such a note is malformed."""
    found = [each for each in signatures if each.claims(key)]
    if not all(key.verify(content, each.signature) for each in found):
        raise Damaged(f"note: the signature by {key.name} is not over this text")
    return found


def shown(name: str) -> str:
    """A name or URL of a policy as it may be printed: octets that are not text, and control characters, escaped."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def parse_policy(content: bytes, file: str = "policy") -> TrustPolicy:
    """Read a policy. `file` names it in problems. Raises InvalidDocument with every problem it has."""
    reader = _Reader(file)
    if len(content) > MAX_POLICY_BYTES:
        reader.add(1, "file", f"at most {MAX_POLICY_BYTES:,} bytes", f"{len(content):,}")
        raise InvalidDocument(reader.problems)
    for bad in _BAD_OCTET.finditer(content):
        line = content.count(b"\n", 0, bad.start()) + 1
        reader.add(line, "octet", "no control character but tab and newline", f"0x{bad[0].hex()}")
    if content and not content.endswith(b"\n"):
        reader.add(content.count(b"\n") + 1, "end", "a newline behind the last line", "the end of the file")
    if reader.problems:
        raise InvalidDocument(reader.problems[:MAX_PROBLEMS])
    lines = content.decode("utf-8", "surrogateescape").split("\n")
    for number, text in enumerate(lines, 1):
        reader.read(number, text)
        if len(reader.problems) >= MAX_PROBLEMS:
            break
    if reader.quorum is None and not reader.problems:
        reader.add(len(lines), "quorum", "one quorum line", "none")
    if reader.problems or reader.quorum is None:
        raise InvalidDocument(reader.problems)
    return TrustPolicy(tuple(reader.logs), tuple(reader.witnesses), tuple(reader.groups), reader.quorum)


@dataclass(slots=True)
class _Reader:
    """A policy, as far as it is read."""

    file: str
    logs: list[KnownLog] = field(default_factory=list)
    witnesses: list[Witness] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    quorum: str | None = None
    problems: list[Problem] = field(default_factory=list)
    _names: set[str] = field(default_factory=lambda: {NONE})  # witnesses and groups share them
    _members: set[str] = field(default_factory=set)  # each may be listed once, so that it counts once
    _keys: dict[str, set[bytes]] = field(default_factory=lambda: {"log": set(), "witness": set()})

    def add(self, line: int, where: str, expected: str, found: str) -> None:
        self.problems.append(Problem(self.file, line, where, expected, found))

    def read(self, number: int, line: str) -> None:
        """Take one line."""
        items = [each for each in _SPACE.split(line) if each]
        if not items or items[0].startswith("#"):
            return
        readers: dict[str, Callable[[int, list[str]], None]] = {
            "log": self._log,
            "witness": self._witness,
            "group": self._group,
            "quorum": self._quorum,
        }
        take = readers.get(items[0])
        if take is None:
            self.add(number, "line", "log, witness, group or quorum", shown(items[0][:80]))
        elif len(self.logs) + len(self.witnesses) + len(self.groups) >= MAX_DEFINITIONS and items[0] != "quorum":
            self.add(number, items[0], f"at most {MAX_DEFINITIONS:,} logs, witnesses and groups", "one more")
        else:
            take(number, items[1:])

    def _log(self, number: int, items: list[str]) -> None:
        if not 1 <= len(items) <= 2:
            self.add(number, "log", "a verifier key and perhaps a URL", f"{len(items)} items")
            return
        try:
            verifier = parse_log_key(items[0])
        except (Damaged, Misuse) as error:
            self.add(number, "log", "the verifier key of a log", error.message)
            return
        if self._is_new_key(number, "log", verifier.public_key):
            self.logs.append(KnownLog(verifier, *items[1:]))

    def _witness(self, number: int, items: list[str]) -> None:
        if not 2 <= len(items) <= 3:
            self.add(number, "witness", "a name, a verifier key and perhaps a URL", f"{len(items)} items")
            return
        name, vkey, *url = items
        try:
            verifier = parse_cosigner(vkey)
        except (Damaged, Misuse) as error:
            self.add(number, "witness", "the verifier key of a witness", error.message)
            return
        if self._is_new_name(number, "witness", name) and self._is_new_key(number, "witness", verifier.public_key):
            self._names.add(name)
            self.witnesses.append(Witness(name, verifier, *url))

    def _group(self, number: int, items: list[str]) -> None:
        if len(items) < 3:
            self.add(number, "group", "a name, how many, and at least one member", f"{len(items)} items")
            return
        name, how_many, *members = items
        if not self._is_new_name(number, "group", name):
            return
        for at, member in enumerate(members):
            if member not in self._names or member == NONE:
                self.add(number, "group", "members defined on lines before", shown(member))
            elif member in self._members or member in members[:at]:
                self.add(number, "group", "each name as a member once", f"{shown(member)} again")
        self._members.update(members)
        threshold = {"all": str(len(members)), "any": "1"}.get(how_many, how_many)
        if not _NUMBER.fullmatch(threshold) or int(threshold) > len(members):
            self.add(number, "group", f"all, any or a number from 1 to {len(members)}", shown(how_many[:80]))
            return
        self._names.add(name)
        self.groups.append(Group(name, int(threshold), tuple(members)))

    def _quorum(self, number: int, items: list[str]) -> None:
        if len(items) != 1:
            self.add(number, "quorum", "one name", f"{len(items)} items")
        elif self.quorum is not None:
            self.add(number, "quorum", "one quorum line", "another")
        elif items[0] not in self._names:
            self.add(number, "quorum", "a witness or group defined on a line before, or none", shown(items[0]))
        else:
            self.quorum = items[0]

    def _is_new_name(self, number: int, where: str, name: str) -> bool:
        if name in self._names:
            self.add(number, where, "a name of its own", f"{shown(name)} again")
        return name not in self._names

    def _is_new_key(self, number: int, where: str, public_key: bytes) -> bool:
        keys = self._keys[where]
        if public_key in keys:
            self.add(number, where, "each public key once", "one that stands above")
            return False
        keys.add(public_key)
        return True
