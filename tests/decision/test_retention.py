from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import tiny
from mainstay.catalog.versions import list_versions
from mainstay.cli.init import create_workspace
from mainstay.decision.last_good import LastGood
from mainstay.decision.retention import DeclaredRetention, forget_key
from mainstay.signing import load_verifier

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_the_version_in_production_says_for_how_long_bodies_are_kept(tmp_path: Path) -> None:
    workspace, _, _ = create_workspace(tmp_path / "w", "tests.example.com/retention")
    declared = DeclaredRetention(workspace, load_verifier(workspace.keys))
    assert declared.days() == {}
    tiny.release(workspace)
    assert declared.days() == {}, "it declares nothing"
    tiny.release(workspace, retention={"bodies_days": 90})
    assert declared.days() == {tiny.NAME: 90}
    assert declared.days() is declared.days(), "nothing changed, nothing is read"
    tiny.release(workspace, retention={"bodies_days": 30})
    assert declared.days() == {tiny.NAME: 30}


def test_what_cannot_be_read_stays_as_it_was(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    workspace, _, _ = create_workspace(tmp_path / "w", "tests.example.com/retention")
    declared = DeclaredRetention(workspace, load_verifier(workspace.keys))
    tiny.release(workspace, retention={"bodies_days": 90})
    assert declared.days() == {tiny.NAME: 90}
    version = tiny.release(workspace, retention={"bodies_days": 30})
    path = workspace.versions / version.removeprefix("sha256:") / "folder" / "capability.yaml"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b"30", b"20"))
    assert declared.days() == {tiny.NAME: 90}
    assert "expected what was registered" in caplog.text


def test_a_key_is_forgotten_under_every_contract_there_was(tmp_path: Path) -> None:
    workspace, _, _ = create_workspace(tmp_path / "w", "tests.example.com/retention")
    assert not forget_key(workspace, tiny.NAME, "UA-1")
    tiny.release(workspace)
    workspace.memory.mkdir(parents=True)
    path = workspace.memory / f"{tiny.NAME}.table"
    (contract,) = {each.contract.digest for each in list_versions(workspace.versions).values()}
    table = LastGood(path, contract)
    for key in (b'"UA-1"', b'"UA-2"'):
        table.put(key, b'{"p":1}', 1_000)
    assert forget_key(workspace, tiny.NAME, "UA-1")
    assert table.get(b'"UA-1"', 1_000, 1) is None
    assert table.get(b'"UA-2"', 1_000, 1) == b'{"p":1}'
    assert not forget_key(workspace, tiny.NAME, "UA-1")


def test_answers_from_before_an_instant_are_forgotten(tmp_path: Path) -> None:
    workspace, _, _ = create_workspace(tmp_path / "w", "tests.example.com/retention")
    declared = DeclaredRetention(workspace, load_verifier(workspace.keys))
    before = datetime(2026, 6, 1, tzinfo=UTC)
    declared.forget(tiny.NAME, before)
    assert not workspace.memory.exists(), "nothing is made to be forgotten"
    workspace.memory.mkdir(parents=True)
    table = LastGood(workspace.memory / f"{tiny.NAME}.table", "c")
    moment = int(before.timestamp() * 1000)
    table.put(b"old", b"1", moment - 1)
    table.put(b"new", b"2", moment)
    declared.forget(tiny.NAME, before)
    assert table.get(b"old", moment, 1_000) is None
    assert table.get(b"new", moment, 1_000) == b"2"
