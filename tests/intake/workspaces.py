"""Workspaces whose capability declares sources, in a few lines."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import yaml

import tiny
from mainstay.cli.init import create_workspace
from mainstay.workspace import open_workspace

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.workspace import Workspace

NAME: Final = "late-arrival"
CONTRACT: Final[dict[str, Any]] = {
    "apiVersion": "v3.1.0",
    "kind": "DataContract",
    "id": "flights",
    "version": "1.0.0",
    "status": "active",
    "schema": [
        {
            "name": "departure",
            "properties": [
                {"name": "flight", "logicalType": "integer", "required": True},
                {"name": "carrier", "logicalType": "string", "required": True},
                {
                    "name": "delay",
                    "logicalType": "integer",
                    "required": True,
                    "logicalTypeOptions": {"minimum": -60, "maximum": 3000},
                },
                {"name": "at", "logicalType": "timestamp"},
            ],
        },
        {
            "name": "prediction",
            "properties": [
                {"name": "probability", "logicalType": "number", "required": True},
                {"name": "late", "logicalType": "boolean", "required": True},
            ],
        },
    ],
}
DECLARATION: Final[dict[str, Any]] = {
    "apiVersion": "mainstay/v1",
    "name": NAME,
    "title": "Will it be late?",
    "purpose": "To rebook.",
    "owner": {"team": "Operations", "contact": "ops-control@example.com"},
    "objects": {"input": "departure", "output": "prediction"},
    "model": {"kind": "onnx", "file": "model.onnx", "features": ["delay"]},
    "output": {"probability": {"take": "probability"}, "late": {"take": "threshold"}},
    "samples": "samples.jsonl",
    "fallback": [{"constant": {"probability": 0.25, "late": False}}],
}


def make_workspace(root: Path, *sources: dict[str, Any], settings: str = "", **keys: Any) -> Workspace:
    """A workspace with a folder that declares these sources; nothing of it is in production."""
    workspace, _, _ = create_workspace(root, "tests.example.com/intake")
    path = root / "mainstay.toml"
    path.write_text(path.read_text() + settings)
    declare(workspace, *sources, **keys)
    return open_workspace(root)


def declare(workspace: Workspace, *sources: dict[str, Any], contract: dict[str, Any] = CONTRACT, **keys: Any) -> Path:
    """Write the folder."""
    folder = workspace.capabilities / NAME
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(b"onnx")
    (folder / "samples.jsonl").write_text("{}\n")
    (folder / "authority.cedar").write_text(tiny.AUTHORITY)
    (folder / "contract.odcs.yaml").write_text(json.dumps(contract))
    (folder / "capability.yaml").write_text(yaml.safe_dump(DECLARATION | keys | {"sources": [*sources]}))
    return folder


def files_source(name: str = "months", folder: str = "in", **keys: Any) -> dict[str, Any]:
    """A source of files that are taken at once."""
    return {"name": name, "files": {"folder": folder, "settle_seconds": 0}, "every_seconds": 0.2} | keys


def flights(first: int, count: int, *, carrier: str = "AA", delay: int = 5) -> list[dict[str, Any]]:
    """Good records."""
    return [{"flight": number, "carrier": carrier, "delay": delay} for number in range(first, first + count)]


def lines(records: list[dict[str, Any]]) -> bytes:
    """As JSON lines."""
    return b"".join(json.dumps(each).encode() + b"\n" for each in records)
