"""A capability folder for tests of its policies: loans, an amount and a country in, a probability out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pathlib import Path

AUTHORITY: Final = """\
@id("keys") permit (principal is Mainstay::Key, action == Mainstay::Action::"call", resource);
@id("people") permit (principal is Mainstay::Person, action, resource);
@id("small-loans") permit (principal, action == Mainstay::Action::"answer", resource)
  when { context.input.amount.lessThanOrEqual(decimal("10000.0")) };
"""

_CONTRACT: Final = {
    "apiVersion": "v3.1.0",
    "kind": "DataContract",
    "id": "loans",
    "version": "1.0.0",
    "status": "active",
    "schema": [
        {
            "name": "application",
            "logicalType": "object",
            "properties": [
                {"name": "amount", "logicalType": "number", "required": True, "description": "Euros asked for."},
                {"name": "country", "logicalType": "string", "description": "ISO 3166 code of residence."},
            ],
        },
        {
            "name": "risk",
            "logicalType": "object",
            "properties": [
                {
                    "name": "probability",
                    "logicalType": "number",
                    "required": True,
                    "description": "That it is not paid back.",
                }
            ],
        },
    ],
}

_DECLARATION: Final[dict[str, Any]] = {
    "apiVersion": "mainstay/v1",
    "name": "loan-risk",
    "title": "Will it be paid back?",
    "purpose": "Grants small loans at once.",
    "owner": {"team": "Lending", "contact": "lending@example.com"},
    "objects": {"input": "application", "output": "risk"},
    "model": {"file": "model.onnx", "kind": "onnx", "features": ["amount"]},
    "output": {"probability": {"take": "probability"}},
    "samples": "samples.jsonl",
}


def write_folder(folder: Path, authority: str = AUTHORITY) -> Path:
    """Write the folder. What stands in it for a model is none."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "capability.yaml").write_text(json.dumps(_DECLARATION))
    (folder / "contract.odcs.yaml").write_text(json.dumps(_CONTRACT))
    (folder / "authority.cedar").write_text(authority)
    (folder / "model.onnx").write_bytes(b"\0")
    (folder / "samples.jsonl").write_text('{"amount": 1}\n')
    return folder
