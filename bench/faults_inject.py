"""The faults: what each does to a world under load, and what callers may be told meanwhile."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal

from faults_world import CAPABILITY

from mainstay.authority.keys import create_key, revoke_key
from mainstay.cli.common import signing_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from faults_caller import Callers
    from faults_world import World

SMALL_DISK_BYTES = 512 << 20
EPISODE_SECONDS = (0.2, 1.2)  # of a disk that is slow or full
REVOKED_SECONDS = 2.6  # that calls go on with a key that was revoked
SWAP_GAP_SECONDS = (0.0, 2.0)

SEGFAULTS = ("segfault", "abort", "exit")
HANGS = ("hang", "sleep")
BLOW_UPS = ("blow-up", "blow-up-and-go-on")
WRONG_OUTPUTS = ("out-of-range", "not-a-number", "text", "nothing", "wrong-type", "missing", "extra", "huge", "deep")
WRONG_REPLIES = ("object", "too-few", "babble", "answer-another", "print-much")
HARMLESS = (None, "print-much")  # a call with such a note is answered rightly


@dataclass
class Scene:
    """What a fault is done to."""

    world: World
    callers: Callers
    serial: int = 0  # how many were injected before
    keys: list[tuple[str, str]] = field(default_factory=list)  # id and token of each key to be revoked

    def version(self) -> str:
        """The version whose turn it is."""
        return list(self.world.versions)[(self.serial + 1) % len(self.world.versions)]


@dataclass(frozen=True)
class Fault:
    """One kind of fault."""

    name: str
    inject: Callable[[Scene], float]  # returns when it was over, or came into force
    reasons: frozenset[str] = frozenset()  # that a fallback may have
    resets: bool = False  # connections may break
    counts: Literal["release", "key"] | None = None  # what comes into force, and must within FORCE_SECONDS
    small_disk: bool = False
    in_process: bool = False  # where the model runs


def _note(notes: tuple[str, ...], scene: Scene) -> float:
    scene.callers.send_note(random.choice(notes))
    return time.time()


def _signal_model(number: signal.Signals, scene: Scene) -> float:
    while not (models := scene.world.models):
        time.sleep(0.02)
    os.kill(random.choice(models), number)
    return time.time()


def _kill_worker(scene: Scene) -> float:
    while True:
        try:
            os.kill(random.choice(list(scene.world.workers.values())), signal.SIGKILL)
        except (ProcessLookupError, IndexError):  # the supervisor has not started the next one yet
            time.sleep(0.02)
        else:
            return time.time()


def _slow_disk(scene: Scene) -> float:
    scene.world.slow.touch()
    time.sleep(random.uniform(*EPISODE_SECONDS))
    scene.world.slow.unlink()
    return time.time()


def _full_disk(scene: Scene) -> float:
    """No room anywhere in the workspace; without root's rights, in no file of the workers."""
    root = scene.world.workspace.root
    if os.geteuid() == 0:
        _fill(root)
        time.sleep(random.uniform(*EPISODE_SECONDS))
        _resize(root, SMALL_DISK_BYTES)
        return time.time()
    workers = list(scene.world.workers.values())
    for worker in workers:
        resource.prlimit(worker, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    time.sleep(random.uniform(*EPISODE_SECONDS))
    for worker in workers:
        resource.prlimit(worker, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return time.time()


def _swap(scene: Scene) -> float:
    time.sleep(random.uniform(*SWAP_GAP_SECONDS))
    published = time.time()
    scene.world.promote(scene.version())
    return published


def _revoke(scene: Scene) -> float:
    key_id, token = scene.keys[scene.serial]
    scene.callers.use_victim(token)
    time.sleep(random.uniform(0.3, 0.9))
    workspace = scene.world.workspace
    revoked = time.time()
    revoke_key(workspace.access, signing_key(workspace), key_id)
    time.sleep(REVOKED_SECONDS)
    scene.callers.use_victim(None)
    time.sleep(0.2)
    return revoked


def make_keys(world: World, count: int) -> list[tuple[str, str]]:
    """So many keys that may decide: their ids and tokens."""
    workspace = world.workspace
    key = signing_key(workspace)
    made = [
        create_key(workspace.access, key, name=f"victim {number}", capabilities=[CAPABILITY], verbs=["decide"])
        for number in range(count)
    ]
    time.sleep(2)  # until every worker knows them
    return [(each.id, token) for each, token in made]


@contextmanager
def small_disk(root: Path) -> Iterator[None]:
    """A disk of its own at `root`, where root's rights allow it."""
    if os.geteuid() != 0:
        yield
        return
    root.mkdir()
    subprocess.run(["/bin/mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_BYTES}", "tmpfs", str(root)], check=True)
    try:
        yield
    finally:
        subprocess.run(["/bin/umount", "--lazy", str(root)], check=True)


def _fill(root: Path) -> None:
    """Take away all room that is left; what is written meanwhile may make it fail, and it is tried again."""
    for _ in range(20):
        found = os.statvfs(root)
        used = (found.f_blocks - found.f_bfree) * found.f_frsize
        try:
            _resize(root, used)
        except subprocess.CalledProcessError:
            continue
        return
    raise SystemExit(f"error: {root} could not be filled")


def _resize(root: Path, size: int) -> None:
    subprocess.run(["/bin/mount", "-o", f"remount,size={size}", str(root)], check=True, capture_output=True)


_GONE = frozenset({"model_crashed", "model_unavailable", "deadline_exceeded"})
_FAILED = _GONE | {"model_error"}

FAULTS = {
    fault.name: fault
    for fault in (
        Fault("segfault", partial(_signal_model, signal.SIGSEGV), _GONE),
        Fault("segfault by input", partial(_note, SEGFAULTS), _GONE),
        Fault("hang", partial(_signal_model, signal.SIGSTOP), _GONE),
        Fault("hang by input", partial(_note, HANGS), _GONE),
        Fault("memory blow-up", partial(_note, BLOW_UPS), _FAILED),
        Fault("garbage output", partial(_note, WRONG_OUTPUTS + WRONG_REPLIES), _FAILED | {"output_invalid"}),
        Fault("slow disk", _slow_disk),
        Fault("disk full", _full_disk, small_disk=True),
        Fault("worker kill", _kill_worker, resets=True),
        Fault("release swap", _swap, counts="release"),
        Fault("revoked key", _revoke, counts="key"),
        Fault("slow disk, model in process", _slow_disk, frozenset({"deadline_exceeded"}), in_process=True),
        Fault("release swap, model in process", _swap, counts="release", in_process=True),
    )
}
