from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from mainstay.cli.evidence import explain_entry, explanation_lines
from mainstay.cli.init import create_workspace
from mainstay.cli.settings_record import RECORDED_FILE, record_settings
from mainstay.workspace import open_workspace

if TYPE_CHECKING:
    from pathlib import Path


def test_settings_as_they_were_made_are_in_the_first_entry_and_are_no_change(tmp_path: Path) -> None:
    workspace, _, _ = create_workspace(tmp_path / "w", "tests.example.com/settings")
    assert record_settings(workspace, "for a test") is None
    elsewhere = open_workspace(workspace.root, {"MAINSTAY_PORT": "9000", "MAINSTAY_WORKERS": "7"})
    assert record_settings(elsewhere, "for a test") is None  # as a command sets them for one run


@pytest.mark.parametrize("content", [None, b"", b"[1]", b"\xff"])
def test_what_is_set_otherwise_is_recorded_once(tmp_path: Path, content: bytes | None) -> None:
    workspace, _, _ = create_workspace(tmp_path / "w", "tests.example.com/settings")
    changed = open_workspace(workspace.root, {"MAINSTAY_SEAL_INTERVAL_SECONDS": "2.5", "MAINSTAY_DRAIN_SECONDS": "4"})
    if content is not None:
        (workspace.data / RECORDED_FILE).write_bytes(content)  # lost: then all of them are recorded again
    entry = record_settings(changed, "for a test")
    assert entry is not None
    explained = explain_entry(changed, entry)
    assert explained["entry"]["action"] == "settings.changed"
    assert explained["entry"]["subject"] == "tests.example.com/settings"
    details = explained["body"]["details"]
    before = {"seal_interval_seconds": 0.25, "drain_seconds": 10.0} if content is None else {}
    assert details["drain_seconds"] == {"before": before.get("drain_seconds"), "now": 4.0}
    assert details["seal_interval_seconds"] == {"before": before.get("seal_interval_seconds"), "now": 2.5}
    assert ("max_body_bytes" in details) is (content is not None)
    drain = json.dumps(details["drain_seconds"], separators=(",", ":"))
    assert f"drain seconds {drain}" in explanation_lines(explained)
    assert record_settings(changed, "for a test") is None
    assert record_settings(workspace, "for a test") is not None
