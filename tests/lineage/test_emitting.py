from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING
from uuid import RFC_4122, UUID

import pytest

from lineage.emitted import LOG, emitted, events_in, kinds, make_workspace
from mainstay.errors import Failed, Misuse
from mainstay.lineage.emitting import Emitter, standing, uuid7
from mainstay.lineage.events import Assertion
from mainstay.lineage.naming import described, file_dataset, table_dataset

if TYPE_CHECKING:
    from pathlib import Path


def test_a_run_says_when_it_begins_and_ends_what_it_read_and_wrote(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path)
    source, table = file_dataset(tmp_path / "in.csv"), table_dataset("/lake", "t")
    with Emitter(workspace).run("load", inputs=[source], outputs=[table]) as run:
        run.read(source, rows=5, size=70)
        run.read(source, rows=2, size=30, files=1)
        run.wrote(described(table, [("n", "Int64")], version=3), rows=6)
        run.wrote(described(table, [], version=4), rows=1)
    start, complete = emitted(workspace)
    assert (start["eventType"], complete["eventType"]) == ("START", "COMPLETE")
    assert start["run"]["runId"] == complete["run"]["runId"] == run.id
    assert start["job"]["namespace"] == LOG
    assert start["eventTime"] < complete["eventTime"]
    assert [each["name"] for each in start["inputs"]] == [source.name]
    (read,), (wrote,) = complete["inputs"], complete["outputs"]
    statistics = read["inputFacets"]["inputStatistics"]
    assert (statistics["rowCount"], statistics["size"], statistics["fileCount"]) == (7, 100, 1)
    assert wrote["outputFacets"]["outputStatistics"]["rowCount"] == 7
    assert wrote["facets"]["version"]["datasetVersion"] == "4"
    assert [each["name"] for each in wrote["facets"]["schema"]["fields"]] == ["n"]


def test_an_assertion_is_told_once_however_often_it_was_made(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path)
    with Emitter(workspace).run("load") as run:
        for _ in range(3):
            run.read(file_dataset(tmp_path), rows=1, assertions=[Assertion(assertion="contract", success=False)])
    (read,) = emitted(workspace)[-1]["inputs"]
    assert len(read["inputFacets"]["dataQualityAssertions"]["assertions"]) == 1
    assert read["inputFacets"]["inputStatistics"]["rowCount"] == 3


def test_a_run_that_raises_has_failed_and_what_it_raised_goes_on(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path)
    emitter = Emitter(workspace)
    with pytest.raises(Failed), emitter.run("load"):
        raise Failed("the source answered 500", hint="Ask its owner.")
    with pytest.raises(ValueError, match="hunter2"), emitter.run("load"):
        raise ValueError("password hunter2 is wrong")
    with pytest.raises(KeyboardInterrupt), emitter.run("load"):
        raise KeyboardInterrupt
    events = emitted(workspace)
    assert [event["eventType"] for event in events] == ["START", "FAIL", "START", "FAIL", "START", "ABORT"]
    assert events[1]["run"]["facets"]["errorMessage"]["message"] == "the source answered 500"
    assert events[3]["run"]["facets"]["errorMessage"]["message"] == "ValueError"  # its text may hold a secret


def test_a_run_that_moved_nothing_is_not_told_where_that_is_asked(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path)
    emitter = Emitter(workspace)
    with emitter.run("look", only_if_moved=True):
        pass
    with emitter.run("look", only_if_moved=True) as run:
        run.wrote(table_dataset("/lake", "t"), rows=1)
    with pytest.raises(Failed), emitter.run("look", only_if_moved=True):
        raise Failed("no")
    events = emitted(workspace)
    assert kinds(events) == [("look", kind) for kind in ("START", "COMPLETE", "START", "FAIL")]
    assert events[0]["eventTime"] < events[1]["eventTime"]


def test_a_run_names_the_one_that_started_it(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path)
    emitter = Emitter(workspace)
    with emitter.run("outer") as outer, emitter.run("inner", parent=outer):
        pass
    inner = next(event for event in emitted(workspace) if event["job"]["name"] == "inner")
    parent = inner["run"]["facets"]["parent"]
    assert parent["run"]["runId"] == outer.id
    assert parent["job"] == {"namespace": LOG, "name": "outer"}


def test_events_go_to_the_file_that_the_settings_name(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, "kept/lineage.jsonl")
    with Emitter(workspace).run("load"):
        pass
    assert kinds(events_in(tmp_path / "kept" / "lineage.jsonl")) == [("load", "START"), ("load", "COMPLETE")]
    assert standing(workspace).place == str(tmp_path / "kept" / "lineage.jsonl")


@pytest.mark.parametrize(
    "place", ["ftp://x.example.com", "http://u:p@x.example.com", "https://x.example.com?a=1", "http://"]
)
def test_a_place_that_is_none_is_told_and_no_password_is_repeated(place: str, tmp_path: Path) -> None:
    with pytest.raises(Misuse, match=r"lineage: expected a URL") as caught:
        Emitter(make_workspace(tmp_path, place), {})
    assert "u:p" not in str(caught.value)


def test_what_cannot_be_kept_is_counted_and_the_run_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a-file").write_text("")
    workspace = make_workspace(tmp_path, "a-file/events.jsonl")
    with caplog.at_level(logging.WARNING), Emitter(workspace).run("load"):
        done = True
    assert done
    found = standing(workspace)
    assert (found.lost, found.waiting) == (2, 0)
    assert found.problem
    assert caplog.text.count("an event of load was lost") == 2


def test_run_ids_are_uuids_of_version_7_that_rise_with_time() -> None:
    ids = [uuid7() for _ in range(100)]
    assert all(each.version == 7 and each.variant == RFC_4122 for each in ids)
    assert [each.int >> 80 for each in ids] == sorted(each.int >> 80 for each in ids)
    assert len(set(ids)) == 100
    assert re.fullmatch(r"[0-9a-f-]{36}", str(ids[0]))
    assert UUID(str(ids[0])) == ids[0]
