from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import pytest

import tiny
from intake.workspaces import CONTRACT, NAME, declare, files_source, make_workspace
from mainstay.errors import Damaged, InvalidDocument, Misuse
from mainstay.intake.declared import Declarations, sources_in_force

if TYPE_CHECKING:
    from pathlib import Path


def test_the_folder_counts_until_there_is_a_release(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path / "w", files_source())
    found = sources_in_force(workspace, NAME)
    assert found.version is None
    assert found.contract_name == "flights@1.0.0"
    assert found.described(found.source("months")).name == "departure"
    with pytest.raises(Misuse, match="expected one of its sources, found 'weeks'"):
        found.source("weeks")


def test_the_version_in_production_counts_and_not_the_folder(tmp_path: Path) -> None:
    workspace, _ = tiny.make_served(tmp_path / "w")
    found = sources_in_force(workspace, tiny.NAME)
    assert found.version is not None
    assert found.capability.sources == ()
    declaration = next(workspace.versions.glob("*/folder/capability.yaml"))
    declaration.chmod(0o644)
    declaration.write_text(declaration.read_text() + "\n")
    with pytest.raises(Damaged, match=r"capability\.yaml"):
        sources_in_force(workspace, tiny.NAME)
    declaration.unlink()
    with pytest.raises(Damaged, match=r"capability\.yaml"):
        sources_in_force(workspace, tiny.NAME)


@pytest.mark.parametrize("name", ["nobody", "../x", "Late"])
def test_a_capability_that_is_not_there_is_misuse(tmp_path: Path, name: str) -> None:
    workspace = make_workspace(tmp_path / "w", files_source())
    with pytest.raises(Misuse):
        sources_in_force(workspace, name)


def test_a_folder_is_named_as_its_capability(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path / "w", files_source())
    (workspace.capabilities / NAME).rename(workspace.capabilities / "other")
    with pytest.raises(Misuse, match="expected the name other"):
        sources_in_force(workspace, "other")


def test_a_change_is_seen_and_a_mistake_keeps_what_was_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    workspace = make_workspace(tmp_path / "w")
    declarations = Declarations(workspace)
    assert declarations.look() == {}
    declare(workspace, files_source())
    assert [each.name for each in declarations.look()[NAME].capability.sources] == ["months"]
    folder = declare(workspace, files_source(), files_source("weeks"), contract=CONTRACT | {"version": "1.0.1"})
    found = declarations.look()[NAME]
    assert len(found.capability.sources) == 2
    assert found.contract_name == "flights@1.0.1"
    (folder / "capability.yaml").write_text("name: 7\n")
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            assert declarations.look()[NAME] is found
    assert len(caplog.records) == 1
    with pytest.raises(InvalidDocument):
        sources_in_force(workspace, NAME)
    (folder / "capability.yaml").unlink()
    assert declarations.look() == {}


def test_nothing_is_read_again_that_did_not_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = make_workspace(tmp_path / "w", files_source())
    declarations = Declarations(workspace)
    before = declarations.look()[NAME]
    assert declarations.look()[NAME] is before
    os.utime(workspace.capabilities / NAME / "capability.yaml", ns=(1, 1))
    assert declarations.look()[NAME] is not before
