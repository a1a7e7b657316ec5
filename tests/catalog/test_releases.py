from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import msgspec
import pytest

from mainstay.catalog.releases import (
    CURRENT,
    capabilities_with_releases,
    history,
    publish,
    read_current,
    signature_of,
)
from mainstay.catalog.types import RELEASE_PAYLOAD, VERSION_FORMAT, Manifest
from mainstay.catalog.versions import store_version, stored_file
from mainstay.errors import Damaged, Misuse
from mainstay.runtime.types import ModelInput, ModelOutput
from mainstay.signing import SigningKey, create_signing_key, sign_envelope
from mainstay.workspace import SETTINGS_FILE, Workspace, open_workspace

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAME = "late-arrival"

PUBLISHER = """
import sys
from pathlib import Path
from mainstay.catalog.releases import publish
from mainstay.signing import load_signing_key
from mainstay.workspace import open_workspace

root, version, name, count = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
workspace = open_workspace(root)
key = load_signing_key(workspace.keys, None)
for _ in range(count):
    release = publish(workspace, "late-arrival", version, key=key, reason=f"by {name}", principal=name)
    print(release.number, flush=True)
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    (tmp_path / SETTINGS_FILE).write_text('log = "mainstay.example.com/flights"\n')
    return open_workspace(tmp_path, {})


@pytest.fixture
def key(workspace: Workspace) -> SigningKey:
    return create_signing_key(workspace.keys, "mainstay.example.com", None)


def make_version(workspace: Workspace, artifact: bytes = b"onnx", capability: str = NAME) -> str:
    contents = {f"folder/{name}": name.encode() for name in ("capability.yaml", "contract.odcs.yaml", "samples.jsonl")}
    contents["folder/model.onnx"] = artifact
    declaration, contract, samples, model = (stored_file(path, content) for path, content in contents.items())
    manifest = Manifest(
        format=VERSION_FORMAT,
        capability=capability,
        declaration=declaration,
        contract=contract,
        samples=samples,
        artifact=model,
        source=model,
        code=(),
        inputs=(ModelInput(name="X", kind="float", fields=("a",)),),
        outputs=(ModelOutput(name="Y", role="value"),),
        classes=(),
        environment={"python": "3.11"},
        conversion=None,
        pickle_trusted=None,
    )
    return store_version(workspace.versions, manifest, contents)[0].digest


@pytest.fixture
def release(workspace: Workspace, key: SigningKey) -> Callable[..., int]:
    def make(version: str, capability: str = NAME, reason: str = "it is better") -> int:
        made = publish(workspace, capability, version, key=key, reason=reason, principal="ops-control@example.com")
        return made.number

    return make


def test_what_was_published_is_current_and_signed(workspace: Workspace, key: SigningKey) -> None:
    version = make_version(workspace)
    made = publish(workspace, NAME, version, key=key, reason=" pilot accepted ", principal="ops-control@example.com")
    assert read_current(workspace.releases, NAME, key.verifier) == made
    assert (made.number, made.stage, made.version, made.reason) == (1, "production", version, "pilot accepted")
    assert made.contract == stored_file("x", b"contract.odcs.yaml").digest
    assert made.published_at.endswith("Z")
    directory = workspace.releases / NAME
    assert (directory / CURRENT).read_bytes() == (directory / "000001.json").read_bytes()


def test_releases_are_numbered_and_kept(workspace: Workspace, key: SigningKey, release: Callable[..., int]) -> None:
    one, two = make_version(workspace, b"one"), make_version(workspace, b"two")
    assert [release(version) for version in (one, two, one)] == [1, 2, 3]
    found = history(workspace.releases, NAME, key.verifier)
    assert [(each.number, each.version) for each in found] == [(1, one), (2, two), (3, one)]
    assert read_current(workspace.releases, NAME, key.verifier) == found[-1]


def test_each_release_changes_the_fingerprint(workspace: Workspace, release: Callable[..., int]) -> None:
    version, other = make_version(workspace), make_version(workspace, capability="other-one")
    seen = [signature_of(workspace.releases)]
    assert seen == [()]
    for number in range(4):
        release(version if number % 2 else other, NAME if number % 2 else "other-one")
        assert signature_of(workspace.releases) == signature_of(workspace.releases)
        seen.append(signature_of(workspace.releases))
    assert len(set(seen)) == len(seen)
    assert capabilities_with_releases(workspace.releases) == (NAME, "other-one")


def test_without_a_release_there_is_none(workspace: Workspace, key: SigningKey) -> None:
    assert capabilities_with_releases(workspace.releases) == ()
    assert history(workspace.releases, NAME, key.verifier) == ()
    with pytest.raises(Misuse, match="has no release"):
        read_current(workspace.releases, NAME, key.verifier)


def test_a_version_that_is_not_there_is_not_published(workspace: Workspace, release: Callable[..., int]) -> None:
    for version in ("sha256:" + "0" * 64, "latest", "../../etc"):
        with pytest.raises(Misuse):
            release(version)
    assert signature_of(workspace.releases) == ()


def test_a_version_of_another_capability_is_not_published(workspace: Workspace, release: Callable[..., int]) -> None:
    with pytest.raises(Misuse, match="other-one"):
        release(make_version(workspace, capability="other-one"))


def test_a_damaged_version_is_not_published(workspace: Workspace, release: Callable[..., int]) -> None:
    version = make_version(workspace)
    path = workspace.versions / version.removeprefix("sha256:") / "folder" / "model.onnx"
    path.chmod(0o644)
    path.write_bytes(b"0nnx")
    with pytest.raises(Damaged, match=r"model\.onnx"):
        release(version)
    assert signature_of(workspace.releases) == ()


@pytest.mark.parametrize("capability", ["..", "a/b", "", "Late", "late-arrival\n"])
def test_a_name_cannot_lead_out_of_the_directory(
    workspace: Workspace, key: SigningKey, release: Callable[..., int], capability: str
) -> None:
    version = make_version(workspace)
    with pytest.raises(Misuse):
        release(version, capability)
    with pytest.raises(Misuse):
        read_current(workspace.releases, capability, key.verifier)


def test_a_release_needs_a_reason(workspace: Workspace, release: Callable[..., int]) -> None:
    with pytest.raises(Misuse, match="reason"):
        release(make_version(workspace), reason="  ")


def test_a_changed_release_is_damaged(workspace: Workspace, key: SigningKey, release: Callable[..., int]) -> None:
    release(make_version(workspace))
    path = workspace.releases / NAME / CURRENT
    envelope = json.loads(path.read_bytes())
    payload = envelope["payload"]
    envelope["payload"] = payload[:60] + ("A" if payload[60] != "A" else "B") + payload[61:]
    path.chmod(0o644)
    path.write_text(json.dumps(envelope))
    with pytest.raises(Damaged, match=CURRENT):
        read_current(workspace.releases, NAME, key.verifier)
    with pytest.raises(Damaged):
        release(make_version(workspace))


def test_a_release_in_the_place_of_another_is_damaged(
    workspace: Workspace, key: SigningKey, release: Callable[..., int]
) -> None:
    version, other = make_version(workspace), make_version(workspace, capability="other-one")
    release(version)
    release(version)
    release(other, "other-one")
    directory = workspace.releases / NAME
    (directory / "000001.json").replace(directory / "kept")
    (directory / "000001.json").write_bytes((directory / "000002.json").read_bytes())
    with pytest.raises(Damaged, match=r"000001\.json"):
        history(workspace.releases, NAME, key.verifier)
    (directory / "000001.json").unlink()
    with pytest.raises(Damaged, match=r"000001\.json"):
        history(workspace.releases, NAME, key.verifier)
    (workspace.releases / NAME / CURRENT).unlink()
    (workspace.releases / NAME / CURRENT).write_bytes((workspace.releases / "other-one" / CURRENT).read_bytes())
    with pytest.raises(Damaged, match="other-one"):
        read_current(workspace.releases, NAME, key.verifier)


def test_a_number_that_never_came_into_force_is_set_aside_and_not_used_again(
    workspace: Workspace, key: SigningKey, release: Callable[..., int]
) -> None:
    version = make_version(workspace)
    release(version)
    made = read_current(workspace.releases, NAME, key.verifier)
    left_behind = msgspec.structs.replace(made, number=2, reason="its publisher died")
    envelope = sign_envelope(RELEASE_PAYLOAD, msgspec.json.encode(left_behind), key)
    directory = workspace.releases / NAME
    (directory / "000002.json").write_bytes(envelope)
    (directory / ".current.1.tmp").write_bytes(envelope[:10])
    assert [each.number for each in history(workspace.releases, NAME, key.verifier)] == [1]
    assert release(version) == 3
    assert [each.number for each in history(workspace.releases, NAME, key.verifier)] == [1, 3]
    assert (directory / "000002.void").read_bytes() == envelope
    assert not (directory / ".current.1.tmp").exists()


def start_publisher(workspace: Workspace, version: str, name: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PUBLISHER, str(workspace.root), version, name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_publishers_at_once_each_get_a_number_of_their_own(workspace: Workspace, key: SigningKey) -> None:
    version = make_version(workspace)
    publishers = [start_publisher(workspace, version, f"publisher-{n}", 10) for n in range(3)]
    numbers = [int(line) for publisher in publishers for line in publisher.communicate(timeout=30)[0].split()]
    assert [publisher.returncode for publisher in publishers] == [0, 0, 0]
    assert sorted(numbers) == list(range(1, 31))
    assert [each.number for each in history(workspace.releases, NAME, key.verifier)] == list(range(1, 31))


@pytest.mark.acceptance
def test_a_publisher_killed_at_any_instant_leaves_the_old_release_or_the_new(
    workspace: Workspace, key: SigningKey
) -> None:
    version = make_version(workspace)
    dice = random.Random(7)
    contents: dict[str, bytes] = {}
    last = 0
    deadline = time.monotonic() + 8
    rounds = 0
    while rounds < 20 and time.monotonic() < deadline:
        rounds += 1
        with start_publisher(workspace, version, f"round-{rounds}", 10_000) as publisher:
            assert publisher.stdout is not None
            told = int(publisher.stdout.readline())
            time.sleep(dice.random() * 0.02)
            publisher.send_signal(signal.SIGKILL)
            told = max([told, *map(int, publisher.stdout.read().split())])
        current = read_current(workspace.releases, NAME, key.verifier)
        assert told <= current.number <= told + 1, "what was told is in force, or the one after it"
        assert current.number > last
        last = current.number
        kept = {path.name: path.read_bytes() for path in (workspace.releases / NAME).glob("*.json")}
        for name, content in contents.items():
            voided = workspace.releases / NAME / name.replace(".json", ".void")
            assert (kept[name] if name in kept else voided.read_bytes()) == content, "a number keeps its content"
        contents |= kept
        assert history(workspace.releases, NAME, key.verifier)[-1] == current
    assert rounds >= 5
