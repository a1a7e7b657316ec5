"""Outcomes: the truth, reported later, by decision id or by business key.

They may come in any order, repeatedly, revised, and for decisions nobody knows: each is recorded as it came, and
joined to its decision by whoever reads the ledger. A report is all or nothing: one item that breaks the rules
refuses the whole call, with every violation of every item, so that nothing is half recorded.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from msgspec import Raw, Struct

from mainstay.arrays import TooMany, split_array
from mainstay.contract.rules import MAX_DEPTH
from mainstay.contract.types import Violation
from mainstay.contract.values import nested_deeper
from mainstay.decision.record import NULL, OutcomeReport, Stamp, record_outcome
from mainstay.decision.types import MAX_KEY_CHARACTERS
from mainstay.documents import shorten
from mainstay.errors import NOT_READ
from mainstay.ledger.entry import parse_id
from mainstay.privacy.protection import ProtectionFailed, Protector, any_classified
from mainstay.privacy.pseudonym import load_pseudonym_key

if TYPE_CHECKING:
    from mainstay.capability.load import Declared
    from mainstay.ledger.journal import Place
    from mainstay.workspace import Workspace

MAX_REPORTS = 10_000  # `arrays.MAX_ITEMS` at most

_encode = msgspec.json.Encoder().encode


class _One(Struct, forbid_unknown_fields=True):
    outcome: Raw
    observed_at: str
    decision_id: str | None = None
    key: str | None = None


class _Many(Struct, forbid_unknown_fields=True):
    outcomes: Raw


_decode_one = msgspec.json.Decoder(_One).decode
_decode_many = msgspec.json.Decoder(_Many).decode
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode


class BrokenReport(Exception):
    """A call with outcomes that break the rules; nothing of it is recorded."""

    def __init__(self, violations: tuple[Violation, ...]) -> None:
        super().__init__(f"{len(violations)} broken rules")
        self.violations = violations


class Receipt(Struct, frozen=True):
    """What proves that an outcome was recorded."""

    id: str
    leaf: str
    log: str
    recorded_at: str


class RecordedReports(NamedTuple):
    """Framed entries of one call, and what to answer once they are on disk."""

    framed: bytes
    receipts: list[Receipt]


class OutcomeReader:
    """Reads the outcome reports of one capability."""

    def __init__(self, workspace: Workspace, declared: Declared) -> None:
        self._capability = _encode(declared.capability.name)
        self._log = workspace.settings.log
        self._validator = declared.outcome
        classified = declared.outcome is not None and any_classified(declared.outcome.properties)
        self._protector = (
            Protector(declared.outcome.properties, load_pseudonym_key(workspace.keys), declared.capability.protect)
            if declared.outcome is not None and classified
            else None
        )

    def read(self, body: bytes) -> list[OutcomeReport]:
        """The reports of one call, a single one or `{"outcomes": [...]}`. Raises BrokenReport."""
        single = False
        try:
            items = split_array(_decode_many(body).outcomes, MAX_REPORTS)
        except NOT_READ:
            items = [Raw(body)]
            single = True
        except TooMany:
            found = Violation("outcomes", "max-items", f"at most {MAX_REPORTS} outcomes a call", "more")
            raise BrokenReport((found,)) from None
        reports, violations = [], []
        for place, item in enumerate(items):
            report, broken = self._read_one(bytes(item), "" if single else f"outcomes[{place}].")
            violations += broken
            if report is not None:
                reports.append(report)
        if violations:
            raise BrokenReport(tuple(violations))
        return reports

    def record(self, place: Place, principal: bytes, reports: list[OutcomeReport]) -> RecordedReports:
        """The entries of one call."""
        stamp = Stamp(place, len(reports))
        framed, receipts = [], []
        for report in reports:
            entry, entry_id, leaf = record_outcome(stamp, principal, self._capability, report)
            framed.append(entry)
            receipts.append(Receipt(entry_id, leaf, self._log, stamp.at.decode()))
        return RecordedReports(b"".join(framed), receipts)

    def _read_one(self, raw: bytes, where: str) -> tuple[OutcomeReport | None, list[Violation]]:
        try:
            report = _decode_one(raw)
        except NOT_READ as error:
            form = '{"decision_id" or "key", "outcome": {...}, "observed_at": "<RFC 3339>"}'
            return None, [Violation(where.rstrip(".") or "body", "malformed", form, " ".join(str(error).split())[:200])]
        broken = _broken_names(report, where)
        outcome = bytes(report.outcome)
        if self._validator is not None:
            broken += [
                Violation(f"{where}outcome.{each.field}", each.rule, each.expected, each.found)
                for each in self._validator.violations(outcome)
            ]
        else:
            broken += _broken_object(outcome, f"{where}outcome")
        if broken:
            return None, broken
        if self._protector is not None:
            try:
                outcome = self._protector.protect(outcome)
            except ProtectionFailed as error:
                return None, [Violation(f"{where}outcome", "malformed", "an outcome that can be protected", str(error))]
        decision = NULL if report.decision_id is None else _encode(report.decision_id)
        key = NULL if report.key is None else _encode(report.key)
        return OutcomeReport(decision, key, outcome, _encode(report.observed_at)), []


def _broken_object(outcome: bytes, where: str) -> list[Violation]:
    """What is wrong with an outcome that no contract describes: whoever reads the record must be able to read it."""
    try:
        found = _decode_object(outcome)
    except NOT_READ as error:
        return [Violation(where, "not-an-object", "a JSON object", shorten(str(error)))]
    if nested_deeper(found, MAX_DEPTH):
        return [Violation(where, "malformed", f"at most {MAX_DEPTH} levels", "more")]
    return []


def _broken_names(report: _One, where: str) -> list[Violation]:
    """What is wrong with how a report names its decision and its time."""
    broken = []
    named = sum(name is not None for name in (report.decision_id, report.key))
    if named != 1:
        broken.append(Violation(f"{where}decision_id", "required", "either decision_id or key", f"{named} of them"))
    if report.decision_id is not None and parse_id(report.decision_id) is None:
        found = report.decision_id[:80]
        broken.append(Violation(f"{where}decision_id", "format", "the decision_id of an answer", found))
    if report.key is not None and len(report.key) > MAX_KEY_CHARACTERS:
        limit = f"at most {MAX_KEY_CHARACTERS} characters"
        broken.append(Violation(f"{where}key", "max-length", limit, f"{len(report.key)} characters"))
    try:
        observed = datetime.fromisoformat(report.observed_at)
    except ValueError:
        observed = None
    if observed is None or observed.tzinfo is None:
        expected = "a date and time with its zone (RFC 3339)"
        broken.append(Violation(f"{where}observed_at", "format", expected, report.observed_at[:80]))
    return broken
