"""The record of a decision: the leaf that goes into the log, the body it commits to, and the answer.

All three are JSON put together from parts that were encoded once per release, and parts that the call brought.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from hashlib import sha256
from time import time
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from mainstay.ledger.entry import SALT_BYTES, format_id
from mainstay.ledger.wal import frame_entry

if TYPE_CHECKING:
    from mainstay.catalog.types import Release
    from mainstay.contract.types import Violation
    from mainstay.decision.types import Outcome, Reason
    from mainstay.ledger.journal import Place

_encode = msgspec.json.Encoder().encode

NULL = b"null"
NOTHING = b"[]"


class Verdict(NamedTuple):
    """How a decision ended, before it is recorded. `output` and `confidence` are JSON."""

    outcome: Outcome
    output: bytes = NULL
    confidence: bytes = NULL
    reasons: tuple[Reason, ...] = ()
    violations: tuple[Violation, ...] = ()


class Recorded(NamedTuple):
    """An entry framed for the write-ahead log, and the answer that may leave once it is on disk."""

    framed: bytes
    answer: bytes


class Stamp:
    """Ids, salts and the time for a batch of entries that are recorded together."""

    __slots__ = ("_count", "_head", "_salts", "_taken", "at")

    def __init__(self, place: Place, count: int) -> None:
        now = time()
        self.at = datetime.fromtimestamp(now, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z").encode()
        self._head = format_id(place.segment.name, 0, int(now * 1000))[:-8].encode()
        self._count = place.counter
        self._salts = os.urandom(SALT_BYTES * count)
        self._taken = 0

    def next(self) -> tuple[bytes, bytes]:
        """The id and the salt of the next entry."""
        taken = self._taken
        self._taken = taken + 1
        return b"%b%08x" % (self._head, self._count + taken), self._salts[taken * SALT_BYTES : (taken + 1) * SALT_BYTES]


class DecisionRecorder:
    """Writes the records of one release of one capability."""

    def __init__(self, release: Release, log: str) -> None:
        served = b'"capability":%b,"version":%b,"release":%d,"stage":%b' % (
            _encode(release.capability),
            _encode(release.version),
            release.number,
            _encode(release.stage),
        )
        self._leaf = (
            b'{"kind":"decision","id":"%b","at":"%b",'
            + served.replace(b"%", b"%%")
            + b',"outcome":"%b","reasons":%b,"principal":"%b","body":"%b"}'
        )
        self._answer = (
            b'{"decision_id":"%b",'
            + served.replace(b"%", b"%%")
            + b',"outcome":"%b","output":%b,"confidence":%b,"reasons":%b%b,"receipt":{"leaf":"%b","log":'
            + _encode(log).replace(b"%", b"%%")
            + b',"recorded_at":"%b"}}'
        )

    def record(self, stamp: Stamp, principal: bytes, key: bytes, given: bytes, verdict: Verdict) -> Recorded:
        """The record of one decision.

        `principal` is the id of the API key, `key` the business key as JSON, `given` the input as it may be recorded,
        as JSON.
        """
        decision_id, salt = stamp.next()
        codes, reasons, violations, details = NOTHING, NOTHING, b"", NULL
        if verdict.reasons:
            codes = _encode([reason.code for reason in verdict.reasons])
            reasons = _encode(verdict.reasons)
            details = b'{"reasons":%b' % reasons
            if verdict.violations:
                violations = b',"violations":' + _encode(verdict.violations)
            details += violations + b"}"
        body = b'{"principal":"%b","key":%b,"input":%b,"output":%b,"confidence":%b,"details":%b}' % (
            principal,
            key,
            given,
            verdict.output,
            verdict.confidence,
            details,
        )
        outcome = verdict.outcome.encode()
        promised = sha256(salt + body).hexdigest().encode()
        leaf = self._leaf % (decision_id, stamp.at, outcome, codes, principal, promised)
        receipt = sha256(b"\x00" + leaf).hexdigest().encode()
        answer = self._answer % (
            decision_id,
            outcome,
            verdict.output,
            verdict.confidence,
            reasons,
            violations,
            receipt,
            stamp.at,
        )
        return Recorded(frame_entry(leaf, salt, body), answer)


class OutcomeReport(NamedTuple):
    """One reported outcome. Each of the parts is JSON."""

    decision_id: bytes
    key: bytes
    outcome: bytes
    observed_at: bytes


def record_outcome(stamp: Stamp, principal: bytes, capability: bytes, report: OutcomeReport) -> tuple[bytes, str, str]:
    """The framed entry of a reported outcome, its id and its leaf hash. `capability` is JSON."""
    entry_id, salt = stamp.next()
    body = b'{"decision_id":%b,"key":%b,"outcome":%b,"observed_at":%b}' % report
    leaf = b'{"kind":"outcome","id":"%b","at":"%b","capability":%b,"principal":"%b","body":"%b"}' % (
        entry_id,
        stamp.at,
        capability,
        principal,
        sha256(salt + body).hexdigest().encode(),
    )
    return frame_entry(leaf, salt, body), entry_id.decode(), sha256(b"\x00" + leaf).hexdigest()
