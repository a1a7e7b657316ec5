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
    from mainstay.catalog.types import Digest
    from mainstay.contract.types import Violation
    from mainstay.decision.types import Outcome, Reason, Stage
    from mainstay.ledger.journal import Place

_encode = msgspec.json.Encoder().encode

NULL = b"null"
NOTHING = b"[]"
SCHEDULE = "schedule"  # the principal of decisions that a release itself asks for; else it is the id of a key

_COMMON = b'{"principal":"%b","key":%b,"input":%b,"output":%b,"confidence":%b,"novelty":%b,"details":%b'
_BODY = _COMMON + b',"seconds":%.6f%b}'
_BODY_FROM = _COMMON + b',"source":%b}'

_SHADOW_BODY = b'{"output":%b,"confidence":%b,"novelty":%b,"seconds":%.6f,"details":%b}'
_ID_IN_ANSWER = slice(len(b'{"decision_id":"'), len(b'{"decision_id":"') + 36)


class Verdict(NamedTuple):
    """How a decision ended, before it is recorded. Whatever is bytes is JSON."""

    outcome: Outcome
    output: bytes = NULL
    confidence: bytes = NULL
    reasons: tuple[Reason, ...] = ()
    violations: tuple[Violation, ...] = ()
    novelty: bytes = NULL  # the conformal p-value of the input, as JSON
    recorded: bytes | None = None  # what is recorded of the output, where it holds something classified
    proposed: bytes | None = None  # the output a person is asked about, as it may be recorded
    answered_by: str = ""  # the rung of the ladder, where the outcome is fallback


class Took(NamedTuple):
    """How long a decision took, from the call to its verdict, and how many the call asked for: they share its time."""

    seconds: float
    call_size: int = 1


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


class Served(NamedTuple):
    """What every record says of who decided: the version, the release it serves in, and the policy in force."""

    capability: str
    version: Digest
    release: int
    stage: Stage
    policy: Digest  # of authority.cedar


class DecisionRecorder:
    """Writes the records of what one version decides in one release."""

    def __init__(self, served: Served, log: str) -> None:
        served_json = b'"capability":%b,"version":%b,"release":%d,"stage":%b' % (
            _encode(served.capability),
            _encode(served.version),
            served.release,
            _encode(served.stage),
        )
        self._leaf = (
            b'{"kind":"decision","id":"%b","at":"%b",'
            + served_json.replace(b"%", b"%%")
            + b',"policy":%b' % _encode(served.policy)
            + b',"outcome":"%b","reasons":%b,"principal":"%b","body":"%b"}'
        )
        self._answer = (
            b'{"decision_id":"%b",'
            + served_json.replace(b"%", b"%%")
            + b',"outcome":"%b","output":%b,"confidence":%b,"reasons":%b%b,"receipt":{"leaf":"%b","log":'
            + _encode(log).replace(b"%", b"%%")
            + b',"recorded_at":"%b"}}'
        )

    def record(
        self, stamp: Stamp, principal: bytes, key: bytes, given: bytes, verdict: Verdict, took: Took
    ) -> Recorded:
        """The record of one decision.

        `principal` is the id of the API key, `key` the business key as JSON, `given` the input as it may be recorded,
        as JSON.
        """
        decision_id, salt = stamp.next()
        codes, reasons, violations = told(verdict)
        shared = b"" if took.call_size == 1 else b',"call_size":%d' % took.call_size
        body = _BODY % (*_common(principal, key, given, verdict), took.seconds, shared)
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

    def leaf(self, head: tuple[bytes, bytes], outcome: bytes, codes: bytes, principal: bytes, promised: bytes) -> bytes:
        """The leaf of a decision whose body was promised before. `head` is its id and the time, `codes` JSON."""
        return self._leaf % (*head, outcome, codes, principal, promised)


def told(verdict: Verdict) -> tuple[bytes, bytes, bytes]:
    """The codes of a verdict's reasons, the reasons themselves, and a member with its violations, if there are any."""
    if not verdict.reasons:
        return NOTHING, NOTHING, b""
    violations = b',"violations":' + _encode(verdict.violations) if verdict.violations else b""
    return _encode([reason.code for reason in verdict.reasons]), _encode(verdict.reasons), violations


class ShadowRecorder:
    """Writes the records of what one shadow would have decided in one release."""

    def __init__(self, capability: str, version: Digest, release: int, policy: Digest) -> None:
        head = b'"capability":%b,"version":%b,"release":%d,"policy":%b' % (
            _encode(capability),
            _encode(version),
            release,
            _encode(policy),
        )
        self._leaf = (
            b'{"kind":"shadow","id":"%b","at":"%b",'
            + head.replace(b"%", b"%%")
            + b',"decision_id":"%b","outcome":"%b","reasons":%b,"body":"%b"}'
        )

    def record(self, stamp: Stamp, decision_id: bytes, verdict: Verdict, seconds: float) -> bytes:
        """The framed entry of what would have become of the decision with this id; `seconds` is what the shadow took.

        It holds no input and no key: those stand in the record of the decision.
        """
        entry_id, salt = stamp.next()
        codes, _, _ = told(verdict)
        output = verdict.output if verdict.recorded is None else verdict.recorded
        body = _SHADOW_BODY % (output, verdict.confidence, verdict.novelty, seconds, _details(verdict))
        promised = sha256(salt + body).hexdigest().encode()
        leaf = self._leaf % (entry_id, stamp.at, decision_id, verdict.outcome.encode(), codes, promised)
        return frame_entry(leaf, salt, body)


def id_in_answer(answer: bytes) -> bytes:
    """The id of the decision in an answer of a DecisionRecorder."""
    return answer[_ID_IN_ANSWER]


def write_body(principal: bytes, key: bytes, given: bytes, verdict: Verdict, source: bytes) -> bytes:
    """The body of a decision about a row of a table. `source` is JSON: where the row stood. Nobody waited for it."""
    return _BODY_FROM % (*_common(principal, key, given, verdict), source)


def _common(principal: bytes, key: bytes, given: bytes, verdict: Verdict) -> tuple[bytes, ...]:
    output = verdict.output if verdict.recorded is None else verdict.recorded
    return principal, key, given, output, verdict.confidence, verdict.novelty, _details(verdict)


def _details(verdict: Verdict) -> bytes:
    """Why it ended so, and what was done about it; null where it is simply answered."""
    if not verdict.reasons:
        return NULL
    _, reasons, violations = told(verdict)
    details = b'{"reasons":%b%b' % (reasons, violations)
    if verdict.answered_by:
        details += b',"answered_by":' + _encode(verdict.answered_by)
    if verdict.proposed is not None:
        details += b',"proposed":' + verdict.proposed
    return details + b"}"


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
