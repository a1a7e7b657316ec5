from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import tiny
from mainstay.catalog.declared import declared_in_production, load_declared
from mainstay.errors import Damaged, Misuse
from mainstay.signing import load_verifier

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.catalog.types import Digest
    from mainstay.workspace import Workspace


@pytest.fixture
def served(tmp_path: Path) -> tuple[Workspace, Digest]:
    workspace, _ = tiny.make_served(tmp_path / "w")
    version, declared = declared_in_production(workspace, tiny.NAME, load_verifier(workspace.keys))
    assert declared.capability.name == tiny.NAME
    return workspace, version


@pytest.mark.parametrize("name", ["capability.yaml", "contract.odcs.yaml"])
@pytest.mark.parametrize("change", ["longer", "other", "gone", "folder"])
def test_what_is_not_as_it_was_registered_is_damaged(served: tuple[Workspace, Digest], name: str, change: str) -> None:
    workspace, version = served
    assert load_declared(workspace, version).capability.name == tiny.NAME
    path = next(workspace.versions.glob(f"*/folder/{name}"))
    content = path.read_bytes()
    path.unlink()
    if change == "folder":
        path.mkdir()
    elif change != "gone":
        path.write_bytes(content + b"\n" if change == "longer" else b"#" + content[1:])
    with pytest.raises(Damaged, match=name):
        load_declared(workspace, version)


def test_what_was_never_registered_or_released_is_misuse(served: tuple[Workspace, Digest]) -> None:
    workspace, _ = served
    with pytest.raises(Misuse):
        load_declared(workspace, f"sha256:{0:064}")
    with pytest.raises(Misuse):
        declared_in_production(workspace, "nobody", load_verifier(workspace.keys))
