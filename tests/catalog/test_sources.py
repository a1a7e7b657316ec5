"""What is brought and how it is trusted, through registering."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from catalog.folders import (
    TRUST,
    boosted_onnx,
    check_nothing_is_stored,
    check_whole,
    onnx_folder,
    pickle_folder,
    write_folder,
)
from catalog.models import WritesAFile, boosted
from catalog.test_trust import make_keys, sign
from mainstay.catalog import sources
from mainstay.catalog.register import register
from mainstay.catalog.trust import read_public_key
from mainstay.errors import Failed, Misuse

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def versions(tmp_path: Path) -> Path:
    return tmp_path / "versions"


def test_a_signed_pickle_is_registered_with_its_signature(tmp_path: Path, versions: Path) -> None:
    folder = pickle_folder(tmp_path / "folder", boosted())
    private, public = make_keys(tmp_path)
    signature = sign(folder / "model" / "m.joblib", private)
    registered = register(folder, versions, signed_by=[public])
    check_whole(versions, registered)
    trust = registered.manifest.trust
    assert trust is not None
    assert (trust.reason, trust.signed_by) == (None, read_public_key(public).digest)
    assert trust.signature is not None
    assert (registered.path / trust.signature.path).read_bytes() == signature.read_bytes()
    assert not register(folder, versions, signed_by=[public]).created


@pytest.mark.parametrize("wrong", ["tampered", "another key", "unsigned"])
def test_a_pickle_whose_signature_does_not_hold_is_never_opened(tmp_path: Path, versions: Path, wrong: str) -> None:
    seen = tmp_path / "seen"
    folder = pickle_folder(tmp_path / "folder", boosted())
    private, public = make_keys(tmp_path)
    signature = sign(folder / "model" / "m.joblib", private)
    pickle_folder(tmp_path / "hostile", WritesAFile(seen))
    if wrong == "tampered":
        (folder / "model" / "m.joblib").write_bytes((tmp_path / "hostile" / "model" / "m.joblib").read_bytes())
    elif wrong == "another key":
        _, public = make_keys(tmp_path, "other")
    else:
        signature.unlink()
    with pytest.raises(Misuse if wrong == "unsigned" else Failed):
        register(folder, versions, signed_by=[public], trust_pickle=TRUST)
    assert not seen.exists()
    check_nothing_is_stored(versions)


def test_a_reason_and_a_signature_are_both_kept(tmp_path: Path, versions: Path) -> None:
    """And a signature may be asked for where none is needed."""
    folder = onnx_folder(tmp_path / "folder", boosted_onnx())
    private, public = make_keys(tmp_path)
    sign(folder / "model" / "m.onnx", private)
    plain = register(folder, versions)
    registered = register(folder, versions, signed_by=[public], trust_pickle=f" {TRUST} ")
    assert plain.manifest.trust is None
    assert registered.version != plain.version
    assert registered.manifest.trust is not None
    assert registered.manifest.trust.reason == TRUST
    assert registered.manifest.trust.signed_by is not None


def test_there_is_nothing_to_sign_without_a_file(tmp_path: Path, versions: Path) -> None:
    folder = write_folder(tmp_path / "folder", model={"kind": "python", "call": "train.py:fit"}, output={})
    _, public = make_keys(tmp_path)
    with pytest.raises(Misuse, match="found kind python, which has none to sign"):
        register(folder, versions, signed_by=[public])


def test_a_reason_without_end_is_refused(tmp_path: Path, versions: Path) -> None:
    with pytest.raises(Misuse, match="expected at most 10,000 characters"):
        register(pickle_folder(tmp_path / "folder", boosted()), versions, trust_pickle="x" * 10_001)


@pytest.mark.parametrize(("kind", "expected"), [("xgboost", r"\.json, \.ubj, \.joblib"), ("lightgbm", r"\.txt, ")])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, versions: Path, kind: str, expected: str) -> None:
    folder = write_folder(tmp_path / "folder", model={"file": "m.bin", "kind": kind})
    (folder / "m.bin").write_bytes(b"x")
    with pytest.raises(Misuse, match=f"of kind {kind} in a file ending in one of {expected}"):
        register(folder, versions)


def test_a_folder_that_holds_more_than_code_is_refused(
    tmp_path: Path, versions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = onnx_folder(tmp_path / "folder", boosted_onnx())
    monkeypatch.setattr(sources, "MAX_CODE_FILES", 3)
    for place in range(3):
        (folder / f"{place}.py").write_text("")
    with pytest.raises(Misuse, match="expected at most 3 files"):
        register(folder, versions)
    monkeypatch.setattr(sources, "MAX_CODE_FILES", 10)
    monkeypatch.setattr(sources, "MAX_CODE_BYTES", 3)
    with pytest.raises(Misuse, match="expected at most 3 bytes"):
        register(folder, versions)
