"""The judges of a source at its real door: what is held, what of it was written, and whom it would hurt."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest

import tiny
from mainstay.catalog.releases import publish_canary
from mainstay.cli.versions import record_registration
from mainstay.intake.declared import sources_in_force
from mainstay.intake.door import Door
from mainstay.intake.hurt import find_hurt, shown
from mainstay.intake.judging import MEMORY, Judging
from mainstay.intake.landing import Landing, landing_of
from mainstay.intake.quarantine import Chosen
from mainstay.intake.quarantine_settling import Settler
from mainstay.intake.types import ITEM, Held, intake_table, quarantine_table
from mainstay.lake.lake import Lake, open_lake
from mainstay.signing import load_signing_key

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mainstay.intake.landing import Item, Kind
    from mainstay.intake.types import Taken
    from mainstay.workspace import Workspace

SOURCE: dict[str, Any] = {"name": "feed", "files": {"folder": "in"}, "bad_share_rows": 200}


def rows(count: int, seed: int = 0, bad: int = 0) -> pl.DataFrame:
    """So many rows, of which the last are beyond the bounds of the contract."""
    random = np.random.default_rng(seed)
    values = np.concatenate([random.uniform(1, 60, count - bad), np.full(bad, 1_000.0)])
    return pl.DataFrame({"a": values, "b": random.lognormal(1, 0.5, count)})


class Feed:
    """A source of the tiny capability in production, and what happens to it at its door."""

    def __init__(self, workspace: Workspace, released_to: int = 0) -> None:
        self.workspace = workspace
        self.lake = open_lake(workspace)
        self.landing: Landing = landing_of(workspace.data, tiny.NAME, "feed")
        self.restart(released_to)

    def restart(self, released_to: int = 0) -> None:
        """As another process would take it up."""
        in_force = sources_in_force(self.workspace, tiny.NAME)
        source = in_force.source("feed")
        self.judging = Judging(self.workspace, self.lake, in_force, source, self.landing, released_to)
        described = in_force.described(source)
        self.door = Door(self.lake, tiny.NAME, source, in_force.contract, described, judge=self.judging)

    def land(self, frame: pl.DataFrame, kind: Kind = "parquet") -> Item:
        write: dict[Kind, Callable[[Path], None]] = {
            "parquet": frame.write_parquet,
            "csv": frame.write_csv,
            "jsonl": frame.write_ndjson,
        }
        with self.landing.begin(kind) as draft:
            write[kind](draft.path)
            return draft.land(origin="by hand")

    def take(self, item: Item) -> Taken:
        return self.door.take(item, self.landing.path(item))

    def feed(self, frame: pl.DataFrame, kind: Kind = "parquet") -> Taken:
        return self.take(self.land(frame, kind))

    def held(self, frame: pl.DataFrame, kind: Kind = "parquet") -> Held:
        with pytest.raises(Held) as held:
            self.feed(frame, kind)
        return held.value

    def items(self, name: str) -> list[int]:
        """The items that a table has rows of."""
        table = self.lake.find(name)
        found = [] if table is None else table.frame().select(pl.col(ITEM).unique()).collect()[ITEM].to_list()
        return sorted(found)


@pytest.fixture
def feed(tmp_path: Path) -> Feed:
    workspace, _ = tiny.make_served(tmp_path / "w", sources=[SOURCE])
    return Feed(workspace)


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_too_many_bad_rows_stop_the_feed_and_nothing_of_the_part_is_written(kind: Kind, feed: Feed) -> None:
    assert feed.feed(rows(300, 1, bad=5), kind).quarantined == 5
    held = feed.held(rows(100, 2, bad=30), kind)
    assert held.hold.code == "bad_share"
    assert "of the last 200 rows are bad" in held.hold.reason
    assert feed.items(intake_table(tiny.NAME, "feed")) == [1]
    assert feed.items(quarantine_table(tiny.NAME, "feed")) == [1]
    assert [item.number for item in feed.landing.waiting()] == [1, 2]


def test_another_process_goes_on_with_the_same_window(feed: Feed) -> None:
    feed.feed(rows(300, 1))
    feed.restart()
    assert feed.feed(rows(50, 2, bad=10)).quarantined == 10
    feed.restart()
    assert feed.held(rows(5, 20, bad=1)).hold.code == "bad_share"


def test_a_released_item_goes_through_and_the_window_begins_anew(feed: Feed) -> None:
    feed.feed(rows(300, 1))
    item = feed.land(rows(100, 2, bad=30))
    with pytest.raises(Held):
        feed.take(item)
    feed.restart(released_to=item.number)
    assert feed.take(item).quarantined == 30
    assert feed.feed(rows(100, 3, bad=5)).quarantined == 5
    feed.restart(released_to=item.number)
    assert feed.held(rows(100, 4, bad=50)).hold.code == "bad_share"


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_a_renamed_column_stops_the_feed_and_names_the_versions_it_would_hurt(kind: Kind, feed: Feed) -> None:
    feed.feed(rows(300, 1), kind)
    hold = feed.held(rows(300, 2).rename({"a": "a_total"}), kind).hold
    assert hold.code == "schema_breaking"
    assert "column a does not come any more" in hold.reason
    assert "a_total is probably it under another name" in hold.reason
    assert "It would hurt tiny sha256:" in hold.reason
    assert hold.reason.endswith("in production (a)")
    assert feed.items(intake_table(tiny.NAME, "feed")) == [1]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_another_type_stops_the_feed(kind: Kind, feed: Feed) -> None:
    feed.feed(rows(300, 1), kind)
    hold = feed.held(rows(300, 2).with_columns(a=pl.lit("many")), kind).hold
    assert hold.code == "schema_breaking"
    assert "column a is number in the contract, and comes as string" in hold.reason


def test_another_unit_stops_the_feed_though_every_row_keeps_the_contract(feed: Feed) -> None:
    for seed in range(3):
        feed.feed(rows(300, seed))
    feed.restart()
    hold = feed.held(rows(300, 9).with_columns(pl.col("b") * 2.54)).hold
    assert hold.code == "unit_changed"
    assert "inches to centimetres" in hold.reason


def test_a_new_column_flows_and_is_told_once_it_was_taken(feed: Feed) -> None:
    feed.feed(rows(300, 1).with_columns(c=pl.lit("x")))
    (found,) = feed.judging.take_findings()
    assert (found.code, found.field, found.item) == ("column_new", "c", 1)
    assert feed.judging.take_findings() == ()
    assert json.loads((feed.landing.folder.parent / MEMORY).read_bytes()) == {"a": "number", "b": "number"}


# Whom it would hurt.


def test_every_version_in_force_that_reads_the_fields_is_named(feed: Feed) -> None:
    workspace = feed.workspace
    folder = tiny.write_folder(workspace.capabilities / tiny.NAME, deadline_ms=777)
    canary = record_registration(workspace, folder, None).version
    key = load_signing_key(workspace.keys, None)
    publish_canary(workspace, tiny.NAME, canary, 10.0, key=key, reason="a trial", principal="os:ops")
    in_force = sources_in_force(workspace, tiny.NAME)
    described = in_force.contract.schema[0]
    found = find_hurt(workspace, in_force.contract, described, ["a", "note", "unheard-of"])
    assert [(each.stage, each.fields) for each in found] == [("production", ("a", "note")), ("canary", ("a", "note"))]
    assert found[1].version == canary
    assert shown(found).startswith("tiny sha256:")
    assert find_hurt(workspace, in_force.contract, described, ["unheard-of"]) == []


def test_a_version_that_cannot_be_read_is_named_as_it_may_be_hurt(feed: Feed) -> None:
    workspace = feed.workspace
    in_force = sources_in_force(workspace, tiny.NAME)
    for path in workspace.versions.rglob("contract.odcs.yaml"):
        path.chmod(0o600)
        path.write_text("{}")
    (found,) = find_hurt(workspace, in_force.contract, in_force.contract.schema[0], ["a"])
    assert found.fields == ()
    assert str(found).endswith("in production (what it declares cannot be read)")


def test_an_empty_lake_is_asked_nothing_until_something_comes(tmp_path: Path) -> None:
    workspace, _ = tiny.make_served(tmp_path / "w", sources=[SOURCE])
    feed = Feed(workspace)
    feed.lake = Lake(tmp_path / "nowhere")
    feed.restart()
    assert not (tmp_path / "nowhere").exists()


def test_what_comes_out_of_quarantine_again_says_nothing_of_the_source(feed: Feed) -> None:
    feed.feed(rows(2_000, bad=8))
    settler = Settler(feed.workspace, feed.lake, tiny.NAME, "feed")
    done = settler.settle("replayed", Chosen(), reason="a try", by="os:ops")
    assert done is not None
    (item,) = (each for each in feed.landing.waiting() if each.replayed)
    assert feed.take(item).quarantined == 8  # and nothing is held, though every row of it is bad
    feed.restart()
    assert feed.feed(rows(100, seed=1, bad=1)).accepted == 99  # 9 of the last 200 rows that the source gave are bad
