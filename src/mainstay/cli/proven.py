"""What a proof shows, for people and for programs. Leaf and body are an untrusted file's words, and shown as such."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from mainstay.errors import NOT_READ
from mainstay.ledger.entry import leaf_hash
from mainstay.ledger.note import split_note
from mainstay.ledger.trust_policy import shown

if TYPE_CHECKING:
    from mainstay.ledger.note import Checkpoint, NoteVerifier
    from mainstay.ledger.proof import Proven

_OTHERS = "that others were shown this log, and when"


def place_of(proven: Proven) -> str:
    """Which entry of which log."""
    return f"entry {proven.sequence:,} of {proven.checkpoint.size:,} in {proven.checkpoint.origin}"


def proven_rows(proven: Proven, verifier: NoteVerifier | None) -> list[tuple[str, str]]:
    """What is proven, a fact a row. What leaf and body say is indented, so that no word of theirs passes for ours."""
    key = proven.checkpoint.origin if verifier is None else f"{verifier.name} ({verifier.key_id.hex()})"
    rows = [("PROVEN", place_of(proven)), ("signed by", key)]
    for each in () if proven.verdict is None else proven.verdict.cosigned:
        at = f" at {_time(each.time)}" if each.time else ""
        rows.append(("cosigned", f"by {shown(each.witness)} ({each.key_name}){at}"))
    rows.append(("leaf", leaf_hash(proven.leaf).hex()))
    rows += _said(proven.leaf)
    if proven.body is not None:
        rows += [("body", "as the leaf commits to it"), *_said(proven.body.content)]
    return rows


def not_shown(proven: Proven, held: str | None) -> list[str]:
    """What a reader might take for proven and is not. `held` is what `hold_receipt` said, None without an answer."""
    lacking = []
    others = ", ".join(other_signers(proven))
    if proven.verdict is None and others:
        lacking.append(f"{_OTHERS}: {others} signed it too, which --policy verifies")
    elif not others:
        lacking.append(f"{_OTHERS}: nobody else signed it")
    elif proven.verdict is not None and not proven.verdict.cosigned:
        lacking.append(f"{_OTHERS}: {others} signed it too, and the policy names none of them")
    if proven.body is None:
        lacking.append("what was asked and answered: the proof holds no body")
    if held == "other":
        lacking.append("the answer's output: what was recorded of it differs, as it does where it is protected")
    elif held == "unknown":
        lacking.append("the answer's output: there is nothing to hold it against")
    return lacking


def proven_facts(proven: Proven, held: str | None, lacking: list[str]) -> dict[str, Any]:
    """The same for programs."""
    cosigned = () if proven.verdict is None else proven.verdict.cosigned
    return {
        "proven": True,
        **log_facts(proven.checkpoint),
        "sequence": proven.sequence,
        "leaf": leaf_hash(proven.leaf).hex(),
        "entry": read_object(proven.leaf),
        "body": None if proven.body is None else read_object(proven.body.content),
        "cosigned": [
            {"witness": shown(each.witness), "key": each.key_name, "at": _time(each.time)} for each in cosigned
        ],
        "output": held,
        "not_shown": lacking,
    }


def log_facts(checkpoint: Checkpoint) -> dict[str, Any]:
    """A checkpoint, for programs."""
    return {"log": checkpoint.origin, "size": checkpoint.size, "root": checkpoint.root.hex()}


def other_signers(proven: Proven) -> list[str]:
    """The names under which others than the log signed the checkpoint; none of it is verified."""
    names = {each.name for each in split_note(proven.note)[1]}
    return sorted(names - {proven.checkpoint.origin})


def read_object(content: bytes) -> dict[str, Any] | None:
    """A leaf or body as it was written; None where it is no JSON object."""
    try:
        return msgspec.json.decode(content, type=dict[str, Any])
    except NOT_READ:
        return None


def _said(content: bytes) -> list[tuple[str, str]]:
    """What a leaf or a body says; what is empty says nothing, and of the commitment the row of the body tells."""
    fields = read_object(content)
    if fields is None:
        return [("", f"  {len(content):,} bytes that are no JSON object")]
    return [
        (f"  {_plain(name)}", _plain(value))
        for name, value in fields.items()
        if value not in (None, [], {}) and name != "body"
    ]


def _plain(value: Any) -> str:
    """A value from an untrusted file, on one line and without anything that steers a terminal."""
    if isinstance(value, str) and value.isprintable():
        return value
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text if text.isprintable() else json.dumps(value, separators=(",", ":"))


def _time(seconds: int) -> str | None:
    """RFC 3339; None for none, and the plain number where the calendar ends before it."""
    if not seconds:
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return f"{seconds} s after 1970"
