from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from deltalake import DeltaTable

import tiny
from mainstay.catalog.releases import publish
from mainstay.rollout import store
from mainstay.rollout.evidence import decode, encode
from mainstay.rollout.gates_types import Check, Report
from mainstay.rollout.passing import RolloutPass
from mainstay.rollout.steering import approve, begin, promote, resume, stop, withdraw
from mainstay.rollout.types import PRINCIPAL, Proposal, Rollout
from mainstay.state.lease import Lease, LeaseLost
from rollout.made import OPS, OTHER
from rollout.rows import Traffic

if TYPE_CHECKING:
    from os import PathLike

    from mainstay.rollout.evidence import Folded
    from mainstay.rollout.gates_types import Verdict
    from mainstay.rollout.types import Begun
    from rollout.made import Stage

LABELS = {"labels": {"kind": "binary", "truth": "yes", "prediction": "yes", "score": "probability"}}


def declared(**canary: Any) -> dict[str, Any]:
    said = {"steps": [20, 50], "min_decisions": 300, **canary}
    return {"rollout": {"shadow": {"min_decisions": 200}, "canary": said}, "monitoring": LABELS}


class Control:
    """The pass as one process has it; `again` makes it as another process would."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.open, self.asked = True, list[str]()
        self.lease = Lease(stage.database, 60)
        assert self.lease.take()
        self.again()

    def again(self) -> None:
        self.made = RolloutPass(self.stage.workspace, self.stage.key, self._gate)

    def _gate(self, _: object, rollout: Rollout, stage: Begun) -> Report:
        """A gate with one check, since none of these models runs."""
        verdict: Verdict = "pass" if self.open else "unknown"
        check = Check(
            id="samples-run", question="?", verdict=verdict, observed="nobody looked", required="it runs", needed=True
        )
        self.asked.append(stage)
        capability, version = rollout.capability, rollout.version
        return Report(capability=capability, version=version, stage=stage, at=datetime.now(UTC), checks=(check,))

    def turn(self) -> Rollout:
        self.made.turn(self.stage.database, self.lease, lambda: False)
        return self.newest()

    def newest(self) -> Rollout:
        return self.stage.database.read(lambda connection: store.list_rollouts(connection, tiny.NAME))[0]

    def folded(self) -> Folded:
        found = decode(self.stage.database.read(lambda connection: store.load_evidence(connection, self.newest())))
        assert found is not None
        return found


class Trial:
    """A champion with some traffic, and a version that begins a trial beside it."""

    def __init__(self, stage: Stage, begun: Any, **declares: Any) -> None:
        self.stage = stage
        self.champion = stage.version(**(declares or declared()))
        begin(stage.steering, stage.move(self.champion, "production"))
        self.traffic = Traffic(stage.workspace)
        self.traffic.decide(stage.current, 400)
        self.version = stage.version()
        begin(stage.steering, stage.move(self.version, begun))
        self.control = Control(stage)
        self.control.turn()

    def decide(self, count: int, **changes: Any) -> list[str]:
        return self.traffic.decide(self.stage.current, count, **changes)


def test_a_version_as_good_goes_by_itself_from_shadow_into_production(stage: Stage) -> None:
    trial = Trial(stage, "shadow", **declared(guards={"output": None, "quality": None}))
    trial.decide(150)
    found = trial.control.turn()
    assert (found.stage, found.verdicts[-1].code) == ("shadow", "too_few_decisions")
    assert trial.control.folded().agreement.compared == 150
    trial.decide(100)
    assert trial.control.turn().stage == "canary"
    for _ in range(40):
        trial.decide(1_500)
        trial.control.again()  # as after a kill: nothing is remembered but what was kept
        found = trial.control.turn()
        if found.stage == "production":
            break
    moves = [(each.details["to"], each.details["percent"]) for each in stage.events(found.id)]
    assert moves == [("shadow", 0.0), ("canary", 20.0), ("canary", 50.0), ("production", 0.0)]
    assert trial.control.asked == ["canary", "production"]
    assert stage.current.version == trial.version
    assert [each.by for each in stage.events(found.id)][1:] == [PRINCIPAL] * (len(stage.events(found.id)) - 1)
    promoted = stage.events(found.id)[-1]
    assert promoted.action == "rollout.promoted"
    assert promoted.details["evidence"]["judgement"]["ruling"] == "promote"
    assert promoted.details["evidence"]["ledger"]["until"] > 0


def test_a_gate_that_is_shut_keeps_it_where_it_is_and_is_asked_again_later(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = Trial(stage, "shadow")
    trial.control.open = False
    trial.decide(300)
    assert [trial.control.turn().stage for _ in range(3)] == ["shadow"] * 3
    assert trial.control.asked == ["canary"]  # some checks run the model: not with every turn
    trial.control.open = True
    monkeypatch.setattr("mainstay.rollout.passing.monotonic", lambda: float("inf"))
    found = trial.control.turn()
    assert found.stage == "canary"
    (check,) = stage.events(found.id)[-1].details["evidence"]["checks"]
    assert (check["id"], check["verdict"]) == ("samples-run", "pass")


def test_a_version_that_fails_is_rolled_back(stage: Stage) -> None:
    trial = Trial(stage, "canary")
    found = trial.control.newest()
    for _ in range(10):
        if found.stage == "canary":
            trial.decide(400, errors={trial.version: 0.2})
            found = trial.control.turn()
    assert found.stage == "rolled_back"
    assert (stage.current.version, stage.current.canary) == (trial.champion, None)
    (event,) = stage.events(found.id)[-1:]
    assert (event.action, event.by) == ("rollout.rolled_back", PRINCIPAL)
    harmful = [each["guard"] for each in event.details["evidence"]["judgement"]["guards"] if each["state"] == "harmful"]
    assert "errors" in harmful
    assert trial.control.turn() == found  # and then nothing more


def test_labels_that_come_after_the_promotion_send_it_back(stage: Stage) -> None:
    trial = Trial(stage, "canary", **declared(guards={"output": None}, automatic=False))
    ids = [each for _ in range(2) for each in trial.decide(1_000)]
    trial.control.turn()
    made = promote(stage.steering, stage.move(trial.version, "production"))
    assert isinstance(made, Rollout)
    assert made.watched
    found = trial.control.turn()
    assert (found.stage, found.verdicts[-1].code) == ("production", "watching")
    chances = {trial.champion: 0.95, trial.version: 0.5}
    answered = [each for each in ids if each in {name for name, _, _ in trial.traffic._decided}]
    trial.traffic.label(answered[:200], chances)
    trial.control.again()
    trial.control.turn()
    assert trial.control.folded().judge is not None
    trial.traffic.label(answered[200:], chances)
    found = trial.control.turn()
    assert found.stage == "rolled_back"
    assert (stage.current.version, stage.current.canary) == (trial.champion, None)


@pytest.mark.parametrize("stage", ["postgresql"], indirect=True)
def test_each_label_counts_once_whoever_is_killed(stage: Stage) -> None:
    trial = Trial(stage, "canary", **declared(automatic=False))
    ids = trial.decide(500)
    trial.control.turn()
    trial.traffic.label(ids[:200], {trial.champion: 0.9, trial.version: 0.9})
    trial.control.turn()
    trial.control.again()
    trial.traffic.label(ids[:300], {trial.champion: 0.9, trial.version: 0.9})  # two hundred are told again
    trial.control.turn()
    judge = trial.control.folded().judge
    assert judge is not None
    cohorts = judge.guards["quality"].cohorts.values()
    assert sum(each.canary.n + each.production.n for each in cohorts) == 300
    assert sum(each.canary.n + each.production.n for each in judge.guards["errors"].cohorts.values()) == 500


def test_where_nothing_is_new_nothing_is_written(stage: Stage) -> None:
    trial = Trial(stage, "canary")
    trial.decide(100)
    found = trial.control.turn()
    assert found.verdicts[-1].code == "too_few_decisions"
    assert trial.control.turn() == found


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tables whose logs are read from now on, each as often as it is."""
    found: list[str] = []

    class Read(DeltaTable):
        def __init__(self, table_uri: str | PathLike[str], *given: Any, **options: Any) -> None:
            found.append(str(table_uri))
            super().__init__(table_uri, *given, **options)

        @staticmethod
        def is_deltatable(
            table_uri: str | PathLike[str],
            storage_options: dict[str, str] | None = None,
        ) -> bool:
            found.append(str(table_uri))
            return DeltaTable.is_deltatable(table_uri, storage_options)

    for module in ("tables", "lake"):
        monkeypatch.setattr(f"mainstay.lake.{module}.DeltaTable", Read)
    return found


@pytest.mark.parametrize("begun", ["shadow", "canary"])
def test_a_turn_without_anything_new_reads_no_log_of_a_table(stage: Stage, begun: str, opened: list[str]) -> None:
    trial = Trial(stage, begun, **declared(automatic=False))
    trial.decide(100)
    found = trial.control.turn()
    reached = trial.control.folded().reached
    for _ in range(3):
        opened.clear()
        assert [trial.control.turn() for _ in range(5)] == [found] * 5
        assert opened == []
        trial.decide(10)
        opened.clear()
        found = trial.control.turn()
        assert any(uri.endswith("exports") for uri in opened)
        assert trial.control.folded().reached > reached
        reached = trial.control.folded().reached


def test_what_was_exported_for_others_is_looked_at_once(stage: Stage, opened: list[str]) -> None:
    trial = Trial(stage, "canary", **declared(automatic=False))
    trial.decide(100)
    found = trial.control.turn()
    trial.traffic.decide_elsewhere(10)
    opened.clear()
    assert trial.control.turn() == found
    assert opened
    opened.clear()
    assert trial.control.turn() == found
    assert opened == []


def test_what_was_folded_and_then_lost_is_folded_again_though_nothing_was_exported_since(stage: Stage) -> None:
    trial = Trial(stage, "canary", **declared(automatic=False))
    before = trial.control.folded()
    trial.decide(100)
    rollout = trial.control.turn()
    after = trial.control.folded()
    assert before.reached < after.reached
    content = encode(before)
    stage.steering.write(lambda connection: store.save_evidence(connection, rollout, content, None))
    trial.control.turn()
    assert trial.control.folded() == after


def test_while_it_is_stopped_nothing_moves(stage: Stage) -> None:
    trial = Trial(stage, "canary")
    stop(stage.workspace, tiny.NAME, key=stage.key, reason="smoke", principal=OPS)
    trial.decide(2_000, errors={trial.version: 0.5})
    assert trial.control.turn().stage == "canary"
    resume(stage.workspace, tiny.NAME, key=stage.key, reason="mended", principal=OPS)
    assert trial.control.turn().stage == "rolled_back"


def test_what_needs_a_person_waits_for_one_and_is_not_asked_again_when_refused(stage: Stage) -> None:
    declares = declared(guards={"output": None, "quality": None})
    declares["rollout"] |= {"four_eyes": ["canary"]}
    trial = Trial(stage, "shadow", **declares)
    trial.decide(300)
    assert trial.control.turn().stage == "shadow"
    waiting = stage.database.read(store.list_proposals)
    trial.control.turn()
    assert stage.database.read(store.list_proposals) == waiting
    (found,) = waiting
    assert isinstance(found, Proposal)
    assert (found.stage, found.proposed_by) == ("canary", PRINCIPAL)
    withdraw(stage.steering, found.id, reason="not now", principal=OTHER)
    trial.control.turn()
    assert stage.database.read(store.list_proposals) == []


def test_what_was_approved_moves_on(stage: Stage) -> None:
    declares = declared()
    declares["rollout"] |= {"four_eyes": ["canary"]}
    trial = Trial(stage, "shadow", **declares)
    trial.decide(300)
    trial.control.turn()
    (found,) = stage.database.read(store.list_proposals)
    made = approve(stage.steering, found.id, digest=found.digest, reason="looked at it", principal=OTHER)
    assert made.stage == "canary"
    trial.decide(100)
    assert trial.control.turn().verdicts[-1].code == "too_few_decisions"


def test_a_shadow_that_disagrees_too_often_stays_one(stage: Stage) -> None:
    declares = declared()
    declares["rollout"]["shadow"] |= {"max_disagreement": 0.05}
    trial = Trial(stage, "shadow", **declares)
    trial.decide(600, disagreement=0.3)
    found = trial.control.turn()
    assert (found.stage, found.verdicts[-1].code) == ("shadow", "in_doubt")
    assert "disagrees on" in found.verdicts[-1].reason


def test_one_that_lost_the_lease_changes_nothing(stage: Stage) -> None:
    trial = Trial(stage, "canary")
    trial.control.lease.give_up()
    other = Lease(stage.database, 60)
    assert other.take()
    trial.decide(600, errors={trial.version: 0.5})
    with pytest.raises(LeaseLost):
        trial.control.turn()
    assert stage.current.canary is not None


def test_a_rollout_that_was_overtaken_by_hand_is_ended_by_the_pass(stage: Stage) -> None:
    trial = Trial(stage, "canary")
    publish(stage.workspace, tiny.NAME, stage.version(), key=stage.key, reason="by hand", principal=OTHER)
    assert trial.control.turn().stage == "stopped_by_hand"
