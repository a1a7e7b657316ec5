from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

import tiny
from mainstay.catalog.releases import (
    MAX_SHADOWS,
    end_shadow,
    history,
    publish,
    publish_canary,
    publish_shadow,
    read_current,
    roll_back,
)
from mainstay.catalog.types import Release, Shadow
from mainstay.catalog.versions import load_manifest
from mainstay.errors import Misuse
from mainstay.signing import SigningKey, create_signing_key
from mainstay.workspace import SETTINGS_FILE, Workspace, open_workspace

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class World:
    """A workspace with four versions of the tiny capability, the first in force."""

    def __init__(self, workspace: Workspace, key: SigningKey) -> None:
        self.workspace = workspace
        self.key = key
        self.versions = [tiny.store(workspace, title=f"Number {number}") for number in range(4)]
        self.publish(0)

    def publish(self, number: int, rollout: str | None = None) -> Release:
        version = self.versions[number]
        return publish(
            self.workspace, tiny.NAME, version, key=self.key, reason="better", principal="os:ops", rollout=rollout
        )

    def canary(self, number: int, percent: float = 5.0, rollout: str | None = None) -> Release:
        return publish_canary(
            self.workspace,
            tiny.NAME,
            self.versions[number],
            percent,
            key=self.key,
            reason="try",
            principal="os:ops",
            rollout=rollout,
        )

    def shadow(self, number: int, share: float = 1.0, queue: int = 64, rollout: str | None = None) -> Release:
        return publish_shadow(
            self.workspace,
            tiny.NAME,
            self.versions[number],
            share=share,
            queue=queue,
            key=self.key,
            reason="look",
            principal="os:ops",
            rollout=rollout,
        )

    def end(self, number: int, rollout: str | None = None) -> Release:
        version = self.versions[number]
        return end_shadow(
            self.workspace, tiny.NAME, version, key=self.key, reason="seen", principal="os:ops", rollout=rollout
        )

    def back(self, to: int | None = None, rollout: str | None = None) -> Release:
        return roll_back(
            self.workspace, tiny.NAME, key=self.key, reason="worse", principal="os:ops", to=to, rollout=rollout
        )

    def shadows(self) -> list[int]:
        return [self.versions.index(each.version) for each in self.current().shadows]

    def current(self) -> Release:
        return read_current(self.workspace.releases, tiny.NAME, self.key.verifier)


@pytest.fixture
def world(tmp_path: Path) -> World:
    (tmp_path / SETTINGS_FILE).write_text('log = "mainstay.example.com/tests"\n')
    workspace = open_workspace(tmp_path, {})
    return World(workspace, create_signing_key(workspace.keys, "mainstay.example.com/tests", None))


def test_a_shadow_stands_beside_what_is_in_force_until_it_is_ended(world: World) -> None:
    made = world.shadow(1, 0.25, 9)
    contract = load_manifest(world.workspace.versions, world.versions[1]).contract.digest
    assert made.shadows == (Shadow(version=world.versions[1], contract=contract, share=0.25, queue=9),)
    assert (made.number, made.version) == (2, world.versions[0])
    world.shadow(2)
    assert world.shadow(1, 0.5).shadows[-1].share == 0.5, "asked again, its share is changed"
    assert world.shadows() == [2, 1]
    world.end(2)
    assert world.shadows() == [1]
    assert world.end(2) == world.current(), "it is none any more"
    assert world.end(1).shadows == ()


def test_what_begins_to_decide_is_a_shadow_no_more_and_the_others_go_on(world: World) -> None:
    for number in (1, 2, 3):
        world.shadow(number)
    world.canary(1)
    assert world.shadows() == [2, 3]
    world.publish(2)
    assert world.shadows() == [3]
    world.publish(1)
    assert world.shadows() == [3]


def test_a_rollback_goes_back_to_what_decided_and_passes_over_shadows(world: World) -> None:
    world.publish(1)
    world.shadow(2)
    world.shadow(3)
    back = world.back()
    assert (back.version, back.content_of) == (world.versions[0], 1)
    assert world.shadows() == [2, 3], "they go on"
    again = world.end(3)
    assert again.content_of == 1, "it is still what was rolled back to"
    with pytest.raises(Misuse, match="expected an earlier release with other content"):
        world.back()
    assert world.back(to=2).version == world.versions[1]
    assert world.shadows() == [2]
    assert world.back(to=3).shadows == world.current().shadows


def test_a_canary_that_is_rolled_back_does_not_become_a_shadow_again(world: World) -> None:
    world.shadow(1)
    world.canary(1)
    back = world.back()
    assert (back.canary, back.shadows) == (None, ())


def test_a_step_of_a_rollout_is_published_once_and_then_what_stands_is_given(world: World) -> None:
    steps: list[Callable[[], Release]] = [
        lambda: world.shadow(1, rollout="r1/1"),
        lambda: world.canary(1, rollout="r1/2"),
        lambda: world.canary(1, 25.0, rollout="r1/3"),
        lambda: world.back(rollout="r1/4"),
        lambda: world.shadow(2, rollout="r2/1"),
        lambda: world.end(2, rollout="r2/2"),
        lambda: world.publish(3, rollout="r3/1"),
    ]
    for number, step in enumerate(steps, 2):
        made = step()
        assert (made.number, step()) == (number, made)
    for step in steps[:-1]:
        assert step() == world.current(), "what somebody has published since stands"
    assert [each.rollout for each in history(world.workspace.releases, tiny.NAME, world.key.verifier)] == [
        None,
        "r1/1",
        "r1/2",
        "r1/3",
        "r1/4",
        "r2/1",
        "r2/2",
        "r3/1",
    ]


def test_what_cannot_be_a_shadow_is_refused_and_nothing_is_published(world: World) -> None:
    world.canary(1)
    other = tiny.store(world.workspace, name="other")
    world.versions.append(other)
    refused: list[Callable[[], Release]] = [
        lambda: world.shadow(0),
        lambda: world.shadow(1),
        lambda: world.shadow(4),
        lambda: world.shadow(2, 0.0),
        lambda: world.shadow(2, 1.5),
        lambda: world.shadow(2, float("nan")),
        lambda: world.shadow(2, queue=0),
        lambda: world.shadow(2, rollout=""),
    ]
    for attempt in refused:
        with pytest.raises(Misuse):
            attempt()
    assert world.current().number == 2


def test_there_are_only_so_many(world: World) -> None:
    for number in range(MAX_SHADOWS):
        world.versions.append(tiny.store(world.workspace, title=f"Another {number}"))
        world.shadow(len(world.versions) - 1)
    with pytest.raises(Misuse, match="expected at most 8"):
        world.shadow(1)
    assert len(world.shadow(len(world.versions) - 1, 0.5).shadows) == MAX_SHADOWS


def test_a_release_from_before_there_were_shadows_is_read(world: World) -> None:
    older = {
        name: value
        for name, value in msgspec.to_builtins(world.current()).items()
        if name not in {"shadows", "rollout"}
    }
    read = msgspec.json.decode(msgspec.json.encode(older), type=Release)
    assert (read.shadows, read.rollout) == ((), None)
