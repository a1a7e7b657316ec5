"""A run fetches, takes, notes and holds, with a real server, real tables and the real ledger."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from msgspec.structs import replace

from intake.api import Api, Reply, Request, api, said
from intake.workspaces import CONTRACT, NAME, declare, flights, make_workspace
from mainstay.catalog import holds
from mainstay.errors import Failed, Misuse
from mainstay.intake import runs
from mainstay.intake.declared import sources_in_force
from mainstay.intake.holding import finish_hold, release_source
from mainstay.intake.landing import landing_of
from mainstay.intake.runs import Means, Run
from mainstay.intake.state import state_of
from mainstay.intake.types import ITEM, RAW, REASON, VIOLATIONS, intake_table, quarantine_table
from mainstay.lake.lake import open_lake
from mainstay.ledger.log import Log
from mainstay.ledger.sealer import Sealer
from mainstay.lineage.emitting import Emitter
from mainstay.signing import load_signing_key

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mainstay.intake.landing import Landing
    from mainstay.intake.pacing import Ran
    from mainstay.intake.state import State
    from mainstay.workspace import Workspace

SOURCE = "api"
PAGE = 30


class Feed:
    """A workspace with one REST source, and what its server has to give."""

    def __init__(self, root: Path, server: Api, **keys: Any) -> None:
        self.records: list[dict[str, Any]] = []
        self.reply: Reply | None = None  # in place of records
        self.keys = keys
        server.answer = self.answer
        self.url = server.url
        self.workspace: Workspace = make_workspace(root, self.declared())
        self.means = Means(self.workspace, load_signing_key(self.workspace.keys, None), Emitter(self.workspace))

    def declared(self) -> dict[str, Any]:
        rest = {
            "url": f"{self.url}/flights",
            "cursor_parameter": "since",
            "records": "records",
            "pages": {"style": "next_url", "path": "next"},
            "retries": 0,
            "timeout_seconds": 2,
        }
        return {"name": SOURCE, "rest": rest, "cursor": "flight", "key": ["flight"], **self.keys}

    def answer(self, request: Request) -> Reply:
        if self.reply is not None:
            return self.reply
        since, first = int(request.query.get("since", "0")), int(request.query.get("from", "0"))
        asked = [each for each in self.records if each["flight"] >= since]
        more = first + PAGE < len(asked)
        link = f"{self.url}/flights?since={since}&from={first + PAGE}" if more else None
        return said({"records": asked[first : first + PAGE], "next": link})

    def run(self, **keys: Any) -> Ran:
        in_force = sources_in_force(self.workspace, NAME)
        with state_of(self.workspace.data, NAME, SOURCE).running():
            return Run(self.means, in_force, in_force.source(SOURCE), **keys).go()

    @property
    def state(self) -> State:
        return state_of(self.workspace.data, NAME, SOURCE).read()

    @property
    def landing(self) -> Landing:
        return landing_of(self.workspace.data, NAME, SOURCE)

    @property
    def accepted(self) -> list[int]:
        table = open_lake(self.workspace).find(intake_table(NAME, SOURCE))
        return [] if table is None else sorted(table.frame().select("flight").collect()["flight"])

    @property
    def quarantined(self) -> list[int]:
        table = open_lake(self.workspace).find(quarantine_table(NAME, SOURCE))
        raw = [] if table is None else table.frame().select(RAW).collect()[RAW].to_list()
        return sorted(json.loads(each)["flight"] for each in raw)

    def changes(self) -> list[str]:
        """The actions of the ledger's changes, in order."""
        with Sealer(self.workspace.ledger, self.means.key, self.workspace.settings.log) as sealer:
            sealer.seal_once()
        log = Log(self.workspace.ledger)
        leaves = [json.loads(each) for each in log.leaves(0, log.size)]
        return [each["action"] for each in leaves if each["kind"] == "change"]

    def release(self, reason: str = "it is mended", *, refuse: bool = False) -> None:
        key = self.means.key
        release_source(self.workspace, NAME, SOURCE, reason=reason, principal="os:ops", key=key, refuse=refuse)


@pytest.fixture
def feed(tmp_path: Path) -> Iterator[Feed]:
    with api(lambda _: said([])) as server:
        yield Feed(tmp_path / "w", server)


@pytest.fixture
def held(feed: Feed) -> Feed:
    """A feed that is held: forty good rows are in, and thirty bad ones wait."""
    feed.records = flights(1, 40)
    feed.run()
    feed.records += flights(41, 30, delay=99_999)
    ran = feed.run()
    assert ran.held is not None
    return feed


def test_what_came_is_in_the_table_and_the_next_run_goes_on_behind_it(feed: Feed) -> None:
    feed.records = flights(1, 70) + flights(71, 2, delay=99_999)
    ran = feed.run()
    assert (ran.failed, ran.held) == (None, None)
    assert ran.counts.accepted == 70
    assert ran.counts.quarantined == 2
    assert feed.accepted == list(range(1, 71))
    assert feed.quarantined == [71, 72]
    feed.records += flights(73, 5)
    again = feed.run()
    assert again.counts.accepted == 5
    assert feed.run().landed == 0
    assert feed.accepted == [*range(1, 71), *range(73, 78)]
    assert feed.landing.waiting() == []
    assert feed.state.counts.accepted == 75
    assert feed.state.last_arrival_at is not None
    assert feed.state.failures == 0
    assert "rows_quarantined" in {each.code for each in feed.state.found}


def test_the_next_run_is_due_as_declared_or_at_once_where_there_is_more(feed: Feed) -> None:
    feed.records = flights(1, 200)
    steps = iter([True, True, False])
    ran, between = feed.run(may_go_on=lambda: next(steps)), feed.state
    assert (ran.again_in_seconds, between.last_success_at) == (0, None)
    assert 50 < feed.run().again_in_seconds <= 60
    assert feed.state.last_success_at is not None
    assert feed.accepted == list(range(1, 201))


def test_a_source_that_is_down_is_asked_later_and_later_and_well_when_it_answers(feed: Feed) -> None:
    feed.reply = Reply(b"<html>", status=503)
    pauses = []
    for number in range(1, 4):
        ran = feed.run()
        assert ran.failed == "source_down"
        assert feed.state.failures == number
        pauses.append(ran.again_in_seconds)
    assert pauses[0] <= 5 < pauses[2]
    assert [each.code for each in feed.state.lasting] == ["source_down"]
    feed.reply = None
    assert feed.run().failed is None
    assert feed.state.lasting == ()
    assert feed.state.failures == 0


def test_a_page_of_html_is_another_finding(feed: Feed) -> None:
    feed.reply = Reply(b"<html>log in</html>", headers={"content-type": "text/html"})
    assert feed.run().failed == "not_json"


def test_a_source_is_not_asked_before_it_asked_to_be(feed: Feed) -> None:
    feed.reply = Reply(b"slow down", status=429, headers={"retry-after": "4000"})
    ran = feed.run()
    assert ran.failed == "rate_limited"
    assert 3_900 < ran.again_in_seconds <= 4_000


def test_a_secret_that_is_missing_is_found_and_nothing_is_asked(tmp_path: Path) -> None:
    with api(lambda _: said([])) as server:
        feed = Feed(tmp_path / "w", server)
        declared = feed.declared()
        declared["rest"]["auth"] = {"bearer": {"variable": "NEVER_SET_ANYWHERE"}}
        declare(feed.workspace, declared)
        assert feed.run().failed == "secret_missing"
        assert server.requests == []


def test_a_disk_that_takes_nothing_is_a_finding_and_no_crash(feed: Feed) -> None:
    feed.records = flights(1, 3)
    folder = feed.landing.folder
    folder.parent.mkdir(parents=True)
    folder.write_text("in the way")
    assert feed.run().failed == "failed"
    folder.unlink()
    assert feed.run().failed is None
    assert feed.accepted == [1, 2, 3]


def test_too_many_bad_rows_hold_the_source_and_its_capability(held: Feed) -> None:
    assert held.accepted == list(range(1, 41))
    assert held.quarantined == []
    assert held.state.held is not None
    assert held.state.held.code == "bad_share"
    assert held.state.held.entry is not None
    assert [each.code for each in held.state.lasting] == ["bad_share"]
    standing = holds.find_hold(held.workspace.holds, NAME, held.means.key.verifier)
    assert standing is not None
    assert [each.source for each in standing.holds] == [SOURCE]
    assert held.changes().count("source.held") == 1
    assert held.changes().count("capability.held") == 1


def test_a_held_source_lands_and_waits(held: Feed) -> None:
    held.records += flights(71, 10)
    ran = held.run()
    assert ran.held is not None
    assert ran.landed >= 1
    assert sum(1 for _ in held.landing.waiting()) >= 2
    assert held.accepted == list(range(1, 41))
    assert held.changes().count("source.held") == 1


def test_a_held_source_is_not_asked_for_more_than_may_wait(held: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "MAX_WAITING_BYTES", 10)
    held.records += flights(71, 10)
    assert held.run().landed == 0


def test_a_released_source_goes_on_with_what_waits(held: Feed) -> None:
    held.records += flights(71, 10)
    held.run()
    held.release()
    assert held.state.held is None
    assert held.state.lasting == ()
    assert holds.find_hold(held.workspace.holds, NAME, held.means.key.verifier) is None
    ran = held.run()
    assert ran.held is None
    assert held.accepted == [*range(1, 41), *range(71, 81)]
    assert held.quarantined == list(range(41, 71))
    changes = held.changes()
    assert changes[-2:] == ["capability.released", "source.released"]
    held.records += flights(81, 30, delay=99_999)
    assert held.run().held is not None  # what comes later is judged anew


def test_what_waits_behind_the_held_item_is_judged_as_any(held: Feed) -> None:
    held.records += flights(71, 40, delay=99_999)
    held.run()
    held.release()
    ran = held.run()
    assert ran.held is not None
    assert ran.held.item > 1
    assert held.accepted == list(range(1, 41))


def test_a_held_item_that_is_refused_goes_into_quarantine_whole_and_others_come_in(held: Feed) -> None:
    first = held.state.held
    assert first is not None
    held.records += flights(71, 60)
    held.run()
    held.release("in kilometres", refuse=True)
    assert held.state.refused == {first.item: "in kilometres"}
    assert held.run().held is None
    assert set(range(41, 71)) <= set(held.quarantined)
    assert held.accepted == [*range(1, 41), *(flight for flight in range(71, 131) if flight not in held.quarantined)]
    table = open_lake(held.workspace).table(quarantine_table(NAME, SOURCE))
    rows = table.frame().filter(pl.col(ITEM) == first.item).select(REASON, VIOLATIONS).collect().rows()
    assert len(rows) == PAGE - 1  # a page begins with the record that was the last before
    said = {(reason, each["rule"], each["found"]) for reason, each in ((r, v[0]) for r, v in rows)}
    assert said <= {("rules", "maximum", "99999"), ("refused", "refused", "in kilometres")}
    held.records += flights(131, 5)
    held.run()
    assert held.accepted[-5:] == [131, 132, 133, 134, 135]


def test_only_what_is_held_can_be_released_and_with_a_reason(held: Feed) -> None:
    with pytest.raises(Misuse, match="needs a reason"):
        held.release(" ")
    held.release()
    with pytest.raises(Misuse, match="expected a source that is held"):
        held.release()


def test_a_release_waits_for_a_run_that_is_under_way(held: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mainstay.intake.holding.RELEASE_SECONDS", 0.05)
    with state_of(held.workspace.data, NAME, SOURCE).running(), pytest.raises(Failed, match="held by another process"):
        held.release()


def test_a_hold_that_was_begun_is_finished_by_the_next_run(held: Feed) -> None:
    file = state_of(held.workspace.data, NAME, SOURCE)
    before = file.read().held
    assert before is not None
    file.update(held=replace(before, entry=None))
    (held.workspace.holds / f"{NAME}.json").unlink()
    held.run()
    after = file.read().held
    assert after is not None
    assert after.entry is not None
    assert holds.find_hold(held.workspace.holds, NAME, held.means.key.verifier) is not None
    assert finish_hold(held.workspace, NAME, SOURCE, held.means.key) == after


def test_a_release_that_was_cut_short_leaves_the_source_and_its_capability_held(
    held: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    for moment in ("record_change", "_let_go"):
        with monkeypatch.context() as patched:
            patched.setattr(f"mainstay.intake.holding.{moment}", cut)
            with pytest.raises(KeyboardInterrupt):
                held.release()
        assert holds.find_hold(held.workspace.holds, NAME, held.means.key.verifier) is None
        assert held.run().held is not None
        assert holds.find_hold(held.workspace.holds, NAME, held.means.key.verifier) is not None
        assert held.accepted == list(range(1, 41))
    held.release()
    assert held.run().held is None


def test_a_refused_item_whose_state_was_lost_is_judged_again(held: Feed) -> None:
    held.release("in kilometres", refuse=True)
    (state_of(held.workspace.data, NAME, SOURCE).folder / "state.json").unlink()
    assert held.run().held is not None
    held.release("in kilometres", refuse=True)
    assert held.run().held is None
    assert set(range(41, 71)) <= set(held.quarantined)
    assert held.accepted == list(range(1, 41))


def test_a_hold_whose_state_was_lost_is_found_again(held: Feed) -> None:
    (state_of(held.workspace.data, NAME, SOURCE).folder / "state.json").unlink()
    assert held.run().held is not None
    assert held.accepted == list(range(1, 41))


def test_a_hold_of_the_capability_alone_can_be_released(held: Feed) -> None:
    (state_of(held.workspace.data, NAME, SOURCE).folder / "state.json").unlink()
    held.release()
    assert holds.find_hold(held.workspace.holds, NAME, held.means.key.verifier) is None


def test_counts_are_known_again_when_the_state_is_lost(feed: Feed) -> None:
    feed.records = flights(1, 70) + flights(71, 2, delay=99_999) + flights(1, 3)
    feed.run()
    before = feed.state.counts
    assert (before.accepted, before.quarantined, before.repeated) == (70, 2, 3)
    (state_of(feed.workspace.data, NAME, SOURCE).folder / "state.json").unlink()
    feed.run()
    assert feed.state.counts == before


def test_a_column_that_goes_holds_the_source(feed: Feed) -> None:
    feed.records = flights(1, 60)
    feed.run()
    feed.records += [{"flight": each["flight"], "delay": 3} for each in flights(61, 40)]
    ran = feed.run()
    assert ran.held is not None
    assert ran.held.code == "schema_breaking"
    assert feed.accepted == list(range(1, 61))


def test_a_lost_landing_is_fetched_again_and_nothing_doubles(feed: Feed) -> None:
    feed.records = flights(1, 100)
    feed.run()
    shutil.rmtree(feed.landing.folder)
    feed.records += flights(101, 10)
    assert feed.run().counts.accepted == 10
    assert feed.accepted == list(range(1, 111))


def test_a_service_level_that_fails_is_found_until_it_is_kept(feed: Feed) -> None:
    level = {"property": "freshness", "value": 1, "unit": "d", "element": "departure.at"}
    declare(feed.workspace, feed.declared(), contract=CONTRACT | {"slaProperties": [level]})
    feed.records = [{**each, "at": "2020-01-01T00:00:00Z"} for each in flights(1, 10)]
    feed.run()
    found = {each.code: each for each in feed.state.lasting}
    assert "freshness" in found, feed.state.found
    assert "departure.at" in found["freshness"].detail
    now = datetime.now(UTC).isoformat()
    feed.records += [{**each, "at": now} for each in flights(11, 10)]
    state_of(feed.workspace.data, NAME, SOURCE).update(checked_at=None)
    feed.run()
    assert feed.state.lasting == ()


def test_runs_that_move_something_are_told_to_others(feed: Feed) -> None:
    feed.run()
    feed.records = flights(1, 40) + flights(41, 1, delay=99_999)
    feed.run()
    feed.reply = Reply(b"", status=500)
    feed.run()
    events = [json.loads(line) for line in (feed.workspace.data / "lineage" / "events.jsonl").read_text().splitlines()]
    assert [each["eventType"] for each in events] == ["START", "COMPLETE", "START", "FAIL"]
    assert {each["job"]["name"] for each in events} == {f"intake.{NAME}.{SOURCE}"}
    (read,), wrote = events[1]["inputs"], events[1]["outputs"]
    assert read["name"] == "flights"
    assert {each["name"].rpartition("lake/")[2] for each in wrote} == {
        f"intake/{NAME}/{SOURCE}",
        f"quarantine/{NAME}/{SOURCE}",
    }


def test_progress_is_told(feed: Feed) -> None:
    told: list[str] = []
    feed.records = flights(1, 40)
    feed.run(on_progress=told.append)
    assert any(each.startswith("item 1: ") for each in told)
