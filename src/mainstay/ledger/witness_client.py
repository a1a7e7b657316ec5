"""Asking a witness to cosign a checkpoint (c2sp.org/tlog-witness), as the log that made it."""

from __future__ import annotations

import re
import time
from base64 import b64encode
from typing import TYPE_CHECKING

from mainstay.errors import Damaged, Failed
from mainstay.ledger.cosignature import time_of
from mainstay.ledger.note import NoteSignature, parse_checkpoint, parse_signatures, split_note, verify_note
from mainstay.ledger.outbound import Outbound, Response, Unanswered
from mainstay.ledger.witness import SIZE_TYPE, origin_hash

if TYPE_CHECKING:
    from mainstay.ledger.cosignature import Cosigner
    from mainstay.ledger.log import Log
    from mainstay.ledger.note import Checkpoint

MAX_CONFLICTS = 3  # how often a witness may say that it has another checkpoint than we thought
MAX_AHEAD_SECONDS = 300  # that a witness's clock may be before ours

_SIZE = re.compile(rb"(0|[1-9][0-9]{0,18})\n")

_REFUSALS = {
    400: "does not understand the request",
    403: "does not accept the log's signature: it trusts another key of this log",
    404: "does not know this log: its operator must add the log's verifier key",
    422: "says that this log does not extend what it cosigned before: IT KNOWS ANOTHER HISTORY OF THIS LOG",
}


class WitnessClient:
    """One witness, asked over HTTP."""

    def __init__(self, http: Outbound, verifier: Cosigner) -> None:
        """`http` leads to its submission prefix."""
        self._http = http
        self._verifier = verifier

    async def cosign(self, log: Log, note: bytes, known_size: int) -> list[NoteSignature]:
        """Have the witness cosign a checkpoint of `log`; its valid cosignatures, at least one.

        `known_size` is the size of the checkpoint it cosigned last, as far as is known; it is asked where that is
        wrong. Raises Unanswered when asking again may help; Failed when it refuses, answers what is no answer, or has
        cosigned a larger log than this.
        """
        text, _ = split_note(note)
        checkpoint = parse_checkpoint(text)
        old_size = min(known_size, checkpoint.size)
        for _ in range(MAX_CONFLICTS):
            body = _request(log, checkpoint, note, old_size)
            response = await self._http.ask("POST", "/add-checkpoint", body)
            if response.status != 409:
                return self._read(response, text)
            old_size = _conflict(response, checkpoint, old_size)
        raise Unanswered(f"said {MAX_CONFLICTS} times that it has another checkpoint: someone else submits too")

    async def latest(self, origin: str) -> bytes | None:
        """The last checkpoint of the log that it cosigned, verified to be cosigned by it; None when it serves none.

        Raises Unanswered when there is no answer, Failed when it is no answer, Damaged when it is no such note.
        """
        response = await self._http.ask("GET", f"/{origin_hash(origin)}/checkpoint")
        if response.status == 404:
            return None
        if response.status != 200:
            raise Failed(f"answered {response.status}: {response.said}")
        verify_note(response.body, self._verifier)
        return response.body

    def _read(self, response: Response, text: str) -> list[NoteSignature]:
        """The cosignatures in an answer. Those by keys that are not this witness's are ignored."""
        if response.status != 200:
            why = _REFUSALS.get(response.status, "refuses")
            raise Failed(f"answered {response.status}, it {why} ({response.said})")
        try:
            signatures = parse_signatures(response.body.decode())
        except (Damaged, UnicodeDecodeError) as error:
            raise Failed(f"expected lines of cosignatures, found another answer: {error}") from None
        ours = [each for each in signatures if each.claims(self._verifier)]
        if not ours:
            names = ", ".join(f"{each.name} ({each.key_id.hex()})" for each in signatures)[:400]
            key = f"{self._verifier.name} ({self._verifier.key_id.hex()})"
            raise Failed(f"expected a cosignature by {key}, found {names}")
        content = text.encode()
        for each in ours:
            if not self._verifier.verify(content, each.signature):
                raise Failed(f"answered with a cosignature by {each.name} that is not over this checkpoint")
            cosigned_at = time_of(each.signature)
            if not 0 < cosigned_at <= time.time() + MAX_AHEAD_SECONDS:
                raise Failed(f"cosigned at {cosigned_at} POSIX seconds, here it is {time.time():.0f}: mend the clocks")
        return ours


def _request(log: Log, checkpoint: Checkpoint, note: bytes, old_size: int) -> bytes:
    proof = log.consistency_proof(old_size, checkpoint.size)
    lines = (b"old %d\n" % old_size, *(b64encode(each) + b"\n" for each in proof), b"\n", note)
    return b"".join(lines)


def _conflict(response: Response, checkpoint: Checkpoint, old_size: int) -> int:
    """The size that the witness says to have cosigned, from which to go on."""
    media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    found = _SIZE.fullmatch(response.body)
    if media_type != SIZE_TYPE or found is None:
        raise Failed(f"answered 409: expected a number of entries as {SIZE_TYPE}, found {media_type}: {response.said}")
    size = int(found[1])
    if size == old_size:
        raise Failed(f"answered 409 with the size it was given, {size}")
    if size > checkpoint.size:
        raise Failed(
            f"has cosigned {size} entries of this log, which has {checkpoint.size} here: THIS LOG HAS LOST ENTRIES",
            hint="It may be a copy, or was put back from a backup. `mainstay ledger verify` shows what differs.",
        )
    return size
