"""Changes are entries too: registrations, releases, keys. Who, what, why, with what details."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from mainstay.ledger.entry import SALT_BYTES, Entry, commitment
from mainstay.ledger.find import append_change

if TYPE_CHECKING:
    from pathlib import Path


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One change. `action` reads noun.verb in the past tense, such as `release.published`."""

    action: str
    subject: str
    principal: str
    reason: str
    details: Any


def record_change(ledger_dir: Path, change: Change) -> str:
    """Put a change into the ledger, durably; the id of its entry. Raises OSError when the disk will not take it."""

    def make(entry_id: str) -> Entry:
        salt = os.urandom(SALT_BYTES)
        body = msgspec.json.encode({"reason": change.reason, "details": change.details})
        leaf = {
            "kind": "change",
            "id": entry_id,
            "at": datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "action": change.action,
            "subject": change.subject,
            "principal": change.principal,
            "body": commitment(salt, body),
        }
        return Entry(msgspec.json.encode(leaf), salt, body)

    return append_change(ledger_dir, make)
