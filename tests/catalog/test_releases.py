from __future__ import annotations

import json
import math
import random
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import tiny
from mainstay.catalog.releases import (
    CURRENT,
    capabilities_with_releases,
    history,
    publish,
    publish_canary,
    read_current,
    roll_back,
    signature_of,
)
from mainstay.catalog.types import RELEASE_PAYLOAD, Canary, Release
from mainstay.catalog.versions import load_manifest
from mainstay.errors import Damaged, Misuse
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


def make_version(workspace: Workspace, artifact: bytes = b"onnx", capability: str = NAME, **changes: Any) -> str:
    return tiny.store(workspace, artifact, name=capability, **changes)


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
    assert made.contract == load_manifest(workspace.versions, version).contract.digest
    assert (made.canary, made.fallback_versions, made.content_of) == (None, (), None)
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
    path = workspace.versions / version.removeprefix("sha256:") / "folder" / "model" / "tiny.onnx"
    path.chmod(0o644)
    path.write_bytes(b"0nnx")
    with pytest.raises(Damaged, match=r"tiny\.onnx"):
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


# Canaries, ladders, and going back


class Desk:
    """Publishes for one capability, in few words."""

    def __init__(self, workspace: Workspace, key: SigningKey) -> None:
        self.workspace, self.key = workspace, key
        self.says: dict[str, Any] = {"key": key, "reason": "for a test", "principal": "ops-control@example.com"}

    def publish(self, version: str, **more: Any) -> Release:
        return publish(self.workspace, NAME, version, **self.says, **more)

    def canary(self, version: str, percent: float) -> Release:
        return publish_canary(self.workspace, NAME, version, percent, **self.says)

    def roll_back(self, to: int | None = None) -> Release:
        return roll_back(self.workspace, NAME, **self.says, to=to)

    def history(self) -> list[tuple[int, str]]:
        found = history(self.workspace.releases, NAME, self.key.verifier)
        return [(each.number, each.version) for each in found]


@pytest.fixture
def desk(workspace: Workspace, key: SigningKey) -> Desk:
    return Desk(workspace, key)


def other_contract() -> dict[str, Any]:
    return tiny.CONTRACT | {"version": "2.0.0"}


def test_a_canary_stands_beside_the_version_in_force(workspace: Workspace, desk: Desk) -> None:
    one, two = make_version(workspace, b"one"), make_version(workspace, b"two", contract=other_contract())
    desk.publish(one)
    made = desk.canary(two, 5)
    assert (made.number, made.version) == (2, one)
    assert made.canary == Canary(
        version=two, contract=load_manifest(workspace.versions, two).contract.digest, percent=5.0
    )
    assert read_current(workspace.releases, NAME, desk.key.verifier) == made
    assert desk.publish(one).canary is None, "promoting again what is in force ends the canary"
    assert desk.publish(two, canary=(one, 12.5)).canary == Canary(version=one, contract=made.contract, percent=12.5)


@pytest.mark.parametrize("percent", [0, 100, -1, 100.5, math.nan, math.inf])
def test_a_canary_decides_for_a_share_of_the_keys(workspace: Workspace, desk: Desk, percent: float) -> None:
    one, two = make_version(workspace, b"one"), make_version(workspace, b"two")
    desk.publish(one)
    with pytest.raises(Misuse, match="above 0 and below 100"):
        desk.canary(two, percent)
    with pytest.raises(Misuse, match="above 0 and below 100"):
        desk.publish(one, canary=(two, percent))
    assert desk.history() == [(1, one)]


def test_a_canary_is_another_version_of_the_same_capability(workspace: Workspace, desk: Desk) -> None:
    one, other = make_version(workspace, b"one"), make_version(workspace, capability="other-one")
    with pytest.raises(Misuse, match="has no release"):
        desk.canary(one, 5)
    desk.publish(one)
    with pytest.raises(Misuse, match="decides for all keys already"):
        desk.canary(one, 5)
    with pytest.raises(Misuse, match="other-one"):
        desk.canary(other, 5)
    with pytest.raises(Misuse, match="no version"):
        desk.canary("sha256:" + "0" * 64, 5)
    assert desk.history() == [(1, one)]


def test_the_version_rungs_of_a_ladder_are_looked_up_in_order(workspace: Workspace, desk: Desk) -> None:
    named, before = make_version(workspace, b"named"), make_version(workspace, b"before")
    ladder = [{"version": named}, {"last_good": {}}, {"version": "previous"}, {"person": True}]
    laddered = make_version(workspace, b"laddered", fallback=ladder)
    desk.publish(named)
    desk.publish(before)
    assert desk.publish(laddered).fallback_versions == (named, before)
    assert desk.publish(laddered).fallback_versions == (named, before), "it is not its own fallback"


def test_the_previous_version_is_that_of_the_newest_earlier_release_with_another(
    workspace: Workspace, desk: Desk
) -> None:
    one, two = make_version(workspace, b"one"), make_version(workspace, b"two")
    three = make_version(workspace, b"three", fallback=[{"version": "previous"}])
    with pytest.raises(Misuse, match=r"fallback\[0\].*found none"):
        desk.publish(three)
    for version in (one, two, two):
        desk.publish(version)
    assert desk.publish(three).fallback_versions == (two,)
    desk.publish(one)
    assert desk.publish(three).fallback_versions == (one,)


def test_a_canary_has_a_ladder_of_its_own(workspace: Workspace, desk: Desk) -> None:
    one = make_version(workspace, b"one")
    two = make_version(workspace, b"two", fallback=[{"version": "previous"}])
    three = make_version(workspace, b"three", fallback=[{"version": one}, {"version": "previous"}])
    desk.publish(one)
    desk.publish(two)
    made = desk.canary(three, 5)
    assert made.fallback_versions == (one,), "what is in force stays as it is"
    assert made.canary is not None
    assert made.canary.fallback_versions == (one, two)


@pytest.mark.parametrize("name", ["previous", "by digest"])
def test_a_fallback_version_has_the_same_contract(workspace: Workspace, desk: Desk, name: str) -> None:
    other = make_version(workspace, b"other", contract=other_contract())
    desk.publish(other)
    version = make_version(workspace, fallback=[{"version": other if name == "by digest" else "previous"}])
    with pytest.raises(Misuse, match=r"fallback\[0\].*expected one with the same contract"):
        desk.publish(version)
    assert desk.history() == [(1, other)]


def test_a_fallback_version_is_a_whole_version_of_the_capability(workspace: Workspace, desk: Desk) -> None:
    absent, foreign = "sha256:" + "0" * 64, make_version(workspace, capability="other-one")
    for named, message in ((absent, "no version"), (foreign, "other-one")):
        with pytest.raises(Misuse, match=message):
            desk.publish(make_version(workspace, fallback=[{"version": named}]))
    named = make_version(workspace, b"named")
    damage(workspace, named)
    with pytest.raises(Damaged, match=r"tiny\.onnx"):
        desk.publish(make_version(workspace, fallback=[{"version": named}]))
    assert desk.history() == []


def damage(workspace: Workspace, version: str) -> None:
    path = workspace.versions / version.removeprefix("sha256:") / "folder" / "model" / "tiny.onnx"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def test_rolling_back_publishes_the_content_before_again(workspace: Workspace, desk: Desk) -> None:
    one = make_version(workspace, b"one")
    two = make_version(workspace, b"two", fallback=[{"version": "previous"}])
    three, four = make_version(workspace, b"three"), make_version(workspace, b"four")
    desk.publish(one)
    desk.publish(two)
    third = desk.canary(four, 5)
    desk.publish(three)
    desk.publish(three)
    made = desk.roll_back()
    assert (made.number, made.version, made.content_of) == (6, two, 3)
    assert (made.canary, made.fallback_versions, made.contract) == (third.canary, (one,), third.contract)
    assert made.reason == "for a test"
    assert read_current(workspace.releases, NAME, desk.key.verifier) == made
    assert desk.roll_back().canary is None


def test_what_is_rolled_back_from_does_not_become_a_canary_again(workspace: Workspace, desk: Desk) -> None:
    one, two = make_version(workspace, b"one"), make_version(workspace, b"two")
    desk.publish(one)
    desk.canary(two, 5)
    desk.canary(two, 50)
    desk.publish(two)
    made = desk.roll_back()
    assert (made.version, made.canary, made.content_of) == (one, None, 1)


def test_rolling_back_again_goes_further_back(workspace: Workspace, desk: Desk) -> None:
    one, two, three, four = (make_version(workspace, name) for name in (b"one", b"two", b"three", b"four"))
    for version in (one, two, three):
        desk.publish(version)
    assert desk.roll_back().version == two
    desk.publish(four)
    assert desk.roll_back().content_of == 2, "what was rolled back from is not gone back to"
    assert desk.roll_back().version == one
    with pytest.raises(Misuse, match="expected an earlier release with other content"):
        desk.roll_back()
    assert [version for _, version in desk.history()] == [one, two, three, two, four, two, one]


def test_rolling_back_to_a_number(workspace: Workspace, desk: Desk) -> None:
    with pytest.raises(Misuse, match="has no release"):
        desk.roll_back()
    one, two = make_version(workspace, b"one"), make_version(workspace, b"two")
    for version in (one, two, one):
        desk.publish(version)
    for number in (0, 3, 4):
        with pytest.raises(Misuse, match=f"release {number} of {NAME}"):
            desk.roll_back(number)
    assert desk.roll_back(2).version == two
    assert desk.roll_back(1).content_of == 1


def test_after_a_rollback_the_ladder_keeps_the_versions_it_had(workspace: Workspace, desk: Desk) -> None:
    one, bad = make_version(workspace, b"one"), make_version(workspace, b"bad")
    two = make_version(workspace, b"two", fallback=[{"version": "previous"}])
    for version in (one, two, bad):
        desk.publish(version)
    assert desk.roll_back().fallback_versions == (one,)
    assert desk.canary(make_version(workspace, b"four"), 5).fallback_versions == (one,)
    assert desk.publish(two).fallback_versions == (one,)


def test_what_is_damaged_is_not_gone_back_to(workspace: Workspace, desk: Desk) -> None:
    one = make_version(workspace, b"one")
    two = make_version(workspace, b"two", fallback=[{"version": "previous"}])
    three = make_version(workspace, b"three")
    for version in (one, two, three):
        desk.publish(version)
    damage(workspace, one)
    with pytest.raises(Damaged, match=r"tiny\.onnx"):
        desk.roll_back()
    assert read_current(workspace.releases, NAME, desk.key.verifier).version == three


# Many publishers, and dead ones


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
