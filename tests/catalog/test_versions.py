from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.catalog.types import MANIFEST, VERSION_FORMAT, Conversion, Manifest, Profile, Trust
from mainstay.catalog.versions import (
    digest_of,
    encode_manifest,
    list_versions,
    load_manifest,
    open_version,
    read_bounded,
    store_version,
    stored_file,
)
from mainstay.errors import Damaged, Misuse
from mainstay.runtime.types import ModelInput, ModelOutput

if TYPE_CHECKING:
    from pathlib import Path

CONTENTS = {
    "folder/capability.yaml": b"name: late-arrival",
    "folder/contract.odcs.yaml": b"kind: DataContract",
    "folder/authority.cedar": b"permit (principal, action, resource);",
    "folder/samples.jsonl": b"{}",
    "folder/reference.jsonl": b'{"input": {}}',
    "folder/model/model.skops": b"what the pilot brought",
    "folder/train.py": b"print('fit')",
    "folder/model/model.skops.sig": b"a signature",
    "artifact.onnx": b"the graph",
    "profile.bin": b"what is ordinary",
}


def manifest(contents: dict[str, bytes] = CONTENTS, capability: str = "late-arrival") -> Manifest:
    files = {path: stored_file(path, content) for path, content in contents.items()}
    return Manifest(
        format=VERSION_FORMAT,
        capability=capability,
        declaration=files["folder/capability.yaml"],
        contract=files["folder/contract.odcs.yaml"],
        authority=files["folder/authority.cedar"],
        samples=files["folder/samples.jsonl"],
        reference=files["folder/reference.jsonl"],
        runtime="onnx",
        artifact=files["artifact.onnx"],
        source=files["folder/model/model.skops"],
        code=(files["folder/train.py"],),
        inputs=(ModelInput(name="X", kind="float", fields=("a", "b")),),
        outputs=(ModelOutput(name="Y", role="probabilities"),),
        classes=("no", "yes"),
        environment={"python": "3.11", "onnxruntime": "1.22"},
        conversion=Conversion(tolerance=1e-5, max_difference=3e-7, rows=2),
        isolated_because=None,
        calibration=None,
        profile=Profile(file=files["profile.bin"], rows=1, false_alarms=0.01),
        trust=Trust(reason=None, signed_by=digest_of(b"a key"), signature=files["folder/model/model.skops.sig"]),
    )


def test_a_version_holds_what_was_stored(tmp_path: Path) -> None:
    stored, created = store_version(tmp_path / "versions", manifest(), CONTENTS)
    assert created
    opened = open_version(tmp_path / "versions", stored.digest)
    assert opened == stored
    assert opened.manifest == manifest()
    assert opened.artifact is not None
    assert opened.artifact.read_bytes() == b"the graph"
    assert opened.profile is not None
    assert opened.profile.read_bytes() == b"what is ordinary"
    assert (opened.folder / "model" / "model.skops").read_bytes() == b"what the pilot brought"
    assert digest_of((opened.path / MANIFEST).read_bytes()) == stored.digest == f"sha256:{opened.path.name}"


def test_storing_again_changes_nothing(tmp_path: Path) -> None:
    first, _ = store_version(tmp_path, manifest(), CONTENTS)
    before = sorted((str(path), path.stat().st_mtime_ns) for path in first.path.rglob("*"))
    second, created = store_version(tmp_path, manifest(), CONTENTS)
    assert not created
    assert second == first
    assert sorted((str(path), path.stat().st_mtime_ns) for path in first.path.rglob("*")) == before


def test_files_are_read_only(tmp_path: Path) -> None:
    stored, _ = store_version(tmp_path, manifest(), CONTENTS)
    modes = {path.stat().st_mode & 0o777 for path in stored.path.rglob("*") if path.is_file()}
    assert modes <= {0o444, 0o440, 0o400}


@pytest.mark.parametrize("path", sorted(CONTENTS))
@pytest.mark.parametrize("damage", ["changed", "cut short", "longer", "absent", "a directory"])
def test_a_file_that_is_not_what_was_stored_is_named(tmp_path: Path, path: str, damage: str) -> None:
    stored, _ = store_version(tmp_path, manifest(), CONTENTS)
    place, content = stored.path / path, CONTENTS[path]
    place.unlink()
    if damage == "a directory":
        place.mkdir()
    elif damage != "absent":
        changed = {
            "changed": bytes([content[0] ^ 1]) + content[1:],
            "cut short": content[:-1],
            "longer": content + b"x",
        }
        place.write_bytes(changed[damage])
    with pytest.raises(Damaged, match=place.name):
        open_version(tmp_path, stored.digest)
    with pytest.raises(Damaged, match=place.name):
        store_version(tmp_path, manifest(), CONTENTS)


def test_a_changed_manifest_is_damaged(tmp_path: Path) -> None:
    stored, _ = store_version(tmp_path, manifest(), CONTENTS)
    path = stored.path / MANIFEST
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b"3e-7", b"2e-7").replace(b"3e-07", b"2e-07"))
    with pytest.raises(Damaged, match=MANIFEST):
        load_manifest(tmp_path, stored.digest)


def test_what_is_not_there_or_no_digest_is_misuse(tmp_path: Path) -> None:
    for digest in ("sha256:" + "0" * 64, "sha256:" + "A" * 64, "0" * 64, "", "sha256:../../../etc/passwd"):
        with pytest.raises(Misuse):
            load_manifest(tmp_path, digest)


def test_versions_are_listed_in_the_order_they_came(tmp_path: Path) -> None:
    assert list_versions(tmp_path / "none") == {}
    names = ["b-second", "a-first", "c-third"]
    digests = []
    for place, name in enumerate(names):
        stored, _ = store_version(tmp_path, manifest(capability=name), CONTENTS)
        os.utime(stored.path, ns=(place, place))
        digests.append(stored.digest)
    found = list_versions(tmp_path)
    assert list(found) == digests
    assert [each.capability for each in found.values()] == names


def test_what_a_process_that_died_left_behind_is_swept_and_never_listed(tmp_path: Path) -> None:
    leftover = tmp_path / ".new-0123456789abcdef"
    (leftover / "folder").mkdir(parents=True)
    (leftover / "folder" / "capability.yaml").write_bytes(b"half")
    assert list_versions(tmp_path) == {}
    store_version(tmp_path, manifest(), CONTENTS)
    assert not leftover.exists()


def test_several_who_store_the_same_at_once_make_one_version(tmp_path: Path) -> None:
    made: list[bool] = []
    threads = [
        threading.Thread(target=lambda: made.append(store_version(tmp_path, manifest(), CONTENTS)[1])) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [False] * 5 + [True]
    assert len(list_versions(tmp_path)) == 1


names = st.text(min_size=1, max_size=8)


@given(st.dictionaries(names, names, max_size=5), st.lists(names | st.integers(-5, 5) | st.booleans(), max_size=4))
def test_a_manifest_is_one_sequence_of_bytes(environment: dict[str, str], classes: list[str | int | bool]) -> None:
    made = msgspec.structs.replace(manifest(), environment=environment, classes=tuple(classes))
    turned = msgspec.structs.replace(made, environment=dict(reversed(environment.items())))
    encoded = encode_manifest(made)
    assert encode_manifest(turned) == encoded
    assert msgspec.json.decode(encoded, type=Manifest) == made
    assert encode_manifest(msgspec.json.decode(encoded, type=Manifest)) == encoded


def test_reading_is_bounded_and_takes_regular_files_only(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_bounded(path, 5) == b"12345"
    with pytest.raises(Misuse, match="at most 4 bytes"):
        read_bounded(path, 4)
    os.mkfifo(tmp_path / "pipe")
    for other in (tmp_path / "pipe", tmp_path):
        with pytest.raises(Misuse, match="regular file"):
            read_bounded(other, 5)
