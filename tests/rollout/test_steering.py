from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

import tiny
from mainstay.catalog.releases import publish
from mainstay.catalog.types import Release
from mainstay.errors import Misuse
from mainstay.rollout import store
from mainstay.rollout.settling import settle, steered, tell
from mainstay.rollout.steering import advance, approve, begin, promote, resume, roll_back, stop, withdraw
from mainstay.rollout.tables import PROPOSALS
from mainstay.rollout.types import PRINCIPAL, Proposal, Rollout, instant
from rollout.made import OPS, OTHER
from state.databases import KINDS

if TYPE_CHECKING:
    from mainstay.rollout.moves import Made
    from rollout.made import Stage

LABELS = {
    "labels": {"kind": "binary", "truth": "yes", "score": "probability", "expected_days": 3},
}


def rollout(made: Made | Release) -> Rollout:
    assert isinstance(made, Rollout)
    return made


def proposal(made: Made) -> Proposal:
    assert isinstance(made, Proposal)
    return made


def first(stage: Stage, **changes: Any) -> str:
    version = stage.version(**changes)
    rollout(begin(stage.steering, stage.move(version, "production")))
    return version


def test_the_very_first_version_goes_straight_into_production(stage: Stage) -> None:
    version = stage.version(rollout={"required": ["shadow", "canary"], "four_eyes": ["production"]})
    with pytest.raises(Misuse, match="nothing is in production that a canary could stand beside"):
        begin(stage.steering, stage.move(version, "canary"))
    made = rollout(begin(stage.steering, stage.move(version, "production")))
    assert (made.stage, made.champion, made.release, made.watch_until) == ("production", None, 1, None)
    assert (stage.current.version, stage.current.rollout) == (version, made.mark)


@pytest.mark.parametrize("stage", KINDS, indirect=True)
def test_a_version_goes_from_shadow_through_every_step_into_production(stage: Stage) -> None:
    champion, other = first(stage), stage.version()
    one = rollout(begin(stage.steering, stage.move(other, "shadow")))
    assert (stage.shadows, stage.current.canary) == ([other], None)
    percents: list[tuple[int, float]] = []
    for _ in range(3):
        made = rollout(advance(stage.steering, stage.move(other, "canary")))
        canary = stage.current.canary
        assert canary is not None
        assert (stage.current.version, canary.version, canary.percent) == (champion, other, made.percent)
        assert stage.shadows == []
        percents.append((made.step, made.percent))
    assert percents == [(0, 5.0), (1, 25.0), (2, 50.0)]
    done = rollout(advance(stage.steering, stage.move(other, "production")))
    assert (done.id, done.stage, done.release) == (one.id, "production", stage.current.number)
    assert (stage.current.version, stage.current.canary) == (other, None)
    actions = [event.action for event in stage.events(one.id)]
    assert actions == ["rollout.started", *["rollout.advanced"] * 3, "rollout.promoted"]
    assert all(event.entry for event in stage.events(one.id))
    former = stage.database.read(lambda connection: store.list_rollouts(connection, tiny.NAME))[-1]
    assert (former.version, former.stage, former.reason) == (champion, "retired", f"followed by {other}")
    told = [action for action, _ in stage.told()]
    assert sorted(told) == sorted(["rollout.promoted", "rollout.ended", *actions])


def test_one_version_is_on_trial_at_a_time(stage: Stage) -> None:
    first(stage)
    begin(stage.steering, stage.move(stage.version(), "shadow"))
    with pytest.raises(Misuse, match=r"is on trial \(shadow\): expected one at a time"):
        begin(stage.steering, stage.move(stage.version(), "canary"))


def test_what_does_not_come_next_is_refused(stage: Stage) -> None:
    champion, other = first(stage), stage.version()
    with pytest.raises(Misuse, match=r"expected .* to be on trial, found none"):
        advance(stage.steering, stage.move(other, "canary"))
    with pytest.raises(Misuse, match="is in production already"):
        begin(stage.steering, stage.move(champion, "production"))
    begin(stage.steering, stage.move(other, "canary", percent=30))
    for wrong in (stage.move(other, "shadow"), stage.move(other, "canary", percent=30)):
        with pytest.raises(Misuse, match="expected a canary of more than 30 %, or production"):
            advance(stage.steering, wrong)
    with pytest.raises(Misuse, match="found 100"):
        advance(stage.steering, stage.move(other, "canary", percent=100))
    with pytest.raises(Misuse, match="moved for a reason"):
        advance(stage.steering, stage.move(other, "canary", reason=" "))
    assert rollout(advance(stage.steering, stage.move(other, "canary"))).percent == 50


def test_a_stage_that_the_version_in_force_requires_cannot_be_left_out(stage: Stage) -> None:
    first(stage, rollout={"required": ["shadow", "canary"]})
    other = stage.version(rollout={})
    with pytest.raises(Misuse, match="requires shadow and canary before production"):
        promote(stage.steering, stage.move(other, "production"))
    with pytest.raises(Misuse, match="requires shadow before canary"):
        begin(stage.steering, stage.move(other, "canary"))
    begin(stage.steering, stage.move(other, "shadow"))
    with pytest.raises(Misuse, match="requires canary before production"):
        promote(stage.steering, stage.move(other, "production"))
    advance(stage.steering, stage.move(other, "canary"))
    assert rollout(promote(stage.steering, stage.move(other, "production"))).stage == "production"


def test_taking_back_ends_the_trial_first_and_then_what_is_in_production(stage: Stage) -> None:
    one, two, three = first(stage, monitoring=LABELS), stage.version(monitoring=LABELS), stage.version()
    begin(stage.steering, stage.move(two, "canary"))
    promoted = rollout(promote(stage.steering, stage.move(two, "production")))
    assert promoted.watched
    assert promoted.watch_until is not None
    days = datetime.fromisoformat(promoted.watch_until) - datetime.now(UTC)
    assert timedelta(days=5.9) < days <= timedelta(days=6)
    begin(stage.steering, stage.move(three, "canary"))
    ended = rollout(roll_back(stage.steering, tiny.NAME, reason="no", principal=OPS))
    assert (ended.version, ended.stage) == (three, "stopped_by_hand")
    assert (stage.current.version, stage.current.canary) == (two, None)
    back = rollout(roll_back(stage.steering, tiny.NAME, reason="worse", principal=OPS))
    assert (back.version, back.stage, back.watch_until) == (two, "rolled_back", None)
    assert (stage.current.version, stage.current.content_of) == (one, 1)
    with pytest.raises(Misuse, match="earlier release"):
        roll_back(stage.steering, tiny.NAME, reason="more", principal=OPS)


def test_a_shadow_is_taken_out_of_the_release(stage: Stage) -> None:
    champion = first(stage)
    begin(stage.steering, stage.move(stage.version(), "shadow"))
    rollout(roll_back(stage.steering, tiny.NAME, reason="no", principal=OPS))
    assert (stage.current.version, stage.shadows) == (champion, [])


def test_a_release_by_number_is_gone_back_to_whatever_is_on_trial(stage: Stage) -> None:
    one, two = first(stage), stage.version()
    promote(stage.steering, stage.move(two, "production"))
    trial = rollout(begin(stage.steering, stage.move(stage.version(), "canary")))
    release = roll_back(stage.steering, tiny.NAME, reason="back", principal=OPS, to=1)
    assert isinstance(release, Release)
    assert (stage.current.version, stage.current.canary) == (one, None)
    with steered(stage.workspace, tiny.NAME):
        ended = settle(stage.steering, stage.rollout(trial.id))
    assert (ended.stage, ended.release) == ("stopped_by_hand", stage.current.number)
    assert "put something else into force" in ended.reason


def test_what_somebody_published_without_a_rollout_ends_it_and_stays(stage: Stage) -> None:
    first(stage)
    trial = rollout(begin(stage.steering, stage.move(stage.version(), "canary")))
    third = stage.version()
    publish(stage.workspace, tiny.NAME, third, key=stage.key, reason="by hand", principal=OTHER)
    with steered(stage.workspace, tiny.NAME):
        ended = settle(stage.steering, stage.rollout(trial.id))
    assert ended.stage == "stopped_by_hand"
    assert stage.current.version == third
    tell(stage.steering)
    assert stage.told()[-1] == ("rollout.ended", PRINCIPAL)


def test_what_was_begun_and_not_published_is_published_once(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    first(stage)

    class Killed(BaseException):
        pass

    def killed(*_: object, **__: object) -> None:
        raise Killed

    version = stage.version()
    with monkeypatch.context() as patch:
        patch.setattr("mainstay.rollout.settling.publish_canary", killed)  # a process that ends here
        with pytest.raises(Killed):
            begin(stage.steering, stage.move(version, "canary"))
    (row,) = stage.database.read(store.list_unsettled)[:1]
    assert (row.stage, row.release, stage.current.canary) == ("canary", None, None)
    with monkeypatch.context() as patch:
        patch.setattr("mainstay.rollout.settling.record_release", killed)
        with pytest.raises(Killed):
            settle(stage.steering, row)
    assert stage.current.rollout == row.mark
    number = stage.current.number
    assert settle(stage.steering, row).release == number
    assert stage.current.number == number
    with pytest.raises(store.Moved):
        stage.database.write(lambda connection: store.save(connection, row, was=row.moves + 1))


def test_a_stop_works_without_the_control_database_and_a_resume_lifts_it(stage: Stage) -> None:
    first(stage)
    stopped = stop(stage.workspace, tiny.NAME, key=stage.key, reason="smoke", principal=OPS)
    assert stopped.by == OPS
    lifted = resume(stage.workspace, tiny.NAME, key=stage.key, reason="mended", principal=OPS)
    assert lifted is not None
    assert resume(stage.workspace, tiny.NAME, key=stage.key, reason="mended", principal=OPS) is None


def test_a_rollback_works_without_the_control_database(stage: Stage) -> None:
    one = first(stage)
    promote(stage.steering, stage.move(stage.version(), "production"))
    stage.database.write(lambda connection: connection.execute(sa.text("ALTER TABLE rollouts RENAME TO away")))
    release = roll_back(stage.steering, tiny.NAME, reason="worse", principal=OPS)
    assert isinstance(release, Release)
    assert stage.current.version == one


# Four eyes.


def asked(stage: Stage, **changes: Any) -> tuple[str, Proposal]:
    first(stage, rollout={"four_eyes": ["shadow", "production"]})
    version = stage.version()
    return version, proposal(begin(stage.steering, stage.move(version, "shadow", **changes)))


@pytest.mark.parametrize("stage", KINDS, indirect=True)
def test_another_person_approves_and_then_it_happens(stage: Stage) -> None:
    version, found = asked(stage)
    assert stage.shadows == []
    with pytest.raises(Misuse, match="expected another person"):
        approve(stage.steering, found.id, digest=found.digest, reason="mine", principal=OPS)
    made = approve(stage.steering, found.id, digest=found.digest, reason="looked at it", principal=OTHER)
    assert (made.id, made.stage, made.by, made.version) == (found.rollout, "shadow", OPS, version)
    assert stage.shadows == [version]
    assert stage.current.published_by == OTHER
    with pytest.raises(Misuse, match="was approved before, by os:other"):
        approve(stage.steering, found.id, digest=found.digest, reason="again", principal=OTHER)
    told = [each for each in stage.told() if each[1] != PRINCIPAL][1:]
    assert told == [("rollout.proposed", OPS), ("rollout.approved", OTHER), ("rollout.started", OTHER)]


def test_the_same_is_proposed_once(stage: Stage) -> None:
    first(stage, rollout={"four_eyes": ["production"]})
    version = stage.version()
    begin(stage.steering, stage.move(version, "canary"))
    one = proposal(promote(stage.steering, stage.move(version, "production")))
    assert proposal(promote(stage.steering, stage.move(version, "production"))).id == one.id
    with pytest.raises(Misuse, match="expected another person than who proposed it or began it"):
        approve(stage.steering, one.id, digest=one.digest, reason="mine", principal=OPS)


def test_an_approval_is_bound_to_what_was_looked_at(stage: Stage) -> None:
    first(stage, rollout={"four_eyes": ["production"]})
    version = stage.version()
    begin(stage.steering, stage.move(version, "canary"))
    found = proposal(promote(stage.steering, stage.move(version, "production")))
    with pytest.raises(Misuse, match="expected what was proposed"):
        approve(stage.steering, found.id, digest="sha256:0", reason="r", principal=OTHER)
    advance(stage.steering, stage.move(version, "canary"))
    with pytest.raises(Misuse, match="as things stand now it would be"):
        approve(stage.steering, found.id, digest=found.digest, reason="r", principal=OTHER)
    again = proposal(promote(stage.steering, stage.move(version, "production")))
    assert again.digest != found.digest
    assert approve(stage.steering, again.id, digest=again.digest, reason="r", principal=OTHER).stage == "production"


def test_an_approval_expires_and_a_withdrawn_one_is_over(stage: Stage) -> None:
    _, found = asked(stage)
    past = instant(datetime.now(UTC) - timedelta(seconds=1))
    stage.database.write(lambda connection: connection.execute(sa.update(PROPOSALS).values(expires_at=past)))
    with pytest.raises(Misuse, match="expired at"):
        approve(stage.steering, found.id, digest=found.digest, reason="late", principal=OTHER)
    assert stage.database.read(store.list_proposals) == []
    assert withdraw(stage.steering, found.id, reason="no more", principal=OPS).verdict == "withdrawn"
    with pytest.raises(Misuse, match="expected a proposal that waits"):
        withdraw(stage.steering, found.id, reason="no more", principal=OPS)
    assert stage.shadows == []
