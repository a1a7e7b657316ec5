"""The rollout pass: looks at every rollout that is not over, and takes the next step where one is due.

1. What was decided and not carried out is carried out; what somebody did by hand is taken notice of.
2. While the capability is stopped, nothing else happens.
3. What is new in the tables is folded, and kept together with the place that it reaches to.
4. The ruling over all of it is noted, and followed: a step further, a proposal, or back.

Each step stands in the control database before it has an effect, so that the pass may be killed anywhere.
"""

from __future__ import annotations

import logging
from time import monotonic
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from mainstay.capability.load import load_capability
from mainstay.catalog.holds import find_hold
from mainstay.catalog.releases import history
from mainstay.catalog.versions import FOLDER, version_path
from mainstay.errors import MainstayError
from mainstay.lake.lake import open_lake
from mainstay.rollout import store
from mainstay.rollout.evidence import Folder, decode, encode
from mainstay.rollout.gates import SETTLED_BY_THE_MOVE, run_checks
from mainstay.rollout.moves import end_watch, next_stage
from mainstay.rollout.ruling import rule
from mainstay.rollout.settling import Steering, settle, steered, tell
from mainstay.rollout.steering import move_on, take_back
from mainstay.rollout.types import PRINCIPAL, instant
from mainstay.state.lease import LeaseLost

if TYPE_CHECKING:
    from collections.abc import Callable

    from mainstay.capability.load import Declared
    from mainstay.catalog.types import Release
    from mainstay.rollout.gates_types import Report
    from mainstay.rollout.ruling import Ruling
    from mainstay.rollout.types import Begun, Rollout
    from mainstay.signing import SigningKey
    from mainstay.state.database import Database
    from mainstay.state.lease import Lease
    from mainstay.workspace import Workspace

    Gate: TypeAlias = Callable[[Steering, Rollout, Begun], Report]

logger = logging.getLogger("mainstay.rollout")

NAME: Final = "rollouts"
GATE_SECONDS: Final = 60.0  # between two times that the checks before a stage are asked: some of them run the model


def check_gate(steering: Steering, rollout: Rollout, stage: Begun) -> Report:
    """Every check before a stage, but those that a move sees to itself."""
    return run_checks(
        steering.workspace,
        rollout.capability,
        rollout.version,
        stage,
        verifier=steering.key.verifier,
        database=steering.database,
        without=SETTLED_BY_THE_MOVE,
    )


class RolloutPass:
    """Made once in a process, and asked for a turn again and again by one thread."""

    name = NAME

    def __init__(self, workspace: Workspace, key: SigningKey, gate: Gate | None = None) -> None:
        """`gate` gives what was checked before a version comes to a stage; without it, every check there is."""
        self._gate = gate or check_gate
        self._workspace = workspace
        self._key = key
        self._lake = open_lake(workspace)
        self._folders: dict[str, tuple[Folder, Declared]] = {}
        self._releases: dict[str, tuple[int, tuple[Release, ...]]] = {}
        self._complaints: dict[str, str] = {}
        self._gate_due: dict[str, float] = {}  # when the checks of a rollout are asked again
        self._shut: dict[str, str] = {}  # what keeps its gate shut, as it was told last

    @property
    def every_seconds(self) -> float:
        return self._workspace.settings.steering_interval_seconds

    def turn(self, database: Database, lease: Lease, stop: Callable[[], bool]) -> None:
        """Look at all that is not over. What goes wrong with one keeps no other from its turn, and is told once.

        Raises LeaseLost when another process steers, Failed when the control database does not answer.
        """
        steering = Steering(self._workspace, self._key, database, lease)
        tell(steering)
        rollouts = database.read(store.list_unsettled)
        known = {each.id for each in rollouts}
        for remembered in (self._folders, self._complaints, self._gate_due, self._shut):
            for gone in remembered.keys() - known:
                remembered.pop(gone)
        for rollout in rollouts:
            if stop():
                return
            problem = ""
            try:
                self._look_at(steering, rollout, stop)
            except LeaseLost:
                raise
            except store.Moved:
                self._folders.pop(rollout.id, None)  # the next turn sees what somebody made of it
            except (MainstayError, OSError) as error:
                self._folders.pop(rollout.id, None)  # what it remembers may be ahead of what was kept
                problem = str(error)
            self._tell_of(rollout, problem)

    def _look_at(self, steering: Steering, rollout: Rollout, stop: Callable[[], bool]) -> None:
        with steered(self._workspace, rollout.capability):
            found = steering.database.read(lambda connection: store.find(connection, rollout.id)) or rollout
            found = settle(steering, found)
        if not (found.running or found.watched):
            return
        if find_hold(self._workspace.holds, found.capability, self._key.verifier) is not None:
            return
        if found.champion is None:  # nothing that it could be held against
            return
        ruling, found = self._judge(steering, found, stop)
        if ruling is not None:
            self._follow(steering, found, ruling)

    def _judge(self, steering: Steering, rollout: Rollout, stop: Callable[[], bool]) -> tuple[Ruling | None, Rollout]:
        """Fold what is new, and keep it with what it says; where it says what it said before, nothing is written."""
        folder, champion = self._folder(rollout)
        before = decode(steering.database.read(lambda connection: store.load_evidence(connection, rollout)))
        folded = before or folder.begin(rollout)
        if folded.judge is None and rollout.stage == "canary":
            folded = folder.begin_canary(folded, rollout)
        folded = folder.fold(folded, self._history(rollout), stop)
        rules = champion.capability.rollout
        ruling = rule(rollout, folded, rules.shadow, rules.canary)
        said = None if ruling is None else ruling.verdict
        if folded == before and (said is None or said.same_as(rollout.verdicts)):
            return ruling, rollout
        content = encode(folded)
        kept = steering.write(lambda connection: store.save_evidence(connection, rollout, content, said))
        return ruling, kept

    def _follow(self, steering: Steering, rollout: Rollout, ruling: Ruling) -> None:
        rules = self._folder(rollout)[1].capability.rollout
        said = ruling.verdict
        with steered(self._workspace, rollout.capability):
            if said.verdict == "roll_back":
                logger.warning("%s: %s is rolled back: %s", rollout.capability, rollout.version, said.reason)
                take_back(
                    steering,
                    rollout,
                    "rolled_back",
                    reason=said.reason,
                    principal=PRINCIPAL,
                    evidence=ruling.evidence,
                )
            elif said.verdict == "promote" and rollout.running and rules.canary.automatic:
                self._move_on(steering, rollout, ruling)
            elif rollout.watch_until is not None and rollout.watch_until < instant():
                steering.write(lambda connection: end_watch(connection, rollout))
                tell(steering)

    def _move_on(self, steering: Steering, rollout: Rollout, ruling: Ruling) -> None:
        """A step further. A stage further where its gate is open; where it is shut, that is told once."""
        stage, _ = next_stage(rollout, self._folder(rollout)[1].capability)
        evidence, shut = ruling.evidence, ""
        if stage != rollout.stage and self._gate_due.get(rollout.id, 0.0) <= monotonic():
            report = self._gate(steering, rollout, stage)
            self._gate_due[rollout.id] = monotonic() + GATE_SECONDS
            shut = ", ".join(f"{each.id}: {each.observed}" for each in report.closed_by)
            evidence = evidence | {"checks": msgspec.to_builtins(report.checks)}
        elif stage != rollout.stage:
            return
        if shut != self._shut.get(rollout.id, ""):
            self._shut[rollout.id] = shut
            logger.warning(
                "%s: the gate before %s is %s", rollout.capability, stage, f"shut: {shut}" if shut else "open"
            )
        if not shut:
            self._gate_due.pop(rollout.id, None)
            move_on(steering, rollout, reason=ruling.verdict.reason, evidence=evidence)

    def _folder(self, rollout: Rollout) -> tuple[Folder, Declared]:
        """What folds the rows of a rollout; what a version declares never changes."""
        if rollout.id not in self._folders:
            assert rollout.champion is not None, "nothing is judged without one"
            champion = load_capability(version_path(self._workspace.versions, rollout.champion) / FOLDER)
            self._folders[rollout.id] = Folder(self._lake, rollout, champion), champion
        return self._folders[rollout.id]

    def _history(self, rollout: Rollout) -> tuple[Release, ...]:
        """All releases of the capability, read again when there is a newer one."""
        newest = rollout.release or 0
        known = self._releases.get(rollout.capability)
        if known is None or known[0] != newest:
            found = history(self._workspace.releases, rollout.capability, self._key.verifier)
            known = self._releases[rollout.capability] = newest, found
        return known[1]

    def _tell_of(self, rollout: Rollout, problem: str) -> None:
        if problem == self._complaints.get(rollout.id, ""):
            return
        self._complaints[rollout.id] = problem
        if problem:
            logger.error("rollout of %s: %s", rollout.capability, problem)
        else:
            logger.info("rollout of %s goes on", rollout.capability)
